//! What the tiers cost, as ratios against a named floor in the same run: `cargo bench --workspace --bench tiers`.
//!
//! Arrays that exceed the budget four times are compared with plain files of the same bytes, written with one buffer and
//! read by mapping them; small values with a hand-written SQLite table and with a `HashMap`. Each figure is the median of five runs.
//! `-- small` leaves the arrays out; `-- small 1000000` takes so many small values.

use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use icechest::{Chest, Key, Result};
use ndarray::{Array1, Ix1};

const RUNS: usize = 5;
const ARRAYS: usize = 128;
const LEN: usize = 1 << 20;
const BUDGET: u64 = 256 << 20;
const SMALL: usize = 100_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(SMALL);
    if arguments.iter().any(|argument| argument == "small") {
        return small(number);
    }
    println!("{ARRAYS} float64 arrays of {} MiB, a budget of {} MiB", (LEN * 8) >> 20, BUDGET >> 20);
    println!("{:<40}{:>12}{:>12}{:>10}", "", "chest MiB/s", "files MiB/s", "ratio");
    for (name, array) in [("smooth", smooth()), ("noise", noise())] {
        arrays(name, &array)?;
    }
    small(number)
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

/// A chest of arrays against files of the same bytes: written with one buffer, and read by mapping them and summing.
fn arrays(name: &str, array: &Array1<f64>) -> Result<()> {
    let mib = (ARRAYS * LEN * 8) as f64 / (1 << 20) as f64;
    let mut times = Times::default();
    let zipf = zipf();
    let all: Vec<usize> = (0..ARRAYS).collect();
    for _ in 0..RUNS {
        let dir = tempfile::tempdir()?;
        // Every array is another one.
        let mut buffer = array.to_vec();
        settle();
        times.add("insert until published", true, || {
            for i in 0..ARRAYS {
                buffer[0] = i as f64;
                std::fs::write(file(dir.path(), i), bytemuck::cast_slice(&buffer))?;
            }
            Ok(())
        })?;
        let chest = Chest::builder().budget(BUDGET).open(dir.path().join("chest"))?;
        settle();
        times.add("insert until published", false, || {
            for i in 0..ARRAYS {
                let mut array = array.clone();
                array[0] = i as f64;
                chest.insert(i, array)?;
            }
            chest.flush()
        })?;
        for (what, order) in [("read one after the other", &all), ("read as Zipf has it", &zipf)] {
            times.add(&format!("{what}, get"), true, || order.iter().try_for_each(|&i| sum_mapped(dir.path(), i)))?;
            times.add(&format!("{what}, get"), false, || {
                order.iter().try_for_each(|&i| {
                    black_box(chest.get::<Array1<f64>>(i)?.sum());
                    Ok(())
                })
            })?;
            times.add(&format!("{what}, view"), true, || order.iter().try_for_each(|&i| sum_mapped(dir.path(), i)))?;
            times.add(&format!("{what}, view"), false, || {
                order.iter().try_for_each(|&i| {
                    black_box(chest.view::<f64, Ix1>(i)?.view().sum());
                    Ok(())
                })
            })?;
        }
    }
    times.print(name, mib);
    Ok(())
}

/// Waits until the disk has what was written before, so that nobody pays for another's writes.
fn settle() {
    #[cfg(unix)]
    rustix::fs::sync();
}

/// What a person would write for reading: map the file, sum it.
fn sum_mapped(dir: &Path, i: usize) -> Result<()> {
    let file = std::fs::File::open(file(dir, i))?;
    // SAFETY: nobody else writes to this benchmark's files.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    black_box(ndarray::aview1(bytemuck::cast_slice::<u8, f64>(&map)).sum());
    Ok(())
}

/// As many reads as there are arrays, most of them of few: the n-th is read in proportion to 1/n.
fn zipf() -> Vec<usize> {
    let mut random = fastrand::Rng::with_seed(7);
    let weights: Vec<f64> = (0..ARRAYS).map(|i| 1.0 / (i + 1) as f64).collect();
    let total: f64 = weights.iter().sum();
    let draw = |mut at: f64| {
        weights.iter().position(|weight| {
            at -= weight;
            at < 0.0
        })
    };
    (0..ARRAYS).map(|_| draw(random.f64() * total).unwrap_or(0) * 37 % ARRAYS).collect()
}

/// Times of the chest and of its floor, by what was done.
#[derive(Default)]
struct Times(Vec<(String, Vec<Duration>, Vec<Duration>)>);

impl Times {
    fn add(&mut self, what: &str, is_floor: bool, run: impl FnOnce() -> Result<()>) -> Result<()> {
        self.note(what, is_floor, time(run)?);
        Ok(())
    }

    fn note(&mut self, what: &str, is_floor: bool, taken: Duration) {
        let index = self.0.iter().position(|(known, ..)| known == what).unwrap_or_else(|| {
            self.0.push((what.to_owned(), Vec::new(), Vec::new()));
            self.0.len() - 1
        });
        let (_, ours, floor) = &mut self.0[index];
        if is_floor { floor.push(taken) } else { ours.push(taken) }
    }

