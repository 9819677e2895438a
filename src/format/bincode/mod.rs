//! Plain values: the bytes of bincode 1 (little endian, integers of fixed width), compressed where it pays.
//!
//! The `bincode` crate has ended; this is the only file that knows it, and it only writes. Its format is documented and
//! simple; `read` reads it.

mod read;

use std::any::{Any, TypeId};
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::sync::{LazyLock, PoisonError, RwLock};

use bincode::config::{self, Configuration, Fixint, LittleEndian};
use bincode::error::EncodeError;
use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Compression, Decoder, Encoder, Format};
use crate::error::{Error, Result};

const CONFIG: Configuration<LittleEndian, Fixint> = config::legacy();

const RAW: &str = "bincode";
const LZ4: &str = "bincode+lz4";
const ZSTD: &str = "bincode+zstd";

/// So much of a value is compressed to see whether it pays.
const SAMPLE: usize = 64 << 10;

/// Shorter values are not compressed: what they save is less than a frame and its buffers cost.
const SHORTEST: usize = 1 << 10;

/// The length of a length.
const LEN: usize = 8;

/// The fact that tells how long a compressed value is when it is not.
const ENCODED: &str = "encoded";

/// Types of which a long value has come back.
static TRIED: LazyLock<RwLock<HashSet<TypeId>>> = LazyLock::new(RwLock::default);

/// Values of so many bytes at most are tried: another one may have what the first did not, in an option or a list.
const SHORT_TRIAL: usize = 4 << 10;

/// Of longer ones, the first of each type that has no more than so many.
const TRIAL: usize = 1 << 20;

/// Refuses what would not come back: a value that cannot be encoded, and one whose encoding cannot be decoded because its
/// type needs a format that describes itself. The latter is tried with short values, and with the first long one of a type.
pub(crate) fn check<T: Serialize + DeserializeOwned + 'static>(value: &T) -> Result<()> {
    if as_bytes(value).is_some() {
        return Ok(());
    }
    let len = write(value, &mut Count(0))?;
    let id = TypeId::of::<T>();
    let is_long = len > SHORT_TRIAL;
    if len > TRIAL || is_long && TRIED.read().unwrap_or_else(PoisonError::into_inner).contains(&id) {
        return Ok(());
    }
    let mut bytes = Vec::with_capacity(len);
    write(value, &mut bytes)?;
    // Maps and sets may come back in another order, so the length is all that can be compared.
    let comes_back = parse::<T>(&bytes).and_then(|back| Ok(write(&back, &mut Count(0))? == len));
    if !matches!(comes_back, Ok(true)) {
        let message = "the value could be written but not read back: its type needs a format that describes itself \
                       (serde's untagged, flatten, skip_serializing_if, or JSON inside); store it as serde_json::Value";
        let error = Error::unsupported(message);
        return Err(match comes_back {
            Err(cause) => error.with_source(cause),
            Ok(_) => error,
        });
    }
    if is_long {
        TRIED.write().unwrap_or_else(PoisonError::into_inner).insert(id);
    }
    Ok(())
}

/// The length of the encoding, uncompressed. Takes a pass over the value.
pub(crate) fn encoded_len<T: Serialize + 'static>(value: &T) -> usize {
    if let Some(bytes) = as_bytes(value) {
        return LEN + bytes.len();
    }
    let mut count = Count(0);
    // What cannot be encoded is reported by `encode`; until then it counts as what could be.
    let _ = bincode::serde::encode_into_std_write(value, &mut count, CONFIG);
    count.0
}

pub(crate) fn encode<T: Serialize + 'static>(value: &T, out: &mut Encoder) -> Result<Format> {
    let sample = sample(value)?;
    let choice = match out.compression() {
        Compression::Never => RAW,
        _ if sample.len() < SHORTEST => RAW,
        Compression::Auto | Compression::Fast if !lz4_pays(&sample) => RAW,
        Compression::Small if cfg!(feature = "zstd") => ZSTD,
        _ => LZ4,
    };
    let extension = match choice {
        LZ4 => {
            let block_size = if sample.len() < SAMPLE { BlockSize::Max64KB } else { BlockSize::Max1MB };
            let info = FrameInfo::new().block_size(block_size).content_checksum(true);
            let mut lz4 = FrameEncoder::with_frame_info(info, &mut *out);
            let len = write(value, &mut lz4)?;
            lz4.finish().map_err(|error| cannot_write(error.into()))?;
            out.describe(ENCODED, len);
            "bin.lz4"
        }
        #[cfg(feature = "zstd")]
        ZSTD => {
            let mut zstd = zstd::Encoder::new(&mut *out, 3).map_err(cannot_write)?;
            let len = write(value, &mut zstd)?;
            zstd.finish().map_err(cannot_write)?;
            out.describe(ENCODED, len);
            "bin.zst"
        }
        // The sample is the whole value.
        _ if sample.len() < SAMPLE => {
            out.write_all(&sample).map_err(cannot_write)?;
            "bin"
        }
        _ => {
            write(value, out)?;
            "bin"
        }
    };
    Ok(Format::new(choice, extension))
}

