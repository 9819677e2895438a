//! Arrow record batches as Parquet, written and read as a stream.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_data::ArrayData;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter, ProjectionMask};
use parquet::basic::{Compression as Codec, Type as PhysicalType, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::ColumnPath;
use serde_json::json;

use super::super::{
    Compression, Decoder, Encoder, Format, FrameFormat, Payload, ROW_GROUP_BYTES, ReadAt, ipc, read_frame,
};
use super::{Dictionaries, Justified, check};
use crate::error::{Error, ErrorKind, Result};
use crate::value::{Selection, read_pieces};

/// Rows of a batch that is read.
pub(crate) const BATCH_ROWS: u64 = 64 << 10;

/// About so many bytes of text a column of a batch has at most: some types have no room for more than 2 GiB.
const BATCH_BYTES: u64 = 256 << 20;

/// Rows of a frame in pieces that are written before its size is looked at.
const PIECE_ROWS: usize = 8 << 10;

/// Rows of a group at most. Even a column of one value then has bytes enough for what its values take in memory, see
/// [`check`].
const GROUP_ROWS: usize = 1 << 18;

/// Of a dictionary of numbers at most: those that hardly come twice compress worse with one, and take twice as long to
/// write. Text may be long, and still the same again and again.
const DICTIONARY_BYTES: usize = 128 << 10;

/// Of what is a dictionary in memory: without one it might take any number of times as much, on disk and when it is read.
const LARGEST_DICTIONARY: usize = 1 << 30;

pub(crate) fn encode(schema: &SchemaRef, batches: &[RecordBatch], size: usize, out: &mut Encoder) -> Result<Format> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    out.describe("rows", rows);
    out.describe("columns", described(schema));
    if out.frame_format() == FrameFormat::Arrow && ipc::carries(schema, batches) {
        return ipc::encode(schema, batches, size, out);
    }
    let group = (ROW_GROUP_BYTES / (size / rows.max(1)).max(1)).clamp(1024, GROUP_ROWS);
    let properties = properties(schema, out.compression(), group);
    let write = || {
        let mut writer = ArrowWriter::try_new(&mut *out, schema.clone(), Some(properties))?;
        for batch in batches {
            writer.write(batch)?;
        }
        writer.close()
    };
    write().map_err(cannot_write)?;
    Ok(Format::new("parquet", "parquet"))
}

fn properties(schema: &Schema, compression: Compression, group: usize) -> WriterProperties {
    let codec = match compression {
        Compression::Fast | Compression::Never => Codec::LZ4_RAW,
        // About as small as level 3 makes it, in three quarters of the time.
        Compression::Auto => Codec::ZSTD(ZstdLevel::try_new(2).unwrap_or_default()),
        Compression::Small => Codec::ZSTD(ZstdLevel::try_new(3).unwrap_or_default()),
    };
    let properties = WriterProperties::builder().set_compression(codec).set_max_row_group_row_count(Some(group));
    let numbers = schema.fields().iter().filter(|field| field.data_type().is_primitive());
    let limit = |properties: WriterPropertiesBuilder, field: &Arc<Field>| {
        let column = ColumnPath::new(vec![field.name().clone()]);
        properties.set_column_dictionary_page_size_limit(column, DICTIONARY_BYTES)
    };
    let properties = numbers.fold(properties, limit);
    let keep = |properties: WriterPropertiesBuilder, column: ColumnPath| {
        properties.set_column_dictionary_page_size_limit(column, LARGEST_DICTIONARY)
    };
    columns_of_dictionaries(schema).into_iter().fold(properties, keep).build()
}

/// The columns that are dictionaries in memory.
fn columns_of_dictionaries(schema: &Schema) -> Vec<ColumnPath> {
    let mut leaves = Vec::new();
    schema.fields().iter().for_each(|field| add_leaves(field.data_type(), &mut leaves));
    // What Parquet cannot carry is told by the writer.
    let Ok(columns) = ArrowSchemaConverter::new().convert(schema) else { return Vec::new() };
    let of_dictionaries = columns.columns().iter().zip(&leaves).filter(|(_, is_dictionary)| **is_dictionary);
    if columns.num_columns() == leaves.len() {
        of_dictionaries.map(|(column, _)| column.path().clone()).collect()
    } else {
        Vec::new()
    }
}

/// Adds for each column that Parquet makes of a type whether it is a dictionary.
fn add_leaves(of: &DataType, leaves: &mut Vec<bool>) {
    match of {
        DataType::Struct(fields) => fields.iter().for_each(|field| add_leaves(field.data_type(), leaves)),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => add_leaves(field.data_type(), leaves),
        leaf => leaves.push(matches!(leaf, DataType::Dictionary(..))),
    }
}

/// A frame that is written in pieces.
pub(crate) struct Pieces {
    writer: ArrowWriter<Encoder>,
    schema: SchemaRef,
    rows: usize,
    /// What the rows take in memory.
    bytes: usize,
    /// Held, so that a batch of the same buffers, another slice of them perhaps, can be told from one of new buffers.
    last: RecordBatch,
    dictionaries: Dictionaries,
}

