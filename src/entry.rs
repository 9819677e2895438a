//! The place of a key.

use std::fmt;
use std::sync::Arc;

use crate::chest::Chest;
use crate::error::Result;
use crate::key::Key;
use crate::value::{IntoValue, Value};

/// The place of a key in a [`Chest`](crate::Chest), made by [`entry`](crate::Chest::entry).
///
/// ```
/// # let chest = icechest::Chest::temporary()?;
/// chest.entry("count").or_insert(0u32)?;
/// chest.entry("count").and_modify(|count: &mut u32| *count += 1)?.or_insert(0u32)?;
/// assert_eq!(*chest.get::<u32>("count")?, 1);
/// # Ok::<(), icechest::Error>(())
/// ```
#[must_use = "an entry does nothing by itself"]
pub struct Entry<'a> {
    chest: &'a Chest,
    key: Key,
}

impl<'a> Entry<'a> {
    pub(crate) fn new(chest: &'a Chest, key: Key) -> Self {
        Self { chest, key }
    }

    /// The key of this place.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The value here; `value` if there is none.
    ///
    /// # Errors
    /// As for [`get_or_insert_with`](crate::Chest::get_or_insert_with).
    pub fn or_insert<I: IntoValue>(self, value: I) -> Result<Arc<I::Value>> {
        self.or_insert_with(|| value)
    }

    /// The value here; if there is none, the one that `make` makes.
    ///
    /// # Errors
    /// As for [`get_or_insert_with`](crate::Chest::get_or_insert_with).
    pub fn or_insert_with<I: IntoValue>(self, make: impl FnOnce() -> I) -> Result<Arc<I::Value>> {
        self.chest.store()?.get_or_insert_with(&self.key, || Ok(make().into_value()))
    }

    /// As [`or_insert_with`](Self::or_insert_with), where making the value may fail; then nothing is stored.
    ///
    /// # Errors
    /// Those of `make`, and as for [`get_or_insert_with`](crate::Chest::get_or_insert_with).
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// let missing = chest.entry("text").or_try_insert_with(|| std::fs::read_to_string("no such file"));
    /// assert!(missing.is_err());
    /// assert!(!chest.contains_key("text")?);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn or_try_insert_with<I: IntoValue, E: From<crate::Error>>(
        self,
        make: impl FnOnce() -> Result<I, E>,
    ) -> Result<Arc<I::Value>, E> {
        let mut failure = None;
        let value = self.chest.store()?.get_or_insert_with(&self.key, || {
            make().map(IntoValue::into_value).map_err(|error| {
                failure = Some(error);
                crate::Error::invalid("the value could not be made")
            })
        });
        match failure {
            Some(error) => Err(error),
            None => Ok(value?),
        }
    }

    /// Changes the value here, if there is one.
    ///
    /// # Errors
    /// As for [`update`](crate::Chest::update), except that a missing value is none.
    pub fn and_modify<V: Value + Clone>(self, change: impl FnOnce(&mut V)) -> Result<Self> {
        self.chest.store()?.update(&self.key, change)?;
        Ok(self)
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({})", self.key)
    }
}
