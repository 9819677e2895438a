//! Arrays: NPY files, or Blosc2 frames where a sample shows that compression pays.
//!
//! The NPY format is described in NumPy's `numpy.lib.format`.

mod header;
mod read;
mod rows;
mod write;

pub(crate) use self::header::read_header;
pub(crate) use self::read::{elements, read_elements, read_layout};
pub(crate) use self::rows::Rows;
pub(crate) use self::write::{encode, encode_raw, rewrite, write};
use crate::error::{Error, Result};

/// What an array's file says of it.
pub(crate) struct Layout {
    /// In NumPy's notation, little endian.
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) fortran_order: bool,
    /// Whether the file's numbers are big endian.
    swapped: bool,
    place: Place,
}

enum Place {
    /// The elements' offset in an NPY file.
    Npy(u64),
    #[cfg(feature = "blosc")]
    Blosc(Box<super::b2nd::Header>),
    /// Rows in several files, each in C order.
    Parts(Vec<Layout>),
}

impl Layout {
    fn itemsize(&self) -> Option<usize> {
        self.dtype.get(2..)?.parse().ok()
    }

    /// Bytes of all elements.
    fn bytes(&self) -> Option<usize> {
        self.elements()?.checked_mul(self.itemsize()?)
    }

    /// The rows of several files as one array.
    fn join(parts: Vec<Self>) -> Result<Self> {
        let differ = || Error::damaged("the parts of the array do not fit together");
        let first = parts.first().ok_or_else(differ)?;
        let (dtype, mut shape) = (first.dtype.clone(), first.shape.clone());
        if shape.is_empty() {
            return Err(differ());
        }
        shape[0] = 0;
        for part in &parts {
            let is_in_order = !part.swapped && (!part.is_reversed() || part.shape.len() == 1);
            if !is_in_order || part.dtype != dtype || part.shape.get(1..) != Some(&shape[1..]) {
                return Err(differ());
            }
            shape[0] = shape[0].checked_add(part.shape[0]).ok_or_else(differ)?;
        }
        Ok(Self { dtype, shape, fortran_order: false, swapped: false, place: Place::Parts(parts) })
    }

    /// Whether the elements lie in the file as those of the array with its axes in reverse.
    pub(crate) fn is_reversed(&self) -> bool {
        match self.place {
            Place::Npy(_) => self.fortran_order,
            // What was in Fortran order in memory is in C order there.
            #[cfg(feature = "blosc")]
            Place::Blosc(_) => false,
            Place::Parts(_) => false,
        }
    }

    /// Where in the file the elements lie as they do in memory.
    pub(crate) fn native_offset(&self) -> Option<usize> {
        match self.place {
            Place::Npy(offset) if !self.swapped && cfg!(target_endian = "little") => usize::try_from(offset).ok(),
            _ => None,
        }
    }

    /// What reading a part takes besides the part.
    pub(crate) fn scratch(&self) -> u64 {
        match &self.place {
            Place::Npy(_) => 0,
            #[cfg(feature = "blosc")]
            Place::Blosc(header) => header.scratch(),
            Place::Parts(parts) => parts.iter().map(Self::scratch).sum(),
        }
    }

    /// Turns round what was read, if it is of the other byte order.
    pub(crate) fn to_native(&self, bytes: &mut [u8]) {
        if self.swapped {
            read::swap(bytes, &self.dtype);
        }
    }

    pub(crate) fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |product, &len| product.checked_mul(len))
    }
}

#[cfg(feature = "blosc")]
fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &len) in index.iter_mut().zip(shape).rev() {
        *i = flat % len.max(1);
        flat /= len.max(1);
    }
    index
}
