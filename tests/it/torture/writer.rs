//! A writer that is going to be killed: a process of several threads that use a chest in all ways, and write down what
//! they did.

use std::collections::HashMap;
use std::ops::Range;
use std::thread;

use icechest::{Builder, Chest, Durability};

use super::child::{Place, say_ready};
use super::journal::{Journal, Note};
use super::value::{Story, insert, key, number, random_len, read, update};

pub(super) const WRITERS: u64 = 3;
/// Of each writer.
pub(super) const THREADS: u64 = 3;
const KEYS_OF_A_THREAD: u64 = 10;
const BUDGET: u64 = 2 << 20;

/// The keys that only one thread of one writer changes.
pub(super) fn keys_of(thread: u64) -> Range<u64> {
    thread * KEYS_OF_A_THREAD..(thread + 1) * KEYS_OF_A_THREAD
}

/// The keys that all change.
pub(super) fn shared_keys() -> Range<u64> {
    let own = WRITERS * THREADS * KEYS_OF_A_THREAD;
    own..own + 12
}

pub(super) fn settings() -> Builder {
    Chest::builder().budget(BUDGET)
}

/// Uses the chest until the process is killed. Epochs grow, and so do the counters of a key's values.
pub(super) fn write(place: &Place, slot: u64, epoch: u64) {
    let durability = [Durability::Eventual, Durability::None, Durability::Immediate][(epoch % 5).min(2) as usize];
    let inline_limit = [16 << 10, 0, 200 << 10][epoch as usize % 3];
    let chest = settings().durability(durability).inline_limit(inline_limit).open(place.chest()).unwrap();
    say_ready();
    thread::scope(|scope| {
        for thread in slot * THREADS..(slot + 1) * THREADS {
            let writer = Writer::new(chest.clone(), thread, epoch, Journal::open(&place.journal(thread)));
            scope.spawn(move || writer.work());
        }
    });
}

struct Writer {
    chest: Chest,
    thread: u64,
    counter: u64,
    journal: Journal,
    random: fastrand::Rng,
    /// What this thread made of its keys, as far as it did something with them.
    own: HashMap<u64, Option<u64>>,
    /// The newest value seen of the other threads' keys.
    seen: HashMap<u64, u64>,
}

impl Writer {
    fn new(chest: Chest, thread: u64, epoch: u64, journal: Journal) -> Self {
        let random = fastrand::Rng::with_seed(epoch << 8 | thread);
        Self { chest, thread, counter: epoch << 24, journal, random, own: HashMap::new(), seen: HashMap::new() }
    }

    fn work(mut self) {
        loop {
            match self.random.u32(0..100) {
                0..35 => self.insert_own(),
                35..43 => self.insert_shared(),
                43..50 => self.remove_own(),
                50..52 => self.remove_shared(),
                52..62 => self.update_own(),
                62..84 => self.read_any(),
                84..93 => self.flush(),
                93..95 => self.sync(),
                95..98 => self.iterate(),
                _ => self.count(),
            }
        }
    }

    fn own_key(&mut self) -> u64 {
        self.random.u64(keys_of(self.thread))
    }

    fn story(&mut self, key: u64) -> Story {
        self.counter += 1;
        Story { key, writer: self.thread, counter: self.counter, len: random_len(&mut self.random) }
    }

    fn insert_own(&mut self) {
        let key = self.own_key();
        let story = self.story(key);
        self.journal.note(Note::Inserting { key, counter: story.counter });
        insert(&self.chest, story).unwrap();
        if story.len * 8 > BUDGET {
            self.journal.note(Note::Published { key });
        }
        self.own.insert(key, Some(story.counter));
    }

    fn update_own(&mut self) {
        let key = self.own_key();
        let story = self.story(key);
        self.journal.note(Note::Inserting { key, counter: story.counter });
        if update(&self.chest, story).unwrap() {
            self.own.insert(key, Some(story.counter));
        } else {
            assert!(self.own.get(&key).is_none_or(Option::is_none), "key {key} is gone");
            // There was nothing to update, and that is so as if it were removed.
            self.journal.note(Note::Removing { key, counter: self.counter });
            self.own.insert(key, None);
        }
    }

    fn remove_own(&mut self) {
        let key = self.own_key();
        self.counter += 1;
        self.journal.note(Note::Removing { key, counter: self.counter });
        let removed = self.chest.remove(self::key(key)).unwrap();
        if let Some(known) = self.own.get(&key) {
            assert_eq!(removed, known.is_some(), "key {key}");
        }
        self.journal.note(Note::Published { key });
        self.own.insert(key, None);
    }

    fn insert_shared(&mut self) {
        let key = self.random.u64(shared_keys());
        let story = self.story(key);
        insert(&self.chest, story).unwrap();
    }

    fn remove_shared(&mut self) {
        let key = self.random.u64(shared_keys());
        self.chest.remove(self::key(key)).unwrap();
    }

    fn read_any(&mut self) {
        let key = self.random.u64(0..shared_keys().end);
        let found = read(&self.chest, key).unwrap();
        self.check(key, found);
    }

    fn check(&mut self, key: u64, found: Option<Story>) {
        let counter = found.map(|story| story.counter);
        if keys_of(self.thread).contains(&key) {
            let known = *self.own.entry(key).or_insert(counter);
            assert_eq!(known, counter, "key {key} is not as this thread left it");
        } else if let (Some(counter), false) = (counter, shared_keys().contains(&key)) {
            let seen = self.seen.entry(key).or_insert(counter);
            assert!(counter >= *seen, "key {key} went back from {seen} to {counter}");
            *seen = counter;
        }
    }

    fn flush(&mut self) {
        self.chest.flush().unwrap();
        self.journal.note(Note::AllPublished);
    }

    fn sync(&mut self) {
        self.chest.sync().unwrap();
        self.journal.note(Note::AllPublished);
    }

    fn iterate(&mut self) {
        let entries: Vec<_> = self.chest.iter::<Vec<u64>>().unwrap().take(10).collect();
        for entry in entries {
            let (key, value) = entry.unwrap();
            let found = super::value::Held::Words(value).story();
            assert_eq!(found.key, number(&key));
        }
    }

    fn count(&mut self) {
        let len = self.chest.len().unwrap();
        assert!(len <= shared_keys().end, "{len} values");
        self.chest.stats().unwrap();
        self.chest.infos().unwrap();
    }
}
