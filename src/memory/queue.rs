//! The priority queue over residents.

use std::collections::BTreeSet;

use super::{Edition, Place};

/// Editions in the order of their place; any of them can be moved or removed in logarithmic time.
#[derive(Default)]
pub(super) struct Queue(BTreeSet<(Place, Edition)>);

impl Queue {
    pub(super) fn insert(&mut self, place: Place, edition: Edition) {
        self.0.insert((place, edition));
    }

    pub(super) fn remove(&mut self, place: Place, edition: Edition) {
        self.0.remove(&(place, edition));
    }

    /// From the lowest.
    pub(super) fn iter(&self) -> impl Iterator<Item = Edition> {
        self.0.iter().map(|&(_, edition)| edition)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
