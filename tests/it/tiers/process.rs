//! Other processes: this test binary itself, run again as a child that does one thing.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use icechest::{Chest, ErrorKind};

use crate::helpers::dir;

const ROLE: &str = "ICECHEST_TEST_ROLE";
const PLACE: &str = "ICECHEST_TEST_PLACE";

/// Runs the test `child` below in a process of its own, and waits until it says that it is ready.
struct Other {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Other {
    fn start(role: &str, place: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tiers::process::child", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(PLACE, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut other = Self { child, out };
        assert_eq!(other.answer(), "ready");
        other
    }

    /// The next line that the child marked as one for its parent.
    fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "the child has ended");
            if let Some((_, answer)) = line.split_once("child: ") {
                return answer.trim_end().to_owned();
            }
        }
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{question}").unwrap();
        self.answer()
    }

    /// Ends it as a crash does.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the child does; without a role, as in a usual run of the tests, nothing.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let place = PathBuf::from(std::env::var_os(PLACE).unwrap());
    let say = |text: &str| println!("child: {text}");
    let mut lines = std::io::stdin().lines().map(Result::unwrap);
    match role.as_str() {
        "temporary" => {
            let chest = Chest::builder().budget(0).inline_limit(0).temporary_in(place).temporary().unwrap();
            chest.insert("k", vec![7u8; 5000]).unwrap();
            say("ready");
            lines.next();
        }
        "panic" => {
            let chest = Chest::builder().budget(0).inline_limit(0).temporary_in(place).temporary().unwrap();
            chest.insert("k", vec![7u8; 5000]).unwrap();
            say("ready");
            lines.next();
            panic!("the end");
        }
        "counter" => {
            let chest = Chest::open(place).unwrap();
            say("ready");
            for line in lines {
                match line.as_str() {
                    "get" => say(&format!("{:?}", chest.find::<u64>("n").unwrap().map(|n| *n))),
                    "remove" => say(&chest.remove("n").unwrap().to_string()),
                    number => {
                        chest.insert("n", number.parse::<u64>().unwrap()).unwrap();
                        chest.flush().unwrap();
                        say("done");
                    }
                }
            }
        }
        "filler" => {
            let chest = Chest::builder().inline_limit(1000).open(place).unwrap();
            say("ready");
            for i in 0.. {
                chest.insert(i % 500, vec![i; i as usize % 2000]).unwrap();
                if i % 50 == 0 {
                    chest.flush().unwrap();
                    say("flushed");
                }
            }
        }
        #[cfg(unix)]
        "parent" => {
            let chest = Chest::builder().inline_limit(0).open(&place).unwrap();
            let temporary = Chest::temporary().unwrap();
            chest.insert("k", vec![7u8; 5000]).unwrap();
            // SAFETY: the child does nothing but what is tested here, and ends.
            let fork = unsafe { libc::fork() };
            if fork == 0 {
                let refused =
                    |done: icechest::Result<()>| done.is_err_and(|error| error.kind() == ErrorKind::Unsupported);
                let is_refused = refused(chest.get::<Vec<u8>>("k").map(|_| ()))
                    && refused(chest.insert("other", 1))
                    && refused(chest.flush())
                    && refused(chest.entry("k").or_insert(1u8).map(|_| ()))
                    && refused(temporary.insert("x", 1));
                drop((chest, temporary));
                let again = Chest::open(&place).and_then(|chest| chest.insert("child", 5).and_then(|()| chest.flush()));
                std::process::exit(i32::from(!(is_refused && again.is_ok())));
            }
            let mut status = 0;
            // SAFETY: the status is this function's own.
            unsafe { libc::waitpid(fork, &raw mut status, 0) };
            assert_eq!(status, 0, "in the child");
            assert_eq!(*chest.get::<Vec<u8>>("k").unwrap(), [7; 5000]);
            assert_eq!(*chest.get::<i32>("child").unwrap(), 5);
            assert!(temporary.path().exists(), "the child did not remove its parent's directory");
            chest.sync().unwrap();
            say("ready");
            lines.next();
        }
        #[cfg(all(unix, feature = "ndarray"))]
        "writer" => {
            let chest = Chest::open(&place).unwrap();
            // So much that there is a file already.
            let block = ndarray::Array2::<f64>::ones((1000, 1000));
            let mut writer = chest.array_writer::<f64>("rows", &[1000]).unwrap();
            (0..3).for_each(|_| writer.write(block.view()).unwrap());
            // SAFETY: the child does nothing but what is tested here, and ends.
            let fork = unsafe { libc::fork() };
            if fork == 0 {
                drop((writer, chest));
                std::process::exit(0);
            }
            // SAFETY: nobody wants to know how it ended.
            unsafe { libc::waitpid(fork, std::ptr::null_mut(), 0) };
            writer.finish().unwrap();
            say("ready");
        }
        #[cfg(unix)]
        "few files" => {
            let few = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
            // SAFETY: the limit is this function's own.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few) }, 0);
            let builder = || Chest::builder().inline_limit(0);
            for chest in [builder().open(place).unwrap(), builder().temporary().unwrap()] {
                for key in 0..300 {
                    chest.insert(key, vec![key as u8; 32 << 10]).unwrap();
                }
                chest.flush().unwrap();
                assert_eq!(chest.stats().unwrap().write_errors, 0);
            }
            say("ready");
        }
        other => panic!("no role {other}"),
    }
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_temporary_chest_leaves_nothing_behind() {
    let parent = dir();
    let chest = Chest::builder().budget(0).inline_limit(0).temporary_in(parent.path()).temporary().unwrap();
    chest.insert("k", vec![7u8; 5000]).unwrap();
    assert_eq!(count(parent.path()), 1);
    assert!(chest.path().starts_with(fs::canonicalize(parent.path()).unwrap()));
    let clone = chest.clone();
    drop(chest);
    assert_eq!(*clone.get::<Vec<u8>>("k").unwrap(), [7; 5000]);
    drop(clone);
    assert_eq!(count(parent.path()), 0);
}

