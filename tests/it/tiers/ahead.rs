//! What is loaded before it is asked for: by `prefetch`, and behind the back of who iterates.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use icechest::{Chest, Decoder, Encoder, ErrorKind, Format, Kind, Mru, Policy, Rank, Result, Usage, Value};

use crate::helpers::dir;

/// A value of `kib` KiB, a little more in memory.
fn block(kib: usize) -> Vec<u8> {
    vec![kib as u8; kib << 10]
}

/// A chest of 20 blocks of so many KiB, all of them on disk alone.
fn cold(kib: usize, budget: usize) -> Chest {
    let chest = Chest::builder().budget(0).temporary().unwrap();
    chest.extend((0..20).map(|i| (i, block(kib)))).unwrap();
    chest.set_budget(budget).unwrap();
    chest
}

/// Waits for what happens in the background.
#[track_caller]
fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("it does not happen");
}

#[test]
fn prefetch_takes_what_fits_and_spills_nothing() {
    let chest = cold(10, 65 << 10);
    let spills = chest.stats().unwrap().spills;
    let fetched = chest.prefetch::<Vec<u8>, _>(0..20).unwrap().wait().unwrap();
    let stats = chest.stats().unwrap();
    assert!((1..=6).contains(&fetched) && stats.resident == fetched as u64, "{fetched}: {stats}");
    assert_eq!(stats.spills, spills);
    assert!(stats.peak_bytes <= 65 << 10, "{stats}");
}

#[test]
fn the_first_error_comes_out_and_the_others_are_loaded() {
    let chest = cold(10, 1 << 20);
    chest.insert("text", "not bytes").unwrap();
    let of = |keys: Vec<icechest::Key>| chest.prefetch::<Vec<u8>, _>(keys).unwrap().wait();
    let error = of(vec!["nobody".into(), 1.into()]).unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::NotFound, Some(&"nobody".into())));
    let error = of(vec!["text".into(), 2.into()]).unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::WrongType, Some(&"text".into())));
    assert!([1, 2].iter().all(|&key: &i32| chest.info(key).unwrap().is_resident));
    assert_eq!(of(vec![1.into(), 2.into(), 2.into(), 3.into()]).unwrap(), 4);
}

#[test]
fn a_prefetch_that_is_dropped_goes_on_and_one_that_is_cancelled_does_not() {
    let chest = cold(10, 1 << 20);
    drop(chest.prefetch::<Vec<u8>, _>(0..10).unwrap());
    until(|| chest.stats().unwrap().resident == 10);

    let chest = cold(10, 1 << 20);
    let loads = |chest: &Chest| chest.stats().unwrap().loads;
    chest.prefetch::<Vec<u8>, _>((0..1_000_000).map(|i| i % 20)).unwrap().cancel();
    // What comes after it has its turn at once.
    assert_eq!(chest.prefetch::<Vec<u8>, _>([19]).unwrap().wait().unwrap(), 1);
    assert!(loads(&chest) <= 20);
}

#[test]
fn closing_a_chest_ends_its_prefetches() {
    let root = dir();
    let chest = Chest::open(root.path()).unwrap();
    chest.extend((0..100).map(|i| (i, block(10)))).unwrap();
    let prefetch = chest.prefetch::<Vec<u8>, _>((0..1_000_000).map(|i| i % 100)).unwrap();
    drop(chest);
    assert!(prefetch.is_done());
    assert!(prefetch.wait().unwrap() < 1_000_000);
    assert_eq!(Chest::open(root.path()).unwrap().len().unwrap(), 100);
}

#[test]
fn a_closure_cannot_wait_for_what_may_wait_for_it() {
    let chest = cold(10, 1 << 20);
    let made = chest.get_or_insert_with("key", || {
        let error = chest.prefetch::<u8, _>(["key"]).unwrap().wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        7u8
    });
    assert_eq!(*made.unwrap(), 7);
    // What was started in the closure comes to its end now.
    assert_eq!(chest.prefetch::<u8, _>(["key"]).unwrap().wait().unwrap(), 1);

    #[derive(Debug)]
    struct Asks(Mutex<Option<icechest::Prefetch>>, Arc<AtomicBool>);
    impl Policy for Asks {
        fn rank(&self, usage: &Usage) -> Rank {
            if let Some(prefetch) = self.0.lock().unwrap().take() {
                self.1.store(prefetch.wait().is_err_and(|error| error.kind() == ErrorKind::Busy), Ordering::Relaxed);
            }
            Rank(usage.last_use as f64, 0.0)
        }
    }
    let was_busy = Arc::new(AtomicBool::new(false));
    let prefetch = chest.prefetch::<Vec<u8>, _>(0..20).unwrap();
    let asks = Asks(Mutex::new(Some(prefetch)), was_busy.clone());
    Chest::builder().policy(asks).temporary().unwrap().insert("x", 1).unwrap();
    assert!(was_busy.load(Ordering::Relaxed));
}

/// A value whose decoding takes as long as a test wants, or panics.
struct Slow(u64);

static DECODING: Mutex<Option<(mpsc::Sender<u64>, mpsc::Receiver<()>)>> = Mutex::new(None);

