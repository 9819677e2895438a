//! Keys: whatever they are, they come back as they went in, and stay inside the directory.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use icechest::{Chest, Digest, ErrorKind, Key};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::helpers::dir;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Run {
    seed: u64,
    rate: f64,
    tags: BTreeMap<String, Option<bool>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Stage {
    Start,
    Train(u32),
    Score { fold: i8, of: (u8, String) },
}

/// Texts that file systems, shells, SQL and JSON are known to trip over.
fn hostile_texts() -> Vec<String> {
    #[rustfmt::skip]
    let mut all: Vec<String> = [
        "", " ", "  ", ".", "..", "...", "/", "//", "\\", "~", "~root", "-", "--help", "-rf", "*", "?", "%", "%00", "%2e%2e",
        "../..", "../../../../tmp/x", "..\\..", "/etc/passwd", "/", "C:\\Windows", "\\\\server\\share", "file:///etc",
        "a/b", "a\\b", "a:b", "a|b", "a<b>", "a\"b", "a'b", "a;b", "a&b", "$(reboot)", "`reboot`", "${HOME}", "%PATH%",
        "\0", "a\0b", "\n", "a\nb", "\r\n", "\t", "\u{1b}[31m", "\u{7f}", "\u{80}", "\u{feff}", "\u{200b}", "\u{202e}txt",
        "\u{fffd}", "\u{ffff}", "\u{10ffff}", "🧊", "👩‍👩‍👧", "é", "e\u{301}", "ﬁ", "fi", "ß", "ẞ", "ss", "İ", "i̇", "Å", "Å",
        "ａ", "東京", "مرحبا", "שלום", "नमस्ते", "CON", "con", "PRN", "AUX", "NUL", "nul.txt", "COM1", "COM9", "LPT1", "CON.",
        "values", "tmp", "icechest.json", "catalog.sqlite", "catalog.sqlite-wal", ".hidden", "trailing.", "trailing ", " leading",
        "null", "true", "false", "1", "-1", "1.0", "1e5", "NaN", "[]", "{}", "[1]", "\"quoted\"", "\\u0041", "\\",
        "{\"$bytes\":\"00ff\"}", "{\"$path\":\"a\"}", "{\"$digest\":\"00\"}", "{\"$map\":[]}", "{\"$int\":\"1\"}", "$bytes",
        "{\"$variant\":[\"Start\"]}", "'; DROP TABLE entries; --", "\" OR 1=1", "Robert'); --", "\u{0}\u{0}", "a b", "A b", "a  b",
    ]
    .map(str::to_owned)
    .into();
    all.extend((0..32u8).map(|c| format!("control {}", char::from(c))));
    all.extend(["x", "é", "🧊", "\0", "\"", "/", "../"].map(|part| part.repeat(10_000 / part.chars().count())));
    all.extend((0..300).map(|i| format!("{}{i}", "common prefix ".repeat(30))));
    all.extend((0..300).map(|i| format!("{i}{}", " common suffix".repeat(30))));
    // Differ only in case.
    all.extend((0..256u32).map(|bits| {
        let flip = |(i, c): (usize, char)| if bits >> i & 1 == 1 { c.to_ascii_uppercase() } else { c };
        "abcdefgh".chars().enumerate().map(flip).collect()
    }));
    all.extend((0..200u32).filter_map(|i| char::from_u32(i * 5531)).map(|c| format!("{c}{c}")));
    all
}

/// A key and what it must be read back as.
struct Hostile {
    key: Key,
    check: Box<dyn Fn(&Key)>,
}

fn hostile<T>(key: Key, value: T) -> Hostile
where
    T: DeserializeOwned + PartialEq + Debug + 'static,
{
    Hostile { key, check: Box::new(move |key| assert_eq!(key.to::<T>().unwrap(), value, "{key}")) }
}

fn of<T>(value: T) -> Hostile
where
    T: Serialize + DeserializeOwned + PartialEq + Debug + 'static,
{
    hostile(Key::of(&value).unwrap(), value)
}

