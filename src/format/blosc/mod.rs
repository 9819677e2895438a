//! One Blosc2 chunk at a time.
//!
//! A container is written and parsed in Rust (`b2nd`). A chunk's header is read here; what is stored or special needs no
//! more, blocks of LZ4 with bit shuffle are packed and unpacked in Rust (`blocks`), and the C library (`library`) does the rest.

mod bits;
mod blocks;
mod library;

use self::blocks::Cut;
use self::library::{Context, init};
use super::blank::Blank;
use super::buffer::Pool;
use std::io::{Error, ErrorKind, Result};

/// Bytes of a chunk's header.
pub(crate) const HEADER: usize = 32;
/// The most bytes that a chunk may hold: its lengths are `i32`, its header included.
pub(crate) const MAX_BYTES: usize = i32::MAX as usize - HEADER;
/// How chunks hold what LZ4 and LZ4HC made.
const LZ4: u8 = 1;
/// How the library numbers LZ4 itself.
const LZ4_CODEC: u8 = 1;
const SHUFFLE: u8 = 1;
const BIT_SHUFFLE: u8 = 2;

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    /// The codec, the filter and the level, as frame headers number them.
    pub(crate) codec: u8,
    pub(crate) filter: u8,
    pub(crate) level: u8,
}

impl Recipe {
    /// Bytes of one significance together: unpacks fastest.
    pub(crate) const BYTES: Self = Self { name: "lz4+shuffle", codec: 1, filter: SHUFFLE, level: 5 };
    /// Bits of one significance together: smaller, where numbers change by little.
    pub(crate) const BITS: Self = Self { name: "lz4+bitshuffle", codec: 1, filter: BIT_SHUFFLE, level: 5 };
    /// The same by a compressor that takes its time, and unpacks alike.
    pub(crate) const BYTES_SMALL: Self = Self { name: "lz4hc+shuffle", codec: 2, filter: SHUFFLE, level: 5 };
    pub(crate) const BITS_SMALL: Self = Self { name: "lz4hc+bitshuffle", codec: 2, filter: BIT_SHUFFLE, level: 5 };
}

const VERSION: u8 = 5;
/// Bits of the header's flags. Shuffle and bit shuffle together say that the header has 32 bytes, not 16.
const EXTENDED: u8 = 0x05;
const STORED: u8 = 0x02;
const ONE_STREAM: u8 = 0x10;

/// Bytes that cannot be right.
pub(crate) fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, what.into())
}

/// Bytes that may be right, but not for this build.
pub(crate) fn unsupported(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, what.into())
}

/// A little-endian field of a chunk's header.
fn field(header: &[u8; HEADER], at: usize) -> Result<usize> {
    let value = i32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    usize::try_from(value).map_err(|_| invalid("a Blosc2 chunk has a negative length"))
}

/// The length in the file of a chunk that should hold `nbytes`, from its header.
pub(crate) fn packed_len(header: &[u8; HEADER], nbytes: usize) -> Result<usize> {
    if header[0] > VERSION {
        return Err(unsupported(format!("Blosc2 chunks of version {}, newer than {VERSION}", header[0])));
    }
    if header[0] < VERSION || header[2] & EXTENDED != EXTENDED {
        return Err(invalid("not a Blosc2 chunk"));
    }
    if field(header, 4)? != nbytes {
        return Err(invalid(format!(
            "a Blosc2 chunk should hold {nbytes} bytes, its header says {}",
            field(header, 4)?
        )));
    }
    match field(header, 12)? {
        len if len < HEADER => Err(invalid("a Blosc2 chunk is shorter than its header")),
        len => Ok(len),
    }
}

/// What follows a chunk's header.
#[derive(Debug)]
enum Body<'a> {
    Fill(Fill),
    Repeat(&'a [u8]),
    Stored(&'a [u8]),
    /// Blocks; in LZ4 with bit shuffle, or of so many bytes in any other way.
    Bits(Cut),
    Compressed {
        block: usize,
    },
}

/// Chunks that need no bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fill {
    /// Zeros; also what was never initialized.
    Zeros,
    /// The plain NaN of `f32` or `f64`, by the type size.
    Nan,
}

