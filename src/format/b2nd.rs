//! Arrays as Blosc2 frames with a `b2nd` metalayer, which Python opens with `blosc2.open(path)[:]`.
//!
//! A frame is a header, chunks, an index of chunks and a trailer. Each chunk covers a box of the array (`chunkshape`)
//! and holds it as a grid of smaller boxes (`blockshape`); both are padded at the array's far edges.
//!
//! Frames that [`write`] makes have chunks and blocks that are runs of C order, so that both ways stream: about 4 MiB
//! a chunk and 512 KiB a block. [`read_header`] takes any frame of the library's, from whatever version, as far as the
//! codecs reach. It trusts no number in it: see [`Layout::new`].

use super::blosc::{self, Compressor, Decompressor, Fill, invalid, unsupported};
use super::{Encoder, ReadAt};
use std::io::{Error, ErrorKind, Read, Result, Write};

/// Target sizes of a chunk and of a block, in bytes.
const CHUNK: usize = 4 << 20;
const BLOCK: usize = 512 << 10;
/// Memory that [`write`] takes, at most, beside some 32 bytes a chunk for the index: a chunk as it is and packed, and the
/// library's four blocks.
pub(crate) const WRITE_SCRATCH: usize = 4 * CHUNK;
/// Dimensions that every reader takes: older libraries have room for no more, and do not check.
pub(crate) const MAX_NDIM: usize = 8;
/// Dimensions that the newest library takes.
const READ_NDIM: usize = 16;
/// The frame's fixed header; the metalayers follow.
const FIXED: usize = 87;
/// The longest header that is read.
const MAX_HEADER: u64 = 1 << 20;
/// An offset of a chunk of zeros, which takes no room.
const ZEROS: i64 = i64::MIN | (1 << 56);

/// A sink that frames are streamed to.
pub(crate) trait PatchWrite: Write {
    /// Overwrites bytes already written, all within the first MiB.
    fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;
}

impl PatchWrite for Encoder {
    fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        Self::patch(self, offset, bytes)
    }
}

/// How an array is cut up. An array without dimensions counts as one of shape `[1]`.
struct Layout {
    typesize: usize,
    shape: Vec<usize>,
    chunk: Vec<usize>,
    block: Vec<usize>,
    /// The shape of what a chunk holds: `chunk`, rounded up to whole blocks.
    padded: Vec<usize>,
    /// Bytes of the array.
    bytes: usize,
    /// Bytes of one block and of one chunk, padding included, and how many chunks there are.
    block_bytes: usize,
    chunk_bytes: usize,
    chunks: usize,
    /// The axis along which chunks are runs of C order, if they are.
    split: Option<usize>,
}

fn too_large() -> Error {
    invalid("a Blosc2 array is larger than memory can be")
}

/// `first` times all of `rest`; no allocation is ever larger than `isize::MAX`.
fn product(first: usize, rest: &[usize]) -> Result<usize> {
    if rest.contains(&0) {
        return Ok(0);
    }
    let all = rest.iter().try_fold(first, |product, &n| product.checked_mul(n));
    all.filter(|&n| isize::try_from(n).is_ok()).ok_or_else(too_large)
}

impl Layout {
    /// Checks that the numbers fit together, and that chunks and padding are in proportion to the array: a small array
    /// takes neither much memory nor much time, whatever its frame says.
    fn new(typesize: usize, mut shape: Vec<usize>, mut chunk: Vec<usize>, mut block: Vec<usize>) -> Result<Layout> {
        let bytes = product(typesize, &shape)?;
        for axes in [&mut shape, &mut chunk, &mut block] {
            if axes.is_empty() {
                axes.push(1);
            }
        }
        let (padded, split) = (vec![], None);
        let mut layout =
            Layout { typesize, shape, chunk, block, padded, bytes, block_bytes: 0, chunk_bytes: 0, chunks: 0, split };
        if bytes == 0 {
            return Ok(layout);
        }
        if layout.chunk.contains(&0) || layout.block.contains(&0) {
            return Err(invalid("a Blosc2 array is cut into empty pieces"));
        }
        let padded = layout.chunk.iter().zip(&layout.block).map(|(c, b)| c.checked_next_multiple_of(*b));
        layout.padded = padded.collect::<Option<_>>().ok_or_else(too_large)?;
        layout.block_bytes = product(typesize, &layout.block)?;
        layout.chunk_bytes = product(typesize, &layout.padded)?;
        layout.chunks = product(1, &layout.counts())?;
        let stored = layout.chunk_bytes.checked_mul(layout.chunks);
        let sane = bytes.saturating_mul(32).saturating_add(16 << 20);
        if layout.chunk_bytes > blosc::MAX_BYTES || stored.is_none_or(|stored| stored > sane) {
            return Err(unsupported("a Blosc2 array in chunks that are out of proportion to it"));
        }
        layout.split = layout.find_split();
        Ok(layout)
    }