impl Pieces {
    pub(crate) fn new(schema: SchemaRef, out: Encoder) -> Result<Self> {
        let properties = properties(&schema, out.compression(), GROUP_ROWS);
        let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(cannot_write)?;
        let last = RecordBatch::new_empty(schema.clone());
        let dictionaries = Dictionaries::new(&schema);
        Ok(Self { writer, schema, rows: 0, bytes: 0, last, dictionaries })
    }

    /// Adds rows. Memory is taken for one row group.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.dictionaries.add(batch)?;
        let mut seen = HashSet::new();
        for column in self.last.columns() {
            add_buffers(&column.to_data(), &mut seen, &mut 0);
        }
        for column in batch.columns() {
            add_buffers(&column.to_data(), &mut seen, &mut self.bytes);
        }
        self.last = batch.clone();
        self.rows += batch.num_rows();
        for start in (0..batch.num_rows()).step_by(PIECE_ROWS) {
            let piece = batch.slice(start, PIECE_ROWS.min(batch.num_rows() - start));
            self.writer.write(&piece).map_err(cannot_write)?;
            if self.writer.memory_size() >= ROW_GROUP_BYTES {
                self.writer.flush().map_err(cannot_write)?;
            }
        }
        Ok(())
    }

    /// Ends the file; tells what the frame takes in memory.
    pub(crate) fn finish(self) -> Result<(Encoder, Format, u64)> {
        let mut out = self.writer.into_inner().map_err(cannot_write)?;
        out.describe("rows", self.rows);
        out.describe("columns", described(&self.schema));
        Ok((out, Format::new("parquet", "parquet"), self.bytes as u64))
    }
}

fn cannot_write(error: ParquetError) -> Error {
    parquet_error("cannot write the frame", ErrorKind::Unsupported, error)
}

fn described(schema: &SchemaRef) -> Vec<serde_json::Value> {
    schema.fields().iter().map(|field| json!([field.name(), field.data_type().to_string()])).collect()
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
        check(&file, u64::MAX, &Selection::default()).map_err(|error| ParquetError::External(error.into()))?;
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

/// The batches of what is selected, one after the other.
pub(crate) struct Batches {
    pub(crate) schema: SchemaRef,
    /// None for a file without columns, which has rows all the same.
    reader: Option<ParquetRecordBatchReader>,
    rows: usize,
    plan: Plan,
    /// Where the columns are in what is read, which has them in the order of the file and each once.
    order: Vec<usize>,
    /// What the batches take, and the buffers that were counted.
    memory: usize,
    seen: HashSet<usize>,
    justified: Justified,
}

/// What is read, and in batches of how many rows.
struct Plan {
    payload: Arc<Payload>,
    mask: ProjectionMask,
    groups: Vec<usize>,
    /// The rows of these groups that are still to be read.
    left: Range<usize>,
    batch: usize,
}

impl Plan {
    fn reader(&self) -> Result<ParquetRecordBatchReader> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(Source(self.payload.clone())).map_err(damaged)?;
        let builder = builder.with_projection(self.mask.clone()).with_row_groups(self.groups.clone());
        let builder = builder.with_offset(self.left.start).with_limit(self.left.len()).with_batch_size(self.batch);
        builder.build().map_err(damaged)
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_none() {
            let rows = std::mem::take(&mut self.rows);
            return (rows > 0).then(|| with_schema(&self.schema, Vec::new(), rows));
        }
        let batch = self.read()?.and_then(|batch| self.take(&batch));
        if batch.is_err() {
            self.reader = None;
        }
        Some(batch)
    }
}

