//! The stored bytes of a value, verified block by block as they are read.

use std::io;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;

use super::BLOCK;
#[cfg(feature = "ndarray")]
use super::blank::Blank;
use super::buffer::Buffer;
use super::encoder::checksum;
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
use super::mapping::Mapping;
use crate::disk::{StorageFile, read_exact_at};
use crate::error::{Error, Result};

/// Bytes that are read at offsets.
pub(crate) trait ReadAt: Sync {
    fn len(&self) -> u64;
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// The block of that index, as it was verified, if the source verifies and keeps such: readers share it then.
    #[cfg(feature = "blosc")]
    fn block(&self, index: u64) -> io::Result<Option<Arc<Buffer>>> {
        let _ = index;
        Ok(None)
    }

    /// Reads as `Read` does: what fits into `buf`, and nothing at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let n = buf.len().min(usize::try_from(self.len().saturating_sub(offset)).unwrap_or(usize::MAX));
        self.read_exact_at(&mut buf[..n], offset)?;
        Ok(n)
    }
}

/// A thread has at least so much to do.
const SHARE: usize = 2 << 20;

/// Calls `fill(start, part)` for parts of `buf`, on as many threads as pay. `buf` begins `phase` bytes into a unit of
/// `unit` bytes, and is cut between units.
pub(crate) fn in_parallel<B: Split>(
    mut buf: B,
    unit: usize,
    phase: usize,
    fill: &(dyn Fn(usize, B) -> io::Result<()> + Sync),
) -> io::Result<()> {
    let (len, threads) = (buf.len(), threads(buf.len()));
    let share = len.div_ceil(threads).next_multiple_of(unit);
    if threads == 1 || share - phase >= len {
        return fill(0, buf);
    }
    thread::scope(|scope| {
        let own = buf.take_front(share - phase);
        let mut others = Vec::new();
        for start in (share - phase..len).step_by(share) {
            let part = buf.take_front(share.min(len - start));
            others.push(scope.spawn(move || fill(start, part)));
        }
        let done = fill(0, own);
        // A panic goes on in this thread, as if there were no others.
        let join = |other: thread::ScopedJoinHandle<'_, io::Result<()>>| {
            other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        others.into_iter().map(join).fold(done, io::Result::and)
    })
}

/// What can be cut into parts that threads of their own work on.
pub(crate) trait Split: Send + Sized {
    fn len(&self) -> usize;
    fn take_front(&mut self, len: usize) -> Self;
}

impl Split for &mut [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn take_front(&mut self, len: usize) -> Self {
        let (front, back) = std::mem::take(self).split_at_mut(len);
        *self = back;
        front
    }
}

#[cfg(feature = "ndarray")]
impl Split for Blank<'_> {
    fn len(&self) -> usize {
        Blank::len(self)
    }

    fn take_front(&mut self, len: usize) -> Self {
        self.take(len)
    }
}