#[test]
fn a_temporary_chest_leaves_nothing_behind_after_a_panic() {
    let parent = dir();
    let make = || Chest::builder().budget(0).inline_limit(0).temporary_in(parent.path()).temporary().unwrap();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let chest = make();
        chest.insert("k", vec![7u8; 5000]).unwrap();
        panic!("on purpose");
    }));
    assert!(unwound.is_err());
    assert_eq!(count(parent.path()), 0);
    let chest = make();
    let thread = std::thread::spawn(move || {
        chest.insert("k", vec![7u8; 5000]).unwrap();
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    assert_eq!(count(parent.path()), 0);
}

#[test]
fn a_process_that_panics_leaves_nothing_behind() {
    let parent = dir();
    let mut other = Other::start("panic", parent.path());
    assert_eq!(count(parent.path()), 1);
    drop(other.child.stdin.take());
    assert!(!other.child.wait().unwrap().success());
    assert_eq!(count(parent.path()), 0);
}

#[test]
fn what_a_killed_process_left_is_removed_by_the_next() {
    let parent = dir();
    let (dead, alive) = (Other::start("temporary", parent.path()), Other::start("temporary", parent.path()));
    assert_eq!(count(parent.path()), 2);
    dead.kill();
    assert_eq!(count(parent.path()), 2);
    let chest = Chest::builder().temporary_in(parent.path()).temporary().unwrap();
    assert_eq!(count(parent.path()), 2, "that of the living and this one");
    drop(chest);
    assert_eq!(count(parent.path()), 1);
    alive.kill();
    drop(Chest::builder().temporary_in(parent.path()).temporary().unwrap());
    assert_eq!(count(parent.path()), 0);
}

#[cfg(all(unix, feature = "ndarray"))]
#[test]
fn a_forked_child_leaves_unfinished_files_alone() {
    let dir = dir();
    assert!(Other::start("writer", dir.path()).child.wait().unwrap().success());
    let last: ndarray::Array2<f64> = Chest::open(dir.path()).unwrap().slice("rows", ndarray::s![2999.., ..]).unwrap();
    assert_eq!(last.sum(), 1000.0);
}

#[cfg(unix)]
#[test]
fn a_process_that_may_open_few_files_can_use_a_chest() {
    let dir = dir();
    assert!(Other::start("few files", dir.path()).child.wait().unwrap().success());
    assert_eq!(Chest::open(dir.path()).unwrap().len().unwrap(), 300);
}

#[cfg(unix)]
#[test]
fn a_chest_is_refused_in_a_forked_process_and_goes_on_in_its_parent() {
    let dir = dir();
    let mut parent = Other::start("parent", dir.path());
    drop(parent.child.stdin.take());
    assert!(parent.child.wait().unwrap().success());
    assert!(Chest::check(dir.path()).run().unwrap().is_healthy());
}

#[test]
fn processes_see_what_others_published() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    let (mut one, mut two) = (Other::start("counter", dir.path()), Other::start("counter", dir.path()));
    assert_eq!(one.ask("get"), "None");
    for n in 0..10u64 {
        assert_eq!(one.ask(&(3 * n).to_string()), "done");
        assert_eq!(two.ask("get"), format!("Some({})", 3 * n));
        assert_eq!(*chest.get::<u64>("n").unwrap(), 3 * n);
        assert_eq!(two.ask(&(3 * n + 1).to_string()), "done");
        assert_eq!(*chest.get::<u64>("n").unwrap(), 3 * n + 1);
        assert_eq!(one.ask("get"), format!("Some({})", 3 * n + 1));
        chest.insert("n", 3 * n + 2).unwrap();
        chest.flush().unwrap();
        assert_eq!([one.ask("get"), two.ask("get")], [format!("Some({})", 3 * n + 2), format!("Some({})", 3 * n + 2)]);
    }
    assert_eq!(one.ask("remove"), "true");
    assert_eq!(two.ask("get"), "None");
    assert!(!chest.contains_key("n").unwrap());
}

