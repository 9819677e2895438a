//! Reading frames, hostile ones too.

use std::borrow::Cow;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::blank::Blank;
use super::super::blosc::{self, Decompressor, Fill, invalid, unsupported};
use super::super::buffer::Buffer;
use super::super::{ReadAt, in_parallel};
use super::{FIXED, Layout, MAX_HEADER, READ_NDIM, too_large, zeroed};

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
    pub(super) layout: Layout,
    /// Where the chunks start and end; the index follows, up to `frame_len` at most.
    pub(super) start: u64,
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

    /// What unpacking a part of the array takes besides the part: a chunk, its packed form and a block, and the whole array
    /// where its chunks are no runs.
    pub(crate) fn scratch(&self) -> u64 {
        let whole = if self.layout.split.is_some() { 0 } else { self.layout.bytes };
        (whole + 2 * self.layout.chunk_bytes + self.layout.block_bytes) as u64
    }

    /// Reads the whole array, in C order; `dst` must have [`Header::bytes`].
    pub(crate) fn read_into(&self, source: &dyn ReadAt, mut dst: Blank<'_>) -> Result<()> {
        if dst.len() != self.layout.bytes {
            return Err(Error::new(ErrorKind::InvalidInput, "a buffer of another size than the array"));
        }
        let index = self.read_index(source)?;
        if self.layout.split.is_some() {
            // Each thread looks for the chunks of its share; a chunk may begin in one and end in the next.
            return in_parallel(dst, self.layout.chunk_bytes, 0, &|start, share: Blank<'_>| {
                Last::new(Chunks::new(self, source, &index)?).read_all(share, start)
            });
        }
        let mut chunks = Chunks::new(self, source, &index)?;
        let (mut data, mut array) = (zeroed(self.layout.chunk_bytes)?, zeroed(self.layout.bytes)?);
        for n in 0..self.layout.chunks {
            chunks.decode(n, Blank::over(&mut data))?;
            self.layout.scatter(n, &data, &mut array);
        }
        dst.put(&array);
        Ok(())
    }

    /// Where the chunks are: eight bytes a chunk, little-endian.
    fn read_index(&self, source: &dyn ReadAt) -> Result<Vec<u8>> {
        let len = self.layout.chunks.checked_mul(8).filter(|&len| len <= blosc::MAX_BYTES);
        let mut index = zeroed(len.ok_or_else(|| unsupported("a Blosc2 frame with too many chunks"))?)?;
        if !index.is_empty() {
            let mut chunks = Chunks::new(self, source, &[])?;
            chunks.decode_at(self.index, self.frame_len, Blank::over(&mut index))?;
        }
        Ok(index)
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
            self.read_into(source, Blank::over(&mut array))?;
            return each(0, &array);
        };
        let index = self.read_index(source)?;
        let mut chunks = Chunks::new(self, source, &index)?;
        let mut data = zeroed(self.layout.chunk_bytes)?;
        for n in 0..self.layout.chunks {
            chunks.decode(n, Blank::over(&mut data))?;
            let (offset, len) = self.layout.run(axis, n);
            each(offset, &data[..len])?;
        }
        Ok(())
    }
}

/// The array's bytes in C order, unpacked as they are asked for. The chunk that was unpacked last is kept.
pub(crate) struct Unpacked<'a>(Mutex<Last<'a>>);

impl Header {
    pub(crate) fn unpacked<'a>(&'a self, source: &'a dyn ReadAt) -> Result<Unpacked<'a>> {
        let index = self.read_index(source)?;
        Ok(Unpacked(Mutex::new(Last::new(Chunks::new(self, source, index)?))))
    }
}

impl<'a> Unpacked<'a> {
    fn last(&self) -> MutexGuard<'_, Last<'a>> {
        // What a panic left behind is looked at no more.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadAt for Unpacked<'_> {
    fn len(&self) -> u64 {
        self.last().chunks.header.bytes() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len()) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        // Within the array, whose length is a `usize`.
        self.last().read_all(Blank::over(buf), offset as usize)
    }
}

struct Last<'a> {
    chunks: Chunks<'a>,
    /// Where in the array the bytes are that `data` begins with, and how many.
    offset: usize,
    len: usize,
    data: Vec<u8>,
}

impl<'a> Last<'a> {
    fn new(chunks: Chunks<'a>) -> Self {
        Last { chunks, offset: 0, len: 0, data: Vec::new() }
    }

    /// Reads what begins at `at` in the array.
    fn read_all(&mut self, mut dst: Blank<'_>, mut at: usize) -> Result<()> {
        while dst.len() > 0 {
            at += self.read(&mut dst, at)?;
        }
        Ok(())
    }

