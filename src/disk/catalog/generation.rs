//! Whether other processes changed the catalog since, told without a query.
//!
//! The stamp of SQLite's log is another one after every commit, whoever made it. A generation lasts as long as all commits
//! are our own, and what memory has was brought in line with each of them: a value that was the newest once in this
//! generation is the newest still.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Catalog;
use super::wal_index::WalIndex;

#[derive(Default)]
pub(super) struct Generations {
    current: Mutex<Generation>,
    /// Commits of our own that memory does not know of yet.
    pending: AtomicUsize,
}

/// A generation, and the stamp after the last commit in it.
#[derive(Default)]
struct Generation {
    number: u64,
    stamp: u128,
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
        let mut current = self.catalog.generations.current.lock().unwrap_or_else(PoisonError::into_inner);
        // What changed nothing was no commit.
        let goes_on = current.stamp == before && (before == after || WalIndex::follows(before, after));
        current.number += u64::from(!goes_on);
        current.stamp = after;
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
        let index = self.wal_index.as_ref()?;
        let mut current = self.generations.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = index.stamp();
        if stamp != current.stamp {
            // One of our own that is not known yet ends no generation, but what it changed is not to be relied upon.
            if self.generations.pending.load(Ordering::SeqCst) > 0 {
                return None;
            }
            current.number += 1;
            current.stamp = stamp;
        }
        Some(current.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
