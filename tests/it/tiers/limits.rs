//! A limit on disk, files that are private, a fork, and a lock that somebody keeps.

use std::fs;
use std::path::Path;

use icechest::{Chest, Durability, Error, ErrorKind, WhenFull};

use crate::helpers::dir;

/// 8 KiB that do not compress.
fn block(key: u64) -> Vec<u64> {
    (0..1024).map(|i| (key << 20 | i).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
}

fn open(dir: &Path, blocks: u64, when_full: WhenFull) -> Chest {
    // A label takes some hundred bytes.
    Chest::builder().inline_limit(0).max_disk(blocks * 9000, when_full).open(dir).unwrap()
}

fn on_disk(dir: &Path) -> u64 {
    let files = fs::read_dir(dir.join("values")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

fn is_refused(error: Error, key: u64) {
    assert_eq!((error.kind(), error.key()), (ErrorKind::Full, Some(&key.into())), "{error}");
    assert_eq!(*error.into_value::<Vec<u64>>().unwrap(), block(key), "nothing is lost");
}

#[test]
fn a_full_chest_refuses_values_and_keeps_the_old_ones() {
    let dir = dir();
    let chest = open(dir.path(), 10, WhenFull::Refuse);
    for key in 0..10 {
        chest.insert(key, block(key)).unwrap();
    }
    for key in 10..13 {
        is_refused(chest.insert(key, block(key)).unwrap_err(), key);
    }
    assert!(on_disk(dir.path()) <= 90_000);
    assert_eq!(chest.len().unwrap(), 10);
    // In its own place there is room.
    chest.insert(3u64, block(3)).unwrap();
    is_refused(chest.get_or_insert_with(20u64, || block(20)).unwrap_err(), 20);
    chest.remove(0u64).unwrap();
    chest.insert(10u64, block(10)).unwrap();
    drop(chest);
    let chest = open(dir.path(), 10, WhenFull::Refuse);
    (1..11).for_each(|key| assert_eq!(*chest.get::<Vec<u64>>(key).unwrap(), block(key)));
}

#[test]
fn a_full_chest_evicts_what_was_least_recently_used() {
    let dir = dir();
    let chest = open(dir.path(), 20, WhenFull::Evict);
    for key in 0..20 {
        chest.insert(key, block(key)).unwrap();
    }
    for key in 0..5u64 {
        chest.get::<Vec<u64>>(key).unwrap();
    }
    for key in 20..30 {
        chest.insert(key, block(key)).unwrap();
        assert!(on_disk(dir.path()) <= 180_000, "{key}: {}", on_disk(dir.path()));
    }
    for key in (0..5).chain(20..30) {
        assert_eq!(*chest.get::<Vec<u64>>(key).unwrap(), block(key), "{key} was used lately");
    }
    assert!((5..15).all(|key| !chest.contains_key(key).unwrap()));
    drop(chest);
    // The order outlives the process.
    let chest = open(dir.path(), 20, WhenFull::Evict);
    for key in 30..35 {
        chest.insert(key, block(key)).unwrap();
    }
    assert!((25..35).all(|key| chest.contains_key(key).unwrap()), "{:?}", chest.keys());
}

/// What a value replaces makes room for it, although a power cut may need it until the next sync.
#[test]
fn at_the_limit_a_synced_value_can_be_overwritten() {
    for when_full in [WhenFull::Refuse, WhenFull::Evict] {
        let dir = dir();
        let chest = open(dir.path(), 10, when_full);
        (0..10).for_each(|key| chest.insert(key, block(key)).unwrap());
        chest.sync().unwrap();
        for round in 1..5 {
            for key in 0..10 {
                chest.insert(key, block(key + round)).unwrap();
                assert!(on_disk(dir.path()) <= 90_000, "{when_full:?}");
            }
        }
        assert!((0..10).all(|key| *chest.get::<Vec<u64>>(key).unwrap() == block(key + 4)), "{when_full:?}");
    }
}

/// Also a use that no other transaction has written down yet.
#[test]
fn what_was_just_read_is_not_evicted() {
    let dir = dir();
    let chest = open(dir.path(), 5, WhenFull::Evict);
    for key in 0..5 {
        chest.insert(key, block(key)).unwrap();
    }
    let mut key = 5;
    // Until one has to go.
    while chest.len().unwrap() == key {
        chest.get::<Vec<u64>>(0u64).unwrap();
        chest.insert(key, block(key)).unwrap();
        key += 1;
    }
    assert!(chest.contains_key(0u64).unwrap() && !chest.contains_key(1u64).unwrap(), "{:?}", chest.keys());
}

/// What is read in one run counts in the next.
#[test]
fn the_order_of_use_survives_a_run_that_only_reads() {
    let dir = dir();
    let chest = open(dir.path(), 10, WhenFull::Evict);
    (0..10).for_each(|key| chest.insert(key, block(key)).unwrap());
    drop(chest);
    drop(open(dir.path(), 10, WhenFull::Evict).get::<Vec<u64>>(0).unwrap());
    let chest = open(dir.path(), 10, WhenFull::Evict);
    (10..12).for_each(|key| chest.insert(key, block(key)).unwrap());
    assert!(chest.contains_key(0).unwrap() && !chest.contains_key(1).unwrap(), "{:?}", chest.keys());
}

#[cfg(feature = "ndarray")]
#[test]
fn rows_are_appended_to_what_is_not_evicted_for_them() {
    use icechest::Compression;
    use ndarray::Array2;

    let dir = dir();
    let builder = Chest::builder().inline_limit(0).compression(Compression::Never);
    let chest = builder.max_disk(20 * 9000, WhenFull::Evict).open(dir.path()).unwrap();
    let rows = |blocks: u64| Array2::from_shape_vec((1024 * blocks as usize, 1), (0..blocks).flat_map(block).collect());
    chest.append("log", rows(4).unwrap()).unwrap();
    (0..15).for_each(|key| chest.insert(key, block(key)).unwrap());
    chest.append("log", rows(4).unwrap()).unwrap();
    assert_eq!(chest.get::<Array2<u64>>("log").unwrap().nrows(), 8192, "and not its last rows alone");
    assert!(!chest.contains_key(0).unwrap() && chest.contains_key(14).unwrap());
    // With all others gone there is no room.
    let error = chest.append("log", rows(16).unwrap()).unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Full, Some(&"log".into())), "{error}");
    assert_eq!(chest.get::<Array2<u64>>("log").unwrap().nrows(), 8192);
    assert!(chest.contains_key(14).unwrap(), "nobody was evicted in vain");
    assert!(chest.compact("log").unwrap());
    assert_eq!(chest.get::<Array2<u64>>("log").unwrap().nrows(), 8192);
}

/// What is spilled together has no room together.
#[test]
fn a_temporary_chest_spills_within_its_limit() {
    for when_full in [WhenFull::Refuse, WhenFull::Evict] {
        // A twentieth of the budget, which is spilled at a time, is more than the limit.
        let builder = || Chest::builder().inline_limit(0).budget(150 * 8300);
        let chest = builder().max_disk(5 * 9000, when_full).temporary().unwrap();
        let refused = (0..200).filter(|&key| chest.insert(key, block(key)).is_err()).count();
        let stats = chest.stats().unwrap();
        if when_full == WhenFull::Evict {
            assert!(refused == 0 && stats.resident_bytes <= stats.budget, "{refused} {stats}");
        } else {
            assert!(refused > 0 && stats.values == 200 && stats.spills >= 4, "{refused} {stats}");
        }
        assert!(on_disk(chest.path()) <= 5 * 9000);
    }
}

#[test]
fn what_a_temporary_chest_evicts_is_gone_from_memory_too() {
    let chest =
        Chest::builder().inline_limit(0).budget("1MiB").max_disk(5 * 9000, WhenFull::Evict).temporary().unwrap();
    for key in 0..20 {
        chest.insert(key, block(key)).unwrap();
        chest.flush().unwrap();
    }
    for key in 0..20 {
        let is_there = chest.contains_key(key).unwrap();
        assert_eq!(chest.find::<Vec<u64>>(key).unwrap().is_some(), is_there, "{key}");
        assert_eq!(chest.remove(key).unwrap(), is_there, "{key}");
    }
}

#[test]
fn a_value_over_the_whole_limit_is_refused() {
    for when_full in [WhenFull::Refuse, WhenFull::Evict] {
        let dir = dir();
        let chest = open(dir.path(), 1, when_full);
        chest.insert("small", block(1)).unwrap();
        let large: Vec<u64> = (0..4).flat_map(block).collect();
        let error = chest.insert("large", large.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert_eq!(*error.into_value::<Vec<u64>>().unwrap(), large);
        assert_eq!(*chest.get::<Vec<u64>>("small").unwrap(), block(1), "nobody was evicted for it");
    }
}

#[test]
fn the_limit_holds_for_what_all_processes_wrote() {
    let dir = dir();
    let one = open(dir.path(), 10, WhenFull::Refuse);
    let two = open(dir.path(), 10, WhenFull::Refuse);
    let threads: Vec<_> = [(one, 0), (two, 100)]
        .into_iter()
        .map(|(chest, first)| {
            std::thread::spawn(move || (first..first + 20).filter(|&key| chest.insert(key, block(key)).is_ok()).count())
        })
        .collect();
    let stored: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(stored, 10);
    assert!(on_disk(dir.path()) <= 90_000);
}

#[test]
fn overwriting_does_not_make_the_directory_grow() {
    for durability in [Durability::None, Durability::Eventual, Durability::Immediate] {
        let dir = dir();
        let chest = Chest::builder().inline_limit(0).durability(durability).open(dir.path()).unwrap();
        let count = || fs::read_dir(dir.path().join("values")).unwrap().count();
        for round in 0..30u64 {
            for key in 0..3u64 {
                chest.insert(key, block(round * 3 + key)).unwrap();
            }
            chest.flush().unwrap();
            // What was synced stays until what replaced it is.
            assert!(count() <= 6, "{durability:?}, round {round}: {}", count());
            if round % 10 == 0 {
                chest.sync().unwrap();
                assert_eq!(count(), 3, "{durability:?}, round {round}");
            }
        }
        chest.clear().unwrap();
        chest.sync().unwrap();
        assert_eq!(count(), 0);
        let log = dir.path().join("catalog.sqlite-wal").metadata().unwrap().len();
        assert!(log < 8 << 20, "{log}");
    }
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn modes(dir: &Path, found: &mut Vec<(String, u32)>) {
        found.push((dir.display().to_string(), dir.metadata().unwrap().permissions().mode() & 0o777));
        if dir.is_dir() {
            fs::read_dir(dir).unwrap().for_each(|entry| modes(&entry.unwrap().path(), found));
        }
    }

    #[test]
    fn new_files_are_for_their_owner_alone_unless_it_is_asked_otherwise() {
        let parent = dir();
        for private in [true, false] {
            let root = parent.path().join(private.to_string()).join("deep");
            let chest = Chest::builder().inline_limit(500).private(private).open(&root).unwrap();
            chest.insert("small", 1).unwrap();
            chest.insert("large", block(1)).unwrap();
            chest.flush().unwrap();
            let mut found = Vec::new();
            modes(&root, &mut found);
            assert!(found.iter().any(|(file, _)| file.ends_with("-wal")) && found.len() > 8, "{found:?}");
            let is_closed = |(_, mode): &(String, u32)| mode & 0o077 == 0;
            assert_eq!(found.iter().all(is_closed), private, "{found:?}");
        }
    }

    #[test]
    fn a_folder_that_leads_elsewhere_is_refused() {
        let parent = dir();
        let (root, outside) = (parent.path().join("chest"), parent.path().join("outside"));
        drop(Chest::open(&root).unwrap());
        fs::create_dir(&outside).unwrap();
        for name in ["values", "tmp", "locks"] {
            fs::remove_dir_all(root.join(name)).unwrap();
            std::os::unix::fs::symlink(&outside, root.join(name)).unwrap();
            let error = Chest::open(&root).unwrap_err();
            assert_eq!((error.kind(), error.path().unwrap().file_name().unwrap()), (ErrorKind::Damaged, name.as_ref()));
            assert!(!Chest::check(&root).repair(true).run().unwrap().is_healthy());
            Chest::open(&root).unwrap().insert("k", block(1)).unwrap();
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was written there");
        let catalog = root.join("catalog.sqlite");
        fs::rename(&catalog, parent.path().join("catalog.sqlite")).unwrap();
        std::os::unix::fs::symlink(parent.path().join("catalog.sqlite"), &catalog).unwrap();
        assert_eq!(Chest::open(&root).unwrap_err().kind(), ErrorKind::Damaged);
    }
}
