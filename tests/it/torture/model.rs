//! What a key may have, as told by the journals.

use std::collections::HashMap;

use super::child::Place;
use super::journal::{Note, notes_since};
use super::writer::{THREADS, keys_of};

/// What a key had at some time.
#[derive(Clone, Copy, Debug)]
struct State {
    counter: u64,
    is_there: bool,
}

/// For each key of a writer its states: the last one known to be published, and those after it.
#[derive(Default)]
pub(super) struct Model {
    states: HashMap<u64, Vec<State>>,
    read: HashMap<u64, u64>,
}

impl Model {
    /// Reads what the threads of a writer wrote down.
    pub(super) fn read(&mut self, place: &Place, slot: u64) {
        for thread in slot * THREADS..(slot + 1) * THREADS {
            for note in notes_since(&place.journal(thread), self.read.entry(thread).or_default()) {
                self.apply(thread, note);
            }
        }
    }

    fn states(&mut self, key: u64) -> &mut Vec<State> {
        self.states.entry(key).or_insert_with(|| vec![State { counter: 0, is_there: false }])
    }

    fn apply(&mut self, thread: u64, note: Note) {
        match note {
            Note::Inserting { key, counter } => self.states(key).push(State { counter, is_there: true }),
            Note::Removing { key, counter } => self.states(key).push(State { counter, is_there: false }),
            Note::Published { key } => self.keep_last(key),
            Note::AllPublished => keys_of(thread).for_each(|key| self.keep_last(key)),
        }
    }

    fn keep_last(&mut self, key: u64) {
        let states = self.states(key);
        states.drain(..states.len() - 1);
    }

    /// Whether a key may have this value, or none. From then on it may have nothing older.
    pub(super) fn check(&mut self, key: u64, found: Option<u64>) {
        let states = self.states(key);
        let is_it = |state: &State| match found {
            Some(counter) => state.is_there && state.counter == counter,
            None => !state.is_there,
        };
        let Some(place) = states.iter().rposition(is_it) else {
            panic!("key {key} has {found:?}; the last published state and those after it are {states:?}");
        };
        *states = vec![states[place]];
    }
}
