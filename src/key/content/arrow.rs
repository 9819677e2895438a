//! Digests of Arrow's record batches.

use std::borrow::Borrow;
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ByteArrayType, ByteViewType, Decimal256Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType,
};
use arrow_array::{
    Array, ArrayRef, GenericByteArray, GenericByteViewArray, GenericListArray, GenericListViewArray, OffsetSizeTrait,
    RecordBatch, RunArray,
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer};
use arrow_data::MAX_INLINE_VIEW_LEN;
use arrow_schema::{DataType, Field, FieldRef, IntervalUnit, Metadata, Schema, TimeUnit, UnionMode};

use super::Content;
use super::column::{Column, Slices};
use super::mask::Mask;
use crate::key::outline::Outline;
use crate::key::{Digest, Map};

impl Content for RecordBatch {
    fn digest(&self) -> Digest {
        of_batches(std::slice::from_ref(self))
    }
}

/// The digest of all rows, as of one batch. Batches of different schemas are a list of frames.
impl Content for [RecordBatch] {
    fn digest(&self) -> Digest {
        of_batches(self)
    }
}

impl Content for Vec<RecordBatch> {
    fn digest(&self) -> Digest {
        of_batches(self)
    }
}

fn of_batches(batches: &[RecordBatch]) -> Digest {
    let schema = batches.first().map(|batch| batch.schema_ref());
    let Some(schema) = schema.filter(|first| batches.iter().all(|batch| batch.schema_ref() == *first)) else {
        let mut outline = Outline::new("arrow frames");
        batches.iter().for_each(|batch| outline.digest(batch.digest()));
        return outline.finish();
    };
    let mut outline = Outline::new("arrow frame");
    of_schema(schema, &mut outline);
    outline.number(batches.iter().map(|batch| batch.num_rows() as u64).sum());
    for index in 0..schema.fields().len() {
        let mut column = Column::default();
        batches.iter().for_each(|batch| add(&mut column, batch.column(index), None));
        column.finish(&mut outline);
    }
    outline.finish()
}

fn of_schema(schema: &Schema, outline: &mut Outline) {
    of_metadata(schema.metadata(), outline);
    of_fields(schema.fields().iter(), outline);
}

fn of_fields<F: Borrow<FieldRef>>(fields: impl ExactSizeIterator<Item = F>, outline: &mut Outline) {
    outline.number(fields.len() as u64);
    fields.for_each(|field| of_field(field.borrow(), outline));
}

fn of_field(field: &Field, outline: &mut Outline) {
    outline.text(field.name());
    outline.number(u64::from(field.is_nullable()));
    of_metadata(field.metadata(), outline);
    of_type(field.data_type(), outline);
}

/// Metadata is sorted by its names.
fn of_metadata(metadata: &Metadata, outline: &mut Outline) {
    outline.number(metadata.len() as u64);
    for (name, text) in metadata {
        outline.text(name);
        outline.text(text);
    }
}

/// The type in the notation of Arrow's C data interface, which stays as it is, and what is below it.
fn of_type(dtype: &DataType, outline: &mut Outline) {
    outline.text(&notation(dtype));
    match dtype {
        DataType::Timestamp(_, zone) => outline.text(zone.as_deref().unwrap_or_default()),
        DataType::Dictionary(keys, values) => [keys, values].into_iter().for_each(|part| of_type(part, outline)),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => of_field(field, outline),
        DataType::RunEndEncoded(ends, values) => [ends, values].into_iter().for_each(|field| of_field(field, outline)),
        DataType::Struct(fields) => of_fields(fields.iter(), outline),
        DataType::Union(fields, _) => {
            fields.iter().for_each(|(id, _)| outline.number(u64::from(id.cast_unsigned())));
            of_fields(fields.iter().map(|(_, field)| field).collect::<Vec<_>>().into_iter(), outline);
        }
        _ => {}
    }
}

