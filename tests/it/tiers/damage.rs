//! Files that are not what was published: each change is told before anything is decoded, and concerns nobody else.

use std::fs;
use std::path::{Path, PathBuf};

use icechest::{Chest, Durability, Error, ErrorKind};

use crate::helpers::dir;

/// Small values that live in the catalog, and larger ones with files.
const KEYS: u32 = 12;

fn value(key: u32) -> Vec<u32> {
    let len = if key.is_multiple_of(2) { 20 } else { 300 };
    (0..len).map(|i| (i + key).wrapping_mul(2_654_435_761)).collect()
}

fn open(dir: &Path) -> Result<Chest, Error> {
    Chest::builder().inline_limit(500).open(dir)
}

fn fill(dir: &Path) {
    let chest = open(dir).unwrap();
    for key in 0..KEYS {
        chest.insert(key, value(key)).unwrap();
    }
}

/// The files of a closed chest.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir.join("values")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn is_damage(error: &Error) -> bool {
    error.kind() == ErrorKind::Damaged && error.path().is_some()
}

/// How many keys are told to be damaged; all others must be exact.
fn damaged(chest: &Chest, what: &str) -> Vec<u32> {
    let is_told = |key: &u32| match chest.get::<Vec<u32>>(*key) {
        Ok(found) => {
            assert_eq!(*found, value(*key), "{what}: a wrong value under {key}");
            false
        }
        Err(error) => {
            assert!(is_damage(&error), "{what}: key {key}: {error:?}");
            assert!(error.key().is_some(), "{what}: {error:?}");
            true
        }
    };
    (0..KEYS).filter(is_told).collect()
}

#[test]
fn a_flipped_bit_in_a_value_file_is_told_and_no_other_key_suffers() {
    let dir = dir();
    fill(dir.path());
    for (number, file) in files(dir.path()).iter().enumerate() {
        let whole = fs::read(file).unwrap();
        // All bits of one file, some of the others.
        let step = if number == 0 { 1 } else { 97 };
        let chest = open(dir.path()).unwrap();
        for bit in (0..whole.len() * 8).step_by(step) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(file, &flipped).unwrap();
            chest.set_budget(0).unwrap();
            let told = damaged(&chest, &format!("bit {bit} of {file:?}"));
            // The label behind the payload is not needed to read the value; the check tells it.
            let is_payload = bit / 8 < 300 * 4 + 8;
            assert_eq!(told.len(), usize::from(is_payload), "bit {bit}: {told:?}");
        }
        let report = Chest::check(dir.path()).run().unwrap();
        assert_eq!(report.damaged.len(), 1, "a flipped bit in a label: {report}");
        fs::write(file, whole).unwrap();
    }
    assert!(Chest::check(dir.path()).run().unwrap().is_healthy());
}

#[test]
fn truncated_swapped_missing_stale_and_foreign_files_are_told() {
    let dir = dir();
    fill(dir.path());
    let files = files(dir.path());
    let (one, two) = (&files[0], &files[1]);
    let (first, second) = (fs::read(one).unwrap(), fs::read(two).unwrap());
    let stale = dir.path().join("stale");
    let outside = dir.path().join("outside");
    fs::write(&outside, &first).unwrap();
    let chest = open(dir.path()).unwrap();
    let told = |what: &str, count: usize| {
        chest.set_budget(0).unwrap();
        assert_eq!(damaged(&chest, what).len(), count, "{what}");
        let report = Chest::check(dir.path()).run().unwrap();
        assert_eq!(report.damaged.len(), count, "{what}: {report}");
        assert!(report.damaged.iter().all(|damage| damage.key.is_some()), "{what}: {report}");
    };

    for len in [0, 1, first.len() / 2, first.len() - 1] {
        fs::write(one, &first[..len]).unwrap();
        told(&format!("cut to {len}"), 1);
    }
    fs::write(one, [&first[..], b"more"].concat()).unwrap();
    told("longer", 1);
    fs::write(one, &second).unwrap();
    fs::write(two, &first).unwrap();
    told("swapped", 2);
    fs::write(two, &second).unwrap();
    told("a copy of another", 1);
    fs::rename(one, &stale).unwrap();
    told("missing", 1);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&outside, one).unwrap();
        told("a link out of the folder, to the right bytes", 1);
        fs::remove_file(one).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(one).status().unwrap().success());
        told("a pipe", 1);
        fs::remove_file(one).unwrap();
    }
    fs::create_dir(one).unwrap();
    told("a folder", 1);
    fs::remove_dir(one).unwrap();
    fs::write(one, &first).unwrap();
    told("whole again", 0);
}

