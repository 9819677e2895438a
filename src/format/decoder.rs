//! The stream that a value is read from: no byte leaves it before its block passed the check.

use std::collections::HashSet;
#[cfg(feature = "ndarray")]
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
#[cfg(any(feature = "arrow", feature = "polars"))]
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;

#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
use memmap2::{Mmap, MmapOptions};

use super::BLOCK;
#[cfg(feature = "ndarray")]
use super::blank::{Blank, Buffer};
use super::encoder::checksum;
use crate::disk::{StorageFile, read_exact_at};
use crate::error::{Error, Result};

/// Bytes that are read at offsets.
pub(crate) trait ReadAt: Sync {
    fn len(&self) -> u64;
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

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
    body: Body,
    len: u64,
    checksums: Vec<u8>,
    /// The block that was read last, for readers that take small steps.
    last: Mutex<Option<(u64, Vec<u8>)>>,
}

enum Body {
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
    fn map(&self, in_one_piece: bool, is_verified: bool) -> io::Result<Option<Mmap>> {
        let Body::File { file, label_at, label_len } = &self.body else { return Ok(None) };
        let is_wanted = self.len > 0 && (*label_at == self.len || !in_one_piece);
        let Some(file) = file.as_file().filter(|_| is_wanted) else { return Ok(None) };
        // SAFETY: the bytes must not change while they are mapped. Files of values are written under another name, get
        // theirs when they are whole, and are never written to again, by any process that uses the chest; removing one
        // leaves the mapping as it is. Whoever else writes to them in place breaks the promise that `Chest::view` names.
        let map = unsafe { MmapOptions::new().len((self.len + label_len) as usize).map(file)? };
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

impl ReadAt for Payload {
    fn len(&self) -> u64 {
        self.len
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
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                let (_, block) = match last.take() {
                    Some((cached, block)) if cached == index => last.insert((cached, block)),
                    _ => {
                        let mut block = vec![0; block_len];
                        self.read_block(index, &mut block)?;
                        last.insert((index, block))
                    }
                };
                now.copy_from_slice(&block[skip..skip + take]);
            }
            offset += take as u64;
            buf = rest;
        }
        Ok(())
    }
}

/// Where [`Value::decode`](crate::Value::decode) reads from: a `Read` and `Seek` over the value's file.
///
/// Every byte was verified against its checksum before it is handed out; a mismatch ends the reading with an error of
/// kind [`Damaged`](crate::ErrorKind::Damaged). An example is at [`Value`](crate::Value).
pub struct Decoder {
    payload: Arc<Payload>,
    position: u64,
    format: String,
    stored_name: String,
    about: Option<serde_json::Value>,
    #[cfg_attr(not(any(feature = "arrow", feature = "polars")), expect(dead_code, reason = "frames alone ask"))]
    size: u64,
    /// Rows that were appended.
    #[cfg_attr(
        not(any(feature = "arrow", feature = "ndarray", feature = "polars")),
        expect(dead_code, reason = "plain values have none")
    )]
    parts: Vec<Decoder>,
    /// Where it is noted that all of this version was verified.
    #[cfg_attr(not(any(feature = "arrow", feature = "polars")), expect(dead_code, reason = "frames alone ask"))]
    verified: Option<(Verified, i64)>,
}

/// Versions that can be mapped and that this process wrote, or verified as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verified(
    #[cfg_attr(
        not(any(feature = "arrow", feature = "ndarray", feature = "polars")),
        expect(dead_code, reason = "plain values are not mapped")
    )]
    Arc<Mutex<HashSet<i64>>>,
);

#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
impl Verified {
    pub(crate) fn contains(&self, version: i64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&version)
    }

    pub(crate) fn insert(&self, version: i64) {
        /// More are forgotten, which costs another look at each.
        const MANY: usize = 100_000;
        let mut verified = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() == MANY {
            verified.clear();
        }
        verified.insert(version);
    }
}

impl Decoder {
    pub(crate) fn new(
        payload: Payload,
        format: String,
        stored_name: String,
        about: Option<serde_json::Value>,
        size: u64,
    ) -> Self {
        let (parts, verified) = (Vec::new(), None);
        Self { payload: Arc::new(payload), position: 0, format, stored_name, about, size, parts, verified }
    }

    /// With the place where it is noted that all of this version was verified.
    pub(crate) fn with_verified(self, verified: Verified, version: i64) -> Self {
        Self { verified: Some((verified, version)), ..self }
    }

    /// Whether this process wrote this version, or verified all of it.
    #[cfg(any(feature = "arrow", feature = "polars"))]
    pub(crate) fn is_verified(&self) -> bool {
        self.verified.as_ref().is_some_and(|(verified, version)| verified.contains(*version))
    }

    #[cfg(any(feature = "arrow", feature = "polars"))]
    pub(crate) fn note_verified(&self) {
        if let Some((verified, version)) = &self.verified {
            verified.insert(*version);
        }
    }

    /// Where in its file the label is.
    #[cfg(any(feature = "arrow", feature = "polars"))]
    pub(crate) fn label(&self) -> Option<Range<usize>> {
        match self.payload.body {
            Body::File { label_at, label_len, .. } => Some(label_at as usize..(label_at + label_len) as usize),
            _ => None,
        }
    }

