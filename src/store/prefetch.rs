//! Values that are loaded before anybody asks for them.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, PoisonError, Weak};
use std::vec;

use super::Store;
use super::background::{Task, Turn};
use crate::chest::not_found;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::memory::is_ranking;
use crate::sync::{Condvar, Mutex, MutexGuard, thread};
use crate::value::Value;

/// Values on their way into memory, made by [`Chest::prefetch`](crate::Chest::prefetch).
///
/// Dropping it changes nothing: the values come all the same. [`cancel`](Self::cancel) stops it, and so does closing the
/// chest.
pub struct Prefetch {
    job: Arc<Job>,
    store: Weak<Store>,
}

struct Job {
    load: fn(&Store, &Key) -> Result<bool>,
    progress: Mutex<Progress>,
    /// Signals the end.
    ended: Condvar,
}

struct Progress {
    /// Those that nobody loads yet.
    keys: vec::IntoIter<Key>,
    /// How many are being loaded.
    loading: usize,
    resident: usize,
    failure: Option<Error>,
}

impl Progress {
    fn is_done(&self) -> bool {
        self.loading == 0 && self.keys.as_slice().is_empty()
    }
}

impl Job {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task for Job {
    fn step(&self, store: &Store) -> bool {
        let key = {
            let mut progress = self.progress();
            let Some(key) = progress.keys.next() else { return false };
            progress.loading += 1;
            key
        };
        let load = AssertUnwindSafe(|| (self.load)(store, &key));
        let loaded = panic::catch_unwind(load).unwrap_or_else(|_| {
            Err(Error::unsupported("the value's type panicked, so it cannot be loaded").with_key(&key))
        });
        let mut progress = self.progress();
        progress.loading -= 1;
        match loaded {
            Ok(is_resident) => progress.resident += usize::from(is_resident),
            Err(error) => {
                progress.failure.get_or_insert(error);
            }
        }
        if progress.is_done() {
            self.ended.notify_all();
        }
        !progress.keys.as_slice().is_empty()
    }

    fn end(&self) {
        self.progress().keys = Vec::new().into_iter();
        self.ended.notify_all();
    }
}

impl Prefetch {
    pub(crate) fn start<V: Value>(store: &Arc<Store>, keys: Vec<Key>) -> Result<Self> {
        let count = keys.len();
        let progress = Progress { keys: keys.into_iter(), loading: 0, resident: 0, failure: None };
        let job = Job { load: Store::prefetch::<V>, progress: Mutex::new(progress), ended: Condvar::new() };
        let job = Arc::new(job);
        store.load_in_background(job.clone(), count, Turn::Later)?;
        Ok(Self { job, store: Arc::downgrade(store) })
    }

    /// Waits until it is done. Gives how many of the values are resident then: loaded, or there before. When the chest
    /// was closed meanwhile, those that were until then.
    ///
    /// # Errors
    /// The first of the errors; the other values were loaded all the same. [`NotFound`](ErrorKind::NotFound) and
    /// [`WrongType`](ErrorKind::WrongType) as for [`Chest::get`](crate::Chest::get). [`Busy`](ErrorKind::Busy) in a
    /// closure, an encoder or a policy: those keep keys from being loaded.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.extend([("a", 1), ("b", 2)])?;
    /// assert_eq!(chest.prefetch::<i32, _>(["a", "b"])?.wait()?, 2);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn wait(self) -> Result<usize> {
        self.check()?;
        let mut progress = self.job.progress();
        while !progress.is_done() {
            progress = self.job.ended.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        progress.failure.take().map_or(Ok(progress.resident), Err)
    }

    /// Whether this thread may wait.
    fn check(&self) -> Result<()> {
        if is_ranking() {
            return Err(Error::new(ErrorKind::Busy, "a policy cannot use a chest: the one that asks it is locked"));
        }
        let Some(store) = self.store.upgrade() else { return Ok(()) };
        if store.disk.is_forked() {
            return Err(Error::unsupported("the values are loaded in the process that was forked, not in its child"));
        }
        let me = thread::current().id();
        if store.state().busy.values().any(|work| work.owner == me) {
            let message = "a closure or an encoder cannot wait for a prefetch, which may wait for its key";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        Ok(())
    }

    /// Whether nothing is left to load.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// let prefetch = chest.prefetch::<i32, _>(0..0)?;
    /// assert!(prefetch.is_done());
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn is_done(&self) -> bool {
        self.job.progress().is_done()
    }

    /// Stops it after the values that are being loaded. Does not wait for them.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.extend((0..100).map(|i| (i, i)))?;
    /// chest.prefetch::<i32, _>(0..100)?.cancel();
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn cancel(self) {
        self.job.end();
    }
}

impl fmt::Debug for Prefetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = self.job.progress();
        let left = progress.keys.as_slice().len() + progress.loading;
        write!(f, "Prefetch({} resident, {left} left)", progress.resident)
    }
}