fn notation(dtype: &DataType) -> String {
    let plain = match dtype {
        DataType::Null => "n",
        DataType::Boolean => "b",
        DataType::Int8 => "c",
        DataType::UInt8 => "C",
        DataType::Int16 => "s",
        DataType::UInt16 => "S",
        DataType::Int32 => "i",
        DataType::UInt32 => "I",
        DataType::Int64 => "l",
        DataType::UInt64 => "L",
        DataType::Float16 => "e",
        DataType::Float32 => "f",
        DataType::Float64 => "g",
        DataType::Date32 => "tdD",
        DataType::Date64 => "tdm",
        DataType::Interval(IntervalUnit::YearMonth) => "tiM",
        DataType::Interval(IntervalUnit::DayTime) => "tiD",
        DataType::Interval(IntervalUnit::MonthDayNano) => "tin",
        DataType::Binary => "z",
        DataType::LargeBinary => "Z",
        DataType::BinaryView => "vz",
        DataType::Utf8 => "u",
        DataType::LargeUtf8 => "U",
        DataType::Utf8View => "vu",
        DataType::List(_) => "+l",
        DataType::LargeList(_) => "+L",
        DataType::ListView(_) => "+vl",
        DataType::LargeListView(_) => "+vL",
        DataType::Struct(_) => "+s",
        DataType::Union(_, UnionMode::Dense) => "+ud",
        DataType::Union(_, UnionMode::Sparse) => "+us",
        DataType::RunEndEncoded(..) => "+r",
        // Those without a notation of their own there.
        DataType::Dictionary(..) => "dictionary",
        DataType::Map(_, false) => "+m",
        DataType::Map(_, true) => "+m sorted",
        DataType::Timestamp(unit, zone) => {
            return format!("ts{}{}", letter(*unit), if zone.is_some() { ":" } else { "" });
        }
        DataType::Time32(unit) | DataType::Time64(unit) => return format!("tt{}", letter(*unit)),
        DataType::Duration(unit) => return format!("tD{}", letter(*unit)),
        DataType::FixedSizeBinary(width) => return format!("w:{width}"),
        DataType::FixedSizeList(_, len) => return format!("+w:{len}"),
        DataType::Decimal32(precision, scale) => return format!("d:{precision},{scale},32"),
        DataType::Decimal64(precision, scale) => return format!("d:{precision},{scale},64"),
        DataType::Decimal128(precision, scale) => return format!("d:{precision},{scale},128"),
        DataType::Decimal256(precision, scale) => return format!("d:{precision},{scale},256"),
    };
    plain.to_owned()
}

fn letter(unit: TimeUnit) -> char {
    match unit {
        TimeUnit::Second => 's',
        TimeUnit::Millisecond => 'm',
        TimeUnit::Microsecond => 'u',
        TimeUnit::Nanosecond => 'n',
    }
}

/// Adds a piece of a column. Where something around it is null, `outer` says so.
fn add(column: &mut Column, array: &dyn Array, outer: Option<&Mask>) {
    let is_null = |dtype: &DataType| !matches!(dtype, DataType::Null | DataType::Union(..));
    let nulls = array.logical_nulls().filter(|_| is_null(array.data_type()));
    let mask = Mask::within(nulls.as_ref().map(|nulls| bits(nulls.inner())), outer);
    let mask = mask.as_ref();
    column.begin(array.len(), mask);
    match array.data_type() {
        DataType::Null => {}
        DataType::Boolean => column.truths(bits(array.as_boolean().values()), mask),
        DataType::Utf8 => add_bytes(column, array.as_string::<i32>(), mask),
        DataType::LargeUtf8 => add_bytes(column, array.as_string::<i64>(), mask),
        DataType::Utf8View => column.slices(array.len(), array.as_string_view(), mask),
        DataType::Binary => add_bytes(column, array.as_binary::<i32>(), mask),
        DataType::LargeBinary => add_bytes(column, array.as_binary::<i64>(), mask),
        DataType::BinaryView => column.slices(array.len(), array.as_binary_view(), mask),
        DataType::FixedSizeBinary(width) => {
            let width = *width as usize;
            // The buffer may be longer.
            let bytes = array.as_fixed_size_binary().value_data();
            column.fixed(&bytes[..array.len() * width], width, mask);
        }
        DataType::List(_) => add_lists(column, array.as_list::<i32>(), mask),
        DataType::LargeList(_) => add_lists(column, array.as_list::<i64>(), mask),
        DataType::ListView(_) => add_views(column, array.as_list_view::<i32>(), mask),
        DataType::LargeListView(_) => add_views(column, array.as_list_view::<i64>(), mask),
        DataType::FixedSizeList(_, width) => {
            let width = *width as usize;
            let range_of = |index| index * width..(index + 1) * width;
            column.lists(array.len(), range_of, mask, below(array.as_fixed_size_list().values()));
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let range_of = |index| map.offsets()[index] as usize..map.offsets()[index + 1] as usize;
            column.lists(map.len(), range_of, mask, |column, range| {
                add(column, &map.entries().slice(range.start, range.len()), None);
            });
        }
        DataType::Struct(_) => {
            let fields = array.as_struct().columns().iter().enumerate();
            fields.for_each(|(index, field)| add(column.child(index), field, mask));
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            // Keys are looked at only where they are valid, and then there are values.
            let keys = if dictionary.values().is_empty() { Vec::new() } else { dictionary.normalized_keys() };
            add_references(column, array.len(), |index| keys[index], dictionary.values(), mask);
        }
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => add_runs(column, array.as_run::<Int16Type>(), mask),
            DataType::Int32 => add_runs(column, array.as_run::<Int32Type>(), mask),
            _ => add_runs(column, array.as_run::<Int64Type>(), mask),
        },
        DataType::Union(..) => {
            let union = array.as_union();
            let of = |index| {
                let id = union.type_id(index);
                let mut outline = Outline::new("variant");
                outline.number(u64::from(id.cast_unsigned()));
                outline.digest(of_value(union.child(id), union.value_offset(index)));
                outline.finish()
            };
            column.digests(of, array.len(), mask);
        }
        // Those that are no single number.
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let parts = array.as_primitive::<IntervalMonthDayNanoType>().values().iter().flat_map(|value| {
                let (months, days) = (value.months.to_le_bytes(), value.days.to_le_bytes());
                months.into_iter().chain(days).chain(value.nanoseconds.to_le_bytes())
            });
            column.fixed(&parts.collect::<Vec<_>>(), 16, mask);
        }
        DataType::Decimal256(..) => {
            let values = array.as_primitive::<Decimal256Type>().values();
            column.fixed(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>(), 32, mask);
        }
        dtype => add_numbers(column, array, dtype, mask),
    }
}

