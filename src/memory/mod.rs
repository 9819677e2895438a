//! The memory tier: which values are resident, what they take, and which is spilled next.
//!
//! Plain data behind one lock, but for the [`front`]; nothing here reads or writes a file.

mod adaptive;
mod budget;
mod front;
mod hint;
mod history;
mod kept;
mod policy;
mod queue;
mod recorder;
mod records;
mod watch;

use std::mem;
use std::sync::{Arc, Weak};

pub use self::adaptive::Adaptive;
pub(crate) use self::budget::Allowance;
pub use self::budget::Budget;
#[cfg(any(feature = "arrow", feature = "polars"))]
pub(crate) use self::budget::usable_memory;
pub(crate) use self::front::{Front, Resident};
pub use self::hint::Hint;
use self::hint::Standing;
use self::history::History;
pub(crate) use self::kept::Kept;
pub(crate) use self::policy::is_ranking;
pub use self::policy::{Coldest, Event, Largest, Lfu, Lru, Mru, Policy, Random, Rank, Usage};
use self::queue::Queue;
pub(crate) use self::recorder::Recorder;
pub(crate) use self::records::Edition;
use self::records::Records;
pub(crate) use self::watch::Reading;
use self::watch::Watch;
use crate::key::{Key, Map};
use crate::value::AnyValue;

/// What is known of a resident, besides what readers need.
struct Record {
    key: Key,
    is_dirty: bool,
    /// When it came in, by a clock that goes on with each value.
    came: u64,
    /// Since when the key has had a value that the directory does not have, though perhaps an older one than this.
    dirty_since: u64,
    usage: Usage,
    place: Place,
}

impl Record {
    /// Takes the place in the queue that the policy gives it now.
    fn take_place(&mut self, edition: Edition, policy: &dyn Policy, queues: &mut Queues) {
        self.move_to((self.place.0, policy::rank(policy, &self.usage), self.place.2), edition, queues);
    }

    fn move_to(&mut self, place: Place, edition: Edition, queues: &mut Queues) {
        if place != self.place {
            let queue = queues.of(self.is_dirty);
            queue.remove(self.place, edition);
            queue.insert(place, edition);
            self.place = place;
        }
    }
}

/// A value that is not resident but that a user still holds: it takes memory, and is not loaded a second time.
struct Held {
    value: Weak<dyn AnyValue>,
    size: u64,
    version: i64,
}

/// Where a resident stands in the queue: of those of one rank the older one comes first, by the number of its first use.
type Place = (Standing, Rank, u64);

/// The order in which residents leave: clean ones before dirty ones.
#[derive(Default)]
struct Queues {
    clean: Queue,
    dirty: Queue,
}

impl Queues {
    fn of(&mut self, is_dirty: bool) -> &mut Queue {
        if is_dirty { &mut self.dirty } else { &mut self.clean }
    }
}

/// The residents and the bytes that they take.
pub(crate) struct Residents {
    /// The budget for now, or less; changed by `change_budget` alone.
    budget: u64,
    /// The budget that the user gave. How much a share is, is asked when that matters.
    given: Allowance,
    watch: Watch,
    hints: Map<Key, Hint>,
    policy: Box<dyn Policy>,
    front: Arc<Front>,
    records: Records,
    queues: Queues,
    /// Values that came in.
    clock: u64,
    /// Hits on their way from the front into the records; empty but for its memory.
    hits: Vec<Edition>,
    held: Map<Key, Held>,
    /// Values that are resident no more. Whoever has locked this drops them when it is unlocked.
    pub(crate) gone: Vec<Kept>,
    /// Bytes of residents, of values still held, and promised to values on their way in.
    used: u64,
    peak: u64,
    history: History,
    /// Whether a value ever had to leave. Before that nobody asks for the order, and uses need not be ranked.
    is_tight: bool,
}

/// The value to spill next.
pub(crate) struct Victim {
    pub(crate) key: Key,
    pub(crate) is_dirty: bool,
    /// Whether a user pinned it, so that it goes only where there would not be room otherwise.
    pub(crate) is_last: bool,
}

