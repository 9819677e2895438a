//! Files of any of the known formats, read as values.

use std::collections::HashSet;
use std::error::Error;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_csv::ReaderBuilder;
use arrow_csv::reader::Format;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use icechest::{AnyArray, Chest, Key};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::Length;
use serde_json::Value as Json;

use crate::failure::{Failure, Result};
use crate::human::many;
use crate::progress::{self, Watched};

/// Rows of a batch that is read.
const BATCH_ROWS: usize = 64 << 10;

/// A value that was read from a file.
pub(crate) enum Loaded {
    Array(AnyArray),
    Frame(Vec<RecordBatch>),
    Json(Json),
    Bytes(Vec<u8>),
    /// Read as it is stored.
    Folder(PathBuf),
}

impl Loaded {
    pub(crate) fn insert(self, chest: &Chest, key: &Key) -> icechest::Result<()> {
        match self {
            Self::Array(array) => chest.insert(key, array),
            Self::Frame(batches) => chest.insert(key, batches),
            Self::Json(json) => chest.insert(key, json),
            Self::Bytes(bytes) => chest.insert(key, bytes),
            Self::Folder(path) => chest.insert_files(key, path),
        }
    }
}

/// The ending of a file's name, in small letters.
pub(crate) fn ending(path: &Path) -> String {
    path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase()
}

/// Reads a file as what its ending says; a folder is a folder.
pub(crate) fn load(path: &Path) -> Result<Loaded> {
    let file = File::open(path).map_err(Failure::at("open", path))?;
    let meta = file.metadata().map_err(Failure::at("read", path))?;
    if meta.is_dir() {
        return Ok(Loaded::Folder(path.to_owned()));
    }
    let ending = ending(path);
    // CSV is read twice: its types are known at its end.
    let passes = if ending == "csv" { 2 } else { 1 };
    let bar = progress::of_bytes(format!("reading {}", path.display()), meta.len() * passes);
    let watched = |file| Watched::new(file, meta.len(), bar.clone());
    let fail = |error: ArrowError| Failure::at("read", path)(error);
    let loaded = match ending.as_str() {
        "npy" => {
            let _working = progress::of_work(format!("reading {}", path.display()));
            Loaded::Array(AnyArray::from_npy(file).map_err(Failure::at("read", path))?)
        }
        "parquet" => Loaded::Frame(parquet(watched(file)).map_err(fail)?),
        "csv" => Loaded::Frame(csv(watched(file)).map_err(fail)?),
        "arrow" | "feather" | "ipc" => Loaded::Frame(ipc(watched(file)).map_err(fail)?),
        "json" => {
            let bytes = read_all(watched(file), meta.len()).map_err(Failure::at("read", path))?;
            Loaded::Json(json(&bytes).map_err(Failure::at("read", path))?)
        }
        _ => Loaded::Bytes(read_all(watched(file), meta.len()).map_err(Failure::at("read", path))?),
    };
    bar.finish_and_clear();
    Ok(loaded)
}

fn read_all(mut file: Watched, len: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A pipe has length 0 and is read nevertheless.
    let reserved = usize::try_from(len).is_ok_and(|len| bytes.try_reserve_exact(len).is_ok());
    if !reserved {
        return Err(std::io::ErrorKind::OutOfMemory.into());
    }
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn collect<E>(
    schema: &SchemaRef,
    batches: impl Iterator<Item = std::result::Result<RecordBatch, E>>,
) -> std::result::Result<Vec<RecordBatch>, E> {
    let batches: Vec<_> = batches.collect::<std::result::Result<_, _>>()?;
    // Without rows, one empty batch tells the columns.
    Ok(if batches.is_empty() { vec![RecordBatch::new_empty(schema.clone())] } else { batches })
}

fn parquet(file: Watched) -> std::result::Result<Vec<RecordBatch>, ArrowError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let schema = builder.schema().clone();
    collect(&schema, builder.with_batch_size(BATCH_ROWS).build()?)
}

fn csv(mut file: Watched) -> std::result::Result<Vec<RecordBatch>, ArrowError> {
    // Spreadsheets begin their files with a mark of their encoding, which is no part of the first column's name.
    let mut mark = [0; 3];
    let has_mark = file.read_exact(&mut mark).is_ok() && mark == *b"\xef\xbb\xbf";
    let start = SeekFrom::Start(if has_mark { 3 } else { 0 });
    file.seek(start)?;
    let format = Format::default().with_header(true);
    let (schema, _rows) = format.infer_schema(BufReader::new(&mut file), None)?;
    file.seek(start)?;
    let schema = Arc::new(distinct(schema));
    let reader = ReaderBuilder::new(schema.clone()).with_format(format).with_batch_size(BATCH_ROWS).build(file)?;
    collect(&schema, reader)
}

