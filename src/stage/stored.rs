//! Handles to stored results, for chains of stages.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::run::Run;
use crate::chest::Chest;
use crate::error::{Error, Result};
use crate::key::{Digest, Key};
use crate::value::{Files, Value};

/// The result of a stage in its chest. As an argument of another stage it is known by the key of its call: its content is not
/// even read.
///
/// ```
/// use icechest::{Chest, Result, Stored};
/// fn load(chest: &Chest) -> Result<Stored<Vec<f64>>> {
///     chest.stage("load").call().run_stored(|| vec![1.0, 2.0, 3.0])
/// }
/// fn total(chest: &Chest, data: &Stored<Vec<f64>>) -> Result<f64> {
///     let sum = || -> Result<f64> { Ok(data.get()?.iter().sum()) };
///     chest.stage("total").arg("data", data).try_run(sum).map(|sum| *sum)
/// }
/// let chest = Chest::temporary()?;
/// assert_eq!(total(&chest, &load(&chest)?)?, 6.0);
/// # Ok::<(), icechest::Error>(())
/// ```
pub struct Stored<V> {
    place: Place<V>,
}

enum Place<V> {
    /// In a chest, under a key.
    Chest { chest: Chest, key: Key, digest: Digest },
    /// Not stored yet: what the body of a function returns.
    Value(Arc<V>),
}

impl<V: Value> Stored<V> {
    /// A result that is about to be stored: what the body of a function with `#[stage]` returns.
    pub fn new(value: impl Into<Arc<V>>) -> Self {
        Self { place: Place::Value(value.into()) }
    }

    /// The result of a call; as a value if it could not be stored.
    pub(super) fn of_run(chest: &Chest, run: Run<V>) -> Self {
        let place = match run.key {
            Some(key) => {
                let digest = Digest::of_bytes(key.canonical().as_bytes());
                Place::Chest { chest: chest.clone(), key, digest }
            }
            None => Place::Value(run.value),
        };
        Self { place }
    }

    /// The value.
    ///
    /// # Errors
    /// As for [`Chest::get`].
    pub fn get(&self) -> Result<Arc<V>> {
        match &self.place {
            Place::Chest { chest, key, .. } => chest.get(key),
            Place::Value(value) => Ok(value.clone()),
        }
    }

    /// The key that it is stored under; none for a result that is not.
    pub fn key(&self) -> Option<&Key> {
        match &self.place {
            Place::Chest { key, .. } => Some(key),
            Place::Value(_) => None,
        }
    }
}

impl Stored<Files> {
    /// Writes the files to `target`; see [`Chest::restore`].
    ///
    /// # Errors
    /// As for [`Chest::restore`].
    pub fn restore(&self, target: impl AsRef<Path>) -> Result<()> {
        match &self.place {
            Place::Chest { chest, key, .. } => chest.restore(key, target),
            Place::Value(_) => Err(Error::unsupported("the files are not stored")),
        }
    }
}

impl<V> Clone for Stored<V> {
    fn clone(&self) -> Self {
        let place = match &self.place {
            Place::Chest { chest, key, digest } => {
                Place::Chest { chest: chest.clone(), key: key.clone(), digest: *digest }
            }
            Place::Value(value) => Place::Value(value.clone()),
        };
        Self { place }
    }
}

impl<V> Serialize for Stored<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.place {
            Place::Chest { digest, .. } => digest.serialize(serializer),
            Place::Value(_) => Err(serde::ser::Error::custom("a result that is not stored has no key")),
        }
    }
}

impl<V> fmt::Debug for Stored<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Chest { key, .. } => write!(f, "Stored({key})"),
            Place::Value(_) => f.write_str("Stored(not yet)"),
        }
    }
}

impl<V: Value> From<V> for Stored<V> {
    fn from(value: V) -> Self {
        Self::new(value)
    }
}