/// Damages the catalog and looks at everything. Tells how many keys are not to be had.
fn look(dir: &Path, what: &str) -> usize {
    let chest = match open(dir) {
        Ok(chest) => chest,
        Err(error) => {
            assert!(is_damage(&error) || error.kind() == ErrorKind::Io, "{what}: {error:?}");
            return KEYS as usize;
        }
    };
    match chest.len() {
        Ok(len) => assert_eq!(len, u64::from(KEYS), "{what}"),
        Err(error) => assert!(is_damage(&error), "{what}: {error:?}"),
    }
    match chest.keys() {
        Ok(mut keys) => {
            keys.sort_by_key(|key| key.to::<u32>().unwrap());
            assert_eq!(keys, (0..KEYS).map(Into::into).collect::<Vec<_>>(), "{what}");
        }
        Err(error) => assert!(is_damage(&error), "{what}: {error:?}"),
    }
    damaged(&chest, what).len()
}

/// Every so many bits, when there is time for it more of them.
fn step() -> usize {
    if crate::torture::seconds().is_some_and(|seconds| seconds >= 600) { 3 } else { 149 }
}

#[test]
fn a_flipped_bit_in_the_catalog_never_gives_a_wrong_answer() {
    let dir = dir();
    fill(dir.path());
    let catalog = dir.path().join("catalog.sqlite");
    assert!(!dir.path().join("catalog.sqlite-wal").exists(), "a closed chest has no log");
    let whole = fs::read(&catalog).unwrap();
    let (mut flips, mut harmless, mut lost) = (0, 0, 0);
    for bit in (0..whole.len() * 8).step_by(step()) {
        // Most of a page is empty.
        if whole[bit / 8] == 0 && bit % 16 != 0 {
            continue;
        }
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&catalog, &flipped).unwrap();
        let not_had = look(dir.path(), &format!("bit {bit} of the catalog, byte {}", bit / 8));
        flips += 1;
        harmless += usize::from(not_had == 0);
        lost += usize::from(not_had == KEYS as usize);
        for log in ["-wal", "-shm"] {
            let _ = fs::remove_file(dir.path().join(format!("catalog.sqlite{log}")));
        }
    }
    println!("{flips} flips: {harmless} harmless, {lost} concern all keys");
    assert!(flips > 200 && harmless > 0 && lost < flips / 2, "{flips} {harmless} {lost}");
}

#[test]
fn a_lost_or_destroyed_catalog_is_made_again_from_the_files() {
    for destroy in
        [fs::remove_file as fn(PathBuf) -> _, |path| fs::write(path, "no database"), |path| fs::write(path, "")]
    {
        let dir = dir();
        fill(dir.path());
        destroy(dir.path().join("catalog.sqlite")).unwrap();
        assert_eq!(open(dir.path()).unwrap_err().kind(), ErrorKind::Damaged);
        let report = Chest::check(dir.path()).run().unwrap();
        assert!(!report.is_healthy() && report.values == u64::from(KEYS / 2), "{report}");
        let report = Chest::check(dir.path()).repair(true).run().unwrap();
        assert!(!report.is_healthy() && report.rebuilt == Some(u64::from(KEYS / 2)), "{report}");
        let chest = open(dir.path()).unwrap();
        // Those that were in the catalog alone are gone with it.
        for key in 0..KEYS {
            let found = chest.find::<Vec<u32>>(key).unwrap();
            assert_eq!(found.as_deref(), (key % 2 == 1).then(|| value(key)).as_ref(), "{key}");
        }
        assert!(Chest::check(dir.path()).run().unwrap().is_healthy());
    }
}

#[test]
fn what_can_be_read_of_a_damaged_catalog_is_saved() {
    let dir = dir();
    fill(dir.path());
    let catalog = dir.path().join("catalog.sqlite");
    let mut bytes = fs::read(&catalog).unwrap();
    // The bytes of the small value of key 4.
    let needle: Vec<u8> = value(4).iter().flat_map(|n| n.to_le_bytes()).collect();
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at] ^= 1;
    fs::write(&catalog, bytes).unwrap();
    assert_eq!(damaged(&open(dir.path()).unwrap(), "a small value"), [4]);
    let report = Chest::check(dir.path()).repair(true).run().unwrap();
    let [damage] = &report.damaged[..] else { panic!("{report}") };
    assert_eq!((damage.key.as_ref(), damage.is_saved, report.rebuilt), (Some(&4.into()), false, None), "{report}");
    let chest = open(dir.path()).unwrap();
    assert_eq!(chest.len().unwrap(), u64::from(KEYS) - 1);
    assert!(chest.find::<Vec<u32>>(4).unwrap().is_none());
    assert_eq!(*chest.get::<Vec<u32>>(6).unwrap(), value(6));
}

