//! Finding values: in memory if they are the newest there, or in the directory.

use std::sync::Arc;

use super::Store;
use super::key_lock::KeyLock;
use super::open::Opened;
use super::room::Room;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::memory::{Edition, Kept, Resident};
use crate::sync::Instant;
use crate::value::{AnyValue, Kind, Value};

/// A value that was found in memory.
pub(super) struct Found {
    value: Arc<dyn AnyValue>,
    pub(super) version: Option<i64>,
    checked: Option<u64>,
    /// None for a value that is only held by a user.
    edition: Option<Edition>,
}

/// A value that was read, and is not resident yet.
pub(super) struct Loaded<V> {
    key: Key,
    value: Arc<V>,
    pub(super) size: u64,
    version: i64,
    generation: Option<u64>,
    /// Seconds that reading it took.
    took: f64,
}

impl Store {
    /// Finds a value, in memory or on disk.
    pub(crate) fn get<V: Value>(&self, key: &Key) -> Result<Option<Arc<V>>> {
        if let Some(hit) = self.hit(key)? {
            return Ok(Some(hit));
        }
        let lock = self.lock_key(key)?;
        self.load(&lock)
    }

    /// A value in memory of just this type, if it is still the newest.
    pub(crate) fn hit<V: Value>(&self, key: &Key) -> Result<Option<Arc<V>>> {
        let generation = if self.disk.is_left_alone() { None } else { self.disk.catalog().generation() };
        let is_newest = |resident: &Resident| {
            resident.version().is_none()
                || self.disk.is_left_alone()
                || generation.is_some() && resident.checked() == generation
        };
        let found = self.front.find(key, |resident| {
            let value = is_newest(resident).then(|| resident.value().clone())?.into_any().downcast::<V>().ok()?;
            Some((value, resident.version(), resident.edition))
        });
        let Some((value, version, edition)) = found.flatten() else { return self.hit_checked(key) };
        if self.front.note(edition) {
            // Whoever locks the state counts them.
            drop(self.state());
        }
        version.inspect(|&version| self.disk.note_use(version));
        Ok(Some(value))
    }

    /// As [`hit`](Self::hit), where it takes a query or more.
    fn hit_checked<V: Value>(&self, key: &Key) -> Result<Option<Arc<V>>> {
        let Some(found) = self.look(key) else { return Ok(None) };
        let Ok(value) = found.value.clone().into_any().downcast::<V>() else {
            if self.is_newest(key, &found)? {
                check_type::<V>(key, found.value.kind(), &found.value.stored_name())?;
            }
            return Ok(None);
        };
        if !self.is_newest(key, &found)? {
            return Ok(None);
        }
        if let Some(version) = found.version {
            self.disk.note_use(version);
        }
        let mut state = self.state();
        state.residents.touch(key);
        state.counts.hits += 1;
        Ok(Some(value))
    }

    /// What memory has under a key.
    pub(super) fn look(&self, key: &Key) -> Option<Found> {
        let state = self.state();
        let resident = state.residents.find(key, |resident| Found {
            value: resident.value().clone(),
            version: resident.version(),
            checked: resident.checked(),
            edition: Some(resident.edition),
        });
        let held = || {
            let (value, version) = state.residents.held(key)?;
            Some(Found { value, version: Some(version), checked: None, edition: None })
        };
        resident.or_else(held)
    }

    /// Whether no process has published another version since; if one has, memory forgets this one.
    ///
    /// Usually that takes a look at the catalog's generation; a query only after another process committed.
    fn is_newest(&self, key: &Key, found: &Found) -> Result<bool> {
        if found.version.is_none() || self.disk.is_left_alone() {
            return Ok(true);
        }
        let generation = self.disk.catalog().generation();
        if generation.is_some() && generation == found.checked {
            return Ok(true);
        }
        let newest = self.disk.catalog().version(key)?;
        let mut state = self.state();
        let edition = state.residents.edition(key);
        match (newest == found.version, edition) {
            (true, _) => {
                if let Some(edition) = found.edition {
                    state.residents.mark_checked(key, edition, generation);
                }
            }
            // Another process replaced or removed it.
            (false, Some(_)) if edition == found.edition => {
                state.residents.remove(key);
            }
            // What is held now may be newer.
            (false, None) if found.edition.is_none() => {
                let held = state.residents.held(key);
                if held.as_ref().is_some_and(|(_, version)| Some(*version) == found.version) {
                    state.residents.release(key);
                }
                // This too is dropped when the state is unlocked.
                state.residents.gone.extend(held.map(|(value, _)| Kept::new(value)));
            }
            (false, _) => {}
        }
        Ok(newest == found.version)
    }

