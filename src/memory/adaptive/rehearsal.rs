//! What would be resident if one expert decided, and what that would cost.

use std::collections::{BTreeSet, HashMap};

use super::Expert;
use crate::memory::policy::{Rank, Usage};

#[derive(Debug)]
pub(super) struct Rehearsal {
    expert: Expert,
    budget: u64,
    used: u64,
    /// The rank and the size of each value, by its key.
    values: HashMap<u64, (Rank, u64)>,
    queue: BTreeSet<(Rank, u64)>,
    /// What reloads cost, and how many there were; what is long ago counts less.
    lost: f64,
    losses: f64,
}

impl Rehearsal {
    pub(super) fn new(expert: Expert) -> Self {
        let (values, queue) = (HashMap::new(), BTreeSet::new());
        Self { expert, budget: 0, used: 0, values, queue, lost: 0.0, losses: 0.0 }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn lost(&self) -> f64 {
        self.lost
    }

    pub(super) fn losses(&self) -> f64 {
        self.losses
    }

    pub(super) fn fade(&mut self, factor: f64) {
        self.lost *= factor;
        self.losses *= factor;
    }

    /// A value is used; where it was not resident and is read, it has to be loaded.
    pub(super) fn take(&mut self, usage: &Usage, is_read: bool) {
        let is_hit = self.values.contains_key(&usage.key);
        if is_read && !is_hit {
            self.lost += usage.cost;
            self.losses += 1.0;
        }
        self.remove(usage.key);
        self.make_room(usage.size);
        if usage.size <= self.budget {
            self.put(&Usage { uses: if is_hit { 2 } else { 1 }, ..*usage });
        }
    }

    /// Forgets what it has, takes the values that are really resident, and is given a loss.
    pub(super) fn begin_with<'a>(&mut self, residents: impl Iterator<Item = &'a Usage>, lost: f64) {
        self.lost = lost;
        self.values.clear();
        self.queue.clear();
        self.used = 0;
        residents.for_each(|usage| self.put(usage));
        self.make_room(0);
    }

    pub(super) fn remove(&mut self, key: u64) {
        if let Some((rank, size)) = self.values.remove(&key) {
            self.queue.remove(&(rank, key));
            self.used -= size;
        }
    }

    /// Keeps the values whose key is not above this.
    pub(super) fn retain(&mut self, watched: u64) {
        let others: Vec<u64> = self.values.keys().copied().filter(|&key| key > watched).collect();
        others.into_iter().for_each(|key| self.remove(key));
    }

    pub(super) fn set_budget(&mut self, bytes: u64) {
        self.budget = bytes;
        self.make_room(0);
    }

    fn put(&mut self, usage: &Usage) {
        let rank = self.expert.rank(usage);
        self.values.insert(usage.key, (rank, usage.size));
        self.queue.insert((rank, usage.key));
        self.used += usage.size;
    }

    /// Spills until there is room for so many bytes more.
    fn make_room(&mut self, bytes: u64) {
        if bytes > self.budget {
            return;
        }
        while self.used > self.budget - bytes {
            let Some(&(_, key)) = self.queue.first() else { break };
            self.remove(key);
        }
    }
}
