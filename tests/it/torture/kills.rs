//! Processes that use one chest are killed at random moments, again and again. What they published is there afterwards,
//! exactly, and nothing that they left.

use std::collections::BTreeSet;
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use icechest::Chest;
use tempfile::TempDir;

use super::child::{Place, Role, Victim};
use super::model::Model;
use super::value::read;
use super::writer::{THREADS, WRITERS, keys_of, settings, shared_keys};
use crate::helpers::dir;

/// After a process was killed another one opens the chest within this time, however busy the others are.
const OPENS_WITHIN: Duration = Duration::from_secs(20);

/// What the directory may take besides its values: the catalog with its log, which do not shrink.
const OVERHEAD: u64 = 32 << 20;

#[test]
fn what_was_published_survives_every_kill() {
    let time = super::seconds_or(120);
    let mut torture = Torture::new();
    while torture.started.elapsed() < time {
        torture.round();
        torture.show(time);
    }
    torture.kill_all();
    torture.verify_all();
    let least = if time >= Duration::from_secs(600) { 1000 } else { time.as_secs() / 6 };
    torture.tell();
    assert!(torture.kills >= least, "only {} kills in {time:?}", torture.kills);
}

struct Torture {
    place: Place,
    dir: Option<TempDir>,
    started: Instant,
    shown: Instant,
    random: fastrand::Rng,
    writers: Vec<Option<Victim>>,
    model: Model,
    epoch: u64,
    rounds: u64,
    kills: u64,
    values: u64,
    checks: u64,
    slowest_open: Duration,
    most_overhead: u64,
}

impl Drop for Torture {
    fn drop(&mut self) {
        self.writers.clear();
        if thread::panicking() {
            let kept = self.dir.take().map(TempDir::keep);
            eprintln!("after {} kills; the directory is kept: {kept:?}", self.kills);
        }
    }
}

impl Torture {
    fn new() -> Self {
        let dir = dir();
        Self {
            place: Place(dir.path().to_owned()),
            dir: Some(dir),
            started: Instant::now(),
            shown: Instant::now(),
            random: fastrand::Rng::new(),
            writers: (0..WRITERS).map(|_| None).collect(),
            model: Model::default(),
            epoch: 0,
            rounds: 0,
            kills: 0,
            values: 0,
            checks: 0,
            slowest_open: Duration::ZERO,
            most_overhead: 0,
        }
    }

    fn round(&mut self) {
        self.rounds += 1;
        self.start_writers();
        if self.random.u32(0..4) > 0 {
            self.writers.iter_mut().flatten().for_each(Victim::wait_until_ready);
        }
        self.sleep(200);
        match self.random.u32(0..10) {
            0..3 => self.kill_one(),
            3..5 => self.kill_passers_by(),
            _ => {
                self.kill_all();
                if self.random.bool() {
                    self.kill_passers_by();
                }
                self.verify_all();
            }
        }
    }

    fn sleep(&mut self, at_most: u64) {
        thread::sleep(Duration::from_millis(self.random.u64(0..at_most)));
    }

    fn start_writers(&mut self) {
        for slot in 0..WRITERS {
            if self.writers[slot as usize].is_none() {
                self.epoch += 1;
                let role = Role::Writer { slot, epoch: self.epoch };
                self.writers[slot as usize] = Some(Victim::start(role, &self.place.0));
            }
        }
    }

    fn kill(&mut self, slot: u64) {
        if let Some(writer) = self.writers[slot as usize].take() {
            writer.kill();
            self.kills += 1;
            self.model.read(&self.place, slot);
        }
    }

    fn kill_all(&mut self) {
        let first = self.random.u64(0..WRITERS);
        for slot in 0..WRITERS {
            self.kill((first + slot) % WRITERS);
            if self.random.bool() {
                self.sleep(20);
            }
        }
    }

    /// Kills one while the others go on, and looks at what it left.
    fn kill_one(&mut self) {
        self.writers.iter_mut().flatten().for_each(Victim::wait_until_ready);
        let slot = self.random.u64(0..WRITERS);
        self.kill(slot);
        let chest = self.open();
        self.check_sessions();
        self.verify(&chest, slot);
    }

    /// Kills those who only open the chest, or repair it.
    fn kill_passers_by(&mut self) {
        if !self.place.chest().join("icechest.json").exists() {
            return;
        }
        for _ in 0..3 {
            let role = if self.random.bool() { Role::Opener } else { Role::Repairer };
            let mut victim = Victim::start(role, &self.place.0);
            victim.wait_until_ready();
            self.sleep(30);
            victim.kill();
            self.kills += 1;
        }
    }

    fn open(&mut self) -> Chest {
        let before = Instant::now();
        let chest = settings().open(self.place.chest()).unwrap();
        let took = before.elapsed();
        assert!(took < OPENS_WITHIN, "opening took {took:?}");
        self.slowest_open = self.slowest_open.max(took);
        chest
    }

