//! Arrow record batches as Parquet, written and read as a stream.

use std::io::{self, Read};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{ArrowError, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{ChunkReader, Length};
use serde_json::json;

use super::super::{Compression, Decoder, Encoder, Format, Payload, ROW_GROUP_BYTES, ReadAt};
use super::check;
use crate::error::{Error, ErrorKind, Result};

/// Rows of a batch that is read.
const BATCH_ROWS: u64 = 64 << 10;

/// Rows of a group at most. Even a column of one value then has bytes enough for what its values take in memory, see
/// [`check`].
const GROUP_ROWS: usize = 1 << 18;

pub(crate) fn encode(schema: &SchemaRef, batches: &[RecordBatch], size: usize, out: &mut Encoder) -> Result<Format> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    out.describe("rows", rows);
    let columns: Vec<_> =
        schema.fields().iter().map(|field| json!([field.name(), field.data_type().to_string()])).collect();
    out.describe("columns", columns);
    let codec = match out.compression() {
        Compression::Never => Codec::LZ4_RAW,
        Compression::Auto | Compression::Small => Codec::ZSTD(ZstdLevel::default()),
    };
    let group = (ROW_GROUP_BYTES / (size / rows.max(1)).max(1)).clamp(1024, GROUP_ROWS);
    let properties =
        WriterProperties::builder().set_compression(codec).set_max_row_group_row_count(Some(group)).build();
    let write = || {
        let mut writer = ArrowWriter::try_new(&mut *out, schema.clone(), Some(properties))?;
        for batch in batches {
            writer.write(batch)?;
        }
        writer.close()
    };
    write().map_err(|error| parquet_error("cannot write the frame", ErrorKind::Unsupported, error))?;
    Ok(Format::new("parquet", "parquet"))
}

/// The schema that a frame comes back with, found by writing and reading a row of it.
pub(crate) fn carried_schema(schema: &SchemaRef, row: Option<&RecordBatch>) -> Result<SchemaRef> {
    let carry = || {
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, schema.clone(), None)?;
        if let Some(row) = row {
            writer.write(row)?;
        }
        writer.close()?;
        check(&file, u64::MAX).map_err(|error| ParquetError::External(error.into()))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file))?;
        let carried = builder.schema().clone();
        for batch in builder.build()? {
            batch?;
        }
        Ok(carried)
    };
    panic::catch_unwind(AssertUnwindSafe(carry))
        .unwrap_or_else(|_| Err(ParquetError::General("the library panicked".to_owned())))
        .map_err(|error| Error::unsupported("Parquet cannot carry a column of this frame").with_source(error))
}

/// The schema, and at least one batch.
pub(crate) fn decode(input: &mut Decoder) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let damaged = |error| match error {
        // The bytes are those that were published, but another kind of frame wrote them.
        ParquetError::ArrowError(_) | ParquetError::NYI(_) => {
            parquet_error("Arrow cannot read this frame", ErrorKind::Unsupported, error)
        }
        ParquetError::External(ref inner) if inner.is::<ArrowError>() => {
            parquet_error("Arrow cannot read this frame", ErrorKind::Unsupported, error)
        }
        _ => parquet_error("cannot read the frame", ErrorKind::Damaged, error),
    };
    let justified = check(&**input.payload(), input.size())?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(Source(input.payload().clone())).map_err(damaged)?;
    let schema = builder.schema().clone();
    let rows = justified.rows.clamp(1, BATCH_ROWS) as usize;
    let reader = builder.with_batch_size(rows).build().map_err(damaged)?;
    if schema.fields().is_empty() {
        // A file without columns has no rows of its own.
        let rows = input.fact("rows").and_then(serde_json::Value::as_u64).unwrap_or(0);
        return Ok((schema.clone(), vec![with_schema(&schema, Vec::new(), rows as usize)?]));
    }
    let mut memory = 0;
    let mut batches = reader
        .map(|batch| {
            let batch =
                batch.map_err(|error| Error::damaged("cannot read the frame").with_source(error.to_string()))?;
            memory += batch.get_array_memory_size() as u64;
            if !justified.allows(memory) {
                return Err(Error::damaged("the values are more than the bytes of the frame account for"));
            }
            // The reader's batches lack the schema's metadata.
            with_schema(&schema, batch.columns().to_vec(), batch.num_rows())
        })
        .collect::<Result<Vec<_>>>()?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema.clone()));
    }
    Ok((schema, batches))
}

fn with_schema(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .map_err(|error| Error::damaged("the columns are not those of the schema").with_source(error))
}

/// An error of ours that went through the library comes out as it went in.
fn parquet_error(message: &str, kind: ErrorKind, error: ParquetError) -> Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(io) => Error::io(message, *io),
            Err(other) => Error::new(kind, message).with_source(other),
        },
        other => Error::new(kind, message).with_source(other),
    }
}

/// A payload as the `parquet` crate reads it.
struct Source(Arc<Payload>);

impl Length for Source {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Source {
    type T = From;

    fn get_read(&self, start: u64) -> parquet::errors::Result<From> {
        Ok(From { payload: self.0.clone(), position: start.min(self.0.len()) })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.0.len()) {
            return Err(ParquetError::EOF("a column lies outside the file".to_owned()));
        }
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// Reads a payload from a position on. Its end is an error: the library would skip elements beyond it, two billion if a
/// header says so.
pub(crate) struct From {
    payload: Arc<Payload>,
    position: u64,
}

impl Read for From {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.payload.read_at(buf, self.position)?;
        if n == 0 && !buf.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += n as u64;
        Ok(n)
    }
}
