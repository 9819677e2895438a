//! Rows that are appended to stored frames and arrays.

use std::fs;
use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch, StringArray};
use icechest::polars::df;
use icechest::polars::frame::DataFrame;
use icechest::polars::prelude::{DataType, NamedFrom, Series};
use icechest::{AnyArray, Chest, Compression, ErrorKind, FrameFormat};
use ndarray::{Array1, Array2, ArrayD, Axis, Ix2, IxDyn, concatenate, s};
use tempfile::TempDir;

use crate::helpers::dir;

fn cold(compression: Compression) -> (TempDir, Chest) {
    let dir = dir();
    let chest = Chest::builder().budget(0).compression(compression).open(dir.path()).unwrap();
    (dir, chest)
}

fn files(chest: &Chest) -> usize {
    fs::read_dir(chest.path().join("values")).unwrap().count()
}

fn rows(start: usize, len: usize) -> Array2<f64> {
    Array2::from_shape_fn((len, 50), |(i, j)| ((start + i) * 50 + j) as f64)
}

fn frame(start: i64, len: i64) -> DataFrame {
    let names: Vec<_> = (start..start + len).map(|i| format!("a name that is long enough {i}")).collect();
    df!("id" => (start..start + len).collect::<Vec<_>>(), "name" => names).unwrap()
}

#[test]
fn arrays_grow_by_rows_that_are_written_alone() {
    for compression in [Compression::Never, Compression::Small] {
        let (dir, chest) = cold(compression);
        chest.insert("a", rows(0, 20_000)).unwrap();
        chest.flush().unwrap();
        let first = chest.file("a").unwrap().unwrap();
        let before = fs::metadata(&first).unwrap();
        chest.append("a", rows(20_000, 5_000)).unwrap();
        chest.append("a", rows(25_000, 1_000).view()).unwrap();
        assert_eq!(fs::metadata(&first).unwrap().modified().unwrap(), before.modified().unwrap());
        let info = chest.info("a").unwrap();
        assert_eq!((info.parts, info.about["shape"][0].as_u64()), (3, Some(26_000)));
        assert!(info.about.as_object().unwrap().keys().all(|name| !name.starts_with('$')), "{}", info.about);
        assert_eq!(files(&chest), 3);
        for chest in [chest, Chest::open(dir.path()).unwrap()] {
            let whole = rows(0, 26_000);
            assert_eq!(*chest.get::<Array2<f64>>("a").unwrap(), whole);
            let across = chest.slice::<f64, _, Ix2, Ix2>("a", s![19_990..25_010;7, ..;-3]).unwrap();
            assert_eq!(across, whole.slice(s![19_990..25_010;7, ..;-3]));
            let last: Array1<f64> = chest.slice("a", s![-1, ..]).unwrap();
            assert_eq!(last, whole.row(25_999));
            let some: Array2<f64> = chest.select("a").rows(24_999..25_002).get().unwrap();
            assert_eq!(some, whole.slice(s![24_999..25_002, ..]));
            let any: AnyArray = chest.select("a").rows(19_999..20_001).get().unwrap();
            assert_eq!(any.downcast_ref::<f64>().unwrap(), &whole.slice(s![19_999..20_001, ..]).into_dyn());
            assert_eq!(chest.view::<f64, Ix2>("a").unwrap().view(), whole);
        }
        assert!(Chest::check(dir.path()).run().unwrap().is_healthy());
    }
}

