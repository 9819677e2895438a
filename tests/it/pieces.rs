//! Values that are written in pieces, and arrays that are looked at in their files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::types::Int64Type;
use arrow_array::{Array as _, DictionaryArray, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use icechest::polars::frame::DataFrame;
use icechest::{Chest, Compression, Element, ErrorKind, Value};
use ndarray::{Array, Array1, Array2, Array3, ArrayD, Dimension, Ix1, Ix2, Ix3, IxDyn, s};
use tempfile::TempDir;

use crate::helpers::dir;

fn raw() -> (TempDir, Chest) {
    let dir = dir();
    let builder = Chest::builder().budget(0).inline_limit(0).compression(Compression::Never);
    let chest = builder.open(dir.path()).unwrap();
    (dir, chest)
}

fn files(root: &Path, folder: &str) -> usize {
    fs::read_dir(root.join(folder)).unwrap().count()
}

#[track_caller]
fn mapped<A: Element, D: Dimension + Send + Sync + 'static>(chest: &Chest, array: &Array<A, D>) {
    chest.insert("a", array.clone()).unwrap();
    let view = chest.view::<A, D>("a").unwrap();
    assert!(view.is_mapped(), "{view:?}");
    assert_eq!(view.view(), array.view());
    assert_eq!(view.view().strides(), array.strides());
}

#[test]
fn raw_arrays_are_looked_at_in_their_files() {
    let (_dir, chest) = raw();
    mapped(&chest, &Array2::from_shape_fn((700, 900), |(i, j)| (i * 900 + j) as f64));
    mapped(&chest, &Array3::from_shape_fn((7, 90, 40), |(i, j, k)| (i * j * k) as u16));
    mapped(&chest, &Array1::from_elem(5, 1.5_f32));
    mapped(&chest, &ArrayD::<i64>::from_elem(IxDyn(&[]), 7));
    mapped(&chest, &Array2::from_shape_fn((30, 40), |(i, j)| (i * 40 + j) as i8).reversed_axes());
    assert_eq!(chest.stats().unwrap().resident_bytes, 0);
    // Not every byte is a truth value, and there is nothing to map.
    let flags = Array1::from_shape_fn(100_000, |i| i % 3 == 0);
    chest.insert("flags", flags.clone()).unwrap();
    let view = chest.view::<bool, Ix1>("flags").unwrap();
    assert!(!view.is_mapped() && view.view() == flags);
    chest.insert("none", Array2::<f64>::zeros((0, 7))).unwrap();
    let none = chest.view::<f64, Ix2>("none").unwrap();
    assert_eq!(none.view().dim(), (0, 7));
}

#[test]
fn other_arrays_are_loaded_to_be_looked_at() {
    let dir = dir();
    let chest = Chest::builder().budget("64MiB").compression(Compression::Small).open(dir.path()).unwrap();
    let smooth = Array1::from_shape_fn(500_000, |i| i as f64);
    chest.insert("smooth", smooth.clone()).unwrap();
    chest.insert("small", Array1::from_elem(5, 1u8)).unwrap();
    assert!(!chest.view::<f64, Ix1>("smooth").unwrap().is_mapped());
    chest.flush().unwrap();
    chest.set_budget(0).unwrap();
    chest.set_budget("64MiB").unwrap();
    for _ in 0..2 {
        let view = chest.view::<f64, Ix1>("smooth").unwrap();
        assert_eq!(view.view(), smooth);
        assert!(!view.is_mapped());
    }
    assert_eq!(chest.view::<u8, Ix1>("small").unwrap().view().sum(), 5);
    assert_eq!(chest.stats().unwrap().loads, 2);
    assert_eq!(chest.view::<f32, Ix1>("smooth").unwrap_err().kind(), ErrorKind::WrongType);
    assert_eq!(chest.view::<f64, Ix2>("smooth").unwrap_err().kind(), ErrorKind::WrongType);
    assert_eq!(chest.view::<f64, Ix1>("nobody").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_view_stays_when_its_value_goes() {
    let (_dir, chest) = raw();
    let old = Array1::from_shape_fn(1 << 20, |i| i as u32);
    chest.insert("a", old.clone()).unwrap();
    let view = chest.view::<u32, Ix1>("a").unwrap();
    chest.insert("a", Array1::from_elem(1 << 20, 7_u32)).unwrap();
    let newer = chest.view::<u32, Ix1>("a").unwrap();
    chest.remove("a").unwrap();
    chest.sync().unwrap();
    assert_eq!(files(chest.path(), "values"), 0);
    assert_eq!((view.view(), newer.view()[5]), (old.view(), 7));
    drop(chest);
    assert_eq!(view.view(), old);
}

#[test]
fn damage_is_found_before_it_is_looked_at() {
    let (dir, chest) = raw();
    chest.insert("a", Array1::from_shape_fn(1 << 20, |i| i as u32)).unwrap();
    let path = chest.file("a").unwrap().unwrap();
    drop(chest);
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len() - 500_000;
    bytes[end] ^= 64;
    fs::write(path, bytes).unwrap();
    let error = Chest::open(dir.path()).unwrap().view::<u32, Ix1>("a").unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Damaged, Some(&"a".into())));
    assert!(error.path().is_some());
}

