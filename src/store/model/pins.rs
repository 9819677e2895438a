//! Values that users hold are not loaded a second time.

use super::*;

fn loaded_once_by_three(chest: &Chest, rivals: impl IntoIterator<Item = JoinHandle<()>>) {
    let readers = [(); 3].map(|()| spawn(chest, |chest| get(chest, "key")));
    join(rivals);
    let handles = join(readers);
    assert!(handles.iter().all(|handle| handle.0 == 1 && Arc::ptr_eq(handle, &handles[0])));
    let stats = chest.stats().unwrap();
    assert_eq!((stats.loads, stats.pinned, stats.pinned_bytes), (1, 1, SIZE));
    assert!(stats.resident_bytes >= SIZE);
}

#[test]
fn a_cold_value_is_loaded_once() {
    explore(|dir| {
        let chest = temporary(dir, 1);
        chest.insert("key", Note(1)).unwrap();
        make_cold(&chest, "key");
        let rival = spawn(&chest, |chest| chest.insert("third", Note(3)).unwrap());
        loaded_once_by_three(&chest, [rival]);
    });
}

#[test]
fn a_value_larger_than_the_budget_is_loaded_once() {
    explore(|dir| {
        let chest = temporary(dir, 0);
        chest.insert("key", Note(1)).unwrap();
        loaded_once_by_three(&chest, []);
    });
}

/// Reads what somebody holds already, while others need room and, in a named chest, the writer is at work.
fn held_values_are_not_loaded(chest: &Chest) {
    let inserter = spawn(chest, |chest| {
        let value = Arc::new(Note(1));
        chest.insert("key", value.clone()).unwrap();
        value
    });
    let rival = spawn(chest, |chest| {
        chest.insert("another", Note(2)).unwrap();
        chest.find::<Note>("key").unwrap()
    });
    let reader = spawn(chest, |chest| chest.find::<Note>("key").unwrap());
    let (value, found) = (inserter.join().unwrap(), join([rival, reader]));
    assert!(found.iter().flatten().all(|found| Arc::ptr_eq(found, &value)), "a second copy was loaded");
    assert!(Arc::ptr_eq(&get(chest, "key"), &value), "a second copy was loaded later");
    let stats = chest.stats().unwrap();
    assert_eq!((stats.loads, stats.pinned, stats.pinned_bytes), (0, 1, SIZE));
    assert!(stats.resident_bytes >= SIZE);
}

#[test]
fn a_held_value_is_not_loaded() {
    explore(|dir| held_values_are_not_loaded(&temporary(dir, 1)));
}

#[test]
fn a_held_value_is_not_loaded_while_the_writer_publishes() {
    explore(|dir| held_values_are_not_loaded(&named(dir, 1)));
}

#[test]
fn a_held_value_larger_than_the_budget_is_not_loaded() {
    explore(|dir| {
        let chest = named(dir, 0);
        held_values_are_not_loaded(&chest);
    });
}

/// The newer value replaces one that is resident, or held, while that is read.
fn the_newer_value_is_held(chest: &Chest, old: u64) {
    chest.insert("key", Note(old)).unwrap();
    let held = get(chest, "key");
    let inserter = spawn(chest, |chest| {
        let value = Arc::new(Note(2));
        chest.insert("key", value.clone()).unwrap();
        value
    });
    let readers = [(); 2].map(|()| spawn(chest, |chest| drop(get(chest, "key"))));
    let value = inserter.join().unwrap();
    join(readers);
    assert!(Arc::ptr_eq(&get(chest, "key"), &value), "a second copy was loaded");
    drop(held);
    let stats = chest.stats().unwrap();
    assert_eq!((stats.pinned, stats.pinned_bytes), (1, SIZE));
}

#[test]
fn the_newer_of_two_held_values_stays_held() {
    explore(|dir| the_newer_value_is_held(&named(dir, 0), 1));
}

#[test]
fn a_value_that_goes_through_replaces_a_resident_one() {
    explore(|dir| {
        let chest = named(dir, 1);
        chest.insert("key", Note(0)).unwrap();
        chest.flush().unwrap();
        let lower = spawn(&chest, |chest| chest.set_budget(0).unwrap());
        the_newer_value_is_held(&chest, 1);
        join([lower]);
    });
}
