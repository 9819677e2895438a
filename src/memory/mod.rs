//! The memory tier: which values are resident, what they take, and which is spilled next.
//!
//! Plain data behind one lock; nothing here reads or writes a file.

mod adaptive;
mod budget;
mod hint;
mod history;
mod policy;
mod queue;
mod recorder;
mod watch;

use std::sync::{Arc, Weak};

pub use self::adaptive::Adaptive;
pub use self::budget::Budget;
#[cfg(any(feature = "arrow", feature = "polars"))]
pub(crate) use self::budget::usable_memory;
pub use self::hint::Hint;
use self::hint::Standing;
use self::history::History;
pub(crate) use self::policy::is_ranking;
pub use self::policy::{Coldest, Event, Largest, Lfu, Lru, Mru, Policy, Random, Rank, Usage};
use self::queue::Queue;
pub(crate) use self::recorder::Recorder;
pub(crate) use self::watch::Reading;
use self::watch::Watch;
use crate::key::{Key, Map};
use crate::value::Stored;

/// A value held in memory.
pub(crate) struct Resident {
    pub(crate) value: Arc<dyn Stored>,
    pub(crate) size: u64,
    /// The version in the directory; none for a dirty value.
    pub(crate) version: Option<i64>,
    /// The catalog's generation when the version was last found to be the newest.
    pub(crate) checked: Option<u64>,
    /// Tells this value from the one that was here before under the same key.
    pub(crate) edition: u64,
    usage: Usage,
    place: Place,
}

impl Resident {
    /// Whether somebody besides the tier holds the value.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.value) > 1 || self.value.is_shared()
    }

    /// Takes the place in the queue that the policy gives it now.
    fn take_place(&mut self, policy: &dyn Policy, clean: &mut Queue, dirty: &mut Queue) {
        self.move_to((self.place.0, policy::rank(policy, &self.usage)), clean, dirty);
    }

    fn move_to(&mut self, place: Place, clean: &mut Queue, dirty: &mut Queue) {
        if place != self.place {
            let queue = if self.version.is_some() { clean } else { dirty };
            queue.remove(self.place, self.edition);
            queue.insert(place, self.edition);
            self.place = place;
        }
    }
}

/// A value that is not resident but that a user still holds: it takes memory, and is not loaded a second time.
struct Held {
    value: Weak<dyn Stored>,
    size: u64,
    version: i64,
}

/// Where a resident stands in the queue.
type Place = (Standing, Rank);

/// The residents and the bytes that they take.
pub(crate) struct Residents {
    /// The budget for now; changed by `change_budget` alone.
    pub(crate) budget: u64,
    /// The budget that the user gave.
    given: u64,
    watch: Watch,
    hints: Map<Key, Hint>,
    policy: Box<dyn Policy>,
    by_key: Map<Key, Resident>,
    by_edition: Map<u64, Key>,
    clean: Queue,
    dirty: Queue,
    held: Map<Key, Held>,
    /// Values that are resident no more. Whoever has locked this drops them when it is unlocked.
    pub(crate) gone: Vec<Arc<dyn Stored>>,
    /// Bytes of residents, of values still held, and promised to values on their way in.
    used: u64,
    peak: u64,
    editions: u64,
    history: History,
    /// Whether a value ever had to leave. Before that nobody asks for the order, and uses need not be ranked.
    is_tight: bool,
}

/// The value to spill next.
pub(crate) struct Victim {
    pub(crate) key: Key,
    pub(crate) is_dirty: bool,
}

impl Residents {
    pub(crate) fn new(budget: u64, policy: Box<dyn Policy>) -> Self {
        let mut residents = Self {
            budget,
            given: budget,
            watch: Watch::default(),
            hints: Map::default(),
            policy,
            by_key: Map::default(),
            by_edition: Map::default(),
            clean: Queue::default(),
            dirty: Queue::default(),
            held: Map::default(),
            gone: Vec::new(),
            used: 0,
            peak: 0,
            editions: 0,
            history: History::default(),
            is_tight: false,
        };
        residents.set_budget(budget);
        residents
    }

    /// The budget that the user gave.
    pub(crate) fn given_budget(&self) -> u64 {
        self.given
    }

    pub(crate) fn set_budget(&mut self, bytes: u64) {
        self.given = bytes;
        self.change_budget(self.watch.budget(bytes));
    }

    fn change_budget(&mut self, bytes: u64) {
        self.budget = bytes;
        policy::ask(|| self.policy.set_budget(bytes));
    }

