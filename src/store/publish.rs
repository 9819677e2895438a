//! Writing values to the directory: on demand, and behind the user's back.

use std::panic::{self, AssertUnwindSafe};
use std::thread;

use super::key_lock::KeyLock;
use super::{State, Store};
use crate::disk::Draft;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::value::Stored;

/// The background writer publishes at most so many values in one transaction.
const BATCH: usize = 512;

/// Takes a thread off the list of writers, also after a panic in a user's encoder.
struct Writing<'a>(&'a Store);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let me = thread::current().id();
        let mut state = self.0.state();
        if let Some(index) = state.writers.iter().position(|&writer| writer == me) {
            state.writers.swap_remove(index);
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Store {
    /// Publishes those of the locked keys that are dirty. What can be published is, even if others fail; the first error
    /// is returned, and what failed stays dirty in memory.
    pub(super) fn publish(&self, locks: &[KeyLock<'_>]) -> Result<()> {
        let mut failure = None;
        let mut editions = Vec::new();
        let mut drafts = Vec::new();
        let dirty: Vec<_> = {
            let mut state = self.state();
            let found = |lock: &KeyLock<'_>| {
                let resident = state.residents.get(lock.key()).filter(|resident| resident.version.is_none())?;
                Some((lock.key().clone(), resident.edition, resident.value.clone()))
            };
            let dirty: Vec<_> = locks.iter().filter_map(found).collect();
            if dirty.is_empty() {
                return Ok(());
            }
            state.writers.push(thread::current().id());
            dirty
        };
        let _writing = Writing(self);
        for (key, edition, value) in dirty {
            match self.write(&key, &*value) {
                Ok(draft) => {
                    drafts.push(draft);
                    editions.push((key, edition));
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        let published = if drafts.is_empty() { Ok(Vec::new()) } else { self.disk.publish(drafts) };
        let mut state = self.state();
        match published {
            Ok(versions) => {
                state.counts.published += versions.len() as u64;
                for ((key, edition), version) in editions.into_iter().zip(versions) {
                    state.residents.mark_clean(&key, edition, version);
                }
            }
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
        state.counts.write_errors += u64::from(failure.is_some());
        failure.map_or(Ok(()), Err)
    }

    /// Writes a value; a panic in a user's encoder is an error like any other, so that no other value suffers.
    pub(super) fn write(&self, key: &Key, value: &dyn Stored) -> Result<Draft> {
        let write = AssertUnwindSafe(|| self.disk.write(key, value));
        panic::catch_unwind(write).unwrap_or_else(|_| {
            Err(Error::unsupported("the value's encoder panicked, so it cannot be written").with_key(key))
        })
    }

    /// Publishes everything. Waits for values that other threads work on.
    pub(crate) fn flush(&self) -> Result<()> {
        let me = thread::current().id();
        loop {
            let mut state = self.state();
            let mut dirty = state.residents.dirty_keys();
            // A closure that flushes cannot publish the value that it is changing.
            dirty.retain(|key| state.busy.get(key).is_none_or(|work| work.owner != me));
            if dirty.is_empty() {
                return Ok(());
            }
            let locks = self.lock_some(&mut state, &dirty);
            if locks.is_empty() {
                drop(self.wait(state));
                continue;
            }
            drop(state);
            self.publish(&locks)?;
        }
    }

    fn lock_some<'a>(&'a self, state: &mut State, keys: &[Key]) -> Vec<KeyLock<'a>> {
        keys.iter().filter_map(|key| self.try_lock_key_in(state, key)).take(BATCH).collect()
    }

    /// The background writer: publishes values as they come in until the chest is closed.
    pub(crate) fn write_behind(&self) {
        let mut state = self.state();
        while !state.closing {
            let mut batch = Vec::new();
            let mut later = Vec::new();
            while batch.len() < BATCH {
                let Some(key) = state.pending.pop_front() else { break };
                let is_dirty = state.residents.get(&key).is_some_and(|resident| resident.version.is_none());
                if is_dirty {
                    match self.try_lock_key_in(&mut state, &key) {
                        Some(lock) => batch.push(lock),
                        None => later.push(key),
                    }
                }
            }
            state.pending.extend(later);
            if batch.is_empty() {
                state = self.wait(state);
                continue;
            }
            drop(state);
            // What failed stays dirty; `flush`, or whoever needs its room, tries again and gets the error.
            let _: Result<(), Error> = self.publish(&batch);
            drop(batch);
            state = self.state();
        }
    }

    /// Ends the background writer after the batch that it is writing.
    pub(crate) fn close(&self) {
        self.state().closing = true;
        self.changed.notify_all();
    }
}
