//! The power fails at every point of a busy life: the chest opens, what was synced is exact, all else is exact or absent.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[cfg(feature = "ndarray")]
use ndarray::Array1;
use rusqlite::Connection;

use super::medium::{Event, Fault, Medium, Unsynced, cut};
use super::sqlite::Watch;
use crate::builder::{Builder, Durability};
use crate::chest::Chest;
use crate::error::{ErrorKind, Result};

const EIO: i32 = 5;

/// What the test did to the chest, as far as it matters afterwards.
#[derive(Clone, Debug)]
enum Step {
    /// It is about to give a key this value, or none.
    Change(u64, Option<u64>),
    /// Everything before is durable.
    Synced,
}

/// A life of a chest on a medium, and what was done.
struct Life {
    chest: Option<Chest>,
    medium: Medium,
    steps: Vec<Step>,
}

/// Of a value's number: small ones live in the catalog, others in files, some over several pages.
fn value(key: u64, number: u64) -> Vec<u64> {
    let len = [4, 40, 700, 2500][((key + number) % 4) as usize];
    (0..len).map(|i| (number << 32 | key).wrapping_mul(2 * i + 1)).collect()
}

fn builder(durability: Durability) -> Builder {
    Chest::builder().budget(20_000u64).inline_limit(400).durability(durability)
}

impl Life {
    fn begin(root: &Path, durability: Durability, medium: Medium) -> Self {
        let chest = builder(durability).open_on(root, Arc::new(medium.clone())).unwrap();
        Self { chest: Some(chest), medium, steps: Vec::new() }
    }

    fn chest(&self) -> &Chest {
        self.chest.as_ref().unwrap()
    }

    fn step(&mut self, step: Step) {
        self.medium.mark(self.steps.len());
        self.steps.push(step);
    }

    fn insert(&mut self, key: u64, number: u64) {
        self.step(Step::Change(key, Some(number)));
        self.chest().insert(key, value(key, number)).unwrap();
    }

    fn remove(&mut self, key: u64) {
        self.step(Step::Change(key, None));
        self.chest().remove(key).unwrap();
    }

    fn sync(&mut self) -> Result<()> {
        self.chest().sync()?;
        self.step(Step::Synced);
        Ok(())
    }

    fn live(&mut self) {
        for key in 0..6 {
            self.insert(key, 1);
        }
        self.sync().unwrap();
        // Replaced, removed and new values that nothing makes durable.
        for key in [0, 1, 2] {
            self.insert(key, 2);
        }
        self.chest().flush().unwrap();
        self.remove(3);
        self.insert(6, 1);
        self.insert(1, 3);
        self.chest().flush().unwrap();
        self.step(Step::Change(4, Some(4)));
        self.chest().update(4u64, |old: &mut Vec<u64>| *old = value(4, 4)).unwrap();
        self.insert(5, 5);
        self.sync().unwrap();
        self.remove(0);
        self.insert(0, 6);
        self.insert(7, 1);
        self.chest().flush().unwrap();
        self.remove(7);
        self.remove(6);
        self.sync().unwrap();
        self.insert(2, 7);
        self.chest().flush().unwrap();
    }
}

impl Life {
    fn put(&mut self, key: u64, number: u64) {
        self.insert(key, number);
        self.chest().flush().unwrap();
    }

    /// Small values and files in each other's places, and a chest that was closed in between.
    fn change_forms(&mut self, root: &Path) {
        // In the catalog, synced; there again; in a file.
        self.put(0, 4);
        // In a file, synced; removed, synced; in a file.
        self.put(2, 4);
        // In a file; in the catalog, synced; there again; in a file.
        self.put(3, 3);
        self.sync().unwrap();
        self.put(3, 5);
        self.remove(2);
        self.sync().unwrap();
        // Nothing is written between that and the end, so what is left of key 2 is forgotten by nobody.
        self.chest = None;
        self.chest = Some(builder(Durability::None).open_on(root, Arc::new(self.medium.clone())).unwrap());
        self.put(2, 5);
        self.put(0, 1);
        self.put(0, 2);
        self.put(3, 6);
        self.put(3, 7);
    }
}

/// What may be under a key after the power failed: nothing is 0.
fn allowed(steps: &[Step]) -> HashMap<u64, Vec<Option<u64>>> {
    let mut allowed: HashMap<u64, Vec<Option<u64>>> = (0..9).map(|key| (key, vec![None])).collect();
    for step in steps {
        match step {
            Step::Change(key, number) => allowed.entry(*key).or_insert_with(|| vec![None]).push(*number),
            // Only the latest is left.
            Step::Synced => allowed.values_mut().for_each(|numbers| *numbers = vec![*numbers.last().unwrap()]),
        }
    }
    allowed
}