#[test]
fn compaction_makes_one_file_of_the_same_kind() {
    for compression in [Compression::Never, Compression::Small] {
        let (dir, chest) = cold(compression);
        chest.insert("a", rows(0, 20_000)).unwrap();
        chest.append("a", rows(20_000, 5_000)).unwrap();
        chest.append("a", rows(25_000, 1_000)).unwrap();
        let format = chest.info("a").unwrap().format;
        assert!(chest.compact("a").unwrap());
        assert!(!chest.compact("a").unwrap());
        let info = chest.info("a").unwrap();
        assert_eq!((info.parts, info.format, info.bytes), (1, format, 26_000 * 400));
        chest.sync().unwrap();
        assert_eq!(files(&chest), 1);
        assert_eq!(*chest.get::<Array2<f64>>("a").unwrap(), rows(0, 26_000));
        chest.append("a", rows(26_000, 3)).unwrap();
        assert_eq!(*chest.get::<Array2<f64>>("a").unwrap(), rows(0, 26_003));
        drop(chest);
        assert!(Chest::check(dir.path()).run().unwrap().is_healthy());
    }
    let chest = Chest::temporary().unwrap();
    assert_eq!(chest.compact("nobody").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn frames_grow_whatever_reads_them() {
    let (dir, chest) = cold(Compression::Auto);
    chest.insert("f", frame(0, 10_000)).unwrap();
    chest.append("f", frame(10_000, 3_000)).unwrap();
    assert_eq!(chest.info("f").unwrap().parts, 2);
    let read: RecordBatch = RecordBatch::clone(&chest.get("f").unwrap());
    let batch = read.slice(0, 1_000);
    chest.append("f", batch).unwrap();
    let whole = frame(0, 13_000).vstack(&frame(0, 1_000)).unwrap();
    let check = |chest: &Chest| {
        assert_eq!(*chest.get::<DataFrame>("f").unwrap(), whole);
        let part: DataFrame = chest.select("f").rows(9_999..13_001).columns(["name"]).get().unwrap();
        assert_eq!(part, whole.select(["name"]).unwrap().slice(9_999, 3_002));
        let uncounted: DataFrame = chest.select("f").columns([] as [&str; 0]).get().unwrap();
        assert_eq!(uncounted.shape(), (whole.height(), 0));
        let none: DataFrame = chest.select("f").rows(5..5).get().unwrap();
        assert_eq!(none, whole.clear());
        let batches: Vec<RecordBatch> = Vec::clone(&chest.get("f").unwrap());
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 14_000);
        let mut ids = Vec::new();
        for batch in chest.select("f").columns(["id"]).rows(12_990..).batches().unwrap() {
            let batch = batch.unwrap();
            ids.extend_from_slice(batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values());
        }
        assert_eq!(ids, (12_990..13_000).chain(0..1_000).collect::<Vec<i64>>());
        assert_eq!(chest.scan("f").unwrap().collect().unwrap(), whole);
    };
    // Written by another library, so it is written again as a whole.
    assert_eq!(chest.info("f").unwrap().parts, 1);
    check(&chest);
    check(&Chest::open(dir.path()).unwrap());
    chest.insert("f", frame(0, 10_000)).unwrap();
    chest.append("f", frame(10_000, 3_000)).unwrap();
    chest.append("f", frame(0, 1_000)).unwrap();
    check(&chest);
    let columns = || chest.info("f").unwrap().about["columns"].clone();
    let before = columns();
    assert!(chest.compact("f").unwrap());
    check(&chest);
    assert_eq!(chest.info("f").unwrap().about["rows"].as_u64(), Some(14_000));
    // By the library that wrote it, so more rows can follow.
    assert_eq!(columns(), before);
    chest.append("f", frame(0, 100)).unwrap();
    assert_eq!(chest.info("f").unwrap().parts, 2);
    assert_eq!(*chest.get::<DataFrame>("f").unwrap(), whole.vstack(&frame(0, 100)).unwrap());
    // Of Arrow's types, which polars has others for.
    let text = |from: &str| {
        let texts: Vec<String> = (0..40_000).map(|i| format!("{from} {i}")).collect();
        RecordBatch::try_from_iter([("s", Arc::new(StringArray::from(texts)) as _)]).unwrap()
    };
    chest.insert("arrow", text("a")).unwrap();
    chest.append("arrow", text("b")).unwrap();
    assert_eq!(chest.info("arrow").unwrap().parts, 2);
    assert!(chest.compact("arrow").unwrap());
    chest.append("arrow", text("c")).unwrap();
    assert_eq!(chest.info("arrow").unwrap().parts, 2);
    chest.append("arrow", df!("s" => ["d"]).unwrap()).unwrap();
    assert_eq!(chest.get::<RecordBatch>("arrow").unwrap().num_rows(), 120_001);
    // Files that are mapped.
    let mapped = Chest::builder().budget(0).frame_format(FrameFormat::Arrow).temporary().unwrap();
    mapped.insert("f", frame(0, 10_000)).unwrap();
    mapped.append("f", frame(10_000, 500)).unwrap();
    for _ in 0..2 {
        assert_eq!(*mapped.get::<DataFrame>("f").unwrap(), frame(0, 10_500));
        assert_eq!(mapped.scan("f").unwrap().collect().unwrap(), frame(0, 10_500));
        mapped.compact("f").unwrap();
    }
    assert_eq!(mapped.info("f").unwrap().parts, 1);
    // A type that Arrow's Parquet lacks.
    let wide = df!("w" => [1_i64, 2]).unwrap().lazy_cast();
    chest.insert("wide", wide.clone()).unwrap();
    chest.append("wide", wide.clone()).unwrap();
    chest.compact("wide").unwrap();
    assert_eq!(*chest.get::<DataFrame>("wide").unwrap(), wide.vstack(&wide).unwrap());
}

trait LazyCast {
    fn lazy_cast(self) -> DataFrame;
}

impl LazyCast for DataFrame {
    /// Enough rows for a file, in integers of 128 bits.
    fn lazy_cast(self) -> DataFrame {
        let wide = Series::new("w".into(), (0..5_000_i64).map(|i| i * 977).collect::<Vec<_>>());
        DataFrame::new(5_000, vec![wide.cast(&DataType::Int128).unwrap().into()]).unwrap()
    }
}

#[test]
fn small_additions_become_few_files() {
    let (_dir, chest) = cold(Compression::Never);
    chest.insert("a", rows(0, 1_000)).unwrap();
    for i in 0..300 {
        chest.append("a", rows(1_000 + i, 1)).unwrap();
    }
    let info = chest.info("a").unwrap();
    assert!(info.parts <= 10, "{} parts", info.parts);
    assert_eq!(*chest.get::<Array2<f64>>("a").unwrap(), rows(0, 1_300));
    chest.sync().unwrap();
    assert_eq!(files(&chest), info.parts);
}

#[test]
fn small_new_and_odd_values_are_appended_to_as_well() {
    let (_dir, chest) = cold(Compression::Never);
    chest.append("new", rows(0, 2)).unwrap();
    chest.append("new", rows(2, 3)).unwrap();
    assert_eq!(*chest.get::<Array2<f64>>("new").unwrap(), rows(0, 5));
    assert_eq!((chest.info("new").unwrap().parts, files(&chest)), (1, 0));
    let fortran = rows(0, 2_000).t().as_standard_layout().reversed_axes().into_owned();
    chest.insert("F", fortran).unwrap();
    chest.append("F", rows(2_000, 10)).unwrap();
    assert_eq!(*chest.get::<Array2<f64>>("F").unwrap(), rows(0, 2_010));
    let transposed = rows(0, 50).reversed_axes();
    chest.append("a", rows(0, 2_000)).unwrap();
    chest.append("a", transposed.clone()).unwrap();
    let both = concatenate(Axis(0), &[rows(0, 2_000).view(), transposed.view()]).unwrap();
    assert_eq!((chest.info("a").unwrap().parts, &*chest.get::<Array2<f64>>("a").unwrap()), (2, &both));
    let dynamic = ArrayD::from_elem(IxDyn(&[3_000, 2]), 1.5_f32);
    chest.append("dynamic", dynamic.clone()).unwrap();
    chest.append("dynamic", AnyArray::from(dynamic.clone())).unwrap();
    let both = concatenate(Axis(0), &[dynamic.view(), dynamic.view()]).unwrap();
    assert_eq!(*chest.get::<ArrayD<f32>>("dynamic").unwrap(), both);
    chest.append("F", rows(0, 0)).unwrap();
    assert_eq!(chest.info("F").unwrap().parts, 1);
    // A value that is only in memory, and one that somebody holds.
    let chest = Chest::temporary().unwrap();
    chest.insert("a", rows(0, 1_000)).unwrap();
    let held = chest.get::<Array2<f64>>("a").unwrap();
    chest.append("a", rows(1_000, 1_000)).unwrap();
    assert_eq!(*held, rows(0, 1_000));
    assert_eq!(*chest.get::<Array2<f64>>("a").unwrap(), rows(0, 2_000));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (_dir, chest) = cold(Compression::Auto);
    chest.insert("a", rows(0, 1_000)).unwrap();
    chest.insert("f", frame(0, 1_000)).unwrap();
    chest.insert("text", "text").unwrap();
    let fails = |result: icechest::Result<()>, kind, key: &str| {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.key()), (kind, Some(&key.into())), "{error}");
    };
    fails(chest.append("a", Array2::<f64>::zeros((1, 49))), ErrorKind::Invalid, "a");
    fails(chest.append("a", Array2::<f32>::zeros((1, 50))), ErrorKind::WrongType, "a");
    fails(chest.append("a", AnyArray::from(ArrayD::<f32>::zeros(IxDyn(&[1, 50])))), ErrorKind::Invalid, "a");
    fails(chest.append("a", frame(0, 1)), ErrorKind::WrongType, "a");
    fails(chest.append("text", rows(0, 1)), ErrorKind::WrongType, "text");
    fails(chest.append("f", df!("id" => [1_i64]).unwrap()), ErrorKind::Invalid, "f");
    fails(chest.append("f", df!("id" => [1_i32], "name" => ["x"]).unwrap()), ErrorKind::Invalid, "f");
    let other = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![1])) as _),
        ("title", Arc::new(StringArray::from(vec!["x"])) as _),
    ]);
    fails(chest.append("f", other.unwrap()), ErrorKind::Invalid, "f");
    fails(chest.append("no axes", ArrayD::<f64>::zeros(IxDyn(&[]))), ErrorKind::Unsupported, "no axes");
    assert_eq!(*chest.get::<Array2<f64>>("a").unwrap(), rows(0, 1_000));
    assert_eq!(*chest.get::<DataFrame>("f").unwrap(), frame(0, 1_000));
}

