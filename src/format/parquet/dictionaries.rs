//! Dictionaries with keys of 8 or 16 bits.
//!
//! Parquet's reader makes one dictionary of those of all batches. Together they must not have more values than keys can tell
//! apart, and one less: what was written could not be read.

use std::collections::HashSet;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, make_array};
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field, FieldRef, Schema};

use crate::error::{Error, Result};

/// The columns of a frame that have such keys, or in which something has.
pub(crate) struct Dictionaries(Vec<Column>);

struct Column {
    index: usize,
    /// The dictionaries in the column, as they come when it is gone through.
    dictionaries: Vec<Values>,
}

/// The different values of a dictionary in all batches.
#[derive(Default)]
struct Values {
    known: HashSet<Option<Vec<u8>>>,
    /// The dictionary that was looked at last, and which of its values were in use.
    last: Option<ArrayData>,
    used: Vec<bool>,
}

/// The most values that the reader takes where keys are small.
fn most(keys: &DataType) -> Option<usize> {
    match keys {
        DataType::Int8 => Some(i8::MAX as usize),
        DataType::UInt8 => Some(u8::MAX as usize),
        DataType::Int16 => Some(i16::MAX as usize),
        DataType::UInt16 => Some(u16::MAX as usize),
        _ => None,
    }
}

/// Whether a column, or something in it, has such keys.
fn has_small_keys(column: &FieldRef) -> bool {
    let is_small = |field: &&Field| matches!(field.data_type(), DataType::Dictionary(keys, _) if most(keys).is_some());
    Schema::new(vec![column.clone()]).flattened_fields().iter().any(is_small)
}

impl Dictionaries {
    pub(crate) fn new(schema: &Schema) -> Self {
        let small = schema.fields().iter().enumerate().filter(|(_, column)| has_small_keys(column));
        Self(small.map(|(index, _)| Column { index, dictionaries: Vec::new() }).collect())
    }

    /// Counts the values of one batch more.
    ///
    /// # Errors
    /// `Unsupported` when there are too many.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        for column in &mut self.0 {
            let Err(most) = column.add(&**batch.column(column.index), &mut 0) else { continue };
            let schema = batch.schema();
            let field = schema.field(column.index);
            return Err(Error::unsupported(format!(
                "column {:?} of type {} has more than {most} different values in all, which could not be read back; cast it \
                 to a dictionary with keys of 32 bits",
                field.name(),
                field.data_type()
            )));
        }
        Ok(())
    }
}

impl Column {
    /// Counts the values in an array of which the first dictionary is the `next`. Fails with how many there may be.
    fn add(&mut self, array: &dyn Array, next: &mut usize) -> std::result::Result<(), usize> {
        let DataType::Dictionary(keys, _) = array.data_type() else {
            let data = array.to_data();
            return data.child_data().iter().try_for_each(|child| self.add(&*make_array(child.clone()), next));
        };
        let Some(most) = most(keys) else { return Ok(()) };
        if *next == self.dictionaries.len() {
            self.dictionaries.push(Values::default());
        }
        let values = &mut self.dictionaries[*next];
        *next += 1;
        values.add(array);
        if values.known.len() > most { Err(most) } else { Ok(()) }
    }
}

impl Values {
    fn add(&mut self, array: &dyn Array) {
        let Some(array) = array.as_any_dictionary_opt().filter(|array| !array.values().is_empty()) else { return };
        let data = array.values().to_data();
        if !self.last.as_ref().is_some_and(|last| last.ptr_eq(&data)) {
            self.used = vec![false; data.len()];
            self.last = Some(data.clone());
        }
        for (row, key) in array.normalized_keys().into_iter().enumerate() {
            if !self.used[key] && array.keys().is_valid(row) {
                self.used[key] = true;
                self.known.insert(bytes(&**array.values(), &data, key));
            }
        }
    }
}

/// The bytes of a value; none if it is missing.
fn bytes(values: &dyn Array, data: &ArrayData, index: usize) -> Option<Vec<u8>> {
    if values.is_null(index) {
        return None;
    }
    let bytes = match values.data_type() {
        DataType::Utf8 => values.as_string::<i32>().value(index).as_bytes(),
        DataType::LargeUtf8 => values.as_string::<i64>().value(index).as_bytes(),
        DataType::Utf8View => values.as_string_view().value(index).as_bytes(),
        DataType::Binary => values.as_binary::<i32>().value(index),
        DataType::LargeBinary => values.as_binary::<i64>().value(index),
        DataType::BinaryView => values.as_binary_view().value(index),
        DataType::FixedSizeBinary(_) => values.as_fixed_size_binary().value(index),
        dtype => {
            let width = dtype.primitive_width().unwrap_or_default();
            let start = (data.offset() + index) * width;
            data.buffers().first().and_then(|buffer| buffer.get(start..start + width)).unwrap_or_default()
        }
    };
    Some(bytes.to_vec())
}
