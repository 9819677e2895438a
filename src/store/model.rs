//! What threads do at the same time, in hundreds of orders: a scheduler decides who runs, the directories are real.
//!
//! A failure prints its schedule, which `shuttle::replay` runs again. `ICECHEST_SCHEDULES` says how many are tried.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::cell::RefCell;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::mpsc;
use shuttle::thread::{self, JoinHandle};

use crate::{Builder, Chest, Decoder, Durability, Encoder, ErrorKind, Format, Kind, Result, Value};

/// So many orders are tried of each scenario. Each takes 1 to 2 ms, most of them for making a chest.
const SCHEDULES: usize = 300;

/// What a `Note` takes in memory.
const SIZE: u64 = 100;

/// A budget for so many notes, and for what decoding takes besides.
const fn room_for(notes: u64) -> u64 {
    notes * SIZE + SIZE / 5
}

/// What is done by an encoder or a decoder.
type Hook = Arc<dyn Fn(Codec)>;

// One thread of the system runs all threads of a model.
std::thread_local! {
    static DURING_CODEC: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

#[derive(Clone, Copy, PartialEq)]
enum Codec {
    Encode(u64),
    Decode,
}

/// Lets the other threads run, or does what the scenario wants to be done by an encoder or a decoder.
fn during(codec: Codec) {
    match DURING_CODEC.with_borrow(Clone::clone) {
        Some(work) => work(codec),
        None => thread::yield_now(),
    }
}

fn set_codec(work: Option<Hook>) {
    drop(DURING_CODEC.replace(work));
}

#[derive(Clone, Debug)]
struct Note(u64);

impl Value for Note {
    const KIND: Kind = Kind::Plain;

    fn type_name() -> String {
        "Note".to_owned()
    }

    fn size(&self) -> usize {
        SIZE as usize
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        during(Codec::Encode(self.0));
        out.write_all(&self.0.to_le_bytes())?;
        Ok(Format::new("note", "note"))
    }

    fn decode(input: &mut Decoder) -> Result<Self> {
        let mut bytes = [0; 8];
        input.read_exact(&mut bytes)?;
        during(Codec::Decode);
        Ok(Self(u64::from_le_bytes(bytes)))
    }
}

/// Runs a scenario in many orders, each with a directory of its own.
fn explore(scenario: impl Fn(&Path) + Send + Sync + 'static) {
    let schedules = std::env::var("ICECHEST_SCHEDULES").map_or(SCHEDULES, |number| number.parse().unwrap());
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let parent = tempfile::tempdir_in(parent).unwrap();
    let scenario = Arc::new(scenario);
    // Few preemptions at the worst moments find what rarely happens at random, and the other way round.
    run(RandomScheduler::new_from_seed(1, schedules / 2), parent.path().to_owned(), scenario.clone());
    run(PctScheduler::new_from_seed(1, 3, schedules / 2), parent.path().to_owned(), scenario);
}

fn run(scheduler: impl Scheduler + 'static, parent: PathBuf, scenario: Arc<impl Fn(&Path) + Send + Sync + 'static>) {
    let mut config = shuttle::Config::new();
    // SQLite needs some.
    config.stack_size = 512 << 10;
    config.max_steps = shuttle::MaxSteps::FailAfter(20_000);
    config.silence_warnings = true;
    let next = AtomicU64::new(0);
    shuttle::Runner::new(scheduler, config).run(move || {
        set_codec(None);
        let dir = parent.join(next.fetch_add(1, SeqCst).to_string());
        scenario(&dir);
        set_codec(None);
        // Its values are checked by now; the memory that they take is not needed any more.
        let _ = std::fs::remove_dir_all(dir);
    });
}

fn settings(notes: u64) -> Builder {
    Chest::builder().budget(room_for(notes)).durability(Durability::None)
}

/// A chest that writes when room is needed.
fn temporary(dir: &Path, notes: u64) -> Chest {
    settings(notes).temporary_in(dir).temporary().unwrap()
}

/// A chest with a background writer.
fn named(dir: &Path, notes: u64) -> Chest {
    settings(notes).open(dir).unwrap()
}

fn spawn<T: Send + 'static>(chest: &Chest, work: impl FnOnce(&Chest) -> T + Send + 'static) -> JoinHandle<T> {
    let chest = chest.clone();
    thread::spawn(move || work(&chest))
}

