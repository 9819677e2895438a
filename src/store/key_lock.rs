//! Locks on single keys.
//!
//! A thread that has a key's lock never waits for a second one, except in a user's closure; work that needs several
//! takes those that are free. So the tiers cannot deadlock among themselves.

use super::{Locked, State, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::sync::thread::{self, ThreadId};

/// Who works on a key.
pub(super) struct Work {
    pub(super) owner: ThreadId,
    /// The new value depends on the old one, so an insert has to wait.
    is_change: bool,
    /// Whether a background writer has come in vain.
    pub(super) is_awaited: bool,
}

/// The right to load, publish, change or remove the value of a key. Released on drop.
pub(super) struct KeyLock<'a> {
    store: &'a Store,
    key: Key,
    is_released: bool,
}

impl State {
    /// Whether a thread waits for a key that another one has, or that is had by a thread that waits for it in turn.
    fn waits_for(&self, mut thread: ThreadId, other: ThreadId) -> bool {
        // Each step goes to another thread: nobody has begun to wait in a circle.
        while let Some(work) = self.waits.get(&thread).and_then(|key| self.busy.get(key)) {
            if work.owner == other {
                return true;
            }
            thread = work.owner;
        }
        false
    }
}

impl KeyLock<'_> {
    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

impl Drop for KeyLock<'_> {
    fn drop(&mut self) {
        if !self.is_released {
            let mut state = self.store.state();
            state.busy.remove(&self.key);
            self.store.wake(&state);
        }
    }
}

impl Store {
    /// Waits for the key's lock.
    ///
    /// # Errors
    /// `Busy` when this very thread has it: a closure asked for the key that it is making or changing.
    pub(super) fn lock_key(&self, key: &Key) -> Result<KeyLock<'_>> {
        self.lock(key, false)
    }

    /// As [`lock_key`](Self::lock_key), and keeps inserts out.
    pub(super) fn lock_to_change(&self, key: &Key) -> Result<KeyLock<'_>> {
        self.lock(key, true)
    }

    fn lock(&self, key: &Key, is_change: bool) -> Result<KeyLock<'_>> {
        let mut state = self.wait_for(key, |_| true)?;
        state.busy.insert(key.clone(), Work { owner: thread::current().id(), is_change, is_awaited: false });
        Ok(KeyLock { store: self, key: key.clone(), is_released: false })
    }

    /// The state, at a moment when a new value may take the place of the key's old one: others may be loading or
    /// publishing that, but not changing it.
    pub(super) fn state_to_insert(&self, key: &Key) -> Result<Locked<'_>> {
        self.wait_for(key, |work| work.is_change)
    }

    /// Waits until nobody does work on the key that is in the way.
    fn wait_for(&self, key: &Key, in_the_way: impl Fn(&Work) -> bool) -> Result<Locked<'_>> {
        let me = thread::current().id();
        let mut state = self.state();
        while let Some(work) = state.busy.get(key).filter(|work| in_the_way(work)) {
            if work.owner == me {
                let message = "a closure or an encoder uses the very key that it works for";
                return Err(Error::new(ErrorKind::Busy, message).with_key(key));
            }
            state = self.wait_for_any(state, std::slice::from_ref(key))?;
        }
        Ok(state)
    }

    /// Waits until something changes for keys that other threads work on.
    ///
    /// # Errors
    /// `Busy` when one of these threads waits for this one.
    pub(super) fn wait_for_any<'a>(&'a self, mut state: Locked<'a>, keys: &[Key]) -> Result<Locked<'a>> {
        let me = thread::current().id();
        for key in keys {
            if state.busy.get(key).is_some_and(|work| state.waits_for(work.owner, me)) {
                let message = "two closures or encoders, in threads of their own, wait for each other's keys";
                return Err(Error::new(ErrorKind::Busy, message).with_key(key));
            }
        }
        // Any of them will do: after each change the others are looked at again.
        state.waits.extend(keys.first().map(|key| (me, key.clone())));
        let mut state = self.wait(state);
        state.waits.remove(&me);
        Ok(state)
    }

    /// Releases the locks of a batch together.
    pub(super) fn unlock(&self, mut locks: Vec<KeyLock<'_>>) {
        let mut state = self.state();
        for lock in &mut locks {
            state.busy.remove(&lock.key);
            lock.is_released = true;
        }
        self.wake(&state);
    }

    pub(super) fn try_lock_key(&self, key: &Key) -> Option<KeyLock<'_>> {
        self.try_lock_key_in(&mut self.state(), key)
    }

    pub(super) fn try_lock_key_in(&self, state: &mut State, key: &Key) -> Option<KeyLock<'_>> {
        if state.busy.contains_key(key) {
            return None;
        }
        state.busy.insert(key.clone(), Work { owner: thread::current().id(), is_change: false, is_awaited: false });
        Some(KeyLock { store: self, key: key.clone(), is_released: false })
    }
}