impl Fill {
    /// Fills `dst`.
    pub(crate) fn fill(self, typesize: usize, dst: Blank<'_>) -> Result<()> {
        match (self, typesize) {
            (Fill::Zeros, _) => dst.fill(0),
            (Fill::Nan, 4) => repeat(&f32::NAN.to_le_bytes(), dst)?,
            (Fill::Nan, 8) => repeat(&f64::NAN.to_le_bytes(), dst)?,
            (Fill::Nan, _) => return Err(invalid("a Blosc2 chunk of NaN is neither f32 nor f64")),
        }
        Ok(())
    }
}

fn repeat(value: &[u8], mut dst: Blank<'_>) -> Result<()> {
    if value.is_empty() || !dst.len().is_multiple_of(value.len()) {
        return Err(invalid("a Blosc2 chunk repeats a value that does not fit a whole number of times"));
    }
    (0..dst.len() / value.len()).for_each(|_| dst.put(value));
    Ok(())
}

/// Reads the header of a whole chunk and refuses what this build cannot decode for certain.
fn parse(chunk: &[u8], nbytes: usize) -> Result<(usize, Body<'_>)> {
    let (header, body) = chunk.split_first_chunk::<HEADER>().ok_or_else(|| invalid("a Blosc2 chunk is cut off"))?;
    if packed_len(header, nbytes)? != chunk.len() {
        return Err(invalid("a Blosc2 chunk has another length than its header says"));
    }
    let typesize = usize::from(header[3]);
    if typesize == 0 {
        return Err(invalid("a Blosc2 chunk has a type size of 0"));
    }
    match header[31] & 0x8f {
        0 if header[30] == 0 => {}
        flags if flags & 0x08 != 0 => return Err(invalid("a lazy Blosc2 chunk holds no data")),
        flags if flags & 0x01 != 0 => return Err(unsupported("Blosc2 chunks with a dictionary")),
        flags => return Err(unsupported(format!("Blosc2 chunks with the flags {flags:#x} {:#x}", header[30]))),
    }
    let body = match header[31] >> 4 & 0x07 {
        0 if header[2] & STORED == 0 => {
            check_codec(header)?;
            check_filters(header)?;
            let block = check_blocks(header, nbytes, typesize)?;
            let is_split = header[2] & ONE_STREAM == 0;
            let cut = Cut { block, width: typesize, is_split };
            if is_bits(header) { Body::Bits(cut) } else { Body::Compressed { block } }
        }
        0 if body.len() == nbytes => Body::Stored(body),
        0 => return Err(invalid("a stored Blosc2 chunk has another length than its data")),
        1 | 4 => Body::Fill(Fill::Zeros),
        2 => Body::Fill(Fill::Nan),
        3 => Body::Repeat(body.get(..typesize).ok_or_else(|| invalid("a Blosc2 chunk lacks its repeated value"))?),
        kind => return Err(unsupported(format!("Blosc2 chunks of the special kind {kind}"))),
    };
    Ok((typesize, body))
}

/// Which codecs there are is decided by how `blosc2-src` was built.
fn check_codec(header: &[u8; HEADER]) -> Result<()> {
    let name = match header[2] >> 5 {
        0 | 1 => return Ok(()),
        3 => "zlib".to_owned(),
        4 => "zstd".to_owned(),
        6 => format!("of the user-defined number {}", header[22]),
        number => format!("of the number {number}"),
    };
    Err(unsupported(format!("Blosc2 chunks with the codec {name}: only blosclz, lz4 and lz4hc are built in")))
}

