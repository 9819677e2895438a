//! Frames of Arrow: one record batch, or several of one schema.

use std::collections::HashSet;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type};
use arrow_array::{Array, RecordBatch, make_array};
use arrow_schema::{ArrowError, DataType, SchemaRef};

use super::{Kind, Partial, Parts, Selection, Value, read_pieces};
use crate::error::{Error, Result};
use crate::format::parquet::{Dictionaries, arrow as format};
use crate::format::{Decoder, Encoder, FRAME, Format, read_frame};

impl Value for RecordBatch {
    const KIND: Kind = Kind::Frame;

    fn type_name() -> String {
        "RecordBatch".to_owned()
    }

    fn stored_name(&self) -> String {
        FRAME.to_owned()
    }

    fn reads(stored_name: &str) -> bool {
        stored_name == FRAME
    }

    fn size(&self) -> usize {
        size_of::<Self>() + buffers(std::slice::from_ref(self))
    }

    fn check(&self) -> Result<()> {
        check(&self.schema(), std::slice::from_ref(self))
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        format::encode(&self.schema(), std::slice::from_ref(self), Value::size(self), out)
    }

    /// All rows in one batch.
    fn decode(input: &mut Decoder) -> Result<Self> {
        Self::decode_part(input, &Selection::default())
    }
}

impl Partial for RecordBatch {}

impl Parts for RecordBatch {
    fn part(&self, selection: &Selection) -> Result<Self> {
        let rows = selection.rows_of(self.num_rows());
        let batch = self.slice(rows.start, rows.len());
        let schema = self.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let Some(columns) = selection.columns_of(&names)? else { return Ok(batch) };
        batch.project(&columns).map_err(|error| Error::invalid("there are no such columns").with_source(error))
    }

    fn decode_part(input: &mut Decoder, selection: &Selection) -> Result<Self> {
        Self::join(Vec::decode_part(input, selection)?)
    }

    fn height(&self) -> Result<usize> {
        Ok(self.num_rows())
    }

    fn check_follows(&self, before: &Self) -> Result<()> {
        check_schema(&self.schema(), &before.schema())
    }

    fn join(mut parts: Vec<Self>) -> Result<Self> {
        let Some(first) = parts.first() else { return Err(Error::invalid("there are no parts to join")) };
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => arrow_select::concat::concat_batches(&first.schema(), &parts).map_err(|error| {
                Error::unsupported("the rows do not fit into one batch; read them as Vec<RecordBatch>")
                    .with_source(error)
            }),
        }
    }
}

/// Refuses rows of other columns.
fn check_schema(rows: &SchemaRef, before: &SchemaRef) -> Result<()> {
    let columns = |schema: &SchemaRef| {
        let columns = schema.fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type()));
        columns.collect::<Vec<_>>().join(", ")
    };
    if rows.fields().is_empty() {
        return Err(Error::unsupported("rows without columns cannot be appended"));
    }
    if rows.fields() != before.fields() {
        let (is, was) = (columns(rows), columns(before));
        return Err(Error::invalid(format!("rows of the columns {is} cannot follow rows of the columns {was}")));
    }
    if rows.metadata() != before.metadata() {
        return Err(Error::invalid("the rows' schema has other metadata than that of the frame"));
    }
    Ok(())
}

/// Batches of one schema; where there are no rows, one empty batch tells the schema.
impl Value for Vec<RecordBatch> {
    const KIND: Kind = Kind::Frame;

    fn type_name() -> String {
        "Vec<RecordBatch>".to_owned()
    }

    fn stored_name(&self) -> String {
        FRAME.to_owned()
    }

    fn reads(stored_name: &str) -> bool {
        stored_name == FRAME
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
        check(&first.schema(), self)
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        let first = self.first().ok_or_else(|| Error::unsupported("a list without batches has no schema"))?;
        format::encode(&first.schema(), self, Value::size(self), out)
    }

    fn decode(input: &mut Decoder) -> Result<Self> {
        Self::decode_part(input, &Selection::default())
    }
}

impl Partial for Vec<RecordBatch> {}

impl Parts for Vec<RecordBatch> {
    fn part(&self, selection: &Selection) -> Result<Self> {
        let mut rows = selection.rows_of(self.iter().map(RecordBatch::num_rows).sum());
        let mut parts = Vec::new();
        for batch in self {
            let part = Selection { rows: Some(rows.clone()), ..selection.clone() };
            parts.push(batch.part(&part)?);
            let passed = batch.num_rows();
            rows = rows.start.saturating_sub(passed)..rows.end.saturating_sub(passed);
        }
        // One batch without rows is enough to tell the schema.
        let empty = parts.iter().all(|part| part.num_rows() == 0);
        parts.retain(|part| part.num_rows() > 0 || empty);
        parts.truncate(if empty { 1 } else { parts.len() });
        Ok(parts)
    }

