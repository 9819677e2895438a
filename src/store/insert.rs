//! Values on their way in: into memory, or straight to the directory.

use std::sync::Arc;

use super::key_lock::KeyLock;
use super::publish::Published;
use super::{State, Store};
use crate::error::{ErrorKind, Result};
use crate::key::Key;
use crate::memory::{Hint, Kept};
use crate::value::AnyValue;

impl Store {
    /// Takes a value in. It is in the chest afterwards even if this returns an error, unless it cannot be stored at all;
    /// then the error gives it back.
    pub(crate) fn insert(&self, key: Key, value: Arc<dyn AnyValue>) -> Result<()> {
        if let Err(error) = key.check().and_then(|()| value.check()) {
            return Err(error.with_key(&key).with_value(value.into_any()));
        }
        let size = value.size();
        if self.goes_through(&key, size) {
            let lock = match self.lock_key(&key) {
                Ok(lock) => lock,
                Err(error) => return Err(error.with_value(value.into_any())),
            };
            self.insert_through(&lock, value, size)?;
            drop(lock);
            return self.spill(self.state());
        }
        let (room, made) = self.make_room(size);
        let mut state = match self.state_to_insert(&key) {
            Ok(state) => state,
            Err(error) => return Err(error.with_value(value.into_any())),
        };
        room.end(&mut state);
        self.place_dirty(&mut state, key, value, size);
        made?;
        // Room that was promised to others at the same time may be over the budget: who comes last makes up for it.
        self.spill(state)
    }

    /// As [`insert`](Self::insert), for a caller that has the key's lock already.
    pub(super) fn insert_locked(&self, lock: &KeyLock<'_>, value: Arc<dyn AnyValue>) -> Result<()> {
        if let Err(error) = lock.key().check().and_then(|()| value.check()) {
            return Err(error.with_key(lock.key()).with_value(value.into_any()));
        }
        let size = value.size();
        if self.goes_through(lock.key(), size) {
            return self.insert_through(lock, value, size);
        }
        let (room, made) = self.make_room(size);
        let mut state = self.state();
        room.end(&mut state);
        self.place_dirty(&mut state, lock.key().clone(), value, size);
        made
    }

    pub(super) fn place_dirty(&self, state: &mut State, key: Key, value: Arc<dyn AnyValue>, size: u64) {
        state.residents.release(&key);
        let edition = state.residents.insert(key, value, size, None);
        if self.writes_behind {
            self.start_writers();
            state.pending.push_back(edition);
            if state.pending.len() == 1 {
                self.work.notify_one();
            }
        }
    }

    /// Whether a value is published before it is in the chest: one that does not become resident; and any where the disk
    /// has a limit, so that whoever inserts it gets the refusal.
    fn goes_through(&self, key: &Key, size: u64) -> bool {
        let is_limited = self.disk.limit().is_some() && self.writes_behind;
        is_limited || !self.fits(key, size)
    }

    /// Whether a value may be resident: not one larger than the budget, nor one that is to be on disk alone, and none beyond
    /// two billion.
    pub(super) fn fits(&self, key: &Key, size: u64) -> bool {
        self.state().fits(key, size)
    }

    /// Publishes a value at once. If that fails it stays in memory, over the budget, unless a limit refuses it or it cannot
    /// be stored at all.
    fn insert_through(&self, lock: &KeyLock<'_>, value: Arc<dyn AnyValue>, size: u64) -> Result<()> {
        let key = lock.key();
        let before = self.state().residents.edition(key);
        let published = self.write(key, &*value).and_then(|draft| self.publish_drafts(vec![draft]));
        let fits = published.is_ok() && self.fits(key, size);
        // What is published need not be resident: that there is no room for it is no error.
        let room = fits.then(|| self.make_room(size).0);
        let mut state = self.state();
        if let Some(room) = room {
            room.end(&mut state);
        }
        match published {
            Ok(Published { versions, commit, synced }) => {
                state.counts.published += 1;
                // A value that another thread inserted meanwhile is the newer one.
                let after = state.residents.edition(key);
                if after.is_some() && after != before {
                    commit.known();
                    return synced;
                }
                state.residents.remove(key);
                state.residents.release(key);
                // Not before the old value is gone: whoever knows the generation would find it.
                let generation = commit.known();
                // What is told of it is in the directory now, and whoever holds it holds what is inside.
                let value = value.inner();
                match versions.first() {
                    Some(&version) if fits => {
                        let edition = state.residents.insert(key.clone(), value, size, Some(version));
                        state.residents.mark_checked(key, edition, generation);
                    }
                    version => {
                        if let Some(&version) = version.filter(|_| Arc::strong_count(&value) > 1) {
                            state.residents.hold(key.clone(), &value, size, version);
                        }
                        // Nobody else may have it any more, and its end may take long.
                        state.residents.gone.push(Kept::new(value));
                    }
                }
                synced
            }
            Err(error) => {
                state.counts.write_errors += 1;
                // What cannot be stored, now or ever, takes no other's place.
                let is_refused = error.kind() == ErrorKind::Unsupported
                    || error.kind() == ErrorKind::Full && self.disk.limit().is_some();
                if is_refused {
                    return Err(error.with_value(value.into_any()));
                }
                self.place_dirty(&mut state, key.clone(), value, size);
                Err(error)
            }
        }
    }
}

impl State {
    /// As [`Store::fits`].
    pub(super) fn fits(&mut self, key: &Key, size: u64) -> bool {
        let is_for_disk = match self.residents.hint(key) {
            Some(hint) => hint == Hint::PreferDisk,
            None => self.disk_only.contains_key(key),
        };
        self.residents.allows(size) && !is_for_disk
    }
}