#[test]
fn what_was_published_survives_a_killed_process() {
    let dir = dir();
    for _ in 0..3 {
        let mut other = Other::start("filler", dir.path());
        assert_eq!((0..4).map(|_| other.answer()).filter(|answer| answer == "flushed").count(), 4);
        other.kill();
        let chest = Chest::open(dir.path()).unwrap();
        let keys = chest.keys().unwrap();
        assert!(keys.len() > 150, "{}", keys.len());
        for i in 0..=150i32 {
            assert!(chest.contains_key(i).unwrap());
        }
        for entry in chest.iter::<Vec<i32>>().unwrap() {
            let (key, value) = entry.unwrap();
            let i = key.to::<i32>().unwrap();
            // Some version of it, whole.
            assert!(value.iter().all(|n| *n == value[0] && n % 500 == i), "{key}");
        }
    }
}

/// What a reader keeps of the catalog's index ends with the commit of another.
#[test]
fn many_reads_in_a_row_see_what_another_has_published_in_between() {
    let dir = dir();
    let open = || Chest::builder().budget(0).open(dir.path()).unwrap();
    let (ours, theirs) = (open(), open());
    let mut model = [Some(0_u64); 50];
    (0..50_u64).for_each(|key| theirs.insert(key, 0_u64).unwrap());
    for round in 1..50_u64 {
        theirs.flush().unwrap();
        for _ in 0..3 {
            for (key, expected) in (0..50_u64).zip(model) {
                match ours.get::<u64>(key) {
                    Ok(found) => assert_eq!(Some(*found), expected, "key {key} in round {round}"),
                    Err(error) => assert!(error.kind() == ErrorKind::NotFound && expected.is_none(), "{error}"),
                }
            }
        }
        theirs.remove(round - 1).unwrap();
        theirs.insert(round, round).unwrap();
        (model[round as usize - 1], model[round as usize]) = (None, Some(round));
    }
}
