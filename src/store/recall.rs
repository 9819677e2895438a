//! What a stage asks of the tiers besides what a dictionary does.

use std::sync::Arc;

use super::Store;
use crate::error::Result;
use crate::key::Key;
use crate::value::{AnyValue, Value};

/// A value that was found, and where.
pub(crate) struct Recalled<V> {
    pub(crate) value: Arc<V>,
    /// What is told of it, as the catalog has it; none for a value that was in memory.
    pub(crate) about: Option<Option<String>>,
}

impl Store {
    /// As `get`, and tells where the value was.
    pub(crate) fn recall<V: Value>(&self, key: &Key) -> Result<Option<Recalled<V>>> {
        if let Some(value) = self.hit(key)? {
            return Ok(Some(Recalled { value, about: None }));
        }
        // Nobody has to wait for what is not there.
        if !self.contains(key)? {
            return Ok(None);
        }
        let lock = self.lock_key(key)?;
        self.publish(std::slice::from_ref(&lock))?;
        if let Some(value) = self.hit(key)? {
            return Ok(Some(Recalled { value, about: None }));
        }
        let Some(opened) = self.open::<V>(key)? else { return Ok(None) };
        let about = opened.about.clone();
        Ok(Some(Recalled { value: self.decode(opened)?, about: Some(about) }))
    }

    /// Stores a value that can be written only now.
    ///
    /// # Errors
    /// Those of writing; then the value is not there, and the older one is.
    pub(crate) fn insert_published(&self, key: &Key, value: &dyn AnyValue) -> Result<()> {
        key.check()?;
        let draft = self.write(key, value)?;
        self.publish_written(key, draft)
    }

    /// Takes the result of a call in. Other processes see it when this returns, if `publish` says so.
    pub(crate) fn keep(&self, key: &Key, value: Arc<dyn AnyValue>, publish: bool) -> Result<()> {
        self.insert(key.clone(), value)?;
        if publish {
            let lock = self.lock_key(key)?;
            self.publish(std::slice::from_ref(&lock))?;
        }
        Ok(())
    }

    /// Puts what is stored under a key into the quarantine.
    pub(crate) fn set_aside(&self, key: &Key) -> Result<()> {
        let _lock = self.lock_key(key)?;
        self.disk.set_aside(key)?;
        let mut state = self.state();
        state.residents.remove(key);
        state.residents.release(key);
        Ok(())
    }
}