/// The beginning of the encoding.
fn sample<T: Serialize + 'static>(value: &T) -> Result<Vec<u8>> {
    let mut sample = Prefix(Vec::new());
    match write(value, &mut sample) {
        Err(error) if sample.0.len() < SAMPLE => Err(error),
        // Either all of it, or the error that the sample is full.
        _ => Ok(sample.0),
    }
}

fn write<T: Serialize + 'static>(value: &T, out: &mut impl Write) -> Result<usize> {
    if let Some(bytes) = as_bytes(value) {
        out.write_all(&(bytes.len() as u64).to_le_bytes()).map_err(cannot_write)?;
        out.write_all(bytes).map_err(cannot_write)?;
        return Ok(LEN + bytes.len());
    }
    bincode::serde::encode_into_std_write(value, out, CONFIG).map_err(|error| match error {
        EncodeError::Io { inner, .. } => cannot_write(inner),
        other => Error::unsupported("the value cannot be serialised").with_source(other.to_string()),
    })
}

/// Bytes are a sequence of numbers to serde, which takes them one by one; the encoding is the same when they are
/// written at once, many times faster.
fn as_bytes<T: 'static>(value: &T) -> Option<&[u8]> {
    (value as &dyn Any).downcast_ref::<Vec<u8>>().map(Vec::as_slice)
}

fn cannot_write(error: io::Error) -> Error {
    Error::io("cannot write the value", error)
}

/// Whether LZ4 makes the beginning of the value at least a tenth smaller.
fn lz4_pays(sample: &[u8]) -> bool {
    // The frame around the blocks takes some bytes too.
    let framed = lz4_flex::block::compress(sample).len() + 32;
    framed < sample.len() - sample.len() / 10
}

struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes [`SAMPLE`] bytes, then refuses.
struct Prefix(Vec<u8>);

impl Write for Prefix {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(SAMPLE - self.0.len());
        self.0.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn decode<T: DeserializeOwned + 'static>(input: &mut Decoder) -> Result<T> {
    let is_bytes = TypeId::of::<T>() == TypeId::of::<Vec<u8>>();
    if input.format() == RAW
        && let Some(bytes) = input.in_memory()
    {
        return if is_bytes { as_value(content(bytes)?.to_vec()) } else { parse(bytes) };
    }
    let mut bytes = uncompressed(input)?;
    if !is_bytes {
        return parse(&bytes);
    }
    content(&bytes)?;
    bytes.drain(..LEN);
    as_value(bytes)
}

/// What follows the length of a sequence of bytes.
fn content(bytes: &[u8]) -> Result<&[u8]> {
    match bytes.split_first_chunk::<LEN>() {
        Some((len, content)) if u64::from_le_bytes(*len) == content.len() as u64 => Ok(content),
        _ => Err(Error::damaged("the bytes are of another length than they say")),
    }
}

fn as_value<T: 'static>(bytes: Vec<u8>) -> Result<T> {
    let bytes: Box<dyn Any> = Box::new(bytes);
    bytes.downcast().map(|bytes| *bytes).map_err(|_| Error::damaged("the value is no sequence of bytes"))
}

/// The encoding, uncompressed.
pub(crate) fn uncompressed(input: &mut Decoder) -> Result<Vec<u8>> {
    let format = input.format().to_owned();
    if format == RAW {
        return input.read_to_vec();
    }
    let len = input
        .fact(ENCODED)
        .and_then(serde_json::Value::as_u64)
        .ok_or_else(|| Error::damaged("the catalog does not tell the length of the value"))?;
    // The most that either method can make of a byte: a longer value is a lie.
    let ratio = if format == LZ4 { 256 } else { 1 << 15 };
    if len > input.stored_len().saturating_mul(ratio).saturating_add(1 << 20) {
        return Err(Error::damaged("the value cannot be as long as the catalog says"));
    }
    let mut bytes = Vec::new();
    // No more than was promised, however far a hostile frame expands.
    let read = match format.as_str() {
        LZ4 => FrameDecoder::new(input).take(len).read_to_end(&mut bytes),
        #[cfg(feature = "zstd")]
        ZSTD => zstd::Decoder::new(input).and_then(|zstd| zstd.take(len).read_to_end(&mut bytes)),
        _ => return Err(Error::unsupported(format!("this build cannot read the format {format:?}"))),
    };
    read.map_err(|error| Error::io("cannot decompress the value", error))?;
    if bytes.len() as u64 != len {
        return Err(Error::damaged("the value decompresses to another length than it had"));
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    read::read(bytes).map_err(|error| Error::damaged("the bytes are no value of this type").with_source(error))
}
