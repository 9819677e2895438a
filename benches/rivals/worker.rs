//! icechest and the floors behind `rivals.py`: `rivals_worker SUBJECT WORK PHASE DIRECTORY SCALE`.
//!
//! Prints a line of JSON for each measurement. `stores.py` does the same work with the same data for the rivals.

mod stage;

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use icechest::Chest;
use ndarray::{Array1, Ix1};
use rusqlite::Connection;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LEN: usize = 1 << 20;
const ARRAYS: f64 = 128.0;
const BUDGET: f64 = 256.0 * 1048576.0;
/// 100 MB of float64.
const LARGE: f64 = 12.5e6;
const SMALL: f64 = 100_000.0;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [subject, work, phase, dir, scale] = &arguments[..] else {
        return Err("usage: rivals_worker SUBJECT WORK PHASE DIRECTORY SCALE".into());
    };
    let (dir, scale) = (Path::new(dir), scale.parse::<f64>()?);
    match work.as_str() {
        "small-values" => small(&mut *open_small(subject, dir)?, phase, scaled(SMALL, scale)),
        "stage" => stage::stage(subject, phase, dir, scale),
        "array-100mb" => large(&*open_arrays(subject, dir, None)?, phase, scaled(LARGE, scale)),
        _ => {
            let data = Data::of(work)?;
            let store = open_arrays(subject, dir, Some((BUDGET * scale) as u64))?;
            arrays(&*store, data, phase, scaled(ARRAYS, scale))
        }
    }
}

fn scaled(amount: f64, scale: f64) -> usize {
    (amount * scale).round() as usize
}

/// Bits without any pattern: SplitMix64.
fn bits() -> impl Iterator<Item = u64> {
    (0u64..).map(|i| {
        let bits = i.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0xd134_2543_de82_ef95);
        let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    })
}

/// From 0 to 1, all bits of the mantissa in use.
fn uniform() -> impl Iterator<Item = f64> {
    bits().map(|bits| (bits >> 11) as f64 / (1u64 << 53) as f64)
}

#[derive(Clone, Copy)]
enum Data {
    /// Nothing to compress.
    Noise,
    /// A random walk in whole steps, as an instrument's readings are.
    Smooth,
}

impl Data {
    fn of(work: &str) -> Result<Self> {
        match work {
            "arrays-noise" => Ok(Self::Noise),
            "arrays-smooth" => Ok(Self::Smooth),
            _ => Err(format!("there is no work {work}").into()),
        }
    }

    fn elements(self, len: usize) -> Box<dyn Iterator<Item = f64>> {
        match self {
            Self::Noise => Box::new(uniform().take(len)),
            Self::Smooth => Box::new(bits().take(len).scan(0.0, |at, bits| {
                *at += ((bits >> 32) % 13) as f64 - 6.0;
                Some(*at)
            })),
        }
    }
}

/// What the sums must be: the arrays are the same, but for their first element, which is their number.
struct Sums {
    rest: f64,
}

impl Sums {
    fn of(data: Data, len: usize) -> Self {
        Self { rest: data.elements(len).skip(1).sum() }
    }

    /// Sums differ in their last digits, as the order of adding does.
    fn check(&self, i: usize, sum: f64) -> Result<()> {
        if (sum - (self.rest + i as f64)).abs() < 0.01 {
            return Ok(());
        }
        Err(format!("array {i} was read wrong: its sum is {sum}").into())
    }
}

trait Arrays {
    fn put(&self, i: usize, array: &Array1<f64>) -> Result<()>;
    /// Puts an array that nobody needs any more.
    fn give(&self, i: usize, array: Array1<f64>) -> Result<()> {
        self.put(i, &array)
    }
    /// Returns when all that was put is published.
    fn publish(&self) -> Result<()>;
    fn sum(&self, i: usize) -> Result<f64>;
}

fn open_arrays(subject: &str, dir: &Path, budget: Option<u64>) -> Result<Box<dyn Arrays>> {
    let views = match subject {
        "rust-files" => return Ok(Box::new(Files { dir: dir.to_owned(), piece: usize::MAX })),
        "rust-pieces" => return Ok(Box::new(Files { dir: dir.to_owned(), piece: 512 << 10 })),
        "icechest-get" => false,
        "icechest-view" => true,
        _ => return Err(format!("there is no subject {subject}").into()),
    };
    let mut builder = Chest::builder();
    if let Some(bytes) = budget {
        builder = builder.budget(bytes);
    }
    Ok(Box::new(Chested { chest: builder.open(dir.join("chest"))?, views }))
}

