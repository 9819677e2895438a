//! A while in which something is not tried again that took too long.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What took too long is not tried for so many times as long: trying costs this part of the time at most.
const PATIENCE: u32 = 50;

/// A while in which something is not tried. All threads know of it.
pub(crate) struct Pause(AtomicU64);

impl Pause {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Since the first look.
    fn now() -> Duration {
        static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
        FIRST.elapsed()
    }

    pub(crate) fn is_on(&self) -> bool {
        Self::now() < Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    /// Begins, after so much time was spent in vain.
    pub(crate) fn begin(&self, wasted: Duration) {
        let end = Self::now().saturating_add(wasted.saturating_mul(PATIENCE)).as_micros();
        self.0.store(u64::try_from(end).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends() {
        let pause = Pause::new();
        assert!(!pause.is_on());
        pause.begin(Duration::from_secs(9));
        assert!(pause.is_on());
        pause.begin(Duration::MAX);
        assert!(pause.is_on());
        pause.begin(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(1));
        assert!(!pause.is_on());
    }
}