#[test]
fn repair_moves_what_is_damaged_and_never_brings_back_an_older_value() {
    let dir = dir();
    fill(dir.path());
    let chest = open(dir.path()).unwrap();
    let newer = value(101);
    chest.insert(1, newer.clone()).unwrap();
    chest.flush().unwrap();
    let file = chest.file(1).unwrap().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[20] ^= 4;
    fs::write(&file, &bytes).unwrap();
    let report = Chest::check(dir.path()).repair(true).run().unwrap();
    let [damage] = &report.damaged[..] else { panic!("{report}") };
    assert_eq!(damage.key, Some(1.into()));
    assert_eq!(fs::read(dir.path().join(damage.quarantined.as_ref().unwrap())).unwrap(), bytes);
    assert!(chest.find::<Vec<u32>>(1).unwrap().is_none_or(|found| *found == newer), "resident, or gone");
    drop(chest);
    assert!(open(dir.path()).unwrap().find::<Vec<u32>>(1).unwrap().is_none());
    assert!(Chest::check(dir.path()).run().unwrap().is_healthy());
}

/// Files of replaced and removed values stay for a power cut; the catalog knows what they are.
#[test]
fn repair_takes_no_value_back_that_was_replaced_or_removed() {
    for is_removed in [true, false] {
        let dir = dir();
        let settings = || Chest::builder().inline_limit(500).durability(Durability::None);
        {
            let chest = settings().open(dir.path()).unwrap();
            chest.insert("old", vec![1_u64; 1000]).unwrap();
            chest.insert("other", vec![3_u64; 1000]).unwrap();
            #[cfg(feature = "ndarray")]
            chest.append("rows", ndarray::Array1::from_elem(1000, 1_u64)).unwrap();
            chest.sync().unwrap();
            #[cfg(feature = "ndarray")]
            chest.append("rows", ndarray::Array1::from_elem(100, 2_u64)).unwrap();
            if is_removed {
                chest.remove("old").unwrap();
            } else {
                chest.insert("old", vec![2_u64]).unwrap();
            }
            chest.flush().unwrap();
        }
        let sql = rusqlite::Connection::open(dir.path().join("catalog.sqlite")).unwrap();
        if is_removed {
            // A bit of the index.
            let mut bucket: Vec<u8> = sql.query_row("SELECT entries FROM buckets", [], |row| row.get(0)).unwrap();
            bucket[10] ^= 1;
            sql.execute("UPDATE buckets SET entries = ?1", [bucket]).unwrap();
        } else {
            sql.execute("UPDATE entries SET created_ns = created_ns + 1 WHERE key <> '\"other\"'", []).unwrap();
        }
        drop(sql);
        let report = Chest::check(dir.path()).repair(true).run().unwrap();
        assert!(!report.is_healthy(), "{report}");
        let chest = settings().open(dir.path()).unwrap();
        assert!(chest.find::<Vec<u64>>("old").unwrap().is_none(), "{report}");
        assert!(report.damaged.iter().all(|damage| damage.key != Some("old".into()) || !damage.is_saved), "{report}");
        assert_eq!(*chest.get::<Vec<u64>>("other").unwrap(), [3; 1000]);
        #[cfg(feature = "ndarray")]
        assert_eq!(chest.get::<ndarray::Array1<u64>>("rows").unwrap().len(), 1100, "{report}");
    }
}

/// A repair that ends early leaves the damaged newest file where it is: else the next repair would take an older one for it.
#[test]
fn an_interrupted_repair_brings_back_no_older_value() {
    let dir = dir();
    let settings = || Chest::builder().inline_limit(0).durability(Durability::None);
    {
        let chest = settings().open(dir.path()).unwrap();
        chest.insert("key", vec![1_u64; 1000]).unwrap();
        chest.sync().unwrap();
        chest.insert("key", vec![2_u64; 1000]).unwrap();
        chest.flush().unwrap();
        let newest = chest.file("key").unwrap().unwrap();
        let mut bytes = fs::read(&newest).unwrap();
        bytes[20] ^= 1;
        fs::write(newest, bytes).unwrap();
    }
    assert_eq!(fs::read_dir(dir.path().join("values")).unwrap().count(), 2, "the older file waits for a sync");
    fs::remove_file(dir.path().join("catalog.sqlite")).unwrap();
    let interrupted = std::panic::catch_unwind(|| {
        let stop = |progress: &icechest::Progress| {
            if progress.values == progress.of_values {
                std::panic::resume_unwind(Box::new("interrupted"));
            }
        };
        Chest::check(dir.path()).repair(true).on_progress(stop).run().map(|_| ())
    });
    assert!(interrupted.is_err());
    let report = Chest::check(dir.path()).repair(true).run().unwrap();
    assert!(!report.is_healthy() && report.rebuilt == Some(0), "{report}");
    assert!(settings().open(dir.path()).unwrap().find::<Vec<u64>>("key").unwrap().is_none());
    // Both are kept.
    assert_eq!(fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 2);
}

