//! Memory that is written for the first time, without being zeroed before: that would take as long as reading does.

use std::any::Any;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

#[cfg(target_os = "linux")]
use super::large_pages;

/// Bytes to be written from the first to the last, each once; parts of them may be written by several threads.
pub struct Blank<'a> {
    bytes: &'a mut [MaybeUninit<u8>],
    /// The bytes that were written of all that this is a part of.
    written: Option<&'a AtomicUsize>,
}

impl<'a> Blank<'a> {
    /// Bytes that were written before, to be written over.
    #[cfg(feature = "blosc")]
    pub(crate) fn over(bytes: &'a mut [u8]) -> Self {
        // SAFETY: the types have the same layout. No method makes bytes uninitialized, and the slice is not given out.
        let bytes = unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) };
        Self { bytes, written: None }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the first `len` bytes off.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn take(&mut self, len: usize) -> Self {
        let (front, back) = std::mem::take(&mut self.bytes).split_at_mut(len);
        self.bytes = back;
        Self { bytes: front, written: self.written }
    }

    /// Writes the first bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.take(bytes.len()).write(|blank| {
            blank.write_copy_of_slice(bytes);
        });
    }

    /// Writes all bytes alike.
    #[cfg(feature = "blosc")]
    pub(crate) fn fill(self, byte: u8) {
        self.write(|blank| {
            blank.fill(MaybeUninit::new(byte));
        });
    }

    /// `write` writes all bytes.
    fn write(self, write: impl FnOnce(&mut [MaybeUninit<u8>])) {
        write(self.bytes);
        self.count();
    }

    /// Writes all bytes, as a library in C does.
    ///
    /// # Safety
    /// When `write` succeeds it has written all bytes from the pointer on, as many as it is told, and no other.
    #[cfg(feature = "blosc")]
    pub(crate) unsafe fn write_raw(self, write: impl FnOnce(*mut u8, usize) -> io::Result<()>) -> io::Result<()> {
        write(self.bytes.as_mut_ptr().cast(), self.bytes.len())?;
        self.count();
        Ok(())
    }

    fn count(self) {
        if let Some(written) = self.written {
            written.fetch_add(self.bytes.len(), Ordering::Relaxed);
        }
    }
}

/// `len` elements of which `write` writes the bytes.
pub(crate) fn written<T: bytemuck::Pod>(
    len: usize,
    write: &mut dyn FnMut(Blank<'_>) -> io::Result<()>,
) -> io::Result<Vec<T>> {
    let mut elements: Vec<T> = KEPT.take(len);
    let _is_fresh = elements.capacity() == 0;
    elements.try_reserve_exact(len)?;
    let (room, size) = (&mut elements.spare_capacity_mut()[..len], len * size_of::<T>());
    // SAFETY: the memory of `len` elements, borrowed as long as `room` is; bytes have no alignment, and whatever is
    // written to them, a `MaybeUninit` may hold it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast::<MaybeUninit<u8>>(), size) };
    #[cfg(target_os = "linux")]
    if _is_fresh {
        large_pages::ask(bytes);
    }
    let count = AtomicUsize::new(0);
    write(Blank { bytes, written: Some(&count) })?;
    if count.into_inner() != size {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the elements were not all written"));
    }
    // SAFETY: there is capacity for them. Each byte belonged to one `Blank` at most, which gave it up to be written and
    // counted; as many were counted as there are, so all were. Any bytes are elements of a `Pod`.
    unsafe { elements.set_len(len) };
    Ok(elements)
}

/// Memory of values that were spilled, for the next ones: the system takes longer to give fresh memory, page by page, than
/// an array takes to be unpacked. The last is that which was kept last.
struct Kept(Mutex<Vec<(usize, Box<dyn Any + Send>)>>);

static KEPT: Kept = Kept::new();

/// Keeps the memory of these elements, for [`written`].
pub(crate) fn keep<T: Send + 'static>(elements: Vec<T>) {
    KEPT.keep(elements);
}

impl Kept {
    /// So many bytes are kept at most, in pieces that are large enough to matter: the allocator itself keeps small ones.
    const MOST: usize = 16 << 20;
    const SMALLEST: usize = 256 << 10;

    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn keep<T: Send + 'static>(&self, mut elements: Vec<T>) {
        let bytes = elements.capacity() * size_of::<T>();
        if !(Self::SMALLEST..=Self::MOST).contains(&bytes) {
            return;
        }
        elements.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push((bytes, Box::new(elements)));
        let mut total = 0;
        let fits = |(bytes, _): &&(usize, _)| {
            total += bytes;
            total <= Self::MOST
        };
        let last = kept.iter().rev().take_while(fits).count();
        let first = kept.len() - last;
        let dropped: Vec<_> = kept.drain(..first).collect();
        // The system takes its time.
        drop(kept);
        drop(dropped);
    }

    /// Room for so many elements, and hardly more, which nobody would count, if there is any.
    fn take<T: 'static>(&self, len: usize) -> Vec<T> {
        let is_wanted = |elements: &Vec<T>| elements.capacity().checked_sub(len).is_some_and(|more| more <= len / 128);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().rposition(|(_, elements)| elements.downcast_ref().is_some_and(is_wanted));
        let elements = place.and_then(|place| kept.remove(place).1.downcast().ok());
        elements.map(|elements| *elements).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_in_parts_is_there() {
        let numbers = written::<u16>(3, &mut |mut blank| {
            let mut front = blank.take(2);
            front.put(&[1]);
            front.put(&[0]);
            blank.take(2).put(&[7, 7]);
            blank.put(&[2, 0]);
            Ok(())
        });
        assert_eq!(numbers.unwrap(), [1, 0x707, 2].map(u16::from_le));
        assert!(written::<f64>(0, &mut |_| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn what_was_not_written_is_not_read() {
        assert!(written::<u16>(3, &mut |_| Ok(())).is_err());
        let forgotten = written::<u8>(4, &mut |mut blank| {
            blank.put(&[1, 2]);
            blank.take(1);
            blank.put(&[4]);
            Ok(())
        });
        assert_eq!(forgotten.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(written::<u64>(usize::MAX, &mut |_| Ok(())).is_err());
    }

    #[test]
    fn memory_is_used_again_by_values_of_its_type_and_size() {
        let place = |elements: &Vec<u32>| elements.as_ptr().addr();
        let (kept, len) = (Kept::new(), Kept::MOST / 4);
        let elements: Vec<u32> = vec![7; len];
        let at = place(&elements);
        kept.keep(elements);
        assert!(kept.take::<u32>(len / 2).capacity() == 0 && kept.take::<i32>(len).capacity() == 0);
        let again = kept.take::<u32>(len - 1);
        assert!(again.is_empty() && place(&again) == at);
        assert_eq!(kept.take::<u32>(len).capacity(), 0);
        kept.keep(vec![7_u32; len + 1]);
        assert_eq!(kept.take::<u32>(len + 1).capacity(), 0);
        kept.keep(again);
        kept.keep(vec![7_u16; Kept::MOST / 2]);
        assert_eq!(kept.take::<u32>(len).capacity(), 0);
        assert_eq!(kept.take::<u16>(Kept::MOST / 2).capacity(), Kept::MOST / 2);
    }
}
