//! Large pages for memory that is about to be written for the first time.
//!
//! The system gives memory when it is touched, page by page, of 4 KiB as a rule. Pages of 2 MiB take a sixth of the time where
//! it has them at hand, and several times as long where it has to make them. Nobody tells which it will be, so it is measured:
//! as soon as one takes longer than small pages would, no more are asked for, for a while. NumPy asks for them always.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::mm::{Advice, madvise};

use crate::pause::Pause;

const LARGE: usize = 2 << 20;
const SMALL: usize = 4 << 10;

/// Less memory is not worth it.
const LEAST: usize = 8 << 20;

/// So often a process asks. The system keeps two records for each array that has large pages, of some 65,000 on Linux.
const MOST: usize = 8 << 10;

/// So many small pages are, to compare with.
const SAMPLE: usize = 64;

/// A large page that takes no longer was at hand.
const QUICK: Duration = Duration::from_micros(300);

/// Asks the system for large pages where this memory was never touched. What is in it stays as it is.
pub(super) fn ask(memory: &mut [MaybeUninit<u8>]) {
    static PAUSE: Pause = Pause::new();
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    if memory.len() >= LEAST
        && !PAUSE.is_on()
        && ASKED.fetch_add(1, Ordering::Relaxed) < MOST
        && let Err(wasted) = advise(memory)
    {
        PAUSE.begin(wasted);
    }
}

/// Gives the time that a large page took which was not at hand: no end of it, where there are none to be had.
fn advise(memory: &mut [MaybeUninit<u8>]) -> Result<(), Duration> {
    let before = memory.as_ptr().align_offset(LARGE).min(memory.len());
    let (before, mut rest) = memory.split_at_mut(before);
    let sample = before.len().min(SAMPLE * SMALL) / SMALL * SMALL;
    let sample = before.len() - sample..;
    let as_small = touch(&mut before[sample])?;
    while let Some((page, others)) = rest.split_at_mut_checked(LARGE) {
        tell(page, Wish::Large)?;
        let took = touch(page)?;
        if took > QUICK.max(as_small) {
            return Err(took);
        }
        rest = others;
    }
    Ok(())
}

/// Has the system give this memory, which begins with a page. Gives the time that as much as a large page takes.
fn touch(memory: &mut [MaybeUninit<u8>]) -> Result<Duration, Duration> {
    let began = Instant::now();
    tell(memory, Wish::Now)?;
    Ok(began.elapsed().mul_f64(LARGE as f64 / memory.len().max(SMALL) as f64))
}

enum Wish {
    /// Large pages, where pages are missing.
    Large,
    /// All pages that are missing.
    Now,
}

/// Tells the system what is wished of memory. Fails, for ever, if it does not know such wishes.
fn tell(memory: &mut [MaybeUninit<u8>], wish: Wish) -> Result<(), Duration> {
    let advice = match wish {
        Wish::Large => Advice::LinuxHugepage,
        Wish::Now => Advice::LinuxPopulateWrite,
    };
    // SAFETY: the memory is borrowed, and neither wish changes the bytes of a page that is there.
    if memory.is_empty() || unsafe { madvise(memory.as_mut_ptr().cast(), memory.len(), advice) }.is_ok() {
        return Ok(());
    }
    Err(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_stays() {
        for len in [0, 1, LARGE - 1, LARGE, 3 * LARGE + 5, 40 * LARGE] {
            for start in [0, 1, SMALL] {
                let mut memory = Box::<[u8]>::new_uninit_slice(start + len);
                // Never touched, then touched.
                let _ = advise(&mut memory[start..]);
                memory.fill(MaybeUninit::new(7));
                let _ = advise(&mut memory[start..]);
                ask(&mut memory[start..]);
                // SAFETY: all were written.
                assert!(memory.iter().all(|byte| unsafe { byte.assume_init() } == 7), "{start} {len}");
            }
        }
    }
}