fn hostile_keys() -> Vec<Hostile> {
    let mut all = Vec::new();
    for text in hostile_texts() {
        all.push(hostile(Key::from(&text), text.clone()));
        if text.len() < 100 {
            all.push(hostile(Key::from((text.as_str(),)), (text.clone(),)));
            all.push(hostile(Key::from(text.as_bytes()), text.clone().into_bytes()));
            let path = PathBuf::from(&text);
            all.push(Hostile {
                key: Key::from(&path),
                check: Box::new(move |key| assert_eq!(key.as_path().unwrap().as_os_str(), path.as_os_str())),
            });
            all.push(hostile(Key::from((text.as_str(), 1, true)), (text.clone(), 1, true)));
            all.push(of(BTreeMap::from([(text.clone(), text.clone())])));
        }
    }
    let integers = [i128::MIN, i128::MAX, i64::MIN.into(), i128::from(i64::MIN) - 1, i64::MAX.into(), u64::MAX.into()];
    let near = [-1, 0, 1].map(|offset| integers.map(|n| n.wrapping_add(offset)));
    all.extend(near.into_iter().flatten().map(|n| hostile(Key::from(n), n)));
    all.push(hostile(Key::from(u128::MAX), u128::MAX));
    all.extend((-50..50i32).map(|n| hostile(Key::from(n), n)));
    all.extend([true, false].map(|flag| hostile(Key::from(flag), flag)));
    all.extend([0.5, -0.0, 1e300, f64::MIN_POSITIVE, f64::INFINITY, f64::NEG_INFINITY].map(of));
    all.push(of(None::<u8>));
    for seed in 0..50 {
        let tags = BTreeMap::from([("a".to_owned(), Some(true)), ("../b".to_owned(), None)]);
        all.push(of(Run { seed, rate: seed as f64 / 3.0, tags }));
        all.push(of(Stage::Train(seed as u32)));
        all.push(of(Stage::Score { fold: seed as i8, of: (1, "/".into()) }));
        let digest = Digest::of_bytes(&seed.to_le_bytes());
        all.push(hostile(Key::from(digest), digest.to_string()));
        all.push(hostile(Key::from(("file", digest)), ("file".to_owned(), digest.to_string())));
    }
    all.push(of(Stage::Start));
    #[cfg(unix)]
    for byte in 0x80..=0xffu8 {
        use std::os::unix::ffi::OsStringExt;
        let path = PathBuf::from(std::ffi::OsString::from_vec(vec![b'a', byte, b'/', b'.', b'.']));
        all.push(Hostile {
            key: Key::from(&path),
            check: Box::new(move |key| assert_eq!(key.as_path().unwrap(), path)),
        });
    }
    all
}

/// Every file and folder below, relative.
fn walk(root: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut rest = vec![root.to_owned()];
    while let Some(folder) = rest.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            all.push(path.strip_prefix(root).unwrap().to_owned());
            if path.symlink_metadata().unwrap().is_dir() {
                rest.push(path);
            }
        }
    }
    all.sort();
    all
}

