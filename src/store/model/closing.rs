//! The end of a chest.

use super::*;

#[test]
fn the_last_handle_goes_while_others_publish() {
    explore(|dir| {
        let chest = named(dir, 2);
        let threads = ["a", "b"].map(|name| {
            let chest = chest.clone();
            thread::spawn(move || {
                chest.insert((name, 1), Note(1)).unwrap();
                chest.insert((name, 2), Note(2)).unwrap();
            })
        });
        drop(chest);
        join(threads);
        let later = named(dir, 2);
        assert_eq!(later.len().unwrap(), 4);
        assert!(["a", "b"].iter().all(|name| later.get::<Note>((*name, 2)).unwrap().0 == 2));
    });
}

#[test]
fn a_temporary_chest_goes_with_its_last_handle() {
    explore(|dir| {
        let chest = temporary(dir, 1);
        let path = chest.path().to_owned();
        let threads = [1, 2].map(|number| {
            let chest = chest.clone();
            thread::spawn(move || chest.insert(number, Note(number)).unwrap())
        });
        drop(chest);
        join(threads);
        assert!(!path.exists());
    });
}

/// The writer syncs in time, whoever published.
#[test]
fn what_is_published_is_synced_without_another_call() {
    explore(|dir| {
        // What is larger than the budget gives the writer nothing else to do.
        let chest = settings(0).durability(Durability::Eventual).open(dir).unwrap();
        let insert = |chest: &Chest| (0..4).for_each(|number| chest.insert("key", Note(number)).unwrap());
        join([(); 2].map(|()| spawn(&chest, insert)));
        // Spins, so that a writer that sleeps all the time is told by the number of steps.
        while chest.store().unwrap().is_unsynced.load(SeqCst) {
            thread::yield_now();
        }
    });
}
