//! A chest of each released format opens in every newer version. These tests stay for ever.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use icechest::{AnyArray, Chest, Compression, Digest, FrameFormat, Key};
use ndarray::{Array1, Array2, Axis, concatenate};
use polars_core::df;
use polars_core::frame::DataFrame;
use serde_json::json;

use crate::helpers::dir;

fn fixture(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{version}"))
}

fn smooth() -> Array2<f64> {
    Array2::from_shape_fn((256, 250), |(i, j)| (i + 2 * j) as f64 / 8.0)
}

fn noise() -> Array1<u32> {
    (0..500u32).map(|i| i.wrapping_mul(2_654_435_761).rotate_left(i % 31)).collect()
}

fn frame() -> DataFrame {
    let delay: Vec<Option<f64>> = (0..200).map(|i| (i % 7 != 0).then_some(f64::from(i) / 4.0)).collect();
    let carrier: Vec<String> = (0..200).map(|i| ["UA", "B6", "größer"][i % 3].to_owned()).collect();
    df!("carrier" => carrier, "delay" => delay, "flight" => (0..200).collect::<Vec<i32>>()).unwrap()
}

fn words() -> Vec<String> {
    (0..300).map(|i| format!("word {}", i * i)).collect()
}

fn map() -> BTreeMap<String, Option<(u8, f32)>> {
    [("a".to_owned(), Some((7, 0.5))), ("b".to_owned(), None)].into()
}

/// Keys of all kinds; each has its number as value.
fn keys() -> Vec<Key> {
    vec![
        Key::from("text \"quoted\"\n"),
        Key::from(1),
        Key::from(-7i64),
        Key::from(u128::MAX),
        Key::from(true),
        Key::from(("station", 7, false)),
        Key::from(&b"\x00\xff"[..]),
        Key::from(Path::new("data/a.csv")),
        Key::from(Digest::of_bytes(b"content")),
        Key::of(&1.5f64).unwrap(),
        Key::of(&map()).unwrap(),
        Key::of(&Some("x")).unwrap(),
    ]
}

/// Writes the fixture of this version's format, which is done once.
fn make(dir: &Path) {
    let chest = Chest::builder().inline_limit(256).open(dir).unwrap();
    chest.insert("smooth", smooth()).unwrap();
    chest.insert("noise", noise()).unwrap();
    chest.insert("frame", frame()).unwrap();
    chest.insert("words", words()).unwrap();
    chest.insert("map", map()).unwrap();
    chest.insert("document", json!({"numbers": (0..200).collect::<Vec<i32>>(), "text": "é"})).unwrap();
    chest.insert("bytes", vec![7u8; 100]).unwrap();
    for (number, key) in keys().into_iter().enumerate() {
        chest.insert(key, number as u64).unwrap();
    }
    drop(chest);
    let chest = Chest::builder().inline_limit(0).compression(Compression::Small).open(dir).unwrap();
    chest.insert("words, small", words()).unwrap();
    chest.insert("smooth, small", smooth()).unwrap();
    chest.insert("frame, small", frame()).unwrap();
    chest.insert("frame, small", frame()).unwrap();
    chest.insert("grown", noise()).unwrap();
    chest.append("grown", noise()).unwrap();
    chest.append("grown", noise()).unwrap();
    chest.insert("grown frame", frame()).unwrap();
    chest.append("grown frame", frame()).unwrap();
    chest.insert("removed", 1).unwrap();
    chest.remove("removed").unwrap();
    drop(chest);
    let chest = Chest::builder().inline_limit(0).frame_format(FrameFormat::Arrow).open(dir).unwrap();
    chest.insert("frame, arrow", frame()).unwrap();
    chest.sync().unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::write(target, fs::read(entry.path()).unwrap()).unwrap()
        }
    }
}

fn check(chest: &Chest) {
    for key in ["smooth", "smooth, small"] {
        assert_eq!(*chest.get::<Array2<f64>>(key).unwrap(), smooth(), "{key}");
    }
    assert_eq!(*chest.get::<Array1<u32>>("noise").unwrap(), noise());
    assert_eq!(chest.get::<AnyArray>("noise").unwrap().shape(), [500]);
    for key in ["frame", "frame, small", "frame, arrow"] {
        assert!(chest.get::<DataFrame>(key).unwrap().equals_missing(&frame()), "{key}");
    }
    assert_eq!(chest.get::<RecordBatch>("frame").unwrap().num_rows(), 200);
    for key in ["words", "words, small"] {
        assert_eq!(*chest.get::<Vec<String>>(key).unwrap(), words(), "{key}");
    }
    assert_eq!(*chest.get::<BTreeMap<String, Option<(u8, f32)>>>("map").unwrap(), map());
    assert_eq!(chest.get::<serde_json::Value>("document").unwrap()["numbers"][199], 199);
    assert_eq!(*chest.get::<Vec<u8>>("bytes").unwrap(), [7; 100]);
    for (number, key) in keys().into_iter().enumerate() {
        assert_eq!(*chest.get::<u64>(&key).unwrap(), number as u64, "{key}");
    }
    let grown = concatenate(Axis(0), &[noise().view(), noise().view(), noise().view()]).unwrap();
    assert_eq!(*chest.get::<Array1<u32>>("grown").unwrap(), grown);
    assert!(chest.get::<DataFrame>("grown frame").unwrap().equals_missing(&frame().vstack(&frame()).unwrap()));
    assert_eq!(chest.len().unwrap(), 13 + keys().len() as u64);
}

#[test]
fn format_1_opens() {
    let dir = dir();
    let root = dir.path().join("chest");
    if std::env::var_os("ICECHEST_MAKE_FIXTURE").is_some() {
        make(&fixture(1));
    }
    copy(&fixture(1), &root);
    let chest = Chest::open(&root).unwrap();
    check(&chest);
    // It is written to as any other.
    chest.insert("new", noise()).unwrap();
    chest.update("map", |map: &mut BTreeMap<String, Option<(u8, f32)>>| map.clear()).unwrap();
    drop(chest);
    let report = Chest::check(&root).run().unwrap();
    assert!(report.is_healthy() && report.orphans.is_empty() && report.foreign.is_empty(), "{report}");
}

#[test]
fn the_catalog_of_format_1_can_be_made_again() {
    let dir = dir();
    let root = dir.path().join("chest");
    copy(&fixture(1), &root);
    let files = Chest::open(&root).unwrap().infos().unwrap().iter().filter(|info| info.file.is_some()).count();
    fs::remove_file(root.join("catalog.sqlite")).unwrap();
    let report = Chest::check(&root).repair(true).run().unwrap();
    assert_eq!(report.rebuilt, Some(files as u64), "{report}");
    let chest = Chest::open(&root).unwrap();
    assert_eq!(*chest.get::<Array2<f64>>("smooth").unwrap(), smooth());
    assert!(chest.get::<DataFrame>("frame, small").unwrap().equals_missing(&frame()));
    assert_eq!(*chest.get::<Vec<String>>("words").unwrap(), words());
}