/// Columns of one name get a number: hardly any tool reads a frame in which a name occurs twice.
fn distinct(schema: Schema) -> Schema {
    let mut seen = HashSet::new();
    let mut names: HashSet<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let fields = schema.fields().iter().map(|field| {
        let mut field = Field::clone(field);
        if !seen.insert(field.name().clone()) {
            let numbered = (2..).map(|i| format!("{}_{i}", field.name())).find(|name| names.insert(name.clone()));
            field.set_name(numbered.unwrap_or_default());
        }
        field
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// A document, if none of its integers would be rounded.
fn json(bytes: &[u8]) -> std::result::Result<Json, Box<dyn Error>> {
    let json = serde_json::from_slice(bytes)?;
    let is_lost = |digits: &&[u8]| {
        // Shorter ones fit, and those of a fraction or an exponent are no integers.
        let text = std::str::from_utf8(digits).unwrap_or_default();
        digits.len() > 18 && text.parse::<i64>().is_err() && text.parse::<u64>().is_err()
    };
    if let Some(lost) = integers(bytes).find(is_lost) {
        let lost = String::from_utf8_lossy(lost);
        return Err(format!("the integer {lost} would be rounded; a file without .json is stored as it is").into());
    }
    Ok(json)
}

/// The integers of a valid document, those inside of texts excepted.
fn integers(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let mut rest = bytes;
    std::iter::from_fn(move || {
        loop {
            match rest.first()? {
                b'"' => {
                    rest = &rest[1..];
                    while *rest.first()? != b'"' {
                        rest = rest.get(if rest[0] == b'\\' { 2 } else { 1 }..)?;
                    }
                    rest = &rest[1..];
                }
                b'0'..=b'9' | b'-' => {
                    let end = rest.iter().position(|byte| !is_number(byte)).unwrap_or(rest.len());
                    let (number, after) = rest.split_at(end);
                    rest = after;
                    if !number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
                        return Some(number);
                    }
                }
                _ => rest = &rest[1..],
            }
        }
    })
}

/// Arrow's file format, or its stream format under the same ending.
fn ipc(mut file: Watched) -> std::result::Result<Vec<RecordBatch>, ArrowError> {
    let mut magic = [0; 6];
    let is_file = file.read_exact(&mut magic).is_ok() && magic == *b"ARROW1";
    file.seek(SeekFrom::Start(0))?;
    if magic.starts_with(b"FEA1") {
        return Err(ArrowError::ParseError("this is the old Feather format; write it again as version 2".to_owned()));
    }
    // The shortest file has its mark at both ends and a length between.
    if is_file && file.len() < 16 {
        return Err(ArrowError::ParseError("the file ends too early".to_owned()));
    }
    if is_file {
        let reader = FileReader::try_new_buffered(file, None)?;
        collect(&reader.schema(), reader)
    } else {
        let reader = StreamReader::try_new_buffered(file, None)?;
        collect(&reader.schema(), reader)
    }
}

/// How many rows and columns a frame has.
pub(crate) fn size(batches: &[RecordBatch]) -> impl Display {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    let columns = batches.first().map_or(0, RecordBatch::num_columns);
    format!("{} x {}", many(rows, "row"), many(columns, "column"))
}

#[cfg(test)]
mod tests {
    use arrow_schema::DataType;

    use super::*;

    #[test]
    fn integers_that_json_would_round_are_refused() {
        let fine = [
            r#"{"a\"99999999999999999999":[18446744073709551615,-9223372036854775808,1e30,0.12345678901234567890]}"#,
            "3",
        ];
        for text in fine {
            assert!(json(text.as_bytes()).is_ok(), "{text}");
        }
        for text in
            ["18446744073709551616", r#"["\\",-9223372036854775809]"#, r#"{"n":123456789012345678901234567890}"#]
        {
            let error = json(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("rounded"), "{error}");
        }
    }

    #[test]
    fn columns_get_distinct_names() {
        let fields = ["a", "a", "a_2", "a", "b"].map(|name| Field::new(name, DataType::Int8, true));
        let schema = distinct(Schema::new(fields.to_vec()));
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["a", "a_3", "a_2", "a_4", "b"]);
    }
}