struct Chested {
    chest: Chest,
    views: bool,
}

impl Arrays for Chested {
    fn put(&self, i: usize, array: &Array1<f64>) -> Result<()> {
        // The chest keeps it, so it has to be another one each time.
        self.give(i, array.clone())
    }

    fn give(&self, i: usize, array: Array1<f64>) -> Result<()> {
        Ok(self.chest.insert(name(i), array)?)
    }

    fn publish(&self) -> Result<()> {
        Ok(self.chest.flush()?)
    }

    fn sum(&self, i: usize) -> Result<f64> {
        if self.views {
            return Ok(self.chest.view::<f64, Ix1>(name(i))?.view().sum());
        }
        Ok(self.chest.get::<Array1<f64>>(name(i))?.sum())
    }
}

/// What a person would write by hand.
struct Files {
    dir: PathBuf,
    /// So many bytes are written at a time.
    piece: usize,
}

impl Files {
    fn path(&self, i: usize) -> PathBuf {
        self.dir.join(format!("{i}.bin"))
    }
}

impl Arrays for Files {
    fn put(&self, i: usize, array: &Array1<f64>) -> Result<()> {
        let elements = array.as_slice().ok_or("the array is not contiguous")?;
        let mut file = fs::File::create(self.path(i))?;
        let bytes: &[u8] = bytemuck::cast_slice(elements);
        bytes.chunks(self.piece).try_for_each(|piece| file.write_all(piece))?;
        Ok(())
    }

    fn publish(&self) -> Result<()> {
        Ok(())
    }

    fn sum(&self, i: usize) -> Result<f64> {
        let file = fs::File::open(self.path(i))?;
        // SAFETY: nobody writes to the files of this benchmark while they are read.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(ndarray::aview1(bytemuck::cast_slice::<u8, f64>(&map)).sum())
    }
}

fn arrays(store: &dyn Arrays, data: Data, phase: &str, count: usize) -> Result<()> {
    let sums = Sums::of(data, LEN);
    let mib = (count * LEN * 8) as f64 / 1048576.0;
    let read = |i: usize| sums.check(i, store.sum(i)?);
    if phase == "reopen" {
        forget_peak();
        return report("reopen", mib / seconds(|| (0..count).try_for_each(read))?);
    }
    let mut array: Array1<f64> = data.elements(LEN).collect();
    if phase == "give" {
        let numbered = |i: usize| {
            array[0] = i as f64;
            array.clone()
        };
        let arrays: Vec<Array1<f64>> = (0..count).map(numbered).collect();
        let give = seconds(|| {
            arrays.into_iter().enumerate().try_for_each(|(i, array)| store.give(i, array))?;
            store.publish()
        })?;
        return report("given", mib / give);
    }
    forget_peak();
    let insert = seconds(|| {
        for i in 0..count {
            array[0] = i as f64;
            store.put(i, &array)?;
        }
        store.publish()
    })?;
    report("insert", mib / insert)?;
    drop(array);
    settle();
    report("read", mib / seconds(|| (0..count).try_for_each(read))?)?;
    let order = zipf(count);
    report("zipf", mib / seconds(|| order.iter().try_for_each(|&i| read(i)))?)?;
    report_peak()
}

/// As many reads as there are arrays, the n-th in proportion to 1/n.
fn zipf(count: usize) -> Vec<usize> {
    let weights: Vec<f64> = (1..=count).map(|n| 1.0 / n as f64).collect();
    let total: f64 = weights.iter().sum();
    let draw = |mut at: f64| {
        weights.iter().position(|weight| {
            at -= weight;
            at < 0.0
        })
    };
    // Multiplied, so that the popular ones are not the oldest.
    uniform().take(count).map(|share| draw(share * total).unwrap_or(0) * 37 % count).collect()
}

fn large(store: &dyn Arrays, phase: &str, len: usize) -> Result<()> {
    let sums = Sums::of(Data::Noise, len);
    if phase == "reopen" {
        for measure in ["get", "again"] {
            report(measure, 1e3 * seconds(|| sums.check(0, store.sum(0)?))?)?;
        }
        return Ok(());
    }
    let mut array: Array1<f64> = Data::Noise.elements(len).collect();
    array[0] = 0.0;
    let put = || {
        store.give(0, array)?;
        store.publish()
    };
    report("set", 1e3 * seconds(put)?)
}

