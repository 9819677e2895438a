use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use icechest::{Chest, ErrorKind, Value};
use polars_core::df;
use polars_core::prelude::*;
use polars_core::utils::concat_df;

use super::{read_as, read_each_as};
use crate::helpers::{Case, come_back, same_by};

/// The same schema, and the same values with nulls and NaNs in the same places.
fn same(a: &DataFrame, b: &DataFrame) -> std::result::Result<(), String> {
    if a.schema() != b.schema() {
        return Err(format!("the schemas differ: {:?} and {:?}", a.schema(), b.schema()));
    }
    if a.equals_missing(b) { Ok(()) } else { Err("the values differ".to_owned()) }
}

fn is_same(a: &DataFrame, b: &DataFrame) -> bool {
    same(a, b).is_ok()
}

fn keep(frame: DataFrame) {
    super::kept(&frame, same).unwrap();
}

fn case(frame: DataFrame) -> Box<dyn Case> {
    same_by(frame, is_same)
}

/// A value of any type; every fourth is null.
fn value(dtype: &DataType, i: usize) -> AnyValue<'static> {
    let n = (i * 7919 % 1000) as i64;
    let few = |n: i64| (n % 100) as i8;
    if i % 4 == 1 {
        return AnyValue::Null;
    }
    match dtype {
        DataType::Boolean => AnyValue::Boolean(n % 3 == 0),
        DataType::UInt8 => AnyValue::UInt8(few(n) as u8),
        DataType::UInt16 => AnyValue::UInt16(n as u16),
        DataType::UInt32 => AnyValue::UInt32(u32::MAX - n as u32),
        DataType::UInt64 => AnyValue::UInt64(u64::MAX - n as u64),
        DataType::Int8 => AnyValue::Int8(-few(n)),
        DataType::Int16 => AnyValue::Int16(-n as i16),
        DataType::Int32 => AnyValue::Int32(i32::MIN + n as i32),
        DataType::Int64 => AnyValue::Int64(i64::MIN + n),
        DataType::Int128 => AnyValue::Int128(i128::MIN + i128::from(n)),
        DataType::Float32 => AnyValue::Float32(if i % 4 == 2 { f32::NAN } else { n as f32 / 7.0 }),
        DataType::Float64 => AnyValue::Float64(if i % 4 == 2 { f64::NEG_INFINITY } else { n as f64 / 7.0 }),
        DataType::Decimal(precision, scale) => AnyValue::Decimal(i128::from(n % 10) - 5, *precision, *scale),
        DataType::String | DataType::Enum(..) | DataType::Categorical(..) => {
            let text = ["", "a", "ß ☃", "a text that is longer than a view holds"][i / 4 % 4];
            AnyValue::StringOwned(text.into())
        }
        DataType::Binary => AnyValue::BinaryOwned(vec![n as u8; i % 20]),
        DataType::Date => AnyValue::Date(n as i32 * 40 - 20_000),
        DataType::Datetime(unit, zone) => AnyValue::DatetimeOwned(n * 1_000_000_007, *unit, zone.clone().map(Arc::new)),
        DataType::Duration(unit) => AnyValue::Duration(n - 500, *unit),
        DataType::Time => AnyValue::Time(n * 86_000_000_000),
        DataType::List(inner) => AnyValue::List(series("", inner, i % 5)),
        DataType::Array(inner, width) => AnyValue::Array(series("", inner, *width), *width),
        DataType::Struct(fields) => {
            let values = fields.iter().map(|field| value(field.dtype(), i / 2 + 2)).collect();
            AnyValue::StructOwned(Box::new((values, fields.clone())))
        }
        DataType::Null => AnyValue::Null,
        other => unreachable!("{other:?}"),
    }
}

fn series(name: &str, dtype: &DataType, len: usize) -> Series {
    let values: Vec<_> = (0..len).map(|i| value(dtype, i)).collect();
    let series = Series::from_any_values_and_dtype(name.into(), &values, dtype, true).unwrap();
    assert_eq!(series.dtype(), dtype);
    series
}

