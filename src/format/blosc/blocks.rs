//! Chunks of blocks in LZ4 with bit shuffle, which is what arrays are packed in most often.

use std::io::Result;

use super::{HEADER, bits, invalid, library};
use crate::format::blank::Blank;

/// Fills `dst` from a chunk of blocks of `block` bytes, each of which is one stream: its length, then the stream. What a
/// damaged chunk gives is an error, or anything.
///
/// `room` is used again for the next chunk.
pub(super) fn unpack(chunk: &[u8], block: usize, width: usize, room: &mut Vec<u8>, mut dst: Blank<'_>) -> Result<()> {
    room.try_reserve_exact(block.saturating_sub(room.len()))?;
    room.resize(block.max(room.len()), 0);
    for index in 0..dst.len().div_ceil(block) {
        let start = number(chunk, HEADER + 4 * index)?;
        let len = number(chunk, start as usize)?;
        let stream = chunk.get(start as usize + 4..).unwrap_or_default();
        let dst = dst.take(block.min(dst.len()));
        let unpacked = match len {
            // Planes of zeros.
            0 => {
                dst.fill(0);
                continue;
            }
            ..0 => run(len, stream, &mut room[..dst.len()])?,
            _ => {
                let stream = stream.get(..len as usize).ok_or_else(damaged)?;
                // Of the length of the block: as it is.
                if stream.len() == dst.len() { stream } else { lz4(stream, &mut room[..dst.len()])? }
            }
        };
        bits::undo(width, unpacked, dst);
    }
    Ok(())
}

fn damaged() -> std::io::Error {
    invalid("a Blosc2 chunk is damaged")
}

/// A little-endian number at an offset.
fn number(chunk: &[u8], at: usize) -> Result<i32> {
    let bytes = chunk.get(at..).and_then(|bytes| bytes.first_chunk()).ok_or_else(damaged)?;
    Ok(i32::from_le_bytes(*bytes))
}

/// One byte over and over: a negative length, and a mark behind it.
fn run<'a>(len: i32, stream: &[u8], unpacked: &'a mut [u8]) -> Result<&'a [u8]> {
    let byte = u8::try_from(len.unsigned_abs()).ok().filter(|_| stream.first().is_some_and(|mark| mark & 1 == 1));
    unpacked.fill(byte.ok_or_else(damaged)?);
    Ok(unpacked)
}

fn lz4<'a>(stream: &[u8], unpacked: &'a mut [u8]) -> Result<&'a [u8]> {
    if library::unpack_lz4(stream, unpacked) == Some(unpacked.len()) { Ok(unpacked) } else { Err(damaged()) }
}
