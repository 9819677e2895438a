//! What a reload takes on this machine.

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use icechest::{Chest, Result};

/// A reload takes so many seconds, and so many for each byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) latency: f64,
    pub(crate) per_byte: f64,
}

const SIZES: [usize; 5] = [4 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20];
const RUNS: usize = 5;

impl Cost {
    pub(crate) fn of(self, bytes: u64) -> f64 {
        self.latency + self.per_byte * bytes as f64
    }

    /// Reloads values of several sizes from a chest without a budget: the latency is what the smallest takes, the rest
    /// the slope to the largest; medians.
    pub(crate) fn measure() -> Result<Self> {
        let chest = Chest::builder().budget(0).inline_limit(0).temporary()?;
        let mut times = [0.0; SIZES.len()];
        for (time, size) in times.iter_mut().zip(SIZES) {
            // Bytes without a pattern: they are stored as they are.
            let mut state = size as u64;
            let noise = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            });
            chest.insert(size, noise.take(size).collect::<Vec<u8>>())?;
            let mut runs = [0.0; RUNS];
            for run in &mut runs {
                let began = Instant::now();
                black_box(chest.get::<Vec<u8>>(size)?.len());
                *run = began.elapsed().as_secs_f64();
            }
            runs.sort_by(f64::total_cmp);
            *time = runs[RUNS / 2];
        }
        let per_byte = (times[SIZES.len() - 1] - times[1]) / (SIZES[SIZES.len() - 1] - SIZES[1]) as f64;
        Ok(Self { latency: (times[0] - per_byte * SIZES[0] as f64).max(0.0), per_byte: per_byte.max(0.0) })
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (micros, rate) = (self.latency * 1e6, 1e-6 / self.per_byte);
        write!(f, "A reload takes {micros:.0} µs and a second for each {rate:.0} MB, as measured on this machine.")
    }
}