impl Batches {
    /// The next batch as the reader gives it. How long its texts are together shows only then: where they are too long for a
    /// batch, those to come are smaller.
    fn read(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            let text = match self.reader.as_mut()?.next()? {
                Ok(batch) => {
                    self.plan.left.start += batch.num_rows();
                    return Some(Ok(batch));
                }
                Err(error) => error.to_string(),
            };
            if !text.contains("index overflow") {
                return Some(Err(Error::damaged("cannot read the frame").with_source(text)));
            }
            if self.plan.batch == 1 {
                let message = "the text of a row is more than its type has room for";
                return Some(Err(Error::unsupported(message).with_source(text)));
            }
            self.plan.batch /= 2;
            match self.plan.reader() {
                Ok(reader) => self.reader = Some(reader),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        for column in batch.columns() {
            add_buffers(&column.to_data(), &mut self.seen, &mut self.memory);
        }
        if !self.justified.allows(self.memory as u64) {
            return Err(Error::damaged("the values are more than the bytes of the frame account for"));
        }
        // The reader's batches lack the schema's metadata.
        let columns = self.order.iter().map(|&column| batch.column(column).clone()).collect();
        with_schema(&self.schema, columns, batch.num_rows())
    }
}

/// Reads what is selected: at least one batch.
pub(crate) fn decode(input: &mut Decoder, selection: &Selection) -> Result<Vec<RecordBatch>> {
    if input.format() == ipc::NAME {
        return Ok(ipc::decode(input, selection)?.1);
    }
    let reader = batches(input, selection)?;
    let schema = reader.schema.clone();
    let mut batches = reader.collect::<Result<Vec<_>>>()?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok(batches)
}

/// Reads what is selected, batch by batch.
pub(crate) fn batches(input: &mut Decoder, selection: &Selection) -> Result<Batches> {
    let justified = check(&**input.payload(), input.size(), selection)?;
    let part = &justified.part;
    let payload = input.payload().clone();
    let (groups, left) = (part.groups.clone(), part.rows.clone());
    let builder = ParquetRecordBatchReaderBuilder::try_new(Source(input.payload().clone())).map_err(damaged)?;
    let mut schema = builder.schema().clone();
    if schema.fields().is_empty() {
        // A file without columns has no rows of its own.
        let rows = input.fact("rows").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let rows = selection.rows_of(rows as usize).len();
        let plan = Plan { payload, mask: ProjectionMask::all(), groups, left, batch: 1 };
        let (order, seen) = (Vec::new(), HashSet::new());
        return Ok(Batches { schema, reader: None, rows, plan, order, memory: 0, seen, justified });
    }
    let mut mask = ProjectionMask::all();
    let mut order: Vec<usize> = (0..schema.fields().len()).collect();
    if let Some(columns) = &part.columns {
        mask = ProjectionMask::roots(builder.parquet_schema(), columns.iter().copied());
        let read: BTreeSet<usize> = columns.iter().copied().collect();
        order = columns.iter().map(|column| read.range(..column).count()).collect();
        schema = Arc::new(schema.project(columns).map_err(|error| damaged(error.into()))?);
    }
    let batch = justified.rows.clamp(1, rows_of_a_batch(builder.metadata())) as usize;
    let plan = Plan { payload, mask, groups, left, batch };
    let reader = Some(plan.reader()?);
    Ok(Batches { schema, reader, rows: 0, plan, order, memory: 0, seen: HashSet::new(), justified })
}

/// How many rows a batch should have: fewer where they have long texts.
fn rows_of_a_batch(file: &ParquetMetaData) -> u64 {
    let texts = |group: &RowGroupMetaData| {
        let texts = group.columns().iter().filter(|chunk| chunk.column_type() == PhysicalType::BYTE_ARRAY);
        let bytes = |chunk: &ColumnChunkMetaData| {
            chunk.unencoded_byte_array_data_bytes().unwrap_or(0).max(chunk.uncompressed_size())
        };
        let most = texts.map(bytes).max().unwrap_or(0);
        most.max(0).cast_unsigned() / group.num_rows().max(1).cast_unsigned()
    };
    let longest = file.row_groups().iter().map(texts).max().unwrap_or(0);
    (BATCH_BYTES / longest.max(1)).clamp(1, BATCH_ROWS)
}

/// The batches of each file of a frame.
pub(crate) fn pieces(input: &mut Decoder) -> Result<Vec<ipc::Batches>> {
    read_pieces(input, &Selection::default(), |input, selection| read_frame(|| ipc::Batches::read(input, selection)))
}

/// Whether the columns of a stored frame are called as Arrow calls them.
#[cfg(feature = "polars")]
pub(crate) fn wrote(pieces: &[ipc::Batches], stored: &Decoder) -> bool {
    let columns = pieces.first().map(|piece| serde_json::Value::from(described(piece.schema())));
    stored.fact("columns") == columns.as_ref()
}

/// Writes batches as one file.
pub(crate) fn rewrite(pieces: Vec<ipc::Batches>, out: Encoder) -> Result<(Encoder, Format, u64)> {
    // There is one at least.
    let schema = pieces.first().map_or_else(|| Schema::empty().into(), |piece| piece.schema().clone());
    let mut writer = Pieces::new(schema, out)?;
    for batch in pieces.into_iter().flatten() {
        writer.write(&batch?)?;
    }
    writer.finish()
}

fn damaged(error: ParquetError) -> Error {
    match error {
        // The bytes are those that were published, but another kind of frame wrote them.
        ParquetError::ArrowError(_) | ParquetError::NYI(_) => {
            parquet_error("Arrow cannot read this frame", ErrorKind::Unsupported, error)
        }
        ParquetError::External(ref inner) if inner.is::<ArrowError>() => {
            parquet_error("Arrow cannot read this frame", ErrorKind::Unsupported, error)
        }
        _ => parquet_error("cannot read the frame", ErrorKind::Damaged, error),
    }
}

/// Adds up the memory of buffers, each once, however many columns and batches share it.
pub(crate) fn add_buffers(data: &ArrayData, seen: &mut HashSet<usize>, total: &mut usize) {
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    for buffer in data.buffers().iter().chain(nulls) {
        if seen.insert(buffer.data_ptr().as_ptr() as usize) {
            *total += buffer.capacity();
        }
    }
    data.child_data().iter().for_each(|child| add_buffers(child, seen, total));
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
