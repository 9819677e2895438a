//! One key, read while it is written.

use super::*;

/// Which values of one key were given, and seen.
#[derive(Default)]
struct History {
    begun: AtomicU64,
    done: AtomicU64,
    seen: AtomicU64,
}

impl History {
    fn insert(&self, chest: &Chest, number: u64) {
        self.begun.store(number, SeqCst);
        chest.insert("key", Note(number)).unwrap();
        self.done.store(number, SeqCst);
    }

    fn get(&self, chest: &Chest) {
        let least = self.done.load(SeqCst).max(self.seen.load(SeqCst));
        let number = get(chest, "key").0;
        assert!((least..=self.begun.load(SeqCst)).contains(&number), "{number} after {least}");
        self.seen.fetch_max(number, SeqCst);
    }
}

fn a_read_sees_the_last_insert(chest: &Chest) {
    chest.insert("key", Note(0)).unwrap();
    let history = Arc::new(History::default());
    let mut threads: Vec<_> = (0..2)
        .map(|_| {
            let history = history.clone();
            spawn(chest, move |chest| (0..3).for_each(|_| history.get(chest)))
        })
        .collect();
    let last = history.clone();
    threads.push(spawn(chest, move |chest| (1..=3).for_each(|number| history.insert(chest, number))));
    threads.push(spawn(chest, |chest| {
        chest.insert("another", Note(1000)).unwrap();
        assert_eq!(get(chest, "another").0, 1000);
    }));
    join(threads);
    last.get(chest);
}

#[test]
fn a_read_sees_the_last_insert_in_memory_or_in_files() {
    explore(|dir| {
        a_read_sees_the_last_insert(&settings(1).inline_limit(0).temporary_in(dir).temporary().unwrap());
    });
}

#[test]
fn a_read_sees_the_last_insert_while_the_writer_publishes() {
    explore(|dir| a_read_sees_the_last_insert(&named(dir, 1)));
}

#[test]
fn a_read_sees_the_last_insert_of_a_value_larger_than_the_budget() {
    explore(|dir| a_read_sees_the_last_insert(&named(dir, 0)));
}
