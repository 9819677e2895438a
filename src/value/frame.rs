//! Frames of polars.

use std::collections::HashSet;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use polars_arrow::array::{
    Array, BinaryArray, BinaryViewArrayGeneric, BooleanArray, DictionaryArray, FixedSizeBinaryArray,
    FixedSizeListArray, ListArray, MapArray, PrimitiveArray, StructArray, Utf8Array, ViewType,
};
use polars_arrow::bitmap::Bitmap;
use polars_arrow::datatypes::PhysicalType;
use polars_arrow::match_integer_type;
use polars_buffer::Buffer;
use polars_core::frame::DataFrame;
use polars_core::frame::column::Column;
use polars_core::prelude::{CompatLevel, PolarsError, PolarsResult, Schema, SchemaExt};
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use polars_io::parquet::write::{BatchedWriter, KeyValueMetadata, ParquetCompression, ParquetWriter};
use polars_parquet::read::FileMetadata;
use polars_parquet::write::{ZstdLevel, schema_to_metadata_key};
use serde_json::json;

use super::{Kind, Partial, Parts, Selection, Value, exchange, read_pieces};
use crate::error::{Error, ErrorKind, Result};
use crate::format::parquet::{self, Part};
use crate::format::{
    Compression, Decoder, Encoder, FRAME, Format, FrameFormat, Payload, ROW_GROUP_BYTES, ReadAt, ipc, read_frame,
};

/// Rows of a group at most: a quarter of a million, as polars has them.
pub(crate) const GROUP_ROWS: usize = 512 * 512;

impl Value for DataFrame {
    const KIND: Kind = Kind::Frame;

    fn type_name() -> String {
        "DataFrame".to_owned()
    }

    fn stored_name(&self) -> String {
        FRAME.to_owned()
    }

    fn reads(stored_name: &str) -> bool {
        stored_name == FRAME
    }

    fn size(&self) -> usize {
        let mut size = Size::default();
        for column in self.columns() {
            match column {
                Column::Series(series) => series.chunks().iter().for_each(|chunk| size.array(&**chunk)),
                // One value that stands for a whole column.
                Column::Scalar(_) => size.total += size_of::<Column>(),
            }
        }
        size_of::<Self>() + self.width() * size_of::<Column>() + size.total
    }

    fn check(&self) -> Result<()> {
        // What is refused is refused by the schema alone.
        let mut file = Vec::new();
        let written = writer(&mut file, self.schema()).finish(&mut self.clear()).map_err(text);
        let read = written
            .and_then(|_| parquet::check(&file, u64::MAX, &Selection::default()).map_err(|error| error.to_string()));
        let refused = |cause| Error::unsupported("Parquet cannot carry a column of this frame").with_source(cause);
        read.map(|_| ()).map_err(refused)
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        describe(out, self.schema(), self.height());
        if out.frame_format() == FrameFormat::Arrow
            && let Some((schema, batches)) = exchange::carried(self)
        {
            return ipc::encode(&schema, &batches, Value::size(self), out);
        }
        let codec = codec(out.compression());
        let row_bytes = Value::size(self) / self.height().max(1);
        let rows = (ROW_GROUP_BYTES / row_bytes.max(1)).clamp(1024, GROUP_ROWS);
        let writer = writer(&mut *out, self.schema()).with_compression(codec).with_row_group_size(Some(rows));
        writer.finish(&mut self.clone()).map_err(|error| polars_error("cannot write the frame", error))?;
        Ok(Format::new("parquet", "parquet"))
    }

    fn decode(input: &mut Decoder) -> Result<Self> {
        Self::decode_part(input, &Selection::default())
    }
}

impl Partial for DataFrame {}

impl Parts for DataFrame {
    fn part(&self, selection: &Selection) -> Result<Self> {
        let rows = selection.rows_of(self.height());
        let frame = self.slice(rows.start as i64, rows.len());
        let names: Vec<&str> = self.get_column_names().into_iter().map(|name| name.as_str()).collect();
        match selection.columns_of(&names)? {
            Some(columns) => frame
                .select(columns.into_iter().map(|column| names[column]))
                .map_err(|error| Error::invalid("the columns do not make a frame").with_source(text(error))),
            None => Ok(frame),
        }
    }

    fn decode_part(input: &mut Decoder, selection: &Selection) -> Result<Self> {
        Self::join(read_pieces(input, selection, decode_piece)?)
    }

    fn height(&self) -> Result<usize> {
        Ok(Self::height(self))
    }

