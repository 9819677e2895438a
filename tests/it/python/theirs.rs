//! Files that Python wrote.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, RecordBatch};
use arrow_select::concat::concat_batches;
use icechest::{AnyArray, Chest, ErrorKind};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use polars_core::prelude::{AnyValue, DataFrame, Series};
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::arrays::bytes_of_any;
use super::python;
use crate::helpers::dir;

/// What `make.py` wrote, and what it says of it.
struct Made {
    dir: TempDir,
    files: Vec<Json>,
}

impl Made {
    fn new(dir: TempDir, what: &str) -> Self {
        python("make.py", &[what], dir.path());
        let files: Vec<_> = serde_json::from_slice(&std::fs::read(dir.path().join("made.json")).unwrap()).unwrap();
        assert!(files.len() > 5);
        Self { dir, files }
    }

    fn path(&self, facts: &Json, what: &str) -> PathBuf {
        self.dir.path().join(facts[what].as_str().unwrap())
    }

    fn assert_array(&self, array: &AnyArray, facts: &Json) {
        assert_eq!(array.dtype(), facts["dtype"], "{facts}");
        assert_eq!(json!(array.shape()), facts["shape"], "{facts}");
        assert!(bytes_of_any(array) == std::fs::read(self.path(facts, "raw")).unwrap(), "the elements of {facts}");
    }
}

/// The order in which an array's NPY file is, by its header.
fn order(array: &AnyArray) -> &'static str {
    let mut file = Vec::new();
    array.write_npy(&mut file).unwrap();
    let header = String::from_utf8_lossy(&file[..128]);
    if header.contains("'fortran_order': True") { "F" } else { "C" }
}

#[test]
fn npy_files_of_numpy_are_read() {
    let made = Made::new(dir(), "npy");
    for facts in &made.files {
        let array = AnyArray::from_npy(File::open(made.path(facts, "file")).unwrap());
        let array = array.unwrap_or_else(|error| panic!("{facts}: {error}"));
        made.assert_array(&array, facts);
        assert_eq!(order(&array), facts["order"], "{facts}");
    }
}

