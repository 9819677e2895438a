//! Frames of polars as record batches of Arrow, and back, without a copy: through the C data interface that both have.

use std::mem::transmute;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use arrow_array::ffi::{FFI_ArrowArray, from_ffi_and_data_type, to_ffi};
use arrow_array::{Array, RecordBatch, RecordBatchOptions, make_array};
use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use polars_arrow::datatypes::Field as PolarsField;
use polars_arrow::ffi::{self, export_array_to_c, export_field_to_c, import_array_from_c, import_field_from_c};
use polars_core::frame::DataFrame;
use polars_core::frame::column::Column;
use polars_core::prelude::{CompatLevel, PolarsError, PolarsResult};
use polars_core::series::Series;

use crate::format::ipc;

/// The frame in batches, if it comes back from an Arrow file as it is: one that the libraries carry, and panic at neither.
pub(super) fn carried(frame: &DataFrame) -> Option<(SchemaRef, Vec<RecordBatch>)> {
    let carry = || {
        let (schema, batches) = to_batches(frame).ok()?;
        let back = from_batches(&schema, &batches).ok()?;
        let is_same = back.schema() == frame.schema() && back.height() == frame.height();
        (is_same && ipc::carries(&schema, &batches)).then_some((schema, batches))
    };
    panic::catch_unwind(AssertUnwindSafe(carry)).ok().flatten()
}

/// One batch a chunk.
fn to_batches(frame: &DataFrame) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
    let dtypes = || frame.schema().iter().map(|(_, dtype)| dtype.clone());
    let mut frame = frame.clone();
    // A file has one dictionary a column.
    if dtypes().any(|dtype| dtype.contains_categoricals()) {
        frame.rechunk_mut_par()
    } else {
        frame.align_chunks_par()
    };
    // Text and no views of it: that takes less room, is validated faster than views and has no part of a cut batch's rest.
    let level = CompatLevel::oldest();
    let fields = frame.schema().iter().map(|(name, dtype)| to_field(&dtype.to_arrow_field(name.clone(), level)));
    let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>, _>>()?));
    let mut batches = Vec::new();
    for chunk in frame.iter_chunks(level, false) {
        let columns = chunk.arrays().iter().zip(schema.fields()).map(|(array, field)| {
            // SAFETY: both are the array of the C data interface, which fixes the layout; it is moved.
            let array = unsafe { transmute::<ffi::ArrowArray, FFI_ArrowArray>(export_array_to_c(array.clone())) };
            // SAFETY: polars made it from an array of the type that it told the field of.
            unsafe { from_ffi_and_data_type(array, field.data_type().clone()) }.map(make_array)
        });
        let options = RecordBatchOptions::new().with_row_count(Some(chunk.len()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        batches.push(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?);
    }
    Ok((schema, batches))
}

fn to_field(field: &PolarsField) -> Result<Field, ArrowError> {
    // SAFETY: both are the schema of the C data interface, which fixes the layout; it is moved.
    let schema = unsafe { transmute::<ffi::ArrowSchema, FFI_ArrowSchema>(export_field_to_c(field)) };
    Field::try_from(&schema)
}

/// A frame of valid batches.
///
/// # Errors
/// That of polars, when it lacks a type.
pub(super) fn from_batches(schema: &SchemaRef, batches: &[RecordBatch]) -> PolarsResult<DataFrame> {
    let height = batches.iter().map(RecordBatch::num_rows).sum();
    let column = |(index, field): (usize, &Arc<Field>)| {
        let field = from_field(field).map_err(cannot)??;
        let chunks = batches.iter().map(|batch| {
            let (array, _) = to_ffi(&batch.column(index).to_data()).map_err(cannot)?;
            // SAFETY: as in `to_batches`.
            let array = unsafe { transmute::<FFI_ArrowArray, ffi::ArrowArray>(array) };
            // SAFETY: Arrow made it from an array of the type that it told the field of.
            unsafe { import_array_from_c(array, field.dtype.clone()) }
        });
        Ok(Column::from(Series::try_from((&field, chunks.collect::<PolarsResult<Vec<_>>>()?))?))
    };
    let columns = schema.fields().iter().enumerate().map(column).collect::<PolarsResult<Vec<_>>>()?;
    DataFrame::new(height, columns)
}

fn from_field(field: &Field) -> Result<PolarsResult<PolarsField>, ArrowError> {
    let schema = FFI_ArrowSchema::try_from(field)?;
    // SAFETY: as in `to_field`.
    let schema = unsafe { transmute::<FFI_ArrowSchema, ffi::ArrowSchema>(schema) };
    // SAFETY: Arrow made it.
    Ok(unsafe { import_field_from_c(&schema) })
}

fn cannot(error: ArrowError) -> PolarsError {
    PolarsError::ComputeError(error.to_string().into())
}