/// The number of the value that a key has.
fn number(chest: &Chest, key: u64) -> Result<Option<u64>> {
    #[cfg(feature = "ndarray")]
    if key == ROWS {
        let rows = chest.find::<Array1<u64>>(key)?;
        return Ok(rows.map(|found| {
            assert_eq!(*found, rows_to(found.len() as u64), "some rows");
            found.len() as u64
        }));
    }
    Ok(chest.find::<Vec<u64>>(key)?.map(|found| {
        let number = found[0] >> 32;
        assert_eq!(*found, value(key, number), "key {key}");
        number
    }))
}

/// The key of an array that rows are appended to; the number of its value is how many there are.
#[cfg(feature = "ndarray")]
const ROWS: u64 = 8;

#[cfg(feature = "ndarray")]
fn rows_to(end: u64) -> Array1<u64> {
    (0..end).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
}

#[cfg(feature = "ndarray")]
impl Life {
    fn append(&mut self, start: u64, end: u64) {
        self.step(Step::Change(ROWS, Some(end)));
        let rows = rows_to(end).slice_move(ndarray::s![start as usize..]);
        self.chest().append(ROWS, rows).unwrap();
    }

    /// Versions that share files, in all places between two syncs.
    fn append_rows(&mut self, root: &Path) {
        self.append(0, 600);
        self.sync().unwrap();
        self.append(600, 900);
        self.append(900, 950);
        // Together with the part before.
        self.append(950, 1000);
        self.sync().unwrap();
        self.append(1000, 1010);
        self.append(1010, 1500);
        self.chest().compact(ROWS).unwrap();
        self.append(1500, 1600);
        self.sync().unwrap();
        self.append(1600, 1650);
        self.remove(ROWS);
        self.append(0, 500);
        self.append(500, 700);
        self.sync().unwrap();
        self.append(700, 800);
        self.chest = None;
        self.chest = Some(builder(Durability::None).open_on(root, Arc::new(self.medium.clone())).unwrap());
        self.append(800, 810);
        self.chest().compact(ROWS).unwrap();
        self.append(810, 820);
    }
}

/// Opens what a power cut left, and looks at everything.
fn check(dir: &Path, steps: &[Step], what: &str) {
    let allowed = allowed(steps);
    let medium = Medium::of_boot(2);
    // The real medium need not be waited for.
    let _watch = Watch::begin(dir, &medium);
    let chest = match builder(Durability::Eventual).open_on(dir, Arc::new(medium)) {
        Ok(chest) => chest,
        Err(error) => panic!("{what}: {error}"),
    };
    for (key, numbers) in &allowed {
        let found = number(&chest, *key).unwrap_or_else(|error| panic!("{what}: key {key}: {error}"));
        assert!(numbers.contains(&found), "{what}: key {key} is none of {numbers:?}: {found:?}");
    }
    let keys = chest.keys().unwrap();
    assert!(keys.iter().all(|key| allowed.contains_key(&key.to::<u64>().unwrap())), "{what}: {keys:?}");
    // It goes on as if nothing had happened.
    chest.insert("new", vec![1u64; 1000]).unwrap();
    chest.sync().unwrap();
    drop(chest);
    let report = Chest::check(dir).run().unwrap();
    assert!(report.is_healthy() && report.orphans.is_empty(), "{what}: {report}");
}

/// Lives a life on a watched medium, to the end of `live`. Gives what happened, and where.
fn record(durability: Durability, live: impl FnOnce(&mut Life)) -> (Vec<Event>, Vec<Step>, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let root = std::fs::canonicalize(parent.path()).unwrap().join("chest");
    std::fs::create_dir(&root).unwrap();
    let medium = Medium::of_boot(1);
    let _watch = Watch::begin(&root, &medium);
    let mut life = Life::begin(&root, durability, medium);
    live(&mut life);
    // Before the chest is closed, because that syncs.
    (life.medium.events(), life.steps.clone(), root)
}

/// Cuts the power after each event. Gives how often.
fn sweep(events: &[Event], steps: &[Step], root: &Path) -> usize {
    let parent = tempfile::tempdir().unwrap();
    let dir = std::fs::canonicalize(parent.path()).unwrap().join("after");
    let mut known = 0;
    let mut cuts = 0;
    for at in 0..=events.len() {
        if let Some(Event::Mark(mark)) = at.checked_sub(1).map(|last| &events[last]) {
            known = mark + 1;
        }
        let seed = at as u64;
        for unsynced in [
            Unsynced::Dropped,
            Unsynced::Kept,
            Unsynced::Catalog,
            Unsynced::Torn { page: 512, seed },
            Unsynced::Torn { page: 4096, seed },
        ] {
            cut(&events[..at], root, &dir, unsynced);
            check(&dir, &steps[..known], &format!("after event {at} of {}, {unsynced:?}", events.len()));
            std::fs::remove_dir_all(&dir).unwrap();
            cuts += 1;
        }
    }
    cuts
}

#[test]
fn a_power_cut_at_any_point_costs_nothing_that_was_synced() {
    for durability in [Durability::None, Durability::Immediate] {
        let (events, steps, root) = record(durability, Life::live);
        let cuts = sweep(&events, &steps, &root);
        assert!(cuts > 500, "{cuts}");
        println!("{durability:?}: {cuts} power cuts");
    }
}

