//! What users say of keys: keep it in memory, or keep it out.

use std::sync::Arc;

use icechest::{Chest, ErrorKind, Hint, Largest, Lru};

use crate::helpers::dir;

fn block(kib: usize) -> Vec<u8> {
    vec![kib as u8; kib << 10]
}

fn fill(chest: &Chest) {
    chest.extend((0..30).map(|i| (i, block(10)))).unwrap();
}

fn is_resident(chest: &Chest, key: &str) -> bool {
    chest.info(key).unwrap().is_resident
}

#[test]
fn a_pinned_value_stays_while_others_go_whether_it_is_clean_or_dirty() {
    for is_clean in [false, true] {
        // The policy would spill it first.
        let chest = Chest::builder().budget(100 << 10).policy(Largest).temporary().unwrap();
        chest.insert("model", block(40)).unwrap();
        if is_clean {
            chest.flush().unwrap();
        }
        chest.pin("model").unwrap();
        fill(&chest);
        assert!(is_resident(&chest, "model"), "{is_clean}");
        let stats = chest.stats().unwrap();
        assert!(stats.peak_bytes <= 100 << 10, "{stats}");
        assert_eq!((stats.pins, stats.pinned), (1, 1));
        assert!(stats.pinned_bytes >= 40 << 10);
        assert!(stats.to_string().contains("1 keys pinned"), "{stats}");

        chest.clear_hint("model").unwrap();
        assert_eq!(chest.stats().unwrap().pins, 0);
        fill(&chest);
        assert!(!is_resident(&chest, "model"), "{is_clean}");
    }
}

#[test]
fn a_pin_is_about_the_key() {
    let dir = dir();
    let chest = Chest::builder().budget(100 << 10).open(dir.path()).unwrap();
    // Before there is a value, and across those that replace it.
    chest.pin("k").unwrap();
    assert_eq!(chest.info("k").unwrap_err().kind(), ErrorKind::NotFound);
    for kib in [10, 30] {
        chest.insert("k", block(kib)).unwrap();
        fill(&chest);
        assert!(is_resident(&chest, "k"));
        assert_eq!(chest.info("k").unwrap().hint, Some(Hint::Pin));
        chest.flush().unwrap();
        assert_eq!(chest.infos().unwrap().iter().filter(|info| info.hint.is_some()).count(), 1);
    }
    // One that is on disk comes with the next read, and stays.
    chest.set_budget(0).unwrap();
    chest.set_budget(100 << 10).unwrap();
    assert!(!is_resident(&chest, "k"));
    chest.get::<Vec<u8>>("k").unwrap();
    fill(&chest);
    assert!(is_resident(&chest, "k"));
    chest.remove("k").unwrap();
    assert!(!chest.contains_key("k").unwrap());
    drop(chest);
    assert_eq!(Chest::open(dir.path()).unwrap().stats().unwrap().pins, 0);
}

#[test]
fn the_budget_holds_whatever_is_pinned() {
    let chest = Chest::builder().budget(100 << 10).temporary().unwrap();
    for i in 0..30 {
        chest.pin(i).unwrap();
    }
    fill(&chest);
    chest.insert("one more", block(50)).unwrap();
    for i in 0..30 {
        assert_eq!(*chest.get::<Vec<u8>>(i).unwrap(), block(10));
    }
    let stats = chest.stats().unwrap();
    assert!(stats.peak_bytes <= 100 << 10 && stats.pins == 30, "{stats}");
    chest.set_budget(0).unwrap();
    assert_eq!(chest.stats().unwrap().resident, 0);
}

#[test]
fn a_value_that_prefers_the_disk_takes_no_room() {
    let dir = dir();
    for chest in [Chest::temporary().unwrap(), Chest::open(dir.path()).unwrap()] {
        chest.insert("k", block(20)).unwrap();
        chest.prefer_disk("k").unwrap();
        for kib in [20, 30, 40] {
            let info = chest.info("k").unwrap();
            assert!(!info.is_resident && !info.is_dirty && info.hint == Some(Hint::PreferDisk), "{info:?}");
            assert_eq!(*chest.get::<Vec<u8>>("k").unwrap(), block(kib));
            chest.update("k", |value: &mut Vec<u8>| *value = block(kib + 10)).unwrap();
        }
        assert_eq!(chest.prefetch::<Vec<u8>, _>(["k"]).unwrap().wait().unwrap(), 0);
        let stats = chest.stats().unwrap();
        assert_eq!((stats.resident, stats.resident_bytes, stats.prefer_disk), (0, 0, 1), "{stats}");

        chest.clear_hint("k").unwrap();
        chest.get::<Vec<u8>>("k").unwrap();
        assert!(is_resident(&chest, "k"));
    }
}

#[test]
fn one_that_somebody_holds_is_not_loaded_again_and_goes_first() {
    let chest = Chest::builder().budget(100 << 10).temporary().unwrap();
    let value = Arc::new(block(20));
    chest.insert("k", value.clone()).unwrap();
    chest.prefer_disk("k").unwrap();
    assert!(Arc::ptr_eq(&value, &chest.get("k").unwrap()));
    assert!(is_resident(&chest, "k"));
    drop(value);
    chest.extend((0..7).map(|i| (i, block(10)))).unwrap();
    chest.flush().unwrap();
    // It was used last.
    chest.get::<Vec<u8>>("k").unwrap();
    chest.set_budget(85 << 10).unwrap();
    assert_eq!((is_resident(&chest, "k"), chest.stats().unwrap().resident), (false, 7));
}

#[test]
fn a_pinned_value_goes_only_where_there_would_be_no_room_otherwise() {
    let chest = Chest::builder().budget(100 << 10).policy(Lru).temporary().unwrap();
    chest.insert("model", block(88)).unwrap();
    chest.flush().unwrap();
    chest.pin("model").unwrap();
    chest.insert("small", block(3)).unwrap();
    // A little too much: without the small one it fits.
    chest.insert("new", block(10)).unwrap();
    assert!(is_resident(&chest, "model") && !is_resident(&chest, "small"));
    chest.insert("large", block(40)).unwrap();
    assert!(!is_resident(&chest, "model"));
}
