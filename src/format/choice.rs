//! Whether an array is compressed, and how: by what pays.
//!
//! A sample of it is packed with each method and unpacked again. A method costs the time that the disk takes to read what
//! is stored, and the time of unpacking. Room on the disk has a price as well: each stored byte costs as much again as
//! reading it at [`ROOM`] would. The cheapest wins, if it is worth it at all:
//!
//! - a raw array can be mapped, which is worth a quarter of its size;
//! - unpacking must not take longer than the disk takes for what it saves; twice as long where half of the room is saved.

use std::fmt;
use std::io;
use std::time::Instant;

use super::blosc::{Compressor, Decompressor, Recipe};
use super::{Compression, blank::Blank, threads};

/// Bytes a second.
type Speed = f64;

/// What room on the disk is worth.
const ROOM: Speed = 256e6;

/// The size that something has to shrink to, for compression to be worth the trouble; and if room is all that counts.
const WORTH: f64 = 0.75;
const WORTH_SMALL: f64 = 0.97;

/// Smaller arrays are not worth a frame's header.
const SMALLEST: usize = 32 << 10;

/// So many pieces of the array are looked at, each so long.
const PIECES: usize = 4;
const PIECE: usize = 64 << 10;

/// How an array is stored, and why.
#[derive(Debug)]
pub(super) struct Choice {
    /// None for as it is.
    pub(super) recipe: Option<Recipe>,
    pub(super) why: String,
}

/// What a method does to a sample.
#[derive(Clone, Copy, Debug)]
struct Trial {
    recipe: Recipe,
    /// Packed by unpacked length.
    ratio: f64,
    /// Unpacking, with one thread.
    speed: Speed,
}

/// Chooses for an array of `len` bytes and elements of `typesize`, of which `piece` gives the bytes at an offset. `disk`
/// measures the disk; it is asked if that matters.
pub(super) fn choose<'a>(
    wanted: Compression,
    len: usize,
    typesize: usize,
    piece: impl Fn(usize, usize) -> io::Result<std::borrow::Cow<'a, [u8]>>,
    disk: impl FnOnce() -> Speed,
) -> io::Result<Option<Choice>> {
    let recipes: &[Recipe] = match wanted {
        _ if len < SMALLEST => return Ok(None),
        Compression::Never => return Ok(Some(Choice { recipe: None, why: "never compressed, as asked".to_owned() })),
        Compression::Auto => &[Recipe::BYTES, Recipe::BITS],
        Compression::Fast => &[Recipe::BYTES],
        Compression::Small => &[Recipe::BYTES_SMALL, Recipe::BITS_SMALL],
    };
    let mut sample = Vec::with_capacity(PIECES);
    for n in 0..PIECES {
        // From all of the array: its beginning may be unlike the rest.
        let start = (len - PIECE.min(len)) / (PIECES - 1) * n;
        let start = start - start % typesize;
        let end = (start + PIECE - PIECE % typesize).min(len);
        sample.push(piece(start, end)?);
    }
    let trials = recipes.iter().map(|&recipe| Trial::run(recipe, typesize, &sample)).collect::<io::Result<Vec<_>>>()?;
    Ok(Some(decide(wanted, &trials, threads(len), disk)))
}

fn decide(wanted: Compression, trials: &[Trial], threads: usize, disk: impl FnOnce() -> Speed) -> Choice {
    let (worth, is_fixed) = match wanted {
        Compression::Small => (WORTH_SMALL, true),
        Compression::Fast => (WORTH, true),
        _ => (WORTH, false),
    };
    let smallest = trials.iter().map(|trial| trial.ratio).fold(f64::INFINITY, f64::min);
    if smallest >= worth {
        return Choice { recipe: None, why: format!("a sample shrinks only to {}", Percent(smallest)) };
    }
    let raw = |why| Choice { recipe: None, why };
    let packed = |trial: &Trial, why| Choice { recipe: Some(trial.recipe), why };
    if is_fixed {
        let best = trials.iter().min_by(|a, b| a.ratio.total_cmp(&b.ratio));
        return best.map_or_else(
            || raw(String::new()),
            |best| packed(best, format!("as asked; a sample shrinks to {}", Percent(best.ratio))),
        );
    }
    let disk = disk().max(1.0);
    let unpacking = |trial: &Trial| 1.0 / (trial.speed * threads as f64);
    let pays = |trial: &&Trial| {
        let patience = if trial.ratio <= 0.5 { 2.0 } else { 1.0 };
        trial.ratio < worth && unpacking(trial) <= (1.0 - trial.ratio) / disk * patience
    };
    let cost = |trial: &Trial| trial.ratio * (1.0 / disk + 1.0 / ROOM) + unpacking(trial);
    let cheaper = |a: &&Trial, b: &&Trial| cost(a).total_cmp(&cost(b));
    let best = trials.iter().filter(pays).min_by(cheaper);
    let told = |trial: &Trial| {
        let (ratio, speed, disk) = (Percent(trial.ratio), trial.speed * threads as f64 / 1e6, disk / 1e6);
        format!("a sample shrinks to {ratio} and unpacks at {speed:.0} MB/s; the disk reads {disk:.0} MB/s")
    };
    match best {
        Some(best) => packed(best, told(best)),
        // Of the one that would do if it were quicker.
        None => raw(trials.iter().min_by(cheaper).map(told).unwrap_or_default()),
    }
}

