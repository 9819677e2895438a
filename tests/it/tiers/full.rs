//! A disk that is really full: a small one in memory, where this machine lets a user mount one.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use icechest::{Chest, Error, ErrorKind};

use crate::helpers::dir;

const PLACE: &str = "ICECHEST_TEST_FULL_DISK";
const CANNOT_MOUNT: i32 = 77;

/// Mounts a disk of 8 MiB that only a child process sees, and runs the test there.
#[test]
fn a_full_disk_loses_nothing_and_is_left_behind() {
    if let Some(place) = std::env::var_os(PLACE) {
        return on_a_small_disk(Path::new(&place));
    }
    let dir = dir();
    let script = format!(
        "mount -t tmpfs -o size=8m none \"${PLACE}\" || exit {CANNOT_MOUNT}
         exec \"$0\" --exact tiers::full::a_full_disk_loses_nothing_and_is_left_behind --nocapture"
    );
    let child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(PLACE, dir.path())
        .output();
    let Ok(output) = child else { return println!("skipped: there is no command `unshare`") };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // `unshare` itself ends with 1 where that is not allowed, before anything is printed by the test.
    if output.status.code() == Some(CANNOT_MOUNT) || !text.contains("running 1 test") {
        return println!("skipped: this user cannot mount a disk: {text}");
    }
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn noise(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..100 << 10).map(|_| random.u8(..)).collect()
}

fn is_full(error: &Error) -> bool {
    error.kind() == ErrorKind::Full && error.path().is_some()
}

fn check(chest: &Chest, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        assert_eq!(*chest.get::<Vec<u8>>(number).unwrap(), noise(number), "{number}");
    }
}

fn on_a_small_disk(disk: &Path) {
    let root = disk.join("chest");
    let chest = Chest::builder().budget("1MiB").open(&root).unwrap();
    let (mut number, mut errors) = (0, Vec::new());
    // More than once: what the background writer gives up makes room again.
    while errors.len() < 5 || chest.flush().is_ok() {
        errors.extend(chest.insert(number, noise(number)).err());
        number += 1;
        assert!(number < 200, "8 MiB hold 20 MiB");
    }
    for error in &errors {
        assert!(is_full(error) && error.key().is_some(), "{error}");
    }
    assert!(number > 60, "the disk is full after {number} values");
    // Those that were refused room are in memory.
    check(&chest, 0..number);
    assert!(is_full(&chest.flush().unwrap_err()));

    // Another handle opens and reads on a disk that has no byte left.
    let filler = disk.join("filler");
    let mut file = File::create(&filler).unwrap();
    // Until the background writer has given up as well, and its unfinished files are gone.
    for _ in 0..20 {
        while file.write_all(&[0; 512]).is_ok() {}
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    {
        let other = Chest::builder().budget("1MiB").open(&root).unwrap();
        check(&other, 0..number / 2);
        other.insert("more", noise(1000)).unwrap();
        assert!(is_full(&other.flush().unwrap_err()));
        assert_eq!(*other.get::<Vec<u8>>("more").unwrap(), noise(1000));
        fs::remove_file(&filler).unwrap();
        drop(file);
        // With some room there is some progress.
        chest.remove_many(0..number / 2).unwrap();
        chest.sync().unwrap();
        other.flush().unwrap();
    }
    chest.flush().unwrap();
    chest.sync().unwrap();
    drop(chest);

    let report = Chest::check(&root).run().unwrap();
    assert!(report.is_healthy() && report.orphans.is_empty(), "{report}");
    let chest = Chest::open(&root).unwrap();
    check(&chest, number / 2..number);
    assert_eq!(chest.len().unwrap(), number - number / 2 + 1);
}
