//! A later run: what it finds, what it refuses, what is damaged.

use std::fs;
use std::path::Path;

use icechest::{Chest, ErrorKind};
use ndarray::{Array1, Array2};
use polars_core::df;
use polars_core::frame::DataFrame;
use serde_json::json;

use crate::helpers::dir;

fn fill(chest: &Chest) {
    chest.insert("array", Array2::from_shape_fn((300, 200), |(i, j)| (i * j) as f64)).unwrap();
    chest.insert("noise", Array1::from_iter((0..50_000u32).map(|i| i.wrapping_mul(2_654_435_761)))).unwrap();
    chest.insert("frame", df!("a" => (0..10_000).collect::<Vec<i64>>()).unwrap()).unwrap();
    chest.insert("list", (0..10_000u64).collect::<Vec<_>>()).unwrap();
    chest.insert("json", json!({"a": [1, 2, 3]})).unwrap();
    chest.flush().unwrap();
}

fn open(dir: &Path) -> Chest {
    Chest::builder().inline_limit(0).open(dir).unwrap()
}

/// Reads a value and says which kind of error came.
fn read(chest: &Chest, key: &str) -> Result<(), icechest::Error> {
    match key {
        "array" => chest.get::<Array2<f64>>(key).map(|value| assert_eq!(value[[299, 199]], 299.0 * 199.0)),
        "noise" => chest.get::<Array1<u32>>(key).map(|value| assert_eq!(value[1], 2_654_435_761)),
        "frame" => chest.get::<DataFrame>(key).map(|value| assert_eq!(value.height(), 10_000)),
        "list" => chest.get::<Vec<u64>>(key).map(|value| assert_eq!(value.len(), 10_000)),
        _ => chest.get::<serde_json::Value>(key).map(|value| assert_eq!(value["a"][2], 3)),
    }
}

const KEYS: [&str; 5] = ["array", "noise", "frame", "list", "json"];

#[test]
fn everything_is_there_and_cold() {
    let dir = dir();
    fill(&open(dir.path()));
    let chest = open(dir.path());
    assert_eq!(chest.keys().unwrap(), KEYS.map(Into::into));
    let stats = chest.stats().unwrap();
    assert_eq!((stats.values, stats.resident, stats.loads, stats.dirty), (5, 0, 0, 0));
    for info in chest.infos().unwrap() {
        assert!(!info.is_resident && !info.is_dirty && info.written.is_some() && info.stored_bytes > 0);
    }
    KEYS.into_iter().for_each(|key| read(&chest, key).unwrap());
    assert_eq!(chest.stats().unwrap().loads, 5);
}

#[test]
fn opening_reads_no_values_and_damage_is_told_by_key_and_file() {
    let dir = dir();
    let chest = open(dir.path());
    fill(&chest);
    let files = KEYS.map(|key| chest.file(key).unwrap().unwrap());
    drop(chest);
    for (damaged, file) in KEYS.iter().zip(&files) {
        let good = fs::read(file).unwrap();
        let mut flipped = good.clone();
        // Within the payload also of the smallest.
        flipped[10] ^= 0x10;
        let shorter = good[..good.len() - 1].to_vec();
        let longer = [&*good, b"x"].concat();
        for bad in [vec![0x5a; good.len()], flipped, shorter, longer, Vec::new()] {
            fs::write(file, bad).unwrap();
            let chest = open(dir.path());
            assert_eq!(chest.keys().unwrap().len(), 5);
            let error = read(&chest, damaged).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            assert_eq!((error.key(), error.path()), (Some(&(*damaged).into()), Some(file.as_path())));
            KEYS.iter().filter(|key| *key != damaged).for_each(|key| read(&chest, key).unwrap());
        }
        fs::remove_file(file).unwrap();
        let error = read(&open(dir.path()), damaged).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Damaged, Some(file.as_path())), "{error}");
        fs::write(file, good).unwrap();
        read(&open(dir.path()), damaged).unwrap();
    }
}

#[test]
fn every_flipped_byte_of_a_payload_is_noticed() {
    let dir = dir();
    let chest = Chest::builder().inline_limit(0).compression(icechest::Compression::Never).open(dir.path()).unwrap();
    chest.insert("k", vec![7u32, 8, 9]).unwrap();
    chest.flush().unwrap();
    let file = chest.file("k").unwrap().unwrap();
    drop(chest);
    let good = fs::read(&file).unwrap();
    for index in 0..20 {
        let mut bad = good.clone();
        bad[index] ^= 1;
        fs::write(&file, bad).unwrap();
        let chest = open(dir.path());
        assert_eq!(chest.get::<Vec<u32>>("k").unwrap_err().kind(), ErrorKind::Damaged);
    }
}

