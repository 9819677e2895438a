//! Stages of several processes.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use icechest::{Chest, ErrorKind, Result, Status};

use super::ok;
use crate::helpers::dir;

const ROLE: &str = "ICECHEST_STAGE_ROLE";
const PLACE: &str = "ICECHEST_STAGE_PLACE";

fn start(role: &str, place: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "stages::processes::child", "--nocapture"]);
    command.env(ROLE, role).env(PLACE, place).stdout(Stdio::null());
    command.spawn().unwrap()
}

/// Leaves a mark of its own in the folder `marks`, for those who count.
fn mark(place: &Path, name: &str) {
    let marks = place.join("marks");
    fs::create_dir_all(&marks).unwrap();
    fs::write(marks.join(format!("{name}-{}", std::process::id())), "").unwrap();
}

fn marks(place: &Path, name: &str) -> usize {
    let marks = fs::read_dir(place.join("marks")).into_iter().flatten();
    marks.filter(|mark| mark.as_ref().unwrap().file_name().to_string_lossy().starts_with(name)).count()
}

fn wait_for(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not happen");
        thread::sleep(Duration::from_millis(2));
    }
}

/// What another process does; without a role, as in a usual run of the tests, nothing.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let place = std::env::var_os(PLACE).unwrap();
    let place = Path::new(&place);
    let chest = Chest::open(place.join("chest")).unwrap();
    match role.as_str() {
        "compute" => {
            let value = chest.stage("slow").arg("x", 1).run(|| {
                mark(place, "computed");
                thread::sleep(Duration::from_millis(100));
                vec![7u64; 10_000]
            });
            assert_eq!(*value.unwrap(), vec![7u64; 10_000]);
            mark(place, "done");
        }
        "hang" => {
            let _ = chest.stage("slow").arg("x", 1).run(|| -> Vec<u64> {
                mark(place, "hanging");
                loop {
                    thread::sleep(Duration::from_secs(1));
                }
            });
        }
        "circle" => {
            let result = circle(&chest, place, 1);
            mark(place, if result.is_ok() { "ok" } else { "refused" });
        }
        "keys" => {
            let key = chest.stage("f").arg("x", [("b", 2.5), ("a", 1.0)]).key::<f64>().unwrap();
            fs::write(place.join("key"), key.canonical()).unwrap();
        }
        _ => unreachable!(),
    }
}

/// A call of this process that needs one of the other, which needs this one.
fn circle(chest: &Chest, place: &Path, n: u32) -> Result<u32> {
    let call = chest.stage("circle").arg("n", n);
    let done = call.try_run(|| {
        mark(place, "inside");
        wait_for(|| marks(place, "inside") == 2);
        ok(*chest.stage("circle").arg("n", 1 - n).try_run(|| ok(n))?)
    });
    done.map(|n| *n)
}

#[test]
fn of_many_processes_one_computes() {
    let dir = dir();
    let children: Vec<Child> = (0..4).map(|_| start("compute", dir.path())).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!((marks(dir.path(), "computed"), marks(dir.path(), "done")), (1, 4));
    assert_eq!(fs::read_dir(dir.path().join("chest/leases")).unwrap().count(), 0);
}

#[test]
fn a_killed_process_frees_its_lease() {
    let dir = dir();
    let mut child = start("hang", dir.path());
    wait_for(|| marks(dir.path(), "hanging") == 1);
    let chest = Chest::open(dir.path().join("chest")).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let run = chest.stage("slow").arg("x", 1).run_with_status(|| vec![8u64; 3]).unwrap();
            assert_eq!((&*run.value, run.status), (&vec![8u64; 3], Status::Computed));
            Instant::now()
        });
        thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished());
        let killed = Instant::now();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(waiting.join().unwrap() - killed < Duration::from_secs(10));
    });
}

#[test]
fn a_circle_over_two_processes_is_an_error_for_one_of_them() {
    let dir = dir();
    let mut child = start("circle", dir.path());
    let chest = Chest::open(dir.path().join("chest")).unwrap();
    let ours = circle(&chest, dir.path(), 0);
    assert!(child.wait().unwrap().success());
    let refused = usize::from(ours.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy));
    assert!(refused + marks(dir.path(), "refused") >= 1, "{ours:?}");
}

#[test]
fn keys_are_the_same_in_another_process() {
    let dir = dir();
    assert!(start("keys", dir.path()).wait().unwrap().success());
    let chest = Chest::temporary().unwrap();
    let key = chest.stage("f").arg("x", [("b", 2.5), ("a", 1.0)]).key::<f64>().unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("key")).unwrap(), key.canonical());
}