/// On how many threads so many bytes are read.
pub(crate) fn threads(len: usize) -> usize {
    /// Asking the system takes longer than a thread.
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    (len / SHARE).clamp(1, *CORES)
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = usize::try_from(offset).ok().and_then(|start| self.get(start..start.checked_add(buf.len())?));
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// The stored bytes of one value, verified block by block as they are read.
pub(crate) struct Payload {
    pub(super) body: Body,
    len: u64,
    checksums: Vec<u8>,
    /// The block that was read last, for readers that take small steps.
    last: Mutex<Option<(u64, Arc<Buffer>)>>,
}

pub(super) enum Body {
    Inline(Vec<u8>),
    /// A file that never was in a chest, so that nothing is known of its bytes.
    #[cfg(feature = "ndarray")]
    Foreign(Arc<dyn StorageFile>),
    /// A file with a label of so many bytes at this offset; the payload is all the rest.
    File {
        file: Arc<dyn StorageFile>,
        label_at: u64,
        label_len: u64,
    },
}

impl Payload {
    pub(crate) fn inline(bytes: Vec<u8>, checksums: Vec<u8>) -> Result<Self> {
        let len = bytes.len() as u64;
        if checksums != checksum(&bytes) {
            return Err(Error::damaged("the stored bytes do not match their checksum"));
        }
        Ok(Self { body: Body::Inline(bytes), len, checksums, last: Mutex::default() })
    }

    /// Bytes of which nothing is known.
    pub(super) fn unverified(body: Body, len: u64) -> Self {
        Self { body, len, checksums: Vec::new(), last: Mutex::default() }
    }

    pub(crate) fn file(
        file: Arc<dyn StorageFile>,
        len: u64,
        label_at: u64,
        label_len: u64,
        checksums: Vec<u8>,
    ) -> Result<Self> {
        let blocks = len.div_ceil(BLOCK as u64).max(1);
        if checksums.len() as u64 != blocks * 16 || label_at > len {
            return Err(Error::damaged("the catalog's row for this value makes no sense"));
        }
        Ok(Self { body: Body::File { file, label_at, label_len }, len, checksums, last: Mutex::default() })
    }

    /// Reads the payload's bytes at `offset`, stepping over the label.
    fn read_raw(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.body {
            Body::Inline(bytes) => {
                let start = offset as usize;
                buf.copy_from_slice(&bytes[start..start + buf.len()]);
                Ok(())
            }
            #[cfg(feature = "ndarray")]
            Body::Foreign(file) => read_exact_at(&**file, buf, offset),
            Body::File { file, label_at, label_len } => {
                let before = label_at.saturating_sub(offset).min(buf.len() as u64) as usize;
                let (front, back) = buf.split_at_mut(before);
                if !front.is_empty() {
                    read_exact_at(&**file, front, offset)?;
                }
                if !back.is_empty() {
                    read_exact_at(&**file, back, offset + before as u64 + label_len)?;
                }
                Ok(())
            }
        }
    }

    /// Fills `buf`, which is some whole blocks, and verifies them; many of them with several threads.
    fn read_blocks(&self, first: u64, buf: &mut [u8]) -> io::Result<()> {
        in_parallel(buf, BLOCK, 0, &|start, part: &mut [u8]| {
            let first = first + (start / BLOCK) as u64;
            (first..).zip(part.chunks_mut(BLOCK)).try_for_each(|(index, block)| self.read_block(index, block))
        })
    }

    /// Fills `buf`, which is exactly one block, and verifies it.
    fn read_block(&self, index: u64, buf: &mut [u8]) -> io::Result<()> {
        let offset = index * BLOCK as u64;
        self.read_raw(buf, offset)?;
        let expected = &self.checksums[index as usize * 16..][..16];
        if checksum(buf) != *expected {
            let end = offset + buf.len() as u64;
            let error = Error::damaged(format!("bytes {offset} to {end} do not match their checksum"));
            return Err(error.into());
        }
        Ok(())
    }
}

impl Payload {
    /// Reads and verifies everything; tells how many bytes it has read as it goes on.
    pub(crate) fn verify(&self, mut on_bytes: impl FnMut(u64)) -> io::Result<()> {
        // Inline bytes were verified at the start.
        if !matches!(self.body, Body::File { .. }) {
            return Ok(());
        }
        let mut buf = vec![0; self.len.min(BLOCK as u64) as usize];
        for index in 0..self.len.div_ceil(BLOCK as u64) {
            let len = (self.len - index * BLOCK as u64).min(BLOCK as u64);
            self.read_block(index, &mut buf[..len as usize])?;
            on_bytes(len);
        }
        Ok(())
    }
}

#[cfg(feature = "ndarray")]
impl Payload {
    /// Reads into memory that was not written before, as [`ReadAt::read_exact_at`] reads. Each block is verified in a
    /// small buffer, and copied from there while it is in the processor's cache.
    pub(crate) fn read_blank(&self, blank: Blank<'_>, offset: u64) -> io::Result<()> {
        if offset.checked_add(blank.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the value ends too early"));
        }
        let phase = (offset % BLOCK as u64) as usize;
        in_parallel(blank, BLOCK, phase, &|start, mut part: Blank<'_>| {
            let (mut buffer, mut at) = (Buffer::new(), offset + start as u64);
            while part.len() > 0 {
                let index = at / BLOCK as u64;
                let block_start = index * BLOCK as u64;
                let block = buffer.get((self.len - block_start).min(BLOCK as u64) as usize)?;
                self.read_exact_at(block, block_start)?;
                let rest = &block[(at - block_start) as usize..];
                let taken = &rest[..rest.len().min(part.len())];
                part.put(taken);
                at += taken.len() as u64;
            }
            Ok(())
        })
    }
}

#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
impl Payload {
    /// Maps the file, the label with it, if it is one of the system; only if the payload is in one piece, where that
    /// matters.
    pub(super) fn map(&self, in_one_piece: bool, is_verified: bool) -> io::Result<Option<Mapping>> {
        let Body::File { file, label_at, label_len } = &self.body else { return Ok(None) };
        let is_wanted = self.len > 0 && (*label_at == self.len || !in_one_piece);
        let Some(file) = file.as_file().filter(|_| is_wanted) else { return Ok(None) };
        let Some(map) = Mapping::new(file, (self.len + label_len) as usize) else { return Ok(None) };
        if !is_verified {
            self.verify_mapped(&map)?;
        }
        Ok(Some(map))
    }

    /// Verifies all blocks. One thread: two that fault pages of one mapping in take longer.
    fn verify_mapped(&self, map: &[u8]) -> io::Result<()> {
        (0..self.len as usize).step_by(BLOCK).try_for_each(|start| self.verify_block(map, start))
    }

