//! Each call of the operating system fails in turn: no value is lost, the error names the place, and when the fault is
//! over the chest works as if nothing had happened.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::medium::{EINTR, Fault, Medium};
use super::sqlite::Watch;
use crate::builder::{Builder, Durability};
use crate::chest::Chest;
use crate::error::{Error, ErrorKind, Result};

const EIO: i32 = 5;
const EACCES: i32 = 13;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

const FOR_EVER: u64 = u64::MAX;

fn value(key: u64, number: u64) -> Vec<u64> {
    let len = [10, 3000][(key % 2) as usize];
    (0..len).map(|i| (number << 32 | key).wrapping_mul(2 * i + 1)).collect()
}

fn builder() -> Builder {
    Chest::builder().budget(60_000u64).inline_limit(400).durability(Durability::None)
}

/// A chest and what must be in it.
struct Life {
    chest: Chest,
    expected: BTreeMap<u64, u64>,
    what: String,
}

impl Life {
    /// A chest with durable values.
    fn begin(root: &Path, medium: &Medium, what: String) -> Self {
        let chest = builder().open_on(root, Arc::new(medium.clone())).unwrap();
        let mut life = Self { chest, expected: BTreeMap::new(), what };
        for key in 0..4 {
            life.insert(key, 1).unwrap();
        }
        life.chest.sync().unwrap();
        life
    }

    fn insert(&mut self, key: u64, number: u64) -> Result<()> {
        let inserted = self.chest.insert(key, value(key, number));
        // Whatever happened, the chest has it.
        self.expected.insert(key, number);
        inserted
    }

    /// Everything that a chest does.
    fn live(&mut self) -> Vec<Result<()>> {
        let mut done =
            vec![self.insert(4, 1), self.insert(5, 1), self.insert(1, 2), self.insert(0, 2), self.chest.flush()];
        for key in [2, 3] {
            done.push(self.chest.get::<Vec<u64>>(key).map(|found| assert_eq!(*found, value(key, 1), "{}", self.what)));
        }
        done.push(self.chest.set_budget(0u64));
        done.push(self.chest.get::<Vec<u64>>(3u64).map(|_| ()));
        done.push(self.chest.set_budget(60_000u64));
        let removed = self.chest.remove(2u64);
        if removed.is_ok() {
            self.expected.remove(&2);
        }
        done.push(removed.map(|_| ()));
        let updated = self.chest.update(3u64, |found: &mut Vec<u64>| *found = value(3, 9));
        // The change was made, or it was not: loading the value may have failed.
        if updated.is_ok() || self.chest.get::<Vec<u64>>(3u64).is_ok_and(|found| *found == value(3, 9)) {
            self.expected.insert(3, 9);
        }
        done.push(updated);
        done.push(self.chest.sync());
        done.push(self.insert(7, 1));
        done.push(self.chest.keys().map(|_| ()));
        done
    }

    fn check(&self) {
        for (key, number) in &self.expected {
            let found = self.chest.get::<Vec<u64>>(*key).unwrap_or_else(|error| panic!("{}: {error}", self.what));
            assert_eq!(*found, value(*key, *number), "{}: key {key}", self.what);
        }
        let mut keys: Vec<u64> = self.chest.keys().unwrap().iter().map(|key| key.to().unwrap()).collect();
        keys.sort_unstable();
        assert_eq!(keys, self.expected.keys().copied().collect::<Vec<_>>(), "{}", self.what);
    }
}

fn names_its_place(error: &Error, what: &str) {
    let kinds = [ErrorKind::Io, ErrorKind::Full, ErrorKind::Busy];
    assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
    assert!(error.path().is_some(), "{what}: {error:?}");
}

/// A life in which the calls from `first` on fail, `count` of them. Tells whether it was long enough for that.
fn survive(fault: Fault, first: u64, count: u64) -> bool {
    let what = format!("{fault:?} at call {first}, {}", if count == FOR_EVER { "for good" } else { "once" });
    let parent = tempfile::tempdir().unwrap();
    let root = std::fs::canonicalize(parent.path()).unwrap().join("chest");
    let medium = Medium::of_boot(1);
    let _watch = Watch::begin(&root, &medium);
    let mut life = Life::begin(&root, &medium, what.clone());
    medium.fail(fault, first, count, false);
    let done = life.live();
    let calls = medium.heal();
    for error in done.iter().filter_map(|done| done.as_ref().err()) {
        names_its_place(error, &what);
    }
    let is_harmless = matches!(fault, Fault::Error(EINTR) | Fault::ShortWrite);
    assert!(!is_harmless || done.iter().all(Result::is_ok), "{what}: {done:?}");

    life.check();
    life.chest.sync().unwrap_or_else(|error| panic!("{what}: {error}"));
    life.check();
    let Life { chest, expected, what } = life;
    drop(chest);
    let chest = builder().open_on(&root, Arc::new(medium.clone())).unwrap();
    let life = Life { chest, expected, what };
    life.check();
    life.chest.sync().unwrap();
    let report = Chest::check(&root).run().unwrap();
    assert!(report.is_healthy() && report.orphans.is_empty(), "{}: {report}", life.what);
    first < calls
}

