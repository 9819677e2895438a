//! Values that are loaded before they are asked for.

use super::*;

/// A chest with room for so many of the four values that it has on disk.
fn cold(dir: &Path, notes: u64) -> Chest {
    let chest = temporary(dir, 4);
    chest.extend((0..4).map(|number| (number, Note(number)))).unwrap();
    make_all_cold(&chest, notes);
    chest
}

fn make_all_cold(chest: &Chest, notes: u64) {
    chest.set_budget(0).unwrap();
    chest.set_budget(room_for(notes)).unwrap();
}

#[test]
fn a_prefetch_spills_nothing_and_loads_each_value_once() {
    explore(|dir| {
        let chest = cold(dir, 3);
        let spills = chest.stats().unwrap().spills;
        let prefetches = [0, 1].map(|_| chest.prefetch::<Note, _>(0..4).unwrap());
        let reader = spawn(&chest, |chest| assert_eq!(chest.get::<Note>(0).unwrap().0, 0));
        let resident = prefetches.map(|prefetch| prefetch.wait().unwrap());
        join([reader]);
        let stats = chest.stats().unwrap();
        assert!(resident.iter().all(|&resident| resident <= 3), "{resident:?}");
        // The reader may spill, for a moment when all room is promised.
        assert!((2..=3).contains(&stats.resident) && stats.spills <= spills + 1, "{stats}");
        assert!(stats.loads <= 4 && stats.peak_bytes <= room_for(4), "{stats}");
        assert_in_budget(&chest);
    });
}

#[test]
fn a_prefetch_of_what_changes() {
    explore(|dir| {
        let chest = cold(dir, 2);
        let prefetch = chest.prefetch::<Note, _>(0..4).unwrap();
        let insert = spawn(&chest, |chest| chest.insert(1, Note(10)).unwrap());
        let change = spawn(&chest, |chest| chest.update(2, |note: &mut Note| note.0 = 20).unwrap());
        let removal = spawn(&chest, |chest| assert!(chest.remove(3).unwrap()));
        match prefetch.wait() {
            Ok(resident) => assert!(resident <= 4),
            Err(error) => assert_eq!((error.kind(), error.key()), (ErrorKind::NotFound, Some(&3.into()))),
        }
        join([insert, change, removal]);
        let found = [0, 1, 2, 3].map(|key| chest.find::<Note>(key).unwrap().map(|note| note.0));
        assert_eq!(found, [Some(0), Some(10), Some(20), None]);
        assert_in_budget(&chest);
    });
}

/// The closure's key keeps the loader waiting, and the closure does not wait for the loader.
#[test]
fn a_prefetch_in_a_closure_goes_on_after_it() {
    explore(|dir| {
        let chest = cold(dir, 2);
        let prefetch = std::sync::Mutex::new(None);
        chest
            .update(0, |note: &mut Note| {
                let began = chest.prefetch::<Note, _>(0..2).unwrap();
                assert_eq!(chest.prefetch::<Note, _>(0..2).unwrap().wait().unwrap_err().kind(), ErrorKind::Busy);
                *prefetch.lock().unwrap() = Some(began);
                note.0 = 7;
            })
            .unwrap();
        let prefetch = prefetch.lock().unwrap().take().unwrap();
        assert!((1..=2).contains(&prefetch.wait().unwrap()));
        assert_eq!(chest.get::<Note>(0).unwrap().0, 7);
    });
}

fn numbers(chest: &Chest) -> Vec<u64> {
    chest.iter::<Note>().unwrap().map(|entry| entry.unwrap().1.0).collect()
}

#[test]
fn two_iterate_while_room_is_needed() {
    explore(|dir| {
        // A quarter of the budget is enough for one value.
        let chest = cold(dir, 5);
        chest.extend((4..8).map(|number| (number, Note(number)))).unwrap();
        let readers = [(); 2].map(|()| spawn(&chest, numbers));
        for found in join(readers) {
            assert_eq!(found.into_iter().collect::<std::collections::BTreeSet<_>>(), (0..8).collect());
        }
        assert_in_budget(&chest);
    });
}

/// Who iterates holds all that there is room for: nothing more is loaded ahead.
#[test]
fn what_is_loaded_ahead_keeps_the_budget() {
    explore(|dir| {
        let chest = cold(dir, 5);
        chest.extend((4..8).map(|number| (number, Note(number)))).unwrap();
        make_all_cold(&chest, 5);
        let mut values = chest.iter::<Note>().unwrap();
        let held: Vec<_> = values.by_ref().take(5).collect();
        thread::yield_now();
        let stats = chest.stats().unwrap();
        assert!(stats.resident == 5 && stats.peak_bytes <= room_for(5), "{stats}");
        drop(held);
    });
}

/// It may be in the way of what others need, and is spilled when its turn is over.
#[test]
fn what_is_loaded_ahead_gives_way_at_the_end() {
    explore(|dir| {
        let chest = cold(dir, 5);
        let mut values = chest.iter::<Note>().unwrap();
        drop(values.next());
        let held = [3, 2].map(|key| chest.get::<Note>(key).unwrap());
        chest.set_budget(room_for(2)).unwrap();
        drop(values);
        while chest.stats().unwrap().resident_bytes > room_for(2) {
            thread::yield_now();
        }
        drop(held);
    });
}

#[test]
fn an_iterator_sees_changes_and_leaves_nothing_behind() {
    explore(|dir| {
        let chest = cold(dir, 5);
        let insert = spawn(&chest, |chest| chest.insert(2, Note(20)).unwrap());
        let removal = spawn(&chest, |chest| assert!(chest.remove(3).unwrap()));
        let first = spawn(&chest, |chest| chest.iter::<Note>().unwrap().take(2).count());
        let found = numbers(&chest);
        assert!(found.starts_with(&[0, 1]) && [2, 20].contains(&found[2]), "{found:?}");
        join([insert, removal]);
        assert_eq!((first.join().unwrap(), numbers(&chest)[..].len()), (2, 3));
        assert_eq!(chest.get::<Note>(2).unwrap().0, 20);
        // One that is being loaded ahead is let go of when it is loaded.
        while chest.stats().unwrap().pinned > 0 {
            thread::yield_now();
        }
        assert_in_budget(&chest);
    });
}

#[test]
fn an_iterator_in_a_closure_and_one_outside() {
    explore(|dir| {
        let chest = cold(dir, 5);
        let outside = spawn(&chest, numbers);
        let busy = chest.update(1, |_: &mut Note| {
            let entries = chest.iter::<Note>().unwrap();
            entries.filter(|entry| entry.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy)).count()
        });
        // None, if the other iterator holds the value: then this one finds it as it was.
        assert!(busy.unwrap() <= 1);
        assert_eq!(outside.join().unwrap().len(), 4);
    });
}

#[test]
fn the_last_handle_goes_while_values_are_loaded() {
    explore(|dir| {
        let chest = cold(dir, 2);
        let prefetch = chest.prefetch::<Note, _>(0..4).unwrap();
        let waits = thread::spawn(move || prefetch.wait().unwrap());
        let mut values = chest.iter::<Note>().unwrap();
        drop(chest);
        assert_eq!(values.next().unwrap().unwrap().1.0, 0);
        drop(values);
        assert!(waits.join().unwrap() <= 4);
    });
}
