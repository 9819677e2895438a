//! What is known of residents, found by their editions.
//!
//! Values that came in one after the other have their records side by side: they are often used in that order too.

use super::Record;

/// So many records are enough: each takes some hundred bytes.
const MOST: u64 = 1 << 31;

/// Tells a resident from all others that there were: by where its record lies, and by how many lay there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edition {
    slot: u32,
    before: u32,
}

/// The place of a record. The number of those that lay there may begin anew after 4 billion of them: nobody remembers an
/// edition for so long.
#[derive(Default)]
struct Slot {
    before: u32,
    record: Option<Record>,
}

#[derive(Default)]
pub(super) struct Records {
    slots: Vec<Slot>,
    /// Slots without a record.
    free: Vec<u32>,
}

impl Records {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there are so many that no more should come in; a few may, that were on their way.
    pub(super) fn is_full(&self) -> bool {
        self.len() as u64 >= MOST
    }

    /// Keeps a record. Gives its edition.
    pub(super) fn insert(&mut self, record: Record) -> Edition {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // There are far fewer than 4 billion, see `is_full`.
            (self.slots.len() - 1) as u32
        });
        let place = &mut self.slots[slot as usize];
        place.record = Some(record);
        Edition { slot, before: place.before }
    }

    pub(super) fn get(&self, edition: Edition) -> Option<&Record> {
        let slot = self.slots.get(edition.slot as usize)?;
        slot.record.as_ref().filter(|_| slot.before == edition.before)
    }

    pub(super) fn get_mut(&mut self, edition: Edition) -> Option<&mut Record> {
        let slot = self.slots.get_mut(edition.slot as usize)?;
        slot.record.as_mut().filter(|_| slot.before == edition.before)
    }

    pub(super) fn remove(&mut self, edition: Edition) -> Option<Record> {
        self.get(edition)?;
        let slot = self.slots.get_mut(edition.slot as usize)?;
        slot.before = slot.before.wrapping_add(1);
        self.free.push(edition.slot);
        slot.record.take()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Record> {
        self.slots.iter().filter_map(|slot| slot.record.as_ref())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Edition, &mut Record)> {
        let slots = (0..).zip(&mut self.slots);
        slots.filter_map(|(slot, Slot { before, record })| Some((Edition { slot, before: *before }, record.as_mut()?)))
    }
}
