//! Many threads, and closures that call back.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use icechest::{Chest, Decoder, Encoder, ErrorKind, Event, Format, Kind, Policy, Rank, Usage, Value};

use crate::helpers::dir;

const THREADS: usize = 8;

/// Runs a closure in many threads at once.
fn at_once<T: Send>(run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        let start = |id| {
            barrier.wait();
            run(id)
        };
        let handles: Vec<_> = (0..THREADS).map(|id| scope.spawn(move || start(id))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    })
}

#[test]
fn a_chest_is_send_and_sync_and_cheap_to_clone() {
    fn check<T: Send + Sync + Clone + 'static>() {}
    check::<Chest>();
    let chest = Chest::temporary().unwrap();
    let clone = chest.clone();
    chest.insert("k", 1).unwrap();
    drop(chest);
    assert_eq!(*clone.get::<i32>("k").unwrap(), 1);
}

#[test]
fn threads_on_keys_of_their_own_lose_nothing() {
    let dir = dir();
    for budget in [0, 10_000, 1 << 20] {
        let chest = Chest::builder().budget(budget).inline_limit(500).open(dir.path()).unwrap();
        at_once(|id| {
            for i in 0..100 {
                chest.insert((id, i), vec![i; i % 300]).unwrap();
                assert_eq!(*chest.get::<Vec<usize>>((id, i)).unwrap(), vec![i; i % 300]);
                if i % 3 == 0 {
                    assert!(chest.remove((id, i)).unwrap());
                }
            }
        });
        for (id, i) in (0..THREADS).flat_map(|id| (0..100).map(move |i| (id, i))) {
            let found = chest.find::<Vec<usize>>((id, i)).unwrap();
            assert_eq!(found.is_some(), i % 3 != 0);
        }
        chest.clear().unwrap();
    }
}

#[test]
fn updates_of_one_key_add_up() {
    let dir = dir();
    for budget in [0, 1 << 20] {
        let chest = Chest::builder().budget(budget).open(dir.path()).unwrap();
        chest.insert("sum", 0u64).unwrap();
        at_once(|_| (0..50).for_each(|_| chest.update("sum", |sum: &mut u64| *sum += 1).unwrap()));
        assert_eq!(*chest.get::<u64>("sum").unwrap(), 50 * THREADS as u64);
        drop(chest);
        let chest = Chest::open(dir.path()).unwrap();
        assert_eq!(*chest.get::<u64>("sum").unwrap(), 50 * THREADS as u64);
    }
}

#[test]
fn readers_see_whole_values_while_they_are_replaced() {
    let chest = Chest::builder().budget(20_000).temporary().unwrap();
    chest.insert("k", vec![0usize; 1000]).unwrap();
    at_once(|id| {
        for i in 0..50 {
            if id % 2 == 0 {
                chest.insert("k", vec![id * 1000 + i; 1000]).unwrap();
            } else {
                let value = chest.get::<Vec<usize>>("k").unwrap();
                assert!(value.len() == 1000 && value.iter().all(|n| *n == value[0]));
            }
        }
    });
}

#[test]
fn a_value_is_made_once_across_threads() {
    let dir = dir();
    for budget in [0, 1 << 20] {
        let chest = Chest::builder().budget(budget).open(dir.path()).unwrap();
        let made = AtomicUsize::new(0);
        for key in 0..20 {
            let values = at_once(|id| {
                let make = || {
                    made.fetch_add(1, Ordering::Relaxed);
                    thread::yield_now();
                    vec![id; 100]
                };
                chest.get_or_insert_with((budget, key), make).unwrap()
            });
            assert!(values.iter().all(|value| *value == values[0]));
        }
        assert_eq!(made.load(Ordering::Relaxed), 20);
    }
}

#[test]
fn a_value_is_loaded_once_across_threads() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    chest.insert("k", vec![7u8; 2 << 20]).unwrap();
    chest.flush().unwrap();
    drop(chest);
    let chest = Chest::open(dir.path()).unwrap();
    let values = at_once(|_| chest.get::<Vec<u8>>("k").unwrap());
    assert!(values.iter().all(|value| Arc::ptr_eq(value, &values[0])));
    assert_eq!(chest.stats().unwrap().loads, 1);
}

#[test]
fn flushes_and_budgets_from_all_sides_do_no_harm() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    at_once(|id| {
        for i in 0..40 {
            chest.insert((id, i), vec![i as u8; 2000]).unwrap();
            match id % 4 {
                0 => chest.flush().unwrap(),
                1 => chest.set_budget(i % 3 * 20_000).unwrap(),
                2 => drop(chest.stats().unwrap()),
                _ => drop(chest.keys().unwrap()),
            }
        }
    });
    chest.set_budget(0).unwrap();
    let stats = chest.stats().unwrap();
    assert_eq!((stats.values, stats.resident_bytes), (40 * THREADS as u64, 0));
}