#[test]
fn two_thousand_hostile_keys_come_back_and_stay_inside() {
    let all = hostile_keys();
    let distinct: HashSet<&Key> = all.iter().map(|hostile| &hostile.key).collect();
    assert!(distinct.len() > 2000, "{}", distinct.len());

    let parent = dir();
    fs::write(parent.path().join("neighbour"), "unharmed").unwrap();
    let root = parent.path().join("deep/chest");
    let open = || Chest::builder().inline_limit(0).open(&root).unwrap();
    drop(open());
    let before: Vec<_> = walk(parent.path()).into_iter().filter(|path| !path.starts_with("deep/chest")).collect();

    let chest = open();
    for (i, hostile) in all.iter().enumerate() {
        chest.insert(&hostile.key, i as u64).unwrap();
    }
    let newest: std::collections::HashMap<&Key, u64> = all.iter().map(|hostile| &hostile.key).zip(0..).collect();
    chest.flush().unwrap();
    drop(chest);

    let chest = open();
    assert_eq!(chest.len().unwrap(), distinct.len() as u64);
    let keys = chest.keys().unwrap();
    assert_eq!(keys.iter().collect::<HashSet<_>>(), distinct);
    assert_eq!(keys.len(), distinct.len());
    for hostile in &all {
        (hostile.check)(&hostile.key);
        assert_eq!(*chest.get::<u64>(&hostile.key).unwrap(), newest[&hostile.key], "{}", hostile.key);
    }
    let mut files = HashSet::new();
    for info in chest.infos().unwrap() {
        let file = info.file.unwrap();
        let name = file.strip_prefix("values/").unwrap();
        assert!(
            !name.contains(['/', '\\', '\0', '\n', ':', '*', '?', '"', '<', '>', '|', ' ', '\u{202e}']),
            "{name:?}"
        );
        assert!(!name.starts_with(['.', '-', '~']) && name.len() <= 255, "{name:?}");
        assert!(name.ends_with(".bin"), "{name:?}");
        assert_eq!(fs::read(chest.path().join(&file)).unwrap()[..8], newest[&info.key].to_le_bytes());
        // Also on a file system that does not tell upper from lower case.
        assert!(files.insert(file.to_lowercase()));
    }
    assert_eq!(fs::read_dir(root.join("values")).unwrap().count(), files.len());
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    let after: Vec<_> = walk(parent.path()).into_iter().filter(|path| !path.starts_with("deep/chest")).collect();
    assert_eq!(after, before);

    chest.clear().unwrap();
    // Files of values that were durable stay until their removal is.
    chest.sync().unwrap();
    assert_eq!(fs::read_dir(root.join("values")).unwrap().count(), 0);
    assert!(chest.keys().unwrap().is_empty());
}

#[test]
fn file_names_begin_with_a_readable_form_of_the_key() {
    let dir = dir();
    let chest = Chest::builder().inline_limit(0).open(dir.path()).unwrap();
    let digest = Digest::of_bytes(b"x");
    let cases = [
        (Key::from("flights"), "flights.".to_owned()),
        (Key::from(("station", 7, true)), "station-7-true.".to_owned()),
        (Key::from(-3), "3.".to_owned()),
        (Key::from(Path::new("/data/a.csv")), "_data_a.csv.".to_owned()),
        (Key::from("東京 2024"), "東京_2024.".to_owned()),
        (Key::from(digest), format!("{digest}.")),
        (Key::from("../../etc/passwd"), "_.._etc_passwd.".to_owned()),
        (Key::from("nul.txt"), "_nul.txt.".to_owned()),
    ];
    for (key, start) in cases {
        chest.insert(&key, 1).unwrap();
        chest.flush().unwrap();
        let file = chest.info(&key).unwrap().file.unwrap();
        assert!(file.starts_with(&format!("values/{start}")), "{file} for {key}");
    }
}

#[test]
fn one_and_text_one_and_a_tuple_of_one_are_three_keys() {
    let chest = Chest::temporary().unwrap();
    chest.insert(1, "number").unwrap();
    chest.insert("1", "text").unwrap();
    chest.insert(("1",), "tuple").unwrap();
    chest.insert(b"1", "bytes").unwrap();
    chest.insert(Path::new("1"), "path").unwrap();
    chest.insert(Key::of(&1.0).unwrap(), "float").unwrap();
    assert_eq!(chest.len().unwrap(), 6);
    assert_eq!(*chest.get::<String>(1u128).unwrap(), "number");
    assert_eq!(*chest.get::<String>("1").unwrap(), "text");
    assert_eq!(*chest.get::<String>(("1",)).unwrap(), "tuple");
}

