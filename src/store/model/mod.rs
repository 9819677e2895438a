//! What threads do at the same time, in hundreds of orders: a scheduler decides who runs, the directories are real.
//!
//! A failure prints its schedule, which `shuttle::replay` runs again. `ICECHEST_SCHEDULES` says how many are tried.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod ahead;
mod changes;
mod closing;
mod closures;
mod hints;
mod pins;
mod room;
mod values;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::mpsc;
use shuttle::thread::{self, JoinHandle};

use crate::{Builder, Chest, Decoder, Durability, Encoder, ErrorKind, Format, Kind, Result, Value};

/// So many orders are tried of each scenario. Each takes 1 to 2 ms, most of them for making a chest.
const SCHEDULES: usize = 300;

/// What a `Note` takes in memory.
const SIZE: u64 = 100;

/// A budget for so many notes, and for what decoding takes besides.
const fn room_for(notes: u64) -> u64 {
    notes * SIZE + SIZE / 5
}

/// What is done by an encoder or a decoder.
type Hook = Arc<dyn Fn(Codec)>;

// One thread of the system runs all threads of a model.
std::thread_local! {
    static DURING_CODEC: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

#[derive(Clone, Copy, PartialEq)]
enum Codec {
    Encode(u64),
    Decode,
}

/// Lets the other threads run, or does what the scenario wants to be done by an encoder or a decoder.
fn during(codec: Codec) {
    match DURING_CODEC.with_borrow(Clone::clone) {
        Some(work) => work(codec),
        None => thread::yield_now(),
    }
}

fn set_codec(work: Option<Hook>) {
    drop(DURING_CODEC.replace(work));
}

#[derive(Clone, Debug)]
struct Note(u64);

impl Value for Note {
    const KIND: Kind = Kind::Plain;

    fn type_name() -> String {
        "Note".to_owned()
    }

    fn size(&self) -> usize {
        SIZE as usize
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        during(Codec::Encode(self.0));
        out.write_all(&self.0.to_le_bytes())?;
        Ok(Format::new("note", "note"))
    }

    fn decode(input: &mut Decoder) -> Result<Self> {
        let mut bytes = [0; 8];
        input.read_exact(&mut bytes)?;
        during(Codec::Decode);
        Ok(Self(u64::from_le_bytes(bytes)))
    }
}

/// Runs a scenario in many orders, each with a directory of its own.
fn explore(scenario: impl Fn(&Path) + Send + Sync + 'static) {
    let schedules = std::env::var("ICECHEST_SCHEDULES").map_or(SCHEDULES, |number| number.parse().unwrap());
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let parent = tempfile::tempdir_in(parent).unwrap();
    let scenario = Arc::new(scenario);
    // Few preemptions at the worst moments find what rarely happens at random, and the other way round.
    run(RandomScheduler::new_from_seed(1, schedules / 2), parent.path().to_owned(), scenario.clone());
    run(PctScheduler::new_from_seed(1, 3, schedules / 2), parent.path().to_owned(), scenario);
}

fn run(scheduler: impl Scheduler + 'static, parent: PathBuf, scenario: Arc<impl Fn(&Path) + Send + Sync + 'static>) {
    let mut config = shuttle::Config::new();
    // SQLite needs some.
    config.stack_size = 512 << 10;
    config.max_steps = shuttle::MaxSteps::FailAfter(20_000);
    config.silence_warnings = true;
    let next = AtomicU64::new(0);
    shuttle::Runner::new(scheduler, config).run(move || {
        set_codec(None);
        let dir = parent.join(next.fetch_add(1, SeqCst).to_string());
        scenario(&dir);
        set_codec(None);
        // Its values are checked by now; the memory that they take is not needed any more.
        let _ = std::fs::remove_dir_all(dir);
    });
}

fn settings(notes: u64) -> Builder {
    Chest::builder().budget(room_for(notes)).durability(Durability::None)
}

/// A chest that writes when room is needed.
fn temporary(dir: &Path, notes: u64) -> Chest {
    settings(notes).temporary_in(dir).temporary().unwrap()
}

/// A chest with a background writer.
fn named(dir: &Path, notes: u64) -> Chest {
    settings(notes).open(dir).unwrap()
}

fn spawn<T: Send + 'static>(chest: &Chest, work: impl FnOnce(&Chest) -> T + Send + 'static) -> JoinHandle<T> {
    let chest = chest.clone();
    thread::spawn(move || work(&chest))
}

fn join<T>(threads: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    // All of them run before the first is waited for.
    let threads: Vec<_> = threads.into_iter().collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn get(chest: &Chest, key: &str) -> Arc<Note> {
    chest.get(key).unwrap()
}

/// A chest where nobody holds anything is within its budget.
fn assert_in_budget(chest: &Chest) {
    // The writer holds what it publishes.
    chest.flush().unwrap();
    let stats = chest.stats().unwrap();
    assert_eq!(stats.pinned, 0);
    assert!(stats.resident_bytes <= stats.budget, "{stats}");
}

/// Puts the value of a key on disk alone, in a chest with room for one.
fn make_cold(chest: &Chest, key: &str) {
    chest.insert("another", Note(1000)).unwrap();
    assert!(!chest.info(key).unwrap().is_resident);
}
