//! Digests of values' content, the same however a value is cut into batches or laid out in memory.

use std::io::{self, Write};

use arrow_array::RecordBatch;
use arrow_row::{RowConverter, SortField};
use arrow_schema::ArrowError;
use icechest::{AnyArray, Digest};
use serde_json::Value as Json;

use crate::failure::{Failure, Result};
use crate::get::Got;

const BLOCK: usize = 1 << 20;
const ROWS: usize = 4096;

pub(crate) fn digest(got: &Got) -> Result<String> {
    let digest = match got {
        Got::Array(array) => of_array(array)?,
        Got::Frame(batches) => of_frame(batches).map_err(|error| Failure::broken(format!("no digest: {error}")))?,
        Got::Json(json) => of_json(json),
        Got::Text(text) => Digest::of_bytes(text.as_bytes()),
        Got::Bytes(bytes) => Digest::of_bytes(bytes),
        Got::Files(_) | Got::Other => return Err(Failure::broken("the demo stored no value of such a type")),
    };
    Ok(digest.to_string())
}

/// Of the NPY file: type, shape, order and every bit.
fn of_array(array: &AnyArray) -> Result<Digest> {
    let mut blocks = Blocks::default();
    array.write_npy(&mut blocks)?;
    Ok(blocks.digest())
}

fn of_json(json: &Json) -> Digest {
    Digest::of_bytes(json.to_string().as_bytes())
}

/// Of the columns' names and types, then of every row in the row format, which knows nothing of batches and of what
/// lies below a null.
fn of_frame(batches: &[RecordBatch]) -> std::result::Result<Digest, ArrowError> {
    let Some(first) = batches.first() else { return Ok(Digest::of_bytes(b"")) };
    let schema = first.schema();
    let fields = schema.fields().iter();
    let mut blocks = Blocks::default();
    fields.clone().for_each(|field| blocks.add(format!("{field}\n").as_bytes()));
    let converter = RowConverter::new(fields.map(|field| SortField::new(field.data_type().clone())).collect())?;
    for batch in batches {
        for start in (0..batch.num_rows()).step_by(ROWS) {
            let some = batch.slice(start, ROWS.min(batch.num_rows() - start));
            for row in &converter.convert_columns(some.columns())? {
                blocks.add(&(row.data().len() as u64).to_le_bytes());
                blocks.add(row.data());
            }
        }
    }
    Ok(blocks.digest())
}

/// The digest of the digests of blocks, so that no value is in memory a second time.
#[derive(Default)]
struct Blocks {
    block: Vec<u8>,
    digests: Vec<u8>,
}

impl Blocks {
    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = rest;
            if self.block.len() == BLOCK {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        self.digests.extend_from_slice(Digest::of_bytes(&self.block).as_bytes());
        self.block.clear();
    }

    fn digest(mut self) -> Digest {
        self.end_block();
        Digest::of_bytes(&self.digests)
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn batches_do_not_count_and_values_do() {
        let batch = |values: Vec<Option<i64>>| {
            let column: ArrayRef = Arc::new(Int64Array::from(values));
            RecordBatch::try_from_iter([("a", column)]).unwrap()
        };
        let whole = batch(vec![Some(1), None, Some(3)]);
        let parts = [whole.slice(0, 1), whole.slice(1, 2)];
        let other = batch(vec![Some(1), Some(0), Some(3)]);
        let of = |batches: &[RecordBatch]| of_frame(batches).unwrap();
        assert_eq!(of(std::slice::from_ref(&whole)), of(&parts));
        assert_ne!(of(&[whole]), of(&[other]));
    }
}
