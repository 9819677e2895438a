//! Room in memory: it is promised before it is taken, and made by spilling.

use super::background::encoders;
use super::publish::Batch;
use super::{Locked, State, Store};
use crate::error::Result;
use crate::memory::Victim;
use crate::sync::thread::{self, ThreadId};

/// Spilling goes on until this much of the budget is used, so that the next insert need not spill again.
const LOW_WATER: f64 = 0.95;

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
    /// The next value to spill, none that a thread works on.
    fn victim(&mut self) -> Option<Victim> {
        let Self { residents, busy, .. } = self;
        residents.victim(|key| busy.contains_key(key))
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
    pub(super) fn spill<'a>(&'a self, mut state: Locked<'a>) -> Result<()> {
        let me = thread::current().id();
        loop {
            if !state.residents.has_room(0) {
                state.residents.forget_released();
            }
            if state.residents.has_room(0) {
                return Ok(());
            }
            let next = state.victim();
            match next {
                Some(victim) if !victim.is_dirty => {
                    state.counts.spills += u64::from(state.residents.spill(&victim.key));
                }
                Some(_) if state.is_crowded(me) => state = self.wait(state),
                Some(_) => {
                    self.spill_dirty(state)?;
                    state = self.state();
                }
                // Others are writing: what they write can be spilled soon.
                None if state.writers.iter().any(|&writer| writer != me) && !state.writers.contains(&me) => {
                    state = self.wait(state);
                }
                None => return Ok(()),
            }
        }
    }

    /// Publishes the dirty values that come next, down to the low-water mark, and ends their residence.
    fn spill_dirty<'a>(&'a self, mut state: Locked<'a>) -> Result<()> {
        let target = (state.residents.budget() as f64 * LOW_WATER) as u64;
        // One at least: there may be too many values, however small.
        let mut excess = state.residents.used().saturating_sub(target).max(1);
        let mut batch = Batch::new(self);
        let mut locks = Vec::new();
        while !batch.is_full() && excess > 0 {
            let Some(victim) = state.victim() else { break };
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
        }
        drop(state);
        self.unlock(locks);
        drop(writing);
        published
    }
}
