//! What the store does while its storage is slow, or the system short of memory.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use crate::disk::{Os, Storage, StorageFile};
use crate::memory::Reading;
use crate::{Chest, Decoder, Durability, Encoder, Format, Kind, Result, Value};

/// Waits for what happens in other threads.
#[track_caller]
fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("it does not happen");
}

/// Storage on which no file is made while its gate is closed, and nothing made durable if it is told so.
#[derive(Clone, Debug, Default)]
struct Gated(Arc<(Mutex<Gate>, Condvar)>);

#[derive(Debug, Default)]
struct Gate {
    is_closed: bool,
    waiting: usize,
    fails_to_sync: bool,
    /// What making a file takes.
    pause: Duration,
}

const OS: Os = Os { private: true };

impl Gated {
    fn set(&self, is_closed: bool) {
        self.0.0.lock().unwrap().is_closed = is_closed;
        self.0.1.notify_all();
    }

    fn waiting(&self) -> usize {
        self.0.0.lock().unwrap().waiting
    }

    fn slow_down(&self, pause: Duration) {
        self.0.0.lock().unwrap().pause = pause;
    }

    fn fail_to_sync(&self, fails: bool) {
        self.0.0.lock().unwrap().fails_to_sync = fails;
    }
}

/// Opens a gate also when a test fails, whose threads would wait for ever.
struct Opens<'a>(&'a Gated);

impl Drop for Opens<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Storage for Gated {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let mut gate = self.0.0.lock().unwrap();
        gate.waiting += 1;
        gate = self.0.1.wait_while(gate, |gate| gate.is_closed).unwrap();
        gate.waiting -= 1;
        let pause = gate.pause;
        drop(gate);
        thread::sleep(pause);
        OS.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        OS.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OS.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OS.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OS.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OS.list(dir)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        match self.0.0.lock().unwrap().fails_to_sync {
            true => Err(io::Error::other("the medium is gone")),
            false => OS.sync(path),
        }
    }

    fn boot(&self) -> String {
        OS.boot()
    }
}

fn block(number: u64) -> Vec<u64> {
    vec![number; 5000]
}

#[test]
fn inserts_wait_for_slow_storage_and_reads_of_residents_do_not() {
    const THREADS: u64 = 4;
    const EACH: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let storage = Gated::default();
    let size = Value::size(&block(0)) as u64;
    let budget = 10 * size;
    let settings = Chest::builder().budget(budget).durability(Durability::None).inline_limit(0);
    let chest = settings.open_on(dir.path(), Arc::new(storage.clone())).unwrap();
    chest.insert("hot", block(7)).unwrap();
    chest.insert("old", block(8)).unwrap();
    chest.flush().unwrap();
    // Held, or it would be the first to leave.
    let hot = chest.get::<Vec<u64>>("hot").unwrap();
    storage.set(true);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let chest = &chest;
            scope.spawn(move || {
                for i in 0..EACH {
                    chest.insert((thread, i), block(thread * EACH + i)).unwrap();
                }
            });
        }
        let opens = Opens(&storage);
        // Until all of them wait, at the gate or for those who are there; the background writer may be one of those.
        let store = chest.store().unwrap();
        until(|| storage.waiting() > 0 && storage.waiting() + store.state().waiting >= THREADS as usize);
        let stats = chest.stats().unwrap();
        assert!(stats.values < 20, "no queue grows: {stats}");
        assert!(stats.resident_bytes <= budget + THREADS * size, "one value a thread is on its way: {stats}");
        // Nobody who needs no room waits, not even for the disk.
        for _ in 0..1000 {
            assert!(Arc::ptr_eq(&hot, &chest.get("hot").unwrap()));
        }
        assert!(chest.find::<u8>("nobody").unwrap().is_none() && chest.contains_key("old").unwrap());
        drop(opens);
    });
    let stats = chest.stats().unwrap();
    assert!(stats.peak_bytes <= budget + THREADS * size, "{stats}");
    for (thread, i) in (0..THREADS).flat_map(|thread| (0..EACH).map(move |i| (thread, i))) {
        assert_eq!(*chest.get::<Vec<u64>>((thread, i)).unwrap(), block(thread * EACH + i));
    }
}

