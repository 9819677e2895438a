//! The priority queue over residents.

use std::collections::BTreeSet;

use super::policy::Rank;

/// Editions in the order of their rank; any of them can be moved or removed in logarithmic time.
#[derive(Default)]
pub(super) struct Queue(BTreeSet<(Rank, u64)>);

impl Queue {
    pub(super) fn insert(&mut self, rank: Rank, edition: u64) {
        self.0.insert((rank, edition));
    }

    pub(super) fn remove(&mut self, rank: Rank, edition: u64) {
        self.0.remove(&(rank, edition));
    }

    /// From the lowest rank, equal ranks by age.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|&(_, edition)| edition)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