#[test]
fn a_damaged_value_can_be_replaced_or_removed() {
    let dir = dir();
    let chest = open(dir.path());
    fill(&chest);
    let files = ["list", "json"].map(|key| chest.file(key).unwrap().unwrap());
    drop(chest);
    files.iter().for_each(|file| fs::write(file, "garbage").unwrap());
    let chest = open(dir.path());
    assert_eq!(chest.take::<Vec<u64>>("list").unwrap_err().kind(), ErrorKind::Damaged);
    assert!(chest.remove("list").unwrap());
    chest.insert("json", json!({"a": [1, 2, 3]})).unwrap();
    drop(chest);
    let chest = open(dir.path());
    assert!(!chest.contains_key("list").unwrap());
    read(&chest, "json").unwrap();
}

#[test]
fn a_chest_of_a_newer_format_is_a_clear_error() {
    let dir = dir();
    fill(&open(dir.path()));
    let manifest = dir.path().join("icechest.json");
    let old = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, r#"{"format":"icechest","version":999}"#).unwrap();
    let error = Chest::open(dir.path()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Unsupported, Some(manifest.as_path())));
    assert!(error.to_string().contains("999") && error.to_string().contains("newer"), "{error}");
    fs::write(&manifest, old).unwrap();
    read(&open(dir.path()), "list").unwrap();
}

#[test]
fn a_directory_that_is_no_chest_is_a_clear_error_and_unchanged() {
    let dir = dir();
    fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    let error = Chest::open(dir.path()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Invalid, Some(dir.path())));
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let file = dir.path().join("thesis.tex");
    assert_eq!(Chest::open(&file).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(fs::read_to_string(file).unwrap(), "years of work");
}

#[test]
fn a_chest_without_its_catalog_or_with_garbage_for_it_is_damaged() {
    let dir = dir();
    fill(&open(dir.path()));
    let catalog = dir.path().join("catalog.sqlite");
    fs::write(&catalog, vec![0x5a; 8192]).unwrap();
    let error = Chest::open(dir.path()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Damaged, Some(catalog.as_path())), "{error}");
    fs::remove_file(&catalog).unwrap();
    let error = Chest::open(dir.path()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Damaged, Some(catalog.as_path())), "{error}");
    for garbage in ["", "{", "[]", r#"{"format":"zarr","version":1}"#, r#"{"format":"icechest"}"#] {
        fs::write(dir.path().join("icechest.json"), garbage).unwrap();
        let error = Chest::open(dir.path()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Invalid), "{garbage}: {error}");
    }
}

#[test]
fn a_chest_can_be_moved_and_copied() {
    let dir = dir();
    let (first, second) = (dir.path().join("first"), dir.path().join("deep/second"));
    fill(&open(&first));
    fs::create_dir(dir.path().join("deep")).unwrap();
    fs::rename(&first, &second).unwrap();
    KEYS.into_iter().for_each(|key| read(&open(&second), key).unwrap());
    assert!(!first.exists());
}

#[test]
fn replaced_and_removed_values_leave_no_files() {
    let dir = dir();
    let chest = open(dir.path());
    for _ in 0..3 {
        fill(&chest);
    }
    assert_eq!(fs::read_dir(dir.path().join("values")).unwrap().count(), 5);
    chest.remove_many(KEYS).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("values")).unwrap().count(), 0);
    fill(&chest);
    chest.clear().unwrap();
    assert_eq!(fs::read_dir(dir.path().join("values")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn two_chests_on_one_directory_see_each_other() {
    let dir = dir();
    let (one, two) = (open(dir.path()), open(dir.path()));
    one.insert("k", 1).unwrap();
    one.flush().unwrap();
    assert_eq!(*two.get::<i32>("k").unwrap(), 1);
    for i in 2..50 {
        let (writer, reader) = if i % 2 == 0 { (&two, &one) } else { (&one, &two) };
        writer.insert("k", i).unwrap();
        writer.flush().unwrap();
        assert_eq!(*reader.get::<i32>("k").unwrap(), i);
        assert_eq!(*reader.get::<i32>("k").unwrap(), i);
    }
    one.remove("k").unwrap();
    assert!(two.find::<i32>("k").unwrap().is_none());
    assert!(!two.contains_key("k").unwrap());
    assert!(two.is_empty().unwrap());
}

#[test]
fn a_value_of_another_type_by_another_chest_is_seen() {
    let dir = dir();
    let (one, two) = (open(dir.path()), open(dir.path()));
    one.insert("k", 1).unwrap();
    one.flush().unwrap();
    assert_eq!(*one.get::<i32>("k").unwrap(), 1);
    two.insert("k", "text").unwrap();
    two.flush().unwrap();
    assert_eq!(*one.get::<String>("k").unwrap(), "text");
    assert_eq!(one.info("k").unwrap().type_name, "String");
    assert_eq!(one.get::<i32>("k").unwrap_err().kind(), ErrorKind::WrongType);
}

#[test]
fn a_held_value_is_not_given_when_another_chest_replaced_it() {
    let dir = dir();
    let (one, two) = (Chest::builder().budget(0).open(dir.path()).unwrap(), open(dir.path()));
    one.insert("k", 1).unwrap();
    let held = one.get::<i32>("k").unwrap();
    two.insert("k", 2).unwrap();
    two.flush().unwrap();
    assert_eq!((*held, *one.get::<i32>("k").unwrap()), (1, 2));
}
