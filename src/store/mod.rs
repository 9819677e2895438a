//! The two tiers at work together: values come in, are found, loaded, changed and removed.
//!
//! One mutex guards the memory tier and is never held while a file is read or written. Work on a key (loading it,
//! publishing it, changing it) holds that key's lock, see [`key_lock`]; room is made in [`room`]; values are written in
//! [`publish`]; they are read through [`open`].

#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
mod append;
mod background;
pub(crate) mod digests;
mod key_lock;
mod locked;
#[cfg(all(test, feature = "model"))]
mod model;
mod open;
mod prefetch;
mod publish;
mod recall;
mod room;
#[cfg(all(test, not(feature = "model")))]
mod tests;
mod watch;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError, Weak};

use self::background::Background;
use self::digests::Digests;
use self::key_lock::{KeyLock, Work};
use self::locked::Locked;
use self::open::Opened;
pub(crate) use self::prefetch::Ahead;
pub use self::prefetch::Prefetch;
use self::publish::Published;
pub(crate) use self::recall::Recalled;
use self::room::Room;
use crate::builder::Durability;
use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Map};
use crate::memory::{Edition, Front, Hint, Resident, Residents};
use crate::stage::Stages;
use crate::sync::atomic::AtomicBool;
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Condvar, Instant, Mutex};
use crate::value::{AnyValue, Kind, Value};

pub(crate) struct Store {
    /// Dropped before the disk: what it knows is written then.
    #[allow(dead_code, reason = "for stages")]
    pub(crate) digests: Digests,
    pub(crate) disk: Disk,
    state: Mutex<State>,
    /// The residents, for those who only read.
    front: Arc<Front>,
    /// Signals every change that a thread may wait for: a lock released, work to do, work done. See `wake`.
    changed: Condvar,
    /// Signals work for the background writers.
    work: Condvar,
    /// Whether values are written as they come in, rather than when room is needed.
    writes_behind: bool,
    /// When what is published is made durable.
    durability: Durability,
    /// Whether this process published something since the last sync.
    is_unsynced: AtomicBool,
    background: Background,
    has_writers: AtomicBool,
    /// For threads that are started later.
    me: Weak<Self>,
    /// What is known of memoised calls.
    pub(crate) stages: Stages,
}

pub(crate) struct State {
    pub(crate) residents: Residents,
    pub(crate) counts: Counts,
    /// Keys that a thread works on.
    busy: Map<Key, Work>,
    /// The keys that threads wait for.
    waits: HashMap<ThreadId, Key>,
    /// Threads that write values.
    writers: Vec<ThreadId>,
    /// Dirty editions for the background writers.
    pending: VecDeque<Edition>,
    closing: bool,
    /// Threads that wait for a change.
    waiting: usize,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) hits: u64,
    pub(crate) loads: u64,
    pub(crate) misses: u64,
    pub(crate) spills: u64,
    pub(crate) published: u64,
    pub(crate) write_errors: u64,
}

/// A value that was found in memory.
struct Found {
    value: Arc<dyn AnyValue>,
    version: Option<i64>,
    checked: Option<u64>,
    /// None for a value that is only held by a user.
    edition: Option<Edition>,
}

/// A value that was read, and is not resident yet.
struct Loaded<V> {
    key: Key,
    value: Arc<V>,
    size: u64,
    version: i64,
    generation: Option<u64>,
    /// Seconds that reading it took.
    took: f64,
}

impl Store {
    pub(crate) fn new(disk: Disk, residents: Residents, durability: Durability) -> Arc<Self> {
        let writes_behind = !disk.is_temporary();
        let front = residents.front();
        let state = State {
            residents,
            counts: Counts::default(),
            busy: Map::default(),
            waits: HashMap::new(),
            writers: Vec::new(),
            pending: VecDeque::new(),
            closing: false,
            waiting: 0,
        };
        Arc::new_cyclic(|me| Self {
            digests: Digests::new((!disk.is_temporary()).then(|| disk.catalog().clone())),
            disk,
            state: Mutex::new(state),
            front,
            changed: Condvar::new(),
            work: Condvar::new(),
            writes_behind,
            durability,
            is_unsynced: AtomicBool::new(false),
            background: Background::new(),
            has_writers: AtomicBool::new(false),
            me: me.clone(),
            stages: Stages::default(),
        })
    }

    /// The state, with all hits counted up to now. No code of a user runs while it is locked, except a `Policy`, which
    /// cannot use a chest.
    pub(crate) fn state(&self) -> Locked<'_> {
        Locked::new(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for a change, or for nothing.
    fn wait<'a>(&'a self, mut state: Locked<'a>) -> Locked<'a> {
        if !state.residents.gone.is_empty() {
            drop(state);
            return self.state();
        }
        // An encoder that waits makes no room: nobody should wait for it.
        let me = thread::current().id();
        let mine = state.writers.iter().filter(|&&writer| writer == me).count();
        if mine > 0 {
            state.writers.retain(|&writer| writer != me);
            self.wake(&state);
        }
        state.waiting += 1;
        let mut state = state.wait(|guard| self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner));
        state.waiting -= 1;
        state.writers.extend(std::iter::repeat_n(me, mine));
        state
    }

