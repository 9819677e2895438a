//! How much of a file is written at a time.
//!
//! Linux keeps what is written at a time in one page of its cache, of 2 MiB at most: a mapped file is read faster then, by a
//! tenth to a quarter. But where it has no such page at hand it takes up to six times as long to write as small pieces do:
//! a virtual machine that gave free pages back to its host has to get them again, and those are the large ones. Nobody
//! tells which it will be, so it is measured.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::pause::Pause;

const LARGE: usize = 2 << 20;
const SMALL: usize = 512 << 10;

/// A large piece that takes longer than this for each hundred that as many small ones take was not at hand. Whoever writes
/// once and reads some times has nothing of more.
const QUICK: u128 = 150;

/// What is known of this process's writing.
pub(super) struct Pieces {
    /// While large pieces take too long.
    pause: Pause,
    /// Nanoseconds that the last small piece took; 0 before the first.
    small: AtomicU64,
}

impl Pieces {
    pub(super) const fn new() -> Self {
        Self { pause: Pause::new(), small: AtomicU64::new(0) }
    }

    /// Writes as much of `bytes`, which belong at `offset`, as is best written at a time.
    pub(super) fn write(
        &self,
        bytes: &[u8],
        offset: u64,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let piece = &bytes[..self.len(bytes.len(), offset)];
        let began = Instant::now();
        let written = write(piece)?;
        if written == piece.len() {
            self.note(written, began.elapsed());
        }
        Ok(written)
    }

    /// How much of so many bytes is best written at a time.
    fn len(&self, bytes: usize, offset: u64) -> usize {
        let is_whole = bytes >= LARGE && offset.is_multiple_of(LARGE as u64);
        // Of small ones it has to be known what they take.
        let is_large = is_whole && self.small.load(Ordering::Relaxed) > 0 && !self.pause.is_on();
        bytes.min(if is_large { LARGE } else { SMALL })
    }

    /// Learns from a piece of so many bytes.
    fn note(&self, len: usize, took: Duration) {
        match len {
            SMALL => {
                let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                self.small.store(took.max(1), Ordering::Relaxed);
            }
            LARGE => {
                let small = u128::from(self.small.load(Ordering::Relaxed)) * (LARGE / SMALL) as u128;
                if took.as_nanos() * 100 > small * QUICK {
                    self.pause.begin(took);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    #[test]
    fn large_pieces_are_written_while_they_are_quick() {
        let millis = Duration::from_millis;
        let pieces = Pieces::new();
        let len = || pieces.len(3 * LARGE, 0);
        // The first ones are there to compare with.
        assert_eq!(len(), SMALL);
        pieces.note(SMALL, millis(10));
        assert_eq!(len(), LARGE);
        // What does not fill a page, or begin one.
        assert_eq!(pieces.len(LARGE - 1, 0), SMALL);
        assert_eq!(pieces.len(LARGE, SMALL as u64), SMALL);
        assert_eq!(pieces.len(7, 0), 7);
        pieces.note(LARGE, millis(59));
        assert_eq!(len(), LARGE);
        pieces.note(LARGE, millis(61));
        assert_eq!(len(), SMALL);
        // Where all is slow, large pieces are not to blame.
        let pieces = Pieces::new();
        pieces.note(SMALL, millis(100));
        pieces.note(LARGE, millis(590));
        assert_eq!(pieces.len(LARGE, 0), LARGE);
    }

    #[test]
    fn all_is_written() {
        let pieces = Pieces::new();
        let (mut rest, mut written) = (vec![7; 2 * LARGE + 5], 0);
        while !rest.is_empty() {
            let done = pieces.write(&rest, written, |piece| Ok(piece.len())).unwrap();
            written += done as u64;
            rest.drain(..done);
        }
        assert_eq!(written, 2 * LARGE as u64 + 5);
        assert!(pieces.write(&[1], 0, |_| Err(io::ErrorKind::StorageFull.into())).is_err());
    }
}