#[test]
fn npy_files_of_other_types_are_unsupported() {
    let made = Made::new(dir(), "strange_npy");
    let open = |facts: &Json| AnyArray::from_npy(File::open(made.path(facts, "file")).unwrap());
    let kinds = made.files.iter().map(|facts| (&facts["what"], open(facts).unwrap_err().kind()));
    let wrong: Vec<_> = kinds.filter(|(_, kind)| *kind != ErrorKind::Unsupported).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn number(value: f64) -> Json {
    if value.is_finite() {
        return value.into();
    }
    if value.is_nan() { "nan".into() } else { format!("{value}").into() }
}

fn hexadecimal(bytes: &[u8]) -> Json {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

fn rows(array: &dyn Array) -> Json {
    (0..array.len()).map(|row| of_arrow(array, row)).collect()
}

/// A value as JSON: times as integers in their unit, those of the day in nanoseconds, bytes in hexadecimal, NaN and infinities as text.
fn of_arrow(array: &dyn Array, row: usize) -> Json {
    use arrow_schema::DataType;

    if array.is_null(row) || *array.data_type() == DataType::Null {
        return Json::Null;
    }
    macro_rules! integers {
        ($($type:ident)*) => {
            $(if let Some(array) = array.as_primitive_opt::<$type>() {
                return array.value(row).into();
            })*
        };
    }
    integers!(
        Int8Type Int16Type Int32Type Int64Type UInt8Type UInt16Type UInt32Type UInt64Type
        Date32Type Time64NanosecondType
        TimestampMillisecondType TimestampMicrosecondType TimestampNanosecondType
        DurationMillisecondType DurationMicrosecondType DurationNanosecondType
    );
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Float32 => number(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => number(array.as_primitive::<Float64Type>().value(row)),
        DataType::Time64(_) => (array.as_primitive::<Time64MicrosecondType>().value(row) * 1000).into(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(row).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::Binary => hexadecimal(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => hexadecimal(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => hexadecimal(array.as_binary_view().value(row)),
        DataType::List(_) => rows(&array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => rows(&array.as_list::<i64>().value(row)),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            of_arrow(dictionary.values(), dictionary.normalized_keys()[row])
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            columns.map(|(field, column)| (field.name().clone(), of_arrow(column, row))).collect()
        }
        other => unreachable!("{other}"),
    }
}

fn values(series: &Series) -> Json {
    series.iter().map(|value| of_polars(&value)).collect()
}

/// As [`of_arrow`].
fn of_polars(value: &AnyValue) -> Json {
    match value {
        AnyValue::Null => Json::Null,
        AnyValue::Boolean(value) => (*value).into(),
        AnyValue::Float32(value) => number((*value).into()),
        AnyValue::Float64(value) => number(*value),
        AnyValue::UInt64(value) => (*value).into(),
        AnyValue::Date(value) => (*value).into(),
        AnyValue::Datetime(value, ..) | AnyValue::Duration(value, _) | AnyValue::Time(value) => (*value).into(),
        AnyValue::Decimal(value, _, scale) => {
            let (whole, part) = ((value / 10i128.pow(*scale as u32)), value.abs() % 10i128.pow(*scale as u32));
            format!("{whole}.{part:0scale$}").into()
        }
        AnyValue::Binary(bytes) => hexadecimal(bytes),
        AnyValue::List(series) => values(series),
        AnyValue::Struct(..) => {
            let fields: Vec<_> = value._iter_struct_av().map(|value| of_polars(&value)).collect();
            let AnyValue::Struct(.., named) = value else { unreachable!() };
            named.iter().map(|field| field.name().to_string()).zip(fields).collect()
        }
        value => match value.get_str() {
            Some(text) => text.into(),
            None => value.extract::<i64>().unwrap_or_else(|| panic!("{value:?}")).into(),
        },
    }
}

fn read_arrow(path: &Path) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<_> = builder.build().unwrap().map(|batch| batch.unwrap()).collect();
    concat_batches(&schema, &batches).unwrap()
}

fn read_polars(path: &Path) -> DataFrame {
    ParquetReader::new(File::open(path).unwrap()).finish().unwrap()
}

fn assert_arrow(batch: &RecordBatch, facts: &Json) {
    let columns = facts["columns"].as_array().unwrap();
    assert_eq!(batch.num_columns(), columns.len());
    for (column, wanted) in batch.columns().iter().zip(columns) {
        assert_eq!(rows(column), wanted["values"], "{} of {}", wanted["name"], facts["what"]);
    }
}

fn assert_polars(frame: &DataFrame, facts: &Json) {
    let columns = facts["columns"].as_array().unwrap();
    assert_eq!(frame.width(), columns.len());
    for (column, wanted) in frame.columns().iter().zip(columns) {
        assert_eq!(column.name().as_str(), wanted["name"]);
        assert_eq!(
            values(column.as_materialized_series()),
            wanted["values"],
            "{} of {}",
            wanted["name"],
            facts["what"]
        );
    }
}

#[test]
fn frames_of_python_come_back_as_batches_and_as_frames() {
    let made = Made::new(dir(), "parquet");
    let chest = Chest::builder().inline_limit(0).open(made.dir.path().join("chest")).unwrap();
    let key = |facts: &Json, whose: &str| format!("{whose} {}", facts["what"].as_str().unwrap());
    for facts in &made.files {
        let path = made.path(facts, "file");
        let (batch, frame) = (read_arrow(&path), read_polars(&path));
        assert_arrow(&batch, facts);
        assert_polars(&frame, facts);
        chest.insert(key(facts, "Arrow"), batch).unwrap();
        chest.insert(key(facts, "polars"), frame).unwrap();
    }
    chest.flush().unwrap();
    chest.set_budget(0).unwrap();
    for facts in &made.files {
        for whose in ["Arrow", "polars"] {
            assert_arrow(&chest.get::<RecordBatch>(key(facts, whose)).unwrap(), facts);
            assert_polars(&chest.get::<DataFrame>(key(facts, whose)).unwrap(), facts);
        }
    }
}

#[test]
fn arrays_that_blosc2_put_into_a_chest_are_read_or_refused() {
    let dir = dir();
    let path = dir.path().join("chest");
    drop(Chest::open(&path).unwrap());
    let made = Made::new(dir, "blosc2");
    let chest = Chest::open(&path).unwrap();
    assert_eq!(chest.len().unwrap(), made.files.len() as u64);
    for facts in &made.files {
        let key = facts["what"].as_str().unwrap();
        match facts["names"].as_str() {
            None => {
                let array = chest.get::<AnyArray>(key).unwrap_or_else(|error| panic!("{error}"));
                made.assert_array(&array, facts);
            }
            Some(name) => {
                let error = chest.get::<AnyArray>(key).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                assert!(error.to_string().contains(&format!(" {name}")), "{error} does not name {name}");
            }
        }
    }
}
