//! Arrays that need not be in memory: their file is mapped.

use std::fmt;
use std::io::Cursor;
use std::sync::Arc;

use ndarray::{Array, ArrayView, Dimension, ShapeBuilder};

use super::array::check_layout;
use super::{Element, Kind, Value};
use crate::error::{Error, Result};
use crate::format::{Decoder, Encoder, Format, Mapping, npy};
use crate::key::{Content, Digest};

/// An array that need not be in memory: what [`Chest::view`](crate::Chest::view) gives, and a [`Value`] for arrays that
/// later runs shall find at once.
///
/// Given to a chest, or returned by a [stage](macro@crate::stage), it is stored raw (NPY), whatever the chest's
/// [`Compression`](crate::Compression), and read by mapping that file: nothing is copied. Any array can be read as this, and
/// this as an [`Array`]. Read into memory is what cannot be mapped: what is compressed (as an array that was given as such, or
/// [appended](crate::Chest::append) to), small and in the catalog, of truth values, and whatever comes when this process has
/// mapped 16,384 files.
///
/// A mapped value that a chest keeps counts against the budget with all its elements, although the system can take their
/// pages back, so that the memory that the system sees of this process stays within the budget, too. What `view` maps does
/// not count. As for [`view`](crate::Chest::view), the file is verified when this process maps a version for the first time,
/// unless it wrote it, and whoever shortens the file in place ends the process that reads beyond the new end. Cloning costs
/// nothing: clones share the array.
///
/// ```
/// use icechest::{Chest, StoredArray, stage};
/// use ndarray::{Array2, Ix2};
///
/// #[stage(chest = chest, ignore(chest))]
/// fn distances(chest: &Chest, n: usize) -> icechest::Result<StoredArray<f64, Ix2>> {
///     Ok(Array2::from_shape_fn((n, n), |(i, j)| (i as f64 - j as f64).abs()).into())
/// }
///
/// let dir = tempfile::tempdir()?;
/// assert!(!distances(&Chest::open(dir.path())?, 200)?.is_mapped()); // it was computed just now
/// let found = distances(&Chest::open(dir.path())?, 200)?;
/// assert!(found.is_mapped());
/// assert_eq!(found.view()[[3, 150]], 147.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct StoredArray<A, D: Dimension>(Place<A, D>);

#[derive(Clone)]
enum Place<A, D: Dimension> {
    Memory(Arc<Array<A, D>>),
    File { map: Arc<Mapping>, offset: usize, shape: D, is_fortran: bool },
}

impl<A: Element, D: Dimension> StoredArray<A, D> {
    /// Maps the file, if the array can be looked at there.
    pub(crate) fn map(input: &mut Decoder) -> Result<Option<Self>> {
        if input.format() != "npy" || !input.parts().is_empty() || !A::IS_ANY {
            return Ok(None);
        }
        let cannot_map = |error| Error::io("cannot map the array's file", error);
        let Some(map) = input.map().map_err(cannot_map)? else { return Ok(None) };
        // The label comes after the array.
        let file = &map[..map.len().min(input.stored_len() as usize)];
        let layout = npy::read_header(&mut Cursor::new(file), file.len() as u64).map_err(cannot_map)?;
        let Some(offset) = layout.native_offset() else { return Ok(None) };
        check_layout::<A, D>(&layout)?;
        let mut shape = D::zeros(layout.shape.len());
        shape.slice_mut().copy_from_slice(&layout.shape);
        let place = Place::File { map: Arc::new(map), offset, shape, is_fortran: layout.fortran_order };
        // Not if the elements lie askew, or are none.
        Ok(place.view().is_some().then_some(Self(place)))
    }

    /// The array. Costs nothing.
    pub fn view(&self) -> ArrayView<'_, A, D> {
        // `map` looked at the file as this does; it does not change.
        self.0.view().unwrap_or_else(|| unreachable!("a mapped file that was an array is one"))
    }

    /// Whether this is a file, mapped into memory.
    pub fn is_mapped(&self) -> bool {
        matches!(self.0, Place::File { .. })
    }
}

impl<A: Element, D: Dimension> Place<A, D> {
    fn view(&self) -> Option<ArrayView<'_, A, D>> {
        match self {
            Self::Memory(array) => Some(array.view()),
            Self::File { map, offset, shape, is_fortran } => {
                let bytes = shape.size().checked_mul(size_of::<A>())?;
                let elements = A::cast(map.get(*offset..offset.checked_add(bytes)?)?)?;
                ArrayView::from_shape(shape.clone().set_f(*is_fortran), elements).ok()
            }
        }
    }
}

impl<A: Element, D: Dimension + Send + Sync + 'static> Value for StoredArray<A, D> {
    const KIND: Kind = Kind::Array;

    fn type_name() -> String {
        format!("Stored{}", Array::<A, D>::type_name())
    }

    fn stored_name(&self) -> String {
        format!("Array<{}, {}>", A::NAME, self.view().ndim())
    }

    fn reads(stored_name: &str) -> bool {
        Array::<A, D>::reads(stored_name)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + size_of::<Array<A, D>>() + self.view().len() * size_of::<A>()
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        let array = self.view().into_dyn();
        if A::IS_ANY { npy::encode_raw(array, out) } else { npy::encode(array, out) }
    }

    fn decode(input: &mut Decoder) -> Result<Self> {
        match Self::map(input)? {
            Some(array) => Ok(array),
            None => Array::decode(input).map(Self::from),
        }
    }

    fn shared(&self) -> Option<(usize, usize)> {
        Some(match &self.0 {
            Place::Memory(array) => (Arc::as_ptr(array).addr(), Arc::strong_count(array)),
            Place::File { map, .. } => (Arc::as_ptr(map).addr(), Arc::strong_count(map)),
        })
    }

    fn recycle(self) {
        if let Place::Memory(array) = self.0
            && let Ok(array) = Arc::try_unwrap(array)
        {
            array.recycle();
        }
    }
}

impl<A: Element, D: Dimension> Content for StoredArray<A, D> {
    /// That of the array.
    fn digest(&self) -> Digest {
        self.view().digest()
    }
}

impl<A, D: Dimension> From<Array<A, D>> for StoredArray<A, D> {
    fn from(array: Array<A, D>) -> Self {
        Self(Place::Memory(Arc::new(array)))
    }
}

impl<A, D: Dimension> From<Arc<Array<A, D>>> for StoredArray<A, D> {
    fn from(array: Arc<Array<A, D>>) -> Self {
        Self(Place::Memory(array))
    }
}

impl<A: Element, D: Dimension> PartialEq for StoredArray<A, D> {
    fn eq(&self, other: &Self) -> bool {
        self.view() == other.view()
    }
}

impl<A: Element, D: Dimension> fmt::Debug for StoredArray<A, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.is_mapped() { "mapped" } else { "in memory" };
        write!(f, "StoredArray({} of shape {:?}, {place})", A::NAME, self.view().shape())
    }
}
