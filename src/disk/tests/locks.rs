//! Who holds the catalog's write lock is named; what a dead process held is free at once.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::chest::Chest;
use crate::error::ErrorKind;

const PLACE: &str = "ICECHEST_TEST_LOCK_IN";

/// A process that holds the write lock until it is killed.
fn holder(dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "disk::tests::locks::child", "--nocapture"])
        .env(PLACE, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line.ends_with("locked")));
    child
}

#[test]
fn child() {
    let Some(dir) = std::env::var_os(PLACE) else { return };
    let catalog = Connection::open(Path::new(&dir).join("catalog.sqlite")).unwrap();
    catalog.execute_batch("BEGIN IMMEDIATE").unwrap();
    println!("locked");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn the_holder_of_the_lock_is_named_and_its_death_frees_it() {
    let dir = tempfile::tempdir().unwrap();
    let chest = Chest::open(dir.path()).unwrap();
    let mut holder = holder(dir.path());
    chest.insert("k", 1).unwrap();
    let error = chest.flush().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains(&format!("process {}", holder.id())), "{error}");
    assert_eq!(*chest.get::<i32>("k").unwrap(), 1, "nothing is lost");
    holder.kill().unwrap();
    holder.wait().unwrap();
    // With the lock held this would be an error again.
    chest.flush().unwrap();
}

#[test]
fn while_a_catalog_is_made_again_nobody_opens_the_chest_and_the_other_way_round() {
    let dir = tempfile::tempdir().unwrap();
    let chest = Chest::open(dir.path()).unwrap();
    assert!(crate::disk::keep_out(dir.path()).unwrap().is_none(), "somebody has it open");
    drop(chest);
    let alone = crate::disk::keep_out(dir.path()).unwrap();
    assert!(alone.is_some());
    assert_eq!(Chest::open(dir.path()).unwrap_err().kind(), ErrorKind::Busy);
    drop(alone);
    Chest::open(dir.path()).unwrap();
}

/// Somebody writes for long while a chest is opened in which a dead process has left a file.
#[test]
fn what_a_dead_process_left_goes_later_if_it_cannot_go_now() {
    let dir = tempfile::tempdir().unwrap();
    drop(Chest::open(dir.path()).unwrap());
    let orphan = dir.path().join("tmp/0123456789ab000000");
    std::fs::write(&orphan, "half").unwrap();
    std::fs::write(dir.path().join("locks/0123456789ab.lock"), "1").unwrap();
    let mut holder = holder(dir.path());
    // It can be read all the same.
    assert!(Chest::open(dir.path()).unwrap().is_empty().unwrap());
    assert!(orphan.exists());
    holder.kill().unwrap();
    holder.wait().unwrap();
    drop(Chest::open(dir.path()).unwrap());
    assert!(!orphan.exists());
    assert_eq!(std::fs::read_dir(dir.path().join("locks")).unwrap().count(), 0);
}

/// Of two processes that sync one file, the system tells one alone that it failed.
#[cfg(unix)]
#[test]
fn one_process_syncs_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let chest = Chest::open(dir.path()).unwrap();
    let other = std::fs::File::open(dir.path().join("locks")).unwrap();
    other.lock().unwrap();
    let (begin, began) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let synced = scope.spawn(|| {
            begin.send(Instant::now()).unwrap();
            chest.sync().unwrap();
        });
        let began = began.recv().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        // Nobody waits for ever.
        assert!(!synced.is_finished() || began.elapsed() > Duration::from_millis(900));
        other.unlock().unwrap();
    });
    chest.sync().unwrap();
}
