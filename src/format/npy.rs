//! Arrays: NPY files, or Blosc2 frames where a sample shows that compression pays.
//!
//! The NPY format is described in NumPy's `numpy.lib.format`.

#[cfg(feature = "blosc")]
use std::borrow::Cow;
use std::io::{self, Read, Seek, SeekFrom, Write};

use ndarray::ArrayViewD;
use serde_json::json;

#[cfg(feature = "blosc")]
use super::blosc::Recipe;
#[cfg(feature = "blosc")]
use super::choice::{Choice, choose as choose_for};
use super::{Decoder, Encoder, Format, ReadAt};
use crate::error::{Error, Result};
use crate::value::Element;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The data begins at a multiple of this.
const ALIGN: usize = 64;
/// Headers are some hundred bytes; a longer one is an attack or damage.
const MAX_HEADER: usize = 1 << 20;
/// Elements are copied from file to file in pieces of so many bytes.
const PIECE: usize = 4 << 20;
/// What elements that do not lie in order are gathered in.
const GATHER: usize = 1 << 20;

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
            swap(bytes, &self.dtype);
        }
    }

    pub(crate) fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |product, &len| product.checked_mul(len))
    }
}

pub(crate) fn encode<A: Element>(array: ArrayViewD<'_, A>, out: &mut Encoder) -> Result<Format> {
    out.describe("dtype", A::DTYPE);
    out.describe("shape", json!(array.shape()));
    let fortran_order = !out.is_part() && is_fortran(&array);
    out.describe("order", if fortran_order { "F" } else { "C" });
    let cannot_write = |error| Error::io("cannot write the array", error);
    #[cfg(feature = "blosc")]
    if let Some(recipe) = choose(&array, out).map_err(cannot_write)? {
        let mut elements = Elements::new(array.view(), false);
        super::b2nd::write(out, recipe, A::DTYPE, size_of::<A>(), array.shape(), &mut elements)
            .map_err(cannot_write)?;
        return Ok(Format::new("b2nd", "b2nd"));
    }
    write_as(array, fortran_order, out).map_err(cannot_write)?;
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

/// The header of an NPY file; not shorter than `len`, if that is a header's length.
pub(crate) fn header(dtype: &str, fortran_order: bool, shape: &[usize], len: usize) -> Vec<u8> {
    let lens: Vec<String> = shape.iter().map(usize::to_string).collect();
    // A Python tuple of one needs its comma.
    let shape = if lens.len() == 1 { format!("{},", lens[0]) } else { lens.join(", ") };
    let order = if fortran_order { "True" } else { "False" };
    let text = format!("{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': ({shape}), }}");
    let (version, prefix) = if text.len() + 1 + ALIGN < 1 << 16 { (1, 10) } else { (2, 12) };
    let end = (prefix + text.len() + 1).next_multiple_of(ALIGN).max(len);
    let mut header = [MAGIC, &[version, 0][..]].concat();
    match version {
        1 => header.extend(((end - prefix) as u16).to_le_bytes()),
        _ => header.extend(((end - prefix) as u32).to_le_bytes()),
    }
    header.extend(text.as_bytes());
    header.resize(end - 1, b' ');
    header.push(b'\n');
    header
}

/// Writes the elements alone.
pub(crate) fn write_elements<A: Element>(
    array: ArrayViewD<'_, A>,
    fortran_order: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut elements = Elements::new(array, fortran_order);
    match elements.contiguous() {
        Some(bytes) => out.write_all(bytes),
        None => io::copy(&mut elements, out).map(|_| ()),
    }
}

/// The bytes of an array in C or Fortran order, as a stream.
struct Elements<'a, A> {
    array: ArrayViewD<'a, A>,
    next: Option<ndarray::iter::Iter<'a, A, ndarray::IxDyn>>,
    gathered: Vec<A>,
    /// Bytes of `gathered`, or of the whole array when it lies in order, that were given out.
    given: usize,
}