impl Residents {
    pub(crate) fn new(given: Allowance, policy: Box<dyn Policy>) -> Self {
        let mut residents = Self {
            budget: 0,
            given,
            watch: Watch::default(),
            hints: Map::default(),
            policy,
            front: Arc::default(),
            records: Records::default(),
            clock: 0,
            queues: Queues::default(),
            hits: Vec::new(),
            held: Map::default(),
            gone: Vec::new(),
            used: 0,
            peak: 0,
            history: History::default(),
            is_tight: false,
        };
        residents.change_budget(given.sure_bytes());
        residents
    }

    /// Where readers find the residents.
    pub(crate) fn front(&self) -> Arc<Front> {
        self.front.clone()
    }

    /// The budget that the user gave.
    pub(crate) fn given_budget(&mut self) -> u64 {
        let bytes = self.given.bytes();
        if let Allowance::Share(_) = self.given {
            self.set_budget(bytes);
        }
        bytes
    }

    /// The budget for now.
    pub(crate) fn budget(&mut self) -> u64 {
        self.given_budget();
        self.budget
    }

    /// Whether a value of so many bytes can be resident, if others leave.
    pub(crate) fn allows(&mut self, bytes: u64) -> bool {
        !self.records.is_full() && (bytes <= self.budget || bytes <= self.budget())
    }

    /// Whether so many bytes are within the budget for now, besides what is used.
    pub(crate) fn has_room(&mut self, bytes: u64) -> bool {
        self.allows(self.used.saturating_add(bytes))
    }

    pub(crate) fn set_budget(&mut self, bytes: u64) {
        self.given = Allowance::Bytes(bytes);
        self.change_budget(self.watch.budget(bytes));
    }

    fn change_budget(&mut self, bytes: u64) {
        self.budget = bytes;
        policy::ask(|| self.policy.set_budget(bytes));
    }

