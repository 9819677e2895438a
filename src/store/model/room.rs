//! Those who need room, and those who make it.

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
