//! Processes to be killed: this test's own program, started again.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;

use icechest::Chest;

const ROLE: &str = "ICECHEST_TORTURE_ROLE";
const PLACE: &str = "ICECHEST_TORTURE_PLACE";

/// What a process is there for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// Uses the chest in all ways.
    Writer { slot: u64, epoch: u64 },
    /// Opens and closes it.
    Opener,
    /// Repairs it.
    Repairer,
    /// Makes it, at the same time as others.
    Maker { slot: u64 },
    /// Uses it together with others, until the time is up.
    Stresser { slot: u64, seconds: u64 },
}

/// A place for a chest and what is noted about it.
pub(super) struct Place(pub(super) PathBuf);

impl Place {
    pub(super) fn chest(&self) -> PathBuf {
        self.0.join("chest")
    }

    /// Where the children's complaints go.
    pub(super) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    pub(super) fn journal(&self, writer: u64) -> PathBuf {
        self.0.join(format!("journal.{writer}"))
    }

    /// A file that tells the makers to begin.
    pub(super) fn signal(&self) -> PathBuf {
        self.0.join("begin")
    }

    pub(super) fn board(&self) -> PathBuf {
        self.0.join("board")
    }
}

pub(super) struct Victim {
    child: Child,
    out: BufReader<ChildStdout>,
    log: PathBuf,
    role: Role,
    is_ready: bool,
}

impl Victim {
    pub(super) fn start(role: Role, place: &Path) -> Self {
        let log = Place(place.to_owned()).log();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "torture::child::child", "--nocapture", "--test-threads=1"])
            .env(ROLE, role.to_text())
            .env(PLACE, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(OpenOptions::new().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out, log, role, is_ready: false }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it says that it has opened the chest, or is about to.
    pub(super) fn wait_until_ready(&mut self) {
        if !self.is_ready {
            self.wait_for("ready\n");
            self.is_ready = true;
        }
    }

    /// Waits until it says this.
    pub(super) fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        while !line.ends_with(word) {
            line.clear();
            if self.out.read_line(&mut line).unwrap() == 0 {
                let status = self.child.wait().unwrap();
                self.complain(status);
            }
        }
    }

    /// Ends it as a crash does. That it had not ended by itself is part of the test.
    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        if std::os::unix::process::ExitStatusExt::signal(&status) != Some(9) {
            self.complain(status);
        }
    }

    /// Waits for one that ends by itself, and gives what it said last.
    pub(super) fn finish(mut self) -> String {
        let mut said = String::new();
        self.out.read_to_string(&mut said).unwrap();
        let status = self.child.wait().unwrap();
        if !status.success() {
            self.complain(status);
        }
        said
    }

    fn complain(&self, status: ExitStatus) -> ! {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        panic!("{:?} ended with {status}:\n{log}", self.role);
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Role {
    fn to_text(self) -> String {
        match self {
            Self::Writer { slot, epoch } => format!("writer {slot} {epoch}"),
            Self::Opener => "opener".to_owned(),
            Self::Repairer => "repairer".to_owned(),
            Self::Maker { slot } => format!("maker {slot}"),
            Self::Stresser { slot, seconds } => format!("stresser {slot} {seconds}"),
        }
    }

    fn from_text(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |i: usize| words[i].parse().unwrap();
        match words[0] {
            "writer" => Self::Writer { slot: number(1), epoch: number(2) },
            "opener" => Self::Opener,
            "repairer" => Self::Repairer,
            "maker" => Self::Maker { slot: number(1) },
            "stresser" => Self::Stresser { slot: number(1), seconds: number(2) },
            other => panic!("no role {other}"),
        }
    }
}

/// What a child does; without a role, as in a usual run of the tests, nothing.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let place = Place(PathBuf::from(std::env::var_os(PLACE).unwrap()));
    end_with_the_parent();
    abort_on_panic();
    match Role::from_text(&role) {
        Role::Writer { slot, epoch } => super::writer::write(&place, slot, epoch),
        Role::Opener => open(&place),
        Role::Repairer => repair(&place),
        Role::Maker { slot } => super::making::make(&place, slot),
        Role::Stresser { slot, seconds } => super::stress::stress(&place, slot, seconds),
    }
}

/// No child outlives a test that was killed.
fn end_with_the_parent() {
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::abort();
    });
}

/// A panic of any thread is the end of the process, so that the parent hears of it.
fn abort_on_panic() {
    let one_at_a_time = Mutex::new(());
    std::panic::set_hook(Box::new(move |info| {
        let _guard = one_at_a_time.lock();
        eprintln!("{info}");
        std::process::abort();
    }));
}

pub(super) fn say_ready() {
    println!("ready");
}

fn open(place: &Place) {
    say_ready();
    loop {
        let chest = Chest::open(place.chest()).unwrap();
        chest.keys().unwrap();
    }
}

fn repair(place: &Place) {
    say_ready();
    loop {
        let report = Chest::check(place.chest()).repair(true).run().unwrap();
        assert!(report.is_healthy() && report.foreign.is_empty(), "{report}");
    }
}