#[test]
fn a_power_cut_costs_nothing_synced_whatever_replaced_it() {
    let (events, steps, root) = record(Durability::None, |life| {
        let root = life.chest().path().to_owned();
        life.change_forms(&root);
    });
    let cuts = sweep(&events, &steps, &root);
    assert!(cuts > 200, "{cuts}");
}

#[cfg(feature = "ndarray")]
#[test]
fn a_power_cut_costs_no_rows_of_versions_that_share_files() {
    let (events, steps, root) = record(Durability::None, |life| {
        let root = life.chest().path().to_owned();
        life.append_rows(&root);
    });
    let cuts = sweep(&events, &steps, &root);
    assert!(cuts > 200, "{cuts}");
}

/// The first sync of so many values fails at each of its calls in turn. Gives how many calls that are.
fn fail_each_sync(values: u64) -> u64 {
    for fail in 0.. {
        let mut did_fail = false;
        let (events, steps, root) = record(Durability::None, |life| {
            for key in 0..values {
                life.insert(10 + key, 1);
            }
            life.chest().flush().unwrap();
            life.medium.fail(Fault::Error(EIO), fail, 1, true);
            let failed = life.chest().sync();
            let calls = life.medium.heal();
            assert_eq!(failed.is_err(), fail < calls, "sync {fail} of {calls}: {failed:?}");
            if let Err(error) = failed {
                assert!(error.kind() == ErrorKind::Io && error.path().is_some(), "{error}");
                did_fail = true;
            }
            life.sync().unwrap();
        });
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("after");
        cut(&events, &root, &dir, Unsynced::Dropped);
        check(&dir, &steps, &format!("sync {fail} failed"));
        if !did_fail {
            return fail;
        }
    }
    unreachable!("some sync is the last")
}

#[test]
fn a_sync_that_fails_is_made_up_for_by_the_next_one() {
    let calls = fail_each_sync(4);
    assert!(calls >= 4, "two files, their folder and the catalog: {calls}");
    // So many that several threads sync them.
    let calls = fail_each_sync(60);
    assert!(calls >= 32, "thirty files, their folder and the catalog: {calls}");
}

#[test]
fn what_cannot_be_synced_nor_read_keeps_nothing_else_from_the_medium() {
    let dir = tempfile::tempdir().unwrap();
    let medium = Medium::of_boot(1);
    let open = || builder(Durability::None).open_on(dir.path(), Arc::new(medium.clone())).unwrap();
    let chest = open();
    [1, 2].into_iter().for_each(|key| chest.insert(key, value(key, 1)).unwrap());
    chest.flush().unwrap();
    medium.fail(Fault::Error(EIO), 0, 1, true);
    let failed = chest.sync().unwrap_err();
    medium.heal();
    // The usual end of that: what was written is not there.
    let path = failed.path().unwrap().to_owned();
    let len = std::fs::metadata(&path).unwrap().len();
    std::fs::write(path, vec![0; len as usize]).unwrap();

    chest.insert(6u64, value(6, 1)).unwrap();
    chest.flush().unwrap();
    let error = chest.sync().unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Damaged, failed.key()), "{error}");
    let unsynced = chest.store().unwrap().disk.catalog().unsynced().unwrap();
    assert!(unsynced.files.is_empty() && unsynced.doubtful.is_empty());
    chest.sync().unwrap();
    drop(chest);
    let chest = open();
    let read = |key: u64| chest.get::<Vec<u64>>(key).map(|found| assert_eq!(*found, value(key, 1)));
    let lost = failed.key().unwrap().to::<u64>().unwrap();
    assert_eq!(read(lost).unwrap_err().kind(), ErrorKind::Damaged);
    [1, 2, 6].into_iter().filter(|key| *key != lost).for_each(|key| read(key).unwrap());
}

#[test]
fn who_publishes_faster_than_the_disk_syncs_does_not_make_it_longer_and_longer() {
    let dir = tempfile::tempdir().unwrap();
    let medium = Medium::of_boot(1);
    let open = |medium: &Medium| builder(Durability::None).open_on(dir.path(), Arc::new(medium.clone())).unwrap();
    let chest = open(&medium);
    let in_a_file = || value(0, 3);
    (0..10u64).for_each(|key| chest.insert(key, in_a_file()).unwrap());
    chest.flush().unwrap();

    let other = open(&Medium::of_boot(1));
    let lock = Connection::open(dir.path().join("catalog.sqlite")).unwrap();
    lock.busy_timeout(Duration::ZERO).unwrap();
    let next = Mutex::new((lock, 10u64));
    medium.before_sync(move || {
        let (lock, next) = &mut *next.lock().unwrap();
        // At the end nobody can publish.
        if lock.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok() {
            (0..2).for_each(|i| other.insert(*next + i, in_a_file()).unwrap());
            other.flush().unwrap();
            *next += 2;
        }
    });
    chest.sync().unwrap();
    // Two for each of the first ten and for their folder.
    assert_eq!(chest.len().unwrap(), 10 + 2 * 11);
}
