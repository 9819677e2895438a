//! Closures, encoders and decoders that use the chest that they work for.

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
