//! Handles to stored results, for chains of stages.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::record::Record;
use super::run::{Run, Status};
use crate::chest::{Chest, not_found};
use crate::error::{Error, Result};
use crate::info::Info;
use crate::key::{Digest, Key, Outline};
use crate::store::Recalled;
use crate::value::{Files, Value};

/// The result of a stage in its chest. As an argument of another stage it is known by the key of its call: its content is not
/// even read. Where a result is computed again although one was there, because it had [expired](crate::Stage::expire) or the
/// stage is [forced](crate::Stage::force), the new one is another argument. So is one that could not be stored, each time.
/// One that is computed again because it was [forgotten](crate::Stage::forget), removed or damaged is the same argument: what
/// was made of the old one has to be forgotten too if it was wrong.
///
/// What is damaged is noticed when the handle is read, by [`get`](Self::get) or [`restore`](Self::restore): that is an error,
/// and the next call computes the result again. [`Chest::scan`] and other readers of the [key](Self::key) tell of damage, too,
/// and leave it where it is.
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
    /// What the body of a function returns, or what could not be stored; with the digest of its call if there was one.
    Value(Arc<V>, Option<Digest>),
}

/// What a result is known by in the calls that get it: the key of its own call, and which of its results it is where an older
/// one was not good enough.
fn digest(key: &Key, edition: Option<u64>) -> Digest {
    let mut outline = Outline::new("result of a call");
    outline.text(key.canonical());
    edition.into_iter().for_each(|edition| outline.number(edition));
    outline.finish()
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
        Self { place: Place::Value(value.into(), None), origin: None }
    }

    /// The result of a call; as a value if it could not be stored.
    pub(super) fn of_run(chest: &Chest, call: Option<Key>, run: Run<V>) -> Self {
        let origin = Origin { status: run.status, took: run.took, bytes: run.bytes };
        match run.key {
            Some(key) => {
                let info = chest.store().and_then(|store| Info::of(store, &key)).ok().flatten();
                let edition = info.and_then(|info| Record::of(&info.about)?.edition());
                Self::at(chest, key, edition, origin)
            }
            None => {
                // It need not be what is stored under the key, or will be: no other result is it.
                let digest = call.map(|key| digest(&key, Some(fastrand::u64(..))));
                Self { place: Place::Value(run.value, digest), origin: Some(origin) }
            }
        }
    }

    pub(super) fn at(chest: &Chest, key: Key, edition: Option<u64>, origin: Origin) -> Self {
        let digest = digest(&key, edition);
        Self { place: Place::Chest { chest: chest.clone(), key, digest }, origin: Some(origin) }
    }

    /// The value.
    ///
    /// # Errors
    /// As for [`Chest::get`]. What is damaged is put aside, so that the next call computes it again.
    pub fn get(&self) -> Result<Arc<V>> {
        match &self.place {
            Place::Chest { chest, key, .. } => {
                let store = chest.store()?;
                match store.recall(key)? {
                    Recalled::Memory(value) | Recalled::Disk(value, _) => Ok(value),
                    Recalled::Nothing => Err(not_found(key)),
                    Recalled::Damaged { error, version } => {
                        store.set_aside(key, version)?;
                        Err(error)
                    }
                }
            }
            Place::Value(value, _) => Ok(value.clone()),
        }
    }
}

impl<V> Stored<V> {
    /// The key that it is stored under; none for a result that is not.
    pub fn key(&self) -> Option<&Key> {
        match &self.place {
            Place::Chest { key, .. } => Some(key),
            Place::Value(..) => None,
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
            Place::Chest { chest, key, .. } => chest.restore(key, target).inspect_err(|error| {
                if error.is_of_the_file() {
                    // If that fails too, the next call tells.
                    let _ = chest.store().and_then(|store| store.set_aside(key, None));
                }
            }),
            Place::Value(..) => Err(Error::unsupported("the files are not stored")),
        }
    }
}

impl<V> Clone for Stored<V> {
    fn clone(&self) -> Self {
        let place = match &self.place {
            Place::Chest { chest, key, digest } => {
                Place::Chest { chest: chest.clone(), key: key.clone(), digest: *digest }
            }
            Place::Value(value, digest) => Place::Value(value.clone(), *digest),
        };
        Self { place, origin: self.origin }
    }
}

impl<V> Serialize for Stored<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.place {
            Place::Chest { digest, .. } | Place::Value(_, Some(digest)) => digest.serialize(serializer),
            Place::Value(_, None) => {
                let message =
                    "a `Stored` that no call gave is known by nothing; call a stage that returns it, or pass the value";
                Err(serde::ser::Error::custom(message))
            }
        }
    }
}

impl<V> fmt::Debug for Stored<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Chest { key, .. } => write!(f, "Stored({key})"),
            Place::Value(..) => f.write_str("Stored(not yet)"),
        }
    }
}

impl<V: Value> From<V> for Stored<V> {
    fn from(value: V) -> Self {
        Self::new(value)
    }
}