fn add_numbers(column: &mut Column, array: &dyn Array, dtype: &DataType, mask: Option<&Mask>) {
    let data = array.to_data();
    let bytes = dtype.primitive_width().zip(data.buffers().first()).and_then(|(width, buffer)| {
        let start = data.offset() * width;
        Some((buffer.as_slice().get(start..start + array.len() * width)?, width))
    });
    match bytes {
        // Days and milliseconds are two numbers.
        Some((bytes, 8)) if *dtype == DataType::Interval(IntervalUnit::DayTime) => {
            column.fixed(&super::little_endian(bytes, 4), 8, mask);
        }
        Some((bytes, width)) => column.numbers(bytes, width, mask),
        None => column.unknown(),
    }
}

fn bits(bits: &BooleanBuffer) -> Mask<'_> {
    Mask::new(bits.values(), bits.offset(), bits.len())
}

fn add_bytes<T: ByteArrayType>(column: &mut Column, array: &GenericByteArray<T>, mask: Option<&Mask>) {
    let len_of = |index| array.value_length(index).as_usize();
    column.slices(array.len(), (len_of, |index| array.value(index).as_ref()), mask);
}

impl<'a, T: ByteViewType + ?Sized> Slices<'a> for &'a GenericByteViewArray<T> {
    fn len_of(&self, index: usize) -> usize {
        self.views()[index] as u32 as usize
    }

    fn slice(&self, index: usize) -> &'a [u8] {
        self.value(index).as_ref()
    }

    fn word(&self, index: usize) -> Option<u128> {
        let view = self.views()[index];
        (view as u32 <= MAX_INLINE_VIEW_LEN).then_some(view >> 32)
    }
}

fn below(values: &ArrayRef) -> impl FnMut(&mut Column, Range<usize>) {
    |column, range| add(column, &values.slice(range.start, range.len()), None)
}

fn add_lists<O: OffsetSizeTrait>(column: &mut Column, lists: &GenericListArray<O>, mask: Option<&Mask>) {
    let range_of = |index: usize| lists.offsets()[index].as_usize()..lists.offsets()[index + 1].as_usize();
    column.lists(lists.len(), range_of, mask, below(lists.values()));
}

fn add_views<O: OffsetSizeTrait>(column: &mut Column, lists: &GenericListViewArray<O>, mask: Option<&Mask>) {
    let range_of = |index: usize| {
        let start = lists.offsets()[index].as_usize();
        start..start + lists.sizes()[index].as_usize()
    };
    column.lists(lists.len(), range_of, mask, below(lists.values()));
}

fn add_runs<R: arrow_array::types::RunEndIndexType>(column: &mut Column, runs: &RunArray<R>, mask: Option<&Mask>) {
    add_references(column, runs.len(), |index| runs.get_physical_index(index), runs.values(), mask);
}

/// Elements that are told by where they are in `values`: each counts as the value there.
fn add_references(
    column: &mut Column,
    len: usize,
    index_of: impl Fn(usize) -> usize,
    values: &ArrayRef,
    mask: Option<&Mask>,
) {
    let mut known = Map::<usize, Digest>::default();
    let mut of = |index| *known.entry(index).or_insert_with(|| of_value(values, index));
    column.digests(|index| of(index_of(index)), len, mask);
}

fn of_value(values: &ArrayRef, index: usize) -> Digest {
    let (mut column, mut outline) = (Column::default(), Outline::new("value"));
    add(&mut column, &values.slice(index, 1), None);
    column.finish(&mut outline);
    outline.finish()
}
