//! Files of values that are mapped into memory.

use std::fs::File;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{Mmap, MmapOptions};

/// A process may have some 65,000 mappings on Linux, its threads and its allocator's among them.
const MOST: usize = 16 << 10;

/// How many there are.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A file of a value, mapped into memory.
pub(crate) struct Mapping(Mmap);

impl Mapping {
    /// Maps the beginning of a value's file. None if the system cannot, or if it has enough to do with those there are:
    /// then the file is read.
    pub(super) fn new(file: &File, len: usize) -> Option<Self> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the bytes must not change while they are mapped. Files of values are written under another name, get
        // theirs when they are whole, and are never written to again, by any process that uses the chest; removing one
        // leaves the mapping as it is. Whoever else writes to them in place breaks the promise that `Chest::view` names.
        let map = (count < MOST).then(|| unsafe { MmapOptions::new().len(len).map(file) });
        let map = map.and_then(Result::ok);
        if map.is_none() {
            COUNT.fetch_sub(1, Ordering::Relaxed);
        }
        map.map(Self)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