impl<'a, A: Element> Elements<'a, A> {
    fn new(array: ArrayViewD<'a, A>, fortran_order: bool) -> Self {
        let array = if fortran_order { array.reversed_axes() } else { array };
        let next = (!array.is_standard_layout()).then(|| array.clone().into_iter());
        Self { array, next, gathered: Vec::new(), given: 0 }
    }

    /// All bytes, if they lie in order.
    fn contiguous(&self) -> Option<&'a [u8]> {
        if self.next.is_some() { None } else { self.array.to_slice().map(A::bytes) }
    }
}

impl<A: Element> Read for Elements<'_, A> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
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
        let rest = &bytes[self.given..];
        let taken = rest.len().min(buf.len());
        buf[..taken].copy_from_slice(&rest[..taken]);
        self.given += taken;
        Ok(taken)
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
    choose_by(out, array.shape(), size, piece)
}

/// As [`choose`], for elements of `size` bytes, of which `piece` gives those from an offset to another.
#[cfg(feature = "blosc")]
fn choose_by<'a>(
    out: &mut Encoder,
    shape: &[usize],
    size: usize,
    piece: impl Fn(usize, usize) -> io::Result<Cow<'a, [u8]>>,
) -> io::Result<Option<Recipe>> {
    if shape.len() > super::b2nd::MAX_NDIM {
        return Ok(None);
    }
    let bytes = shape.iter().product::<usize>() * size;
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
            let header = super::b2nd::read_header(&**input.payload())
                .map_err(|error| Error::io("the Blosc2 frame makes no sense", error))?;
            let fortran_order = input.fact("order").and_then(|order| order.as_str()) == Some("F");
            let (dtype, shape) = (header.dtype.clone(), header.shape.clone());
            Ok(Layout { dtype, shape, fortran_order, swapped: false, place: Place::Blosc(Box::new(header)) })
        }
        other => Err(Error::unsupported(format!("this build cannot read arrays of the format {other:?}"))),
    }
}

/// Reads the header of an NPY file of so many bytes.
pub(crate) fn read_header(input: &mut (impl Read + Seek), file_len: u64) -> io::Result<Layout> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut start = [0; 8];
    input.seek(SeekFrom::Start(0))?;
    input.read_exact(&mut start)?;
    if start[..6] != *MAGIC {
        return Err(wrong("it does not begin as an NPY file does"));
    }
    let len = match start[6] {
        1 => {
            let mut len = [0; 2];
            input.read_exact(&mut len)?;
            u16::from_le_bytes(len).into()
        }
        2 | 3 => {
            let mut len = [0; 4];
            input.read_exact(&mut len)?;
            u32::from_le_bytes(len) as usize
        }
        _ => return Err(wrong("its version is unknown")),
    };
    if len > MAX_HEADER {
        return Err(wrong("it is too long"));
    }
    let mut text = vec![0; len];
    input.read_exact(&mut text)?;
    // Names of fields may be in Latin 1; what matters here is ASCII.
    let text = String::from_utf8_lossy(&text);
    if is_structured(&text) {
        let records = "arrays of records cannot be read; store their fields as arrays, or the whole as a frame";
        return Err(io::Error::new(io::ErrorKind::Unsupported, records));
    }
    let (descr, fortran_order, shape) = parse_header(&text).ok_or_else(|| wrong("it is no description of an array"))?;
    let unknown = || io::Error::new(io::ErrorKind::Unsupported, format!("arrays of dtype {descr:?} cannot be read"));
    let swapped = descr.starts_with('>');
    let dtype = match (descr.get(..1), descr.get(1..)) {
        // The order of single bytes has several names.
        (Some("<" | "=" | "|" | ">"), Some(kind @ ("b1" | "i1" | "u1"))) => format!("|{kind}"),
        (Some("<" | "=" | ">"), Some(kind)) => format!("<{kind}"),
        _ => return Err(unknown()),
    };
    let offset = input.stream_position()?;
    let layout = Layout { dtype, shape, fortran_order, swapped, place: Place::Npy(offset) };
    let size = layout.itemsize().ok_or_else(unknown)?;
    let bytes = layout.elements().and_then(|count| size.checked_mul(count));
    // `np.load` steps over what follows the elements, and so does this.
    if bytes.is_none_or(|bytes| bytes as u64 > file_len - offset) {
        return Err(wrong("the file is too short for the array"));
    }
    Ok(layout)
}