impl Store {
    /// Loads a value if it fits without spilling another. Tells whether it is resident.
    fn prefetch<V: Value>(&self, key: &Key) -> Result<bool> {
        if self.hit::<V>(key)?.is_some() {
            return Ok(true);
        }
        let lock = self.lock_key(key)?;
        // A resident of another type that can be read as this one goes the way through the directory.
        self.publish(std::slice::from_ref(&lock))?;
        if self.hit::<V>(key)?.is_some() {
            return Ok(true);
        }
        let Some(opened) = self.open::<V>(key)? else { return Err(not_found(key)) };
        let promised = opened.promised();
        if !self.fits(key, promised) {
            return Ok(false);
        }
        let Some(room) = self.free_room(promised) else { return Ok(false) };
        let loaded = self.read::<V>(opened)?;
        // It may be larger than the row tells.
        let Some(rest) = self.free_room(loaded.size.saturating_sub(promised)) else { return Ok(false) };
        self.settle(loaded, [room, rest], true);
        Ok(self.look(key).is_some())
    }
}

/// A value that is loaded before its turn: the reader finds it in memory then.
pub(crate) struct Ahead<V> {
    key: Key,
    /// It is not loaded if it takes more.
    limit: u64,
    place: Mutex<Place<V>>,
}

enum Place<V> {
    /// Nobody loads it yet.
    Waiting,
    Loading,
    /// Held, so that it stays until it is used.
    Loaded {
        _value: Arc<V>,
    },
    /// Nobody waits for it any more.
    Closed,
}

impl<V: Value> Ahead<V> {
    /// Loads the value of a key in the background, if there are threads for it.
    pub(crate) fn start(store: &Arc<Store>, key: Key, limit: u64) -> Arc<Self> {
        let ahead = Arc::new(Self { key, limit, place: Mutex::new(Place::Waiting) });
        // Without it the value is loaded when it is asked for.
        let _: Result<()> = store.load_in_background(ahead.clone(), 1, Turn::Soon);
        ahead
    }

    /// Tells whether a value was let go of.
    fn replace(&self, place: Place<V>) -> bool {
        let mut guard = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let is_late = matches!((&*guard, &place), (Place::Closed, Place::Loaded { .. }));
        let old = if is_late { place } else { std::mem::replace(&mut *guard, place) };
        // A value is dropped after that: it may take long, and run a user's code.
        drop(guard);
        matches!(old, Place::Loaded { .. })
    }

    /// Its turn has come: it is not loaded in the background any more, unless that has begun.
    pub(crate) fn stop(&self) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*place, Place::Waiting) {
            *place = Place::Closed;
        }
    }

    /// Its turn is over. What it kept from being spilled is, if room was needed meanwhile.
    pub(crate) fn close(&self, store: &Store) {
        if self.replace(Place::Closed) {
            store.spill_excess();
        }
    }

    /// Loads it, if nobody works on it or has it in memory. An error is left to whoever asks for the value.
    fn load(&self, store: &Store) -> Result<()> {
        let Some(lock) = store.try_lock_key(&self.key) else { return Ok(()) };
        if store.look(&self.key).is_some() {
            return Ok(());
        }
        let Some(opened) = store.open::<V>(&self.key)? else { return Ok(()) };
        if opened.promised() > self.limit {
            return Ok(());
        }
        // Nobody asked for it yet: that is no reason to go over the budget.
        let promised = opened.promised();
        let Some(room) = store.room_within_budget(promised) else { return Ok(()) };
        let loaded = store.read::<V>(opened)?;
        let Some(rest) = store.room_within_budget(loaded.size.saturating_sub(promised)) else { return Ok(()) };
        let value = store.settle(loaded, [room, rest], true);
        // Before the lock is released: who waits for it finds the value here, and closes the place.
        self.replace(Place::Loaded { _value: value });
        drop(lock);
        // Its reader may have let go of it already.
        store.spill_excess();
        Ok(())
    }
}

impl<V: Value> Task for Ahead<V> {
    fn step(&self, store: &Store) -> bool {
        {
            let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
            match *place {
                Place::Waiting => *place = Place::Loading,
                _ => return false,
            }
        }
        let _ = panic::catch_unwind(AssertUnwindSafe(|| self.load(store)));
        false
    }

    fn end(&self) {
        self.replace(Place::Closed);
    }
}

impl Store {
    /// What a value takes, if it is in memory.
    pub(crate) fn size_in_memory(&self, key: &Key) -> Option<u64> {
        self.state().residents.size(key)
    }
}
