//! Files of values that are mapped into memory.

use std::fs::File;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{Mmap, MmapOptions};

/// A process may have some 65,000 mappings on Linux, those of its threads and its allocator among them.
const MOST: usize = 16 << 10;

/// How many there are.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A file of a value, mapped into memory.
pub(crate) struct Mapping(Mmap);

impl Mapping {
    /// Maps the beginning of a value's file. None if the system cannot, or if it has enough to do with those there are:
    /// then the file is read.
    pub(super) fn new(file: &File, len: usize) -> Option<Self> {
        Self::with_most(MOST, file, len)
    }

    fn with_most(most: usize, file: &File, len: usize) -> Option<Self> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the bytes must not change while they are mapped. Files of values are written under another name, get
        // theirs when they are whole, and are never written to again, by any process that uses the chest; removing one
        // leaves the mapping as it is. Whoever else writes to them in place breaks the promise that `Chest::view` names, and
        // `StoredArray` and `FrameFormat::Arrow` with it.
        let map = (count < most).then(|| unsafe { MmapOptions::new().len(len).map(file) });
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn there_are_so_many_and_no_more_until_one_goes() -> std::io::Result<()> {
        let mut file = tempfile::tempfile()?;
        file.write_all(&[7; 100])?;
        // Other tests map as well.
        let mut mappings: Vec<_> = (0..100).map_while(|_| Mapping::with_most(100, &file, 90)).collect();
        assert!(Mapping::with_most(COUNT.load(Ordering::Relaxed), &file, 90).is_none());
        let before = COUNT.load(Ordering::Relaxed);
        assert!(mappings.len() > 50 && before >= mappings.len() && mappings[0][89] == 7);
        mappings.clear();
        assert!(COUNT.load(Ordering::Relaxed) < before - 25);
        assert!(Mapping::with_most(100, &file, 90).is_some());
        // What cannot be mapped is not counted.
        assert!((0..200).all(|_| Mapping::with_most(100, &file, usize::MAX).is_none()));
        assert!(Mapping::with_most(100, &file, 90).is_some());
        Ok(())
    }
}
