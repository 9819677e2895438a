//! Parts of values: rows and columns.

use std::ops::Range;

use super::Value;
#[cfg(any(feature = "arrow", feature = "polars"))]
use crate::error::Error;
use crate::error::Result;
use crate::format::Decoder;

/// A value of which rows, or columns, can be had alone: an array (its first axis has the rows) or a frame.
///
/// Used by [`Chest::select`](crate::Chest::select).
pub trait Partial: Value + private::Parts {}

pub(crate) mod private {
    use super::{Decoder, Result, Selection};

    /// Sealed: how parts are read is the formats' own business.
    pub trait Parts: Sized {
        /// A copy of the part; frames share their columns.
        fn part(&self, selection: &Selection) -> Result<Self>;
        /// Reads the part alone.
        fn decode_part(input: &mut Decoder, selection: &Selection) -> Result<Self>;
        /// How many rows there are.
        fn height(&self) -> Result<usize>;
        /// Refuses rows that cannot follow those of `before`: of another shape or with other columns.
        fn check_follows(&self, before: &Self) -> Result<()>;
        /// Rows after rows, each of which can follow the others; at least one.
        fn join(parts: Vec<Self>) -> Result<Self>;
    }
}

/// Reads what is selected of a frame, from its own file and from those of rows that were appended. Gives at least one
/// piece.
#[cfg(any(feature = "arrow", feature = "polars"))]
pub(crate) fn read_pieces<T>(
    input: &mut Decoder,
    selection: &Selection,
    mut read: impl FnMut(&mut Decoder, &Selection) -> Result<T>,
) -> Result<Vec<T>> {
    let mut parts = input.take_parts();
    if parts.is_empty() {
        return Ok(vec![read(input, selection)?]);
    }
    let pieces = read_parts(input, &mut parts, selection, &mut read);
    input.put_parts(parts);
    pieces
}

#[cfg(any(feature = "arrow", feature = "polars"))]
fn read_parts<T>(
    input: &mut Decoder,
    parts: &mut [Decoder],
    selection: &Selection,
    read: &mut dyn FnMut(&mut Decoder, &Selection) -> Result<T>,
) -> Result<Vec<T>> {
    let rows = |input: &Decoder| {
        let rows = input.fact("rows").and_then(serde_json::Value::as_u64).and_then(|rows| usize::try_from(rows).ok());
        rows.ok_or_else(|| Error::damaged("the catalog does not tell how many rows a part of the frame has"))
    };
    let total = rows(input)?;
    let appended = parts.iter().map(rows).sum::<Result<usize>>()?;
    let own = total.checked_sub(appended).ok_or_else(|| Error::damaged("the frame's parts have too many rows"))?;
    let wanted = selection.rows_of(total);
    let mut pieces = Vec::new();
    let mut start = 0;
    let inputs = std::iter::once((own, input)).chain(parts.iter_mut().map(|part| (rows(part).unwrap_or(0), part)));
    for (len, input) in inputs {
        let clip = |row: usize| row.clamp(start, start + len) - start;
        let part = clip(wanted.start)..clip(wanted.end);
        start += len;
        // The last tells the columns, if no other does.
        if !part.is_empty() || pieces.is_empty() && start == total {
            // Without columns the file does not tell how many rows are its own.
            let has_none = selection.columns.as_ref().is_some_and(Vec::is_empty);
            let rows = (selection.rows.is_some() || has_none).then_some(part);
            pieces.push(read(input, &Selection { rows, columns: selection.columns.clone() })?);
        }
    }
    Ok(pieces)
}

/// Rows and columns; all of them where nothing is said.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub(crate) columns: Option<Vec<String>>,
    pub(crate) rows: Option<Range<usize>>,
}

impl Selection {
    /// The rows of a value that has so many: those beyond its end are not there.
    pub(crate) fn rows_of(&self, height: usize) -> Range<usize> {
        let rows = self.rows.clone().unwrap_or(0..height);
        let start = rows.start.min(height);
        start..rows.end.clamp(start, height)
    }

    /// The indices of the columns, in the order that they were asked for.
    #[cfg(any(feature = "arrow", feature = "polars"))]
    pub(crate) fn columns_of(&self, names: &[&str]) -> Result<Option<Vec<usize>>> {
        let Some(columns) = &self.columns else { return Ok(None) };
        let find = |column: &String| {
            names
                .iter()
                .position(|name| name == column)
                .ok_or_else(|| Error::invalid(format!("there is no column {column:?}; there are {}", names.join(", "))))
        };
        columns.iter().map(find).collect::<Result<_>>().map(Some)
    }

    /// About which share of the value this is, as far as its facts tell.
    pub(crate) fn share(&self, input: &Decoder) -> f64 {
        let rows = input.fact("rows").or_else(|| input.fact("shape")?.get(0)).and_then(serde_json::Value::as_u64);
        let columns = input.fact("columns").and_then(|columns| columns.as_array()).map(Vec::len);
        let share = |part: usize, whole: usize| (part as f64 / whole.max(1) as f64).min(1.0);
        let of_rows = rows.map_or(1.0, |rows| share(self.rows_of(rows as usize).len(), rows as usize));
        let of_columns = columns.zip(self.columns.as_ref()).map_or(1.0, |(all, some)| share(some.len(), all));
        of_rows * of_columns
    }
}
