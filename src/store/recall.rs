//! What a stage asks of the tiers besides what a dictionary does.

use std::sync::Arc;

use super::Store;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::memory::Resident;
use crate::sync::thread;
use crate::value::{AnyValue, Value};

/// What was found under a key, and where.
pub(crate) enum Recalled<V> {
    Nothing,
    Memory(Arc<V>),
    /// With what is told of it, as the catalog has it.
    Disk(Arc<V>, Option<String>),
    /// What is stored cannot be read; its version, if its row could be.
    Damaged {
        error: Error,
        version: Option<i64>,
    },
}

/// While it lasts a value does not become resident.
#[must_use]
pub(crate) struct DiskOnly<'a> {
    store: &'a Store,
    key: &'a Key,
}

impl Drop for DiskOnly<'_> {
    fn drop(&mut self) {
        let mut state = self.store.state();
        if let Some(count) = state.disk_only.get_mut(self.key) {
            *count -= 1;
            if *count == 0 {
                state.disk_only.remove(self.key);
            }
        }
    }
}

impl Store {
    /// As `get`, and tells where the value was.
    pub(crate) fn recall<V: Value>(&self, key: &Key) -> Result<Recalled<V>> {
        if let Some(value) = self.hit(key)? {
            return Ok(Recalled::Memory(value));
        }
        let damaged = |version| {
            move |error: Error| match error.is_of_the_file() {
                true => Ok(Recalled::Damaged { error, version }),
                false => Err(error),
            }
        };
        let lock = match self.try_lock_key(key) {
            Some(lock) => lock,
            // Nobody has to wait for what is not there.
            None => match self.contains(key) {
                Ok(true) => self.lock_key(key)?,
                Ok(false) => return Ok(Recalled::Nothing),
                Err(error) => return damaged(None)(error),
            },
        };
        self.publish(std::slice::from_ref(&lock))?;
        if let Some(value) = self.hit(key)? {
            return Ok(Recalled::Memory(value));
        }
        let opened = match self.open_newest::<V>(key) {
            Ok(Some(opened)) => opened,
            Ok(None) => return Ok(Recalled::Nothing),
            Err(error) => return damaged(None)(error),
        };
        let (version, about) = (opened.version, opened.about.clone());
        self.decode(opened).map(|value| Recalled::Disk(value, about)).or_else(damaged(Some(version)))
    }

    /// Whether this thread makes, changes, loads or publishes a value, so that others may wait for it.
    pub(crate) fn works_on_a_key(&self) -> bool {
        let me = thread::current().id();
        self.state().busy.values().any(|work| work.owner == me)
    }

    /// As [`Chest::prefer_disk`](crate::Chest::prefer_disk) until what this gives is dropped, unless the user has said
    /// something else.
    pub(crate) fn prefer_disk<'a>(&'a self, key: &'a Key) -> DiskOnly<'a> {
        *self.state().disk_only.entry(key.clone()).or_default() += 1;
        DiskOnly { store: self, key }
    }

    /// Stores a value that can be written only now.
    ///
    /// # Errors
    /// Those of writing; then the value is not there, and the older one is.
    pub(crate) fn insert_published(&self, key: &Key, value: &dyn AnyValue) -> Result<()> {
        key.check()?;
        value.check()?;
        let draft = self.write(key, value)?;
        self.publish_written(key, draft)
    }

    /// Takes the result of a call in. Other processes see it when this returns, if `publish` says so.
    pub(crate) fn keep(&self, key: &Key, value: Arc<dyn AnyValue>, publish: bool) -> Result<()> {
        self.insert(key.clone(), value)?;
        // In a closure that has this key, whoever made it publishes it.
        if publish && !self.works_on_a_key() {
            let lock = self.lock_key(key)?;
            self.publish(std::slice::from_ref(&lock))?;
        }
        Ok(())
    }

    /// Puts what is stored under a key into the quarantine if it is this version, or else if it is damaged.
    pub(crate) fn set_aside(&self, key: &Key, version: Option<i64>) -> Result<()> {
        let _lock = self.lock_key(key)?;
        self.disk.set_aside(key, version)?;
        let mut state = self.state();
        // One that is not published yet has come since.
        if state.residents.find(key, Resident::version).flatten().is_some() {
            state.residents.remove(key);
        }
        state.residents.release(key);
        Ok(())
    }
}
