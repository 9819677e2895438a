//! The two tiers at work together: values come in, are found, loaded, changed and removed.
//!
//! One mutex guards the memory tier and is never held while a file is read or written. Work on a key (loading it,
//! publishing it, changing it) holds that key's lock, see [`key_lock`]; room is made in [`room`]; values come in through
//! [`insert`] and are written in [`publish`]; [`get`] finds them and reads them through [`open`].

#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
mod append;
mod background;
pub(crate) mod digests;
mod get;
mod insert;
mod key_lock;
mod locked;
#[cfg(all(test, feature = "model"))]
mod model;
mod open;
mod prefetch;
mod publish;
mod recall;
mod room;
#[cfg(all(test, not(feature = "model")))]
mod tests;
mod watch;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use self::background::Background;
use self::digests::Digests;
use self::key_lock::{KeyLock, Work};
use self::locked::Locked;
pub(crate) use self::prefetch::Ahead;
pub use self::prefetch::Prefetch;
pub(crate) use self::recall::Recalled;
use crate::builder::Durability;
use crate::disk::Disk;
use crate::error::Result;
use crate::key::{Key, Map};
use crate::memory::{Edition, Front, Hint, Residents};
use crate::stage::Stages;
use crate::sync::atomic::AtomicBool;
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Condvar, Mutex};
use crate::value::{AnyValue, Value};

pub(crate) struct Store {
    /// Dropped before the disk: what it knows is written then.
    #[allow(dead_code, reason = "for stages")]
    pub(crate) digests: Digests,
    pub(crate) disk: Disk,
    state: Mutex<State>,
    /// The residents, for those who only read.
    front: Arc<Front>,
    /// Signals every change that a thread may wait for: a lock released, work to do, work done. See `wake`.
    changed: Condvar,
    /// Signals work for the background writers.
    work: Condvar,
    /// Whether values are written as they come in, rather than when room is needed.
    writes_behind: bool,
    /// When what is published is made durable.
    durability: Durability,
    /// Whether this process published something since the last sync.
    is_unsynced: AtomicBool,
    background: Background,
    has_writers: AtomicBool,
    /// For threads that are started later.
    me: Weak<Self>,
    /// What is known of memoised calls.
    pub(crate) stages: Stages,
}

pub(crate) struct State {
    pub(crate) residents: Residents,
    pub(crate) counts: Counts,
    /// Keys that a thread works on.
    busy: Map<Key, Work>,
    /// Keys whose values do not become resident for now, and for how many.
    disk_only: Map<Key, usize>,
    /// The keys that threads wait for.
    waits: HashMap<ThreadId, Key>,
    /// Threads that write values.
    writers: Vec<ThreadId>,
    /// Dirty editions for the background writers.
    pending: VecDeque<Edition>,
    closing: bool,
    /// Threads that wait for a change.
    waiting: usize,
}

/// Values that are in the chest no more.
struct Removed {
    count: usize,
    /// What became of making that durable, where it is wanted at once.
    synced: Result<()>,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) hits: u64,
    pub(crate) loads: u64,
    pub(crate) misses: u64,
    pub(crate) spills: u64,
    pub(crate) published: u64,
    pub(crate) write_errors: u64,
}

impl Store {
    pub(crate) fn new(disk: Disk, residents: Residents, durability: Durability) -> Arc<Self> {
        let writes_behind = !disk.is_temporary();
        let front = residents.front();
        let state = State {
            residents,
            counts: Counts::default(),
            busy: Map::default(),
            disk_only: Map::default(),
            waits: HashMap::new(),
            writers: Vec::new(),
            pending: VecDeque::new(),
            closing: false,
            waiting: 0,
        };
        Arc::new_cyclic(|me| Self {
            digests: Digests::new((!disk.is_temporary()).then(|| disk.catalog().clone()), disk.root().to_owned()),
            disk,
            state: Mutex::new(state),
            front,
            changed: Condvar::new(),
            work: Condvar::new(),
            writes_behind,
            durability,
            is_unsynced: AtomicBool::new(false),
            background: Background::new(),
            has_writers: AtomicBool::new(false),
            me: me.clone(),
            stages: Stages::default(),
        })
    }