    /// The layout of frames that we write: chunks and blocks split one axis, the outermost whose rows are at most a
    /// block.
    fn plan(typesize: usize, shape: &[usize]) -> Result<Layout> {
        let empty = product(typesize, shape)? == 0;
        let (mut chunk, mut block) = (shape.to_vec(), shape.to_vec());
        if let Some(mut axis) = shape.len().checked_sub(1).filter(|_| !empty) {
            let mut row = typesize;
            while axis > 0 && row * shape[axis] <= BLOCK {
                row *= shape[axis];
                axis -= 1;
            }
            chunk[..axis].fill(1);
            block[..axis].fill(1);
            (chunk[axis], block[axis]) = split(shape[axis], row);
        }
        Layout::new(typesize, shape.to_vec(), chunk, block)
    }

    /// Chunks along each axis.
    fn counts(&self) -> Vec<usize> {
        self.shape.iter().zip(&self.chunk).map(|(n, c)| n.div_ceil(*c)).collect()
    }

    /// Chunks are runs when they span one row of each axis before the split and all of each axis after it, and their
    /// blocks likewise cut each chunk.
    fn find_split(&self) -> Option<usize> {
        let last = self.shape.len() - 1;
        let axis = self.chunk.iter().position(|&c| c > 1).unwrap_or(last);
        let inner = self.block.iter().position(|&b| b > 1).unwrap_or(last);
        let before = self.padded[..axis].iter().all(|&p| p == 1);
        let after = axis + 1..=last;
        let whole = after.clone().all(|i| self.padded[i] == self.shape[i] && self.chunk[i] == self.shape[i]);
        let blocks = (inner + 1..=last).all(|i| self.block[i] == self.padded[i]);
        (before && whole && blocks).then_some(axis)
    }

    /// Where chunk `n` is in C order, when chunks are runs split along `axis`: its offset and length in bytes. The
    /// rest of the chunk is padding.
    fn run(&self, axis: usize, n: usize) -> (usize, usize) {
        let (rows, chunk) = (self.shape[axis], self.chunk[axis]);
        let row: usize = self.shape[axis + 1..].iter().product::<usize>() * self.typesize;
        let count = rows.div_ceil(chunk);
        let first = n % count * chunk;
        ((n / count * rows + first) * row, chunk.min(rows - first) * row)
    }

    /// Copies what chunk `n` holds to where it belongs in the array.
    fn scatter(&self, n: usize, data: &[u8], array: &mut [u8]) {
        let at = unravel(n, &self.counts());
        let blocks: Vec<usize> = self.padded.iter().zip(&self.block).map(|(p, b)| p / b).collect();
        for (index, data) in data.chunks_exact(self.block_bytes).enumerate() {
            let inside = unravel(index, &blocks);
            let (mut origin, mut extent) = ([0; READ_NDIM], [0; READ_NDIM]);
            for (i, &block) in self.block.iter().enumerate() {
                let end = self.shape[i].min((at[i] + 1) * self.chunk[i]);
                origin[i] = at[i] * self.chunk[i] + inside[i] * block;
                extent[i] = block.min(end.saturating_sub(origin[i]));
            }
            self.copy_block(&origin, &extent[..blocks.len()], data, array);
        }
    }

    /// Copies a block's part of `extent` elements, row by row.
    fn copy_block(&self, origin: &[usize], extent: &[usize], data: &[u8], array: &mut [u8]) {
        if extent.contains(&0) {
            return;
        }
        let last = extent.len() - 1;
        let len = extent[last] * self.typesize;
        for row in 0..extent[..last].iter().product() {
            let at = unravel(row, &extent[..last]);
            let (mut from, mut to) = (0, 0);
            for i in 0..=last {
                from = from * self.block[i] + at[i];
                to = to * self.shape[i] + origin[i] + at[i];
            }
            let (from, to) = (from * self.typesize, to * self.typesize);
            array[to..to + len].copy_from_slice(&data[from..from + len]);
        }
    }
}

/// Cuts `n` rows of `row` bytes, at most a block each, into chunks and blocks: rows in each. Chunks are of like size
/// and whole blocks, so that only the last is padded, and by little.
fn split(n: usize, row: usize) -> (usize, usize) {
    let chunks = n.div_ceil(CHUNK / row);
    let rows = n.div_ceil(chunks);
    let wanted = (rows * row + BLOCK / 2) / BLOCK;
    let candidates = (wanted - wanted / 4).max(1)..=(3 * wanted).clamp(1, rows);
    let best = candidates.min_by_key(|&blocks| {
        let block = rows.div_ceil(blocks);
        let padding = n.next_multiple_of(if chunks == 1 { block } else { rows.next_multiple_of(block) }) - n;
        (if padding > n / 64 { padding } else { 0 }, rows.div_ceil(block).abs_diff(wanted))
    });
    let block = rows.div_ceil(best.unwrap_or(1));
    (if chunks == 1 { n } else { rows.next_multiple_of(block) }, block)
}