    /// Lowers or raises the budget for now, as the system has memory.
    pub(crate) fn follow(&mut self, reading: Reading) {
        let bytes = self.watch.follow(reading, self.used, self.given);
        if bytes != self.budget {
            self.change_budget(bytes);
        }
    }

    pub(crate) fn hint(&self, key: &Key) -> Option<Hint> {
        self.hints.get(key).copied()
    }

    /// How many keys have this hint.
    pub(crate) fn hinted(&self, hint: Hint) -> usize {
        self.hints.values().filter(|&&other| other == hint).count()
    }

    pub(crate) fn set_hint(&mut self, key: &Key, hint: Option<Hint>) {
        match hint {
            Some(hint) => self.hints.insert(key.clone(), hint),
            None => self.hints.remove(key),
        };
        if let Some(resident) = self.by_key.get_mut(key) {
            resident.move_to((hint.into(), resident.place.1), &mut self.clean, &mut self.dirty);
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Resident> {
        self.by_key.get(key)
    }

    pub(crate) fn dirty_keys(&self) -> Vec<Key> {
        self.dirty().cloned().collect()
    }

    /// The keys of dirty values, in the order in which they would be spilled.
    pub(crate) fn dirty(&self) -> impl Iterator<Item = &Key> {
        self.dirty.iter().filter_map(|edition| self.by_edition.get(&edition))
    }

    /// Residents that a user holds or has pinned: how many, and their bytes, values that are only held included.
    pub(crate) fn pinned(&mut self) -> (usize, u64) {
        self.forget_released();
        let is_pinned = |resident: &&Resident| resident.is_held() || resident.place.0 == Standing::Last;
        let sizes = self.by_key.values().filter(is_pinned).map(|resident| resident.size);
        let (count, bytes) = sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size));
        (count + self.held.len(), bytes + self.held.values().map(|held| held.size).sum::<u64>())
    }

    /// Counts a use of a resident.
    pub(crate) fn touch(&mut self, key: &Key) {
        self.touch_if(key, |_| Some(()));
    }

    /// Counts a use of a resident, if `take` takes anything from it.
    pub(crate) fn touch_if<T>(&mut self, key: &Key, take: impl FnOnce(&Resident) -> Option<T>) -> Option<T> {
        let residents = self.by_key.len();
        let resident = self.by_key.get_mut(key)?;
        let taken = take(resident)?;
        self.history.note(&mut resident.usage, residents);
        if policy::observe(&*self.policy, Event::Hit, &resident.usage) {
            self.place_all();
        } else if self.is_tight {
            resident.take_place(&*self.policy, &mut self.clean, &mut self.dirty);
        }
        Some(taken)
    }

    /// This edition was the newest in this generation of the catalog.
    pub(crate) fn mark_checked(&mut self, key: &Key, edition: u64, generation: Option<u64>) {
        if let Some(resident) = self.by_key.get_mut(key).filter(|resident| resident.edition == edition) {
            resident.checked = generation;
        }
    }

    /// Makes a value resident, in place of an older one under the same key. Gives its edition.
    pub(crate) fn insert(&mut self, key: Key, value: Arc<dyn Stored>, size: u64, version: Option<i64>) -> u64 {
        self.enter(key, value, size, version, None)
    }

    /// As [`insert`](Self::insert), for a value that took so many seconds to be read.
    pub(crate) fn insert_loaded(
        &mut self,
        key: Key,
        value: Arc<dyn Stored>,
        size: u64,
        version: i64,
        seconds: f64,
    ) -> u64 {
        self.enter(key, value, size, Some(version), Some(seconds))
    }

    fn enter(&mut self, key: Key, value: Arc<dyn Stored>, size: u64, version: Option<i64>, took: Option<f64>) -> u64 {
        let uses = self.remove(&key).map_or(0, |usage| usage.uses);
        self.editions += 1;
        let edition = self.editions;
        let mut usage = self.history.begin(key.hash64(), size, took, self.by_key.len());
        usage.uses += uses;
        self.observe(took.map_or(Event::Inserted, |seconds| Event::Loaded { seconds }), &usage);
        let place = (self.hint(&key).into(), policy::rank(&*self.policy, &usage));
        let queue = if version.is_some() { &mut self.clean } else { &mut self.dirty };
        queue.insert(place, edition);
        self.by_edition.insert(edition, key.clone());
        self.by_key.insert(key, Resident { value, size, version, checked: None, edition, usage, place });
        self.take(size);
        self.note_peak();
        edition
    }

    /// Tells the policy what happened.
    fn observe(&mut self, event: Event, usage: &Usage) {
        if policy::observe(&*self.policy, event, usage) {
            self.place_all();
        }
    }

