//! Arrays that are looked at where they are: in memory, or in their file.

use std::fmt;
use std::io::Cursor;
use std::sync::Arc;

use memmap2::Mmap;
use ndarray::{Array, ArrayView, Dimension, ShapeBuilder};

use crate::chest::{Chest, not_found};
use crate::error::{Error, Result};
use crate::format::{Decoder, npy};
use crate::key::Key;
use crate::value::Element;

/// An array that need not be in memory, made by [`Chest::view`].
///
/// ```
/// use ndarray::{Array2, Ix2};
/// # let chest = icechest::Chest::temporary()?;
/// chest.insert("images", Array2::<u8>::from_elem((64, 1024), 7))?;
/// let images = chest.view::<u8, Ix2>("images")?;
/// assert_eq!(images.view().row(63).iter().map(|&x| u64::from(x)).sum::<u64>(), 7 * 1024);
/// # Ok::<(), icechest::Error>(())
/// ```
pub struct StoredArray<A, D: Dimension>(Place<A, D>);

enum Place<A, D: Dimension> {
    Memory(Arc<Array<A, D>>),
    File { map: Mmap, offset: usize, shape: D, is_fortran: bool },
}

impl Chest {
    /// An array without a copy of it: the one in memory, if it is there; otherwise its file, mapped into memory, if it is
    /// stored raw (NPY). One that is compressed, or small and in the catalog, or of truth values, is loaded as
    /// [`get`](Self::get) does.
    ///
    /// The pages of a mapped file belong to the system, which takes them back when it needs them: they do not count
    /// against the budget and are no residents, although the system's tools count those that were looked at as memory of
    /// this process. The view stays as it is when the value is replaced or removed.
    ///
    /// The whole file is verified when this process maps a version for the first time, unless this process wrote it:
    /// once through it, at some GB/s. What changes on the medium after that is not noticed. As with every mapped file, a
    /// program that shortens it in place (this crate never does) ends the process that reads beyond the new end.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    ///
    /// ```
    /// use ndarray::{Array1, Ix1};
    /// # let chest = icechest::Chest::builder().compression(icechest::Compression::Never).temporary()?;
    /// chest.insert("noise", Array1::from_iter((0..100_000u32).map(|i| i.wrapping_mul(2654435761))))?;
    /// chest.set_budget(0)?; // to the disk with it
    /// let noise = chest.view::<u32, Ix1>("noise")?;
    /// chest.remove("noise")?;
    /// assert_eq!(noise.view()[2], 1013904226);
    /// assert_eq!(chest.stats()?.resident_bytes, 0);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn view<A, D>(&self, key: impl Into<Key>) -> Result<StoredArray<A, D>>
    where
        A: Element,
        D: Dimension + Send + Sync + 'static,
    {
        let (key, store) = (key.into(), self.store()?);
        if let Some(array) = store.hit::<Array<A, D>>(&key)? {
            return Ok(StoredArray(Place::Memory(array)));
        }
        let opened = store.open_published::<Array<A, D>>(&key)?.ok_or_else(|| not_found(&key))?;
        let version = opened.version;
        let is_verified = store.disk.is_verified(version);
        let Some(place) = opened.read(|input| map(input, is_verified))? else {
            return self.get(key).map(|array| StoredArray(Place::Memory(array)));
        };
        store.disk.note_verified(version);
        Ok(StoredArray(place))
    }
}

/// Maps the file, if the array can be looked at there.
fn map<A: Element, D: Dimension>(input: &mut Decoder, is_verified: bool) -> Result<Option<Place<A, D>>> {
    if input.format() != "npy" {
        return Ok(None);
    }
    let cannot_map = |error| Error::io("cannot map the array's file", error);
    let Some(map) = input.map(is_verified).map_err(cannot_map)? else { return Ok(None) };
    // The label comes after the array.
    let layout = npy::read_header(&mut Cursor::new(&map[..]), input.stored_len()).map_err(cannot_map)?;
    let Some(offset) = layout.native_offset() else { return Ok(None) };
    let mut shape = D::zeros(layout.shape.len());
    if layout.dtype != A::DTYPE || shape.ndim() != layout.shape.len() {
        return Err(Error::damaged("the file holds another type of array than the catalog says"));
    }
    shape.slice_mut().copy_from_slice(&layout.shape);
    let place = Place::File { map, offset, shape, is_fortran: layout.fortran_order };
    // Not if the elements lie askew, or are none.
    Ok(place.view().is_some().then_some(place))
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

impl<A: Element, D: Dimension> StoredArray<A, D> {
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

impl<A: Element, D: Dimension> fmt::Debug for StoredArray<A, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.is_mapped() { "mapped" } else { "in memory" };
        write!(f, "StoredArray({} of shape {:?}, {place})", A::NAME, self.view().shape())
    }
}