fn sweep(fault: Fault, count: u64) {
    let mut first = 0;
    while survive(fault, first, count) {
        first += 1;
    }
    assert!(first > 10, "{fault:?}: only {first} calls");
}

/// The first open after a restart, where calls from `first` on fail: it judges no value that it cannot look at.
fn open_after_restart(fault: Fault, first: u64, count: u64) -> bool {
    let what = format!("{fault:?} at call {first} of an open");
    let parent = tempfile::tempdir().unwrap();
    let root = std::fs::canonicalize(parent.path()).unwrap().join("chest");
    let expected = {
        let medium = Medium::of_boot(1);
        let _watch = Watch::begin(&root, &medium);
        let mut life = Life::begin(&root, &medium, what.clone());
        // Not synced, but whole.
        (1..6).for_each(|key| life.insert(key, 2).unwrap());
        life.chest.flush().unwrap();
        life.expected
    };
    let medium = Medium::of_boot(2);
    let _watch = Watch::begin(&root, &medium);
    medium.fail(fault, first, count, false);
    let opened = builder().open_on(&root, Arc::new(medium.clone())).map(drop);
    let calls = medium.heal();
    if let Err(error) = opened {
        names_its_place(&error, &what);
    }
    let chest = builder().open_on(&root, Arc::new(medium.clone())).unwrap();
    Life { chest, expected, what: what.clone() }.check();
    assert!(!root.join("quarantine").exists(), "{what}: a sound value was judged");
    first < calls
}

#[test]
fn a_fault_at_the_first_open_after_a_restart_costs_nothing() {
    for error in [EMFILE, EACCES, ENOSPC] {
        for count in [1, FOR_EVER] {
            let mut first = 0;
            while open_after_restart(Fault::Error(error), first, count) {
                first += 1;
            }
            assert!(first > 10, "{error}: only {first} calls");
        }
    }
}

#[test]
fn a_full_disk_costs_nothing() {
    sweep(Fault::Error(ENOSPC), 1);
    sweep(Fault::Error(ENOSPC), FOR_EVER);
}

#[test]
fn errors_of_the_medium_cost_nothing() {
    sweep(Fault::Error(EIO), 1);
    sweep(Fault::Error(EIO), FOR_EVER);
}

#[test]
fn too_many_open_files_and_missing_rights_cost_nothing() {
    sweep(Fault::Error(EMFILE), 1);
    sweep(Fault::Error(EACCES), FOR_EVER);
}

#[test]
fn signals_and_short_writes_are_no_errors() {
    sweep(Fault::Error(EINTR), 1);
    sweep(Fault::ShortWrite, 1);
    sweep(Fault::ShortWrite, FOR_EVER);
}

#[test]
fn an_open_that_fails_does_no_harm() {
    for (fault, count) in [(ENOSPC, 1), (EIO, 1), (EMFILE, FOR_EVER), (EACCES, 1)] {
        let parent = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(parent.path()).unwrap().join("chest");
        let medium = Medium::of_boot(1);
        let _watch = Watch::begin(&root, &medium);
        let Life { chest, expected, .. } = Life::begin(&root, &medium, String::new());
        drop(chest);
        for first in 0.. {
            let what = format!("{fault} at call {first} of an open");
            medium.fail(Fault::Error(fault), first, count, false);
            let opened = builder().open_on(&root, Arc::new(medium.clone()));
            let calls = medium.heal();
            if let Err(error) = &opened {
                names_its_place(error, &what);
            }
            drop(opened);
            let chest =
                builder().open_on(&root, Arc::new(medium.clone())).unwrap_or_else(|error| panic!("{what}: {error}"));
            Life { chest, expected: expected.clone(), what }.check();
            if first >= calls {
                break;
            }
        }
    }
}
