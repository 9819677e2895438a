//! Writing whole arrays.

#[cfg(feature = "blosc")]
use std::borrow::Cow;
#[cfg(feature = "blosc")]
use std::io::BufReader;
use std::io::{self, BufRead, Read, Write};

use ndarray::ArrayViewD;
use serde_json::json;

use super::super::{Decoder, Encoder, Format, ReadAt};
#[cfg(feature = "blosc")]
use super::super::{
    b2nd,
    blosc::Recipe,
    choice::{Choice, choose as choose_for},
};
use super::header::header;
use super::read::{elements, read_layout};
#[cfg(feature = "blosc")]
use super::unravel;
use crate::error::{Error, Result};
use crate::value::Element;

/// Elements are copied from file to file in pieces of so many bytes.
const PIECE: usize = 4 << 20;

/// What elements that do not lie in order are gathered in.
const GATHER: usize = 1 << 20;

pub(crate) fn encode<A: Element>(array: ArrayViewD<'_, A>, out: &mut Encoder) -> Result<Format> {
    let fortran_order = describe(&array, out);
    let cannot_write = |error| Error::io("cannot write the array", error);
    #[cfg(feature = "blosc")]
    if let Some(recipe) = choose(&array, out).map_err(cannot_write)? {
        let mut elements = Elements::new(array.view(), false);
        b2nd::write(out, recipe, A::DTYPE, size_of::<A>(), array.shape(), &mut elements).map_err(cannot_write)?;
        return Ok(Format::new("b2nd", "b2nd"));
    }
    write_as(array, fortran_order, out).map_err(cannot_write)?;
    Ok(Format::new("npy", "npy"))
}

/// Writes an array that is to be mapped, whatever compression is wanted.
pub(crate) fn encode_raw<A: Element>(array: ArrayViewD<'_, A>, out: &mut Encoder) -> Result<Format> {
    let fortran_order = describe(&array, out);
    out.describe("compression", "none");
    out.describe("why", "never compressed, to be mapped");
    write_as(array, fortran_order, out).map_err(|error| Error::io("cannot write the array", error))?;
    Ok(Format::new("npy", "npy"))
}

/// Tells what the array is like; gives whether it is in Fortran order.
fn describe<A: Element>(array: &ArrayViewD<'_, A>, out: &mut Encoder) -> bool {
    out.describe("dtype", A::DTYPE);
    out.describe("shape", json!(array.shape()));
    let fortran_order = !out.is_part() && is_fortran(array);
    out.describe("order", if fortran_order { "F" } else { "C" });
    fortran_order
}

/// Writes an array of which the bytes are given in C order. What is told of every array is told by the caller.
pub(super) fn encode_bytes<A: Element>(bytes: &[u8], shape: &[usize], out: &mut Encoder) -> io::Result<Format> {
    #[cfg(feature = "blosc")]
    {
        let piece = |start, end| Ok(Cow::Borrowed(&bytes[start..end]));
        if let Some(recipe) = choose_by(out, shape.len(), bytes.len(), size_of::<A>(), piece)? {
            b2nd::write(out, recipe, A::DTYPE, size_of::<A>(), shape, &mut &*bytes)?;
            return Ok(Format::new("b2nd", "b2nd"));
        }
    }
    out.write_all(&header(A::DTYPE, false, shape, 0))?;
    out.write_all(bytes)?;
    Ok(Format::new("npy", "npy"))
}

/// An array is in Fortran order if that is how it lies in memory and if C order is not.
fn is_fortran<A>(array: &ArrayViewD<'_, A>) -> bool {
    !array.is_standard_layout() && array.view().reversed_axes().is_standard_layout()
}

/// Writes an NPY file of version 1.0, or 2.0 when the header is long.
pub(crate) fn write<A: Element>(array: ArrayViewD<'_, A>, out: &mut dyn Write) -> io::Result<()> {
    let fortran_order = is_fortran(&array);
    write_as(array, fortran_order, out)
}

fn write_as<A: Element>(array: ArrayViewD<'_, A>, fortran_order: bool, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&header(A::DTYPE, fortran_order, array.shape(), 0))?;
    write_elements(array, fortran_order, out)
}

/// Writes the elements alone.
fn write_elements<A: Element>(array: ArrayViewD<'_, A>, fortran_order: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut elements = Elements::new(array, fortran_order);
    match elements.contiguous() {
        Some(bytes) => out.write_all(bytes),
        None => io::copy(&mut elements, out).map(|_| ()),
    }
}

/// The bytes of an array in C or Fortran order, as a stream.
pub(super) struct Elements<'a, A> {
    array: ArrayViewD<'a, A>,
    next: Option<ndarray::iter::Iter<'a, A, ndarray::IxDyn>>,
    gathered: Vec<A>,
    /// Bytes of `gathered`, or of the whole array when it lies in order, that were given out.
    given: usize,
}

impl<'a, A: Element> Elements<'a, A> {
    pub(super) fn new(array: ArrayViewD<'a, A>, fortran_order: bool) -> Self {
        let array = if fortran_order { array.reversed_axes() } else { array };
        let next = (!array.is_standard_layout()).then(|| array.clone().into_iter());
        Self { array, next, gathered: Vec::new(), given: 0 }
    }

