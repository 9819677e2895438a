//! Handles to stored results, for chains of stages.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::run::{Run, Status};
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
    origin: Option<Origin>,
}

enum Place<V> {
    /// In a chest, under a key.
    Chest { chest: Chest, key: Key, digest: Digest },
    /// Not stored yet: what the body of a function returns.
    Value(Arc<V>),
}

/// What is told of the call that gave a handle.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub(super) status: Status,
    pub(super) took: Duration,
    pub(super) bytes: u64,
}

impl<V: Value> Stored<V> {
    /// A result that is about to be stored: what the body of a function with `#[stage]` returns.
    pub fn new(value: impl Into<Arc<V>>) -> Self {
        Self { place: Place::Value(value.into()), origin: None }
    }

    /// The result of a call; as a value if it could not be stored.
    pub(super) fn of_run(chest: &Chest, run: Run<V>) -> Self {
        let origin = Origin { status: run.status, took: run.took, bytes: run.bytes };
        match run.key {
            Some(key) => Self::at(chest, key, origin),
            None => Self { place: Place::Value(run.value), origin: Some(origin) },
        }
    }

    pub(super) fn at(chest: &Chest, key: Key, origin: Origin) -> Self {
        let digest = Digest::of_bytes(key.canonical().as_bytes());
        Self { place: Place::Chest { chest: chest.clone(), key, digest }, origin: Some(origin) }
    }

    /// The value.
    ///
    /// # Errors
    /// As for [`Chest::get`]. What is damaged is put aside, so that the next call computes it again.
    pub fn get(&self) -> Result<Arc<V>> {
        match &self.place {
            Place::Chest { chest, key, .. } => chest.get(key).inspect_err(|error| {
                if error.is_of_the_file() {
                    // If that fails too, the next call does it.
                    let _ = chest.store().and_then(|store| store.set_aside(key));
                }
            }),
            Place::Value(value) => Ok(value.clone()),
        }
    }
}

impl<V> Stored<V> {
    /// The key that it is stored under; none for a result that is not.
    pub fn key(&self) -> Option<&Key> {
        match &self.place {
            Place::Chest { key, .. } => Some(key),
            Place::Value(_) => None,
        }
    }

    /// Where the result came from; none if no call gave it.
    pub fn status(&self) -> Option<Status> {
        self.origin.map(|origin| origin.status)
    }

    /// How long the call took that gave it.
    pub fn took(&self) -> Duration {
        self.origin.map_or(Duration::ZERO, |origin| origin.took)
    }

    /// The bytes that it takes in memory, as far as a call told.
    pub fn bytes(&self) -> u64 {
        self.origin.map_or(0, |origin| origin.bytes)
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
        Self { place, origin: self.origin }
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