    /// Reads a value from the directory, unless it came into memory while this thread waited for the key's lock.
    pub(super) fn load<V: Value>(&self, lock: &KeyLock<'_>) -> Result<Option<Arc<V>>> {
        let key = lock.key();
        if let Some(hit) = self.hit(key)? {
            return Ok(Some(hit));
        }
        // A resident of another type that can be read as this one goes the way through the directory.
        self.publish(std::slice::from_ref(lock))?;
        // One of this type that came in between is resident, and perhaps held by whoever inserted it.
        if let Some(hit) = self.hit(key)? {
            return Ok(Some(hit));
        }
        let Some(opened) = self.open::<V>(key)? else { return Ok(None) };
        self.decode(opened).map(Some)
    }

    pub(super) fn decode<V: Value>(&self, opened: Opened) -> Result<Arc<V>> {
        let promised = opened.promised();
        // Where no room can be made, because the disk is full, say, the value goes to the caller past the residents.
        let (room, made) = self.make_room(promised);
        let loaded = self.read::<V>(opened)?;
        // In another form than it was inserted, or with other buffers, a value may take more than the row tells.
        let (rest, made_rest) = self.make_room(loaded.size.saturating_sub(promised));
        let has_room = made.is_ok() && made_rest.is_ok();
        Ok(self.settle(loaded, [room, rest], has_room))
    }

    pub(super) fn read<V: Value>(&self, opened: Opened) -> Result<Loaded<V>> {
        let (key, version, generation) = (opened.key.clone(), opened.version, opened.generation);
        let began = Instant::now();
        let value = Arc::new(opened.read(|input| V::decode(input))?);
        let took = (Instant::now() - began).as_secs_f64();
        self.disk.note_use(version);
        let size = AnyValue::size(&*value);
        Ok(Loaded { key, value, size, version, generation, took })
    }

    /// Makes a value resident that was read, or remembers it as held.
    pub(super) fn settle<V: Value>(&self, loaded: Loaded<V>, rooms: [Room<'_>; 2], has_room: bool) -> Arc<V> {
        let Loaded { key, value, size, version, generation, took } = loaded;
        let erased: Arc<dyn AnyValue> = value.clone();
        let mut state = self.state();
        rooms.into_iter().for_each(|room| room.end(&mut state));
        state.counts.loads += 1;
        // Somebody may have inserted a newer value meanwhile; then this one belongs to the caller alone.
        if !state.residents.is_dirty(&key) {
            if has_room && state.fits(&key, size) {
                state.residents.release(&key);
                let edition = state.residents.insert_loaded(key.clone(), erased, size, version, took);
                state.residents.mark_checked(&key, edition, generation);
            } else {
                state.residents.remove(&key);
                state.residents.hold(key, &erased, size, version);
            }
        }
        value
    }
}

/// Refuses a type that cannot read what is stored, naming both.
pub(super) fn check_type<V: Value>(key: &Key, kind: Kind, stored_name: &str) -> Result<()> {
    if kind == V::KIND && V::reads(stored_name) {
        return Ok(());
    }
    let message = format!("the value is {} {stored_name}, not {} {}", article(kind), article(V::KIND), V::type_name());
    Err(Error::new(ErrorKind::WrongType, message).with_key(key))
}

fn article(kind: Kind) -> &'static str {
    match kind {
        Kind::Array => "the array",
        Kind::Frame => "the frame",
        Kind::Plain => "the plain value",
    }
}