#[test]
fn closures_may_use_the_chest() {
    let chest = Chest::builder().budget(1000).temporary().unwrap();
    chest.insert("a", 1).unwrap();
    let made = chest.get_or_insert_with("b", || *chest.get::<i32>("a").unwrap() + 1).unwrap();
    assert_eq!(*made, 2);
    let nested = chest.get_or_insert_with("c", || {
        chest.insert("filler", vec![0u8; 5000]).unwrap();
        chest.flush().unwrap();
        chest.set_budget(500).unwrap();
        chest
            .update("a", |a: &mut i32| {
                *a += *chest.get_or_insert_with("d", || 40).unwrap();
                chest.keys().unwrap();
                chest.stats().unwrap();
                *a
            })
            .unwrap()
    });
    assert_eq!(*nested.unwrap(), 41);
    assert_eq!(*chest.get::<i32>("a").unwrap(), 41);
}

#[test]
fn a_closure_that_uses_its_own_key_gets_busy() {
    for budget in [0, 1 << 20] {
        let chest = Chest::builder().budget(budget).temporary().unwrap();
        let busy =
            |error: icechest::Error| assert_eq!((error.kind(), error.key()), (ErrorKind::Busy, Some(&"k".into())));
        let make = || {
            busy(chest.get::<i32>("k").unwrap_err());
            busy(chest.find::<i32>("k").unwrap_err());
            busy(chest.take::<i32>("k").unwrap_err());
            busy(chest.remove("k").unwrap_err());
            busy(chest.update("k", |_: &mut i32| ()).unwrap_err());
            busy(chest.get_or_insert_with("k", || 1).unwrap_err());
            let error = chest.insert("k", 2).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy);
            assert_eq!(*error.into_value::<i32>().unwrap(), 2);
            assert!(!chest.contains_key("k").unwrap());
            3
        };
        assert_eq!(*chest.get_or_insert_with("k", make).unwrap(), 3);
        let change = |value: &mut i32| {
            busy(chest.remove("k").unwrap_err());
            busy(chest.update("k", |_: &mut i32| ()).unwrap_err());
            busy(chest.insert("k", 2).unwrap_err());
            *value += 1;
        };
        chest.update("k", change).unwrap();
        assert_eq!(*chest.get::<i32>("k").unwrap(), 4);
    }
}

#[test]
fn a_panic_in_a_closure_leaves_the_chest_usable_and_the_old_value() {
    let dir = dir();
    for budget in [0, 1 << 20] {
        for flushed in [false, true] {
            let chest = Chest::builder().budget(budget).open(dir.path()).unwrap();
            chest.insert("k", vec![1, 2]).unwrap();
            if flushed {
                chest.flush().unwrap();
            }
            let before = chest.stats().unwrap().resident_bytes;
            let update = catch_unwind(AssertUnwindSafe(|| {
                chest.update("k", |list: &mut Vec<i32>| {
                    list.clear();
                    panic!("half way");
                })
            }));
            assert!(update.is_err());
            assert!(chest.stats().unwrap().resident_bytes <= before, "what the panic left is given back");
            assert_eq!(*chest.get::<Vec<i32>>("k").unwrap(), [1, 2]);
            let make = catch_unwind(AssertUnwindSafe(|| chest.get_or_insert_with("n", || -> i32 { panic!("never") })));
            assert!(make.is_err());
            assert!(!chest.contains_key("n").unwrap());
            assert_eq!(*chest.get_or_insert_with("n", || 5).unwrap(), 5);
            chest.update("k", |list: &mut Vec<i32>| list.push(3)).unwrap();
            assert_eq!(*chest.get::<Vec<i32>>("k").unwrap(), [1, 2, 3]);
            chest.clear().unwrap();
        }
    }
}

#[test]
fn an_entry_is_changed_filled_or_fails() {
    let chest = Chest::temporary().unwrap();
    assert_eq!(*chest.entry("n").or_insert(1).unwrap(), 1);
    assert_eq!(*chest.entry("n").and_modify(|n: &mut i32| *n += 1).unwrap().or_insert(9).unwrap(), 2);
    let failed: Result<_, icechest::Error> =
        chest.entry("m").or_try_insert_with(|| Err::<i32, _>(icechest::Error::new(ErrorKind::Io, "no luck")));
    assert_eq!(failed.unwrap_err().to_string(), "no luck");
    assert!(!chest.contains_key("m").unwrap());
    assert_eq!(chest.entry("n").or_insert("text").unwrap_err().kind(), ErrorKind::WrongType);
    assert_eq!(chest.entry("n").key(), &"n".into());
}