#[test]
fn keys_come_back_in_the_order_of_their_insertion() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    for i in [5, 3, 9, 1] {
        chest.insert(i, i).unwrap();
        chest.flush().unwrap();
    }
    assert_eq!(chest.keys().unwrap(), [5, 3, 9, 1].map(Key::from));
    chest.insert(3, 0).unwrap();
    chest.flush().unwrap();
    assert_eq!(chest.keys().unwrap(), [5, 9, 1, 3].map(Key::from));
}

#[test]
fn a_key_that_nests_too_deep_is_refused() {
    let deep = (0..70).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
    assert_eq!(Key::of(&deep).unwrap_err().kind(), ErrorKind::Invalid);
    let deepest = (0..64).fold(serde_json::json!(1), |inner, _| serde_json::json!([inner]));
    let chest = Chest::temporary().unwrap();
    let key = Key::of(&deepest).unwrap();
    chest.insert(&key, 7).unwrap();
    chest.flush().unwrap();
    assert_eq!(chest.keys().unwrap(), [key]);
}

#[test]
fn a_tuple_of_keys_without_end_is_refused_and_the_value_comes_back() {
    let nested = |depth: usize| (0..depth).fold(Key::from("[{\"\\"), |key, _| Key::from((key,)));
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    let mut kept = Vec::new();
    for depth in [1, 60, 100, 120, 127, 128, 129, 200, 5000] {
        match chest.insert(nested(depth), depth as u64) {
            Ok(()) => kept.push(nested(depth)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Invalid);
                assert_eq!(*error.into_value::<u64>().unwrap(), depth as u64);
                let made = chest.get_or_insert_with(nested(depth), || 7);
                assert_eq!(made.unwrap_err().kind(), ErrorKind::Invalid);
            }
        }
    }
    drop(chest);
    assert!((3..8).contains(&kept.len()), "{}", kept.len());
    assert_eq!(Chest::open(dir.path()).unwrap().keys().unwrap(), kept);
}

/// Enums and structs nest twice as deep in the canonical text as in the value.
#[test]
fn the_deepest_enum_comes_back() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Nest {
        Leaf,
        In(Box<Nest>),
        Named { inner: Box<Nest> },
    }
    for wrap in [|nest| Nest::In(Box::new(nest)), |nest| Nest::Named { inner: Box::new(nest) }] {
        let nest = |depth: usize| (0..depth).fold(Nest::Leaf, |nest, _| wrap(nest));
        let mut kept = 0;
        for depth in 0..100 {
            match Key::of(&nest(depth)) {
                Ok(key) => {
                    assert_eq!(key.to::<Nest>().unwrap(), nest(depth), "{depth}");
                    assert_eq!(Key::from_canonical(key.canonical()).unwrap(), key);
                    kept += 1;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid),
            }
        }
        assert!((26..=64).contains(&kept), "{kept}");
    }
}

/// The index of the catalog has half of a key's hash.
#[test]
fn keys_of_one_hash_are_told_apart() {
    let hash = |key: &Key| twox_hash::XxHash3_64::oneshot(key.canonical().as_bytes()) as u32;
    let mut seen = std::collections::HashMap::new();
    let twins = (0..).find_map(|i| seen.insert(hash(&Key::from(i)), i).map(|twin: i32| [twin, i])).unwrap();
    // Published together, and one after the other.
    for flushes in [false, true] {
        let dir = dir();
        let chest = Chest::open(dir.path()).unwrap();
        for number in twins {
            chest.insert(number, f64::from(number)).unwrap();
            if flushes {
                chest.flush().unwrap();
            }
        }
        drop(chest);
        let open = || Chest::open(dir.path()).unwrap();
        let found = |chest: &Chest, number: i32| chest.find::<f64>(number).unwrap().as_deref().copied();
        for number in twins {
            assert_eq!(found(&open(), number), Some(f64::from(number)));
        }
        let chest = open();
        chest.insert(twins[0], -1.0).unwrap();
        chest.remove(twins[1]).unwrap();
        drop(chest);
        assert_eq!(twins.map(|number| found(&open(), number)), [Some(-1.0), None]);
        assert!(Chest::check(dir.path()).run().unwrap().is_healthy());
    }
}
