//! Queries of polars over stored frames, and into them.

use std::fs;

use arrow_array::RecordBatch;
use icechest::polars::df;
use icechest::polars::frame::DataFrame;
use icechest::polars::prelude::{DataType, PolarsError, TimeUnit};
use icechest::{Chest, Compression, ErrorKind};
use polars_lazy::prelude::{IntoLazy, LazyFrame, col, lit};

use crate::helpers::dir;

/// Enough rows for several row groups.
fn flights() -> DataFrame {
    let n = 600_000_i64;
    df!(
        "id" => (0..n).collect::<Vec<_>>(),
        "delay" => (0..n).map(|i| (i * 7919 % 1000) as f64 / 8.0).collect::<Vec<_>>(),
        "to" => (0..n).map(|i| ["ATL", "JFK", "a place with a name that is longer than a view"][i as usize % 3]).collect::<Vec<_>>(),
    )
    .unwrap()
}

fn late(frame: LazyFrame) -> LazyFrame {
    frame.filter(col("id").gt(lit(500_000)).and(col("delay").gt(lit(100.0)))).select([col("to"), col("id")])
}

#[test]
fn a_query_over_a_stored_frame_answers_as_one_over_the_frame() {
    let frame = flights();
    for compression in [Compression::Auto, Compression::Never] {
        let dir = dir();
        let chest = Chest::builder().budget(0).compression(compression).open(dir.path()).unwrap();
        chest.insert("flights", frame.clone()).unwrap();
        let expected = late(frame.clone().lazy()).collect().unwrap();
        assert!(expected.height() > 1000);
        assert_eq!(late(chest.scan("flights").unwrap()).collect().unwrap(), expected);
        assert_eq!(chest.stats().unwrap().resident_bytes, 0);
        drop(chest);
        let chest = Chest::open(dir.path()).unwrap();
        assert_eq!(late(chest.scan("flights").unwrap()).collect().unwrap(), expected);
        assert_eq!(chest.scan("flights").unwrap().collect().unwrap(), frame);
    }
}

#[test]
fn small_dirty_and_odd_frames_are_scanned_too() {
    let chest = Chest::temporary().unwrap();
    let small = df!("x" => [1, 2, 3]).unwrap();
    chest.insert("small", small.clone()).unwrap();
    assert_eq!(chest.scan("small").unwrap().collect().unwrap(), small);
    chest.insert("no columns", DataFrame::new(7, Vec::new()).unwrap()).unwrap();
    assert_eq!(chest.scan("no columns").unwrap().collect().unwrap().shape(), (7, 0));
    chest.insert("no rows", small.clear()).unwrap();
    assert_eq!(chest.scan("no rows").unwrap().collect().unwrap(), small.clear());
    let batch = RecordBatch::try_from_iter([("y", std::sync::Arc::new(arrow_array::Int64Array::from(vec![5])) as _)]);
    chest.insert("arrow", batch.unwrap()).unwrap();
    assert_eq!(chest.scan("arrow").unwrap().collect().unwrap(), df!("y" => [5_i64]).unwrap());
    assert_eq!(chest.scan("nobody").err().unwrap().kind(), ErrorKind::NotFound);
    chest.insert("text", "no frame").unwrap();
    assert_eq!(chest.scan("text").err().unwrap().kind(), ErrorKind::WrongType);
}

#[test]
fn a_query_outlives_its_frame() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    let frame = flights();
    chest.insert("flights", frame.clone()).unwrap();
    let query = late(chest.scan("flights").unwrap());
    chest.insert("flights", frame.head(Some(5))).unwrap();
    chest.sync().unwrap();
    chest.clear().unwrap();
    chest.sync().unwrap();
    drop(chest);
    assert_eq!(fs::read_dir(dir.path().join("values")).unwrap().count(), 0);
    assert_eq!(query.collect().unwrap(), late(frame.lazy()).collect().unwrap());
}