fn frame(dtype: &DataType, len: usize) -> DataFrame {
    DataFrame::new_infer_height(vec![series("column", dtype, len).into()]).unwrap()
}

fn list(inner: DataType) -> DataType {
    DataType::List(Box::new(inner))
}

fn record(fields: &[(&str, DataType)]) -> DataType {
    DataType::Struct(fields.iter().map(|(name, dtype)| Field::new((*name).into(), dtype.clone())).collect())
}

fn simple_types() -> Vec<DataType> {
    use DataType::*;
    let mut all = vec![Boolean, UInt8, UInt16, UInt32, UInt64, Int8, Int16, Int32, Int64, Int128, Float32, Float64];
    all.extend([String, Binary, Date, Time, Null]);
    all.extend([Decimal(1, 0), Decimal(9, 2), Decimal(18, 18), Decimal(19, 3), Decimal(38, 10)]);
    for unit in [TimeUnit::Milliseconds, TimeUnit::Microseconds, TimeUnit::Nanoseconds] {
        all.push(Duration(unit));
        for zone in [None, Some("UTC"), Some("Europe/Berlin"), Some("Asia/Kathmandu")] {
            all.push(Datetime(unit, zone.map(|zone| TimeZone::opt_try_new(Some(zone)).unwrap().unwrap())));
        }
    }
    let words = ["a text that is longer than a view holds", "unused", "", "a", "ß ☃"];
    all.push(DataType::from_frozen_categories(FrozenCategories::new(words).unwrap()));
    let many: Vec<_> = words.iter().map(|word| (*word).to_owned()).chain((0..1000).map(|i| i.to_string())).collect();
    all.push(DataType::from_frozen_categories(FrozenCategories::new(many.iter().map(|word| &**word)).unwrap()));
    all.push(DataType::from_categories(Categories::global()));
    all
}

#[test]
fn every_simple_type_comes_back() {
    let mut cases = Vec::new();
    for dtype in simple_types() {
        cases.extend([0, 1, 2, 5, 400].map(|len| case(frame(&dtype, len))));
    }
    come_back(&cases);
}

#[test]
fn nested_types_come_back() {
    let mut cases = Vec::new();
    for dtype in simple_types() {
        let nested = [
            list(dtype.clone()),
            list(list(dtype.clone())),
            record(&[("x", dtype.clone()), ("y", DataType::Int64)]),
            list(record(&[("a", DataType::Boolean), ("b", list(dtype.clone()))])),
            record(&[("inner", record(&[("deep", list(record(&[("x", dtype.clone())])))]))]),
        ];
        for dtype in nested {
            cases.extend([0, 1, 2, 60].map(|len| case(frame(&dtype, len))));
        }
    }
    come_back(&cases);
}

#[test]
fn arrays_of_fixed_width_come_back() {
    let mut cases = Vec::new();
    for dtype in [DataType::Int32, DataType::Float64, DataType::Boolean, DataType::String] {
        for width in [1, 2, 5] {
            let array = DataType::Array(Box::new(dtype.clone()), width);
            cases.push(case(frame(&array, 0)));
            cases.push(case(frame(&array, 40)));
            cases.push(case(frame(&list(array.clone()), 40)));
            cases.push(case(frame(&record(&[("x", array)]), 40)));
        }
    }
    come_back(&cases);
}

#[test]
fn categories_keep_their_order_and_their_name() {
    let named = DataType::from_categories(Categories::new("sizes".into(), "shop".into(), CategoricalPhysical::U8));
    let sizes = Series::new("size".into(), ["", "a", "a", "ß ☃"]).cast(&named).unwrap();
    let refused_or_kept = super::kept(&DataFrame::new_infer_height(vec![sizes.into()]).unwrap(), same);
    assert_eq!(refused_or_kept, Ok(()));

    let grades = DataType::from_frozen_categories(FrozenCategories::new(["low", "mid", "high"]).unwrap());
    let grades = Series::new("grade".into(), [Some("high"), None, Some("low")]).cast(&grades).unwrap();
    let frame = DataFrame::new_infer_height(vec![grades.into()]).unwrap();
    keep(frame);
}

