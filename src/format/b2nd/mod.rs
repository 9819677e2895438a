//! Arrays as Blosc2 frames with a `b2nd` metalayer, which Python opens with `blosc2.open(path)[:]`.
//!
//! A frame is a header, chunks, an index of chunks and a trailer. Each chunk covers a box of the array (`chunkshape`)
//! and holds it as a grid of smaller boxes (`blockshape`); both are padded at the array's far edges.
//!
//! Frames that [`write`] makes have chunks and blocks that are runs of C order, so that both ways stream: about 4 MiB
//! a chunk and 64 KiB a block, or a row of up to 512 KiB. [`read_header`] takes any frame of the library's, from whatever
//! version, as far as the codecs reach. It trusts no number in it: see [`Layout::new`].

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io::{Error, Result};

pub(crate) use self::read::{Header, read_header};
pub(crate) use self::write::{Stream, write};
use super::blosc::{self, invalid, unsupported};

/// Target sizes of a chunk and of a block, in bytes.
const CHUNK: usize = 4 << 20;
/// Blocks that are unpacked and put in order stay in the processor's nearest caches.
const BLOCK: usize = 64 << 10;
/// Longer rows are cut.
const LONGEST_ROW: usize = 512 << 10;
/// Memory that [`write`] takes, at most, beside some 32 bytes a chunk for the index: a chunk as it is and packed, and the
/// library's four blocks, or two of ours.
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

/// How an array is cut up. An array without dimensions counts as one of shape `[1]`.
#[derive(Clone)]
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

    /// The layout of frames that we write: chunks and blocks split one axis, the outermost whose rows are not too
    /// long.
    fn plan(typesize: usize, shape: &[usize]) -> Result<Layout> {
        let empty = product(typesize, shape)? == 0;
        let (mut chunk, mut block) = (shape.to_vec(), shape.to_vec());
        if let Some(mut axis) = shape.len().checked_sub(1).filter(|_| !empty) {
            let mut row = typesize;
            while axis > 0 && row * shape[axis] <= LONGEST_ROW {
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

    /// The chunk that holds the byte at `offset` in C order, when chunks are runs split along `axis`.
    fn chunk_at(&self, axis: usize, offset: usize) -> usize {
        let (rows, chunk) = (self.shape[axis], self.chunk[axis]);
        let row: usize = self.shape[axis + 1..].iter().product::<usize>() * self.typesize;
        let first = offset / row;
        first / rows * rows.div_ceil(chunk) + first % rows / chunk
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

/// Cuts `n` rows of `row` bytes, at most [`LONGEST_ROW`], into chunks and blocks: rows in each. Chunks are of like size
/// and whole blocks, so that only the last is padded, and by little.
fn split(n: usize, row: usize) -> (usize, usize) {
    let chunks = n.div_ceil(CHUNK / row);
    let rows = n.div_ceil(chunks);
    let wanted = ((rows * row + BLOCK / 2) / BLOCK).clamp(1, rows);
    // A long row is a block.
    let fewest = if row > BLOCK { wanted } else { wanted - wanted / 4 };
    let candidates = fewest..=(3 * wanted).min(rows);
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