/// The indices of element `n` of an array of this shape, in C order; zeros follow.
fn unravel(mut n: usize, shape: &[usize]) -> [usize; READ_NDIM] {
    let mut at = [0; READ_NDIM];
    for (i, &len) in shape.iter().enumerate().rev() {
        (at[i], n) = (n % len, n / len);
    }
    at
}

/// Memory, or an error.
fn zeroed(len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Streams `shape` elements of `typesize` bytes each, in C order, from `elements` into a frame. `out` is at its
/// beginning, and is left at the frame's end. Takes memory of [`WRITE_SCRATCH`].
pub(crate) fn write(
    out: &mut dyn PatchWrite,
    dtype: &str,
    typesize: usize,
    shape: &[usize],
    elements: &mut dyn Read,
) -> Result<()> {
    if shape.len() > MAX_NDIM || !(1..=255).contains(&typesize) {
        let ndim = shape.len();
        return Err(unsupported(format!("a Blosc2 array of {ndim} dimensions with elements of {typesize} bytes")));
    }
    let layout = Layout::plan(typesize, shape)?;
    // The lengths are not known yet; those of the header do not depend on them.
    let start = encode_header(&layout, dtype, shape, 0, 0)?;
    out.write_all(&start)?;
    let (packed, index) = write_chunks(out, &layout, elements)?;
    out.write_all(&index)?;
    out.write_all(&TRAILER)?;
    let len = start.len() as u64 + packed + index.len() as u64 + TRAILER.len() as u64;
    out.patch(0, &encode_header(&layout, dtype, shape, len, packed)?)
}

/// The bytes that the chunks took, and the index chunk.
fn write_chunks(out: &mut dyn PatchWrite, layout: &Layout, elements: &mut dyn Read) -> Result<(u64, Vec<u8>)> {
    let Some(axis) = layout.split else { return Ok((0, vec![])) };
    let mut codec = Compressor::new(layout.typesize, layout.block_bytes)?;
    let (mut data, mut chunk) = (zeroed(layout.chunk_bytes)?, Vec::new());
    let (mut offsets, mut packed) = (Vec::new(), 0u64);
    for n in 0..layout.chunks {
        let (_, len) = layout.run(axis, n);
        elements.read_exact(&mut data[..len])?;
        data[len..].fill(0);
        codec.compress(&data, &mut chunk)?;
        // Readers take zeros in the index only, never in the place of a chunk.
        if blosc::is_zeros(&chunk) {
            offsets.extend(ZEROS.to_le_bytes());
            continue;
        }
        offsets.extend(packed.to_le_bytes());
        out.write_all(&chunk)?;
        packed += chunk.len() as u64;
    }
    Compressor::new(8, 64 << 10)?.compress(&offsets, &mut chunk)?;
    Ok((packed, chunk))
}

/// Trailer version 1: no metalayers of variable length, its own length (35), no fingerprint.
const TRAILER: [u8; 35] = {
    let mut bytes = [0; 35];
    let start = [0x94, 1, 0x93, 0xcd, 0, 6, 0xde, 0, 0, 0xdc, 0, 0, 0xce, 0, 0, 0, 35, 0xd8];
    let mut i = 0;
    while i < start.len() {
        bytes[i] = start[i];
        i += 1;
    }
    bytes
};

/// MessagePack, as far as frames use it: a marker and a big-endian number.
trait Pack {
    fn int32(&mut self, value: usize) -> Result<()>;
    fn int64(&mut self, value: u64) -> Result<()>;
}

impl Pack for Vec<u8> {
    fn int32(&mut self, value: usize) -> Result<()> {
        let value = i32::try_from(value).map_err(|_| unsupported(format!("a Blosc2 frame with the number {value}")))?;
        self.push(0xd2);
        self.extend(value.to_be_bytes());
        Ok(())
    }

    fn int64(&mut self, value: u64) -> Result<()> {
        let value = i64::try_from(value).map_err(|_| unsupported(format!("a Blosc2 frame with the number {value}")))?;
        self.push(0xd3);
        self.extend(value.to_be_bytes());
        Ok(())
    }
}

/// The frame's header, with the array's metalayer.
fn encode_header(layout: &Layout, dtype: &str, shape: &[usize], frame_len: u64, packed: u64) -> Result<Vec<u8>> {
    let meta = encode_meta(layout, dtype, shape)?;
    let offset = FIXED + 7 + 10 + 3;
    let mut h = b"\x9e\xa8b2frame\0".to_vec();
    h.int32(offset + 5 + meta.len())?;
    h.push(0xcf);
    h.extend(frame_len.to_be_bytes());
    // Frame version 2 with 64-bit offsets, contiguous, and what chunks are made with.
    let split_mode = 3;
    h.extend([0xa4, 0x12, 0, blosc::LZ4 | blosc::LEVEL << 4, split_mode]);
    h.int64((layout.chunk_bytes * layout.chunks) as u64)?;
    h.int64(packed)?;
    h.int32(layout.typesize)?;
    h.int32(layout.block_bytes)?;
    h.int32(layout.chunk_bytes)?;
    // One thread each way, no metalayers of variable length; then the filters, the codec again, and no parameters.
    h.extend([0xd1, 0, 1, 0xd1, 0, 1, 0xc2, 0xd8, 6, 0, 0, 0, 0, 0, blosc::SHUFFLE, blosc::LZ4, 0]);
    h.extend([0; 8]);
    // The metalayers: an index of 17 bytes with one name and offset, then one value.
    h.extend([0x93, 0xcd, 0, 17, 0xde, 0, 1, 0xa4]);
    h.extend(b"b2nd");
    h.int32(offset)?;
    h.extend([0xdc, 0, 1, 0xc6]);
    h.extend((meta.len() as u32).to_be_bytes());
    h.extend(meta);
    Ok(h)
}

fn encode_meta(layout: &Layout, dtype: &str, shape: &[usize]) -> Result<Vec<u8>> {
    let axes = 0x90 | shape.len() as u8;
    let mut meta = vec![0x97, 0, shape.len() as u8, axes];
    for &n in shape {
        meta.int64(n as u64)?;
    }
    for cut in [&layout.chunk, &layout.block] {
        meta.push(axes);
        for &n in &cut[..shape.len()] {
            meta.int32(n)?;
        }
    }
    // A dtype as numpy spells it.
    meta.extend([0, 0xdb]);
    meta.extend((dtype.len() as u32).to_be_bytes());
    meta.extend(dtype.as_bytes());
    Ok(meta)
}

/// Takes a header apart; each step fails at the end of the bytes.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or_else(|| invalid("a Blosc2 frame's header is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn marker(&mut self, marker: u8) -> Result<()> {
        match self.byte()? {
            byte if byte == marker => Ok(()),
            byte => Err(invalid(format!("a Blosc2 frame's header has {byte:#04x} in the place of {marker:#04x}"))),
        }
    }

    fn uint16(&mut self) -> Result<usize> {
        Ok(u16::from_be_bytes(self.array()?).into())
    }

    fn int32(&mut self) -> Result<usize> {
        let value = i32::from_be_bytes(self.array()?);
        value.try_into().map_err(|_| invalid("a Blosc2 frame's header has a negative number"))
    }

    fn uint64(&mut self) -> Result<u64> {
        let value = i64::from_be_bytes(self.array()?);
        value.try_into().map_err(|_| invalid("a Blosc2 frame's header has a negative number"))
    }

    fn marked32(&mut self) -> Result<usize> {
        self.marker(0xd2)?;
        self.int32()
    }

    fn marked64(&mut self) -> Result<u64> {
        self.marker(0xd3)?;
        self.uint64()
    }

    /// The numbers of one shape, each read by `number`.
    fn axes(&mut self, ndim: usize, number: impl Fn(&mut Self) -> Result<usize>) -> Result<Vec<usize>> {
        // The library adds the count like this even beyond 15, where MessagePack has another marker.
        self.marker(0x90 + ndim as u8)?;
        (0..ndim).map(|_| number(self)).collect()
    }
}