    /// Verifies the block that begins at this offset of the payload.
    fn verify_block(&self, map: &[u8], start: usize) -> io::Result<()> {
        let Body::File { label_at, label_len, .. } = self.body else { return Ok(()) };
        let (label_at, label_len) = (label_at as usize, label_len as usize);
        let end = (start + BLOCK).min(self.len as usize);
        let found = if end <= label_at {
            checksum(&map[start..end])
        } else if start >= label_at {
            checksum(&map[start + label_len..end + label_len])
        } else {
            checksum(&[&map[start..label_at], &map[label_at + label_len..end + label_len]].concat())
        };
        match found == self.checksums[start / BLOCK * 16..][..16] {
            true => Ok(()),
            false => Err(Error::damaged("the mapped bytes do not match their checksum").into()),
        }
    }
}

impl Payload {
    /// A block of so many bytes, read unless it is the one that was read last.
    fn kept_block(&self, index: u64, len: usize) -> io::Result<Arc<Buffer>> {
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, block)) = last().as_ref().filter(|(kept, _)| *kept == index) {
            return Ok(block.clone());
        }
        let mut block = Buffer::new();
        self.read_block(index, block.get(len)?)?;
        let block = Arc::new(block);
        *last() = Some((index, block.clone()));
        Ok(block)
    }
}

impl ReadAt for Payload {
    fn len(&self) -> u64 {
        self.len
    }

    #[cfg(feature = "blosc")]
    fn block(&self, index: u64) -> io::Result<Option<Arc<Buffer>>> {
        let len = self.len.saturating_sub(index * BLOCK as u64).min(BLOCK as u64) as usize;
        let is_verified = matches!(self.body, Body::File { .. }) && len > 0;
        is_verified.then(|| self.kept_block(index, len)).transpose()
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the value ends too early"));
        }
        // Inline bytes were verified as a whole at the start.
        if !matches!(self.body, Body::File { .. }) {
            return self.read_raw(buf, offset);
        }
        while !buf.is_empty() {
            let index = offset / BLOCK as u64;
            let whole = buf.len() - buf.len() % BLOCK;
            if offset.is_multiple_of(BLOCK as u64) && whole > 0 {
                let (now, rest) = buf.split_at_mut(whole);
                self.read_blocks(index, now)?;
                offset += whole as u64;
                buf = rest;
                continue;
            }
            let start = index * BLOCK as u64;
            let block_len = (self.len - start).min(BLOCK as u64) as usize;
            let skip = (offset - start) as usize;
            let take = (block_len - skip).min(buf.len());
            let (now, rest) = buf.split_at_mut(take);
            if take == block_len {
                self.read_block(index, now)?;
            } else {
                now.copy_from_slice(&self.kept_block(index, block_len)?[skip..skip + take]);
            }
            offset += take as u64;
            buf = rest;
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "polars"))]
mod tests {
    use std::io::Write;

    use super::*;

    const LABEL: &[u8] = b"the label";

    /// A payload of several blocks, stored with a label within the third.
    fn stored() -> (Vec<u8>, Vec<u8>, usize) {
        let payload: Vec<u8> = (0..5 * BLOCK + 1000).map(|i| ((i * i) >> 7) as u8).collect();
        let label_at = 2 * BLOCK + 77;
        let file = [&payload[..label_at], LABEL, &payload[label_at..]].concat();
        (payload, file, label_at)
    }

    fn map(payload: &[u8], file: &[u8], label_at: usize) -> Result<Option<Mapping>> {
        let io = |error| Error::io("cannot be tried", error);
        let mut stored = tempfile::tempfile().map_err(io)?;
        stored.write_all(file).map_err(io)?;
        let checksums = payload.chunks(BLOCK).flat_map(checksum).collect();
        let (len, label_len) = (payload.len() as u64, LABEL.len() as u64);
        Payload::file(Arc::new(stored), len, label_at as u64, label_len, checksums)?.map(false, false).map_err(io)
    }

    #[test]
    fn every_block_of_a_mapped_file_is_verified() {
        let (payload, mut file, label_at) = stored();
        assert_eq!(map(&payload, &file, label_at).unwrap().unwrap()[..], file);
        let blocks =
            (0..payload.len()).step_by(BLOCK).flat_map(|start| [start, (start + BLOCK).min(payload.len()) - 1]);
        for place in blocks.chain([label_at - 1, label_at]) {
            let place = if place < label_at { place } else { place + LABEL.len() };
            file[place] ^= 1;
            assert!(map(&payload, &file, label_at).is_err(), "a change at {place} is not noticed");
            file[place] ^= 1;
        }
    }
}
