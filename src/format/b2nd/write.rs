//! Writing frames, as a stream.

use std::io::{Read, Result, Write};

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
    elements: &mut dyn Read,
) -> Result<()> {
    if shape.len() > MAX_NDIM || !(1..=255).contains(&typesize) {
        let ndim = shape.len();
        return Err(unsupported(format!("a Blosc2 array of {ndim} dimensions with elements of {typesize} bytes")));
    }
    let layout = Layout::plan(typesize, shape)?;
    // The lengths are not known yet; those of the header do not depend on them.
    let start = encode_header(&layout, recipe, dtype, shape, 0, 0)?;
    out.write_all(&start)?;
    let (packed, index) = write_chunks(out, recipe, &layout, elements)?;
    out.write_all(&index)?;
    out.write_all(&TRAILER)?;
    let len = start.len() as u64 + packed + index.len() as u64 + TRAILER.len() as u64;
    out.patch(0, &encode_header(&layout, recipe, dtype, shape, len, packed)?)
}

/// The bytes that the chunks took, and the index chunk.
fn write_chunks(
    out: &mut dyn PatchWrite,
    recipe: Recipe,
    layout: &Layout,
    elements: &mut dyn Read,
) -> Result<(u64, Vec<u8>)> {
    let Some(axis) = layout.split else { return Ok((0, vec![])) };
    let mut codec = Compressor::new(recipe, layout.typesize, layout.block_bytes)?;
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
    Compressor::new(Recipe::BYTES, 8, 64 << 10)?.compress(&offsets, &mut chunk)?;
    Ok((packed, chunk))
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
