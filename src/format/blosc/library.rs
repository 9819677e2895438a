//! The only file that calls the C library.
//!
//! It gets single chunks of which the header was read, and works on them in contexts that hold nothing but scratch memory;
//! or single streams of LZ4. Stored and special chunks never reach it.
//!
//! # The environment
//! A context for compression lets the variables `BLOSC_CLEVEL`, `BLOSC_SHUFFLE`, `BLOSC_DELTA`, `BLOSC_TYPESIZE`,
//! `BLOSC_COMPRESSOR`, `BLOSC_BLOCKSIZE`, `BLOSC_NTHREADS` and `BLOSC_SPLITMODE` override what it was asked for, and
//! the library has no way to switch that off. So a new context is asked what it really does: when the codec, the
//! filters, the type size or the block size are not ours, it is dropped and chunks are stored uncompressed. A variable
//! may thus cost space and time, never a value. Decompression heeds `BLOSC_NTHREADS` alone, which changes no result.

use std::ffi::{c_char, c_int};
use std::io::Result;
use std::ptr::NonNull;
use std::sync::Once;

use blosc2_src as ffi;

use super::{EXTENDED, HEADER, LZ4, MAX_BYTES, ONE_STREAM, Recipe, SHUFFLE, VERSION, invalid};
use crate::format::blank::Blank;

unsafe extern "C" {
    /// Of the LZ4 that the library is built with, see lz4.h: neither reads nor writes outside of what it is given, whatever
    /// the bytes are. Gives how many it wrote, or a negative number.
    #[link_name = "LZ4_decompress_safe"]
    fn lz4_decompress_safe(from: *const c_char, to: *mut c_char, len: c_int, room: c_int) -> c_int;

    /// Neither reads nor writes outside of what it is given; 0 if there is no room.
    #[link_name = "LZ4_compress_fast"]
    fn lz4_compress_fast(from: *const c_char, to: *mut c_char, len: c_int, room: c_int, acceleration: c_int) -> c_int;
}

/// Unpacks a stream of LZ4, more than twice as fast as it is done in Rust. Gives the length, unless the stream is damaged.
pub(super) fn unpack_lz4(packed: &[u8], stream: &mut [u8]) -> Option<usize> {
    let (len, room) = (c_int::try_from(packed.len()).ok()?, c_int::try_from(stream.len()).ok()?);
    // SAFETY: `packed` is readable and `stream` writable for the lengths given, and they do not overlap.
    let done = unsafe { lz4_decompress_safe(packed.as_ptr().cast(), stream.as_mut_ptr().cast(), len, room) };
    usize::try_from(done).ok()
}

/// Packs a stream as LZ4. Gives the length, if it fits.
pub(super) fn pack_lz4(stream: &[u8], packed: &mut [u8], acceleration: i32) -> Option<usize> {
    let (len, room) = (c_int::try_from(stream.len()).ok()?, c_int::try_from(packed.len()).ok()?);
    // SAFETY: `stream` is readable and `packed` writable for the lengths given, and they do not overlap.
    let done =
        unsafe { lz4_compress_fast(stream.as_ptr().cast(), packed.as_mut_ptr().cast(), len, room, acceleration) };
    usize::try_from(done).ok().filter(|&len| len > 0)
}

/// A context of the C library.
pub(super) struct Context(NonNull<ffi::blosc2_context>);

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
    pub(super) fn compression(recipe: Recipe, typesize: i32, blocksize: i32) -> Option<Context> {
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

    pub(super) fn decompression() -> Option<Context> {
        // SAFETY: all pointers in the default parameters are null, which the library takes for "none".
        NonNull::new(unsafe { ffi::blosc2_create_dctx(ffi::blosc2_dparams::default()) }).map(Context)
    }

    /// Compresses into the spare room of `dst`, which is empty and has `HEADER` bytes more than `src`; `None` when
    /// the library fails. `len` is the length of `src`.
    pub(super) fn compress(&mut self, src: &[u8], len: i32, dst: &mut Vec<u8>) -> Option<()> {
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
    pub(super) fn decompress(&mut self, chunk: &[u8], dst: Blank<'_>) -> Result<()> {
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
pub(super) fn init() {
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