    fn check_follows(&self, before: &Self) -> Result<()> {
        let columns = |frame: &Self| {
            let columns = frame.schema().iter().map(|(name, dtype)| format!("{name}: {dtype}"));
            columns.collect::<Vec<_>>().join(", ")
        };
        match self.schema() == before.schema() {
            true if self.width() > 0 => Ok(()),
            true => Err(Error::unsupported("rows without columns cannot be appended")),
            false => {
                let (is, was) = (columns(self), columns(before));
                Err(Error::invalid(format!("rows of the columns {is} cannot follow rows of the columns {was}")))
            }
        }
    }

    fn join(parts: Vec<Self>) -> Result<Self> {
        let mut parts = parts.into_iter();
        let Some(mut all) = parts.next() else { return Err(Error::invalid("there are no parts to join")) };
        for part in parts {
            all.vstack_mut(&part).map_err(|error| polars_error("the parts of the frame do not fit together", error))?;
        }
        Ok(all)
    }
}

/// Reads what is selected from one file.
fn decode_piece(input: &mut Decoder, selection: &Selection) -> Result<DataFrame> {
    if input.format() == ipc::NAME {
        return read_frame(|| {
            let (schema, batches) = ipc::decode(input, selection)?;
            exchange::from_batches(&schema, &batches).map_err(cannot_read)
        });
    }
    let is_whole = selection.rows.is_none() && selection.columns.is_none();
    let payload = input.payload().clone();
    let bytes = if is_whole { input.read_to_vec()? } else { Vec::new() };
    let source: &dyn ReadAt = if is_whole { &bytes } else { &*payload };
    let part = parquet::check(source, input.size(), selection)?.part;
    let bytes = if is_whole { bytes } else { wanted_bytes(&payload, &part.ranges)? };
    let frame = read_frame(|| read(bytes, &part, selection).map_err(cannot_read))?;
    match rows_in_catalog(input) {
        // A file without columns has no rows of its own.
        Some(rows) if frame.width() == 0 => empty(selection.rows_of(rows).len()),
        _ => Ok(frame),
    }
}

fn rows_in_catalog(input: &Decoder) -> Option<usize> {
    input.fact("rows").and_then(serde_json::Value::as_u64).map(|rows| rows as usize)
}

fn empty(rows: usize) -> Result<DataFrame> {
    DataFrame::new(rows, Vec::new()).map_err(|error| polars_error("cannot read the frame", error))
}

/// The frame, if it has no columns: its file does not tell how many rows there are.
#[cfg(feature = "lazy")]
pub(crate) fn without_columns(input: &Decoder) -> Result<Option<DataFrame>> {
    let has_none = input.fact("columns").and_then(serde_json::Value::as_array).is_some_and(Vec::is_empty);
    if has_none { empty(rows_in_catalog(input).unwrap_or(0)).map(Some) } else { Ok(None) }
}

/// A frame that is written in pieces, one row group each.
pub(crate) struct Pieces {
    writer: BatchedWriter<Shared>,
    out: Shared,
    schema: Schema,
    rows: usize,
    /// What the rows take in memory.
    bytes: usize,
}