#[test]
fn arrays_are_written_in_pieces() {
    let (_dir, chest) = raw();
    let whole = Array3::from_shape_fn((1000, 30, 20), |(i, j, k)| (i * 600 + j * 20 + k) as f32);
    chest.insert("a", "older").unwrap();
    let mut writer = chest.array_writer::<f32>("a", &[30, 20]).unwrap();
    for start in (0..1000).step_by(300) {
        let end = (start + 300).min(1000);
        writer.write(whole.slice(s![start..end, .., ..])).unwrap();
        assert_eq!(*chest.get::<String>("a").unwrap(), "older");
    }
    let error = writer.write(whole.slice(s![..10, ..5, ..])).unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Invalid, Some(&"a".into())));
    // As it lies in memory or not.
    writer.write(whole.slice(s![..10;2, .., ..;-1])).unwrap();
    assert_eq!(format!("{writer:?}"), r#"ArrayWriter("a", f32 of shape [1005, 30, 20] so far)"#);
    writer.finish().unwrap();
    let found = chest.get::<Array3<f32>>("a").unwrap();
    assert_eq!(found.slice(s![..1000, .., ..]), whole);
    assert_eq!(found.slice(s![1000.., .., ..]), whole.slice(s![..10;2, .., ..;-1]));
    drop(found);
    assert_eq!(chest.info("a").unwrap().bytes, 1005 * 600 * 4);
    assert!(chest.view::<f32, Ix3>("a").unwrap().is_mapped());

    chest.array_writer::<u8>("none", &[]).unwrap().finish().unwrap();
    assert_eq!(chest.get::<Array1<u8>>("none").unwrap().len(), 0);
    let mut small = chest.array_writer::<u8>("small", &[]).unwrap();
    small.write(ndarray::aview1(&[1, 2, 3])).unwrap();
    small.finish().unwrap();
    assert_eq!(chest.get::<Array1<u8>>("small").unwrap().to_vec(), [1, 2, 3]);
    assert!(Chest::check(chest.path()).run().unwrap().is_healthy());
}

#[test]
fn arrays_in_pieces_are_compressed_where_that_pays() {
    let dir = dir();
    let chest = Chest::builder().budget(0).inline_limit(0).compression(Compression::Fast).open(dir.path()).unwrap();
    // Its first chunks are zeros, which take no room.
    let whole = Array2::from_shape_fn((4_000, 700), |(i, _)| if i < 1500 { 0 } else { i as i64 / 7 });
    let mut writer = chest.array_writer::<i64>("a", &[700]).unwrap();
    for rows in whole.axis_chunks_iter(ndarray::Axis(0), 333) {
        writer.write(rows).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(*chest.get::<Array2<i64>>("a").unwrap(), whole);
    let part = chest.slice::<i64, _, _, _>("a", s![1490..1510, 10..20]).unwrap();
    assert_eq!(part, whole.slice(s![1490..1510, 10..20]));
    let info = chest.info("a").unwrap();
    assert_eq!((info.format.as_deref(), info.bytes), (Some("b2nd"), 4_000 * 700 * 8));
    assert!(info.stored_bytes < info.bytes / 20, "{}", info.stored_bytes);
    assert_eq!(info.about["compression"], "lz4+shuffle");
    // What is short is decided upon at the end.
    let mut writer = chest.array_writer::<u8>("short", &[1000]).unwrap();
    for _ in 0..50 {
        writer.write(Array2::from_elem((2, 1000), 5).view()).unwrap();
    }
    writer.finish().unwrap();
    let info = chest.info("short").unwrap();
    assert_eq!((info.format.as_deref(), &info.about["shape"]), (Some("b2nd"), &serde_json::json!([100, 1000])));
    assert!(Chest::check(chest.path()).run().unwrap().is_healthy());
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let (_dir, chest) = raw();
    chest.insert("a", Array1::from_elem(10, 1_u8)).unwrap();
    let mut writer = chest.array_writer::<u64>("a", &[1000]).unwrap();
    for _ in 0..20 {
        writer.write(Array2::from_elem((100, 1000), 5_u64).view()).unwrap();
    }
    assert_eq!(files(chest.path(), "tmp"), 1);
    drop(writer);
    assert_eq!((files(chest.path(), "tmp"), files(chest.path(), "values")), (0, 1));
    assert_eq!(chest.get::<Array1<u8>>("a").unwrap().len(), 10);
}

fn schema() -> SchemaRef {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int64), Box::new(DataType::Utf8));
    let fields = vec![
        Field::new("n", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
        Field::new("kind", dictionary, true),
    ];
    Arc::new(Schema::new(fields))
}