/// What the frame says of its array.
pub(crate) struct Header {
    /// As numpy spells it, such as `<f8`. Not checked against `typesize`.
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    /// Bytes of an element.
    pub(crate) typesize: usize,
    layout: Layout,
    /// Where the chunks start and end; the index follows, up to `frame_len` at most.
    start: u64,
    index: u64,
    frame_len: u64,
}

/// The numbers of the fixed header that a reader needs.
struct Fixed {
    header_len: u64,
    frame_len: u64,
    flags: u8,
    bytes: u64,
    packed: u64,
    typesize: usize,
    chunk_bytes: usize,
}

fn decode_fixed(bytes: &[u8], source_len: u64) -> Result<Fixed> {
    let mut c = Cursor(bytes);
    if c.take(10)? != b"\x9e\xa8b2frame\0" {
        return Err(invalid("not a Blosc2 frame"));
    }
    let header_len = c.marked32()? as u64;
    c.marker(0xcf)?;
    let frame_len = c.uint64()?;
    c.marker(0xa4)?;
    let [flags, kind, _codec, _split] = c.array()?;
    let (bytes, packed) = (c.marked64()?, c.marked64()?);
    let (typesize, _block, chunk_bytes) = (c.marked32()?, c.marked32()?, c.marked32()?);
    if frame_len > source_len {
        return Err(invalid(format!("a Blosc2 frame of {frame_len} bytes is cut off at {source_len}")));
    }
    if flags & 0x0f > 3 || flags & 0x30 != 0x10 || kind != 0 {
        return Err(unsupported(format!("a Blosc2 frame with the flags {flags:#x} {kind:#x}")));
    }
    if header_len < FIXED as u64 || header_len > frame_len.min(MAX_HEADER) || packed > frame_len - header_len {
        return Err(invalid("a Blosc2 frame's header contradicts itself on lengths"));
    }
    if typesize == 0 {
        return Err(invalid("a Blosc2 frame has a type size of 0"));
    }
    Ok(Fixed { header_len, frame_len, flags, bytes, packed, typesize, chunk_bytes })
}