/// The library keeps what it writes to.
#[derive(Clone)]
struct Shared(Arc<Mutex<Option<Encoder>>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Encoder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pieces {
    pub(crate) fn new(schema: &Schema, out: Encoder) -> Result<Self> {
        let codec = codec(out.compression());
        let out = Shared(Arc::new(Mutex::new(Some(out))));
        let writer = writer(out.clone(), schema).with_compression(codec).batched(schema);
        let writer = writer.map_err(|error| polars_error("cannot write the frame", error))?;
        Ok(Self { writer, out, schema: schema.clone(), rows: 0, bytes: 0 })
    }

    /// Adds rows, as one group or, if they are very many, as several.
    pub(crate) fn write(&mut self, rows: &DataFrame) -> Result<()> {
        for start in (0..rows.height()).step_by(GROUP_ROWS) {
            let mut group = rows.slice(start as i64, GROUP_ROWS);
            group.rechunk_mut_par();
            self.rows += group.height();
            self.bytes += group.estimated_size();
            self.writer.write_batch(&group).map_err(|error| polars_error("cannot write the frame", error))?;
        }
        Ok(())
    }

    /// Ends the file; tells what the frame takes in memory.
    pub(crate) fn finish(self) -> Result<(Encoder, Format, u64)> {
        self.writer.finish().map_err(|error| polars_error("cannot write the frame", error))?;
        let Some(mut out) = self.out.lock().take() else { unreachable!("only this function takes it") };
        describe(&mut out, &self.schema, self.rows);
        Ok((out, Format::new("parquet", "parquet"), self.bytes as u64))
    }
}

/// Writes the frame that is read as one file, row group by row group.
pub(crate) fn rewrite(input: &mut Decoder, out: Encoder) -> Result<(Encoder, Format, u64)> {
    let mut pieces = Pieces::new(without_rows(input)?.schema(), out)?;
    let rows = rows_in_catalog(input).unwrap_or(0);
    let row = (input.size() / rows.max(1) as u64).max(1);
    let step = (ROW_GROUP_BYTES as u64 / row).clamp(1 << 10, GROUP_ROWS as u64) as usize;
    for start in (0..rows).step_by(step) {
        let group = Selection { rows: Some(start..start.saturating_add(step)), columns: None };
        pieces.write(&DataFrame::decode_part(input, &group)?)?;
    }
    pieces.finish()
}

pub(crate) fn without_rows(input: &mut Decoder) -> Result<DataFrame> {
    DataFrame::decode_part(input, &Selection { rows: Some(0..0), columns: None })
}

/// Whether polars knows the types of a stored frame.
#[cfg(feature = "arrow")]
pub(crate) fn reads(input: &mut Decoder) -> bool {
    without_rows(input).is_ok()
}

fn describe(out: &mut Encoder, schema: &Schema, rows: usize) {
    out.describe("rows", rows);
    let columns: Vec<_> = schema.iter().map(|(name, dtype)| json!([name.as_str(), dtype.to_string()])).collect();
    out.describe("columns", columns);
}

fn codec(compression: Compression) -> ParquetCompression {
    match compression {
        Compression::Fast | Compression::Never => ParquetCompression::Lz4Raw,
        // About as small as level 3 makes it, in three quarters of the time.
        Compression::Auto => ParquetCompression::Zstd(ZstdLevel::try_new(2).ok()),
        Compression::Small => ParquetCompression::Zstd(None),
    }
}

/// A file of which only some ranges, and the end, are read. The rest is zero, and takes no memory until it is looked at.
fn wanted_bytes(payload: &Payload, ranges: &[Range<u64>]) -> Result<Vec<u8>> {
    let mut bytes = vec![0; payload.len() as usize];
    let footer = parquet::footer_range(payload).map_err(|error| Error::io("cannot read the frame", error))?;
    for Range { start, end } in ranges.iter().chain([&footer]) {
        payload
            .read_exact_at(&mut bytes[*start as usize..*end as usize], *start)
            .map_err(|error| Error::io("cannot read a part of the frame", error))?;
    }
    Ok(bytes)
}

fn read(bytes: Vec<u8>, part: &Part, selection: &Selection) -> PolarsResult<DataFrame> {
    let mut reader = ParquetReader::new(io::Cursor::new(bytes)).with_columns(selection.columns.clone());
    if selection.rows.is_some() {
        // polars would look into groups that it then takes no rows of.
        let mut metadata = FileMetadata::clone(reader.get_metadata()?);
        metadata.row_groups = part.groups.iter().map(|&group| metadata.row_groups[group].clone()).collect();
        metadata.num_rows = metadata.row_groups.iter().map(|group| group.num_rows()).sum();
        reader.set_metadata(metadata.into());
        reader = reader.with_slice(Some((part.rows.start, part.rows.len())));
    }
    let frame = reader.finish()?;
    match &selection.columns {
        // It has the columns in the order of the file.
        Some(columns) => frame.select(columns),
        None => Ok(frame),
    }
}

/// A writer that tells the Arrow schema in types that every reader has: not all take views of text, polars' own form,
/// inside of lists.
fn writer<W: Write>(out: W, schema: &Schema) -> ParquetWriter<W> {
    let schema = schema.to_arrow(CompatLevel::oldest());
    ParquetWriter::new(out)
        .with_key_value_metadata(Some(KeyValueMetadata::Static(vec![schema_to_metadata_key(&schema)])))
}

/// Polars' errors are told by their text: their type may not cross the boundary of its version.
fn text(error: PolarsError) -> String {
    error.to_string()
}

fn cannot_read(error: PolarsError) -> Error {
    if matches!(error, PolarsError::IO { .. }) {
        return polars_error("cannot read the frame", error);
    }
    let text = text(error);
    // The bytes are those that were published, but another kind of frame may have written them.
    let (kind, message) = match text.starts_with("parquet: ") {
        true => (ErrorKind::Damaged, "the bytes are no Parquet"),
        false => (ErrorKind::Unsupported, "polars cannot read this frame; Arrow record batches may"),
    };
    Error::new(kind, message).with_source(text)
}

pub(crate) fn polars_error(message: &str, error: PolarsError) -> Error {
    match error {
        PolarsError::IO { error, .. } => Error::io(message, io::Error::new(error.kind(), error.to_string())),
        other => Error::new(ErrorKind::Unsupported, message).with_source(text(other)),
    }
}

/// Adds up the memory of buffers, each once, however many columns share it.
#[derive(Default)]
struct Size {
    seen: HashSet<usize>,
    total: usize,
}

impl Size {
    fn buffer<T>(&mut self, buffer: &Buffer<T>) {
        if self.seen.insert(buffer.storage_ptr() as usize) {
            // All that the buffer keeps alive, not just the part that it shows.
            let whole = buffer.clone().expand_end_to_storage();
            self.total += (whole.offset() + whole.len()) * size_of::<T>();
        }
    }

    fn bitmap(&mut self, bitmap: &Bitmap) {
        self.buffer(&bitmap.as_buffer().0);
    }

    fn views<V: ViewType + ?Sized>(&mut self, array: &BinaryViewArrayGeneric<V>) {
        self.buffer(array.views());
        for data in array.data_buffers().iter() {
            self.buffer(data);
        }
    }

    fn array(&mut self, array: &dyn Array) {
        if let Some(validity) = array.validity() {
            self.bitmap(validity);
        }
        /// The array as the type that its physical type stands for.
        macro_rules! with {
            ($type:ty, $array:ident => $do:expr) => {
                if let Some($array) = array.as_any().downcast_ref::<$type>() {
                    $do
                }
            };
        }
        match array.dtype().to_physical_type() {
            // None at all, but the file has one for each.
            PhysicalType::Null => self.total += array.len().div_ceil(8),
            PhysicalType::Boolean => with!(BooleanArray, array => self.bitmap(array.values())),
            PhysicalType::Primitive(_) => {
                macro_rules! primitive {
                    ($($type:ty)*) => {$( with!(PrimitiveArray<$type>, array => self.buffer(array.values())); )*};
                }
                primitive!(i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 polars_utils::float16::pf16);
            }
            PhysicalType::Binary => with!(BinaryArray<i32>, array => {
                self.buffer(array.values());
                self.buffer(array.offsets().buffer());
            }),
            PhysicalType::LargeBinary => with!(BinaryArray<i64>, array => {
                self.buffer(array.values());
                self.buffer(array.offsets().buffer());
            }),
            PhysicalType::Utf8 => with!(Utf8Array<i32>, array => {
                self.buffer(array.values());
                self.buffer(array.offsets().buffer());
            }),
            PhysicalType::LargeUtf8 => with!(Utf8Array<i64>, array => {
                self.buffer(array.values());
                self.buffer(array.offsets().buffer());
            }),
            PhysicalType::FixedSizeBinary => with!(FixedSizeBinaryArray, array => self.buffer(array.values())),
            PhysicalType::BinaryView => with!(BinaryViewArrayGeneric<[u8]>, array => self.views(array)),
            PhysicalType::Utf8View => with!(BinaryViewArrayGeneric<str>, array => self.views(array)),
            PhysicalType::List => with!(ListArray<i32>, array => {
                self.buffer(array.offsets().buffer());
                self.array(&**array.values());
            }),
            PhysicalType::LargeList => with!(ListArray<i64>, array => {
                self.buffer(array.offsets().buffer());
                self.array(&**array.values());
            }),
            PhysicalType::FixedSizeList => with!(FixedSizeListArray, array => self.array(&**array.values())),
            PhysicalType::Struct => with!(StructArray, array => {
                array.values().iter().for_each(|field| self.array(&**field));
            }),
            PhysicalType::Map => with!(MapArray, array => {
                self.buffer(array.offsets().buffer());
                self.array(&**array.field());
            }),
            PhysicalType::Dictionary(integer) => match_integer_type!(integer, |$T| {
                with!(DictionaryArray<$T>, array => {
                    self.buffer(array.keys().values());
                    self.array(&**array.values());
                })
            }),
            // No polars column is a union.
            PhysicalType::Union => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use polars_core::df;
    use polars_core::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_exact_and_shared_buffers_count_once() {
        let overhead = |width: usize| size_of::<DataFrame>() + width * size_of::<Column>();
        let numbers: Vec<f64> = (0..1000).map(f64::from).collect();
        let frame = df!("x" => numbers).unwrap();
        assert_eq!(Value::size(&frame), 8000 + overhead(1));

        let mut twice = frame.clone();
        twice.with_column(frame.column("x").unwrap().clone().with_name("y".into())).unwrap();
        assert_eq!(Value::size(&twice), 8000 + overhead(2));

        // A slice keeps the whole buffer alive.
        assert_eq!(Value::size(&frame.slice(10, 5)), 8000 + overhead(1));

        let long = "a string that is too long to be kept in a view";
        let text = df!("s" => [long, "short"]).unwrap();
        assert!(Value::size(&text) >= 32 + long.len() + overhead(1));
    }
}