#[test]
fn what_a_repair_left_half_done_is_not_taken_for_the_catalog_later() {
    let (dir, catalog) = (dir(), "catalog.sqlite");
    let settings = || Chest::builder().inline_limit(0).open(dir.path()).unwrap();
    let rebuilt = dir.path().join("catalog.sqlite.rebuilt");
    settings().insert("a", value(0)).unwrap();
    fs::copy(dir.path().join(catalog), &rebuilt).unwrap();
    let chest = settings();
    chest.insert("a", value(1)).unwrap();
    chest.insert("b", value(2)).unwrap();
    drop(chest);
    assert!(!rebuilt.exists());
    fs::remove_file(dir.path().join(catalog)).unwrap();
    let report = Chest::check(dir.path()).repair(true).run().unwrap();
    assert_eq!(report.rebuilt, Some(2), "{report}");
    let chest = settings();
    assert_eq!((&*chest.get("a").unwrap(), &*chest.get("b").unwrap()), (&value(1), &value(2)));
}

#[cfg(unix)]
#[test]
fn a_repair_keeps_a_chest_open_to_those_who_could_use_it() {
    use std::os::unix::fs::PermissionsExt;

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for (private, folder, file) in [(true, 0o700, 0o600), (false, 0o777, 0o666)] {
        let dir = dir();
        let (catalog, values) = (dir.path().join("catalog.sqlite"), dir.path().join("values"));
        let chest = Chest::builder().private(private).inline_limit(0).open(dir.path()).unwrap();
        chest.insert("a", value(0)).unwrap();
        // Leaves the folder of the leases.
        assert_eq!(*chest.stage("s").arg("x", 1).run(|| 2_u8).unwrap(), 2);
        drop(chest);
        let leases = mode(&dir.path().join("leases"));
        assert_eq!(leases == 0o700, private, "{leases:o}");
        fs::set_permissions(&values, fs::Permissions::from_mode(folder)).unwrap();
        fs::remove_file(&catalog).unwrap();
        assert!(Chest::check(dir.path()).repair(true).run().unwrap().rebuilt.is_some());
        assert_eq!(mode(&catalog), file, "{:o}", mode(&catalog));
    }
}

/// Some tools that copy files spell their names in another way.
#[test]
fn a_renamed_file_is_not_removed_and_gets_its_name_back() {
    let dir = dir();
    fill(dir.path());
    for (i, file) in files(dir.path()).iter().enumerate() {
        let name = file.file_name().unwrap().to_str().unwrap();
        fs::rename(file, file.with_file_name(format!("renamed-{i}.{}", name.split_once('.').unwrap().1))).unwrap();
    }
    let renamed = files(dir.path());
    assert!(!renamed.is_empty());
    // Somebody has died: whoever opens the chest cleans up after him.
    fs::write(dir.path().join("locks/0123456789ab.lock"), "1").unwrap();
    let chest = open(dir.path()).unwrap();
    assert_eq!(damaged(&chest, "with other names").len(), renamed.len());
    drop(chest);
    assert_eq!(files(dir.path()), renamed);

    let report = Chest::check(dir.path()).repair(true).run().unwrap();
    assert_eq!(report.damaged.len(), renamed.len(), "{report}");
    assert!(report.damaged.iter().all(|damage| damage.is_saved) && report.orphans.is_empty(), "{report}");
    assert!(damaged(&open(dir.path()).unwrap(), "with their names").is_empty());
    assert!(Chest::check(dir.path()).run().unwrap().is_healthy());
}

#[test]
fn a_value_that_is_written_again_has_a_name_like_any_other() {
    let dir = dir();
    let chest = open(dir.path()).unwrap();
    chest.insert("v1.2.csv", value(1)).unwrap();
    drop(chest);
    for _ in 0..3 {
        let [file] = <[_; 1]>::try_from(files(dir.path())).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(name.split('.').count(), 5, "{name}");
        // Of the label, which comes last.
        let mut bytes = fs::read(&file).unwrap();
        let last = bytes.len() - 40;
        bytes[last] ^= 1;
        fs::write(&file, bytes).unwrap();
        let report = Chest::check(dir.path()).repair(true).run().unwrap();
        assert!(report.damaged.iter().all(|damage| damage.is_saved), "{report}");
    }
    assert_eq!(*open(dir.path()).unwrap().get::<Vec<u32>>("v1.2.csv").unwrap(), value(1));
}
