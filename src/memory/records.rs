//! What is known of residents, found by their editions.
//!
//! Values that came in one after the other have their records side by side: they are often used in that order too.

use super::Record;

/// Tells a resident from all others that there were: by a number that grows, and by where its record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edition {
    number: u64,
    slot: usize,
}

#[derive(Default)]
pub(super) struct Records {
    slots: Vec<Option<(u64, Record)>>,
    /// Slots without a record.
    free: Vec<usize>,
    /// How many editions there were.
    editions: u64,
}

impl Records {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The next edition, for [`insert`](Self::insert).
    pub(super) fn next(&self) -> Edition {
        Edition { number: self.editions + 1, slot: self.free.last().copied().unwrap_or(self.slots.len()) }
    }

    /// Keeps a record as the next edition.
    pub(super) fn insert(&mut self, record: Record) {
        self.editions += 1;
        let record = Some((self.editions, record));
        match self.free.pop().and_then(|slot| self.slots.get_mut(slot)) {
            Some(place) => *place = record,
            None => self.slots.push(record),
        }
    }

    pub(super) fn get(&self, edition: Edition) -> Option<&Record> {
        let (number, record) = self.slots.get(edition.slot)?.as_ref()?;
        (*number == edition.number).then_some(record)
    }

    pub(super) fn get_mut(&mut self, edition: Edition) -> Option<&mut Record> {
        let (number, record) = self.slots.get_mut(edition.slot)?.as_mut()?;
        (*number == edition.number).then_some(record)
    }

    pub(super) fn remove(&mut self, edition: Edition) -> Option<Record> {
        self.get(edition)?;
        let (_, record) = self.slots.get_mut(edition.slot)?.take()?;
        self.free.push(edition.slot);
        Some(record)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Record> {
        self.slots.iter().flatten().map(|(_, record)| record)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Edition, &mut Record)> {
        let slots = self.slots.iter_mut().enumerate();
        slots.filter_map(|(slot, place)| {
            let (number, record) = place.as_mut()?;
            Some((Edition { number: *number, slot }, record))
        })
    }
}
