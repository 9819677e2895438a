//! What happened to calls, and what is known of those whose results are in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::flight::Flights;
use super::run::Status;
use crate::key::{Key, Map};

/// Of so many calls this process remembers how long they took.
const MOST_KNOWN: usize = 64 << 10;

/// What a chest knows of the calls of this process.
#[derive(Default)]
pub(crate) struct Stages {
    pub(super) flights: Flights,
    /// How long computing took what is stored, so that it need not be read for a hit.
    times: Mutex<Map<Key, Duration>>,
    counters: Mutex<BTreeMap<String, Arc<Counters>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stages {
    pub(super) fn counters(&self, name: &str) -> Arc<Counters> {
        let mut counters = lock(&self.counters);
        match counters.get(name) {
            Some(counters) => counters.clone(),
            None => counters.entry(name.to_owned()).or_default().clone(),
        }
    }

    pub(super) fn stats(&self) -> BTreeMap<String, StageStats> {
        lock(&self.counters).iter().map(|(name, counters)| (name.clone(), counters.stats())).collect()
    }

    pub(super) fn took(&self, key: &Key) -> Option<Duration> {
        lock(&self.times).get(key).copied()
    }

    pub(super) fn note(&self, key: &Key, took: Duration) {
        let mut times = lock(&self.times);
        if times.len() >= MOST_KNOWN {
            times.clear();
        }
        times.insert(key.clone(), took);
    }
}

#[derive(Default)]
pub(super) struct Counters {
    computed: AtomicU64,
    memory: AtomicU64,
    disk: AtomicU64,
    joined: AtomicU64,
    called: AtomicU64,
    not_stored: AtomicU64,
    saved_ns: AtomicU64,
    computing_ns: AtomicU64,
}

impl Counters {
    pub(super) fn count(&self, status: Status) {
        let counter = match status {
            Status::Computed => &self.computed,
            Status::Memory => &self.memory,
            Status::Disk => &self.disk,
            Status::Joined => &self.joined,
            Status::Called => &self.called,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_not_stored(&self) {
        self.not_stored.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_computing(&self, time: Duration) {
        self.computing_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(super) fn add_saved(&self, time: Duration) {
        self.saved_ns.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> StageStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StageStats {
            computed: read(&self.computed),
            memory: read(&self.memory),
            disk: read(&self.disk),
            joined: read(&self.joined),
            called: read(&self.called),
            not_stored: read(&self.not_stored),
            time_saved: Duration::from_nanos(read(&self.saved_ns)),
            time_computing: Duration::from_nanos(read(&self.computing_ns)),
        }
    }
}

/// What happened to the calls of a stage since the chest was opened. `Display` shows it in a line.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageStats {
    /// Calls that ran the function, because no result was there.
    pub computed: u64,
    /// Calls whose result was in memory.
    pub memory: u64,
    /// Calls whose result was on disk.
    pub disk: u64,
    /// Calls that waited for another one that was the same.
    pub joined: u64,
    /// Calls that ran the function without looking: the stage is [disabled](crate::Stage::disable), or there was no key.
    pub called: u64,
    /// Results that could not be stored.
    pub not_stored: u64,
    /// What computing would have taken where a result was there, less what finding it took.
    pub time_saved: Duration,
    /// What computing took.
    pub time_computing: Duration,
}

impl fmt::Display for StageStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { computed, memory, disk, joined, time_saved, time_computing, .. } = self;
        write!(
            f,
            "{computed} computed in {time_computing:.3?}, {memory} from memory, {disk} from disk, {joined} joined, "
        )?;
        write!(f, "{time_saved:.3?} saved")?;
        if self.called > 0 {
            write!(f, ", {} called without a key", self.called)?;
        }
        if self.not_stored > 0 {
            write!(f, ", {} not stored", self.not_stored)?;
        }
        Ok(())
    }
}
