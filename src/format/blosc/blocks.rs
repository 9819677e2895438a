//! Chunks of blocks in LZ4 with bit shuffle, which is what arrays are packed in most often.

use std::io::Result;

use super::{HEADER, bits, invalid, library};
use crate::format::blank::Blank;

/// How a chunk is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Bytes of a block; the last one may be shorter.
    pub(super) block: usize,
    /// Bytes of an element.
    pub(super) width: usize,
    /// Whether a block, unless it is shorter, is a stream for each byte of an element, instead of one.
    pub(super) is_split: bool,
}

impl Cut {
    /// Bytes of a stream of a block that has so many.
    fn stream(&self, len: usize) -> usize {
        if self.is_split && len == self.block { len / self.width } else { len }
    }
}

/// Fills `dst` from a chunk. It has the places of its blocks, then those: of each stream its length, then the stream. What a
/// damaged chunk gives is an error, or anything.
///
/// `room` is used again for the next chunk.
pub(super) fn unpack(chunk: &[u8], cut: Cut, room: &mut Vec<u8>, mut dst: Blank<'_>) -> Result<()> {
    let room = at_least(room, cut.block)?;
    for index in 0..dst.len().div_ceil(cut.block) {
        let mut at = usize::try_from(number(chunk, HEADER + 4 * index)?).map_err(|_| damaged())?;
        let mut dst = dst.take(cut.block.min(dst.len()));
        let shuffled = &mut room[..dst.len()];
        let stream = cut.stream(shuffled.len());
        if shuffled.len() == stream && number(chunk, at)? == 0 {
            dst.fill(0);
            continue;
        }
        for unpacked in shuffled.chunks_mut(stream) {
            at += 4 + unpack_stream(chunk, at, unpacked)?;
        }
        bits::undo(cut.width, shuffled, &mut dst);
    }
    Ok(())
}

/// Unpacks the stream of which the length is at `at`. Gives how many bytes of the chunk it has behind that.
fn unpack_stream(chunk: &[u8], at: usize, unpacked: &mut [u8]) -> Result<usize> {
    let len = number(chunk, at)?;
    let stream = &chunk[at + 4..];
    let Ok(packed) = usize::try_from(len) else {
        // One byte over and over: a negative length, and a mark behind it.
        let byte = u8::try_from(len.unsigned_abs()).ok().filter(|_| stream.first().is_some_and(|mark| mark & 1 == 1));
        unpacked.fill(byte.ok_or_else(damaged)?);
        return Ok(1);
    };
    if packed == 0 {
        unpacked.fill(0);
        return Ok(0);
    }
    let stream = stream.get(..packed).ok_or_else(damaged)?;
    if packed == unpacked.len() {
        unpacked.copy_from_slice(stream);
    } else if library::unpack_lz4(stream, unpacked) != Some(unpacked.len()) {
        return Err(damaged());
    }
    Ok(packed)
}

/// Appends the blocks of a chunk to its header; `None` if the chunk would not be shorter than `src` with a header.
/// `acceleration` is that of LZ4: the more, the faster and larger.
pub(super) fn pack(src: &[u8], cut: Cut, acceleration: i32, room: &mut Vec<u8>, chunk: &mut Vec<u8>) -> Option<()> {
    let longest = src.len() + HEADER;
    let places = chunk.len();
    let (shuffled, packed) = at_least(room, 2 * cut.block).ok()?.split_at_mut(cut.block);
    chunk.resize(places + 4 * src.len().div_ceil(cut.block), 0);
    for (index, block) in src.chunks(cut.block).enumerate() {
        let place = (chunk.len() as u32).to_le_bytes();
        chunk.get_mut(places + 4 * index..)?.first_chunk_mut().map(|to| *to = place)?;
        let shuffled = &mut shuffled[..block.len()];
        bits::make(cut.width, block, shuffled);
        for stream in shuffled.chunks(cut.stream(block.len())) {
            let (len, stream) = pack_stream(stream, acceleration, packed);
            if chunk.len() + 4 + stream.len() >= longest {
                return None;
            }
            chunk.extend(len.to_le_bytes());
            chunk.extend_from_slice(stream);
        }
    }
    Some(())
}

/// A stream, packed if that makes it shorter, and the length that is told of it.
fn pack_stream<'a>(stream: &'a [u8], acceleration: i32, packed: &'a mut [u8]) -> (i32, &'a [u8]) {
    match of_one_byte(stream) {
        Some(0) => (0, &[]),
        Some(byte) => (-i32::from(byte), &[1]),
        // One of its own length is taken to be as it is.
        None => match library::pack_lz4(stream, &mut packed[..stream.len() - 1], acceleration) {
            Some(len) => (len as i32, &packed[..len]),
            None => (stream.len() as i32, stream),
        },
    }
}

/// The byte that all bytes are.
fn of_one_byte(bytes: &[u8]) -> Option<u8> {
    let first = *bytes.first()?;
    let is_first = |bytes: &[u8]| bytes.iter().fold(0, |differ, byte| differ | (byte ^ first)) == 0;
    bytes.chunks(256).all(is_first).then_some(first)
}

fn damaged() -> std::io::Error {
    invalid("a Blosc2 chunk is damaged")
}

/// A little-endian number at an offset.
fn number(chunk: &[u8], at: usize) -> Result<i32> {
    let bytes = chunk.get(at..).and_then(|bytes| bytes.first_chunk()).ok_or_else(damaged)?;
    Ok(i32::from_le_bytes(*bytes))
}

fn at_least(room: &mut Vec<u8>, len: usize) -> Result<&mut [u8]> {
    room.try_reserve_exact(len.saturating_sub(room.len()))?;
    room.resize(len.max(room.len()), 0);
    Ok(room)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::super::{Compressor, Decompressor, Recipe, parse};
    use super::*;

    /// Numbers that differ by little, with bytes that are always zero, and always the same.
    fn numbers(width: usize, len: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(5);
        let mut at = 10_000_u64;
        let mut next = || {
            at = at + random.u64(..9) - 4;
            let number = u128::from(at * 3) << 8 | 0x1f << 50 | 0x2a << 90;
            number.to_le_bytes()[..width].to_vec()
        };
        (0..len).flat_map(|_| next()).collect()
    }

    #[test]
    fn the_library_reads_what_is_packed_here_and_the_other_way_round() {
        super::library::init();
        for width in bits::WIDTHS.map(usize::from) {
            for (len, block) in [(1 << 14, 1 << 13), (5000, 1 << 12), (1000, 1 << 12), (77, 256), (1 << 13, 3 << 9)] {
                let (src, block) = (numbers(width, len), block * width);
                let block = block.min(src.len());
                let mut chunks = [Vec::new(), Vec::new()];
                Compressor::new(Recipe::BITS, width, block).unwrap().compress(&src, &mut chunks[0]).unwrap();
                let mut library = library::Context::compression(Recipe::BITS, width as i32, block as i32).unwrap();
                chunks[1].reserve(src.len() + HEADER);
                library.compress(&src, src.len() as i32, &mut chunks[1]).unwrap();
                for chunk in chunks {
                    assert!(parse(&chunk, src.len()).is_ok());
                    let (mut here, mut there) = (vec![0; src.len()], vec![0; src.len()]);
                    Decompressor::new().unwrap().decompress(&chunk, Blank::over(&mut here)).unwrap();
                    let mut library = library::Context::decompression().unwrap();
                    library.decompress(&chunk, Blank::over(&mut there)).unwrap();
                    assert!(here == src && there == src, "{width} {len} {block}");
                }
            }
        }
    }
}
