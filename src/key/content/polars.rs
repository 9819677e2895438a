//! Digests of polars' frames.

use polars_arrow::array::{
    Array, BinaryArray, BinaryViewArrayGeneric, BooleanArray, FixedSizeListArray, ListArray, PrimitiveArray,
    StructArray, ViewType,
};
use polars_arrow::bitmap::Bitmap;
use polars_arrow::types::NativeType;
use polars_core::frame::DataFrame;
use polars_core::frame::column::{Column as PolarsColumn, ScalarColumn};
use polars_core::prelude::{CategoricalMapping, CategoricalPhysical, DataType, TimeUnit};
use polars_core::series::Series;
use polars_utils::float16::pf16;

use super::Content;
use super::column::{Column, Slices};
use super::mask::Mask;
use crate::key::Digest;
use crate::key::outline::Outline;

/// Rows of a column of one value that are made at a time.
pub(super) const REPEATED: usize = 1 << 16;

impl Content for DataFrame {
    fn digest(&self) -> Digest {
        let mut outline = Outline::new("polars frame");
        outline.number(self.height() as u64);
        outline.number(self.width() as u64);
        self.columns().iter().for_each(|column| of_column(column, &mut outline));
        outline.finish()
    }
}

/// The digest of the name, the type and the rows; a [`Series`] of these has the same.
impl Content for PolarsColumn {
    fn digest(&self) -> Digest {
        let mut outline = Outline::new("polars column");
        of_column(self, &mut outline);
        outline.finish()
    }
}

impl Content for Series {
    fn digest(&self) -> Digest {
        let mut outline = Outline::new("polars column");
        of_series(self, &mut outline);
        outline.finish()
    }
}

fn of_column(column: &PolarsColumn, outline: &mut Outline) {
    match column {
        PolarsColumn::Series(series) => of_series(series, outline),
        PolarsColumn::Scalar(scalar) => of_scalar(scalar, outline),
    }
}

fn of_series(series: &Series, outline: &mut Outline) {
    outline.text(series.name());
    of_type(series.dtype(), outline);
    of_values(series, outline);
}

pub(super) fn of_values(series: &Series, outline: &mut Outline) {
    let mut column = Column::default();
    add_series(&mut column, series);
    column.finish(outline);
}

/// One value that stands for a whole column, which may be longer than memory.
fn of_scalar(scalar: &ScalarColumn, outline: &mut Outline) {
    outline.text(scalar.name());
    of_type(scalar.dtype(), outline);
    let mut column = Column::default();
    let many = scalar.as_n_values_series(REPEATED);
    (0..scalar.len() / REPEATED).for_each(|_| add_series(&mut column, &many));
    add_series(&mut column, &scalar.as_n_values_series(scalar.len() % REPEATED));
    column.finish(outline);
}

fn of_type(dtype: &DataType, outline: &mut Outline) {
    outline.text(name(dtype));
    match dtype {
        DataType::Decimal(precision, scale) => {
            outline.number(*precision as u64);
            outline.number(*scale as u64);
        }
        DataType::Datetime(unit, zone) => {
            outline.text(name_of_unit(*unit));
            outline.text(zone.as_ref().map_or("", |zone| zone.as_str()));
        }
        DataType::Duration(unit) => outline.text(name_of_unit(*unit)),
        DataType::List(inner) => of_type(inner, outline),
        DataType::Array(inner, width) => {
            outline.number(*width as u64);
            of_type(inner, outline);
        }
        DataType::Struct(fields) => {
            outline.number(fields.len() as u64);
            for field in fields {
                outline.text(field.name());
                of_type(field.dtype(), outline);
            }
        }
        DataType::Categorical(categories, _) => {
            outline.text(categories.name());
            outline.text(categories.namespace());
            outline.text(name_of_physical(categories.physical()));
        }
        DataType::Enum(categories, _) => {
            outline.number(categories.categories().len() as u64);
            categories.categories().values_iter().for_each(|category| outline.text(category));
        }
        _ => {}
    }
}

fn name(dtype: &DataType) -> &'static str {
    match dtype {
        DataType::Null => "null",
        DataType::Boolean => "bool",
        DataType::Int8 => "i8",
        DataType::Int16 => "i16",
        DataType::Int32 => "i32",
        DataType::Int64 => "i64",
        DataType::Int128 => "i128",
        DataType::UInt8 => "u8",
        DataType::UInt16 => "u16",
        DataType::UInt32 => "u32",
        DataType::UInt64 => "u64",
        DataType::UInt128 => "u128",
        DataType::Float16 => "f16",
        DataType::Float32 => "f32",
        DataType::Float64 => "f64",
        DataType::String => "str",
        DataType::Binary => "binary",
        DataType::BinaryOffset => "binary offset",
        DataType::Date => "date",
        DataType::Time => "time",
        DataType::Datetime(..) => "datetime",
        DataType::Duration(_) => "duration",
        DataType::Decimal(..) => "decimal",
        DataType::List(_) => "list",
        DataType::Array(..) => "array",
        DataType::Struct(_) => "struct",
        DataType::Categorical(..) => "categorical",
        DataType::Enum(..) => "enum",
        // Types of features that this crate does not know: what they hold is not known either, see `add`.
        _ => "unknown",
    }
}

fn name_of_unit(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Nanoseconds => "ns",
        TimeUnit::Microseconds => "us",
        TimeUnit::Milliseconds => "ms",
    }
}