impl Value for Slow {
    const KIND: Kind = Kind::Plain;
    fn type_name() -> String {
        "Slow".to_owned()
    }
    fn size(&self) -> usize {
        100 << 10
    }
    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        out.write_all(&self.0.to_le_bytes())?;
        Ok(Format::new("slow", "slow"))
    }
    fn decode(input: &mut Decoder) -> Result<Self> {
        let mut bytes = [0; 8];
        input.read_exact(&mut bytes)?;
        let number = u64::from_le_bytes(bytes);
        assert!(number != 13, "a decoder that panics");
        if let Some((begun, go_on)) = &*DECODING.lock().unwrap() {
            begun.send(number).unwrap();
            go_on.recv().unwrap();
        }
        Ok(Self(number))
    }
}

#[test]
fn the_next_values_are_loaded_while_the_caller_works() {
    let dir = dir();
    let chest = Chest::builder().budget("8MiB").open(dir.path()).unwrap();
    chest.extend((0..6).map(|i| (i, Slow(i)))).unwrap();
    chest.insert("text", "of another type").unwrap();
    drop(chest);

    let chest = Chest::builder().budget("8MiB").open(dir.path()).unwrap();
    let (begin, begun) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    *DECODING.lock().unwrap() = Some((begin, goes_on));
    let mut values = chest.iter::<Slow>().unwrap();
    go_on.send(()).unwrap();
    assert_eq!(values.next().unwrap().unwrap().1.0, 0);
    assert_eq!(begun.recv().unwrap(), 0);
    // The caller has the first, and two more are being decoded, each by a thread of its own.
    let one = begun.recv().unwrap();
    go_on.send(()).unwrap();
    assert_eq!(one + begun.recv().unwrap(), 1 + 2);
    go_on.send(()).unwrap();
    until(|| chest.stats().unwrap().loads == 3);
    assert_eq!(chest.stats().unwrap().pinned, 2, "those ahead; the caller let go of the first");
    // No further than that.
    assert!(begun.try_recv().is_err());
    // Who does not take them any more does not load them any more.
    drop(values);
    until(|| chest.stats().unwrap().pinned == 0);
    *DECODING.lock().unwrap() = None;
    let numbers: Vec<u64> = chest.iter::<Slow>().unwrap().map(|entry| entry.unwrap().1.0).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    assert_eq!(chest.stats().unwrap().loads, 6, "each once");

    // A decoder that panics in the background is an error when the value's turn comes, and the rest goes on.
    chest.insert(13, Slow(13)).unwrap();
    chest.insert(14, Slow(14)).unwrap();
    chest.set_budget(0).unwrap();
    chest.set_budget("8MiB").unwrap();
    let found: Vec<Option<u64>> = chest.iter::<Slow>().unwrap().map(|entry| entry.ok().map(|(_, v)| v.0)).collect();
    assert_eq!(found, [Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), None, Some(14)]);
    assert_eq!(chest.prefetch::<Slow, _>([13]).unwrap().wait().unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn iterating_over_more_than_the_budget_stays_within_it() {
    for kib in [70, 200, 300, 900] {
        let chest = cold(kib, 1 << 20);
        let mut seen = 0;
        for entry in chest.iter::<Vec<u8>>().unwrap() {
            assert_eq!(*entry.unwrap().1, block(kib));
            seen += 1;
        }
        let stats = chest.stats().unwrap();
        assert_eq!((seen, stats.loads, stats.pinned), (20, 20, 0), "{kib}: {stats}");
        assert!(stats.peak_bytes <= 1 << 20, "{kib}: {stats}");
    }
}

#[test]
fn what_was_loaded_ahead_is_not_loaded_again_whatever_the_policy() {
    let chest = Chest::builder().budget(0).policy(Mru).temporary().unwrap();
    chest.extend((0..20).map(|i| (i, block(100)))).unwrap();
    chest.set_budget(1 << 20).unwrap();
    assert_eq!(chest.iter::<Vec<u8>>().unwrap().count(), 20);
    assert_eq!(chest.stats().unwrap().loads, 20);
}

#[test]
fn what_changes_while_it_is_iterated_is_seen() {
    let chest = cold(100, 4 << 20);
    let mut values = chest.iter::<Vec<u8>>().unwrap();
    values.next().unwrap().unwrap();
    until(|| chest.stats().unwrap().loads == 3);
    chest.insert(1, block(7)).unwrap();
    chest.remove(2).unwrap();
    chest.insert(3, "of another type").unwrap();
    let mut rest = values.map(|entry| entry.unwrap());
    assert_eq!(rest.next().unwrap(), (1.into(), Arc::new(block(7))));
    assert_eq!(rest.next().unwrap().0, 4.into());
    assert_eq!(rest.count(), 15);
}

#[test]
fn an_iterator_in_a_closure_does_not_wait_for_itself() {
    let chest = cold(100, 4 << 20);
    let sum = chest.update(3, |_: &mut Vec<u8>| {
        let entries = chest.iter::<Vec<u8>>().unwrap();
        entries.map(|entry| u64::from(entry.is_err_and(|error| error.kind() == ErrorKind::Busy))).sum::<u64>()
    });
    assert_eq!(sum.unwrap(), 1);
}