fn join<T>(threads: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    // All of them run before the first is waited for.
    let threads: Vec<_> = threads.into_iter().collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn get(chest: &Chest, key: &str) -> Arc<Note> {
    chest.get(key).unwrap()
}

/// A chest where nobody holds anything is within its budget.
fn assert_in_budget(chest: &Chest) {
    // The writer holds what it publishes.
    chest.flush().unwrap();
    let stats = chest.stats().unwrap();
    assert_eq!(stats.pinned, 0);
    assert!(stats.resident_bytes <= stats.budget, "{stats}");
}

/// Puts the value of a key on disk alone, in a chest with room for one.
fn make_cold(chest: &Chest, key: &str) {
    chest.insert("another", Note(1000)).unwrap();
    assert!(!chest.info(key).unwrap().is_resident);
}

mod values {
    use super::*;

    /// Which values of one key were given, and seen.
    #[derive(Default)]
    struct History {
        begun: AtomicU64,
        done: AtomicU64,
        seen: AtomicU64,
    }

    impl History {
        fn insert(&self, chest: &Chest, number: u64) {
            self.begun.store(number, SeqCst);
            chest.insert("key", Note(number)).unwrap();
            self.done.store(number, SeqCst);
        }

        fn get(&self, chest: &Chest) {
            let least = self.done.load(SeqCst).max(self.seen.load(SeqCst));
            let number = get(chest, "key").0;
            assert!((least..=self.begun.load(SeqCst)).contains(&number), "{number} after {least}");
            self.seen.fetch_max(number, SeqCst);
        }
    }

    fn a_read_sees_the_last_insert(chest: &Chest) {
        chest.insert("key", Note(0)).unwrap();
        let history = Arc::new(History::default());
        let mut threads: Vec<_> = (0..2)
            .map(|_| {
                let history = history.clone();
                spawn(chest, move |chest| (0..3).for_each(|_| history.get(chest)))
            })
            .collect();
        let last = history.clone();
        threads.push(spawn(chest, move |chest| (1..=3).for_each(|number| history.insert(chest, number))));
        threads.push(spawn(chest, |chest| {
            chest.insert("another", Note(1000)).unwrap();
            assert_eq!(get(chest, "another").0, 1000);
        }));
        join(threads);
        last.get(chest);
    }

    #[test]
    fn a_read_sees_the_last_insert_in_memory_or_in_files() {
        explore(|dir| {
            a_read_sees_the_last_insert(&settings(1).inline_limit(0).temporary_in(dir).temporary().unwrap());
        });
    }

    #[test]
    fn a_read_sees_the_last_insert_while_the_writer_publishes() {
        explore(|dir| a_read_sees_the_last_insert(&named(dir, 1)));
    }

    #[test]
    fn a_read_sees_the_last_insert_of_a_value_larger_than_the_budget() {
        explore(|dir| a_read_sees_the_last_insert(&named(dir, 0)));
    }
}

mod pins {
    use super::*;

    fn loaded_once_by_three(chest: &Chest, rivals: impl IntoIterator<Item = JoinHandle<()>>) {
        let readers = [(); 3].map(|()| spawn(chest, |chest| get(chest, "key")));
        join(rivals);
        let handles = join(readers);
        assert!(handles.iter().all(|handle| handle.0 == 1 && Arc::ptr_eq(handle, &handles[0])));
        let stats = chest.stats().unwrap();
        assert_eq!((stats.loads, stats.pinned, stats.pinned_bytes), (1, 1, SIZE));
        assert!(stats.resident_bytes >= SIZE);
    }

    #[test]
    fn a_cold_value_is_loaded_once() {
        explore(|dir| {
            let chest = temporary(dir, 1);
            chest.insert("key", Note(1)).unwrap();
            make_cold(&chest, "key");
            let rival = spawn(&chest, |chest| chest.insert("third", Note(3)).unwrap());
            loaded_once_by_three(&chest, [rival]);
        });
    }

    #[test]
    fn a_value_larger_than_the_budget_is_loaded_once() {
        explore(|dir| {
            let chest = temporary(dir, 0);
            chest.insert("key", Note(1)).unwrap();
            loaded_once_by_three(&chest, []);
        });
    }

    /// Reads what somebody holds already, while others need room and, in a named chest, the writer is at work.
    fn held_values_are_not_loaded(chest: &Chest) {
        let inserter = spawn(chest, |chest| {
            let value = Arc::new(Note(1));
            chest.insert("key", value.clone()).unwrap();
            value
        });
        let rival = spawn(chest, |chest| {
            chest.insert("another", Note(2)).unwrap();
            chest.find::<Note>("key").unwrap()
        });
        let reader = spawn(chest, |chest| chest.find::<Note>("key").unwrap());
        let (value, found) = (inserter.join().unwrap(), join([rival, reader]));
        assert!(found.iter().flatten().all(|found| Arc::ptr_eq(found, &value)), "a second copy was loaded");
        assert!(Arc::ptr_eq(&get(chest, "key"), &value), "a second copy was loaded later");
        let stats = chest.stats().unwrap();
        assert_eq!((stats.loads, stats.pinned, stats.pinned_bytes), (0, 1, SIZE));
        assert!(stats.resident_bytes >= SIZE);
    }

    #[test]
    fn a_held_value_is_not_loaded() {
        explore(|dir| held_values_are_not_loaded(&temporary(dir, 1)));
    }

    #[test]
    fn a_held_value_is_not_loaded_while_the_writer_publishes() {
        explore(|dir| held_values_are_not_loaded(&named(dir, 1)));
    }

    #[test]
    fn a_held_value_larger_than_the_budget_is_not_loaded() {
        explore(|dir| {
            let chest = named(dir, 0);
            held_values_are_not_loaded(&chest);
        });
    }

    /// The newer value replaces one that is resident, or held, while that is read.
    fn the_newer_value_is_held(chest: &Chest, old: u64) {
        chest.insert("key", Note(old)).unwrap();
        let held = get(chest, "key");
        let inserter = spawn(chest, |chest| {
            let value = Arc::new(Note(2));
            chest.insert("key", value.clone()).unwrap();
            value
        });
        let readers = [(); 2].map(|()| spawn(chest, |chest| drop(get(chest, "key"))));
        let value = inserter.join().unwrap();
        join(readers);
        assert!(Arc::ptr_eq(&get(chest, "key"), &value), "a second copy was loaded");
        drop(held);
        let stats = chest.stats().unwrap();
        assert_eq!((stats.pinned, stats.pinned_bytes), (1, SIZE));
    }

    #[test]
    fn the_newer_of_two_held_values_stays_held() {
        explore(|dir| the_newer_value_is_held(&named(dir, 0), 1));
    }

    #[test]
    fn a_value_that_goes_through_replaces_a_resident_one() {
        explore(|dir| {
            let chest = named(dir, 1);
            chest.insert("key", Note(0)).unwrap();
            chest.flush().unwrap();
            let lower = spawn(&chest, |chest| chest.set_budget(0).unwrap());
            the_newer_value_is_held(&chest, 1);
            join([lower]);
        });
    }
}

mod closures {
    use super::*;

    #[test]
    fn one_of_three_makes_a_value() {
        explore(|dir| {
            let chest = temporary(dir, 1);
            let made = Arc::new(AtomicU64::new(0));
            let makers = (0..3).map(|number| {
                let made = made.clone();
                spawn(&chest, move |chest| {
                    let make = || {
                        made.fetch_add(1, SeqCst);
                        chest.insert("another", Note(number)).unwrap();
                        assert_eq!(chest.get::<Note>("key").unwrap_err().kind(), ErrorKind::Busy);
                        Note(number)
                    };
                    chest.get_or_insert_with("key", make).unwrap()
                })
            });
            let handles = join(makers);
            assert_eq!(made.load(SeqCst), 1);
            assert!(handles.iter().all(|handle| Arc::ptr_eq(handle, &handles[0])));
        });
    }

    #[test]
    fn after_a_panic_in_a_closure_another_makes_the_value() {
        explore(|dir| {
            let chest = temporary(dir, 1);
            let panics = spawn(&chest, |chest| {
                // Without the hook, which would take it for the model's failure.
                let make = || -> Note { resume_unwind(Box::new("no value")) };
                catch_unwind(AssertUnwindSafe(|| chest.get_or_insert_with("key", make).map(|note| note.0)))
            });
            let makes = spawn(&chest, |chest| chest.get_or_insert_with("key", || Note(7)).unwrap().0);
            let reads = spawn(&chest, |chest| chest.find::<Note>("key").unwrap().is_none_or(|note| note.0 == 7));
            let panicked = panics.join().unwrap();
            assert!(panicked.is_err() || panicked.is_ok_and(|found| found.unwrap() == 7));
            assert!(makes.join().unwrap() == 7 && reads.join().unwrap());
            assert_eq!(get(&chest, "key").0, 7);
            assert_in_budget(&chest);
        });
    }

    /// Codecs that use the chest while they work, for other keys and for the very one.
    #[test]
    fn codecs_may_use_the_chest() {
        explore(|dir| {
            let chest = named(dir, 1);
            let inner = chest.clone();
            set_codec(Some(Arc::new(move |codec| {
                if codec == Codec::Encode(1000) {
                    return;
                }
                // The last is one that its encoder does not call back for.
                inner.insert("third", Note(1000)).unwrap();
                assert!(inner.stats().unwrap().values >= 1);
                let own = match codec {
                    Codec::Encode(1) => "first",
                    Codec::Encode(_) => "second",
                    Codec::Decode => return,
                };
                assert_eq!(inner.remove(own).unwrap_err().kind(), ErrorKind::Busy);
            })));
            let threads = [("first", 1), ("second", 2)]
                .map(|(key, number)| spawn(&chest, move |chest| chest.insert(key, Note(number)).unwrap()));
            join(threads);
            chest.flush().unwrap();
            set_codec(None);
            assert_eq!(get(&chest, "second").0, 2);
            assert_in_budget(&chest);
        });
    }
}

mod encoders {
    use super::*;

    /// An encoder reads a value that another thread is loading, which waits for room, which the encoder's thread makes.
    #[test]
    fn an_encoder_may_read_what_another_thread_loads() {
        explore(|dir| {
            let chest = temporary(dir, 2);
            chest.insert("cold", Note(7)).unwrap();
            chest.insert("more", Note(8)).unwrap();
            chest.insert("evenmore", Note(9)).unwrap();
            chest.flush().unwrap();
            let inner = chest.clone();
            set_codec(Some(Arc::new(move |codec| {
                if codec == Codec::Encode(1) {
                    assert_eq!(inner.get::<Note>("cold").unwrap().0, 7);
                } else {
                    thread::yield_now();
                }
            })));
            let writer = spawn(&chest, |chest| {
                chest.insert("first", Note(1)).unwrap();
                chest.insert("second", Note(2)).unwrap();
                chest.insert("third", Note(3)).unwrap();
            });
            let readers = [(); 2].map(|()| spawn(&chest, |chest| assert_eq!(get(chest, "cold").0, 7)));
            join([writer]);
            join(readers);
            set_codec(None);
            assert_in_budget(&chest);
        });
    }
}

mod changes {
    use super::*;

    fn add(chest: &Chest, number: u64) {
        if let Err(error) = chest.update("key", |note: &mut Note| note.0 += number) {
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
    }

    /// What two changes leave, and something else at the same time, of a value of 1 that is published or not.
    fn left_by(dir: &Path, is_published: bool, rival: impl FnOnce(&Chest) + Send + 'static) -> Option<u64> {
        let chest = temporary(dir, 1);
        chest.insert("key", Note(1)).unwrap();
        if is_published {
            chest.flush().unwrap();
        }
        let mut threads = vec![spawn(&chest, rival)];
        threads.extend([10, 100].map(|number| spawn(&chest, move |chest| add(chest, number))));
        join(threads);
        let left = chest.find::<Note>("key").unwrap().map(|note| note.0);
        chest.flush().unwrap();
        chest.insert("another", Note(1000)).unwrap();
        assert!(chest.info("key").is_ok_and(|info| !info.is_resident) || left.is_none());
        assert_eq!(chest.find::<Note>("key").unwrap().map(|note| note.0), left, "memory and disk differ");
        assert_in_budget(&chest);
        left
    }

    fn check(rival: fn(&Chest), may_be_left: fn(Option<u64>) -> bool) {
        for is_published in [false, true] {
            explore(move |dir| {
                let left = left_by(dir, is_published, rival);
                assert!(may_be_left(left), "{left:?}");
            });
        }
    }

    #[test]
    fn changes_and_an_insert() {
        check(
            |chest| chest.insert("key", Note(5)).unwrap(),
            |left| left.is_some_and(|left| [5, 15, 105, 115].contains(&left)),
        );
    }

    #[test]
    fn changes_and_a_flush() {
        check(|chest| chest.flush().unwrap(), |left| left == Some(111));
    }

    #[test]
    fn changes_and_a_removal() {
        check(|chest| assert!(chest.remove("key").unwrap()), |left| left.is_none());
    }

    #[test]
    fn changes_and_a_taking() {
        let taken = |chest: &Chest| assert!([1, 11, 101, 111].contains(&chest.take::<Note>("key").unwrap().0));
        check(taken, |left| left.is_none());
    }

    #[test]
    fn changes_and_a_removal_and_an_insert() {
        check(
            |chest| {
                chest.remove("key").unwrap();
                chest.insert("key", Note(5)).unwrap();
            },
            |left| left.is_some_and(|left| [5, 15, 105, 115].contains(&left)),
        );
    }

    /// A removal that found nothing has removed nothing.
    #[test]
    fn a_removal_and_the_first_insert() {
        explore(|dir| {
            let chest = temporary(dir, 1);
            let removal = spawn(&chest, |chest| chest.remove("key").unwrap());
            let insert = spawn(&chest, |chest| chest.insert("key", Note(5)).unwrap());
            join([insert]);
            let was_removed = removal.join().unwrap();
            assert_eq!(chest.find::<Note>("key").unwrap().is_none(), was_removed);
        });
    }

    #[test]
    fn a_panic_in_a_change_leaves_the_value() {
        let panics = |chest: &Chest| {
            let change = |note: &mut Note| {
                note.0 = 0;
                resume_unwind(Box::new("half changed"))
            };
            let update = AssertUnwindSafe(|| chest.update::<Note, ()>("key", change));
            assert!(catch_unwind(update).is_err());
        };
        check(panics, |left| left == Some(111));
    }
}

mod room {
    use super::*;

    fn two_need_room(chest: &Chest) {
        let threads = ["a", "b"].map(|name| {
            spawn(chest, move |chest| {
                for number in 0..3 {
                    chest.insert((name, number), Note(number)).unwrap();
                }
                assert_eq!(chest.get::<Note>((name, 0)).unwrap().0, 0);
            })
        });
        join(threads);
        chest.insert("last", Note(0)).unwrap();
        assert_in_budget(chest);
        assert_eq!(chest.len().unwrap(), 7);
    }

    #[test]
    fn two_need_room_while_the_writer_publishes() {
        explore(|dir| two_need_room(&named(dir, 2)));
    }

    #[test]
    fn two_need_room_and_nobody_else_writes() {
        explore(|dir| two_need_room(&temporary(dir, 2)));
    }

    #[test]
    fn inserts_at_the_same_time_keep_the_budget() {
        explore(|dir| {
            let chest = temporary(dir, 1);
            join((0..3).map(|number| spawn(&chest, move |chest| chest.insert(number, Note(number)).unwrap())));
            assert_in_budget(&chest);
        });
    }

    /// What the writer publishes can be spilled in a moment, so the second value waits for that.
    #[test]
    fn a_value_waits_for_the_room_that_the_writer_makes() {
        explore(|dir| {
            let chest = named(dir, 1);
            chest.insert("first", Note(1)).unwrap();
            chest.insert("second", Note(2)).unwrap();
            assert!(chest.stats().unwrap().peak_bytes <= room_for(1));
        });
    }

    /// An encoder or a decoder waits until another thread has used the chest, for what needs no room: that would wait for
    /// the encoder in turn.
    fn others_work_during(dir: &Path, moment: Codec) {
        let chest = temporary(dir, 2);
        chest.insert("key", Note(1)).unwrap();
        chest.insert("hot", Note(1000)).unwrap();
        let hot = get(&chest, "hot");
        if moment == Codec::Decode {
            chest.insert("another", Note(1000)).unwrap();
        }
        let (ask, asked) = mpsc::channel();
        let (answer, answered) = mpsc::channel();
        let channels = std::sync::Mutex::new(Some((ask, answered)));
        set_codec(Some(Arc::new(move |codec| {
            let taken = if codec == moment { channels.lock().unwrap().take() } else { None };
            if let Some((ask, answered)) = taken {
                ask.send(()).unwrap();
                answered.recv().unwrap();
            }
        })));
        let other = spawn(&chest, move |chest| {
            asked.recv().unwrap();
            assert_eq!(get(chest, "hot").0, 1000);
            assert!(chest.find::<Note>("nobody").unwrap().is_none());
            assert!(chest.stats().unwrap().values > 1 && chest.contains_key("key").unwrap());
            assert!(chest.remove("hot").unwrap());
            answer.send(()).unwrap();
        });
        match moment {
            Codec::Encode(_) => chest.insert("another", Note(1000)).unwrap(),
            Codec::Decode => assert_eq!(get(&chest, "key").0, 1),
        }
        join([other]);
        drop(hot);
    }

    #[test]
    fn others_work_while_an_encoder_does() {
        explore(|dir| others_work_during(dir, Codec::Encode(1)));
    }

    #[test]
    fn others_work_while_a_decoder_does() {
        explore(|dir| others_work_during(dir, Codec::Decode));
    }
}

mod ahead {
    use super::*;

    /// A chest with room for so many of the four values that it has on disk.
    fn cold(dir: &Path, notes: u64) -> Chest {
        let chest = temporary(dir, 4);
        chest.extend((0..4).map(|number| (number, Note(number)))).unwrap();
        chest.set_budget(0).unwrap();
        chest.set_budget(room_for(notes)).unwrap();
        chest
    }

    #[test]
    fn a_prefetch_spills_nothing_and_loads_each_value_once() {
        explore(|dir| {
            let chest = cold(dir, 3);
            let spills = chest.stats().unwrap().spills;
            let prefetches = [0, 1].map(|_| chest.prefetch::<Note, _>(0..4).unwrap());
            let reader = spawn(&chest, |chest| assert_eq!(chest.get::<Note>(0).unwrap().0, 0));
            let resident = prefetches.map(|prefetch| prefetch.wait().unwrap());
            join([reader]);
            let stats = chest.stats().unwrap();
            assert!(resident.iter().all(|&resident| resident <= 3), "{resident:?}");
            // The reader may spill, for a moment when all room is promised.
            assert!((2..=3).contains(&stats.resident) && stats.spills <= spills + 1, "{stats}");
            assert!(stats.loads <= 4 && stats.peak_bytes <= room_for(4), "{stats}");
            assert_in_budget(&chest);
        });
    }

    #[test]
    fn a_prefetch_of_what_changes() {
        explore(|dir| {
            let chest = cold(dir, 2);
            let prefetch = chest.prefetch::<Note, _>(0..4).unwrap();
            let insert = spawn(&chest, |chest| chest.insert(1, Note(10)).unwrap());
            let change = spawn(&chest, |chest| chest.update(2, |note: &mut Note| note.0 = 20).unwrap());
            let removal = spawn(&chest, |chest| assert!(chest.remove(3).unwrap()));
            match prefetch.wait() {
                Ok(resident) => assert!(resident <= 4),
                Err(error) => assert_eq!((error.kind(), error.key()), (ErrorKind::NotFound, Some(&3.into()))),
            }
            join([insert, change, removal]);
            let found = [0, 1, 2, 3].map(|key| chest.find::<Note>(key).unwrap().map(|note| note.0));
            assert_eq!(found, [Some(0), Some(10), Some(20), None]);
            assert_in_budget(&chest);
        });
    }

    /// The closure's key keeps the loader waiting, and the closure does not wait for the loader.
    #[test]
    fn a_prefetch_in_a_closure_goes_on_after_it() {
        explore(|dir| {
            let chest = cold(dir, 2);
            let prefetch = std::sync::Mutex::new(None);
            chest
                .update(0, |note: &mut Note| {
                    let began = chest.prefetch::<Note, _>(0..2).unwrap();
                    assert_eq!(chest.prefetch::<Note, _>(0..2).unwrap().wait().unwrap_err().kind(), ErrorKind::Busy);
                    *prefetch.lock().unwrap() = Some(began);
                    note.0 = 7;
                })
                .unwrap();
            let prefetch = prefetch.lock().unwrap().take().unwrap();
            assert!((1..=2).contains(&prefetch.wait().unwrap()));
            assert_eq!(chest.get::<Note>(0).unwrap().0, 7);
        });
    }

    fn numbers(chest: &Chest) -> Vec<u64> {
        chest.iter::<Note>().unwrap().map(|entry| entry.unwrap().1.0).collect()
    }

    #[test]
    fn two_iterate_while_room_is_needed() {
        explore(|dir| {
            // A quarter of the budget is enough for one value.
            let chest = cold(dir, 5);
            chest.extend((4..8).map(|number| (number, Note(number)))).unwrap();
            let readers = [(); 2].map(|()| spawn(&chest, numbers));
            for found in join(readers) {
                assert_eq!(found.into_iter().collect::<std::collections::BTreeSet<_>>(), (0..8).collect());
            }
            assert_in_budget(&chest);
        });
    }

    #[test]
    fn an_iterator_sees_changes_and_leaves_nothing_behind() {
        explore(|dir| {
            let chest = cold(dir, 5);
            let insert = spawn(&chest, |chest| chest.insert(2, Note(20)).unwrap());
            let removal = spawn(&chest, |chest| assert!(chest.remove(3).unwrap()));
            let first = spawn(&chest, |chest| chest.iter::<Note>().unwrap().take(2).count());
            let found = numbers(&chest);
            assert!(found.starts_with(&[0, 1]) && [2, 20].contains(&found[2]), "{found:?}");
            join([insert, removal]);
            assert_eq!((first.join().unwrap(), numbers(&chest)[..].len()), (2, 3));
            assert_eq!(chest.get::<Note>(2).unwrap().0, 20);
            // One that is being loaded ahead is let go of when it is loaded.
            while chest.stats().unwrap().pinned > 0 {
                thread::yield_now();
            }
            assert_in_budget(&chest);
        });
    }

    #[test]
    fn an_iterator_in_a_closure_and_one_outside() {
        explore(|dir| {
            let chest = cold(dir, 5);
            let outside = spawn(&chest, numbers);
            let busy = chest.update(1, |_: &mut Note| {
                let entries = chest.iter::<Note>().unwrap();
                entries.filter(|entry| entry.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy)).count()
            });
            // None, if the other iterator holds the value: then this one finds it as it was.
            assert!(busy.unwrap() <= 1);
            assert_eq!(outside.join().unwrap().len(), 4);
        });
    }

    #[test]
    fn the_last_handle_goes_while_values_are_loaded() {
        explore(|dir| {
            let chest = cold(dir, 2);
            let prefetch = chest.prefetch::<Note, _>(0..4).unwrap();
            let waits = thread::spawn(move || prefetch.wait().unwrap());
            let mut values = chest.iter::<Note>().unwrap();
            drop(chest);
            assert_eq!(values.next().unwrap().unwrap().1.0, 0);
            drop(values);
            assert!(waits.join().unwrap() <= 4);
        });
    }
}

mod hints {
    use super::*;

    #[test]
    fn a_pin_and_those_who_need_room() {
        explore(|dir| {
            let chest = temporary(dir, 2);
            chest.pin("key").unwrap();
            chest.insert("key", Note(1)).unwrap();
            let rivals = [2, 3].map(|number| {
                spawn(&chest, move |chest| {
                    chest.insert(number, Note(number)).unwrap();
                    assert_eq!(get(chest, "key").0, 1);
                })
            });
            let hints = spawn(&chest, |chest| {
                chest.clear_hint("key").unwrap();
                chest.pin("key").unwrap();
            });
            join(rivals);
            join([hints]);
            get(&chest, "key");
            chest.insert("another", Note(4)).unwrap();
            assert!(chest.info("key").unwrap().is_resident);
            let stats = chest.stats().unwrap();
            assert!(stats.resident_bytes <= stats.budget && stats.pinned == 1, "{stats}");
        });
    }

    #[test]
    fn a_key_that_prefers_the_disk_and_those_who_use_it() {
        for is_named in [false, true] {
            explore(move |dir| {
                let chest = if is_named { named(dir, 2) } else { temporary(dir, 2) };
                chest.insert("key", Note(1)).unwrap();
                let hint = spawn(&chest, |chest| chest.prefer_disk("key").unwrap());
                let insert = spawn(&chest, |chest| chest.insert("key", Note(2)).unwrap());
                let reader = spawn(&chest, |chest| assert!([1, 2].contains(&get(chest, "key").0)));
                join([hint, insert, reader]);
                assert_eq!(get(&chest, "key").0, 2);
                chest.insert("key", Note(3)).unwrap();
                assert!(!chest.info("key").unwrap().is_dirty && !chest.info("key").unwrap().is_resident);
                assert_eq!(get(&chest, "key").0, 3);
                assert_in_budget(&chest);
            });
        }
    }
}

mod closing {
    use super::*;

    #[test]
    fn the_last_handle_goes_while_others_publish() {
        explore(|dir| {
            let chest = named(dir, 2);
            let threads = ["a", "b"].map(|name| {
                let chest = chest.clone();
                thread::spawn(move || {
                    chest.insert((name, 1), Note(1)).unwrap();
                    chest.insert((name, 2), Note(2)).unwrap();
                })
            });
            drop(chest);
            join(threads);
            let later = named(dir, 2);
            assert_eq!(later.len().unwrap(), 4);
            assert!(["a", "b"].iter().all(|name| later.get::<Note>((*name, 2)).unwrap().0 == 2));
        });
    }

    #[test]
    fn a_temporary_chest_goes_with_its_last_handle() {
        explore(|dir| {
            let chest = temporary(dir, 1);
            let path = chest.path().to_owned();
            let threads = [1, 2].map(|number| {
                let chest = chest.clone();
                thread::spawn(move || chest.insert(number, Note(number)).unwrap())
            });
            drop(chest);
            join(threads);
            assert!(!path.exists());
        });
    }

    /// The writer syncs in time, whoever published.
    #[test]
    fn what_is_published_is_synced_without_another_call() {
        explore(|dir| {
            // What is larger than the budget gives the writer nothing else to do.
            let chest = settings(0).durability(Durability::Eventual).open(dir).unwrap();
            let insert = |chest: &Chest| (0..4).for_each(|number| chest.insert("key", Note(number)).unwrap());
            join([(); 2].map(|()| spawn(&chest, insert)));
            // Spins, so that a writer that sleeps all the time is told by the number of steps.
            while chest.store().unwrap().is_unsynced.load(SeqCst) {
                thread::yield_now();
            }
        });
    }
}
