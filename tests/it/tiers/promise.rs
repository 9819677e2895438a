//! The budget is a promise: what a process takes of memory, as the system counts it, in processes of their own.

use std::process::Command;

use icechest::{Chest, Compression};

use crate::helpers::dir;

const MIB: u64 = 1 << 20;
const BUDGET: u64 = 48 * MIB;
const TOTAL: u64 = 10 * BUDGET;
const WHAT: &str = "ICECHEST_TEST_PROMISE";

/// What comes on top of the budget.
const ALLOWED: u64 = BUDGET / 10 + 64 * MIB;

/// The most memory that this process ever had.
fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

/// Runs a test of this file again, in a process that does what is asked for.
fn measured(test: &str, what: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("tiers::promise::{test}"), "--nocapture", "--test-threads=1"])
        .env(WHAT, what)
        // What threads have freed is given back, and not kept for each of them by the system's allocator.
        .env("MALLOC_MMAP_THRESHOLD_", (MIB / 2).to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let peak = text.lines().find_map(|line| line.split_once("peak ")?.1.parse::<u64>().ok());
    let peak = peak.filter(|_| output.status.success()).unwrap_or_else(|| panic!("{what}: {text}"));
    println!("{what}: {} MiB for a budget of {}", peak / MIB, BUDGET / MIB);
    assert!(peak <= BUDGET + ALLOWED, "{what}: {} MiB for a budget of {}", peak / MIB, BUDGET / MIB);
}

/// All of `0..count`, in an order that is neither that of insertion nor its reverse.
fn shuffled(count: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..count).collect();
    fastrand::Rng::with_seed(3).shuffle(&mut order);
    order
}

fn goes_in_and_comes_back<V: icechest::Value + PartialEq>(
    chest: &Chest,
    bytes: u64,
    make: impl Fn(u64) -> V + Sync,
    threads: u64,
) {
    let count = TOTAL / bytes;
    let each = |thread| {
        for i in (thread..count).step_by(threads as usize) {
            chest.insert(i, make(i)).unwrap();
        }
    };
    std::thread::scope(|scope| (1..threads).for_each(|thread| _ = scope.spawn(move || each(thread))));
    each(0);
    for i in shuffled(count) {
        assert!(*chest.get::<V>(i).unwrap() == make(i), "{i}");
    }
    for entry in chest.iter::<V>().unwrap() {
        entry.unwrap();
    }
    println!("peak {}", peak_rss());
}

fn noise(seed: u64, len: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u64(..)).collect()
}

fn child(what: &str) {
    let dir = dir();
    let chest = |compression| Chest::builder().budget(BUDGET).compression(compression).open(dir.path()).unwrap();
    match what {
        "plain values" => goes_in_and_comes_back(&chest(Compression::Auto), 4 * MIB, |i| noise(i, 4 * MIB / 8), 1),
        "small values" => goes_in_and_comes_back(&chest(Compression::Auto), 4096, |i| noise(i, 512), 1),
        "plain values from four threads" => {
            goes_in_and_comes_back(&chest(Compression::Auto), 2 * MIB, |i| noise(i, 2 * MIB / 8), 4);
        }
        #[cfg(feature = "ndarray")]
        "arrays" => {
            let make = |i| ndarray::Array1::from(noise(i, MIB));
            goes_in_and_comes_back(&chest(Compression::Auto), 8 * MIB, make, 1);
        }
        #[cfg(feature = "ndarray")]
        "arrays that compress" => {
            let make = |i: u64| ndarray::Array2::from_shape_fn((1024, 1024), |(y, x)| i + (y * 1024 + x) as u64);
            goes_in_and_comes_back(&chest(Compression::Auto), 8 * MIB, make, 1);
        }
        _ => panic!("{what}"),
    }
}

#[test]
fn ten_times_the_budget_goes_in_and_comes_back() {
    const TEST: &str = "ten_times_the_budget_goes_in_and_comes_back";
    if let Ok(what) = std::env::var(WHAT) {
        return child(&what);
    }
    measured(TEST, "plain values");
    measured(TEST, "small values");
    measured(TEST, "plain values from four threads");
    #[cfg(feature = "ndarray")]
    {
        measured(TEST, "arrays");
        measured(TEST, "arrays that compress");
    }
}