    /// Reads up to the end of a chunk.
    fn read(&mut self, dst: &mut Blank<'_>, at: usize) -> Result<usize> {
        if !(self.offset..self.offset + self.len).contains(&at) {
            let layout = &self.chunks.header.layout;
            match layout.split {
                Some(axis) => {
                    let n = layout.chunk_at(axis, at);
                    let (offset, len) = layout.run(axis, n);
                    if offset == at && len == layout.chunk_bytes && dst.len() >= len {
                        self.chunks.decode(n, dst.take(len))?;
                        return Ok(len);
                    }
                    self.len = 0;
                    if self.data.is_empty() {
                        self.data = zeroed(layout.chunk_bytes)?;
                    }
                    self.chunks.decode(n, Blank::over(&mut self.data))?;
                    (self.offset, self.len) = (offset, len);
                }
                None => {
                    self.data = zeroed(layout.bytes)?;
                    self.chunks.header.read_into(self.chunks.source, Blank::over(&mut self.data))?;
                    self.len = layout.bytes;
                }
            }
        }
        let from = at - self.offset;
        let taken = dst.len().min(self.len - from);
        dst.put(&self.data[from..from + taken]);
        Ok(taken)
    }
}

/// A frame's chunks, open for reading.
struct Chunks<'a> {
    header: &'a Header,
    source: &'a dyn ReadAt,
    codec: Decompressor,
    /// Eight bytes a chunk, little-endian.
    index: Cow<'a, [u8]>,
    window: Window,
}

impl<'a> Chunks<'a> {
    fn new(header: &'a Header, source: &'a dyn ReadAt, index: impl Into<Cow<'a, [u8]>>) -> Result<Self> {
        let window = Window { block: Block::default(), copy: Buffer::new() };
        Ok(Chunks { header, source, codec: Decompressor::new()?, index: index.into(), window })
    }

    fn offset(&self, n: usize) -> Option<u64> {
        self.index.get(8 * n..8 * n + 8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// Fills `dst` with chunk `n`.
    fn decode(&mut self, n: usize, dst: Blank<'_>) -> Result<()> {
        let fill = match self.offset(n) {
            Some(offset) if offset >> 63 == 0 => {
                let at = self.header.start.checked_add(offset);
                let at = at.ok_or_else(|| invalid("a Blosc2 chunk lies nowhere"))?;
                return self.decode_at(at, self.header.index, dst);
            }
            // Zeros, and values never initialized.
            Some(offset) if matches!(offset >> 56 & 0x7f, 1 | 4) => Fill::Zeros,
            Some(offset) if offset >> 56 & 0x7f == 2 => Fill::Nan,
            entry => return Err(invalid(format!("a Blosc2 frame's index has the entry {entry:#x?}"))),
        };
        fill.fill(self.header.typesize, dst)
    }

    /// Fills `dst` with the chunk at `at`, which must lie before `end`.
    fn decode_at(&mut self, at: u64, end: u64, dst: Blank<'_>) -> Result<()> {
        let outside = || invalid("a Blosc2 chunk lies outside its frame");
        let room = end.checked_sub(at).filter(|&room| room >= blosc::HEADER as u64).ok_or_else(outside)?;
        let mut header = [0; blosc::HEADER];
        header.copy_from_slice(self.window.read(self.source, at, blosc::HEADER)?);
        let len = blosc::packed_len(&header, dst.len())? as u64;
        if len > room {
            return Err(outside());
        }
        // No longer than what it unpacks to.
        if len > (dst.len() + blosc::HEADER) as u64 {
            return Err(invalid("a Blosc2 chunk is longer than its data"));
        }
        let packed = self.window.read(self.source, at, len as usize)?;
        self.codec.decompress(packed, dst)
    }
}

/// The part of the source that is looked at.
struct Window {
    block: Block,
    /// What lies in several blocks, or in none.
    copy: Buffer,
}

impl Window {
    /// The `len` bytes at `at`, which lie within the source.
    fn read(&mut self, source: &dyn ReadAt, mut at: u64, len: usize) -> Result<&[u8]> {
        let end = at.checked_add(len as u64).filter(|&end| end <= source.len()).ok_or(ErrorKind::UnexpectedEof)?;
        if end <= Block::end(at) && self.block.find(source, at)? {
            return Ok(self.block.from(at, len));
        }
        let copy = self.copy.get(len)?;
        let mut rest = &mut copy[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at_mut(rest.len().min((Block::end(at) - at) as usize));
            match self.block.find(source, at)? {
                true => now.copy_from_slice(self.block.from(at, now.len())),
                false => source.read_exact_at(now, at)?,
            }
            at += now.len() as u64;
            rest = later;
        }
        Ok(copy)
    }
}

/// A block that the source has verified, shared with other readers.
#[derive(Default)]
struct Block(Option<(u64, Arc<Buffer>)>);

impl Block {
    const LEN: u64 = super::super::BLOCK as u64;

    /// Where the block ends in which `at` is.
    fn end(at: u64) -> u64 {
        (at / Self::LEN).saturating_add(1).saturating_mul(Self::LEN)
    }

    /// Makes this the block in which `at` is, if the source has blocks.
    fn find(&mut self, source: &dyn ReadAt, at: u64) -> Result<bool> {
        let index = at / Self::LEN;
        if self.0.as_ref().is_none_or(|(found, _)| *found != index) {
            self.0 = source.block(index)?.map(|block| (index, block));
        }
        Ok(self.0.is_some())
    }

    /// Bytes of the block that was found.
    fn from(&self, at: u64, len: usize) -> &[u8] {
        let from = (at % Self::LEN) as usize;
        self.0.as_ref().map(|(_, block)| &block[from..from + len]).unwrap_or_default()
    }
}