#[test]
fn damage_is_found_before_a_query_is_made() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    chest.insert("flights", flights()).unwrap();
    chest.flush().unwrap();
    let path = chest.file("flights").unwrap().unwrap();
    drop(chest);
    let sound = fs::read(&path).unwrap();
    // In the first block, in the one with the label in its middle, and behind the label.
    for at in [1000, sound.len() - 3000, sound.len() - 20] {
        let mut bytes = sound.clone();
        bytes[at] ^= 4;
        fs::write(&path, bytes).unwrap();
        let error = Chest::open(dir.path()).unwrap().scan("flights").err().unwrap();
        assert_eq!((error.kind(), error.key()), (ErrorKind::Damaged, Some(&"flights".into())), "{at}: {error}");
        assert_eq!(error.path(), Some(&*path));
    }
    fs::write(&path, sound).unwrap();
    assert!(Chest::open(dir.path()).unwrap().scan("flights").is_ok());
}

#[test]
fn results_of_queries_are_stored() {
    let dir = dir();
    let chest = Chest::builder().budget(0).open(dir.path()).unwrap();
    let frame = flights();
    chest.sink("all", frame.clone().lazy()).unwrap();
    let info = chest.info("all").unwrap();
    assert_eq!((info.about["rows"].as_u64(), info.is_resident), (Some(600_000), false));
    assert!(
        info.bytes.abs_diff(chest.get::<DataFrame>("all").map(|all| icechest::Value::size(&*all) as u64).unwrap())
            < info.bytes / 4
    );
    assert_eq!(*chest.get::<DataFrame>("all").unwrap(), frame);
    chest.sink("late", late(chest.scan("all").unwrap())).unwrap();
    assert_eq!(*chest.get::<DataFrame>("late").unwrap(), late(frame.clone().lazy()).collect().unwrap());
    // In place of what it was made of.
    chest.sink("all", chest.scan("all").unwrap().filter(col("id").lt(lit(10)))).unwrap();
    assert_eq!(*chest.get::<DataFrame>("all").unwrap(), frame.head(Some(10)));
    // Nothing, and everything that a column can be.
    chest.sink("none", frame.clone().lazy().filter(lit(false))).unwrap();
    assert_eq!(*chest.get::<DataFrame>("none").unwrap(), frame.clear());
    let odd = df!("t" => [Some(1_i64), None], "s" => ["x", "y"]).unwrap().lazy().with_columns([
        col("t").cast(DataType::Datetime(TimeUnit::Microseconds, None)).alias("time"),
        col("s").cast(DataType::from_categories(icechest::polars::prelude::Categories::global())).alias("kind"),
        col("t").cast(DataType::Int128).alias("wide"),
    ]);
    chest.sink("odd", odd.clone()).unwrap();
    assert_eq!(*chest.get::<DataFrame>("odd").unwrap(), odd.collect().unwrap());
}

#[test]
fn a_query_that_fails_leaves_everything_as_it_was() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    chest.insert("a", "older").unwrap();
    chest.flush().unwrap();
    let error = chest.sink("a", flights().lazy().select([col("nothing")])).unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Invalid, Some(&"a".into())), "{error}");
    let failing = flights().lazy().select([col("id").map(
        |column| match column.len() {
            0 => Ok(column),
            _ => Err(PolarsError::ComputeError("no such luck".into())),
        },
        |_, field| Ok(field.clone()),
    )]);
    let error = chest.sink("a", failing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("no such luck"), "{error}");
    assert_eq!(*chest.get::<String>("a").unwrap(), "older");
    for folder in ["tmp", "values"] {
        assert_eq!(fs::read_dir(dir.path().join(folder)).unwrap().count(), 0, "{folder}");
    }
}

#[test]
fn wide_integers_are_filtered_and_what_polars_does_not_know_is_refused() {
    let chest = Chest::builder().inline_limit(0).temporary().unwrap();
    let wide: Vec<i64> = (0..1000).collect();
    let frame = df!("x" => wide).unwrap().lazy().select([col("x").cast(DataType::Int128), col("x").alias("y")]);
    chest.insert("wide", frame.collect().unwrap()).unwrap();
    for filter in [col("x").gt(lit(990)), col("y").gt(lit(990))] {
        assert_eq!(chest.scan("wide").unwrap().filter(filter).collect().unwrap().height(), 9);
    }
    let halves = arrow_array::Float16Array::from(vec![None; 3]);
    let halves = RecordBatch::try_from_iter([("half", std::sync::Arc::new(halves) as arrow_array::ArrayRef)]).unwrap();
    chest.insert("halves", halves).unwrap();
    assert_eq!(chest.scan("halves").err().unwrap().kind(), ErrorKind::Unsupported);
}
