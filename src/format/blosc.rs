//! One Blosc2 chunk at a time: the only file that calls the C library.
//!
//! A container is written and parsed in Rust (`b2nd`). C gets single chunks, of which this file has read the header,
//! and works on them in contexts that hold nothing but scratch memory. Stored and special chunks never reach C.
//!
//! # The environment
//! A context for compression lets the variables `BLOSC_CLEVEL`, `BLOSC_SHUFFLE`, `BLOSC_DELTA`, `BLOSC_TYPESIZE`,
//! `BLOSC_COMPRESSOR`, `BLOSC_BLOCKSIZE`, `BLOSC_NTHREADS` and `BLOSC_SPLITMODE` override what it was asked for, and
//! the library has no way to switch that off. So a new context is asked what it really does: when the codec, the
//! filters, the type size or the block size are not ours, it is dropped and chunks are stored uncompressed. A variable
//! may thus cost space and time, never a value. Decompression heeds `BLOSC_NTHREADS` alone, which changes no result.

use super::blank::{Blank, Pool};
use blosc2_src as ffi;
use std::io::{Error, ErrorKind, Result};
use std::ptr::NonNull;
use std::sync::Once;

/// Bytes of a chunk's header.
pub(crate) const HEADER: usize = 32;
/// The most bytes that a chunk may hold: its lengths are `i32`, its header included.
pub(crate) const MAX_BYTES: usize = i32::MAX as usize - HEADER;
/// How chunks hold what LZ4 and LZ4HC made.
const LZ4: u8 = 1;
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
    Compressed { block: usize },
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
            Body::Compressed { block: check_blocks(header, nbytes, typesize)? }
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

/// The length of blocks. One that is split into streams of unequal length would leave bytes of scratch memory undefined.
fn check_blocks(header: &[u8; HEADER], nbytes: usize, typesize: usize) -> Result<usize> {
    let block = field(header, 8)?;
    let split = header[2] & ONE_STREAM == 0;
    if block == 0 || block > nbytes || (split && !block.is_multiple_of(typesize)) {
        return Err(invalid(format!("a Blosc2 chunk has blocks of {block} bytes")));
    }
    Ok(block)
}

/// A context of the C library.
struct Context(NonNull<ffi::blosc2_context>);

// SAFETY: a context owns all that it points to and uses neither thread-local state nor the thread that made it.
unsafe impl Send for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a `blosc2_create_*ctx` and is freed here, once.
        unsafe { ffi::blosc2_free_ctx(self.0.as_ptr()) }
    }
}

impl Context {
    /// For compression; `None` when there is no memory, or the environment interferes.
    fn compression(recipe: Recipe, typesize: i32, blocksize: i32) -> Option<Context> {
        let mut filters = [0; 6];
        filters[5] = if typesize == 1 && recipe.filter == SHUFFLE { 0 } else { recipe.filter };
        let asked = ffi::blosc2_cparams {
            compcode: recipe.codec,
            clevel: recipe.level,
            typesize,
            blocksize,
            nthreads: 1,
            filters,
            ..Default::default()
        };
        // SAFETY: all pointers in the parameters are null, which the library takes for "none".
        let context = NonNull::new(unsafe { ffi::blosc2_create_cctx(asked) }).map(Context)?;
        let mut got = asked;
        // SAFETY: a live context, and a place for the answer.
        let code = unsafe { ffi::blosc2_ctx_get_cparams(context.0.as_ptr(), &mut got) };
        let essence = |p: &ffi::blosc2_cparams| (p.compcode, p.typesize, p.blocksize, p.filters);
        (code >= 0 && essence(&got) == essence(&asked)).then_some(context)
    }

    fn decompression() -> Option<Context> {
        // SAFETY: all pointers in the default parameters are null, which the library takes for "none".
        NonNull::new(unsafe { ffi::blosc2_create_dctx(ffi::blosc2_dparams::default()) }).map(Context)
    }

    /// Compresses into the spare room of `dst`, which is empty and has `HEADER` bytes more than `src`; `None` when
    /// the library fails. `len` is the length of `src`.
    fn compress(&mut self, src: &[u8], len: i32, dst: &mut Vec<u8>) -> Option<()> {
        assert!(src.len() == len as usize && dst.capacity() >= src.len() + HEADER && src.len() <= MAX_BYTES);
        // SAFETY: `self` is a live context that nobody else uses. `src` is readable for `len` bytes, `dst` writable
        // for `len + HEADER` bytes (asserted, and that fits `i32`); a `&[u8]` and a `&mut Vec` do not overlap.
        let written = unsafe {
            let (to, room) = (dst.as_mut_ptr().cast(), len + HEADER as i32);
            ffi::blosc2_compress_ctx(self.0.as_ptr(), src.as_ptr().cast(), len, to, room)
        };
        let written = usize::try_from(written).ok().filter(|&n| n >= HEADER && n <= src.len() + HEADER)?;
        // SAFETY: the library wrote `written` bytes without gaps: the header, the block starts, then the streams one
        // after the other; and they fit the capacity, as just checked.
        unsafe { dst.set_len(written) };
        Some(())
    }