    /// The state, with all hits counted up to now. No code of a user runs while it is locked, except a `Policy`, which
    /// cannot use a chest.
    pub(crate) fn state(&self) -> Locked<'_> {
        Locked::new(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for a change, or for nothing.
    fn wait<'a>(&'a self, state: Locked<'a>) -> Locked<'a> {
        self.wait_at_most(state, None)
    }

    /// As [`wait`](Self::wait), for so long at most.
    fn wait_at_most<'a>(&'a self, mut state: Locked<'a>, most: Option<Duration>) -> Locked<'a> {
        if !state.residents.gone.is_empty() {
            drop(state);
            return self.state();
        }
        // An encoder that waits makes no room: nobody should wait for it.
        let me = thread::current().id();
        let mine = state.writers.iter().filter(|&&writer| writer == me).count();
        if mine > 0 {
            state.writers.retain(|&writer| writer != me);
            self.wake(&state);
        }
        state.waiting += 1;
        let mut state = state.wait(|guard| match most {
            None => self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
            Some(most) => self.changed.wait_timeout(guard, most).unwrap_or_else(PoisonError::into_inner).0,
        });
        state.waiting -= 1;
        state.writers.extend(std::iter::repeat_n(me, mine));
        state
    }

    /// Wakes those who wait, if there are any: a signal that nobody hears costs a system call all the same.
    fn wake(&self, state: &State) {
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// Finds a value or makes it; of threads that ask for one key at the same time, one makes it.
    pub(crate) fn get_or_insert_with<V: Value>(
        &self,
        key: &Key,
        make: impl FnOnce() -> Result<Arc<V>>,
    ) -> Result<Arc<V>> {
        if let Some(hit) = self.hit(key)? {
            return Ok(hit);
        }
        let lock = self.lock_to_change(key)?;
        if let Some(value) = self.load(&lock)? {
            return Ok(value);
        }
        let value = make()?;
        self.insert_locked(&lock, value.clone())?;
        Ok(value)
    }

    /// Changes a value in place and keeps the change.
    pub(crate) fn update<V: Value + Clone, R>(&self, key: &Key, change: impl FnOnce(&mut V) -> R) -> Result<Option<R>> {
        let lock = self.lock_to_change(key)?;
        let Some(mut value) = self.load::<V>(&lock)? else { return Ok(None) };
        let room = {
            let mut state = self.state();
            // A clean value that nobody else holds (the tier and this thread do) can be changed where it is: if `change`
            // panics, the directory still has it as it was.
            if !state.residents.is_dirty(key) && Arc::strong_count(&value) <= 2 {
                state.residents.remove(key);
            }
            let size = AnyValue::size(&*value);
            self.promise(&mut state, size)
        };
        let result = change(Arc::make_mut(&mut value));
        room.end(&mut self.state());
        self.insert_locked(&lock, value)?;
        // Who changes a value again and again keeps the writers from it, so it does their work.
        if self.state().busy.get(key).is_some_and(|work| work.is_awaited) {
            // What failed stays dirty, as it does with them.
            let _: Result<()> = self.publish(std::slice::from_ref(&lock));
        }
        drop(lock);
        self.spill(self.state())?;
        Ok(Some(result))
    }

    /// Removes a value and gives it back. Of processes that do so at the same time one gets it.
    pub(crate) fn take<V: Value>(&self, key: &Key) -> Result<Option<Arc<V>>> {
        let lock = self.lock_to_change(key)?;
        loop {
            let Some(value) = self.load::<V>(&lock)? else { return Ok(None) };
            // Another process has published another one since.
            let Some(found) = self.look(key) else { continue };
            // None of one that the directory does not have: whatever others have published is older.
            let version = found.version;
            let Removed { count, synced } = self.remove_locked(std::slice::from_ref(&lock), version)?;
            match synced {
                // Another process has replaced or removed it since it was read.
                Ok(()) if count == 0 && version.is_some() => {}
                Ok(()) => return Ok(Some(value)),
                Err(error) => return Err(error.with_value(value)),
            }
        }
    }

    /// Removes keys; gives how many there were.
    pub(crate) fn remove(&self, keys: &[Key]) -> Result<usize> {
        let mut rest: Vec<Key> = keys.iter().collect::<HashSet<_>>().into_iter().cloned().collect();
        let mut removed = 0;
        while let Some(key) = rest.pop() {
            // Waits for one key, and takes along all those that are free.
            let mut locks = vec![self.lock_key(&key)?];
            rest.retain(|key| match self.try_lock_key(key) {
                Some(lock) => {
                    locks.push(lock);
                    false
                }
                None => true,
            });
            let Removed { count, synced } = self.remove_locked(&locks, None)?;
            removed += count;
            synced?;
        }
        Ok(removed)
    }

    /// Removes the values of locked keys; of a single one, if it is of this version.
    fn remove_locked(&self, locks: &[KeyLock<'_>], just: Option<i64>) -> Result<Removed> {
        let keys: Vec<Key> = locks.iter().map(|lock| lock.key().clone()).collect();
        let residents: Vec<Option<(Edition, bool)>> = {
            let state = self.state();
            let edition = |key| state.residents.edition(key).map(|edition| (edition, state.residents.is_dirty(key)));
            keys.iter().map(edition).collect()
        };
        let mut only_in_memory = 0;
        for (key, resident) in keys.iter().zip(&residents) {
            let is_dirty = resident.is_some_and(|(_, is_dirty)| is_dirty);
            only_in_memory += usize::from(is_dirty && self.disk.catalog().version(key)?.is_none());
        }
        let (on_disk, commit) = match (just, keys.first()) {
            (Some(version), Some(key)) => self.disk.remove_just(key, version)?,
            _ => self.disk.remove(&keys)?,
        };
        let mut state = self.state();
        for (key, resident) in keys.iter().zip(residents) {
            // A value that came after this removal began stays.
            if state.residents.edition(key) == resident.map(|(edition, _)| edition) {
                state.residents.remove(key);
                state.residents.release(key);
            }
        }
        commit.known();
        drop(state);
        Ok(Removed { count: on_disk + only_in_memory, synced: self.sync_if_wanted() })
    }

    pub(crate) fn contains(&self, key: &Key) -> Result<bool> {
        let is_dirty = self.state().residents.is_dirty(key);
        Ok(is_dirty || self.disk.catalog().version(key)?.is_some())
    }

    pub(crate) fn len(&self) -> Result<u64> {
        let dirty = self.state().residents.dirty_keys();
        self.disk.catalog().len_with(&dirty)
    }

    /// The published keys in the order of their publication, then those that are only in memory.
    pub(crate) fn keys(&self) -> Result<Vec<Key>> {
        let dirty = self.state().residents.dirty_keys();
        let mut keys = self.disk.catalog().keys()?;
        let published: HashSet<&Key> = if dirty.is_empty() { HashSet::new() } else { keys.iter().collect() };
        let unpublished: Vec<Key> = dirty.into_iter().filter(|key| !published.contains(key)).collect();
        keys.extend(unpublished);
        Ok(keys)
    }

    /// The budget for now.
    pub(crate) fn budget(&self) -> u64 {
        self.state().residents.budget()
    }

    /// Follows what a user says of a key.
    pub(crate) fn hint(&self, key: &Key, hint: Option<Hint>) -> Result<()> {
        self.state().residents.set_hint(key, hint);
        if hint == Some(Hint::PreferDisk) {
            let lock = self.lock_key(key)?;
            self.publish(std::slice::from_ref(&lock))?;
            let mut state = self.state();
            state.counts.spills += u64::from(state.residents.spill(key));
        }
        Ok(())
    }

    /// Changes the budget and spills down to it.
    pub(crate) fn set_budget(&self, bytes: u64) -> Result<()> {
        self.state().residents.set_budget(bytes);
        let (room, made) = self.make_room(0);
        room.end(&mut self.state());
        made
    }
}