/// A policy is asked with the chest locked: it can neither use a chest nor harm one.
#[test]
fn a_policy_that_uses_a_chest_or_panics_does_no_harm() {
    #[derive(Clone, Debug, Default)]
    struct Curious(Arc<Mutex<Option<Chest>>>);
    impl Policy for Curious {
        fn rank(&self, usage: &Usage) -> Rank {
            let chest = self.0.lock().unwrap().clone().unwrap();
            assert_eq!(chest.get::<u64>(0).unwrap_err().kind(), ErrorKind::Busy);
            assert!(format!("{chest:?}").starts_with("Chest("));
            if usage.uses > 1 {
                resume_unwind(Box::new("no rank for the second use"));
            }
            Rank(usage.last_use as f64, 0.0)
        }
        fn observe(&self, _event: Event, _usage: &Usage) -> bool {
            if let Some(chest) = &*self.0.lock().unwrap() {
                assert_eq!(chest.insert(0, 0_u64).unwrap_err().kind(), ErrorKind::Busy);
            }
            resume_unwind(Box::new("nothing to say"));
        }
        fn set_budget(&self, _bytes: u64) {
            resume_unwind(Box::new("no budget is enough"));
        }
    }

    let policy = Curious::default();
    let chest = Chest::builder().budget(1 << 10).policy(policy.clone()).temporary().unwrap();
    *policy.0.lock().unwrap() = Some(chest.clone());
    for number in 0..100_u64 {
        chest.insert(number, number).unwrap();
        assert_eq!(*chest.get::<u64>(number).unwrap(), number);
        chest.insert(number, number + 1).unwrap();
    }
    assert!((0..100).all(|number| *chest.get::<u64>(number).unwrap() == number + 1));
    let stats = chest.stats().unwrap();
    assert!(stats.values == 100 && stats.resident_bytes <= stats.budget, "{stats}");
    // The last handles are not those in the policy.
    *policy.0.lock().unwrap() = None;
}

/// A value is dropped when the chest is not locked, so what it does then may use the chest.
#[test]
fn a_value_that_uses_the_chest_as_it_is_dropped_does_no_harm() {
    struct Last(Chest, u8);
    impl Drop for Last {
        fn drop(&mut self) {
            assert!(self.0.contains_key("other").unwrap());
            self.0.insert("dropped", u64::from(self.1)).unwrap();
        }
    }
    impl Value for Last {
        const KIND: Kind = Kind::Plain;
        fn type_name() -> String {
            "Last".to_owned()
        }
        fn size(&self) -> usize {
            600
        }
        fn encode(&self, out: &mut Encoder) -> icechest::Result<Format> {
            out.write_all(&[self.1]).unwrap();
            Ok(Format::new("last", "last"))
        }
        fn decode(_: &mut Decoder) -> icechest::Result<Self> {
            unreachable!("it is not read")
        }
    }

    let chest = Chest::builder().budget(1 << 10).temporary().unwrap();
    chest.insert("other", 1_u64).unwrap();
    let dropped = || *chest.get::<u64>("dropped").unwrap();
    chest.insert("replaced", Last(chest.clone(), 1)).unwrap();
    chest.insert("replaced", 0_u64).unwrap();
    assert_eq!(dropped(), 1);
    chest.insert("removed", Last(chest.clone(), 2)).unwrap();
    chest.remove("removed").unwrap();
    assert_eq!(dropped(), 2);
    chest.insert("spilled", Last(chest.clone(), 3)).unwrap();
    chest.insert("large", vec![0_u8; 900]).unwrap();
    assert_eq!(dropped(), 3);
}

/// Two closures that each need the key that the other one makes: one of them is told.
#[test]
fn closures_that_wait_for_each_other_are_told() {
    let chest = Chest::temporary().unwrap();
    let both = Barrier::new(2);
    let make = |mine: &str, theirs: &str| {
        let first = AtomicUsize::new(0);
        let made = chest.entry(mine).or_try_insert_with(|| {
            if first.fetch_add(1, Ordering::SeqCst) == 0 {
                both.wait();
            }
            chest.get_or_insert_with(theirs, || 1_u64).map(|value| *value + 1)
        });
        made.map(|value| *value)
    };
    let made: Vec<_> = thread::scope(|scope| {
        let threads = [("a", "b"), ("b", "a")].map(|(mine, theirs)| scope.spawn(move || make(mine, theirs)));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let told = made.iter().filter_map(|made| made.as_ref().err()).map(|error| error.kind()).collect::<Vec<_>>();
    assert_eq!(told, [ErrorKind::Busy], "{made:?}");
    assert!(made.iter().any(Result::is_ok));
}

/// Two changes that each publish everything, the other one's value included, which is not to be had.
#[test]
fn flushes_in_closures_that_wait_for_each_other_are_told() {
    let chest = Chest::temporary().unwrap();
    for key in ["a", "b"] {
        chest.insert(key, 0_u64).unwrap();
    }
    let both = Barrier::new(2);
    let flushed: Vec<_> = at_once_two(|id| {
        chest.update(["a", "b"][id], |value: &mut u64| {
            both.wait();
            *value += 1;
            chest.flush().map_err(|error| error.kind())
        })
    });
    let told = flushed.into_iter().map(Result::unwrap).filter_map(Result::err).collect::<Vec<_>>();
    assert!((1..=2).contains(&told.len()) && told.iter().all(|kind| *kind == ErrorKind::Busy), "{told:?}");
    assert!(["a", "b"].iter().all(|key| *chest.get::<u64>(*key).unwrap() == 1));
}

fn at_once_two<T: Send>(run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let run = &run;
        let threads = [0, 1].map(|id| scope.spawn(move || run(id)));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
