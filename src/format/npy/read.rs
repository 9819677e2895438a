//! Reading arrays, from one file or from several.

use std::io::{self, Read, Seek, SeekFrom};

#[cfg(feature = "blosc")]
use super::super::b2nd;
use super::super::{Decoder, ReadAt};
use super::header::read_header;
#[cfg(feature = "blosc")]
use super::unravel;
use super::{Layout, Place};
use crate::error::{Error, Result};
use crate::value::Element;

/// Reads what the array's files say of it, and checks that they can hold so much.
pub(crate) fn read_layout(input: &mut Decoder) -> Result<Layout> {
    let own = read_own_layout(input)?;
    if input.parts().is_empty() {
        return Ok(own);
    }
    let others = input.parts_mut().iter_mut().map(read_own_layout);
    Layout::join(std::iter::once(Ok(own)).chain(others).collect::<Result<_>>()?)
}

fn read_own_layout(input: &mut Decoder) -> Result<Layout> {
    match input.format() {
        "npy" => read_header(input, input.stored_len()).map_err(|error| Error::io("cannot read the NPY header", error)),
        #[cfg(feature = "blosc")]
        "b2nd" => {
            let header = b2nd::read_header(&**input.payload())
                .map_err(|error| Error::io("the Blosc2 frame makes no sense", error))?;
            // A few bytes may stand for any number of zeros; room was made for as many as the row tells.
            const RATIO: u64 = 1 << 15;
            if header.bytes() as u64 > input.size().max(input.payload().len().saturating_mul(RATIO)) {
                return Err(Error::damaged("the array has more elements than the catalog says"));
            }
            let fortran_order = input.fact("order").and_then(|order| order.as_str()) == Some("F");
            let (dtype, shape) = (header.dtype.clone(), header.shape.clone());
            Ok(Layout { dtype, shape, fortran_order, swapped: false, place: Place::Blosc(Box::new(header)) })
        }
        other => Err(Error::unsupported(format!("this build cannot read arrays of the format {other:?}"))),
    }
}

/// Reads the elements, in the order that the layout says.
pub(crate) fn read_elements<A: Element>(input: &mut Decoder, layout: &Layout) -> Result<Vec<A>> {
    let len = layout.elements().ok_or_else(|| Error::damaged("the array has more elements than memory can"))?;
    let cannot_read = |error| Error::io("cannot read the array", error);
    match &layout.place {
        Place::Npy(offset) if layout.swapped => {
            input.seek(SeekFrom::Start(*offset)).map_err(cannot_read)?;
            let read = A::read(len, &mut |bytes| {
                input.read_exact(bytes)?;
                layout.to_native(bytes);
                Ok(())
            });
            read.map_err(cannot_read)
        }
        Place::Npy(offset) => {
            A::written(len, &mut |blank| input.payload().read_blank(blank, *offset)).map_err(cannot_read)
        }
        #[cfg(feature = "blosc")]
        Place::Blosc(header) => {
            if header.bytes() != len.saturating_mul(size_of::<A>()) {
                return Err(Error::damaged("the frame's element size is not that of its dtype"));
            }
            let source = &**input.payload();
            let read = match layout.fortran_order {
                false => A::written(len, &mut |blank| header.read_into(source, blank)),
                true => A::read(len, &mut |bytes| read_transposed(header, source, size_of::<A>(), bytes)),
            };
            read.map_err(cannot_read)
        }
        Place::Parts(_) => {
            let source = elements(input, layout).map_err(cannot_read)?;
            A::read(len, &mut |bytes| source.read_exact_at(bytes, 0)).map_err(cannot_read)
        }
    }
}

/// The bytes of all elements, in the order of the file, to be read at any offset.
pub(crate) fn elements<'a>(input: &'a Decoder, layout: &'a Layout) -> io::Result<Box<dyn ReadAt + 'a>> {
    let source = &**input.payload();
    match &layout.place {
        Place::Npy(offset) => Ok(Box::new(From { source, offset: *offset })),
        #[cfg(feature = "blosc")]
        Place::Blosc(header) => {
            if layout.bytes() != Some(header.bytes()) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the element size is not that of the dtype"));
            }
            Ok(Box::new(header.unpacked(source)?))
        }
        Place::Parts(parts) => {
            let inputs = std::iter::once(input).chain(input.parts());
            let mut joined = Joined::default();
            for (input, layout) in inputs.zip(parts) {
                joined.add(elements(input, layout)?, layout.bytes().unwrap_or(0) as u64);
            }
            Ok(Box::new(joined))
        }
    }
}

/// Bytes of several sources, one after the other.
#[derive(Default)]
struct Joined<'a> {
    sources: Vec<Box<dyn ReadAt + 'a>>,
    /// Where each ends.
    ends: Vec<u64>,
}

impl<'a> Joined<'a> {
    /// Adds the first bytes of a source.
    fn add(&mut self, source: Box<dyn ReadAt + 'a>, len: u64) {
        self.ends.push(self.len() + len);
        self.sources.push(source);
    }
}

impl ReadAt for Joined<'_> {
    fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut index = self.ends.partition_point(|&end| end <= offset);
        while !buf.is_empty() {
            let start = if index == 0 { 0 } else { self.ends[index - 1] };
            let taken = buf.len().min(usize::try_from(self.ends[index] - offset).unwrap_or(usize::MAX));
            let (now, rest) = buf.split_at_mut(taken);
            self.sources[index].read_exact_at(now, offset - start)?;
            (buf, offset, index) = (rest, offset + taken as u64, index + 1);
        }
        Ok(())
    }
}

/// What lies behind an offset.
struct From<'a> {
    source: &'a dyn ReadAt,
    offset: u64,
}

impl ReadAt for From<'_> {
    fn len(&self) -> u64 {
        self.source.len() - self.offset
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.source.read_exact_at(buf, self.offset + offset)
    }
}

/// Turns big endian numbers round; of complex numbers each part.
pub(super) fn swap(bytes: &mut [u8], dtype: &str) {
    let size: usize = dtype.get(2..).and_then(|size| size.parse().ok()).unwrap_or(1);
    let size = if dtype.contains('c') { size / 2 } else { size };
    for number in bytes.chunks_exact_mut(size.max(1)) {
        number.reverse();
    }
}

/// Scatters elements that come in C order to where they lie in Fortran order.
#[cfg(feature = "blosc")]
fn read_transposed(header: &b2nd::Header, source: &dyn ReadAt, size: usize, out: &mut [u8]) -> io::Result<()> {
    let shape = header.shape.clone();
    let strides: Vec<usize> = shape
        .iter()
        .scan(size, |stride, &len| {
            let this = *stride;
            *stride *= len;
            Some(this)
        })
        .collect();
    header.for_each_run(source, &mut |start, run| {
        let mut index = unravel(start / size, &shape);
        let mut target: usize = index.iter().zip(&strides).map(|(i, stride)| i * stride).sum();
        for element in run.chunks_exact(size) {
            out[target..target + size].copy_from_slice(element);
            // Step to the next index in C order.
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                target += strides[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                target -= index[axis] * strides[axis];
                index[axis] = 0;
            }
        }
        Ok(())
    })
}