#[test]
fn hits_of_many_threads_are_all_counted_and_hold_nothing_afterwards() {
    const THREADS: u64 = 4;
    const EACH: u64 = 10_000;
    let chest = Chest::temporary().unwrap();
    chest.extend((0..100_u64).map(|i| (i, i))).unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let chest = &chest;
            scope.spawn(move || {
                (0..EACH).for_each(|i| assert_eq!(*chest.get::<u64>((i + thread) % 100).unwrap(), (i + thread) % 100))
            });
        }
        for _ in 0..100 {
            assert!(chest.stats().unwrap().pinned <= THREADS);
        }
    });
    let stats = chest.stats().unwrap();
    assert_eq!((stats.hits, stats.pinned), (THREADS * EACH, 0));
    let held = chest.get::<u64>(7).unwrap();
    assert_eq!(chest.stats().unwrap().pinned, 1);
    drop(held);
}

#[test]
fn a_hit_is_not_older_than_what_any_chest_had_published() {
    const LAST: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let open = || Chest::builder().durability(Durability::None).open(dir.path()).unwrap();
    let (ours, theirs) = (open(), open());
    ours.insert("k", 0_u64).unwrap();
    ours.flush().unwrap();
    let published = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while published.load(SeqCst) < LAST {
                    let before = published.load(SeqCst);
                    let got = *ours.get::<u64>("k").unwrap();
                    assert!(got >= before, "{got} after {before}");
                }
            });
        }
        for number in 1..=LAST {
            // Now by another chest, now by the very one that is read.
            let chest = if number % 3 == 0 { &ours } else { &theirs };
            chest.insert("k", number).unwrap();
            chest.flush().unwrap();
            published.store(number, SeqCst);
        }
    });
    assert!(ours.stats().unwrap().hits > 0);
}

#[test]
fn what_is_in_memory_stays_the_newest_when_it_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let chest = Chest::builder().durability(Durability::None).open(dir.path()).unwrap();
    chest.insert("k", vec![1u8; 1 << 16]).unwrap();
    chest.flush().unwrap();
    let generation = || chest.store().unwrap().disk.catalog().generation();
    let before = generation();
    chest.sync().unwrap();
    assert!(before.is_some() && generation() == before);
}

#[test]
fn a_chest_that_is_only_read_starts_no_writer() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Chest::open(dir.path()).unwrap();
    let has_writers = |chest: &Chest| chest.store().unwrap().has_writers.load(SeqCst);
    open().insert("k", 1).unwrap();
    let chest = open();
    assert!(*chest.get::<i32>("k").unwrap() == 1 && !has_writers(&chest));
    chest.insert("k", 2).unwrap();
    assert!(has_writers(&chest));
    until(|| chest.stats().unwrap().dirty == 0);
}

#[test]
fn a_writer_waits_while_others_work_on_all_that_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let chest = Chest::open(dir.path()).unwrap();
    let store = chest.store().unwrap();
    let lock = store.lock_key(&"k".into()).unwrap();
    chest.insert("k", 1).unwrap();
    // It would look again and again, and keep others from the state.
    until(|| store.state().waiting > 0);
    assert_eq!(chest.stats().unwrap().dirty, 1);
    drop(lock);
    until(|| chest.stats().unwrap().dirty == 0);
}

#[test]
fn a_shortage_of_memory_lowers_the_budget_until_it_is_over() {
    let reading = |percent: u64| Reading { usable: 100 << 20, available: percent << 20 };
    let now = Arc::new(Mutex::new(reading(50)));
    let chest = Chest::builder().budget("8MiB").temporary().unwrap();
    chest.extend((0..20).map(|i| (i, vec![i as u8; 380 << 10]))).unwrap();
    let told = now.clone();
    chest.watch_memory(move || *told.lock().unwrap()).unwrap();
    let full = chest.stats().unwrap();
    assert_eq!((full.resident, full.budget_now), (20, 8 << 20));

    *now.lock().unwrap() = reading(9);
    until(|| chest.stats().unwrap().resident_bytes < 2 << 20);
    let short = chest.stats().unwrap();
    assert!(short.budget == 8 << 20 && short.budget_now < 2 << 20, "{short}");
    assert!(short.to_string().contains("short of memory"), "{short}");
    // Everything can be read and written all the same.
    chest.insert("large", vec![7u8; 3 << 20]).unwrap();
    assert_eq!(chest.get::<Vec<u8>>("large").unwrap().len(), 3 << 20);
    assert!((0..20).all(|i| chest.get::<Vec<u8>>(i).unwrap()[0] == i as u8));
    // What the user says holds as well.
    chest.set_budget("16MiB").unwrap();
    assert!(chest.stats().unwrap().budget_now < 3 << 20);
    chest.set_budget("8MiB").unwrap();

    *now.lock().unwrap() = reading(60);
    until(|| chest.stats().unwrap().budget_now == 8 << 20);
    assert!(!chest.stats().unwrap().to_string().contains("short of memory"));
}

