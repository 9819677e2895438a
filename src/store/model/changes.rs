//! Changes in place, and what comes between.

use super::*;

fn add(chest: &Chest, number: u64) {
    if let Err(error) = chest.update("key", |note: &mut Note| note.0 += number) {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

/// What two changes leave, and something else at the same time, of a value of 1 that is published or not.
fn left_by(dir: &Path, is_published: bool, rival: impl FnOnce(&Chest) + Send + 'static) -> Option<u64> {
    let chest = temporary(dir, 1);
    chest.insert("key", Note(1)).unwrap();
    if is_published {
        chest.flush().unwrap();
    }
    let mut threads = vec![spawn(&chest, rival)];
    threads.extend([10, 100].map(|number| spawn(&chest, move |chest| add(chest, number))));
    join(threads);
    let left = chest.find::<Note>("key").unwrap().map(|note| note.0);
    chest.flush().unwrap();
    chest.insert("another", Note(1000)).unwrap();
    assert!(chest.info("key").is_ok_and(|info| !info.is_resident) || left.is_none());
    assert_eq!(chest.find::<Note>("key").unwrap().map(|note| note.0), left, "memory and disk differ");
    assert_in_budget(&chest);
    left
}

fn check(rival: fn(&Chest), may_be_left: fn(Option<u64>) -> bool) {
    for is_published in [false, true] {
        explore(move |dir| {
            let left = left_by(dir, is_published, rival);
            assert!(may_be_left(left), "{left:?}");
        });
    }
}

#[test]
fn changes_and_an_insert() {
    check(
        |chest| chest.insert("key", Note(5)).unwrap(),
        |left| left.is_some_and(|left| [5, 15, 105, 115].contains(&left)),
    );
}

#[test]
fn changes_and_a_flush() {
    check(|chest| chest.flush().unwrap(), |left| left == Some(111));
}

#[test]
fn changes_and_a_removal() {
    check(|chest| assert!(chest.remove("key").unwrap()), |left| left.is_none());
}

#[test]
fn changes_and_a_taking() {
    let taken = |chest: &Chest| assert!([1, 11, 101, 111].contains(&chest.take::<Note>("key").unwrap().0));
    check(taken, |left| left.is_none());
}

#[test]
fn changes_and_a_removal_and_an_insert() {
    check(
        |chest| {
            chest.remove("key").unwrap();
            chest.insert("key", Note(5)).unwrap();
        },
        |left| left.is_some_and(|left| [5, 15, 105, 115].contains(&left)),
    );
}

/// A removal that found nothing has removed nothing.
#[test]
fn a_removal_and_the_first_insert() {
    explore(|dir| {
        let chest = temporary(dir, 1);
        let removal = spawn(&chest, |chest| chest.remove("key").unwrap());
        let insert = spawn(&chest, |chest| chest.insert("key", Note(5)).unwrap());
        join([insert]);
        let was_removed = removal.join().unwrap();
        assert_eq!(chest.find::<Note>("key").unwrap().is_none(), was_removed);
    });
}

#[test]
fn a_panic_in_a_change_leaves_the_value() {
    let panics = |chest: &Chest| {
        let change = |note: &mut Note| {
            note.0 = 0;
            resume_unwind(Box::new("half changed"))
        };
        let update = AssertUnwindSafe(|| chest.update::<Note, ()>("key", change));
        assert!(catch_unwind(update).is_err());
    };
    check(panics, |left| left == Some(111));
}