/// At most one shuffle. Newer libraries give shuffles a parameter that this one would ignore, and be wrong.
fn check_filters(header: &[u8; HEADER]) -> Result<()> {
    let mut shuffles = 0;
    for (filter, meta) in header[16..22].iter().zip(&header[24..30]) {
        match (filter, meta) {
            // Truncated precision is not undone.
            (0 | 4, _) => {}
            (1 | 2, 0) => shuffles += 1,
            (3, _) => return Err(unsupported("Blosc2 chunks with the delta filter")),
            _ => return Err(unsupported(format!("Blosc2 chunks with the filter {filter}, parameter {meta}"))),
        }
    }
    if shuffles > 1 { Err(unsupported("Blosc2 chunks that are shuffled twice")) } else { Ok(()) }
}

/// Whether blocks are LZ4, and shuffled by bits and in no other way.
fn is_bits(header: &[u8; HEADER]) -> bool {
    header[2] >> 5 == LZ4 && header[16..22].contains(&BIT_SHUFFLE) && bits::WIDTHS.contains(&header[3])
}

/// The length of blocks. One that is split into streams of unequal length would leave bytes of scratch memory undefined.
fn check_blocks(header: &[u8; HEADER], nbytes: usize, typesize: usize) -> Result<usize> {
    let block = field(header, 8)?;
    let split = header[2] & ONE_STREAM == 0;
    if block == 0 || block > nbytes || (split && !block.is_multiple_of(typesize)) {
        return Err(invalid(format!("a Blosc2 chunk has blocks of {block} bytes")));
    }
    Ok(block)
}

/// Makes chunks, with one thread.
pub(crate) struct Compressor {
    maker: Maker,
    typesize: u8,
    blocksize: usize,
}

enum Maker {
    /// Bit shuffle and LZ4 with this acceleration; with room for a block that is shuffled, and for what it is packed to.
    Bits {
        acceleration: i32,
        room: Vec<u8>,
    },
    Library(Context),
    /// What could not be made as it was asked for.
    Nobody,
}

impl Compressor {
    /// For elements of `typesize` bytes, in blocks of `blocksize` bytes.
    pub(crate) fn new(recipe: Recipe, typesize: usize, blocksize: usize) -> Result<Self> {
        let unfit = || unsupported(format!("Blosc2 with elements of {typesize} bytes in blocks of {blocksize}"));
        let size = u8::try_from(typesize).ok().filter(|&size| size > 0).ok_or_else(unfit)?;
        let block = i32::try_from(blocksize).map_err(|_| unfit())?;
        if block == 0 || !blocksize.is_multiple_of(typesize) {
            return Err(unfit());
        }
        let maker = if recipe.codec == LZ4_CODEC && recipe.filter == BIT_SHUFFLE && bits::WIDTHS.contains(&size) {
            // As the library understands levels.
            Maker::Bits { acceleration: 10 - i32::from(recipe.level), room: Vec::new() }
        } else {
            init();
            Context::compression(recipe, i32::from(size), block).map_or(Maker::Nobody, Maker::Library)
        };
        Ok(Compressor { maker, typesize: size, blocksize })
    }

    /// Replaces `dst` by a chunk of `src`.
    pub(crate) fn compress(&mut self, src: &[u8], dst: &mut Vec<u8>) -> Result<()> {
        let Some(len) = i32::try_from(src.len()).ok().filter(|_| !src.is_empty() && src.len() <= MAX_BYTES) else {
            return Err(unsupported(format!("a Blosc2 chunk of {} bytes", src.len())));
        };
        dst.clear();
        dst.try_reserve_exact(src.len() + HEADER)?;
        let block = self.blocksize.min(src.len());
        let done = match &mut self.maker {
            Maker::Bits { acceleration, room } => {
                let width = usize::from(self.typesize);
                let cut = Cut { block, width, is_split: block.is_multiple_of(width) };
                make_bits(src, cut, *acceleration, room, dst)
            }
            Maker::Library(context) => context.compress(src, len, dst).filter(|()| is_as_asked(dst, src.len(), block)),
            Maker::Nobody => None,
        };
        if done.is_none() {
            self.store(src, dst);
        }
        Ok(())
    }