    /// The keys of a writer that is dead.
    fn verify(&mut self, chest: &Chest, slot: u64) {
        for key in (slot * THREADS..(slot + 1) * THREADS).flat_map(keys_of) {
            let found = self.read(chest, key);
            self.model.check(key, found);
        }
    }

    fn read(&mut self, chest: &Chest, key: u64) -> Option<u64> {
        let found = read(chest, key).unwrap();
        self.values += u64::from(found.is_some());
        found.map(|story| story.counter)
    }

    /// Everything, when all writers are dead.
    fn verify_all(&mut self) {
        if self.random.u32(0..5) == 0 {
            self.check_as_it_is();
        }
        let chest = self.open();
        for slot in 0..WRITERS {
            self.verify(&chest, slot);
        }
        for key in shared_keys() {
            self.read(&chest, key);
        }
        self.check_directory(&chest);
        drop(chest);
        assert_eq!(names(&self.place.chest().join("locks")), BTreeSet::new());
        if self.random.u32(0..5) == 0 {
            self.check_in_order();
        }
    }

    /// What killed processes left is no damage.
    fn check_as_it_is(&mut self) {
        if self.place.chest().join("icechest.json").exists() {
            let report = Chest::check(self.place.chest()).run().unwrap();
            assert!(report.is_healthy() && report.foreign.is_empty(), "{report}");
            self.checks += 1;
        }
    }

    fn check_in_order(&mut self) {
        let report = Chest::check(self.place.chest()).run().unwrap();
        assert!(report.is_healthy() && report.foreign.is_empty() && report.orphans.is_empty(), "{report}");
        self.checks += 1;
    }

    /// The sessions are those of the living, as far as they have changed anything.
    fn check_sessions(&self) {
        let locks = self.place.chest().join("locks");
        let mut living: Vec<u32> = self.writers.iter().flatten().map(Victim::id).collect();
        living.push(std::process::id());
        for name in names(&locks) {
            // One that is being made says nothing yet.
            let Ok(Ok(pid)) = fs::read_to_string(locks.join(&name)).map(|pid| pid.parse()) else { continue };
            assert!(living.contains(&pid), "{name} is of {pid}, which is dead");
        }
    }

    /// The files are those of the values, and nothing else is left.
    fn check_directory(&mut self, chest: &Chest) {
        chest.sync().unwrap();
        let infos = chest.infos().unwrap();
        let named: BTreeSet<String> = infos.iter().filter_map(|info| info.file.clone()).collect();
        let root = self.place.chest();
        let there = names(&root.join("values")).iter().map(|name| format!("values/{name}")).collect();
        assert_no_more(&there, &named);
        assert_eq!(names(&root.join("tmp")), BTreeSet::new());
        self.check_sessions();
        assert!(names(&root.join("locks")).len() <= 1, "that of this process");
        assert!(!root.join("quarantine").exists());
        let live: u64 = infos.iter().map(|info| info.stored_bytes).sum();
        let overhead = size_of(&root).saturating_sub(live);
        assert!(overhead <= OVERHEAD, "{overhead} bytes besides {live} of values");
        self.most_overhead = self.most_overhead.max(overhead);
    }

    /// One line that is written again and again, on a terminal.
    fn show(&mut self, time: Duration) {
        let is_terminal = std::io::stderr().is_terminal();
        let pause = if is_terminal { Duration::from_millis(200) } else { Duration::from_secs(30) };
        if super::seconds().is_none() || self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let left = time.saturating_sub(self.started.elapsed()).as_secs();
        let (before, after) = if is_terminal { ("\r", "   ") } else { ("", "\n") };
        let line = format!("{} kills, {} values verified, {left} s left", self.kills, self.values);
        let _ = write!(std::io::stderr(), "{before}{line}{after}");
    }

    /// The harness would keep what is printed to itself.
    fn tell(&self) {
        let before = if super::seconds().is_some() && std::io::stderr().is_terminal() { "\r" } else { "" };
        let _ = writeln!(
            std::io::stderr(),
            "{before}torture: {} kills in {:.0} s and {} rounds, {} values verified, {} checks of the directory; \
             opened in {:.0} ms at most, {:.1} MiB at most besides the values",
            self.kills,
            self.started.elapsed().as_secs_f64(),
            self.rounds,
            self.values,
            self.checks,
            self.slowest_open.as_secs_f64() * 1e3,
            self.most_overhead as f64 / f64::from(1 << 20),
        );
    }
}

fn assert_no_more(there: &BTreeSet<String>, named: &BTreeSet<String>) {
    let orphans: Vec<_> = there.difference(named).collect();
    let missing: Vec<_> = named.difference(there).collect();
    assert!(orphans.is_empty() && missing.is_empty(), "orphans {orphans:?}, missing {missing:?}");
}

pub(super) fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The bytes of all files below a directory.
fn size_of(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| if entry.path().is_dir() { size_of(&entry.path()) } else { entry.metadata().unwrap().len() })
        .sum()
}