    /// Wakes those who wait, if there are any: a signal that nobody hears costs a system call all the same.
    fn wake(&self, state: &State) {
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

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
    fn insert_locked(&self, lock: &KeyLock<'_>, value: Arc<dyn AnyValue>) -> Result<()> {
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

    fn place_dirty(&self, state: &mut State, key: Key, value: Arc<dyn AnyValue>, size: u64) {
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
    fn fits(&self, key: &Key, size: u64) -> bool {
        self.state().fits(key, size)
    }

    /// Publishes a value at once. If that fails it stays in memory, over the budget, unless a limit refuses it.
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
                    Some(&version) if Arc::strong_count(&value) > 1 => {
                        state.residents.hold(key.clone(), &value, size, version);
                    }
                    _ => {}
                }
                synced
            }
            Err(error) => {
                state.counts.write_errors += 1;
                if self.disk.limit().is_some() {
                    return Err(error.with_value(value.into_any()));
                }
                self.place_dirty(&mut state, key.clone(), value, size);
                Err(error)
            }
        }
    }

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
        let generation = if self.disk.is_temporary() { None } else { self.disk.catalog().generation() };
        let is_newest = |resident: &Resident| {
            resident.version().is_none()
                || self.disk.is_temporary()
                || generation.is_some() && resident.checked() == generation
        };
        let found = self.front.find(key, |resident| {
            let value = is_newest(resident).then(|| resident.value.clone())?.into_any().downcast::<V>().ok()?;
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
    fn look(&self, key: &Key) -> Option<Found> {
        let state = self.state();
        match state.residents.get(key) {
            Some(resident) => Some(Found {
                version: resident.version(),
                checked: resident.checked(),
                edition: Some(resident.edition),
                value: resident.value,
            }),
            None => state.residents.held(key).map(|(value, version)| Found {
                value,
                version: Some(version),
                checked: None,
                edition: None,
            }),
        }
    }

    /// Whether no process has published another version since; if one has, memory forgets this one.
    ///
    /// Usually that takes a look at the catalog's generation; a query only after another process committed.
    fn is_newest(&self, key: &Key, found: &Found) -> Result<bool> {
        if found.version.is_none() || self.disk.is_temporary() {
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
                state.residents.gone.extend(held.map(|(value, _)| value));
            }
            (false, _) => {}
        }
        Ok(newest == found.version)
    }

    /// Reads a value from the directory, unless it came into memory while this thread waited for the key's lock.
    fn load<V: Value>(&self, lock: &KeyLock<'_>) -> Result<Option<Arc<V>>> {
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

    fn decode<V: Value>(&self, opened: Opened) -> Result<Arc<V>> {
        let promised = opened.promised();
        // Where no room can be made, because the disk is full, say, the value goes to the caller past the residents.
        let (room, made) = self.make_room(promised);
        let loaded = self.read::<V>(opened)?;
        // In another form than it was inserted, or with other buffers, a value may take more than the row tells.
        let (rest, made_rest) = self.make_room(loaded.size.saturating_sub(promised));
        let has_room = made.is_ok() && made_rest.is_ok();
        Ok(self.settle(loaded, [room, rest], has_room))
    }

    fn read<V: Value>(&self, opened: Opened) -> Result<Loaded<V>> {
        let (key, version, generation) = (opened.key.clone(), opened.version, opened.generation);
        let began = Instant::now();
        let value = Arc::new(opened.read(|input| V::decode(input))?);
        let took = (Instant::now() - began).as_secs_f64();
        self.disk.note_use(version);
        let size = AnyValue::size(&*value);
        Ok(Loaded { key, value, size, version, generation, took })
    }

    /// Makes a value resident that was read, or remembers it as held.
    fn settle<V: Value>(&self, loaded: Loaded<V>, rooms: [Room<'_>; 2], has_room: bool) -> Arc<V> {
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

    /// Finds a value or makes it; of threads that ask for one key at the same time, one makes it.
    pub(crate) fn get_or_insert_with<V: Value>(
        &self,
        key: &Key,
        make: impl FnOnce() -> Result<Arc<V>>,
    ) -> Result<Arc<V>> {
        if let Some(hit) = self.hit(key)? {
            return Ok(hit);
        }
        let lock = self.lock_to_change(key)?;
        if let Some(value) = self.load(&lock)? {
            return Ok(value);
        }
        let value = make()?;
        self.insert_locked(&lock, value.clone())?;
        Ok(value)
    }

    /// Changes a value in place and keeps the change.
    pub(crate) fn update<V: Value + Clone, R>(&self, key: &Key, change: impl FnOnce(&mut V) -> R) -> Result<Option<R>> {
        let lock = self.lock_to_change(key)?;
        let Some(mut value) = self.load::<V>(&lock)? else { return Ok(None) };
        let room = {
            let mut state = self.state();
            // A clean value that nobody else holds (the tier and this thread do) can be changed where it is: if `change`
            // panics, the directory still has it as it was.
            if !state.residents.is_dirty(key) && Arc::strong_count(&value) <= 2 {
                state.residents.remove(key);
            }
            let size = AnyValue::size(&*value);
            self.promise(&mut state, size)
        };
        let result = change(Arc::make_mut(&mut value));
        room.end(&mut self.state());
        self.insert_locked(&lock, value)?;
        drop(lock);
        self.spill(self.state())?;
        Ok(Some(result))
    }

    /// Removes a value and gives it back.
    pub(crate) fn take<V: Value>(&self, key: &Key) -> Result<Option<Arc<V>>> {
        let lock = self.lock_to_change(key)?;
        let Some(value) = self.load(&lock)? else { return Ok(None) };
        self.remove_locked(std::slice::from_ref(&lock))?;
        Ok(Some(value))
    }

    /// Removes keys; gives how many there were.
    pub(crate) fn remove(&self, keys: &[Key]) -> Result<usize> {
        let mut rest: Vec<Key> = keys.iter().collect::<HashSet<_>>().into_iter().cloned().collect();
        let mut removed = 0;
        while let Some(key) = rest.pop() {
            // Waits for one key, and takes along all those that are free.
            let mut locks = vec![self.lock_key(&key)?];
            rest.retain(|key| match self.try_lock_key(key) {
                Some(lock) => {
                    locks.push(lock);
                    false
                }
                None => true,
            });
            removed += self.remove_locked(&locks)?;
        }
        Ok(removed)
    }

    fn remove_locked(&self, locks: &[KeyLock<'_>]) -> Result<usize> {
        let keys: Vec<Key> = locks.iter().map(|lock| lock.key().clone()).collect();
        let residents: Vec<Option<(Edition, bool)>> = {
            let state = self.state();
            let edition = |key| state.residents.edition(key).map(|edition| (edition, state.residents.is_dirty(key)));
            keys.iter().map(edition).collect()
        };
        let mut only_in_memory = 0;
        for (key, resident) in keys.iter().zip(&residents) {
            let is_dirty = resident.is_some_and(|(_, is_dirty)| is_dirty);
            only_in_memory += usize::from(is_dirty && self.disk.catalog().version(key)?.is_none());
        }
        let (on_disk, commit) = self.disk.remove(&keys)?;
        self.note_unsynced();
        let mut state = self.state();
        for (key, resident) in keys.iter().zip(residents) {
            // A value that came after this removal began stays.
            if state.residents.edition(key) == resident.map(|(edition, _)| edition) {
                state.residents.remove(key);
                state.residents.release(key);
            }
        }
        commit.known();
        Ok(on_disk + only_in_memory)
    }

    pub(crate) fn contains(&self, key: &Key) -> Result<bool> {
        let is_dirty = self.state().residents.is_dirty(key);
        Ok(is_dirty || self.disk.catalog().version(key)?.is_some())
    }

    pub(crate) fn len(&self) -> Result<u64> {
        let dirty = self.state().residents.dirty_keys();
        self.disk.catalog().len_with(&dirty)
    }

    /// The published keys in the order of their publication, then those that are only in memory.
    pub(crate) fn keys(&self) -> Result<Vec<Key>> {
        let dirty = self.state().residents.dirty_keys();
        let mut keys = self.disk.catalog().keys()?;
        let published: HashSet<&Key> = if dirty.is_empty() { HashSet::new() } else { keys.iter().collect() };
        let unpublished: Vec<Key> = dirty.into_iter().filter(|key| !published.contains(key)).collect();
        keys.extend(unpublished);
        Ok(keys)
    }

    /// The budget for now.
    pub(crate) fn budget(&self) -> u64 {
        self.state().residents.budget()
    }

    /// Follows what a user says of a key.
    pub(crate) fn hint(&self, key: &Key, hint: Option<Hint>) -> Result<()> {
        self.state().residents.set_hint(key, hint);
        if hint == Some(Hint::PreferDisk) {
            let lock = self.lock_key(key)?;
            self.publish(std::slice::from_ref(&lock))?;
            let mut state = self.state();
            state.counts.spills += u64::from(state.residents.spill(key));
        }
        Ok(())
    }

    /// Changes the budget and spills down to it.
    pub(crate) fn set_budget(&self, bytes: u64) -> Result<()> {
        self.state().residents.set_budget(bytes);
        let (room, made) = self.make_room(0);
        room.end(&mut self.state());
        made
    }
}

impl State {
    fn fits(&mut self, key: &Key, size: u64) -> bool {
        self.residents.allows(size) && self.residents.hint(key) != Some(Hint::PreferDisk)
    }
}

/// Refuses a type that cannot read what is stored, naming both.
fn check_type<V: Value>(key: &Key, kind: Kind, stored_name: &str) -> Result<()> {
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