/// The content of the metalayer `b2nd`.
fn find_meta(header: &[u8]) -> Result<&[u8]> {
    let mut c = Cursor(header);
    c.take(FIXED)?;
    c.marker(0x93)?;
    c.marker(0xcd)?;
    c.uint16()?;
    c.marker(0xde)?;
    for _ in 0..c.uint16()? {
        let name_len = usize::from(c.byte()? & 0x1f);
        let name = c.take(name_len)?;
        let offset = c.marked32()?;
        if name == b"b2nd" {
            let mut value = Cursor(header);
            value.take(offset)?;
            value.marker(0xc6)?;
            let len = value.int32()?;
            return value.take(len);
        }
    }
    Err(unsupported("a Blosc2 frame that holds no array: it has no b2nd metalayer"))
}

/// Reads and checks what comes before the chunks.
pub(crate) fn read_header(source: &dyn ReadAt) -> Result<Header> {
    let mut bytes = vec![0; FIXED];
    if source.len() < FIXED as u64 {
        return Err(invalid("not a Blosc2 frame: too short"));
    }
    source.read_exact_at(&mut bytes, 0)?;
    let fixed = decode_fixed(&bytes, source.len())?;
    bytes.resize(fixed.header_len as usize, 0);
    source.read_exact_at(&mut bytes, 0)?;

    let mut c = Cursor(find_meta(&bytes)?);
    c.marker(0x97)?;
    let (version, ndim) = (c.byte()?, usize::from(c.byte()?));
    if version != 0 || ndim > READ_NDIM {
        return Err(unsupported(format!("a b2nd array of version {version} with {ndim} dimensions")));
    }
    let shape = c.axes(ndim, |c| c.marked64()?.try_into().map_err(|_| too_large()))?;
    let chunk = c.axes(ndim, Cursor::marked32)?;
    let block = c.axes(ndim, Cursor::marked32)?;
    if c.byte()? != 0 {
        return Err(unsupported("a b2nd array whose dtype is not numpy's"));
    }
    c.marker(0xdb)?;
    let dtype_len = c.int32()?;
    let dtype = String::from_utf8(c.take(dtype_len)?.to_vec()).map_err(|_| invalid("a b2nd dtype is not UTF-8"))?;

    let layout = Layout::new(fixed.typesize, shape.clone(), chunk, block)?;
    if layout.bytes > 0 {
        // Bits 6 and 7: chunks or blocks of unequal lengths, which arrays do not have.
        let stored = (layout.chunk_bytes * layout.chunks) as u64;
        if fixed.flags & 0xc0 != 0 || fixed.chunk_bytes != layout.chunk_bytes || fixed.bytes != stored {
            return Err(invalid("a Blosc2 frame's chunks do not add up to its array"));
        }
    }
    let index = fixed.header_len + fixed.packed;
    let (typesize, frame_len) = (fixed.typesize, fixed.frame_len);
    Ok(Header { dtype, shape, typesize, layout, start: fixed.header_len, index, frame_len })
}

impl Header {
    /// Bytes of the array.
    pub(crate) fn bytes(&self) -> usize {
        self.layout.bytes
    }

    /// Reads the whole array, in C order; `dst` must have [`Header::bytes`].
    pub(crate) fn read_into(&self, source: &dyn ReadAt, dst: &mut [u8]) -> Result<()> {
        if dst.len() != self.layout.bytes {
            return Err(Error::new(ErrorKind::InvalidInput, "a buffer of another size than the array"));
        }
        let mut chunks = Chunks::new(self, source)?;
        let mut data = Vec::new();
        for n in 0..self.layout.chunks {
            let run = self.layout.split.map(|axis| self.layout.run(axis, n));
            if let Some((offset, len)) = run.filter(|&(_, len)| len == self.layout.chunk_bytes) {
                chunks.decode(n, &mut dst[offset..offset + len])?;
                continue;
            }
            if data.is_empty() {
                data = zeroed(self.layout.chunk_bytes)?;
            }
            chunks.decode(n, &mut data)?;
            match run {
                Some((offset, len)) => dst[offset..offset + len].copy_from_slice(&data[..len]),
                None => self.layout.scatter(n, &data, dst),
            }
        }
        Ok(())
    }

