//! Arrow IPC files: frames as they lie in memory, to be mapped instead of read.
//!
//! The format is described in <https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format>. Bodies are never
//! compressed, and buffers begin at multiples of 64 bytes, so what is mapped needs no copy.

mod check;

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::ByteViewType;
use arrow_array::{Array, ArrayRef, GenericByteViewArray, RecordBatch, RecordBatchOptions};
use arrow_buffer::Buffer;
use arrow_ipc::reader::FileDecoder;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_ipc::{Block, MetadataVersion};
use arrow_schema::{ArrowError, DataType, Field, SchemaRef};

use self::check::Contents;
use super::{Decoder, Encoder, Format, ROW_GROUP_BYTES};
use crate::error::{Error, Result};
use crate::value::Selection;

/// The name of the format.
pub(crate) const NAME: &str = "arrow";

/// Where a buffer begins.
const ALIGN: usize = 64;

/// Rows of a batch at least.
const FEWEST: usize = 1024;

fn writer<W: Write>(out: W, schema: &SchemaRef) -> std::result::Result<FileWriter<W>, ArrowError> {
    let options = IpcWriteOptions::try_new(ALIGN, false, MetadataVersion::V5)?;
    FileWriter::try_new_with_options(out, schema, options)
}

/// Whether these batches come back from IPC as they are: a row is written and read as a trial. Batches with dictionaries
/// of their own do not, for a file has one dictionary a column. Of views of text within lists and structs the writer would
/// write all the text that they lie in, again with each piece.
pub(crate) fn carries(schema: &SchemaRef, batches: &[RecordBatch]) -> bool {
    let has_dictionary =
        schema.flattened_fields().iter().any(|field| matches!(field.data_type(), DataType::Dictionary(..)));
    let is_view = |field: &&Field| matches!(field.data_type(), DataType::Utf8View | DataType::BinaryView);
    let views = schema.flattened_fields().into_iter().filter(is_view).count();
    let has_inner_views = views > schema.fields().iter().map(AsRef::as_ref).filter(is_view).count();
    if has_dictionary && batches.len() > 1 || has_inner_views {
        return false;
    }
    let row = batches.iter().find(|batch| batch.num_rows() > 0).map(|batch| batch.slice(0, 1));
    let carry = || {
        let row = row.as_ref().map(compact).transpose()?;
        let mut file = Vec::new();
        let mut writer = writer(&mut file, schema)?;
        row.iter().try_for_each(|row| writer.write(row))?;
        writer.finish()?;
        drop(writer);
        let len = file.len();
        let source = Source { buffer: Buffer::from(file), label: len..len };
        let read = read(&source, u64::MAX, &Selection::default());
        Ok::<bool, ArrowError>(read.is_ok_and(|(read, rows)| read == *schema && row.is_none_or(|row| rows == [row])))
    };
    panic::catch_unwind(AssertUnwindSafe(carry)).is_ok_and(|carried| carried.unwrap_or(false))
}

/// Writes batches that [`carries`] let through. Memory: about [`ROW_GROUP_BYTES`], or what a thousand rows take.
pub(crate) fn encode(schema: &SchemaRef, batches: &[RecordBatch], size: usize, out: &mut Encoder) -> Result<Format> {
    let cannot_write = |error: ArrowError| match error {
        ArrowError::IoError(_, error) => Error::io("cannot write the frame", error),
        error => Error::unsupported("cannot write the frame").with_source(error),
    };
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let piece = (ROW_GROUP_BYTES / (size / rows.max(1)).max(1)).max(FEWEST);
    let mut writer = writer(&mut *out, schema).map_err(cannot_write)?;
    for batch in batches {
        for start in (0..batch.num_rows().max(1)).step_by(piece) {
            let part = compact(&batch.slice(start, piece.min(batch.num_rows() - start))).map_err(cannot_write)?;
            writer.write(&part).map_err(cannot_write)?;
        }
    }
    writer.finish().map_err(cannot_write)?;
    drop(writer);
    Ok(Format::new(NAME, NAME))
}

/// Without the text that only other rows show: the writer writes whatever buffers there are.
fn compact(batch: &RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View if shows_little(column.as_string_view()) => {
            Arc::new(column.as_string_view().gc()) as ArrayRef
        }
        DataType::BinaryView if shows_little(column.as_binary_view()) => Arc::new(column.as_binary_view().gc()),
        _ => column.clone(),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns.collect(), &options)
}

/// Whether most of what lies in the buffers of a column is not in the column.
fn shows_little<T: ByteViewType>(column: &GenericByteViewArray<T>) -> bool {
    let lies: usize = column.data_buffers().iter().map(|buffer| buffer.len()).sum();
    lies > column.total_buffer_bytes_used().saturating_mul(2)
}