    /// Writes all of `dst`; what `parse` let through.
    fn decompress(&mut self, chunk: &[u8], dst: Blank<'_>) -> Result<()> {
        assert!(chunk.len() <= i32::MAX as usize && dst.len() <= MAX_BYTES);
        let mut nbytes = 0;
        // SAFETY: `chunk` is readable for the length given, and `nbytes` is a place for the answer.
        let valid = unsafe { ffi::blosc1_cbuffer_validate(chunk.as_ptr().cast(), chunk.len(), &mut nbytes) };
        if valid < 0 || nbytes != dst.len() {
            return Err(invalid("a Blosc2 chunk has another length than it says"));
        }
        let context = self.0.as_ptr();
        let write = |to: *mut u8, len: usize| {
            // SAFETY: `context` is live and nobody else uses it. `chunk` is readable and `to` writable for the lengths
            // given (asserted to fit `i32`), and they do not overlap. The library checks that streams lie within
            // `chunk` and that `to` has room; `parse` refused what it would read from elsewhere.
            let done = unsafe {
                ffi::blosc2_decompress_ctx(context, chunk.as_ptr().cast(), chunk.len() as i32, to.cast(), len as i32)
            };
            match usize::try_from(done) {
                Ok(done) if done == len => Ok(()),
                _ => Err(invalid(format!("a Blosc2 chunk is damaged (code {done})"))),
            }
        };
        // SAFETY: the library adds up what each block wrote, which the filter, the last of it, writes without gaps.
        unsafe { dst.write_raw(write) }
    }
}

/// Sets up the library's global state, before any other call.
fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `Once` keeps every other call from this crate waiting.
        unsafe { ffi::blosc2_init() };
        // The library picks its shuffle routine on first use, without a lock: so use it here, on a chunk of one
        // block whose only stream is zeros.
        let mut chunk = [0; HEADER + 8];
        chunk[..4].copy_from_slice(&[VERSION, 1, EXTENDED | ONE_STREAM | LZ4 << 5, 4]);
        (chunk[4], chunk[8], chunk[12], chunk[21], chunk[32]) = (64, 64, HEADER as u8 + 8, SHUFFLE, HEADER as u8 + 4);
        let mut zeros = [0; 64];
        let done = Context::decompression().map(|mut context| context.decompress(&chunk, Blank::over(&mut zeros)));
        debug_assert!(done.is_none_or(|done| done.is_ok()));
    });
}

/// Makes chunks, with one thread.
pub(crate) struct Compressor {
    context: Option<Context>,
    typesize: u8,
    blocksize: usize,
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
        init();
        Ok(Compressor { context: Context::compression(recipe, i32::from(size), block), typesize: size, blocksize })
    }

    /// Replaces `dst` by a chunk of `src`.
    pub(crate) fn compress(&mut self, src: &[u8], dst: &mut Vec<u8>) -> Result<()> {
        let Some(len) = i32::try_from(src.len()).ok().filter(|_| !src.is_empty() && src.len() <= MAX_BYTES) else {
            return Err(unsupported(format!("a Blosc2 chunk of {} bytes", src.len())));
        };
        dst.clear();
        dst.try_reserve_exact(src.len() + HEADER)?;
        let done = self.context.as_mut().and_then(|context| context.compress(src, len, dst));
        if done.is_none() || !self.as_asked(dst, src.len()) {
            self.store(src, dst);
        }
        Ok(())
    }

    /// Whether a chunk can be read back and has our blocks: a context's blocks shrink for good when it meets less than
    /// one block.
    fn as_asked(&self, chunk: &[u8], nbytes: usize) -> bool {
        let block = (self.blocksize.min(nbytes) as u32).to_le_bytes();
        parse(chunk, nbytes).is_ok() && chunk[8..12] == block
    }

    /// A chunk without compression.
    fn store(&self, src: &[u8], dst: &mut Vec<u8>) {
        dst.clear();
        dst.extend([VERSION, 1, EXTENDED | STORED, self.typesize]);
        for length in [src.len(), self.blocksize.min(src.len()), src.len() + HEADER] {
            dst.extend((length as u32).to_le_bytes());
        }
        dst.extend([0; HEADER / 2]);
        dst.extend_from_slice(src);
    }
}

/// Whether a chunk is nothing but zeros and says so in its header.
pub(crate) fn is_zeros(chunk: &[u8]) -> bool {
    chunk.get(31).is_some_and(|flags| flags >> 4 & 0x07 == 1)
}

/// Reads chunks.
pub(crate) struct Decompressor(Option<Context>);

/// Contexts have buffers of four blocks, so they are kept.
static CONTEXTS: Pool<Context> = Pool::new();

/// Blocks of which the buffers are not kept.
const LARGE_BLOCK: usize = 1 << 20;

impl Drop for Decompressor {
    fn drop(&mut self) {
        if let Some(context) = self.0.take() {
            CONTEXTS.put(context);
        }
    }
}

impl Decompressor {
    pub(crate) fn new() -> Result<Self> {
        init();
        let context = CONTEXTS.take().or_else(Context::decompression);
        context.map(|context| Decompressor(Some(context))).ok_or_else(|| Error::from(ErrorKind::OutOfMemory))
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
            Body::Compressed { block } => {
                let mut context = self.0.take().or_else(Context::decompression).ok_or(ErrorKind::OutOfMemory)?;
                context.decompress(chunk, dst)?;
                self.0 = Some(context).filter(|_| block <= LARGE_BLOCK);
                Ok(())
            }
        }
    }
}