#[test]
fn processes_and_threads_that_append_lose_no_rows() {
    let dir = dir();
    let row = |i: usize| Array1::from_elem(1, i as u64);
    let first = Array1::from_iter((0..5_000).map(|i| i as u64));
    // Some of it in the catalog first, then in files.
    Chest::open(dir.path()).unwrap().insert("a", first).unwrap();
    // Each has a chest of its own, as processes have.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dir = dir.path();
            scope.spawn(move || {
                let chest = Chest::open(dir).unwrap();
                for i in 0..30 {
                    chest.append("a", row(5_000 + thread * 30 + i)).unwrap();
                    chest.append("new", rows(thread * 30 + i, 20)).unwrap();
                }
            });
        }
    });
    let chest = Chest::open(dir.path()).unwrap();
    assert_eq!(chest.get::<Array2<f64>>("new").unwrap().dim(), (120 * 20, 50));
    let mut all = chest.get::<Array1<u64>>("a").unwrap().to_vec();
    all.sort_unstable();
    assert!(all == (0..5_120).collect::<Vec<u64>>(), "{} rows", all.len());
}

#[test]
fn a_catalog_is_made_again_with_all_parts() {
    let (dir, chest) = cold(Compression::Auto);
    chest.insert("a", rows(0, 1_000)).unwrap();
    for i in 0..9 {
        chest.append("a", rows(1_000 + i * 100, 100)).unwrap();
    }
    chest.insert("f", frame(0, 10_000)).unwrap();
    chest.append("f", frame(10_000, 500)).unwrap();
    let parts = chest.info("a").unwrap().parts;
    drop(chest);
    fs::remove_file(dir.path().join("catalog.sqlite")).unwrap();
    let report = Chest::check(dir.path()).repair(true).run().unwrap();
    assert_eq!(report.rebuilt, Some(2), "{report}");
    let chest = Chest::open(dir.path()).unwrap();
    assert_eq!(*chest.get::<Array2<f64>>("a").unwrap(), rows(0, 1_900));
    assert_eq!(*chest.get::<DataFrame>("f").unwrap(), frame(0, 10_500));
    assert_eq!(chest.info("a").unwrap().parts, parts);
    assert!(Chest::check(dir.path()).run().unwrap().is_healthy());
}

