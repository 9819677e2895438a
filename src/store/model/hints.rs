//! What users say of keys.

use super::*;

#[test]
fn a_pin_and_those_who_need_room() {
    explore(|dir| {
        let chest = temporary(dir, 2);
        chest.pin("key").unwrap();
        chest.insert("key", Note(1)).unwrap();
        let rivals = [2, 3].map(|number| {
            spawn(&chest, move |chest| {
                chest.insert(number, Note(number)).unwrap();
                assert_eq!(get(chest, "key").0, 1);
            })
        });
        let hints = spawn(&chest, |chest| {
            chest.clear_hint("key").unwrap();
            chest.pin("key").unwrap();
        });
        join(rivals);
        join([hints]);
        get(&chest, "key");
        chest.insert("another", Note(4)).unwrap();
        assert!(chest.info("key").unwrap().is_resident);
        let stats = chest.stats().unwrap();
        assert!(stats.resident_bytes <= stats.budget && stats.pinned == 1, "{stats}");
    });
}

#[test]
fn a_key_that_prefers_the_disk_and_those_who_use_it() {
    for is_named in [false, true] {
        explore(move |dir| {
            let chest = if is_named { named(dir, 2) } else { temporary(dir, 2) };
            chest.insert("key", Note(1)).unwrap();
            let hint = spawn(&chest, |chest| chest.prefer_disk("key").unwrap());
            let insert = spawn(&chest, |chest| chest.insert("key", Note(2)).unwrap());
            let reader = spawn(&chest, |chest| assert!([1, 2].contains(&get(chest, "key").0)));
            join([hint, insert, reader]);
            assert_eq!(get(&chest, "key").0, 2);
            chest.insert("key", Note(3)).unwrap();
            assert!(!chest.info("key").unwrap().is_dirty && !chest.info("key").unwrap().is_resident);
            assert_eq!(get(&chest, "key").0, 3);
            assert_in_budget(&chest);
        });
    }
}