/// A file in memory, mapped perhaps, and where in it the label is.
pub(super) struct Source {
    buffer: Buffer,
    label: std::ops::Range<usize>,
}

/// Reads what is selected: the schema, and at least one batch. Nothing is copied from a file that can be mapped.
pub(crate) fn decode(input: &mut Decoder, selection: &Selection) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let size = input.size();
    let cannot_map = |error| Error::io("cannot map the frame's file", error);
    let source = match input.map_labelled(input.is_verified()).map_err(cannot_map)? {
        Some(map) => {
            input.note_verified();
            let label = input.label().unwrap_or(map.len()..map.len());
            Source { buffer: Buffer::from(bytes::Bytes::from_owner(map)), label }
        }
        None => {
            let bytes = input.read_to_vec()?;
            let label = bytes.len()..bytes.len();
            Source { buffer: Buffer::from(bytes), label }
        }
    };
    read(&source, size, selection)
}

/// The batches of what is selected, one after the other, from a file of either kind.
#[cfg(feature = "arrow")]
pub(crate) enum Batches {
    Parquet(Box<super::parquet::arrow::Batches>),
    Mapped(SchemaRef, std::vec::IntoIter<RecordBatch>),
}

#[cfg(feature = "arrow")]
impl Batches {
    pub(crate) fn read(input: &mut Decoder, selection: &Selection) -> Result<Self> {
        use super::parquet::arrow::{BATCH_ROWS, batches};
        if input.format() != NAME {
            return Ok(Self::Parquet(Box::new(batches(input, selection)?)));
        }
        let (schema, batches) = decode(input, selection)?;
        let rows = BATCH_ROWS as usize;
        let cut = |batch: RecordBatch| {
            let starts = (0..batch.num_rows()).step_by(rows);
            starts.map(move |start| batch.slice(start, rows.min(batch.num_rows() - start)))
        };
        let batches: Vec<_> = batches.into_iter().flat_map(cut).collect();
        Ok(Self::Mapped(schema, batches.into_iter()))
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        match self {
            Self::Parquet(batches) => &batches.schema,
            Self::Mapped(schema, _) => schema,
        }
    }
}

#[cfg(feature = "arrow")]
impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Parquet(batches) => batches.next(),
            Self::Mapped(_, batches) => batches.next().map(Ok),
        }
    }
}

fn read(source: &Source, size: u64, selection: &Selection) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let unsound = |error: io::Error| Error::io("the bytes are no sound Arrow file", error);
    let contents = Contents::read(source, size).map_err(unsound)?;
    let schema = &contents.schema;
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let columns = selection.columns_of(&names)?;
    let mut decoder = FileDecoder::new(schema.clone(), MetadataVersion::V5);
    if let Some(columns) = &columns {
        let mut read = columns.clone();
        read.sort_unstable();
        read.dedup();
        decoder = decoder.with_projection(read);
    }
    let damaged = |error: ArrowError| Error::damaged("cannot read the frame").with_source(error);
    let at = |block: &Block| {
        let len = block.metaDataLength() as usize + block.bodyLength() as usize;
        source.buffer.slice_with_length(block.offset() as usize, len)
    };
    for block in &contents.dictionaries {
        decoder.read_dictionary(block, &at(block)).map_err(damaged)?;
    }
    let rows = selection.rows_of(contents.batches.iter().map(|(_, rows)| rows).sum());
    let wanted = match &columns {
        Some(columns) => Arc::new(schema.project(columns).map_err(damaged)?),
        None => schema.clone(),
    };
    let (mut batches, mut start) = (Vec::new(), 0);
    for (block, len) in &contents.batches {
        let part = rows.start.clamp(start, start + len) - start..rows.end.clamp(start, start + len) - start;
        start += len;
        if part.is_empty() {
            continue;
        }
        let batch = decoder.read_record_batch(block, &at(block)).map_err(damaged)?;
        let batch = batch.ok_or_else(|| Error::damaged("the frame lacks a batch"))?;
        let batch = arrange(&batch, columns.as_deref(), &wanted).map_err(damaged)?;
        batches.push(if part.len() == *len { batch } else { batch.slice(part.start, part.len()) });
    }
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(wanted.clone()));
    }
    Ok((wanted, batches))
}

/// The columns in the order that they were asked for; what was read has them in the order of the file and each once.
fn arrange(
    batch: &RecordBatch,
    columns: Option<&[usize]>,
    schema: &SchemaRef,
) -> std::result::Result<RecordBatch, ArrowError> {
    let Some(columns) = columns else { return Ok(batch.clone()) };
    let mut read = columns.to_vec();
    read.sort_unstable();
    read.dedup();
    let place = |column: &usize| batch.column(read.partition_point(|other| other < column)).clone();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns.iter().map(place).collect(), &options)
}
