//! Of those who make one call at the same time, one computes.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use futures_lite::future::{self, block_on, poll_once, zip};
use icechest::{Chest, ErrorKind, Result, Status};

use super::ok;
use crate::helpers::dir;

#[test]
fn of_many_threads_one_computes() {
    let dir = dir();
    for chest in [Chest::temporary().unwrap(), Chest::open(dir.path()).unwrap()] {
        let (runs, barrier) = (AtomicU32::new(0), Barrier::new(8));
        let statuses: Vec<Status> = thread::scope(|scope| {
            let work = || {
                barrier.wait();
                let run = chest.stage("f").arg("x", 1).run_with_status(|| {
                    runs.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(50));
                    7u64
                });
                let run = run.unwrap();
                assert_eq!(*run.value, 7);
                run.status
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert_eq!(statuses.iter().filter(|&&status| status == Status::Computed).count(), 1);
        assert!(statuses.iter().filter(|&&status| status == Status::Joined).count() > 4, "{statuses:?}");
    }
}

#[test]
fn a_panic_or_an_error_lets_the_next_one_compute() {
    let chest = Chest::temporary().unwrap();
    let (runs, barrier) = (AtomicU32::new(0), Barrier::new(6));
    let results: Vec<bool> = thread::scope(|scope| {
        let work = || {
            barrier.wait();
            let call = chest.stage("f").arg("x", 1);
            call.try_run(|| {
                let run = runs.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(20));
                match run {
                    0 => panic!("the first"),
                    1 => Err(icechest::Error::new(ErrorKind::Invalid, "the second")),
                    _ => Ok(7u64),
                }
            })
            .is_ok()
        };
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(false)).collect()
    });
    assert_eq!(results.iter().filter(|&&is_ok| is_ok).count(), 4);
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[test]
fn different_calls_do_not_wait_for_each_other() {
    let chest = Chest::temporary().unwrap();
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        for x in 0..2 {
            let (chest, barrier) = (&chest, &barrier);
            // Neither ends before the other runs.
            scope.spawn(move || chest.stage("f").arg("x", x).run(|| _ = barrier.wait()).unwrap());
        }
    });
}

fn factorial(chest: &Chest, n: u64) -> Result<u64> {
    let call = chest.stage("factorial").arg("n", n);
    call.try_run(|| if n == 0 { Ok(1) } else { Ok(n * factorial(chest, n - 1)?) }).map(|product| *product)
}

#[test]
fn stages_may_be_recursive() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    assert_eq!(factorial(&chest, 15).unwrap(), 1_307_674_368_000);
    assert_eq!(chest.stage("factorial").stats().computed, 16);
}

/// A stage that needs its own result, through another.
fn around(chest: &Chest, n: u32) -> Result<u32> {
    let call = chest.stage("around").arg("n", n);
    call.try_run(|| around(chest, (n + 1) % 3)).map(|n| *n)
}