    fn print(&mut self, name: &str, amount: f64) {
        for (what, ours, floor) in &mut self.0 {
            let name = if name.is_empty() { what.clone() } else { format!("{name}: {what}") };
            line(&name, amount, ours, floor);
        }
    }
}

fn small(number: usize) -> Result<()> {
    println!("\n{number} values of 256 bytes, all within the budget, against SQLite");
    println!("{:<40}{:>12}{:>12}{:>10}", "", "chest k/s", "SQLite k/s", "ratio");
    let value = vec![7u8; 256];
    let thousands = number as f64 / 1000.0;
    let mut times = Times::default();
    let mut warm = Times::default();
    let mut opening = Times::default();
    for _ in 0..RUNS {
        let dir = tempfile::tempdir()?;
        let floor = dir.path().join("floor.sqlite");
        let (put, get) = sqlite(&floor, number, &value).map_err(failed)?;
        times.note("insert until published", true, put);
        times.note("get, in a fresh chest", true, get);

        let chest = Chest::builder().budget(4u64 << 30).open(dir.path().join("chest"))?;
        times.add("insert until published", false, || {
            (0..number).try_for_each(|i| chest.insert(i, value.clone()))?;
            chest.flush()
        })?;
        let map: RwLock<HashMap<Key, Arc<Vec<u8>>>> = RwLock::default();
        for i in 0..number {
            map.write().unwrap_or_else(PoisonError::into_inner).insert(i.into(), Arc::new(value.clone()));
        }
        let find = |i: usize| -> Result<usize> {
            let map = map.read().unwrap_or_else(PoisonError::into_inner);
            Ok(map.get(&Key::from(i)).map_or(0, |value| value.clone().len()))
        };
        let get = |i: usize| Ok(chest.get::<Vec<u8>>(i)?.len());
        for threads in [1, 2] {
            let what = format!("get from memory, {threads} thread(s)");
            warm.add(&what, true, || in_threads(threads, number, &find))?;
            warm.add(&what, false, || in_threads(threads, number, &get))?;
        }
        drop(chest);
        let chest = Chest::builder().budget(4u64 << 30).open(dir.path().join("chest"))?;
        times.add("get, in a fresh chest", false, || {
            (0..number).try_for_each(|i| {
                black_box(chest.get::<Vec<u8>>(i)?.len());
                Ok(())
            })
        })?;
        drop(chest);
        settle();
        for _ in 0..RUNS {
            opening.add("open, get a value, close", true, || first(&floor, number / 2).map_err(failed))?;
            opening.add("open, get a value, close", false, || {
                let chest = Chest::open(dir.path().join("chest"))?;
                chest.get::<Vec<u8>>(number / 2).map(|value| _ = black_box(value.len()))
            })?;
        }
    }
    times.print("", thousands);
    println!("\nThe same from memory, against a HashMap behind an RwLock");
    println!("{:<40}{:>12}{:>12}{:>10}", "", "chest k/s", "map k/s", "ratio");
    warm.print("", thousands);
    println!("\nThe first value, against SQLite");
    println!("{:<40}{:>12}{:>12}{:>10}", "", "chest 1/s", "SQLite 1/s", "ratio");
    opening.print("", 1.0);
    Ok(())
}

fn failed(error: rusqlite::Error) -> icechest::Error {
    icechest::Error::new(icechest::ErrorKind::Io, "the floor failed").with_source(error)
}

/// All values, shared among threads.
fn in_threads(threads: usize, number: usize, get: &(dyn Fn(usize) -> Result<usize> + Sync)) -> Result<()> {
    std::thread::scope(|scope| {
        let each =
            |thread| move || (thread..number).step_by(threads).try_for_each(|i| get(i).map(|len| _ = black_box(len)));
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(each(thread))).collect();
        running.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })
}

/// The floor for opening: as whoever has such a table opens it.
fn first(path: &Path, i: usize) -> rusqlite::Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let value: Vec<u8> = connection.query_row("SELECT v FROM t WHERE k = ?1", [i.to_string()], |row| row.get(0))?;
    black_box(value.len());
    Ok(())
}

/// The floor for small values: one transaction of inserts, then one query for each value.
fn sqlite(path: &Path, number: usize, value: &[u8]) -> rusqlite::Result<(Duration, Duration)> {
    let mut connection = rusqlite::Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.execute_batch("CREATE TABLE t (k TEXT PRIMARY KEY, v BLOB)")?;
    let began = Instant::now();
    let transaction = connection.transaction()?;
    for i in 0..number {
        transaction.prepare_cached("INSERT INTO t VALUES (?1, ?2)")?.execute((i.to_string(), value))?;
    }
    transaction.commit()?;
    let put = began.elapsed();
    let began = Instant::now();
    for i in 0..number {
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
        amount / times[times.len() / 2].as_secs_f64()
    };
    let (ours, floor) = (rate(ours), rate(floor));
    println!("{name:<40}{ours:>12.0}{floor:>12.0}{:>10.2}", ours / floor);
}