#[test]
fn a_watch_of_this_system_ends_with_its_chest() {
    let chest = Chest::builder().watch_memory(true).temporary().unwrap();
    chest.insert("k", 1).unwrap();
    let path = chest.path().to_owned();
    drop(chest);
    assert!(!path.exists());
}

fn durable_on(dir: &Path, storage: &Gated) -> Chest {
    let settings = Chest::builder().durability(Durability::Immediate).inline_limit(0);
    settings.open_on(dir, Arc::new(storage.clone())).unwrap()
}

#[test]
fn flush_tells_what_the_background_could_not_make_durable() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Gated::default();
    let chest = durable_on(dir.path(), &storage);
    storage.fail_to_sync(true);
    chest.insert("x", block(1)).unwrap();
    until(|| chest.stats().unwrap().published == 1);
    assert!(chest.flush().is_err());
    assert!(chest.flush().is_err(), "as often as it is asked");
    storage.fail_to_sync(false);
    chest.flush().unwrap();
    let is_unsynced = || chest.store().unwrap().is_unsynced.load(SeqCst);
    assert!(!is_unsynced());
    assert!(chest.remove("x").unwrap());
    assert!(!is_unsynced(), "a removal is durable too");
}

#[cfg(feature = "ndarray")]
#[test]
fn rows_whose_sync_fails_are_appended_once() {
    use ndarray::Array1;

    let dir = tempfile::tempdir().unwrap();
    let storage = Gated::default();
    let chest = durable_on(dir.path(), &storage);
    let rows = |value: f64| Array1::from_elem(5_000, value);
    chest.append("log", rows(1.0)).unwrap();
    storage.fail_to_sync(true);
    let error = chest.append("log", rows(2.0)).unwrap_err();
    assert!(error.to_string().contains("log"), "{error}");
    let len = || chest.get::<Array1<f64>>("log").unwrap().len();
    assert_eq!(len(), 10_000);
    assert!(chest.compact("log").is_err());
    assert_eq!((len(), chest.info("log").unwrap().parts), (10_000, 1));
    storage.fail_to_sync(false);
    chest.append("log", rows(3.0)).unwrap();
    assert_eq!(len(), 15_000);
}

#[test]
fn a_long_change_keeps_no_other_value_from_the_disk_and_is_published_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Gated::default();
    let chest = Chest::builder().inline_limit(0).open_on(dir.path(), Arc::new(storage.clone())).unwrap();
    // The writer is kept until the change has begun.
    storage.set(true);
    let _opens = Opens(&storage);
    chest.insert("old", block(0)).unwrap();
    until(|| storage.waiting() == 1);
    chest.insert("model", block(1)).unwrap();
    let change = |model: &mut Vec<u64>| {
        storage.set(false);
        let is_awaited = |state: &super::Locked<'_>| state.busy.values().any(|work| work.is_awaited);
        until(|| is_awaited(&chest.store().unwrap().state()));
        chest.insert("new", block(2)).unwrap();
        until(|| chest.stats().unwrap().published == 2);
        model[0] = 7;
    };
    chest.update("model", change).unwrap();
    let stats = chest.stats().unwrap();
    assert_eq!((stats.published, stats.dirty), (3, 0));
    assert_eq!(chest.get::<Vec<u64>>("model").unwrap()[0], 7);
}

#[test]
fn what_a_removal_took_is_given_back_where_it_is_not_durable() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Gated::default();
    let chest = durable_on(dir.path(), &storage);
    chest.insert("x", block(1)).unwrap();
    chest.flush().unwrap();
    storage.fail_to_sync(true);
    // There is something that a sync has to wait for.
    chest.insert("y", block(2)).unwrap();
    assert!(chest.flush().is_err());
    let error = chest.take::<Vec<u64>>("x").unwrap_err();
    assert_eq!(*error.into_value::<Vec<u64>>().unwrap(), block(1));
    assert!(chest.find::<Vec<u64>>("x").unwrap().is_none());
    storage.fail_to_sync(false);
    chest.flush().unwrap();
}

