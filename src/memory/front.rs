//! The residents as readers find them, without the lock of all else that is known of them.
//!
//! They lie in shards with a lock each. A hit is only noted, in a buffer that its thread shares with few others; all that
//! follows from hits is done later, by whoever decides anything, as in the read buffers of Caffeine and moka. So readers
//! do not wait for each other.

use std::array;
use std::hash::BuildHasher;
use std::num::{NonZeroI64, NonZeroU64};
use std::sync::{Arc, PoisonError};

use hashbrown::HashTable;

use super::Edition;
use super::kept::Kept;
use crate::key::Key;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::value::AnyValue;

const SHARDS: usize = 64;

/// One bit of a number each.
const STRIPES: usize = 64;

/// So many hits of a thread wait to be counted.
const MOST_NOTED: usize = if cfg!(feature = "model") { 2 } else { 128 };

/// A value held in memory.
pub(crate) struct Resident {
    kept: Kept,
    version: Option<NonZeroI64>,
    checked: Option<NonZeroU64>,
    /// Tells this value from the one that was here before under the same key.
    pub(crate) edition: Edition,
}

impl Resident {
    pub(super) fn new(value: Arc<dyn AnyValue>, version: Option<i64>, edition: Edition) -> Self {
        Self { kept: Kept::new(value), version: version.and_then(NonZeroI64::new), checked: None, edition }
    }

    pub(crate) fn value(&self) -> &Arc<dyn AnyValue> {
        self.kept.value()
    }

    /// The value, which leaves the tier.
    pub(super) fn into_kept(self) -> Kept {
        self.kept
    }

    /// The version in the directory; none for a dirty value.
    pub(crate) fn version(&self) -> Option<i64> {
        self.version.map(NonZeroI64::get)
    }

    /// The catalog's generation when the version was last found to be the newest.
    pub(crate) fn checked(&self) -> Option<u64> {
        self.checked.map(NonZeroU64::get)
    }

    pub(super) fn set_version(&mut self, version: i64) {
        self.version = NonZeroI64::new(version);
    }

    pub(super) fn set_checked(&mut self, generation: Option<u64>) {
        // There is no generation 0 where there are any.
        self.checked = generation.and_then(NonZeroU64::new);
    }

    /// Whether somebody besides the tiers holds the value.
    pub(super) fn is_held(&self) -> bool {
        self.kept.is_held()
    }
}

/// A resident and its key, in a cache line of their own: who looks for a key waits for memory once.
#[repr(align(64))]
struct Entry {
    key: Key,
    resident: Resident,
}

#[cfg(test)]
pub(super) const ENTRY: usize = size_of::<Entry>();

/// Some of the residents, side by side, mostly in the order in which they came in: they are often used in that order too. The
/// table has where they are.
#[derive(Default)]
struct Shard {
    table: HashTable<u32>,
    entries: Vec<Entry>,
}

impl Shard {
    /// Where the resident of a key is.
    fn place(&self, hash: u64, key: &Key) -> Option<usize> {
        self.table.find(hash, |&place| self.entries[place as usize].key == *key).map(|&place| place as usize)
    }

    /// Takes out what is in a place; the last entry goes there.
    fn remove(&mut self, hash: u64, place: usize, hasher: &impl BuildHasher) -> Option<Entry> {
        self.table.find_entry(hash, |&other| other as usize == place).ok()?.remove();
        let last = self.entries.len() - 1;
        if place != last {
            let moved = hasher.hash_one(&self.entries[last].key);
            if let Some(other) = self.table.find_mut(moved, |&other| other as usize == last) {
                *other = place as u32;
            }
        }
        Some(self.entries.swap_remove(place))
    }
}

/// Editions that were hit. In a cache line of its own, because its threads write to it all the time.
#[repr(align(128))]
struct Stripe(Mutex<Vec<Edition>>);

pub(crate) struct Front {
    hasher: foldhash::fast::RandomState,
    shards: [Mutex<Shard>; SHARDS],
    stripes: [Stripe; STRIPES],
    /// The stripes with hits that are not counted yet, a bit each.
    noted: AtomicU64,
}

impl Default for Front {
    fn default() -> Self {
        Self {
            hasher: foldhash::fast::RandomState::default(),
            shards: array::from_fn(|_| Mutex::new(Shard::default())),
            stripes: array::from_fn(|_| Stripe(Mutex::new(Vec::new()))),
            noted: AtomicU64::new(0),
        }
    }
}

impl Front {
    /// The hash of a key, and the shard that the key is in.
    fn shard(&self, key: &Key) -> (u64, MutexGuard<'_, Shard>) {
        let hash = self.hasher.hash_one(key);
        // By other bits than those by which it is found there: the first and the last.
        let shard = (hash >> 32) as usize % SHARDS;
        (hash, self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What `take` takes from a resident. It runs under a lock and must not use the front.
    pub(crate) fn find<T>(&self, key: &Key, take: impl FnOnce(&Resident) -> T) -> Option<T> {
        let (hash, shard) = self.shard(key);
        shard.place(hash, key).map(|place| take(&shard.entries[place].resident))
    }

    /// Changes what is known of an edition, if it is the present one.
    pub(super) fn change(&self, key: &Key, edition: Edition, change: impl FnOnce(&mut Resident)) {
        let (hash, mut shard) = self.shard(key);
        let Some(place) = shard.place(hash, key) else { return };
        let resident = &mut shard.entries[place].resident;
        if resident.edition == edition {
            change(resident);
        }
    }

    /// Adds a resident. Its key has none.
    pub(super) fn insert(&self, key: Key, resident: Resident) {
        let (hash, mut shard) = self.shard(&key);
        let Shard { table, entries } = &mut *shard;
        // There are fewer than 4 billion residents, see `Records::is_full`.
        let place = entries.len() as u32;
        entries.push(Entry { key, resident });
        table.insert_unique(hash, place, |&other| self.hasher.hash_one(&entries[other as usize].key));
    }

    /// Takes a resident out, if it is to leave.
    pub(super) fn remove_if(&self, key: &Key, leaves: impl FnOnce(&Resident) -> bool) -> Option<Resident> {
        let (hash, mut shard) = self.shard(key);
        let place = shard.place(hash, key)?;
        if !leaves(&shard.entries[place].resident) {
            return None;
        }
        shard.remove(hash, place, &self.hasher).map(|entry| entry.resident)
    }

    /// Notes a hit. Tells whether there are so many that they should be counted.
    pub(crate) fn note(&self, edition: Edition) -> bool {
        let stripe = my_stripe();
        let mut hits = self.stripe(stripe);
        if hits.is_empty() {
            self.noted.fetch_or(1 << stripe, Ordering::SeqCst);
        }
        hits.push(edition);
        hits.len() >= MOST_NOTED
    }

    /// Moves all hits that were noted to `hits`, those of a thread in their order.
    pub(super) fn take_hits(&self, hits: &mut Vec<Edition>) {
        if self.noted.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut noted = self.noted.swap(0, Ordering::SeqCst);
        while noted != 0 {
            hits.append(&mut self.stripe(noted.trailing_zeros() as usize));
            noted &= noted - 1;
        }
    }

    fn stripe(&self, stripe: usize) -> MutexGuard<'_, Vec<Edition>> {
        self.stripes[stripe].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stripe of this thread: another one for each of as many threads as there are stripes.
fn my_stripe() -> usize {
    static THREADS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    thread_local! {
        static STRIPE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES;
    }
    STRIPE.with(|stripe| *stripe)
}