#[test]
fn a_call_that_needs_itself_is_an_error() {
    let dir = dir();
    for chest in [Chest::temporary().unwrap(), Chest::open(dir.path()).unwrap()] {
        let error = around(&chest, 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains("around"), "{error}");
        // Nothing is left behind.
        assert_eq!(around(&chest, 1).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(*chest.stage("around").arg("n", 0).run(|| 5u32).unwrap(), 5);
        assert_eq!(around(&chest, 1).unwrap(), 5);
    }
}

#[test]
fn a_circle_over_several_threads_is_an_error_for_one_of_them() {
    let chest = Chest::temporary().unwrap();
    let barrier = Barrier::new(3);
    let failed = thread::scope(|scope| {
        let work = |n: u32| {
            let (chest, barrier) = (&chest, &barrier);
            move || {
                chest.stage("f").arg("n", n).try_run(|| {
                    barrier.wait();
                    ok(*chest.stage("f").arg("n", (n + 1) % 3).try_run(|| ok(n))?)
                })
            }
        };
        let threads: Vec<_> = (0..3).map(|n| scope.spawn(work(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap().is_err()).filter(|&failed| failed).count()
    });
    // Who notices gives up; then the others compute what it would have given them.
    assert!(failed >= 1);
}

#[test]
fn a_circle_over_two_handles_is_an_error() {
    let dir = dir();
    let (one, other) = (Chest::open(dir.path()).unwrap(), Chest::open(dir.path()).unwrap());
    let error = one.stage("f").call().try_run(|| other.stage("f").call().try_run(|| ok(1u8)).map(|one| *one));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Busy);
}

#[test]
fn tasks_join_too_and_keep_no_thread() {
    let dir = dir();
    for chest in [Chest::temporary().unwrap(), Chest::open(dir.path()).unwrap()] {
        let runs = AtomicU32::new(0);
        let call = || {
            chest.stage("f").arg("x", 1).run_async(async {
                runs.fetch_add(1, Ordering::Relaxed);
                future::yield_now().await;
                9u64
            })
        };
        // Both on one thread: if one of them kept it, the other could not end.
        let (one, other) = block_on(zip(call(), call()));
        assert_eq!((*one.unwrap(), *other.unwrap()), (9, 9));
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        let run = block_on(chest.stage("f").arg("x", 1).try_run_async(async { ok(0u64) })).unwrap();
        assert_eq!((*run.value, run.status), (9, Status::Memory));
    }
}

#[test]
fn a_task_that_is_dropped_lets_the_next_one_compute() {
    let chest = Chest::temporary().unwrap();
    {
        let mut never = pin!(chest.stage("f").call().run_async(future::pending::<u64>()));
        assert!(block_on(poll_once(&mut never)).is_none());
        let mut waiting = pin!(chest.stage("f").call().run_async(async { 3u64 }));
        assert!(block_on(poll_once(&mut waiting)).is_none(), "it waits for the first");
    }
    assert_eq!(*block_on(chest.stage("f").call().run_async(async { 4u64 })).unwrap(), 4);
}

#[test]
fn a_task_that_needs_itself_is_an_error() {
    let chest = Chest::temporary().unwrap();
    let call = || chest.stage("f").call();
    let outer = call().try_run_async(async {
        future::yield_now().await;
        let inner = call().try_run_async(async { ok(1u64) }).await?;
        ok(*inner.value)
    });
    assert_eq!(block_on(outer).unwrap_err().kind(), ErrorKind::Busy);
}

#[test]
fn parallel_tasks_of_one_call_may_need_the_same_result() {
    let chest = Chest::temporary().unwrap();
    let inner = || {
        chest.stage("inner").call().run_async(async {
            future::yield_now().await;
            2u64
        })
    };
    let outer = chest.stage("outer").call().try_run_async(async {
        let (one, other) = zip(inner(), inner()).await;
        ok(*one? + *other?)
    });
    assert_eq!(*block_on(outer).unwrap().value, 4);
}

#[test]
fn a_task_waits_for_another_handle_without_keeping_its_thread() {
    let dir = dir();
    let (one, other) = (Chest::open(dir.path()).unwrap(), Chest::open(dir.path()).unwrap());
    let (begun, has_begun) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            one.stage("f").call().run(|| {
                begun.send(()).unwrap();
                thread::sleep(Duration::from_millis(60));
                1u64
            })
        });
        has_begun.recv().unwrap();
        let run = block_on(other.stage("f").call().try_run_async(async { ok(2u64) })).unwrap();
        assert_eq!((*run.value, run.status), (1, Status::Disk));
    });
    assert_eq!(std::fs::read_dir(dir.path().join("leases")).unwrap().count(), 0);
}

#[test]
fn who_joins_a_result_that_could_not_be_stored_is_told() {
    #[derive(serde::Serialize, serde::Deserialize, icechest::Plain, Debug)]
    struct Odd {
        #[serde(skip_serializing_if = "Option::is_none")]
        x: Option<u32>,
    }
    let chest = Chest::temporary().unwrap();
    let (begun, has_begun) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            chest.stage("f").call().run(|| {
                begun.send(()).unwrap();
                thread::sleep(Duration::from_millis(50));
                Odd { x: None }
            })
        });
        has_begun.recv().unwrap();
        let run = chest.stage("f").call().run_with_status(|| Odd { x: Some(1) }).unwrap();
        assert_eq!((run.value.x, run.status, run.key), (None, Status::Joined, None));
        assert_eq!(run.not_stored.unwrap().kind(), ErrorKind::Unsupported);
    });
}

#[test]
fn a_stage_in_a_closure_that_makes_a_value_waits_for_nobody() {
    let chest = Chest::temporary().unwrap();
    let (begun, has_begun) = mpsc::channel();
    let (go, goes) = mpsc::channel();
    thread::scope(|scope| {
        // Computes the call, and needs the key that the other thread makes.
        let (chest, begun) = (&chest, &begun);
        scope.spawn(move || {
            chest.stage("f").call().run(|| {
                begun.send(()).unwrap();
                goes.recv().unwrap();
                *chest.get_or_insert_with("k", || 5u64).unwrap()
            })
        });
        has_begun.recv().unwrap();
        let value = chest.get_or_insert_with("k", || {
            go.send(()).unwrap();
            *chest.stage("f").call().run(|| 3u64).unwrap()
        });
        assert_eq!(*value.unwrap(), 3);
    });
}

#[cfg(unix)]
#[test]
fn leases_follow_no_links() {
    let dir = dir();
    let (chest, outside) = (dir.path().join("chest"), dir.path().join("outside"));
    std::fs::create_dir(&outside).unwrap();
    let opened = Chest::open(&chest).unwrap();
    std::os::unix::fs::symlink(&outside, chest.join("leases")).unwrap();
    // It is computed all the same.
    assert_eq!(*opened.stage("f").call().run(|| 1u8).unwrap(), 1);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}