#[test]
fn of_those_who_take_a_value_one_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let [ours, theirs] = [(), ()].map(|()| Chest::open(dir.path()).unwrap());
    for round in 0..50u64 {
        ours.insert("x", block(round)).unwrap();
        ours.flush().unwrap();
        // Both have it in memory.
        assert_eq!(*theirs.get::<Vec<u64>>("x").unwrap(), block(round));
        let taken: Vec<_> = thread::scope(|scope| {
            let takers = [&ours, &theirs].map(|chest| scope.spawn(|| chest.take::<Vec<u64>>("x")));
            takers.into_iter().filter_map(|taker| taker.join().unwrap().ok()).collect()
        });
        assert_eq!(taken.len(), 1, "in round {round}");
        assert_eq!(*taken[0], block(round));
    }
}

/// Ends threads also when a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn a_flush_ends_while_others_go_on_inserting() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Gated::default();
    storage.slow_down(Duration::from_millis(4));
    let settings = Chest::builder().durability(Durability::None).inline_limit(0);
    let chest = settings.open_on(dir.path(), Arc::new(storage.clone())).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for key in 0..4u64 {
            let (chest, is_over) = (&chest, &is_over);
            scope.spawn(move || {
                for number in 0.. {
                    if is_over.load(SeqCst) {
                        break;
                    }
                    chest.insert(key, block(number)).unwrap();
                    thread::sleep(Duration::from_micros(500));
                }
            });
        }
        let flush = scope.spawn(|| {
            until(|| chest.len().unwrap() == 4);
            (0..5).for_each(|_| chest.flush().unwrap());
            assert_eq!(chest.store().unwrap().disk.catalog().totals().unwrap().0, 4);
        });
        let _over = Over(&is_over);
        until(|| flush.is_finished());
    });
}

#[test]
fn a_flush_publishes_what_was_there_although_an_older_one_is_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Gated::default();
    let settings = || Chest::builder().durability(Durability::None).inline_limit(0);
    let chest = settings().open_on(dir.path(), Arc::new(storage.clone())).unwrap();
    let store = chest.store().unwrap();
    storage.set(true);
    let opens = Opens(&storage);
    chest.insert("x", block(1)).unwrap();
    until(|| storage.waiting() == 1);
    chest.insert("x", block(2)).unwrap();
    thread::scope(|scope| {
        let flush = scope.spawn(|| chest.flush().unwrap());
        until(|| store.state().waiting > 0);
        chest.insert("x", block(3)).unwrap();
        // Long enough to look before the writer is done with it.
        storage.slow_down(Duration::from_millis(300));
        drop(opens);
        flush.join().unwrap();
        let found = settings().open(dir.path()).unwrap().get::<Vec<u64>>("x").unwrap();
        assert!(found[0] >= 2, "{}", found[0]);
    });
}

/// Panics when it ends.
struct Grudging(bool);

impl Drop for Grudging {
    fn drop(&mut self) {
        assert!(!self.0 || thread::panicking(), "not yet");
    }
}

impl Value for Grudging {
    const KIND: Kind = Kind::Plain;
    fn type_name() -> String {
        "Grudging".to_owned()
    }
    fn size(&self) -> usize {
        100
    }
    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        out.write_all(&[7; 100])?;
        Ok(Format::new("grudging", "x"))
    }
    fn decode(_: &mut Decoder) -> Result<Self> {
        Ok(Self(false))
    }
}

#[test]
fn a_value_that_panics_when_it_ends_ends_no_writer() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Gated::default();
    let settings = Chest::builder().durability(Durability::None).inline_limit(0);
    let chest = settings.open_on(dir.path(), Arc::new(storage.clone())).unwrap();
    storage.set(true);
    let opens = Opens(&storage);
    chest.insert("x", Grudging(true)).unwrap();
    chest.insert("y", block(1)).unwrap();
    until(|| storage.waiting() == 1);
    // The writer alone has the old one now.
    chest.insert("x", Grudging(false)).unwrap();
    drop(opens);
    until(|| chest.stats().unwrap().dirty == 0);
    chest.insert("z", block(2)).unwrap();
    until(|| chest.stats().unwrap().dirty == 0);
}
