//! Frames of Arrow: one record batch, or several of one schema.

use std::collections::HashSet;
use std::io;

use arrow_array::{Array, RecordBatch};
use arrow_data::ArrayData;
use arrow_schema::{DataType, SchemaRef};
use parquet::arrow::ArrowWriter;

use super::{Kind, Value};
use crate::error::{Error, Result};
use crate::format::{Decoder, Encoder, Format, parquet as format};

const STORED_NAME: &str = "Frame";

impl Value for RecordBatch {
    const KIND: Kind = Kind::Frame;

    fn type_name() -> String {
        "RecordBatch".to_owned()
    }

    fn stored_name(&self) -> String {
        STORED_NAME.to_owned()
    }

    fn reads(stored_name: &str) -> bool {
        stored_name == STORED_NAME
    }

    fn size(&self) -> usize {
        size_of::<Self>() + buffers(std::slice::from_ref(self))
    }

    fn check(&self) -> Result<()> {
        check_schema(&self.schema())
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        format::encode(&self.schema(), std::slice::from_ref(self), Value::size(self), out)
    }

    /// All rows in one batch.
    fn decode(input: &mut Decoder) -> Result<Self> {
        let (schema, mut batches) = format::decode(input)?;
        match batches.len() {
            0 => Ok(Self::new_empty(schema)),
            1 => Ok(batches.remove(0)),
            _ => arrow_select::concat::concat_batches(&schema, &batches).map_err(|error| {
                Error::unsupported("the rows do not fit into one batch; read them as Vec<RecordBatch>")
                    .with_source(error)
            }),
        }
    }
}

/// Batches of one schema; where there are no rows, one empty batch tells the schema.
impl Value for Vec<RecordBatch> {
    const KIND: Kind = Kind::Frame;

    fn type_name() -> String {
        "Vec<RecordBatch>".to_owned()
    }

    fn stored_name(&self) -> String {
        STORED_NAME.to_owned()
    }

    fn reads(stored_name: &str) -> bool {
        stored_name == STORED_NAME
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.capacity() * size_of::<RecordBatch>() + buffers(self)
    }

    fn check(&self) -> Result<()> {
        let Some(first) = self.first() else {
            return Err(Error::unsupported("a list without batches has no schema; store one empty batch"));
        };
        if self.iter().any(|batch| batch.schema() != first.schema()) {
            return Err(Error::unsupported("the batches have different schemas; store them under keys of their own"));
        }
        check_schema(&first.schema())
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        let first = self.first().ok_or_else(|| Error::unsupported("a list without batches has no schema"))?;
        format::encode(&first.schema(), self, Value::size(self), out)
    }

    fn decode(input: &mut Decoder) -> Result<Self> {
        let (schema, batches) = format::decode(input)?;
        Ok(if batches.is_empty() { vec![RecordBatch::new_empty(schema)] } else { batches })
    }
}

fn check_schema(schema: &SchemaRef) -> Result<()> {
    for field in schema.flattened_fields() {
        // The writer panics at a union.
        if matches!(field.data_type(), DataType::Union(..)) {
            let message = format!("Parquet cannot carry column {:?}, a union", field.name());
            return Err(Error::unsupported(message));
        }
    }
    match ArrowWriter::try_new(io::sink(), schema.clone(), None) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::unsupported("Parquet cannot carry a column of this frame").with_source(error)),
    }
}

/// The memory of all buffers, each counted once, however many columns and batches share it.
fn buffers(batches: &[RecordBatch]) -> usize {
    let mut seen = HashSet::new();
    let mut total = 0;
    for column in batches.iter().flat_map(RecordBatch::columns) {
        add(&column.to_data(), &mut seen, &mut total);
    }
    total
}

fn add(data: &ArrayData, seen: &mut HashSet<usize>, total: &mut usize) {
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    for buffer in data.buffers().iter().chain(nulls) {
        if seen.insert(buffer.data_ptr().as_ptr() as usize) {
            *total += buffer.capacity();
        }
    }
    data.child_data().iter().for_each(|child| add(child, seen, total));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn shared_buffers_count_once() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![7; 1000]));
        let one = RecordBatch::try_from_iter([("a", column.clone())]).unwrap();
        let two = RecordBatch::try_from_iter([("a", column.clone()), ("b", column.clone())]).unwrap();
        assert_eq!(Value::size(&one), Value::size(&two));
        assert_eq!(Value::size(&one), size_of::<RecordBatch>() + 8000);
        // A slice keeps the whole buffer alive.
        assert_eq!(Value::size(&two.slice(3, 9)), Value::size(&two));
    }
}