    /// All bytes, if they lie in order.
    fn contiguous(&self) -> Option<&'a [u8]> {
        if self.next.is_some() { None } else { self.array.to_slice().map(A::bytes) }
    }

    /// The bytes that were not read, if they lie in order.
    pub(super) fn rest(&self) -> Option<&'a [u8]> {
        self.contiguous().and_then(|bytes| bytes.get(self.given..))
    }
}

impl<A: Element> Read for Elements<'_, A> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = self.fill_buf()?;
        let taken = rest.len().min(buf.len());
        buf[..taken].copy_from_slice(&rest[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

impl<A: Element> BufRead for Elements<'_, A> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let bytes = match (&mut self.next, self.array.to_slice()) {
            (None, Some(slice)) => A::bytes(slice),
            (next, _) => {
                if self.given == size_of_val(self.gathered.as_slice()) {
                    self.gathered.clear();
                    let count = (GATHER / size_of::<A>()).max(1);
                    self.gathered.extend(next.iter_mut().flatten().take(count));
                    self.given = 0;
                }
                A::bytes(&self.gathered)
            }
        };
        Ok(&bytes[self.given..])
    }

    fn consume(&mut self, amount: usize) {
        self.given += amount;
    }
}

/// How the array is compressed; told in the catalog, with the reason.
#[cfg(feature = "blosc")]
fn choose<A: Element>(array: &ArrayViewD<'_, A>, out: &mut Encoder) -> io::Result<Option<Recipe>> {
    let (size, all) = (size_of::<A>(), Elements::new(array.view(), false).contiguous());
    let piece = |start, end| match all {
        Some(bytes) => Ok(Cow::Borrowed(&bytes[start..end])),
        None => gather(array, start / size, end / size).map(Cow::Owned),
    };
    choose_by(out, array.ndim(), array.len() * size, size, piece)
}

/// As [`choose`], for `bytes` of elements of `size` bytes each, of which `piece` gives those from an offset to another.
#[cfg(feature = "blosc")]
pub(super) fn choose_by<'a>(
    out: &mut Encoder,
    ndim: usize,
    bytes: usize,
    size: usize,
    piece: impl Fn(usize, usize) -> io::Result<Cow<'a, [u8]>>,
) -> io::Result<Option<Recipe>> {
    if ndim > b2nd::MAX_NDIM {
        return Ok(None);
    }
    let choice = choose_for(out.compression(), bytes, size, piece, || out.disk_speed(bytes))?;
    let Some(Choice { recipe, why }) = choice else { return Ok(None) };
    out.describe("compression", recipe.map_or("none", |recipe| recipe.name));
    out.describe("why", why);
    Ok(recipe)
}

/// The bytes of some elements in C order, from an array that lies in another.
#[cfg(feature = "blosc")]
fn gather<A: Element>(array: &ArrayViewD<'_, A>, start: usize, end: usize) -> io::Result<Vec<u8>> {
    let element = |flat| array.get(&unravel(flat, array.shape())[..]).copied();
    let elements: Option<Vec<A>> = (start..end).map(element).collect();
    Ok(A::bytes(&elements.ok_or(io::ErrorKind::InvalidInput)?).to_vec())
}

/// Writes the array that is read, in C order, compressed if that pays. Gives the bytes of its elements too.
pub(crate) fn rewrite(input: &mut Decoder, mut out: Encoder) -> Result<(Encoder, Format, u64)> {
    let cannot_write = |error| Error::io("cannot write the array", error);
    let layout = read_layout(input)?;
    let sizes = layout.itemsize().zip(layout.bytes());
    let (_itemsize, bytes) = sizes.ok_or_else(|| Error::damaged("the array has more elements than memory can"))?;
    out.describe("dtype", layout.dtype.as_str());
    out.describe("shape", json!(layout.shape));
    out.describe("order", "C");
    let source = elements(input, &layout).map_err(cannot_write)?;
    let mut stream = Stream { source: &*source, position: 0 };
    #[cfg(feature = "blosc")]
    let piece = |start: usize, end: usize| {
        let mut bytes = vec![0; end - start];
        source.read_exact_at(&mut bytes, start as u64).map(|()| Cow::Owned(bytes))
    };
    #[cfg(feature = "blosc")]
    if let Some(recipe) = choose_by(&mut out, layout.shape.len(), bytes, _itemsize, piece).map_err(cannot_write)? {
        // Without a buffer: it is read in large pieces.
        let mut stream = BufReader::with_capacity(0, stream);
        b2nd::write(&mut out, recipe, &layout.dtype, _itemsize, &layout.shape, &mut stream).map_err(cannot_write)?;
        return Ok((out, Format::new("b2nd", "b2nd"), bytes as u64));
    }
    out.write_all(&header(&layout.dtype, false, &layout.shape, 0)).map_err(cannot_write)?;
    let mut piece = vec![0; bytes.min(PIECE)];
    while stream.position < bytes as u64 {
        let len = stream.read(&mut piece).map_err(cannot_write)?;
        out.write_all(&piece[..len]).map_err(cannot_write)?;
    }
    Ok((out, Format::new("npy", "npy"), bytes as u64))
}

/// Bytes that are read at offsets, as a stream.
struct Stream<'a> {
    source: &'a dyn ReadAt,
    position: u64,
}

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.source.read_at(buf, self.position)?;
        self.position += len as u64;
        Ok(len)
    }
}