fn name_of_physical(physical: CategoricalPhysical) -> &'static str {
    match physical {
        CategoricalPhysical::U8 => "u8",
        CategoricalPhysical::U16 => "u16",
        CategoricalPhysical::U32 => "u32",
    }
}

fn add_series(column: &mut Column, series: &Series) {
    series.chunks().iter().for_each(|chunk| add(column, &**chunk, series.dtype(), None));
}

/// Adds a piece of a column of this type. Where something around it is null, `outer` says so.
fn add(column: &mut Column, array: &dyn Array, dtype: &DataType, outer: Option<&Mask>) {
    let is_known = name(dtype) != "unknown";
    let validity = array.validity().filter(|_| !matches!(dtype, DataType::Null));
    let mask = Mask::within(validity.map(bits), outer);
    column.begin(array.len(), mask.as_ref());
    if !is_known || add_values(column, array, dtype, mask.as_ref()).is_none() {
        column.unknown();
    }
}

/// None if the array is not one that the type has in memory.
fn add_values(column: &mut Column, array: &dyn Array, dtype: &DataType, mask: Option<&Mask>) -> Option<()> {
    match dtype {
        DataType::Null => {}
        DataType::Boolean => column.truths(bits(cast::<BooleanArray>(array)?.values()), mask),
        DataType::String => {
            column.slices(array.len(), cast::<BinaryViewArrayGeneric<str>>(array)?, mask);
        }
        DataType::Binary => {
            column.slices(array.len(), cast::<BinaryViewArrayGeneric<[u8]>>(array)?, mask);
        }
        DataType::BinaryOffset => {
            let binary = cast::<BinaryArray<i64>>(array)?;
            let slice = |index| binary.value(index);
            column.slices(binary.len(), (|index| slice(index).len(), slice), mask);
        }
        DataType::List(inner) => {
            let lists = cast::<ListArray<i64>>(array)?;
            let (offsets, values) = (lists.offsets(), lists.values());
            let range_of = |index| offsets[index] as usize..offsets[index + 1] as usize;
            column.lists(lists.len(), range_of, mask, |column, range| {
                add(column, &*values.sliced(range.start, range.len()), inner, None);
            });
        }
        DataType::Array(inner, width) => {
            let range_of = |index| index * width..(index + 1) * width;
            let values = cast::<FixedSizeListArray>(array)?.values();
            column.lists(array.len(), range_of, mask, |column, range| {
                add(column, &*values.sliced(range.start, range.len()), inner, None);
            });
        }
        DataType::Struct(fields) => {
            let values = cast::<StructArray>(array)?.values();
            for (index, (values, field)) in values.iter().zip(fields).enumerate() {
                add(column.child(index), &**values, field.dtype(), mask);
            }
        }
        DataType::Categorical(_, mapping) | DataType::Enum(_, mapping) => {
            add_categories(column, array, mapping, mask)?;
        }
        _ => add_numbers(column, array, mask)?,
    }
    Some(())
}

fn add_numbers(column: &mut Column, array: &dyn Array, mask: Option<&Mask>) -> Option<()> {
    macro_rules! one_of {
        ($($type:ty),*) => {
            $(if let Some(array) = cast::<PrimitiveArray<$type>>(array) {
                let bytes = array.values().clone().try_transmute::<u8>().ok()?;
                column.numbers(&bytes, size_of::<$type>(), mask);
                return Some(());
            })*
        };
    }
    one_of!(i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, pf16, f32, f64);
    None
}

fn add_categories(
    column: &mut Column,
    array: &dyn Array,
    mapping: &CategoricalMapping,
    mask: Option<&Mask>,
) -> Option<()> {
    fn add_codes<T: NativeType + Into<u32>>(
        column: &mut Column,
        codes: &PrimitiveArray<T>,
        mapping: &CategoricalMapping,
        mask: Option<&Mask>,
    ) {
        let codes = codes.values();
        let text = |index: usize| mapping.cat_to_str(codes[index].into()).unwrap_or_default().as_bytes();
        column.slices(codes.len(), (|index| text(index).len(), text), mask);
    }
    if let Some(codes) = cast::<PrimitiveArray<u8>>(array) {
        add_codes(column, codes, mapping, mask);
    } else if let Some(codes) = cast::<PrimitiveArray<u16>>(array) {
        add_codes(column, codes, mapping, mask);
    } else {
        add_codes(column, cast::<PrimitiveArray<u32>>(array)?, mapping, mask);
    }
    Some(())
}

impl<'a, T: ViewType + ?Sized> Slices<'a> for &'a BinaryViewArrayGeneric<T> {
    fn len_of(&self, index: usize) -> usize {
        self.views()[index].length as usize
    }

    fn slice(&self, index: usize) -> &'a [u8] {
        self.value(index).to_bytes()
    }

    fn word(&self, index: usize) -> Option<u128> {
        let view = self.views()[index];
        view.is_inline().then(|| u128::from_le_bytes(view.as_u128().to_ne_bytes()) >> 32)
    }
}

fn cast<T: Array>(array: &dyn Array) -> Option<&T> {
    array.as_any().downcast_ref()
}

fn bits(bitmap: &Bitmap) -> Mask<'_> {
    let (bytes, offset, len) = bitmap.as_slice();
    Mask::new(bytes, offset, len)
}
