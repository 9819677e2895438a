//! Room in memory: it is promised before it is taken, and made by spilling.

use std::collections::HashSet;

use super::background::encoders;
use super::key_lock::KeyLock;
use super::publish::Batch;
use super::{Locked, State, Store};
use crate::error::{ErrorKind, Result};
use crate::key::Key;
use crate::memory::Victim;
use crate::sync::thread::{self, ThreadId};

/// Spilling goes on until this much of the budget is used, so that the next insert need not spill again.
const LOW_WATER: f64 = 0.95;

/// After so many values that could not be written, the others are not tried.
const VAIN: usize = 16;

/// Bytes that are counted as used for a value on its way in.
#[must_use]
pub(super) struct Room<'a> {
    store: &'a Store,
    bytes: u64,
}

impl Room<'_> {
    /// Gives the bytes back under a lock that the caller has, so that the value can take them in the same moment.
    pub(super) fn end(mut self, state: &mut State) {
        state.residents.give_back(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.store.state().residents.give_back(self.bytes);
        }
    }
}

impl State {
    /// Whether others write already, as many as the machine has cores for, and this thread does not.
    pub(super) fn is_crowded(&self, me: ThreadId) -> bool {
        let is_first = |&(index, writer): &(usize, &ThreadId)| !self.writers[..index].contains(writer);
        !self.writers.contains(&me) && self.writers.iter().enumerate().filter(is_first).count() >= encoders()
    }
}

impl State {
    /// The next value to spill, none that a thread works on and none of these.
    fn victim(&mut self, unwritable: &HashSet<Key>) -> Option<Victim> {
        let Self { residents, busy, .. } = self;
        residents.victim(|key| busy.contains_key(key) || unwritable.contains(key))
    }
}

impl Store {
    /// Counts bytes that are taken already, without making room for them.
    pub(super) fn promise(&self, state: &mut State, bytes: u64) -> Room<'_> {
        state.residents.take(bytes);
        Room { store: self, bytes }
    }

    /// Promises `bytes` and spills until they are within the budget, or until nothing is left that can be spilled:
    /// values that users hold stay.
    ///
    /// The room is given even when spilling fails: the caller decides whether to go over the budget.
    pub(super) fn make_room(&self, bytes: u64) -> (Room<'_>, Result<()>) {
        let mut state = self.state();
        let room = self.promise(&mut state, bytes);
        let made = self.spill(state);
        self.state().residents.note_peak();
        (room, made)
    }

    /// Promises `bytes` if they fit into the budget, once what can be spilled is.
    pub(super) fn room_within_budget(&self, bytes: u64) -> Option<Room<'_>> {
        let mut state = self.state();
        let room = self.promise(&mut state, bytes);
        let made = self.spill(state);
        let mut state = self.state();
        if made.is_err() || !state.residents.has_room(0) {
            room.end(&mut state);
            return None;
        }
        state.residents.note_peak();
        Some(room)
    }

    /// Promises `bytes` if they are free: nothing is spilled for them.
    pub(super) fn free_room(&self, bytes: u64) -> Option<Room<'_>> {
        let mut state = self.state();
        if !state.residents.has_room(bytes) {
            state.residents.forget_released();
        }
        let room = state.residents.has_room(bytes).then(|| self.promise(&mut state, bytes));
        state.residents.note_peak();
        room
    }

    /// Spills what stayed over the budget because somebody held it or worked on it.
    ///
    /// What cannot be written stays, over the budget, until somebody needs room and gets the error.
    pub(crate) fn spill_excess(&self) {
        let mut state = self.state();
        if !state.residents.has_room(0) {
            let _: Result<()> = self.spill(state);
        }
    }

    /// Spills until what is used is within the budget, or nothing is left that can be spilled.
    ///
    /// # Errors
    /// Those of writing, if there is not enough room for that. A value that cannot be written keeps no other from it.
    pub(super) fn spill<'a>(&'a self, mut state: Locked<'a>) -> Result<()> {
        let me = thread::current().id();
        let mut unwritable = HashSet::new();
        let mut failure = None;
        loop {
            if !state.residents.has_room(0) {
                state.residents.forget_released();
            }
            if state.residents.has_room(0) {
                return Ok(());
            }
            let next = state.victim(&unwritable);
            match next {
                Some(victim) if !victim.is_dirty => {
                    state.counts.spills += u64::from(state.residents.spill(&victim.key));
                }
                Some(_) if state.is_crowded(me) => state = self.wait(state),
                Some(_) => {
                    match self.spill_dirty(state, &mut unwritable) {
                        // Not if it is the disk that is in the way.
                        Err(error)
                            if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Io)
                                && unwritable.len() <= VAIN =>
                        {
                            failure.get_or_insert(error);
                        }
                        done => done?,
                    }
                    state = self.state();
                }
                // Others are writing: what they write can be spilled soon.
                None if state.writers.iter().any(|&writer| writer != me) && !state.writers.contains(&me) => {
                    state = self.wait(state);
                }
                None => return failure.map_or(Ok(()), Err),
            }
        }
    }

    /// Publishes the dirty values that come next, down to the low-water mark, and ends their residence. Adds to `unwritable`
    /// those that could not be written.
    fn spill_dirty<'a>(&'a self, mut state: Locked<'a>, unwritable: &mut HashSet<Key>) -> Result<()> {
        let target = (state.residents.budget() as f64 * LOW_WATER) as u64;
        // One at least: there may be too many values, however small.
        let mut excess = state.residents.used().saturating_sub(target).max(1);
        // What would do: for more than that nothing goes that a user pinned.
        let reserve = state.residents.budget().saturating_sub(target);
        let mut batch = Batch::new(self);
        let mut locks: Vec<KeyLock<'_>> = Vec::new();
        while !batch.is_full() && excess > 0 {
            let Some(victim) = state.victim(unwritable) else { break };
            // Whoever needs room takes clean ones first.
            if !locks.is_empty() && (!victim.is_dirty || victim.is_last && excess <= reserve) {
                break;
            }
            let size = state.residents.size(&victim.key).unwrap_or(0);
            // The victim is not busy, so its lock is free.
            let Some(lock) = self.try_lock_key_in(&mut state, &victim.key) else { break };
            batch.add(size);
            locks.push(lock);
            excess = excess.saturating_sub(size);
        }
        let writing = self.writing(&mut state);
        drop(state);
        let published = self.publish(&locks);
        let mut state = self.state();
        for lock in &locks {
            // A value that somebody took hold of meanwhile stays.
            state.counts.spills += u64::from(state.residents.spill(lock.key()));
            if published.is_err() && state.residents.is_dirty(lock.key()) {
                unwritable.insert(lock.key().clone());
            }
        }
        drop(state);
        self.unlock(locks);
        drop(writing);
        published
    }
}
