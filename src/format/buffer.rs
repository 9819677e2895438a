//! Memory and other things that are dear to make, used again.

use std::io;
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

/// What is dear to make, kept for whoever needs one next.
pub(crate) struct Pool<T>(Mutex<Vec<T>>);

impl<T> Pool<T> {
    /// More than so many are not kept.
    const MANY: usize = 4;

    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(crate) fn put(&self, item: T) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < Self::MANY {
            kept.push(item);
        }
    }
}

/// A buffer that goes back to where it came from.
pub(crate) struct Buffer(Vec<u8>);

static BUFFERS: Pool<Vec<u8>> = Pool::new();

impl Buffer {
    /// A longer one is not kept.
    const LONGEST: usize = 2 << 20;

    /// What is in it is left over from others.
    pub(crate) fn new() -> Self {
        Self(BUFFERS.take().unwrap_or_default())
    }

    /// Its first `len` bytes, of any content.
    pub(crate) fn get(&mut self, len: usize) -> io::Result<&mut [u8]> {
        if self.0.len() < len {
            self.0.try_reserve_exact(len - self.0.len())?;
            self.0.resize(len, 0);
        }
        Ok(&mut self.0[..len])
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.0.capacity() <= Self::LONGEST {
            BUFFERS.put(std::mem::take(&mut self.0));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    #[test]
    fn long_buffers_are_not_kept() {
        let mut buffer = Buffer::new();
        assert_eq!(buffer.get(10).unwrap().len(), 10);
        buffer.get(Buffer::LONGEST + 1).unwrap();
        drop(buffer);
        let kept: Vec<_> = (0..=Pool::<()>::MANY).map(|_| Buffer::new()).collect();
        assert!(kept.iter().all(|buffer| buffer.0.capacity() <= Buffer::LONGEST));
    }
}
