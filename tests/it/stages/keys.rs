//! What makes two calls one, and what does not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use icechest::{Chest, Digest, Key, Keymap, Round, Stage};
use serde::Serialize;

fn stage() -> Stage {
    Chest::temporary().unwrap().stage("stage")
}

fn key(value: impl Serialize) -> Key {
    stage().arg("x", value).key::<f64>().unwrap()
}

#[test]
fn the_order_of_arguments_and_of_maps_plays_no_part() {
    let forward: HashMap<String, i32> = (0..50).map(|i| (format!("k{i}"), i)).collect();
    let backward: BTreeMap<String, i32> = (0..50).rev().map(|i| (format!("k{i}"), i)).collect();
    assert_eq!(key(&forward), key(&backward));
    let (one, other) = (stage().arg("a", 1).arg("b", 2), stage().arg("b", 2).arg("a", 1));
    assert_eq!(one.key::<f64>().unwrap(), other.key::<f64>().unwrap());
}

#[test]
fn what_differs_has_another_key() {
    let keys = [
        key(1),
        key("1"),
        key(1.0),
        key([1]),
        key(("1",)),
        key(Some(Some(2))),
        key(()),
        key(["a", "b"]),
        key(["a,b"]),
        key(["a", "", "b"]),
        key("a\0b"),
        key(true),
        key(0.0),
        key(-0.0),
        key(f64::NAN),
        key(Digest::of_bytes(b"1")),
        key(Digest::of_bytes(b"1").to_string()),
        stage().arg("y", 1).key::<f64>().unwrap(),
        stage().arg("x", 1).key::<f32>().unwrap(),
        stage().arg("x", 1).arg("y", 1).key::<f64>().unwrap(),
        stage().version(2).arg("x", 1).key::<f64>().unwrap(),
        stage().module("m").arg("x", 1).key::<f64>().unwrap(),
        stage().source("s").arg("x", 1).key::<f64>().unwrap(),
        stage().typed().arg("x", 1u8).key::<f64>().unwrap(),
        stage().typed().arg("x", 1u16).key::<f64>().unwrap(),
        Chest::temporary().unwrap().stage("stag").version("e").arg("x", 1).key::<f64>().unwrap(),
        Chest::temporary().unwrap().stage("sta").module("ge").arg("x", 1).key::<f64>().unwrap(),
    ];
    let distinct: HashSet<&Key> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}

#[test]
fn equal_values_of_other_types_are_one_unless_types_count() {
    assert_eq!(key(1u8), key(1i64));
    assert_eq!(key(0.5f32), key(0.5f64));
    assert_eq!(key(f64::NAN), key(-f64::NAN));
    let typed = stage().typed().default("mode", "fast");
    let calls = [typed.call(), typed.arg("mode", "fast"), typed.arg("mode", "slow")];
    let [without, with, other] = calls.map(|call| call.key::<f64>().unwrap());
    assert!(without == with && with != other);
}

#[test]
fn a_hundred_thousand_near_equal_arguments_have_keys_of_their_own() {
    let stage = stage();
    let mut keys = HashSet::new();
    let mut add = |key: Key| assert!(keys.insert(key));
    for i in 0..25_000u64 {
        add(stage.arg("x", i).key::<f64>().unwrap());
        add(stage.arg("x", f64::from_bits(1f64.to_bits() + i)).key::<f64>().unwrap());
        add(stage.arg("x", [i / 100, i % 100]).key::<f64>().unwrap());
        add(stage.arg("x", format!("{i:05}")).key::<f64>().unwrap());
    }
    assert_eq!(keys.len(), 100_000);
}