    fn decode_part(input: &mut Decoder, selection: &Selection) -> Result<Self> {
        let read = |input: &mut Decoder, selection: &Selection| read_frame(|| format::decode(input, selection));
        Self::join(read_pieces(input, selection, read)?)
    }

    fn height(&self) -> Result<usize> {
        Ok(self.iter().map(RecordBatch::num_rows).sum())
    }

    fn check_follows(&self, before: &Self) -> Result<()> {
        match (self.first(), before.first()) {
            (Some(rows), Some(before)) => check_schema(&rows.schema(), &before.schema()),
            _ => Err(Error::unsupported("a list without batches has no schema")),
        }
    }

    fn join(parts: Vec<Self>) -> Result<Self> {
        Ok(parts.into_iter().flatten().collect())
    }
}

/// Refuses what would not come back: types at which the library panics, and what it does not do, or does not do right,
/// with a row of this very frame.
fn check(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<()> {
    for field in schema.fields() {
        if let Some(what) = uncarried(field.data_type()) {
            let message = format!("Parquet cannot carry column {:?}, which holds {what}", field.name());
            return Err(Error::unsupported(message));
        }
    }
    let row = batches.iter().find(|batch| batch.num_rows() > 0).map(|batch| batch.slice(0, 1));
    let carried = format::carried_schema(schema, row.as_ref())?;
    for (field, carried) in schema.fields().iter().zip(carried.fields()) {
        if field != carried {
            let (name, was, is) = (field.name(), field.data_type(), carried.data_type());
            let message = format!("column {name:?} of type {was} would come back from Parquet as {is}; cast it first");
            return Err(Error::unsupported(message));
        }
    }
    let mut dictionaries = Dictionaries::new(schema);
    batches.iter().try_for_each(|batch| dictionaries.add(batch))?;
    for (index, field) in schema.fields().iter().enumerate().filter(|(_, field)| holds_decimals(field.data_type())) {
        for batch in batches {
            check_decimals(batch.column(index)).map_err(|error| {
                let message = format!("a decimal of column {:?} has more digits than its type allows", field.name());
                Error::unsupported(message).with_source(error)
            })?;
        }
    }
    Ok(())
}

/// Types at which the writer or the reader panics, or that it changes.
fn uncarried(dtype: &DataType) -> Option<&'static str> {
    match dtype {
        DataType::Union(..) => Some("a union"),
        DataType::FixedSizeBinary(0) => Some("values of no width"),
        DataType::RunEndEncoded(..) => Some("runs"),
        DataType::Dictionary(_, values) => match &**values {
            values if values.is_nested() => Some("a dictionary of lists or structs"),
            DataType::Boolean | DataType::Null | DataType::Dictionary(..) => Some("a dictionary of its values' type"),
            values => uncarried(values),
        },
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => uncarried(field.data_type()),
        DataType::Struct(fields) => fields.iter().find_map(|field| uncarried(field.data_type())),
        _ => None,
    }
}

fn holds_decimals(dtype: &DataType) -> bool {
    match dtype {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => holds_decimals(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| holds_decimals(field.data_type())),
        DataType::Dictionary(_, values) => holds_decimals(values),
        dtype => dtype.is_decimal(),
    }
}

/// Arrow lets a decimal have any number of digits; Parquet keeps as many bytes as the type needs and cuts the rest.
fn check_decimals(array: &dyn Array) -> Result<(), ArrowError> {
    match *array.data_type() {
        DataType::Decimal32(precision, _) => {
            array.as_primitive::<Decimal32Type>().validate_decimal_precision(precision)
        }
        DataType::Decimal64(precision, _) => {
            array.as_primitive::<Decimal64Type>().validate_decimal_precision(precision)
        }
        DataType::Decimal128(precision, _) => {
            array.as_primitive::<Decimal128Type>().validate_decimal_precision(precision)
        }
        DataType::Decimal256(precision, _) => {
            array.as_primitive::<Decimal256Type>().validate_decimal_precision(precision)
        }
        _ => array.to_data().child_data().iter().try_for_each(|child| check_decimals(&make_array(child.clone()))),
    }
}

/// The memory of all buffers, each counted once, however many columns and batches share it.
fn buffers(batches: &[RecordBatch]) -> usize {
    let (mut seen, mut total) = (HashSet::new(), 0);
    for column in batches.iter().flat_map(RecordBatch::columns) {
        format::add_buffers(&column.to_data(), &mut seen, &mut total);
    }
    total
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
