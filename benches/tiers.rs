//! What the tiers cost, as ratios against a named floor in the same run: `cargo bench --workspace --bench tiers`.
//!
//! Arrays that exceed the budget four times are compared with plain files of the same bytes (`std::fs`), small values
//! with a hand-written SQLite table. Each figure is the median of five runs.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use icechest::{Chest, Result};
use ndarray::Array1;

const RUNS: usize = 5;
const ARRAYS: usize = 64;
const LEN: usize = 512 << 10;
const SMALL: usize = 20_000;

fn main() -> Result<()> {
    // `-- small` leaves the arrays out.
    if std::env::args().any(|argument| argument == "small") {
        return small();
    }
    println!("{ARRAYS} float64 arrays of {} MiB, budget a quarter of them", (LEN * 8) >> 20);
    println!("{:<28}{:>12}{:>12}{:>10}", "", "chest MiB/s", "files MiB/s", "ratio");
    for (name, array) in [("smooth", smooth()), ("noise", noise())] {
        arrays(name, &array)?;
    }
    println!("\n{SMALL} values of 256 bytes, all within the budget");
    println!("{:<28}{:>12}{:>12}{:>10}", "", "chest k/s", "SQLite k/s", "ratio");
    small()
}

/// A slowly changing signal, as measurements are.
fn smooth() -> Array1<f64> {
    let mut value = 0.0;
    (0..LEN)
        .map(|i| {
            value += ((i * 7919) % 13) as f64 - 6.0;
            value
        })
        .collect()
}

/// Bits without any pattern.
fn noise() -> Array1<f64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as f64 / u64::MAX as f64
    };
    (0..LEN).map(|_| next()).collect()
}

fn arrays(name: &str, array: &Array1<f64>) -> Result<()> {
    let bytes: Vec<u8> = array.iter().flat_map(|x| x.to_ne_bytes()).collect();
    let mib = (ARRAYS * bytes.len()) as f64 / (1 << 20) as f64;
    let (mut chest_in, mut chest_out, mut files_in, mut files_out) = (vec![], vec![], vec![], vec![]);
    for _ in 0..RUNS {
        let dir = tempfile::tempdir()?;
        let chest = Chest::builder().budget(ARRAYS * bytes.len() / 4).open(dir.path().join("chest"))?;
        chest_in.push(time(|| {
            (0..ARRAYS).try_for_each(|i| chest.insert(i, array.clone()))?;
            chest.flush()
        })?);
        chest_out.push(time(|| {
            (0..ARRAYS).try_for_each(|i| {
                black_box(chest.get::<Array1<f64>>(i)?.sum());
                Ok(())
            })
        })?);
        files_in.push(time(|| (0..ARRAYS).try_for_each(|i| Ok(std::fs::write(file(dir.path(), i), &bytes)?)))?);
        files_out.push(time(|| {
            (0..ARRAYS).try_for_each(|i| {
                let bytes = std::fs::read(file(dir.path(), i))?;
                black_box(
                    bytes.chunks_exact(8).map(|x| f64::from_ne_bytes(x.try_into().unwrap_or_default())).sum::<f64>(),
                );
                Ok(())
            })
        })?);
    }
    line(&format!("{name}: insert and flush"), mib, &mut chest_in, &mut files_in);
    line(&format!("{name}: read all, with sum"), mib, &mut chest_out, &mut files_out);
    Ok(())
}

fn small() -> Result<()> {
    let value = vec![7u8; 256];
    let thousands = SMALL as f64 / 1000.0;
    let (mut chest_in, mut chest_hit, mut chest_cold) = (vec![], vec![], vec![]);
    let (mut sqlite_in, mut sqlite_out) = (vec![], vec![]);
    for _ in 0..RUNS {
        let dir = tempfile::tempdir()?;
        let chest = Chest::open(dir.path().join("chest"))?;
        chest_in.push(time(|| {
            (0..SMALL).try_for_each(|i| chest.insert(i, value.clone()))?;
            chest.flush()
        })?);
        let read = |chest: &Chest| {
            time(|| {
                (0..SMALL).try_for_each(|i| {
                    black_box(chest.get::<Vec<u8>>(i)?.len());
                    Ok(())
                })
            })
        };
        chest_hit.push(read(&chest)?);
        drop(chest);
        chest_cold.push(read(&Chest::open(dir.path().join("chest"))?)?);

        let (put, get) = sqlite(&dir.path().join("floor.sqlite"), &value)
            .map_err(|error| icechest::Error::new(icechest::ErrorKind::Io, "the floor failed").with_source(error))?;
        sqlite_in.push(put);
        sqlite_out.push(get);
    }
    line("insert and flush", thousands, &mut chest_in, &mut sqlite_in);
    line("get, from memory", thousands, &mut chest_hit, &mut sqlite_out.clone());
    line("get, from disk", thousands, &mut chest_cold, &mut sqlite_out);
    Ok(())
}

/// The floor for small values: one transaction of inserts, then one query for each value.
fn sqlite(path: &Path, value: &[u8]) -> rusqlite::Result<(Duration, Duration)> {
    let mut connection = rusqlite::Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.execute_batch("CREATE TABLE t (k TEXT PRIMARY KEY, v BLOB)")?;
    let began = Instant::now();
    let transaction = connection.transaction()?;
    for i in 0..SMALL {
        transaction.prepare_cached("INSERT INTO t VALUES (?1, ?2)")?.execute((i.to_string(), value))?;
    }
    transaction.commit()?;
    let put = began.elapsed();
    let began = Instant::now();
    for i in 0..SMALL {
        let mut get = connection.prepare_cached("SELECT v FROM t WHERE k = ?1")?;
        black_box(get.query_row([i.to_string()], |row| row.get::<_, Vec<u8>>(0))?.len());
    }
    Ok((put, began.elapsed()))
}

fn file(dir: &Path, i: usize) -> std::path::PathBuf {
    dir.join(format!("{i}.bin"))
}

fn time(run: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    run()?;
    Ok(began.elapsed())
}

fn line(name: &str, amount: f64, ours: &mut [Duration], floor: &mut [Duration]) {
    let rate = |times: &mut [Duration]| {
        times.sort();
        amount / times[RUNS / 2].as_secs_f64()
    };
    let (ours, floor) = (rate(ours), rate(floor));
    println!("{name:<28}{ours:>12.0}{floor:>12.0}{:>10.2}", ours / floor);
}