    /// The policy has changed its mind: all residents take other places.
    fn place_all(&mut self) {
        for resident in self.by_key.values_mut() {
            resident.take_place(&*self.policy, &mut self.clean, &mut self.dirty);
        }
    }

    /// Ends the residence of a value, whoever holds it.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Usage> {
        self.leave(key, Event::Removed)
    }

    fn leave(&mut self, key: &Key, event: Event) -> Option<Usage> {
        let resident = self.by_key.remove(key)?;
        self.by_edition.remove(&resident.edition);
        let queue = if resident.version.is_some() { &mut self.clean } else { &mut self.dirty };
        queue.remove(resident.place, resident.edition);
        self.give_back(resident.size);
        self.gone.push(resident.value);
        self.history.end(&resident.usage, self.by_key.len());
        self.observe(event, &resident.usage);
        Some(resident.usage)
    }

    /// Ends the residence of a value that is clean and that nobody holds. Tells whether it was.
    pub(crate) fn spill(&mut self, key: &Key) -> bool {
        let is_free = |resident: &Resident| resident.version.is_some() && !resident.is_held();
        self.by_key.get(key).is_some_and(is_free) && self.leave(key, Event::Spilled).is_some()
    }

    /// The directory has this edition now, as `version`, the newest in this generation.
    pub(crate) fn mark_clean(&mut self, key: &Key, edition: u64, version: i64, generation: Option<u64>) {
        if let Some(resident) = self.by_key.get_mut(key).filter(|resident| resident.edition == edition) {
            let queue = if resident.version.is_some() { &mut self.clean } else { &mut self.dirty };
            queue.remove(resident.place, edition);
            self.clean.insert(resident.place, edition);
            resident.version = Some(version);
            resident.checked = generation;
        }
    }

    /// The next value to spill: a clean one before a dirty one, those that users pinned after all others, never one that
    /// somebody holds or that `skip` names.
    pub(crate) fn victim(&mut self, skip: impl Fn(&Key) -> bool) -> Option<Victim> {
        if !self.is_tight {
            self.is_tight = true;
            self.place_all();
        }
        let first = |queue: &Queue| {
            queue.iter().find_map(|edition| {
                let key = self.by_edition.get(&edition)?;
                let resident = self.by_key.get(key)?;
                (!resident.is_held() && !skip(key)).then_some((key, resident))
            })
        };
        let is_last = |(_, resident): &(&Key, &Resident)| resident.place.0 == Standing::Last;
        let clean = first(&self.clean);
        let dirty = if clean.as_ref().is_none_or(is_last) { first(&self.dirty) } else { None };
        let (key, resident) = dirty.filter(|dirty| clean.is_none() || !is_last(dirty)).or(clean)?;
        Some(Victim { key: key.clone(), is_dirty: resident.version.is_none() })
    }

    /// Counts bytes that are about to be taken.
    pub(crate) fn take(&mut self, bytes: u64) {
        self.used += bytes;
    }

    /// Remembers how much is used, at a moment when all that is counted is really taken.
    pub(crate) fn note_peak(&mut self) {
        self.peak = self.peak.max(self.used);
    }

    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Remembers a value that is not resident but that somebody holds.
    pub(crate) fn hold(&mut self, key: Key, value: &Arc<dyn Stored>, size: u64, version: i64) {
        self.release(&key);
        self.held.insert(key, Held { value: Arc::downgrade(value), size, version });
        self.take(size);
        self.note_peak();
    }

    /// The value that somebody still holds, with its version.
    pub(crate) fn held(&self, key: &Key) -> Option<(Arc<dyn Stored>, i64)> {
        let held = self.held.get(key)?;
        held.value.upgrade().map(|value| (value, held.version))
    }

    /// What a value takes, if it is in memory.
    pub(crate) fn size(&self, key: &Key) -> Option<u64> {
        let held = || self.held.get(key).filter(|held| held.value.strong_count() > 0).map(|held| held.size);
        self.by_key.get(key).map(|resident| resident.size).or_else(held)
    }

    /// Stops remembering a held value: it was replaced or removed.
    pub(crate) fn release(&mut self, key: &Key) {
        if let Some(held) = self.held.remove(key) {
            self.give_back(held.size);
        }
    }

    /// Counts out the held values that nobody holds any more.
    pub(crate) fn forget_released(&mut self) {
        let mut released = 0;
        self.held.retain(|_, held| {
            let alive = held.value.strong_count() > 0;
            released += if alive { 0 } else { held.size };
            alive
        });
        self.give_back(released);
    }
}

#[cfg(test)]
mod tests;
