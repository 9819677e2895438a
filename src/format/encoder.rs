//! The stream that a value is written to.

use std::io::{self, Write};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use twox_hash::XxHash3_128;

use super::buffer::Pool;
use super::{BLOCK, Compression, FrameFormat};
use crate::disk::{Storage, StorageFile, process, retry, write_all_at};

/// What is gathered before it is written: a large page, in which the system may keep it.
const PIECE: usize = 2 * BLOCK;

/// Where [`Value::encode`](crate::Value::encode) writes to.
///
/// It takes memory for 4 MiB, whatever the size of the value: a small value stays in memory and goes into the catalog, a
/// larger one streams into a file. The beginning is written last, so a format may [`patch`](Self::patch) its header once it
/// knows what follows.
///
/// ```
/// # use icechest::{Decoder, Encoder, Format, Kind, Result, Value};
/// use std::io::Write;
/// # struct Grey(Vec<u8>);
/// # impl Value for Grey {
/// #     const KIND: Kind = Kind::Plain;
/// #     fn type_name() -> String { "Grey".into() }
/// #     fn size(&self) -> usize { self.0.len() }
/// #     fn decode(_: &mut Decoder) -> Result<Self> { Ok(Grey(Vec::new())) }
/// fn encode(&self, out: &mut Encoder) -> Result<Format> {
///     out.describe("pixels", self.0.len());
///     out.write_all(&self.0)?;
///     Ok(Format::new("grey", "grey"))
/// }
/// # }
/// ```
pub struct Encoder {
    storage: Arc<dyn Storage>,
    temporary: PathBuf,
    compression: Compression,
    /// Bytes a second, if somebody said.
    #[cfg_attr(not(feature = "blosc"), expect(dead_code, reason = "compressed arrays alone ask"))]
    disk_speed: Option<u64>,
    #[cfg_attr(not(any(feature = "arrow", feature = "polars")), expect(dead_code, reason = "frames alone ask"))]
    frame_format: FrameFormat,
    #[cfg(feature = "ndarray")]
    is_part: bool,
    file: Option<TemporaryFile>,
    head: Piece,
    block: Piece,
    written: u64,
    checksums: Vec<u8>,
    /// Why a block could not be written. Whoever wrote it may have heard nothing of that, through a buffer that was dropped.
    failure: Option<Failure>,
    about: Map<String, Json>,
}

/// An error of the system, or one that only its text tells.
enum Failure {
    Code(i32),
    Text(String),
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        error.raw_os_error().map_or_else(|| Self::Text(error.to_string()), Self::Code)
    }

    fn into_error(self) -> io::Error {
        match self {
            Self::Code(code) => io::Error::from_raw_os_error(code),
            Self::Text(text) => io::Error::other(text),
        }
    }
}

/// A file that is removed again unless it is kept.
pub(crate) struct TemporaryFile {
    pub(crate) file: Arc<dyn StorageFile>,
    path: PathBuf,
    storage: Arc<dyn Storage>,
    kept: bool,
    /// The process that made it: a forked child has it too, and must leave it alone.
    maker: u32,
}

impl TemporaryFile {
    pub(crate) fn create(storage: &Arc<dyn Storage>, path: &Path) -> io::Result<Self> {
        let file = retry(|| storage.create(path))?;
        Ok(Self { file, path: path.to_owned(), storage: storage.clone(), kept: false, maker: process() })
    }

    /// Moves the file to its place for good.
    pub(crate) fn keep_as(&mut self, path: &Path) -> io::Result<()> {
        retry(|| self.storage.rename(&self.path, path))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.kept && process() == self.maker {
            // What stays behind is removed by a later open.
            let _ = retry(|| self.storage.remove(&self.path));
        }
    }
}

/// A value that was written: small ones whole, others as a file.
pub(crate) struct Encoded {
    pub(crate) body: Body,
    pub(crate) len: u64,
    /// 16 bytes for each block.
    pub(crate) checksums: Vec<u8>,
    pub(crate) about: Map<String, Json>,
}

pub(crate) enum Body {
    Inline(Vec<u8>),
    File(TemporaryFile),
}