    /// Calls `each(offset, bytes)` for consecutive runs of the array's bytes in C order, which cover it. Takes memory
    /// for a few chunks, or for the whole array when [`Header::streams`] is false.
    pub(crate) fn for_each_run(
        &self,
        source: &dyn ReadAt,
        each: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let Some(axis) = self.layout.split else {
            let mut array = zeroed(self.layout.bytes)?;
            self.read_into(source, &mut array)?;
            return each(0, &array);
        };
        let mut chunks = Chunks::new(self, source)?;
        let mut data = zeroed(self.layout.chunk_bytes)?;
        for n in 0..self.layout.chunks {
            chunks.decode(n, &mut data)?;
            let (offset, len) = self.layout.run(axis, n);
            each(offset, &data[..len])?;
        }
        Ok(())
    }
}

/// A frame's chunks, open for reading.
struct Chunks<'a> {
    header: &'a Header,
    source: &'a dyn ReadAt,
    codec: Decompressor,
    /// The index: eight bytes a chunk, little-endian.
    offsets: Vec<u8>,
    packed: Vec<u8>,
}

impl<'a> Chunks<'a> {
    fn new(header: &'a Header, source: &'a dyn ReadAt) -> Result<Self> {
        let mut chunks = Chunks { header, source, codec: Decompressor::new()?, offsets: vec![], packed: vec![] };
        if header.layout.chunks > 0 {
            let len = header.layout.chunks.checked_mul(8).filter(|&len| len <= blosc::MAX_BYTES);
            let mut offsets = zeroed(len.ok_or_else(|| unsupported("a Blosc2 frame with too many chunks"))?)?;
            chunks.decode_at(header.index, header.frame_len, &mut offsets)?;
            chunks.offsets = offsets;
        }
        Ok(chunks)
    }

    /// Fills `dst` with chunk `n`.
    fn decode(&mut self, n: usize, dst: &mut [u8]) -> Result<()> {
        let mut offset = [0; 8];
        offset.copy_from_slice(&self.offsets[8 * n..8 * n + 8]);
        let fill = match u64::from_le_bytes(offset) {
            offset if offset >> 63 == 0 => {
                let at = self.header.start.checked_add(offset).ok_or_else(|| invalid("a Blosc2 chunk lies nowhere"))?;
                return self.decode_at(at, self.header.index, dst);
            }
            // Zeros, and values never initialized.
            offset if matches!(offset >> 56 & 0x7f, 1 | 4) => Fill::Zeros,
            offset if offset >> 56 & 0x7f == 2 => Fill::Nan,
            offset => return Err(invalid(format!("a Blosc2 frame's index has the entry {offset:#x}"))),
        };
        fill.fill(self.header.typesize, dst)
    }

    /// Fills `dst` with the chunk at `at`, which must lie before `end`.
    fn decode_at(&mut self, at: u64, end: u64, dst: &mut [u8]) -> Result<()> {
        let outside = || invalid("a Blosc2 chunk lies outside its frame");
        let room = end.checked_sub(at).filter(|&room| room >= blosc::HEADER as u64).ok_or_else(outside)?;
        let mut header = [0; blosc::HEADER];
        self.source.read_exact_at(&mut header, at)?;
        let len = blosc::packed_len(&header, dst.len())?;
        if len as u64 > room {
            return Err(outside());
        }
        // No larger than the file, and not longer than what it unpacks to.
        if len > dst.len() + blosc::HEADER {
            return Err(invalid("a Blosc2 chunk is longer than its data"));
        }
        if self.packed.len() < len {
            self.packed = Vec::new();
            self.packed = zeroed(len)?;
        }
        let packed = &mut self.packed[..len];
        packed[..blosc::HEADER].copy_from_slice(&header);
        self.source.read_exact_at(&mut packed[blosc::HEADER..], at + blosc::HEADER as u64)?;
        self.codec.decompress(packed, dst)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A file in memory.
    struct Memory(Vec<u8>);

    impl Write for Memory {
        fn write(&mut self, buf: &[u8]) -> Result<usize> {
            self.0.write(buf)
        }
        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    impl PatchWrite for Memory {
        fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
            self.0[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
    }

    impl ReadAt for Memory {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            let from = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)?.get(..buf.len()));
            buf.copy_from_slice(from.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?);
            Ok(())
        }
    }

    fn frame(typesize: usize, shape: &[usize], data: &[u8]) -> Memory {
        let mut out = Memory(vec![]);
        write(&mut out, "<f8", typesize, shape, &mut &data[..]).unwrap();
        out
    }

    fn read(source: &Memory) -> Result<Vec<u8>> {
        let header = read_header(source)?;
        let mut array = zeroed(header.bytes())?;
        header.read_into(source, &mut array)?;
        let mut streamed = Vec::new();
        header.for_each_run(source, &mut |offset, run| {
            assert_eq!(offset, streamed.len());
            streamed.extend_from_slice(run);
            Ok(())
        })?;
        assert!(streamed == array);
        Ok(array)
    }

