//! A dataset larger than its budget goes in and comes back verified, while the process stays small.
//!
//! `cargo run --release --example larger_than_memory -- --total 4GiB --budget 512MiB --dir D`
//!
//! `--trace FILE` records what happens to the values. Shows where it is as it goes on; the last line is one JSON object.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use icechest::Chest;
use ndarray::Array1;

const MIB: u64 = 1 << 20;
const ARRAY: u64 = 8 * MIB;

struct Settings {
    total: u64,
    budget: u64,
    dir: Option<PathBuf>,
    trace: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let settings = settings(std::env::args().skip(1))?;
    let temporary;
    let dir = match &settings.dir {
        Some(dir) => dir.clone(),
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path().join("chest")
        }
    };
    let mut builder = Chest::builder().budget(settings.budget);
    if let Some(file) = &settings.trace {
        builder = builder.trace(file);
    }
    let chest = builder.open(&dir)?;
    if !chest.is_empty()? {
        return Err(format!("{} holds values already; name a new directory", dir.display()).into());
    }
    let count = settings.total.div_ceil(ARRAY);
    eprintln!("{count} arrays of 8 MiB, a budget of {} MiB, in {}", settings.budget / MIB, dir.display());

    let mut shown = Shown::new("insert", count);
    let mut inserting = Duration::ZERO;
    for i in 0..count {
        let array = array(i);
        let began = Instant::now();
        chest.insert(i, array)?;
        inserting += began.elapsed();
        shown.step(i + 1, inserting);
    }
    let began = Instant::now();
    chest.flush()?;
    inserting += began.elapsed();
    shown.end(inserting);

    // In an order that is neither that of insertion nor its reverse.
    let mut shown = Shown::new("read", count);
    let stride = (count as f64 * 0.618) as u64 | 1;
    let stride = (stride..).find(|&stride| gcd(stride, count) == 1).unwrap_or(1);
    let (mut reading, mut verified, mut wrong) = (Duration::ZERO, 0, 0);
    for n in 0..count {
        let i = n * stride % count;
        let began = Instant::now();
        let found = chest.get::<Array1<f64>>(i)?;
        let sum = found.sum();
        reading += began.elapsed();
        let is_right = sum.is_finite() && *found == array(i);
        (verified, wrong) = if is_right { (verified + 1, wrong) } else { (verified, wrong + 1) };
        shown.step(n + 1, reading);
    }
    shown.end(reading);

    let rate = |time: Duration| (count * ARRAY) as f64 / 1e6 / time.as_secs_f64();
    let stats = chest.stats()?;
    println!(
        "{}",
        serde_json::json!({
            "total_bytes": count * ARRAY,
            "budget_bytes": settings.budget,
            "peak_rss_bytes": peak_rss(),
            "stored_bytes": stats.stored_bytes,
            "insert_mb_s": rate(inserting).round(),
            "read_mb_s": rate(reading).round(),
            "verified": verified,
            "wrong": wrong,
        })
    );
    if wrong > 0 { Err(format!("{wrong} arrays came back wrong").into()) } else { Ok(()) }
}

/// Noise, a different one for each number.
fn array(seed: u64) -> Array1<f64> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    std::iter::repeat_with(next).take((ARRAY / 8) as usize).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The most memory that the process ever had, as the system counts it.
fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// A line that says how far it is.
struct Shown {
    what: &'static str,
    count: u64,
    last: Instant,
    is_live: bool,
}

impl Shown {
    fn new(what: &'static str, count: u64) -> Self {
        Self { what, count, last: Instant::now(), is_live: std::io::stderr().is_terminal() }
    }

    fn step(&mut self, done: u64, time: Duration) {
        if self.is_live && self.last.elapsed() > Duration::from_millis(100) {
            self.last = Instant::now();
            eprint!("\r{}", self.line(done, time));
            // A line that is not shown is no reason to stop.
            let _ = std::io::stderr().flush();
        }
    }

    fn end(&self, time: Duration) {
        let begin = if self.is_live { "\r" } else { "" };
        eprintln!("{begin}{}", self.line(self.count, time));
    }

    fn line(&self, done: u64, time: Duration) -> String {
        let (percent, mib) = (done * 100 / self.count.max(1), done * ARRAY / MIB);
        let rate = mib as f64 / time.as_secs_f64().max(1e-9);
        let rss = peak_rss().map_or(String::new(), |rss| format!(", {} MiB of memory at most", rss / MIB));
        format!("{:<6} {percent:>3} %  {mib:>7} MiB  {rate:>6.0} MiB/s{rss}", self.what)
    }
}

fn settings(mut words: impl Iterator<Item = String>) -> Result<Settings, Box<dyn Error>> {
    let mut settings = Settings { total: 1 << 30, budget: 128 * MIB, dir: None, trace: None };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--total" => settings.total = size(&value()?)?,
            "--budget" => settings.budget = size(&value()?)?,
            "--dir" => settings.dir = Some(value()?.into()),
            "--trace" => settings.trace = Some(value()?.into()),
            _ => return Err(format!("{word:?} is unknown; use --total 4GiB --budget 512MiB --dir D --trace F").into()),
        }
    }
    Ok(settings)
}

fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; write 512MiB or 4GiB");
    let (number, unit) = match (text.strip_suffix("GiB"), text.strip_suffix("MiB")) {
        (Some(number), _) => (number, 1 << 30),
        (_, Some(number)) => (number, MIB),
        _ => (text, 1),
    };
    number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)
}
