//! Writing frames, as a stream.

use std::io::{BufRead, Result, Write};

use super::super::Encoder;
use super::super::blosc::{self, Compressor, Recipe, unsupported};
use super::{FIXED, Layout, MAX_NDIM, ZEROS, zeroed};

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

/// Streams `shape` elements of `typesize` bytes each, in C order, from `elements` into a frame. `out` is at its
/// beginning, and is left at the frame's end. Takes memory of [`WRITE_SCRATCH`].
pub(crate) fn write(
    out: &mut dyn PatchWrite,
    recipe: Recipe,
    dtype: &str,
    typesize: usize,
    shape: &[usize],
    elements: &mut dyn BufRead,
) -> Result<()> {
    check(typesize, shape)?;
    let mut stream = Stream::new(out, recipe, dtype, Layout::plan(typesize, shape)?, shape.len())?;
    let mut left = stream.layout.bytes;
    while left > 0 {
        let len = stream.missing();
        match elements.fill_buf()?.get(..len) {
            // As it lies in memory, without a copy.
            Some(chunk) if len == stream.layout.chunk_bytes => {
                stream.put_chunk(out, chunk)?;
                elements.consume(len);
            }
            _ => {
                elements.read_exact(stream.free()?)?;
                stream.fill(out, len)?;
            }
        }
        left -= len;
    }
    stream.end(out, shape)
}

fn check(typesize: usize, shape: &[usize]) -> Result<()> {
    if shape.len() <= MAX_NDIM && (1..=255).contains(&typesize) {
        return Ok(());
    }
    let ndim = shape.len();
    Err(unsupported(format!("a Blosc2 array of {ndim} dimensions with elements of {typesize} bytes")))
}

/// A frame that is being written, chunk by chunk.
pub(crate) struct Stream {
    recipe: Recipe,
    dtype: String,
    /// Of an array with more rows than will come, where their number is not known.
    layout: Layout,
    codec: Option<Compressor>,
    /// The chunk that is being filled, once there is one, and how far.
    data: Vec<u8>,
    filled: usize,
    chunk: Vec<u8>,
    /// Where chunks begin.
    offsets: Vec<u8>,
    /// Bytes of the header and of the chunks.
    start: usize,
    packed: u64,
    /// Chunks so far.
    written: usize,
}

impl Stream {
    /// A frame of any number of rows. A row has elements, and the rows that will come are longer than a chunk.
    pub(crate) fn of_rows(
        out: &mut dyn PatchWrite,
        recipe: Recipe,
        dtype: &str,
        typesize: usize,
        row: &[usize],
    ) -> Result<Self> {
        let bytes = super::product(typesize, row)?.max(1);
        // More than any disk has room for, where addresses have 64 bits; all numbers of the layout can be told all the same.
        let shape = [&[(isize::MAX as usize >> 1) / bytes], row].concat();
        check(typesize, &shape)?;
        Self::new(out, recipe, dtype, Layout::plan(typesize, &shape)?, shape.len())
    }

    fn new(out: &mut dyn PatchWrite, recipe: Recipe, dtype: &str, layout: Layout, ndim: usize) -> Result<Self> {
        // The lengths are not known yet; those of the header do not depend on them.
        let start = encode_header(&layout, recipe, dtype, &layout.shape[..ndim], 0, 0)?;
        out.write_all(&start)?;
        let codec = match layout.bytes {
            0 => None,
            _ => Some(Compressor::new(recipe, layout.typesize, layout.block_bytes)?),
        };
        let (data, chunk, offsets, dtype) = (Vec::new(), Vec::new(), Vec::new(), dtype.to_owned());
        let start = start.len();
        Ok(Self { recipe, dtype, layout, codec, data, filled: 0, chunk, offsets, start, packed: 0, written: 0 })
    }

    /// How many bytes are missing in the chunk that comes next.
    fn missing(&self) -> usize {
        let len = self.layout.split.map_or(0, |axis| self.layout.run(axis, self.written).1);
        len.saturating_sub(self.filled)
    }

    /// Where the bytes that come next belong; never empty as long as there are any.
    fn free(&mut self) -> Result<&mut [u8]> {
        if self.data.is_empty() {
            self.data = zeroed(self.layout.chunk_bytes)?;
        }
        let end = self.filled + self.missing();
        Ok(self.data.get_mut(self.filled..end).unwrap_or_default())
    }

