//! What a call of a stage costs whose result is there: `cargo bench --workspace --bench stages`.
//!
//! Each time is the median of five runs, with the floor that does the least that could do: a `HashMap` behind a lock whose
//! keys are the arguments.

use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use icechest::{Chest, Result, stage};
use ndarray::Array1;

const RUNS: usize = 5;

fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let chest = Chest::open(dir.path().join("chest"))?;
    let floor = floor();
    println!("{:<58}{:>12}{:>10}", "a hit", "µs", "ratio");
    let show = |what: &str, time: f64| println!("{what:<58}{:>12.3}{:>10.1}", time * 1e6, time / floor);
    show("HashMap behind an RwLock (floor)", floor);
    show("builder, two small arguments, in memory", builder(&chest)?);
    show("attribute, two small arguments, in memory, an Arc", repeat(100_000, || shared(&chest, 7, 0.5).map(drop))?);
    show("attribute, two small arguments, in memory, a clone", repeat(100_000, || cloned(&chest, 7, 0.5).map(drop))?);
    let file = dir.path().join("input.bin");
    std::fs::write(&file, vec![7u8; 64 << 20])?;
    // Until its time tells all changes.
    std::thread::sleep(Duration::from_millis(100));
    show(
        "a file of 64 MiB as an argument, 8 MiB array in memory",
        repeat(1000, || from_file(&chest, &file).map(drop))?,
    );
    show("the same by a new handle, on disk, with a sum", disk(&dir.path().join("chest"), &file)?);
    Ok(())
}

#[stage(chest = chest, ignore(chest))]
fn shared(chest: &Chest, k: u64, rate: f64) -> Result<Arc<Vec<f64>>> {
    Ok(Arc::new(vec![rate; k as usize]))
}

#[stage(chest = chest, ignore(chest))]
fn cloned(chest: &Chest, k: u64, rate: f64) -> Result<Vec<f64>> {
    Ok(vec![rate; k as usize])
}

#[stage(chest = chest, ignore(chest), path(file))]
fn from_file(chest: &Chest, file: &Path) -> Result<Arc<Array1<f64>>> {
    let bytes = std::fs::read(file)?;
    Ok(Arc::new(Array1::from_shape_fn(1 << 20, |i| f64::from(bytes[i]))))
}

/// Seconds that a call takes: the median of some runs of many calls, after one that computes.
fn repeat(calls: usize, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    call()?;
    let mut times = [0.0; RUNS];
    for time in &mut times {
        let began = Instant::now();
        for _ in 0..calls {
            call()?;
        }
        *time = began.elapsed().as_secs_f64() / calls as f64;
    }
    Ok(median(times))
}

fn median(mut times: [f64; RUNS]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

fn builder(chest: &Chest) -> Result<f64> {
    let stage = chest.stage("built");
    repeat(100_000, || {
        let value = stage.arg("k", 7).arg("rate", 0.5).run(|| vec![0.5; 7])?;
        black_box(value);
        Ok(())
    })
}

fn floor() -> f64 {
    let map = RwLock::new(HashMap::from([((7u64, 0.5f64.to_bits()), Arc::new(vec![0.5; 7]))]));
    let get = || {
        let map = map.read().unwrap_or_else(PoisonError::into_inner);
        black_box(map.get(black_box(&(7, 0.5f64.to_bits()))).cloned());
        Ok(())
    };
    repeat(100_000, get).unwrap_or(f64::NAN)
}

/// As a later run has it: nothing is in memory, and the file's digest is in the catalog.
fn disk(dir: &Path, file: &Path) -> Result<f64> {
    let mut times = [0.0; RUNS];
    for time in &mut times {
        let chest = Chest::open(dir)?;
        let began = Instant::now();
        black_box(from_file(&chest, file)?.sum());
        *time = began.elapsed().as_secs_f64();
    }
    Ok(median(times))
}