impl Encoder {
    /// A stream into the file `temporary`, which is only created when it is needed.
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        temporary: PathBuf,
        compression: Compression,
        disk_speed: Option<u64>,
        frame_format: FrameFormat,
    ) -> Self {
        Self {
            storage,
            temporary,
            compression,
            disk_speed,
            frame_format,
            #[cfg(feature = "ndarray")]
            is_part: false,
            file: None,
            head: Piece::default(),
            block: Piece::default(),
            written: 0,
            checksums: Vec::new(),
            failure: None,
            about: Map::new(),
        }
    }

    /// For rows that follow others: arrays lie in C order then, row after row.
    #[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
    pub(crate) fn of_part(self) -> Self {
        #[cfg(feature = "ndarray")]
        return Self { is_part: true, ..self };
        #[cfg(not(feature = "ndarray"))]
        self
    }

    #[cfg(feature = "ndarray")]
    pub(crate) fn is_part(&self) -> bool {
        self.is_part
    }

    /// Whether the user wants compression.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Bytes a second that the disk reads: what the user said, or what was measured, which happens for values that are
    /// larger than the measuring takes.
    #[cfg(feature = "blosc")]
    pub(super) fn disk_speed(&self, len: usize) -> f64 {
        /// That of a disk of which nothing is known.
        const USUAL: u64 = 500_000_000;
        let dir = self.temporary.parent().filter(|_| len >= BLOCK);
        let measure = || dir.and_then(|dir| self.storage.read_speed(dir));
        self.disk_speed.or_else(measure).unwrap_or(USUAL) as f64
    }

    /// Which files the user wants frames in.
    #[cfg(any(feature = "arrow", feature = "polars"))]
    pub(crate) fn frame_format(&self) -> FrameFormat {
        self.frame_format
    }

    /// Adds a fact about the value to the catalog, for listings: a shape, column names.
    pub fn describe(&mut self, name: &str, fact: impl Into<Json>) {
        self.about.insert(name.to_owned(), fact.into());
    }

    /// The bytes written so far.
    pub fn position(&self) -> u64 {
        self.written
    }

    /// Overwrites bytes that were written already, all of them within the first MiB.
    ///
    /// # Errors
    /// `InvalidInput` when the bytes lie elsewhere.
    pub fn patch(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let place =
            usize::try_from(offset).ok().and_then(|start| self.head.get_mut(start..start.checked_add(bytes.len())?));
        match place {
            Some(place) => place.copy_from_slice(bytes),
            None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "only the first MiB can be patched")),
        }
        Ok(())
    }

    /// Ends the stream. Up to `inline_limit` bytes, of less than a block, are given back as they are.
    pub(crate) fn finish(mut self, inline_limit: usize) -> io::Result<Encoded> {
        if let Some(failure) = self.failure.take() {
            return Err(failure.into_error());
        }
        let len = self.written;
        let head = std::mem::take(&mut self.head);
        if head.len() <= inline_limit && head.len() < BLOCK {
            let checksums = checksum(&head).to_vec();
            return Ok(Encoded { body: Body::Inline(head.into_bytes()), len, checksums, about: self.about });
        }
        let tail = std::mem::take(&mut self.block);
        if !tail.is_empty() {
            self.put(&tail)?;
        }
        let file = self.file()?;
        write_all_at(&*file.file, &head, 0)?;
        let mut checksums: Vec<u8> = head.chunks(BLOCK).flat_map(checksum).collect();
        checksums.append(&mut self.checksums);
        Ok(Encoded { body: Body::File(file), len, checksums, about: self.about })
    }

    /// Takes the file, created at the first need.
    fn file(&mut self) -> io::Result<TemporaryFile> {
        self.file.take().map_or_else(|| TemporaryFile::create(&self.storage, &self.temporary), Ok)
    }

    /// Writes blocks behind the ones before them, and behind the head, which is left out until the end.
    fn put(&mut self, blocks: &[u8]) -> io::Result<()> {
        let offset = PIECE + self.checksums.len() / 16 * BLOCK;
        blocks.chunks(BLOCK).for_each(|block| self.checksums.extend_from_slice(&checksum(block)));
        let result = self.file().and_then(|file| {
            let result = write_all_at(&*file.file, blocks, offset as u64);
            self.file = Some(file);
            result
        });
        result.inspect_err(|error| self.failure = Some(Failure::of(error)))
    }
}

/// Bytes that are gathered. Their memory goes to the next encoder that needs as much: fresh pages are dear.
#[derive(Default)]
struct Piece(Vec<u8>);

static PIECES: Pool<Vec<u8>> = Pool::new();

impl Piece {
    fn add(&mut self, bytes: &[u8]) {
        /// What is shorter need not be kept.
        const SHORT: usize = 64 << 10;
        if self.0.capacity() < PIECE
            && self.0.len() + bytes.len() > SHORT
            && let Some(mut kept) = PIECES.take()
        {
            kept.extend_from_slice(&self.0);
            self.0 = kept;
        }
        self.0.extend_from_slice(bytes);
    }

    fn into_bytes(mut self) -> Vec<u8> {
        if self.0.capacity() < PIECE { std::mem::take(&mut self.0) } else { self.0.to_vec() }
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if (PIECE..2 * PIECE).contains(&self.0.capacity()) {
            self.0.clear();
            PIECES.put(std::mem::take(&mut self.0));
        }
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = if self.head.len() < PIECE {
            let taken = bytes.len().min(PIECE - self.head.len());
            self.head.add(&bytes[..taken]);
            taken
        } else if self.block.is_empty() && bytes.len() >= PIECE {
            // What is large enough goes to the file without a copy.
            self.put(&bytes[..PIECE])?;
            PIECE
        } else {
            let taken = bytes.len().min(PIECE - self.block.len());
            self.block.add(&bytes[..taken]);
            if self.block.len() == PIECE {
                let block = std::mem::take(&mut self.block);
                self.put(&block)?;
                self.block = block;
                self.block.0.clear();
            }
            taken
        };
        self.written += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn checksum(block: &[u8]) -> [u8; 16] {
    XxHash3_128::oneshot(block).to_be_bytes()
}