#[test]
fn a_part_that_is_missing_is_told() {
    let (_dir, chest) = cold(Compression::Never);
    chest.insert("a", rows(0, 1_000)).unwrap();
    chest.append("a", rows(1_000, 500)).unwrap();
    let first = chest.file("a").unwrap().unwrap();
    let parts = fs::read_dir(chest.path().join("values")).unwrap().map(|entry| entry.unwrap().path());
    let part = parts.into_iter().find(|path| *path != first).unwrap();
    fs::remove_file(&part).unwrap();
    let error = chest.get::<Array2<f64>>("a").unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Damaged, Some(&*part)), "{error}");
}

#[test]
fn a_damaged_part_is_told_and_set_aside_with_its_value() {
    let (dir, chest) = cold(Compression::Never);
    chest.insert("a", rows(0, 1_000)).unwrap();
    chest.append("a", rows(1_000, 5_000)).unwrap();
    chest.insert("b", rows(0, 1_000)).unwrap();
    chest.flush().unwrap();
    let first = chest.file("a").unwrap().unwrap();
    let part = fs::read_dir(dir.path().join("values")).unwrap().map(|entry| entry.unwrap().path());
    let part =
        part.into_iter().find(|path| *path != first && path.file_name().unwrap().to_str().unwrap().starts_with("a."));
    let part = part.unwrap();
    drop(chest);
    let mut bytes = fs::read(&part).unwrap();
    bytes[1_500_000] ^= 1;
    fs::write(&part, bytes).unwrap();
    let chest = Chest::open(dir.path()).unwrap();
    let error = chest.get::<Array2<f64>>("a").unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Damaged, Some(&"a".into())));
    // What lies before the damage can be read.
    assert_eq!(chest.slice::<f64, _, _, _>("a", s![..1_000, ..]).unwrap(), rows(0, 1_000));
    drop(chest);
    let name = part.file_name().unwrap().to_str().unwrap();
    let report = Chest::check(dir.path()).run().unwrap();
    assert_eq!(report.damaged.len(), 1);
    assert_eq!(report.damaged[0].file, format!("values/{name}"));
    let report = Chest::check(dir.path()).repair(true).run().unwrap();
    assert!(report.damaged[0].quarantined.is_some());
    assert_eq!(fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 2);
    let chest = Chest::open(dir.path()).unwrap();
    assert_eq!(chest.keys().unwrap(), ["b".into()]);
    assert!(Chest::check(dir.path()).run().unwrap().is_healthy());
}
