//! The residents as readers find them, without the lock of all else that is known of them.
//!
//! They lie in shards with a lock each. A hit is only noted, in a buffer that its thread shares with few others; all that
//! follows from hits is done later, by whoever decides anything, as in the read buffers of Caffeine and moka. So readers
//! do not wait for each other.

use std::array;
use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError};

use super::Edition;
use crate::key::{Key, Map};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::value::AnyValue;

const SHARDS: usize = 64;

/// One bit of a number each.
const STRIPES: usize = 64;

/// So many hits of a thread wait to be counted.
const MOST_NOTED: usize = if cfg!(feature = "model") { 2 } else { 128 };

/// A value held in memory.
#[derive(Clone)]
pub(crate) struct Resident {
    pub(crate) value: Arc<dyn AnyValue>,
    /// The version in the directory; none for a dirty value.
    pub(crate) version: Option<i64>,
    /// The catalog's generation when the version was last found to be the newest.
    pub(crate) checked: Option<u64>,
    /// Tells this value from the one that was here before under the same key.
    pub(crate) edition: Edition,
}

impl Resident {
    /// Whether somebody besides the tier holds the value.
    pub(super) fn is_held(&self) -> bool {
        Arc::strong_count(&self.value) > 1 || self.value.is_shared()
    }
}

/// Editions that were hit. In a cache line of its own, because its threads write to it all the time.
#[repr(align(128))]
struct Stripe(Mutex<Vec<Edition>>);

pub(crate) struct Front {
    hasher: foldhash::fast::RandomState,
    shards: [Mutex<Map<Key, Resident>>; SHARDS],
    stripes: [Stripe; STRIPES],
    /// The stripes with hits that are not counted yet, a bit each.
    noted: AtomicU64,
}

impl Default for Front {
    fn default() -> Self {
        Self {
            hasher: foldhash::fast::RandomState::default(),
            shards: array::from_fn(|_| Mutex::new(Map::default())),
            stripes: array::from_fn(|_| Stripe(Mutex::new(Vec::new()))),
            noted: AtomicU64::new(0),
        }
    }
}

impl Front {
    fn shard(&self, key: &Key) -> MutexGuard<'_, Map<Key, Resident>> {
        let shard = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `take` takes from a resident. It runs under a lock and must not use the front.
    pub(crate) fn find<T>(&self, key: &Key, take: impl FnOnce(&Resident) -> T) -> Option<T> {
        self.shard(key).get(key).map(take)
    }

    /// Changes what is known of an edition, if it is the present one.
    pub(super) fn change(&self, key: &Key, edition: Edition, change: impl FnOnce(&mut Resident)) {
        if let Some(resident) = self.shard(key).get_mut(key).filter(|resident| resident.edition == edition) {
            change(resident);
        }
    }

    pub(super) fn insert(&self, key: Key, resident: Resident) {
        self.shard(&key).insert(key, resident);
    }

    /// Takes a resident out, if it is to leave.
    pub(super) fn remove_if(&self, key: &Key, leaves: impl FnOnce(&Resident) -> bool) -> Option<Resident> {
        let mut shard = self.shard(key);
        if shard.get(key).is_some_and(leaves) { shard.remove(key) } else { None }
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