    /// So many bytes have come to where they belong.
    fn fill(&mut self, out: &mut dyn PatchWrite, len: usize) -> Result<()> {
        self.filled += len;
        if self.missing() == 0 { self.write_chunk(out) } else { Ok(()) }
    }

    pub(crate) fn write(&mut self, out: &mut dyn PatchWrite, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            // The last chunk of the plan may be shorter than the others.
            if self.written + 1 >= self.layout.chunks {
                return Err(unsupported("a Blosc2 array that is larger than memory can be"));
            }
            let free = self.free()?;
            let len = free.len().min(bytes.len());
            let (now, rest) = bytes.split_at(len);
            free[..len].copy_from_slice(now);
            self.fill(out, len)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Writes the chunk that was filled.
    fn write_chunk(&mut self, out: &mut dyn PatchWrite) -> Result<()> {
        let mut data = std::mem::take(&mut self.data);
        data[std::mem::take(&mut self.filled)..].fill(0);
        let done = self.put_chunk(out, &data);
        self.data = data;
        done
    }

    fn put_chunk(&mut self, out: &mut dyn PatchWrite, data: &[u8]) -> Result<()> {
        let Some(codec) = &mut self.codec else { return Ok(()) };
        codec.compress(data, &mut self.chunk)?;
        self.written += 1;
        // Readers take zeros in the index only, never in the place of a chunk.
        if blosc::is_zeros(&self.chunk) {
            self.offsets.extend(ZEROS.to_le_bytes());
            return Ok(());
        }
        self.offsets.extend(self.packed.to_le_bytes());
        out.write_all(&self.chunk)?;
        self.packed += self.chunk.len() as u64;
        Ok(())
    }

    /// Ends a frame of so many rows, all of which were written.
    pub(crate) fn finish(mut self, out: &mut dyn PatchWrite, rows: usize) -> Result<()> {
        let Layout { typesize, mut shape, chunk, block, .. } = self.layout.clone();
        shape[0] = rows;
        if self.filled > 0 {
            self.write_chunk(out)?;
        }
        self.layout = Layout::new(typesize, shape.clone(), chunk, block)?;
        self.end(out, &shape)
    }

    /// Writes what follows the chunks, and the header.
    fn end(mut self, out: &mut dyn PatchWrite, shape: &[usize]) -> Result<()> {
        debug_assert_eq!(self.written, self.layout.chunks);
        self.chunk.clear();
        if self.written > 0 {
            Compressor::new(Recipe::BYTES, 8, 64 << 10)?.compress(&self.offsets, &mut self.chunk)?;
        }
        out.write_all(&self.chunk)?;
        out.write_all(&TRAILER)?;
        let len = self.start as u64 + self.packed + self.chunk.len() as u64 + TRAILER.len() as u64;
        out.patch(0, &encode_header(&self.layout, self.recipe, &self.dtype, shape, len, self.packed)?)
    }
}

/// Trailer version 1: no metalayers of variable length, its own length (35), no fingerprint.
pub(super) const TRAILER: [u8; 35] = {
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
pub(super) fn encode_header(
    layout: &Layout,
    recipe: Recipe,
    dtype: &str,
    shape: &[usize],
    frame_len: u64,
    packed: u64,
) -> Result<Vec<u8>> {
    let meta = encode_meta(layout, dtype, shape)?;
    let offset = FIXED + 7 + 10 + 3;
    let mut h = b"\x9e\xa8b2frame\0".to_vec();
    h.int32(offset + 5 + meta.len())?;
    h.push(0xcf);
    h.extend(frame_len.to_be_bytes());
    // Frame version 2 with 64-bit offsets, contiguous, and what chunks are made with.
    let split_mode = 3;
    h.extend([0xa4, 0x12, 0, recipe.codec | recipe.level << 4, split_mode]);
    h.int64((layout.chunk_bytes * layout.chunks) as u64)?;
    h.int64(packed)?;
    h.int32(layout.typesize)?;
    h.int32(layout.block_bytes)?;
    h.int32(layout.chunk_bytes)?;
    // One thread each way, no metalayers of variable length; then the filters, the codec again, and no parameters.
    h.extend([0xd1, 0, 1, 0xd1, 0, 1, 0xc2, 0xd8, 6, 0, 0, 0, 0, 0, recipe.filter, recipe.codec, 0]);
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