    /// Bytes that neither repeat nor compress to nothing.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..len).map(|i| if i % 3 == 0 { (i / 100) as u8 } else { next() }).collect()
    }

    fn round_trip(typesize: usize, shape: &[usize]) {
        let data = noise(typesize * shape.iter().product::<usize>());
        let mut file = frame(typesize, shape, &data);
        let header = read_header(&file).unwrap();
        assert_eq!((header.dtype.as_str(), header.typesize, &header.shape[..]), ("<f8", typesize, shape));
        assert!(header.layout.split.is_some());
        assert!(read(&file).unwrap() == data, "{typesize} {shape:?}");
        file.0.extend(b"what others append");
        assert!(read(&file).unwrap() == data);
    }

    #[test]
    fn arrays_round_trip() {
        for typesize in [1, 2, 3, 4, 8, 16, 255] {
            for shape in [
                &[][..],
                &[0],
                &[1],
                &[3],
                &[7, 0, 2],
                &[1, 1, 1],
                &[31, 1],
                &[2, 3, 5, 7],
                &[17, 1000],
                &[1000, 3],
                &[1, 40_000],
                &[2, 2, 2, 2, 2, 2, 2, 3],
            ] {
                round_trip(typesize, shape);
            }
        }
        for shape in [
            &[1_000_003][..],
            &[3, 600_001],
            &[2, 5, 70_000],
            &[9, 25_000, 2],
            &[7, 3, 11, 5003],
            &[1 << 20],
            &[70_000, 9],
        ] {
            round_trip(8, shape);
        }
        round_trip(1, &[CHUNK + 1]);
        round_trip(16, &[3, CHUNK / 16 + 1]);
    }

    #[test]
    fn chunks_are_near_their_targets_and_hardly_padded() {
        for typesize in [1, 2, 4, 8, 16] {
            for shape in [
                &[64 << 20][..],
                &[5_000_011],
                &[1000, 1000],
                &[10_007, 997],
                &[100, 100, 1009],
                &[3, 400_000],
                &[1_000_000, 3],
                &[7, 25_000],
                &[2, 2, 2, 70_000],
                &[100_000, 1, 2],
                &[300, 524_288],
                &[11, 65_537],
            ] {
                let layout = Layout::plan(typesize, shape).unwrap();
                let what = format!("{typesize} {shape:?} {:?} {:?}", layout.chunk, layout.block);
                let stored = layout.chunk_bytes * layout.chunks;
                assert!(layout.split.is_some(), "{what}");
                assert!(stored - layout.bytes <= layout.bytes / 10, "{what}: {stored} for {}", layout.bytes);
                assert!(layout.chunk_bytes <= CHUNK + CHUNK / 4, "{what}");
                assert!(2 * (layout.chunk_bytes + blosc::HEADER) + 4 * layout.block_bytes <= WRITE_SCRATCH, "{what}");
                assert!(layout.chunk_bytes >= BLOCK.min(layout.bytes), "{what}");
                assert!(
                    layout.block_bytes <= BLOCK * 3 / 2 && layout.block_bytes >= (BLOCK / 4).min(layout.bytes),
                    "{what}"
                );
            }
        }
    }

    #[test]
    fn zeros_take_no_room() {
        let zeros = vec![0; 16 << 20];
        let file = frame(8, &[2 << 20], &zeros);
        assert!(file.0.len() < 400);
        assert!(read(&file).unwrap() == zeros);
        let mut mixed = zeros;
        mixed[9 << 20] = 1;
        assert!(read(&frame(8, &[2 << 20], &mixed)).unwrap() == mixed);
    }

    #[test]
    fn every_nan_keeps_its_bits() {
        for nan in [f64::NAN.to_bits(), 0xfff8_0000_0000_0001, 0x7ff0_0000_dead_beef] {
            let data = nan.to_le_bytes().repeat(700_000);
            assert!(read(&frame(8, &[700, 1000], &data)).unwrap() == data);
        }
    }

    #[test]
    fn what_cannot_be_written_is_unsupported() {
        for (typesize, shape) in [(8, &[1; 9][..]), (256, &[2]), (0, &[2])] {
            let result = write(&mut Memory(vec![]), "<f8", typesize, shape, &mut std::io::repeat(1));
            assert!(result.is_err(), "{typesize} {shape:?}");
        }
        let short = write(&mut Memory(vec![]), "<f8", 8, &[3], &mut &[0; 23][..]);
        assert_eq!(short.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    /// A frame with chunks and blocks that are boxes, as other writers make them: the reverse of `scatter`.
    fn boxes(typesize: usize, shape: &[usize], chunk: &[usize], block: &[usize], data: &[u8]) -> Memory {
        let layout = Layout::new(typesize, shape.to_vec(), chunk.to_vec(), block.to_vec()).unwrap();
        let start = encode_header(&layout, "<i4", shape, 0, 0).unwrap();
        let mut out = Memory(start);
        let mut codec = Compressor::new(typesize, layout.block_bytes).unwrap();
        let (mut offsets, mut packed, mut compressed) = (vec![], 0u64, vec![]);
        for n in 0..layout.chunks {
            let mut bytes = vec![0; layout.chunk_bytes];
            for element in 0..layout.chunk_bytes / typesize {
                let blocks: Vec<usize> = layout.padded.iter().zip(block).map(|(p, b)| p / b).collect();
                let items = layout.block_bytes / typesize;
                let (outer, inner) = (unravel(element / items, &blocks), unravel(element % items, block));
                let at = unravel(n, &layout.counts());
                let local: Vec<usize> = (0..shape.len()).map(|i| outer[i] * block[i] + inner[i]).collect();
                let global: Vec<usize> = (0..shape.len()).map(|i| at[i] * chunk[i] + local[i]).collect();
                if (0..shape.len()).all(|i| local[i] < chunk[i] && global[i] < shape[i]) {
                    let from = (0..shape.len()).fold(0, |from, i| from * shape[i] + global[i]) * typesize;
                    bytes[element * typesize..][..typesize].copy_from_slice(&data[from..from + typesize]);
                }
            }
            codec.compress(&bytes, &mut compressed).unwrap();
            offsets.extend(packed.to_le_bytes());
            packed += compressed.len() as u64;
            out.write_all(&compressed).unwrap();
        }
        Compressor::new(8, 1024).unwrap().compress(&offsets, &mut compressed).unwrap();
        out.write_all(&compressed).unwrap();
        out.write_all(&TRAILER).unwrap();
        let len = out.0.len() as u64;
        out.patch(0, &encode_header(&layout, "<i4", shape, len, packed).unwrap()).unwrap();
        out
    }

    #[test]
    fn foreign_boxes_are_read() {
        for (shape, chunk, block) in [
            (&[10, 12][..], &[4, 5][..], &[2, 3][..]),
            (&[7], &[4], &[3]),
            (&[5, 6, 7], &[5, 6, 7], &[2, 6, 7]),
            (&[5, 6, 7], &[2, 3, 7], &[1, 2, 4]),
            (&[3, 4, 5, 6], &[2, 2, 2, 2], &[2, 1, 2, 1]),
            (&[9, 3], &[2, 3], &[1, 2]),
            (&[9, 3], &[1, 1], &[1, 1]),
            (&[2, 3], &[4, 4], &[3, 3]),
        ] {
            for typesize in [1, 4, 12] {
                let data = noise(typesize * shape.iter().product::<usize>());
                let file = boxes(typesize, shape, chunk, block, &data);
                assert!(read(&file).unwrap() == data, "{shape:?} {chunk:?} {block:?}");
            }
        }
    }

    /// Small frames of each kind that the mutations below work on.
    fn samples() -> Vec<Memory> {
        let data = noise(8 * 600);
        let smooth: Vec<u8> = (0..600u64).flat_map(|i| (i * i).to_le_bytes()).collect();
        let mut half = smooth.clone();
        half[..2400].fill(0);
        vec![
            frame(8, &[600], &data),
            frame(8, &[20, 30], &smooth),
            frame(8, &[], &data[..8]),
            boxes(8, &[20, 30], &[8, 16], &[4, 5], &smooth),
            boxes(8, &[20, 30], &[5, 30], &[1, 30], &half),
        ]
    }

    #[test]
    fn no_flipped_bits_panic() {
        for mut file in samples() {
            for i in 0..file.0.len() {
                for flip in [0x01, 0x80, 0xff, 0x10, 0x3c] {
                    file.0[i] ^= flip;
                    let _ = read(&file);
                    file.0[i] ^= flip;
                }
            }
            read(&file).unwrap();
        }
    }

    #[test]
    fn no_extreme_number_panics() {
        for mut file in samples() {
            for i in 0..file.0.len() - 8 {
                for value in [0u64, 1 << 31, u64::MAX, i64::MAX as u64, 1 << 62, 0x7fff_ffff_7fff_ffff] {
                    let before: [u8; 8] = file.0[i..i + 8].try_into().unwrap();
                    for bytes in [value.to_be_bytes(), value.to_le_bytes()] {
                        file.0[i..i + 8].copy_from_slice(&bytes);
                        let _ = read(&file);
                    }
                    file.0[i..i + 8].copy_from_slice(&before);
                }
            }
        }
    }

    #[test]
    fn every_cut_is_an_error() {
        for file in samples() {
            for len in 0..file.0.len() {
                assert!(read(&Memory(file.0[..len].to_vec())).is_err());
            }
        }
    }
}