    /// A chunk without compression.
    fn store(&self, src: &[u8], dst: &mut Vec<u8>) {
        dst.clear();
        let block = self.blocksize.min(src.len());
        dst.extend(header(EXTENDED | STORED, self.typesize, [src.len(), block, src.len() + HEADER]));
        dst.extend_from_slice(src);
    }
}

/// Whether a chunk can be read back and has our blocks: a context's blocks shrink for good when it meets less than one block.
fn is_as_asked(chunk: &[u8], nbytes: usize, block: usize) -> bool {
    parse(chunk, nbytes).is_ok() && chunk[8..12] == (block as u32).to_le_bytes()
}

/// The header of a chunk: its flags, and its lengths: of the data, of a block, and its own.
fn header(flags: u8, typesize: u8, lengths: [usize; 3]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&[VERSION, 1, flags, typesize]);
    for (to, length) in header[4..16].chunks_exact_mut(4).zip(lengths) {
        to.copy_from_slice(&(length as u32).to_le_bytes());
    }
    header
}

/// A chunk with bit shuffle in `chunk`, which is empty; `None` if it would not be shorter than one without compression.
fn make_bits(src: &[u8], cut: Cut, acceleration: i32, room: &mut Vec<u8>, chunk: &mut Vec<u8>) -> Option<()> {
    let Cut { block, width, is_split } = cut;
    let is_zeros = src.iter().all(|byte| *byte == 0);
    chunk.extend([0; HEADER]);
    if !is_zeros {
        blocks::pack(src, cut, acceleration, room, chunk)?;
    }
    let flags = EXTENDED | LZ4 << 5 | if is_split { 0 } else { ONE_STREAM };
    let mut header = header(flags, width as u8, [src.len(), block, chunk.len()]);
    header[21] = BIT_SHUFFLE;
    header[31] = u8::from(is_zeros) << 4;
    chunk[..HEADER].copy_from_slice(&header);
    Some(())
}

/// Whether a chunk is nothing but zeros and says so in its header.
pub(crate) fn is_zeros(chunk: &[u8]) -> bool {
    chunk.get(31).is_some_and(|flags| flags >> 4 & 0x07 == 1)
}

/// Reads chunks.
pub(crate) struct Decompressor {
    context: Option<Context>,
    /// A block that is shuffled.
    room: Vec<u8>,
}

/// Contexts have buffers of four blocks, so they are kept.
static CONTEXTS: Pool<Context> = Pool::new();

/// Blocks of which the buffers are not kept.
const LARGE_BLOCK: usize = 1 << 20;

impl Drop for Decompressor {
    fn drop(&mut self) {
        if let Some(context) = self.context.take() {
            CONTEXTS.put(context);
        }
    }
}

impl Decompressor {
    pub(crate) fn new() -> Result<Self> {
        init();
        Ok(Self { context: CONTEXTS.take(), room: Vec::new() })
    }

    /// Fills `dst`, or fails when the chunk is not whole, or not of that many bytes. After an error `dst` holds
    /// anything.
    pub(crate) fn decompress(&mut self, chunk: &[u8], mut dst: Blank<'_>) -> Result<()> {
        let (typesize, body) = parse(chunk, dst.len())?;
        match body {
            Body::Fill(fill) => fill.fill(typesize, dst),
            Body::Repeat(value) => repeat(value, dst),
            Body::Stored(bytes) => {
                dst.put(bytes);
                Ok(())
            }
            Body::Bits(cut) => blocks::unpack(chunk, cut, &mut self.room, dst),
            Body::Compressed { block } => {
                let mut context = self.context.take().or_else(Context::decompression).ok_or(ErrorKind::OutOfMemory)?;
                context.decompress(chunk, dst)?;
                self.context = Some(context).filter(|_| block <= LARGE_BLOCK);
                Ok(())
            }
        }
    }
}
