//! Values to bytes and back: the streams that formats write to and read from, and the formats themselves.

#[cfg(feature = "blosc")]
mod b2nd;
pub(crate) mod bincode;
#[cfg(feature = "ndarray")]
pub(crate) mod blank;
#[cfg(feature = "blosc")]
mod blosc;
mod buffer;
#[cfg(feature = "blosc")]
mod choice;
mod decoder;
mod encoder;
#[cfg(any(feature = "arrow", feature = "polars"))]
pub(crate) mod ipc;
#[cfg(all(feature = "ndarray", target_os = "linux"))]
mod large_pages;
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
mod mapping;
#[cfg(feature = "ndarray")]
pub(crate) mod npy;
#[cfg(any(feature = "arrow", feature = "polars"))]
pub(crate) mod parquet;
mod payload;
#[cfg(feature = "ndarray")]
pub(crate) mod slice;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

pub use self::decoder::Decoder;
pub(crate) use self::decoder::Verified;
pub use self::encoder::Encoder;
pub(crate) use self::encoder::{Body, TemporaryFile, checksum};
#[cfg(feature = "ndarray")]
pub(crate) use self::mapping::Mapping;
#[cfg(feature = "blosc")]
pub(crate) use self::payload::in_parallel;
pub(crate) use self::payload::{Payload, ReadAt, threads};
use crate::error::{Error, Result};
use crate::value::Kind;
#[cfg(any(feature = "arrow", feature = "polars"))]
use crate::value::Selection;

/// Bytes that share one checksum; reading a part of a file verifies only the blocks that it touches.
pub(crate) const BLOCK: usize = 1 << 20;

/// What reading or writing a Blosc2 frame takes besides the array.
#[cfg(feature = "blosc")]
pub(crate) const BLOSC_BUFFERS: u64 = b2nd::WRITE_SCRATCH as u64;

/// Frames are cut into row groups of about so many bytes in memory: writers hold one of them.
#[cfg(any(feature = "arrow", feature = "polars"))]
pub(crate) const ROW_GROUP_BYTES: usize = 16 << 20;

/// Reads a frame; the libraries panic at types that they lack and at some bytes that are no sound file.
#[cfg(any(feature = "arrow", feature = "polars"))]
pub(crate) fn read_frame<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(Error::unsupported("the library that reads frames panics at this one")))
}

/// Refuses a frame that was written in a form that its own reader takes for an attack.
pub(crate) fn check_written(
    kind: Kind,
    stored_name: &str,
    format: &str,
    written: &dyn ReadAt,
    size: u64,
) -> Result<()> {
    #[cfg(any(feature = "arrow", feature = "polars"))]
    if kind == Kind::Frame && stored_name == FRAME && format == "parquet" {
        return parquet::check(written, size, &Selection::default()).map(|_| ()).map_err(|error| {
            Error::unsupported("the frame could not be read back; store it in parts").with_source(error)
        });
    }
    let _ = (kind, stored_name, format, written, size);
    Ok(())
}

/// The stored name of every frame: any can be read as any type of frame.
#[cfg(any(feature = "arrow", feature = "polars"))]
pub(crate) const FRAME: &str = "Frame";

/// The name of a file format, and the ending that its files get.
///
/// ```
/// let format = icechest::Format::new("pgm", "pgm");
/// assert_eq!(format.name(), "pgm");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    name: Cow<'static, str>,
    extension: Cow<'static, str>,
}

impl Format {
    /// A format: its name, kept in the catalog, and the ending of its files, without the dot.
    pub fn new(name: impl Into<Cow<'static, str>>, extension: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), extension: extension.into() }
    }

    /// The name in the catalog.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ending of the files: at most 16 letters, digits and dots of it, so that no format names a folder.
    pub(crate) fn extension(&self) -> String {
        self.extension.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').take(16).collect()
    }
}

/// When values are compressed on their way to disk.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// By what pays. Of an array a sample is compressed in several ways; its size, the speed of unpacking it and that of
    /// the disk decide between them and leaving the array as it is, which can be mapped. Plain values with LZ4 where a
    /// sample shows that it pays; frames with zstd.
    #[default]
    Auto,
    /// For speed: arrays that compress at all with the method that unpacks fastest, whatever the disk; plain values as
    /// with `Auto`; frames with LZ4.
    Fast,
    /// Arrays and plain values never; frames with LZ4.
    Never,
    /// Always, with the method that takes the least room (zstd where there is one).
    Small,
}

/// The files that frames are stored in.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrameFormat {
    /// Parquet, compressed: small, and parts of it can be read alone.
    #[default]
    Parquet,
    /// Arrow IPC, as in memory: several times larger, and mapped instead of read. The file is verified when this process
    /// maps a version for the first time, unless this process wrote it; as with every mapped file, a program that
    /// shortens it in place (this crate never does) ends the process that reads beyond the new end.
    ///
    /// What Arrow IPC cannot carry (integers of 128 bits; batches with dictionaries of their own) goes into Parquet, as
    /// do frames that are written in pieces.
    Arrow,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Fast => "fast",
            Self::Never => "never",
            Self::Small => "small",
        })
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "fast" => Ok(Self::Fast),
            "never" => Ok(Self::Never),
            "small" => Ok(Self::Small),
            _ => Err(Error::invalid(format!("{text:?} is no compression; use auto, fast, never or small"))),
        }
    }
}
