//! Parts of stored values: slices of arrays, rows and columns.

#[cfg(feature = "arrow")]
use std::collections::VecDeque;
use std::fmt;
use std::ops::{Bound, RangeBounds};

#[cfg(feature = "arrow")]
use arrow_array::RecordBatch;
#[cfg(feature = "arrow")]
use arrow_schema::{Schema, SchemaRef};
#[cfg(feature = "ndarray")]
use ndarray::{Array, Dimension, SliceInfo, SliceInfoElem};

use crate::chest::{Chest, not_found};
use crate::error::Result;
use crate::format::Decoder;
#[cfg(feature = "arrow")]
use crate::format::{ipc, read_frame};
use crate::key::Key;
#[cfg(feature = "arrow")]
use crate::value::read_pieces;
use crate::value::{Partial, Selection};
#[cfg(feature = "ndarray")]
use crate::{
    format::{npy, slice::Slice},
    value::{
        Element,
        array::{into_dimensions, read_slice},
    },
};

/// Rows and columns of a value in a [`Chest`], made by [`select`](Chest::select).
///
/// ```
/// # #[cfg(feature = "polars")] {
/// # use icechest::polars::{df, frame::DataFrame};
/// # let chest = icechest::Chest::temporary()?;
/// chest.insert("flights", df!("from" => ["OSL", "JFK", "HND"], "delay" => [3, 15, 0], "carrier" => ["SK", "DL", "NH"]).unwrap())?;
/// let part: DataFrame = chest.select("flights").columns(["delay", "from"]).rows(1..).get()?;
/// assert_eq!((part.shape(), part.get_column_names()[0].as_str()), ((2, 2), "delay"));
/// # }
/// # Ok::<(), icechest::Error>(())
/// ```
#[must_use = "nothing is read before `get`"]
pub struct Select<'a> {
    chest: &'a Chest,
    key: Key,
    selection: Selection,
}

impl Chest {
    /// A part of a frame or an array: rows, columns, or both. Say which, then [`get`](Select::get) it.
    pub fn select(&self, key: impl Into<Key>) -> Select<'_> {
        Select { chest: self, key: key.into(), selection: Selection::default() }
    }

    /// A slice of an array, as ndarray's `s![]` describes it. From disk only the blocks (1 MiB) and the compressed chunks
    /// (4 MiB) are read that hold it; it is verified as far as it is read.
    ///
    /// The slice is a copy, and the array does not become resident. Room for the slice is made while it is read; then it
    /// belongs to the caller.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); [`WrongType`](crate::ErrorKind::WrongType) when the value is no such array;
    /// [`Invalid`](crate::ErrorKind::Invalid) when it has other axes or shorter ones.
    ///
    /// ```
    /// use ndarray::{Array1, Array2, s};
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.insert("embeddings", Array2::from_shape_fn((1000, 16), |(i, j)| (i * 16 + j) as f32))?;
    /// let some: Array2<f32> = chest.slice("embeddings", s![100..200, ..])?;
    /// assert_eq!((some.dim(), some[[0, 0]]), ((100, 16), 1600.0));
    /// let column: Array1<f32> = chest.slice("embeddings", s![..;-100, 3])?;
    /// assert_eq!((column.len(), column[0]), (10, 15987.0));
    /// # Ok::<(), icechest::Error>(())
    /// ```
    #[cfg(feature = "ndarray")]
    pub fn slice<A, T, I, O>(&self, key: impl Into<Key>, slice: SliceInfo<T, I, O>) -> Result<Array<A, O>>
    where
        A: Element,
        T: AsRef<[SliceInfoElem]>,
        I: Dimension + Send + Sync + 'static,
        O: Dimension,
    {
        let (key, store) = (key.into(), self.store()?);
        let elements = slice.as_ref();
        if let Some(array) = store.hit::<Array<A, I>>(&key)? {
            // Where this is an error, ndarray would panic.
            Slice::new(array.shape(), elements).map_err(|error| error.with_key(&key))?;
            return into_dimensions(array.view().into_dyn().slice(elements).to_owned());
        }
        let plan = |input: &mut Decoder, _whole| {
            let layout = npy::read_layout(input)?;
            let slice = Slice::new(&layout.shape, elements)?;
            Ok(((slice.len() * size_of::<A>()) as u64 + layout.scratch(), (layout, slice)))
        };
        let read = |input: &mut Decoder, (layout, slice)| read_slice::<A, I, O>(input, &layout, slice);
        let opened = store.open_published::<Array<A, I>>(&key)?.ok_or_else(|| not_found(&key))?;
        store.read_part(opened, plan, read)
    }
}