/// Keys as every release and every machine makes them. A change of this table loses what users have stored.
#[test]
fn keys_are_the_same_in_every_release() {
    #[derive(Serialize)]
    struct Settings {
        rate: f64,
        layers: Vec<u32>,
        name: Option<&'static str>,
    }
    let settings = Settings { rate: 0.1, layers: vec![64, 32], name: None };
    let table = [
        (stage().call().key::<f64>(), "ec7b2b128c4f885e1c95c14974039f15"),
        (stage().arg("x", 1).key::<f64>(), "0e391803e8c89bca5e7fada7bc995b09"),
        (stage().arg("x", -1.5).key::<Vec<u8>>(), "7f38c4caa0c7ceb943442389c3361f56"),
        (stage().arg("x", "text\n").arg("y", true).key::<String>(), "2850d026ca5652d219cfba9fd78ae324"),
        (stage().version(2).module("crate::m").arg("s", settings).key::<f64>(), "1e99ec8f56db30e0bfb7961cc69431a1"),
        (stage().typed().arg("x", 7u8).key::<f64>(), "b124cac24401eb9b3bd069b3bdfbf665"),
        (stage().round(Round::to(0.1)).arg("x", 0.30001).key::<f64>(), "c1022b33eee78832976670b35df2b4ce"),
        (stage().arg("f", Digest::of_bytes(b"content")).key::<f64>(), "4ae68db8b846c2d5afc5efb1573052c7"),
    ];
    let found = table.each_ref().map(|(key, _)| key.as_ref().unwrap().canonical().to_owned());
    let expected = table.each_ref().map(|(_, digest)| format!(r#"["stage",{{"$digest":"{digest}"}}]"#));
    assert_eq!(found, expected);
}

#[test]
fn keymaps_make_other_keys_of_the_same_calls() {
    let chest = Chest::temporary().unwrap();
    let key = |keymap: Keymap| chest.stage("f").version(3).keymap(keymap).arg("x", 1).key::<f64>().unwrap();
    assert_eq!(key(Keymap::Text), Key::from("f 3 (x=1) -> f64"));
    assert_eq!(key(Keymap::Raw).canonical(), r#"["f","","3","","f64",[["x",1]]]"#);
    assert!(key(Keymap::Serialized).canonical().starts_with(r#"{"$bytes":"#));
    let own = key(Keymap::custom(|signature| Ok(Key::from((signature.name(), signature.arguments().count() as u64)))));
    assert_eq!(own, Key::from(("f", 1)));

    // Each finds its own again, and not the others'.
    for (i, keymap) in [Keymap::Hashed, Keymap::Raw, Keymap::Text, Keymap::Serialized].into_iter().enumerate() {
        let stage = chest.stage("g").keymap(keymap);
        for _ in 0..2 {
            assert_eq!(*stage.arg("x", 1).run(|| i as u64).unwrap(), i as u64);
        }
    }
}

#[test]
fn ignored_arguments_are_not_even_read() {
    struct Unreadable;
    impl Serialize for Unreadable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("unreadable"))
        }
    }
    let chest = Chest::temporary().unwrap();
    let error = chest.stage("f").arg("log", Unreadable).run(|| 1).unwrap_err();
    assert!(error.to_string().contains("unreadable"), "{error}");
    assert_eq!(*chest.stage("f").ignore(["log"]).arg("log", Unreadable).run(|| 1).unwrap(), 1);
    let twice = chest.stage("f").arg("x", 1).arg("x", 2).run(|| 1).unwrap_err();
    assert!(twice.to_string().contains("x is given twice"), "{twice}");
}

#[test]
fn defaults_are_arguments_that_need_not_be_given() {
    let chest = Chest::temporary().unwrap();
    let stage = chest.stage("f").default("width", 3);
    let key = |call: icechest::Call| call.key::<f64>().unwrap();
    assert_eq!(key(stage.call()), key(stage.arg("width", 3)));
    assert_ne!(key(stage.call()), key(stage.arg("width", 4)));
    assert_eq!(key(stage.call()), key(chest.stage("f").arg("width", 3)));
}

#[test]
fn a_stage_can_be_called_with_what_makes_no_key() {
    let chest = Chest::temporary().unwrap();
    let missing = chest.path().join("missing");
    let error = chest.stage("f").path("data", &missing).run(|| 1).unwrap_err();
    assert_eq!(error.path(), Some(missing.as_path()));
    assert_eq!(error.kind(), icechest::ErrorKind::Io);
    let stage = chest.stage("f").when_unkeyable(icechest::WhenUnkeyable::Call);
    let run = stage.path("data", &missing).run_with_status(|| 1).unwrap();
    assert_eq!((*run.value, run.status), (1, icechest::Status::Called));
    assert!(chest.is_empty().unwrap());
    assert_eq!(stage.stats().called, 1);
    assert_eq!(stage.stats().time_saved, Duration::ZERO);
}

#[test]
fn files_and_folders_count_by_their_content() {
    let dir = tempfile::tempdir().unwrap();
    let chest = Chest::temporary().unwrap();
    let (one, other) = (dir.path().join("one.csv"), dir.path().join("other.csv"));
    std::fs::write(&one, "a,b\n1,2\n").unwrap();
    std::fs::copy(&one, &other).unwrap();
    let key = |path: &std::path::Path| chest.stage("f").path("data", path).key::<f64>().unwrap();
    let before = key(&one);
    assert_eq!(before, key(&other));
    for i in 0..20 {
        // Of the same length, and often with the same time.
        std::fs::write(&other, format!("a,b\n1,{}\n", (i + 3) % 10)).unwrap();
        let expected = if (i + 3) % 10 == 2 { key(&one) } else { key(&other) };
        assert_eq!(before == expected, (i + 3) % 10 == 2, "{i}");
        assert_eq!(key(&other) == before, (i + 3) % 10 == 2, "{i}");
    }
    // The path itself, where it is an argument of its own.
    assert_ne!(
        chest.stage("f").arg("data", one.to_str()).key::<f64>().unwrap(),
        chest.stage("f").arg("data", other.to_str()).key::<f64>().unwrap()
    );

    #[derive(Serialize)]
    struct Inputs {
        files: Vec<icechest::FileContent>,
    }
    let inputs = |path: &std::path::Path| key_of(&chest, &Inputs { files: vec![path.into()] });
    std::fs::copy(&one, &other).unwrap();
    assert_eq!(inputs(&one), inputs(&other));
    std::fs::write(&other, "else").unwrap();
    assert_ne!(inputs(&one), inputs(&other));
    let error = chest.stage("f").arg("data", icechest::FolderContent::new(&one)).key::<f64>().unwrap_err();
    assert!(error.to_string().contains("a file, not a folder"), "{error}");
}

fn key_of(chest: &Chest, value: &impl Serialize) -> Key {
    chest.stage("f").arg("inputs", value).key::<f64>().unwrap()
}