#[test]
fn columns_of_nothing_but_nulls_come_back() {
    let cases: Vec<_> = simple_types()
        .iter()
        .flat_map(|dtype| [dtype.clone(), list(dtype.clone()), record(&[("x", dtype.clone())])])
        .map(|dtype| case(DataFrame::new_infer_height(vec![Column::full_null("n".into(), 7, &dtype)]).unwrap()))
        .collect();
    come_back(&cases);
}

#[test]
fn frames_without_rows_or_columns_come_back() {
    keep(DataFrame::empty());
    keep(DataFrame::new(7, Vec::new()).unwrap());
    keep(frame(&DataType::Null, 3));
    let columns =
        simple_types().into_iter().enumerate().map(|(i, dtype)| Column::new_empty(format!("{i}").into(), &dtype));
    keep(DataFrame::new(0, columns.collect()).unwrap());
}

#[test]
fn odd_column_names_come_back() {
    let long = "x".repeat(1000);
    let names =
        ["", " ", "a", "A", "a ", "a.b", "a.b.c", ".", "\0", "a\0b", "\n", "☃🎿", "é", "e\u{301}", "\"", "'", "[0]"];
    let columns = names.iter().copied().chain([&*long]).enumerate();
    let columns = columns.map(|(i, name)| Column::new(name.into(), [i as i32])).collect();
    let frame = DataFrame::new_infer_height(columns).unwrap();
    keep(frame.clone());
    let fields: Vec<_> = frame.schema().iter_fields().collect();
    keep(self::frame(&list(DataType::Struct(fields)), 9));
}

#[test]
fn a_struct_without_fields_is_kept_or_refused() {
    for dtype in [record(&[]), list(record(&[])), record(&[("x", record(&[]))])] {
        for len in [0, 1, 9] {
            let column = Series::full_null("s".into(), len, &dtype);
            let _ = super::kept(&DataFrame::new_infer_height(vec![column.into()]).unwrap(), same);
        }
    }
}

#[test]
fn an_array_of_width_zero_is_kept_or_refused() {
    let dtype = DataType::Array(Box::new(DataType::Int32), 0);
    for len in [0, 1, 9] {
        let column = Series::full_null("s".into(), len, &dtype);
        let _ = super::kept(&DataFrame::new_infer_height(vec![column.into()]).unwrap(), same);
    }
}

#[test]
fn chunked_and_sliced_frames_come_back() {
    let dtypes = [DataType::Int64, DataType::String, list(DataType::Int32), record(&[("x", DataType::Boolean)])];
    for dtype in dtypes {
        let parts: Vec<_> = [3, 0, 100, 1].into_iter().map(|len| frame(&dtype, len)).collect();
        let chunked = concat_df(&parts).unwrap();
        assert!(chunked.columns()[0].as_materialized_series().n_chunks() > 1);
        keep(chunked.clone());
        keep(chunked.slice(2, 50));
        keep(chunked.slice(-3, 2));
        keep(chunked.slice(5, 0));
    }
}

#[test]
fn a_column_of_one_repeated_value_comes_back() {
    let scalar = Column::new_scalar("s".into(), Scalar::from(7i32), 1000);
    keep(DataFrame::new_infer_height(vec![scalar, Column::new("i".into(), (0..1000).collect::<Vec<i32>>())]).unwrap());
}

