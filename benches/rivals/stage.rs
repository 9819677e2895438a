//! A stage of a file and parameters, as `stages.py` has it for the rivals.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use icechest::{Chest, StoredArray, stage};
use ndarray::{Array1, Ix1};

use super::{Result, report};

/// 64 MiB of input, and one element of the result for every eighth byte of an eighth of it.
const INPUT: usize = 64 << 20;
const RESULT: usize = 1 << 20;

#[stage(chest = chest, ignore(chest), path(file))]
fn features(chest: &Chest, file: &Path, k: u32) -> icechest::Result<Arc<Array1<f64>>> {
    Ok(Arc::new(compute(file, k)?))
}

#[stage(chest = chest, ignore(chest), path(file))]
fn mapped_features(chest: &Chest, file: &Path, k: u32) -> icechest::Result<StoredArray<f64, Ix1>> {
    Ok(compute(file, k)?.into())
}

fn compute(file: &Path, k: u32) -> icechest::Result<Array1<f64>> {
    let bytes = std::fs::read(file)?;
    Ok(Array1::from_shape_fn(RESULT, |i| f64::from(bytes[i * 8]) + f64::from(k)))
}

#[stage(chest = chest, ignore(chest))]
fn small(chest: &Chest, a: u32, b: f64) -> icechest::Result<Arc<f64>> {
    Ok(Arc::new(f64::from(a) * b))
}

pub(super) fn stage(subject: &str, phase: &str, dir: &Path, scale: f64) -> Result<()> {
    let input = dir.join("input.bin");
    if phase == "fill" {
        std::fs::write(
            &input,
            (0..super::scaled(INPUT as f64, scale).max(8 * RESULT)).map(|i| i as u8).collect::<Vec<_>>(),
        )?;
        std::thread::sleep(Duration::from_millis(200));
    }
    let expected = (0..RESULT).map(|i| f64::from((i * 8) as u8) + 5.0).sum::<f64>();
    let load = |chest: &Chest| match subject {
        "icechest-mapped" => mapped_features(chest, &input, 5),
        _ => features(chest, &input, 5).map(StoredArray::from),
    };
    let check = |found: f64| if found == expected { Ok(()) } else { Err("the result is wrong") };
    let began = Instant::now();
    let chest = Chest::open(dir.join("chest"))?;
    check(load(&chest)?.view().sum())?;
    if phase == "reopen" {
        report("fresh", began.elapsed().as_secs_f64() * 1e3)?;
        return Ok(());
    }
    report("computed", began.elapsed().as_secs_f64() * 1e3)?;
    report("file", 1e3 * median(21, || Ok(check(load(&chest)?.view().sum())?))?)?;
    let look = || Ok(if load(&chest)?.view()[0] == 5.0 { Ok(()) } else { Err("the result is wrong") }?);
    report("hit", 1e3 * median(21, look)?)?;
    small(&chest, 3, 0.5)?;
    let calls = 1000;
    let many = median(21, || {
        (0..calls).try_for_each(|_| small(&chest, 3, 0.5).map(drop))?;
        Ok(())
    });
    report("small", 1e6 * many? / f64::from(calls))?;
    chest.flush()?;
    // The same length, and one byte that counts.
    let mut bytes = std::fs::read(&input)?;
    bytes[8] ^= 1;
    std::fs::write(&input, bytes)?;
    let noticed = load(&chest)?.view().sum() != expected;
    report("noticed", f64::from(u8::from(noticed)))?;
    // As it was, for the next process.
    let mut bytes = std::fs::read(&input)?;
    bytes[8] ^= 1;
    std::fs::write(&input, bytes)?;
    std::thread::sleep(Duration::from_millis(200));
    check(load(&chest)?.view().sum())?;
    Ok(())
}

fn median(runs: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..runs {
        let began = Instant::now();
        work()?;
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[runs / 2])
}