fn batch(range: std::ops::Range<i64>) -> RecordBatch {
    let text: StringArray = range.clone().map(|i| (i % 5 > 0).then(|| format!("text {i}"))).collect();
    let kinds = ["a", "b", "c"];
    let kind: DictionaryArray<Int64Type> = range.clone().map(|i| kinds[(i / 7 % 3) as usize]).collect();
    let number = Int64Array::from_iter_values(range);
    RecordBatch::try_new(schema(), vec![Arc::new(number), Arc::new(text), Arc::new(kind)]).unwrap()
}

#[test]
fn frames_are_written_and_read_in_pieces() {
    let (_dir, chest) = raw();
    let mut writer = chest.frame_writer("f", schema()).unwrap();
    let step = 70_000;
    for start in (0..12).map(|i| i * step) {
        writer.write(&batch(start..start + step)).unwrap();
    }
    let other = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
    assert_eq!(writer.write(&other).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(!chest.contains_key("f").unwrap());
    writer.finish().unwrap();

    let whole = batch(0..12 * step);
    assert_eq!(*chest.get::<RecordBatch>("f").unwrap(), whole);
    assert_eq!(chest.get::<DataFrame>("f").unwrap().height(), whole.num_rows());
    let info = chest.info("f").unwrap();
    assert_eq!(info.about["rows"], whole.num_rows());
    // Buffers have room to spare.
    let taken: usize = whole.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap()).sum();
    assert!((1.0..2.0).contains(&(info.bytes as f64 / taken as f64)), "{} {taken}", info.bytes);
    // Slices of one batch take what the batch takes.
    let mut writer = chest.frame_writer("slices", schema()).unwrap();
    (0..12).for_each(|i| writer.write(&whole.slice(i * 70_000, 70_000)).unwrap());
    writer.finish().unwrap();
    let (slices, size) = (chest.info("slices").unwrap().bytes, Value::size(&whole) as u64);
    assert!(slices.abs_diff(size) < 1000, "{slices} {size}");

    let batches = chest.select("f").batches().unwrap();
    assert_eq!(batches.schema(), schema());
    chest.remove("f").unwrap();
    chest.sync().unwrap();
    let mut next = 0;
    for found in batches {
        let found = found.unwrap();
        let rows = found.num_rows() as i64;
        assert_eq!(found, batch(next..next + rows));
        next += rows;
    }
    assert_eq!(next, 12 * step);
}

#[test]
fn parts_of_frames_are_read_in_pieces() {
    let (_dir, chest) = raw();
    let mut writer = chest.frame_writer("f", schema()).unwrap();
    writer.write(&batch(0..600_000)).unwrap();
    writer.finish().unwrap();
    let part = chest.select("f").columns(["text", "n"]).rows(200_000..500_000).batches().unwrap();
    let part: Vec<RecordBatch> = part.collect::<Result<_, _>>().unwrap();
    let part = arrow_select::concat::concat_batches(&part[0].schema(), &part).unwrap();
    assert_eq!(part, batch(200_000..500_000).project(&[1, 0]).unwrap());
    assert_eq!(chest.select("f").columns(["x"]).batches().unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(chest.select("f").rows(5..5).batches().unwrap().count(), 0);

    let path = chest.file("f").unwrap().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    // Not in the last block, which has the footer.
    let end = bytes.len() * 7 / 10;
    bytes[end] ^= 1;
    fs::write(path, bytes).unwrap();
    let found: Vec<_> = chest.select("f").rows(..100_000).batches().unwrap().collect();
    assert!(found.len() > 1 && found.iter().all(Result::is_ok));
    let mut rest = chest.select("f").rows(400_000..).batches().into_iter().flatten().skip_while(Result::is_ok);
    assert!(rest.next().is_none_or(|batch| batch.unwrap_err().kind() == ErrorKind::Damaged));
    assert!(rest.next().is_none(), "an error is the end");
}

#[test]
fn types_that_parquet_lacks_are_refused_at_the_start() {
    let (_dir, chest) = raw();
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::FixedSizeBinary(0), true)]));
    let error = chest.frame_writer("f", schema).unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Unsupported, Some(&"f".into())));
    assert_eq!(files(chest.path(), "tmp"), 0);
}