impl Select<'_> {
    /// These columns of a frame alone, in this order.
    pub fn columns<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.selection.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// These rows alone; of an array, the elements of its first axis. Rows beyond the end are left out, as in Python.
    pub fn rows(mut self, rows: impl RangeBounds<usize>) -> Self {
        let start = match rows.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match rows.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => usize::MAX,
        };
        self.selection.rows = Some(start..end);
        self
    }

    /// Reads the part: from disk only the row groups, columns and blocks that hold it. It is a value of its own; what is
    /// stored does not become resident by this.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) and [`WrongType`](crate::ErrorKind::WrongType), as for
    /// [`Chest::get`]; [`Invalid`](crate::ErrorKind::Invalid) when there is no such column,
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when the value has no rows or no columns at all.
    pub fn get<V: Partial>(self) -> Result<V> {
        let Self { chest, key, selection } = self;
        let store = chest.store()?;
        if let Some(value) = store.hit::<V>(&key)? {
            return value.part(&selection).map_err(|error| error.with_key(&key));
        }
        let plan = |input: &mut Decoder, whole: u64| Ok(((whole as f64 * selection.share(input)) as u64, ()));
        let read = |input: &mut Decoder, ()| V::decode_part(input, &selection);
        let opened = store.open_published::<V>(&key)?.ok_or_else(|| not_found(&key))?;
        store.read_part(opened, plan, read)
    }
}

/// Record batches of a stored frame, one after the other, made by [`Select::batches`].
#[cfg(feature = "arrow")]
pub struct Batches {
    /// Of each file that has some.
    pieces: VecDeque<ipc::Batches>,
    schema: SchemaRef,
    key: Key,
}

#[cfg(feature = "arrow")]
impl Select<'_> {
    /// Reads the part in batches of up to 64k rows: only the current one need be in memory, so a frame may be larger than
    /// that. What the batches take does not count against the budget. They stay those of the frame as it is now, even if
    /// it is replaced or removed.
    ///
    /// # Errors
    /// As for [`get`](Self::get); each batch can be damaged on its own.
    pub fn batches(self) -> Result<Batches> {
        let Self { chest, key, selection } = self;
        let opened = chest.store()?.open_published::<Vec<RecordBatch>>(&key)?.ok_or_else(|| not_found(&key))?;
        let pieces = opened.read(|input| {
            read_pieces(input, &selection, |input, selection| read_frame(|| ipc::Batches::read(input, selection)))
        })?;
        // There is one at least.
        let schema = pieces.first().map_or_else(|| Schema::empty().into(), |piece| piece.schema().clone());
        Ok(Batches { pieces: pieces.into(), schema, key })
    }
}

#[cfg(feature = "arrow")]
impl Batches {
    /// The schema of every batch.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

#[cfg(feature = "arrow")]
impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(piece) = self.pieces.front_mut() {
            let next = read_frame(|| Ok(piece.next())).and_then(Option::transpose);
            match next.map_err(|error| error.with_key(&self.key)).transpose() {
                None => _ = self.pieces.pop_front(),
                Some(Err(error)) => {
                    self.pieces.clear();
                    return Some(Err(error));
                }
                some => return some,
            }
        }
        None
    }
}

#[cfg(feature = "arrow")]
impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batches({}, {} columns)", self.key, self.schema.fields().len())
    }
}

impl fmt::Debug for Select<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Select({}", self.key)?;
        if let Some(columns) = &self.selection.columns {
            write!(f, ", columns {}", columns.join(", "))?;
        }
        if let Some(rows) = &self.selection.rows {
            write!(f, ", rows {rows:?}")?;
        }
        f.write_str(")")
    }
}