trait Small {
    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<()>;
    /// Makes what follows one transaction; `false` when every value is published by itself.
    fn begin(&mut self, together: bool) -> Result<()>;
    /// Returns when all that was put is published.
    fn publish(&mut self) -> Result<()>;
    fn is_right(&mut self, key: &str, i: usize) -> Result<bool>;
}

fn open_small(subject: &str, dir: &Path) -> Result<Box<dyn Small>> {
    match subject {
        "icechest" => Ok(Box::new(ChestedSmall { chest: Chest::open(dir.join("chest"))?, together: true })),
        "rust-sqlite" => {
            let connection = Connection::open(dir.join("floor.sqlite"))?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.execute_batch("CREATE TABLE IF NOT EXISTS t (k TEXT PRIMARY KEY, v BLOB)")?;
            Ok(Box::new(Sqlite(connection)))
        }
        _ => Err(format!("there is no subject {subject}").into()),
    }
}

struct ChestedSmall {
    chest: Chest,
    together: bool,
}

impl Small for ChestedSmall {
    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<()> {
        self.chest.insert(key, value)?;
        if !self.together {
            self.chest.flush()?;
        }
        Ok(())
    }

    fn begin(&mut self, together: bool) -> Result<()> {
        self.together = together;
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        Ok(self.chest.flush()?)
    }

    fn is_right(&mut self, key: &str, i: usize) -> Result<bool> {
        Ok(is_value(&self.chest.get::<Vec<u8>>(key)?, i))
    }
}

struct Sqlite(Connection);

impl Small for Sqlite {
    fn put(&mut self, key: &str, value: Vec<u8>) -> Result<()> {
        self.0.prepare_cached("INSERT INTO t VALUES (?1, ?2)")?.execute((key, value))?;
        Ok(())
    }

    fn begin(&mut self, together: bool) -> Result<()> {
        if together {
            self.0.execute_batch("BEGIN")?;
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        if !self.0.is_autocommit() {
            self.0.execute_batch("COMMIT")?;
        }
        Ok(())
    }

    fn is_right(&mut self, key: &str, i: usize) -> Result<bool> {
        let mut get = self.0.prepare_cached("SELECT v FROM t WHERE k = ?1")?;
        let value: Vec<u8> = get.query_row([key], |row| row.get(0))?;
        Ok(is_value(&value, i))
    }
}

/// Values of 256 bytes: their number, then noise.
fn values(count: usize) -> Vec<Vec<u8>> {
    let mut noise = bits();
    let value = |i: usize| {
        let mut value = (i as u64).to_le_bytes().to_vec();
        value.extend(noise.by_ref().take(31).flat_map(u64::to_le_bytes));
        value
    };
    (0..count).map(value).collect()
}

fn is_value(value: &[u8], i: usize) -> bool {
    value.len() == 256 && value.first_chunk() == Some(&(i as u64).to_le_bytes())
}

fn small(store: &mut dyn Small, phase: &str, count: usize) -> Result<()> {
    let names: Vec<String> = (0..count).map(name).collect();
    if phase == "reopen" {
        for (measure, step) in [("cold", 7919), ("warm", 7919), ("shuffled", 7907)] {
            let taken = seconds(|| {
                for n in 0..count {
                    // In another order than that of writing.
                    let i = n * step % count;
                    if !store.is_right(&names[i], i)? {
                        return Err(format!("value {i} was read wrong").into());
                    }
                }
                Ok(())
            })?;
            report(measure, count as f64 / taken)?;
        }
        return Ok(());
    }
    let values = values(count);
    let taken = seconds(|| {
        store.begin(phase == "together")?;
        for (name, value) in names.iter().zip(values) {
            store.put(name, value)?;
        }
        store.publish()
    })?;
    report(if phase == "together" { "together" } else { "put" }, count as f64 / taken)
}

fn name(i: usize) -> String {
    format!("value-{i}")
}

fn seconds(run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    run()?;
    Ok(began.elapsed().as_secs_f64())
}

fn report(measure: &str, value: f64) -> Result<()> {
    println!("{}", serde_json::json!({ "measure": measure, "value": value }));
    Ok(())
}

/// Waits until the disk has what was written before, so that reads do not pay for it.
fn settle() {
    #[cfg(unix)]
    rustix::fs::sync();
}

/// The preparation of the data does not count. Where the system cannot forget, it does.
fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that this process has had, pages of mapped files included; only Linux tells.
fn report_peak() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB"));
    match kib {
        Some(kib) => report("rss", kib.trim().parse::<f64>()? / 1024.0),
        None => Ok(()),
    }
}