/// Whether the elements are records: then their type is a list, where it is a string otherwise.
fn is_structured(text: &str) -> bool {
    let descr = text.split_once("descr").and_then(|(_, rest)| rest.split_once(':'));
    descr.is_some_and(|(_, value)| value.trim_start().starts_with('['))
}

/// Reads the literal of a Python dictionary, as far as NPY headers go.
fn parse_header(text: &str) -> Option<(String, bool, Vec<usize>)> {
    let (mut descr, mut order, mut shape) = (None, None, None);
    let mut rest = text.trim().strip_prefix('{')?.trim_start();
    while !rest.starts_with('}') {
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (name, after) = rest[1..].split_once(quote)?;
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        rest = match name {
            "descr" => {
                let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
                let (text, after) = value[1..].split_once(quote)?;
                descr = Some(text.to_owned());
                after
            }
            "fortran_order" => {
                let (flag, after) = match value.strip_prefix("True") {
                    Some(after) => (true, after),
                    None => (false, value.strip_prefix("False")?),
                };
                order = Some(flag);
                after
            }
            "shape" => {
                let (lens, after) = value.strip_prefix('(')?.split_once(')')?;
                // Python 2 wrote long integers with an L.
                let lens = lens.split(',').map(|len| len.trim().trim_end_matches('L')).filter(|len| !len.is_empty());
                shape = Some(lens.map(str::parse).collect::<std::result::Result<_, _>>().ok()?);
                after
            }
            _ => return None,
        };
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    rest.strip_prefix('}')?.trim().is_empty().then_some(())?;
    Some((descr?, order?, shape?))
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
    if let Some(recipe) = choose_by(&mut out, &layout.shape, _itemsize, piece).map_err(cannot_write)? {
        super::b2nd::write(&mut out, recipe, &layout.dtype, _itemsize, &layout.shape, &mut stream)
            .map_err(cannot_write)?;
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
fn swap(bytes: &mut [u8], dtype: &str) {
    let size: usize = dtype.get(2..).and_then(|size| size.parse().ok()).unwrap_or(1);
    let size = if dtype.contains('c') { size / 2 } else { size };
    for number in bytes.chunks_exact_mut(size.max(1)) {
        number.reverse();
    }
}

/// Scatters elements that come in C order to where they lie in Fortran order.
#[cfg(feature = "blosc")]
fn read_transposed(header: &super::b2nd::Header, source: &dyn ReadAt, size: usize, out: &mut [u8]) -> io::Result<()> {
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

#[cfg(feature = "blosc")]
fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &len) in index.iter_mut().zip(shape).rev() {
        *i = flat % len.max(1);
        flat /= len.max(1);
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_other_writers() {
        let parsed = parse_header;
        let numpy = parsed("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }   \n");
        assert_eq!(numpy, Some(("<f8".into(), false, vec![3, 4])));
        let dense = parsed("{\"shape\":(5L,),\"fortran_order\":True,\"descr\":\"|u1\"}");
        assert_eq!(dense, Some(("|u1".into(), true, vec![5])));
        assert_eq!(parsed("{'descr': '<f8', 'fortran_order': False, 'shape': ()}").unwrap().2, Vec::<usize>::new());
        for wrong in [
            "",
            "{",
            "{}",
            "{'descr': '<f8'}",
            "{'descr': '<f8', 'fortran_order': Maybe, 'shape': ()}",
            "{'descr': '<f8', 'fortran_order': True, 'shape': (-1,)}",
            "{'descr': '<f8', 'fortran_order': True, 'shape': (99999999999999999999999,)}",
            "{'descr': [('a', '<f8')], 'fortran_order': True, 'shape': (1,)}",
            "{'descr': '<f8', 'fortran_order': True, 'shape': (1,)} x",
            "{é",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