    /// With the files of rows that were appended.
    pub(crate) fn with_parts(self, parts: Vec<Self>) -> Self {
        Self { parts, ..self }
    }

    /// A decoder of bytes in memory, to test a format of one's own with: a format reads what anybody may have written.
    /// `facts` is an object with what [`Encoder::describe`](crate::Encoder::describe) gave, or null.
    ///
    /// ```
    /// use icechest::{Decoder, ErrorKind, Value};
    /// use serde_json::{Value as Json, json};
    ///
    /// let mut input = Decoder::from_bytes(b"[1, 2]".to_vec(), "json", Json::Null);
    /// assert_eq!(Json::decode(&mut input)?, json!([1, 2]));
    ///
    /// let mut cut = Decoder::from_bytes(b"[1, ".to_vec(), "json", Json::Null);
    /// assert_eq!(Json::decode(&mut cut).unwrap_err().kind(), ErrorKind::Damaged);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn from_bytes(bytes: Vec<u8>, format: &str, facts: serde_json::Value) -> Self {
        let len = bytes.len() as u64;
        let payload = Payload { body: Body::Inline(bytes), len, checksums: Vec::new(), last: Mutex::default() };
        Self::new(payload, format.to_owned(), String::new(), Some(facts), 0)
    }

    /// A file that somebody else wrote, without checksums.
    #[cfg(feature = "ndarray")]
    pub(crate) fn of_foreign_file(file: File, format: &str) -> Result<Self> {
        let len = file.metadata().map_err(|error| Error::io("cannot read the file", error))?.len();
        let payload =
            Payload { body: Body::Foreign(Arc::new(file)), len, checksums: Vec::new(), last: Mutex::default() };
        Ok(Self::new(payload, format.to_owned(), String::new(), None, len))
    }

    /// The name of the format that [`encode`](crate::Value::encode) chose.
    pub fn format(&self) -> &str {
        &self.format
    }

    /// The name that the value was stored under.
    pub fn stored_name(&self) -> &str {
        &self.stored_name
    }

    /// A fact that [`encode`](crate::Value::encode) described the value with.
    pub fn fact(&self, name: &str) -> Option<&serde_json::Value> {
        self.about.as_ref()?.get(name)
    }

    /// The length of the stored value in bytes.
    pub fn stored_len(&self) -> u64 {
        self.payload.len()
    }

    /// All files: this one, and those of rows that were appended.
    #[cfg(feature = "lazy")]
    pub(crate) fn files(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.parts)
    }

    /// The files of rows that were appended: a value with such rows is read by those who know that.
    #[cfg(feature = "ndarray")]
    pub(crate) fn parts(&self) -> &[Self] {
        &self.parts
    }

    #[cfg(feature = "ndarray")]
    pub(crate) fn parts_mut(&mut self) -> &mut [Self] {
        &mut self.parts
    }

    #[cfg(any(feature = "arrow", feature = "polars"))]
    pub(crate) fn take_parts(&mut self) -> Vec<Self> {
        std::mem::take(&mut self.parts)
    }

    #[cfg(any(feature = "arrow", feature = "polars"))]
    pub(crate) fn put_parts(&mut self, parts: Vec<Self>) {
        self.parts = parts;
    }

    /// What the value took in memory, as the catalog tells.
    #[cfg(any(feature = "arrow", feature = "polars"))]
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Reads everything from the position to the end.
    ///
    /// # Errors
    /// [`Damaged`](crate::ErrorKind::Damaged) when a checksum does not match, and those of reading.
    pub fn read_to_vec(&mut self) -> Result<Vec<u8>> {
        let rest = self.payload.len() - self.position;
        // The length was compared with that of the file, so it is real.
        let mut bytes = vec![0; rest as usize];
        self.read_exact(&mut bytes).map_err(|error| Error::io("cannot read the value", error))?;
        Ok(bytes)
    }

    /// The bytes from the position to the end, where they are in memory.
    pub(crate) fn in_memory(&self) -> Option<&[u8]> {
        let Body::Inline(bytes) = &self.payload.body else { return None };
        bytes.get(self.position as usize..)
    }

    /// The file where it is: the payload and the label behind it. Verified, unless it is already. None if there is no such
    /// file.
    #[cfg(feature = "ndarray")]
    pub(crate) fn map(&self, is_verified: bool) -> io::Result<Option<Mmap>> {
        self.payload.map(true, is_verified)
    }

    /// As [`map`](Self::map), with the label anywhere.
    #[cfg(any(feature = "arrow", feature = "polars"))]
    pub(crate) fn map_labelled(&self, is_verified: bool) -> io::Result<Option<Mmap>> {
        self.payload.map(false, is_verified)
    }

    #[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
    pub(crate) fn payload(&self) -> &Arc<Payload> {
        &self.payload
    }
}

impl Read for Decoder {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.payload.read_at(buf, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for Decoder {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.payload.len().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        match target.filter(|&target| target <= self.payload.len()) {
            Some(target) => {
                self.position = target;
                Ok(target)
            }
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "seeking outside the value")),
        }
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

    fn map(payload: &[u8], file: &[u8], label_at: usize) -> Result<Option<Mmap>> {
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