    /// Lowers or raises the budget for now, as the system has memory.
    pub(crate) fn follow(&mut self, reading: Reading) {
        let given = self.given_budget();
        let bytes = self.watch.follow(reading, self.used, given);
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
        let Some(edition) = self.edition(key) else { return };
        if let Some(record) = self.records.get_mut(edition) {
            record.move_to((hint.into(), record.place.1, record.place.2), edition, &mut self.queues);
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn dirty_len(&self) -> usize {
        self.queues.dirty.len()
    }

    /// What `take` takes from a resident.
    pub(crate) fn find<T>(&self, key: &Key, take: impl FnOnce(&Resident) -> T) -> Option<T> {
        self.front.find(key, take)
    }

    pub(crate) fn edition(&self, key: &Key) -> Option<Edition> {
        self.front.find(key, |resident| resident.edition)
    }

    /// Whether a key has a resident that the directory does not have.
    pub(crate) fn is_dirty(&self, key: &Key) -> bool {
        self.dirty_size(key).is_some()
    }

    /// The size of a resident that the directory does not have.
    pub(crate) fn dirty_size(&self, key: &Key) -> Option<u64> {
        let record = self.record(key).filter(|record| record.is_dirty)?;
        Some(record.usage.size)
    }

    /// The key of an edition that the directory does not have, and its size; none if it is not resident any more.
    pub(crate) fn dirty_edition(&self, edition: Edition) -> Option<(Key, u64)> {
        let record = self.records.get(edition).filter(|record| record.is_dirty)?;
        Some((record.key.clone(), record.usage.size))
    }

    fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(self.edition(key)?)
    }

    pub(crate) fn dirty_keys(&self) -> Vec<Key> {
        self.dirty_until(u64::MAX).map(|(key, _)| key.clone()).collect()
    }

    /// The editions that the directory does not have, in the order in which they would be spilled.
    pub(crate) fn dirty_editions(&self) -> impl Iterator<Item = Edition> {
        self.queues.dirty.iter()
    }

    /// How many values have come in.
    pub(crate) fn clock(&self) -> u64 {
        self.clock
    }

    /// The keys that had a dirty value at that time, none of which was published since, and the sizes of the present ones,
    /// in the order in which they would be spilled.
    pub(crate) fn dirty_until(&self, clock: u64) -> impl Iterator<Item = (&Key, u64)> {
        let records = self.queues.dirty.iter().filter_map(|edition| self.records.get(edition));
        records.filter(move |record| record.dirty_since <= clock).map(|record| (&record.key, record.usage.size))
    }

    /// Residents that a user holds or has pinned: how many, and their bytes, values that are only held included.
    pub(crate) fn pinned(&mut self) -> (usize, u64) {
        self.forget_released();
        let is_pinned = |record: &&Record| record.place.0 == Standing::Last || self.is_held(&record.key);
        let sizes = self.records.values().filter(is_pinned).map(|record| record.usage.size);
        let (count, bytes) = sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size));
        (count + self.held.len(), bytes + self.held.values().map(|held| held.size).sum::<u64>())
    }

    /// Whether a resident is held by somebody besides the tiers.
    fn is_held(&self, key: &Key) -> bool {
        self.front.find(key, Resident::is_held).unwrap_or(false)
    }

    /// Counts a use of a resident.
    pub(crate) fn touch(&mut self, key: &Key) {
        if let Some(edition) = self.edition(key) {
            self.count_use(edition);
        }
    }

    /// Counts the hits that the front has noted. Gives how many.
    pub(crate) fn count_hits(&mut self) -> u64 {
        let mut hits = mem::take(&mut self.hits);
        self.front.take_hits(&mut hits);
        let count = hits.len() as u64;
        hits.drain(..).for_each(|edition| self.count_use(edition));
        self.hits = hits;
        count
    }

    /// Counts a use of an edition, if it is still resident.
    fn count_use(&mut self, edition: Edition) {
        let residents = self.records.len();
        let Some(record) = self.records.get_mut(edition) else { return };
        self.history.note(&mut record.usage, residents);
        if policy::observe(&*self.policy, Event::Hit, &record.usage) {
            self.place_all();
        } else if self.is_tight {
            record.take_place(edition, &*self.policy, &mut self.queues);
        }
    }

    /// This edition was the newest in this generation of the catalog.
    pub(crate) fn mark_checked(&mut self, key: &Key, edition: Edition, generation: Option<u64>) {
        self.front.change(key, edition, |resident| resident.set_checked(generation));
    }

    /// Makes a value resident, in place of an older one under the same key. Gives its edition.
    pub(crate) fn insert(&mut self, key: Key, value: Arc<dyn AnyValue>, size: u64, version: Option<i64>) -> Edition {
        self.enter(key, value, size, version, None)
    }

    /// As [`insert`](Self::insert), for a value that took so many seconds to be read.
    pub(crate) fn insert_loaded(
        &mut self,
        key: Key,
        value: Arc<dyn AnyValue>,
        size: u64,
        version: i64,
        seconds: f64,
    ) -> Edition {
        self.enter(key, value, size, Some(version), Some(seconds))
    }

    fn enter(
        &mut self,
        key: Key,
        value: Arc<dyn AnyValue>,
        size: u64,
        version: Option<i64>,
        took: Option<f64>,
    ) -> Edition {
        let before = self.leave(&key, Event::Removed, |_| true);
        let uses = before.as_ref().map_or(0, |record| record.usage.uses);
        let mut usage = self.history.begin(key.hash64(), size, took, self.records.len());
        usage.uses += uses;
        self.observe(took.map_or(Event::Inserted, |seconds| Event::Loaded { seconds }), &usage);
        let place = (self.hint(&key).into(), policy::rank(&*self.policy, &usage), usage.last_use);
        let is_dirty = version.is_none();
        self.clock += 1;
        let came = self.clock;
        let dirty_since = before.filter(|record| record.is_dirty).map_or(came, |record| record.dirty_since);
        let edition = self.records.insert(Record { key: key.clone(), is_dirty, came, dirty_since, usage, place });
        self.queues.of(is_dirty).insert(place, edition);
        self.front.insert(key, Resident::new(value, version, edition));
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
        for (edition, record) in self.records.iter_mut() {
            record.take_place(edition, &*self.policy, &mut self.queues);
        }
    }

    /// Ends the residence of a value, whoever holds it.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Usage> {
        self.leave(key, Event::Removed, |_| true).map(|record| record.usage)
    }

    fn leave(&mut self, key: &Key, event: Event, leaves: impl FnOnce(&Resident) -> bool) -> Option<Record> {
        let resident = self.front.remove_if(key, leaves)?;
        let edition = resident.edition;
        self.gone.push(resident.into_kept());
        let record = self.records.remove(edition)?;
        self.queues.of(record.is_dirty).remove(record.place, edition);
        self.give_back(record.usage.size);
        self.history.end(&record.usage, self.records.len());
        self.observe(event, &record.usage);
        Some(record)
    }

    /// Ends the residence of a value that is clean and that nobody holds. Tells whether it was.
    pub(crate) fn spill(&mut self, key: &Key) -> bool {
        // Nobody can take hold of it meanwhile.
        let is_free = |resident: &Resident| resident.version().is_some() && !resident.is_held();
        self.leave(key, Event::Spilled, is_free).is_some()
    }

    /// When an edition came in.
    pub(crate) fn came(&self, edition: Edition) -> Option<u64> {
        self.records.get(edition).map(|record| record.came)
    }

    /// The directory has this edition now, which came in at that time, as `version`, the newest in this generation.
    pub(crate) fn mark_clean(&mut self, key: &Key, edition: Edition, came: u64, version: i64, generation: Option<u64>) {
        let Some(record) = self.records.get_mut(edition) else {
            // What the directory does not have came after it.
            let newer = self.edition(key).and_then(|newer| self.records.get_mut(newer));
            if let Some(newer) = newer {
                newer.dirty_since = newer.dirty_since.max(came + 1);
            }
            return;
        };
        self.queues.of(record.is_dirty).remove(record.place, edition);
        self.queues.clean.insert(record.place, edition);
        record.is_dirty = false;
        self.front.change(key, edition, |resident| {
            resident.set_version(version);
            resident.set_checked(generation);
        });
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
                let record = self.records.get(edition)?;
                (!self.is_held(&record.key) && !skip(&record.key)).then_some(record)
            })
        };
        let is_last = |record: &&Record| record.place.0 == Standing::Last;
        let clean = first(&self.queues.clean);
        let dirty = if clean.as_ref().is_none_or(is_last) { first(&self.queues.dirty) } else { None };
        let record = dirty.filter(|dirty| clean.is_none() || !is_last(dirty)).or(clean)?;
        Some(Victim { key: record.key.clone(), is_dirty: record.is_dirty, is_last: is_last(&record) })
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
    pub(crate) fn hold(&mut self, key: Key, value: &Arc<dyn AnyValue>, size: u64, version: i64) {
        self.release(&key);
        self.held.insert(key, Held { value: Arc::downgrade(value), size, version });
        self.take(size);
        self.note_peak();
    }

    /// The value that somebody still holds, with its version.
    pub(crate) fn held(&self, key: &Key) -> Option<(Arc<dyn AnyValue>, i64)> {
        let held = self.held.get(key)?;
        held.value.upgrade().map(|value| (value, held.version))
    }

    /// What a value takes, if it is in memory.
    pub(crate) fn size(&self, key: &Key) -> Option<u64> {
        let held = || self.held.get(key).filter(|held| kept::is_held_by_a_user(&held.value)).map(|held| held.size);
        self.record(key).map(|record| record.usage.size).or_else(held)
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
            let is_held = kept::is_held_by_a_user(&held.value);
            released += if is_held { 0 } else { held.size };
            is_held
        });
        self.give_back(released);
    }
}

#[cfg(test)]
mod tests;