#[test]
fn frames_of_several_row_groups_come_back() {
    let len = 1 << 20;
    let numbers: Vec<u64> = (0..len as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let texts: Vec<String> = (0..len).map(|i| format!("row {i}")).collect();
    let frame = df!("n" => &numbers, "t" => &texts, "m" => &numbers).unwrap();
    assert!(Value::size(&frame) > 32 << 20);
    keep(frame);
}

#[test]
fn shared_columns_count_once() {
    let frame = df!("a" => vec![1.5f64; 10_000]).unwrap();
    let twice = frame.hstack(&[frame.columns()[0].clone().with_name("b".into())]).unwrap();
    let chest = Chest::temporary().unwrap();
    chest.insert("once", frame).unwrap();
    chest.insert("twice", twice).unwrap();
    let bytes = |key: &str| chest.info(key).unwrap().bytes;
    assert!(bytes("twice") < bytes("once") + 1000, "{} and {}", bytes("twice"), bytes("once"));
}

#[test]
fn a_polars_frame_reads_as_record_batches() {
    let zoned = DataType::Datetime(TimeUnit::Microseconds, Some(TimeZone::UTC));
    let frame = DataFrame::new_infer_height(vec![
        Column::new("i".into(), [Some(1i64), None, Some(-3)]),
        Column::new("s".into(), ["a", "b", "a text that is longer than a view holds"]),
        Column::new("t".into(), [1i64, 2, 3]).cast(&zoned).unwrap(),
        Column::new("b".into(), [Some(true), Some(false), None]),
        series("l", &list(DataType::Float64), 3).into(),
        series("r", &record(&[("x", DataType::Int8)]), 3).into(),
        Column::new("c".into(), ["x", "y", "x"]).cast(&DataType::from_categories(Categories::global())).unwrap(),
        Column::new("d".into(), [1i32, 2, 3]).cast(&DataType::Date).unwrap(),
    ])
    .unwrap();
    read_as::<_, RecordBatch>(frame.clone(), |batch| {
        assert_eq!(batch.num_rows(), 3);
        let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["i", "s", "t", "b", "l", "r", "c", "d"]);
        let numbers = batch["i"].as_primitive::<Int64Type>();
        assert_eq!(numbers.iter().collect::<Vec<_>>(), [Some(1), None, Some(-3)]);
        let times = batch["t"].as_primitive::<TimestampMicrosecondType>();
        assert_eq!((times.value(2), times.timezone()), (3, Some("UTC")));
        assert_eq!(batch["b"].as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false), None]);
        assert_eq!(batch["s"].as_string::<i64>().value(2), "a text that is longer than a view holds");
        assert_eq!(batch["l"].null_count(), 1);
        assert_eq!(batch["r"].null_count(), 1);
    });
    read_as::<_, Vec<RecordBatch>>(frame, |batches| {
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 3)
    });
}

#[test]
fn every_type_of_polars_reads_as_record_batches() {
    // Arrow has no integers of 128 bits.
    let simple = simple_types().into_iter().filter(|dtype| *dtype != DataType::Int128);
    let types: Vec<_> =
        simple.flat_map(|dtype| [dtype.clone(), list(dtype.clone()), record(&[("x", dtype)])]).collect();
    let frames = types.iter().map(|dtype| frame(dtype, 9)).collect();
    read_each_as::<_, RecordBatch>(frames, |i, batch| {
        assert_eq!((batch.num_rows(), batch.num_columns()), (9, 1), "{:?}", types[i]);
        if types[i] != DataType::Null {
            assert_eq!(batch.column(0).null_count(), 2, "{:?}", types[i]);
        }
    });
}

#[test]
fn a_type_that_arrow_lacks_is_an_error_and_no_damage() {
    let chest = Chest::temporary().unwrap();
    chest.insert("k", frame(&DataType::Int128, 9)).unwrap();
    let error = chest.get::<RecordBatch>("k").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    chest.get::<DataFrame>("k").unwrap();
}

#[test]
fn a_frame_is_no_array_and_no_plain_value() {
    let chest = Chest::temporary().unwrap();
    chest.insert("f", df!("a" => [1]).unwrap()).unwrap();
    for _ in 0..2 {
        for error in [
            chest.get::<String>("f").unwrap_err(),
            chest.get::<ndarray::Array1<f64>>("f").unwrap_err(),
            chest.get::<serde_json::Value>("f").unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::WrongType);
            assert!(error.to_string().contains("frame"), "{error}");
        }
        chest.set_budget(0).unwrap();
    }
    chest.insert("s", "text").unwrap();
    let error = chest.get::<DataFrame>("s").unwrap_err();
    assert!(error.to_string().contains("String") && error.to_string().contains("DataFrame"), "{error}");
}