impl Trial {
    fn run(recipe: Recipe, typesize: usize, sample: &[std::borrow::Cow<'_, [u8]>]) -> io::Result<Self> {
        /// The fastest counts: the others were disturbed.
        const TIMES: usize = 3;
        let mut compressor = Compressor::new(recipe, typesize, PIECE - PIECE % typesize)?;
        let mut packed = Vec::with_capacity(sample.len());
        for piece in sample {
            let mut chunk = Vec::new();
            compressor.compress(piece, &mut chunk)?;
            packed.push(chunk);
        }
        let (mut decompressor, mut unpacked) = (Decompressor::new()?, vec![0; PIECE]);
        let mut best = f64::INFINITY;
        for _ in 0..TIMES {
            let began = Instant::now();
            for (chunk, piece) in packed.iter().zip(sample) {
                decompressor.decompress(chunk, Blank::over(&mut unpacked[..piece.len()]))?;
            }
            best = best.min(began.elapsed().as_secs_f64());
        }
        let before: usize = sample.iter().map(|piece| piece.len()).sum();
        let after: usize = packed.iter().map(Vec::len).sum();
        Ok(Self { recipe, ratio: after as f64 / before as f64, speed: before as f64 / best.max(1e-9) })
    }
}

/// A share, for people.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", self.0 * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn chosen(
        wanted: Compression,
        trials: &[(Recipe, f64, Speed)],
        threads: usize,
        disk: Speed,
    ) -> Option<&'static str> {
        let trials: Vec<_> = trials.iter().map(|&(recipe, ratio, speed)| Trial { recipe, ratio, speed }).collect();
        decide(wanted, &trials, threads, || disk).recipe.map(|recipe| recipe.name)
    }

    const SMOOTH: [(Recipe, f64, Speed); 2] = [(Recipe::BYTES, 0.14, 10e9), (Recipe::BITS, 0.105, 4e9)];

    #[test]
    fn the_slower_the_disk_the_smaller_the_file() {
        assert_eq!(chosen(Compression::Auto, &SMOOTH, 2, 100e6), Some("lz4+bitshuffle"));
        assert_eq!(chosen(Compression::Auto, &SMOOTH, 2, 1e9), Some("lz4+bitshuffle"));
        assert_eq!(chosen(Compression::Auto, &SMOOTH, 1, 10e9), Some("lz4+shuffle"));
    }

    #[test]
    fn unpacking_is_never_slower_than_what_it_saves_is_worth() {
        // Saves 30 %, at 1 GB/s: 0.3 s for each GB, on a disk of 1 GB/s.
        let weak = |speed| [(Recipe::BYTES, 0.7, speed)];
        assert_eq!(chosen(Compression::Auto, &weak(4e9), 1, 1e9), Some("lz4+shuffle"));
        assert_eq!(chosen(Compression::Auto, &weak(3e9), 1, 1e9), None);
        assert_eq!(chosen(Compression::Auto, &weak(3e9), 2, 1e9), Some("lz4+shuffle"));
        // As fast as memory: nothing pays, but half the room is worth some time.
        assert_eq!(chosen(Compression::Auto, &[(Recipe::BYTES, 0.14, 6e9)], 1, 10e9), Some("lz4+shuffle"));
        assert_eq!(chosen(Compression::Auto, &SMOOTH, 1, 100e9), None);
    }

    #[test]
    fn what_is_asked_for_is_done_whatever_the_disk() {
        let hard = [(Recipe::BYTES_SMALL, 0.9, 1e6), (Recipe::BITS_SMALL, 0.8, 1e6)];
        assert_eq!(chosen(Compression::Small, &hard, 1, 1e12), Some("lz4hc+bitshuffle"));
        assert_eq!(chosen(Compression::Fast, &SMOOTH[..1], 1, 1e12), Some("lz4+shuffle"));
        assert_eq!(chosen(Compression::Fast, &hard[..1], 1, 1.0), None);
        assert_eq!(chosen(Compression::Auto, &[(Recipe::BYTES, 0.8, 1e12)], 1, 1.0), None);
    }

    #[test]
    fn a_sample_is_taken_from_all_of_the_array() {
        // Noise, but for its beginning.
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let noise: Vec<u8> = (0..1 << 20).map(|i| if i < 100_000 { 0 } else { next() }).collect();
        let piece = |bytes: &'static [u8]| move |start: usize, end: usize| Ok(Cow::Borrowed(&bytes[start..end]));
        let noise: &'static [u8] = noise.leak();
        let choice = choose(Compression::Auto, noise.len(), 8, piece(noise), || 1.0).unwrap().unwrap();
        assert!(choice.recipe.is_none() && choice.why.contains("shrinks only to 7"), "{choice:?}");
        let zeros: &'static [u8] = vec![0; 100_001].leak();
        for typesize in [1, 3, 16, 255] {
            let choice = choose(Compression::Auto, zeros.len(), typesize, piece(zeros), || 100e6).unwrap().unwrap();
            assert!(choice.recipe.is_some(), "{choice:?}");
        }
        assert!(choose(Compression::Small, 1000, 8, piece(zeros), || 1.0).unwrap().is_none());
    }
}
