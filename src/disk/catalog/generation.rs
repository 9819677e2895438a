//! Whether other processes changed the catalog since, told without a query.
//!
//! The stamp of SQLite's log is another one after every commit, whoever made it. A generation lasts as long as all commits
//! are our own, and what memory has was brought in line with each of them: a value that was the newest once in this
//! generation is the newest still.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Catalog;
use super::wal_index::WalIndex;

#[derive(Default)]
pub(super) struct Generations {
    current: Mutex<Generation>,
    told: Told,
    /// Commits of our own that memory does not know of yet.
    pending: AtomicUsize,
}

/// A generation, and the stamp after the last commit in it.
#[derive(Clone, Copy, Default)]
struct Generation {
    number: u64,
    stamp: u128,
}

/// The present generation for those who only read, each time without a lock: many do, and a lock is written to.
#[derive(Default)]
struct Told {
    /// How often it was changed, twice; odd while it is.
    changes: AtomicU64,
    number: AtomicU64,
    stamp: [AtomicU64; 2],
}

impl Told {
    /// One thread at a time may do so.
    fn set(&self, Generation { number, stamp }: Generation) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.number.store(number, Ordering::SeqCst);
        self.stamp[0].store((stamp >> 64) as u64, Ordering::SeqCst);
        self.stamp[1].store(stamp as u64, Ordering::SeqCst);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// None if it changes just now.
    fn get(&self) -> Option<Generation> {
        let before = self.changes.load(Ordering::SeqCst);
        let number = self.number.load(Ordering::SeqCst);
        let [high, low] = [0, 1].map(|half| self.stamp[half].load(Ordering::SeqCst));
        let is_whole = before.is_multiple_of(2) && self.changes.load(Ordering::SeqCst) == before;
        is_whole.then_some(Generation { number, stamp: u128::from(high) << 64 | u128::from(low) })
    }
}

impl Generations {
    fn current(&self) -> MutexGuard<'_, Generation> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A commit of this process, from before it is made until memory knows of it.
pub(crate) struct OwnCommit<'a> {
    catalog: &'a Catalog,
    /// The stamps before and after it; none if nothing was committed, or if there are no stamps.
    stamps: Option<(u128, u128)>,
}

impl Drop for OwnCommit<'_> {
    fn drop(&mut self) {
        self.catalog.generations.pending.fetch_sub(1, Ordering::SeqCst);
    }
}

impl OwnCommit<'_> {
    pub(super) fn made(&mut self, stamps: Option<(u128, u128)>) {
        self.stamps = stamps;
    }

    /// Memory has what was committed, or will have it before anybody can look there: the generation goes on. None if
    /// somebody else committed in between: then it has ended.
    pub(crate) fn known(self) -> Option<u64> {
        let (before, after) = self.stamps?;
        let generations = &self.catalog.generations;
        let mut current = generations.current();
        // What changed nothing was no commit.
        let goes_on = current.stamp == before && (before == after || WalIndex::follows(before, after));
        current.number += u64::from(!goes_on);
        current.stamp = after;
        generations.told.set(*current);
        goes_on.then_some(current.number)
    }
}

impl Catalog {
    /// Announces a commit that memory will be told of.
    pub(crate) fn own_commit(&self) -> OwnCommit<'_> {
        self.generations.pending.fetch_add(1, Ordering::SeqCst);
        OwnCommit { catalog: self, stamps: None }
    }

    /// The generation, if all commits up to this moment belong to it.
    pub(crate) fn generation(&self) -> Option<u64> {
        if self.stays {
            return Some(1);
        }
        let index = self.wal_index.as_ref()?;
        let told = self.generations.told.get().filter(|told| told.stamp == index.stamp());
        if let Some(told) = told {
            return Some(told.number);
        }
        let mut current = self.generations.current();
        let stamp = index.stamp();
        if stamp != current.stamp {
            // One of our own that is not known yet ends no generation, but what it changed is not to be relied upon.
            if self.generations.pending.load(Ordering::SeqCst) > 0 {
                return None;
            }
            current.number += 1;
            current.stamp = stamp;
            self.generations.told.set(*current);
        }
        Some(current.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_read_as_a_whole_while_it_changes() {
        let told = Told::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (1..=100_000_u64).for_each(|number| {
                    told.set(Generation { number, stamp: u128::from(number) << 64 | u128::from(number) });
                });
            });
            let mut last = 0;
            while last < 100_000 {
                let Some(Generation { number, stamp }) = told.get() else { continue };
                assert!(number >= last && stamp == (u128::from(number) << 64 | u128::from(number)));
                last = number;
            }
        });
    }

    #[test]
    fn a_generation_ends_with_the_commit_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        std::fs::write(&path, "").unwrap();
        let ours = Catalog::create(&path, true, "boot").unwrap();
        let theirs = Catalog::open(&path, true).unwrap();
        let commit = |catalog: &Catalog, own: Option<&mut OwnCommit<'_>>| {
            let moved = catalog.write(true, false, own, |transaction| {
                transaction.move_on();
                Ok(())
            });
            moved.unwrap();
        };
        let first = ours.generation().unwrap();
        assert_eq!(ours.generation(), Some(first));

        for _ in 0..3 {
            let mut own = ours.own_commit();
            commit(&ours, Some(&mut own));
            assert_eq!(ours.generation(), None, "memory does not know of it");
            assert_eq!(own.known(), Some(first));
            assert_eq!(ours.generation(), Some(first));
        }
        commit(&theirs, None);
        assert_eq!(ours.generation(), Some(first + 1));
        commit(&ours, None);
        assert_eq!(ours.generation(), Some(first + 2), "nobody told memory of it");

        commit(&theirs, None);
        let mut own = ours.own_commit();
        commit(&ours, Some(&mut own));
        assert_eq!(own.known(), None, "another came before");
        let mut own = ours.own_commit();
        commit(&ours, Some(&mut own));
        commit(&theirs, None);
        let known = own.known();
        assert!(known.is_some() && ours.generation() > known, "another came after");
        let last = ours.generation();
        drop(ours.own_commit());
        assert_eq!(ours.generation(), last, "a commit that was not made");
    }
}
