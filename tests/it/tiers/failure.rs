//! The disk says no.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use icechest::{Chest, Decoder, Encoder, ErrorKind, Format, Kind, Lru, Result, Value, WhenFull};

use crate::helpers::dir;

/// Makes it impossible to write a value's file, also for the superuser: the folder for unfinished files is a file.
struct Fault<'a>(&'a Chest);

impl<'a> Fault<'a> {
    fn begin(chest: &'a Chest) -> Self {
        let tmp = chest.path().join("tmp");
        fs::remove_dir_all(&tmp).unwrap();
        fs::write(tmp, "no folder").unwrap();
        Self(chest)
    }

    fn end(self) {
        let tmp = self.0.path().join("tmp");
        fs::remove_file(&tmp).unwrap();
        fs::create_dir(tmp).unwrap();
    }
}

fn block(i: u8) -> Vec<u8> {
    vec![i; 10 << 10]
}

fn chest_in(dir: &Path) -> Chest {
    Chest::builder().inline_limit(0).budget(55 << 10).open(dir).unwrap()
}

fn check(chest: &Chest, keys: std::ops::Range<u8>) {
    for i in keys {
        assert_eq!(*chest.get::<Vec<u8>>(i).unwrap(), block(i));
    }
}

#[test]
fn a_failed_spill_leaves_values_in_memory_and_gives_the_error() {
    let dir = dir();
    let chest = chest_in(dir.path());
    let fault = Fault::begin(&chest);
    for i in 0..5 {
        chest.insert(i, block(i)).unwrap();
    }
    for i in 5..10 {
        let error = chest.insert(i, block(i)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.path().unwrap().starts_with(chest.path()) && error.key().is_some(), "{error}");
        assert!(error.into_value::<Vec<u8>>().is_none(), "the chest has it");
    }
    check(&chest, 0..10);
    assert_eq!(chest.flush().unwrap_err().kind(), ErrorKind::Io);
    let stats = chest.stats().unwrap();
    assert!(stats.write_errors > 0 && stats.dirty == 10 && stats.values == 10, "{stats}");
    check(&chest, 0..10);

    fault.end();
    chest.flush().unwrap();
    assert_eq!(chest.stats().unwrap().dirty, 0);
    chest.insert(10, block(10)).unwrap();
    assert!(chest.stats().unwrap().resident_bytes <= 55 << 10);
    check(&chest, 0..11);
    drop(chest);
    check(&chest_in(dir.path()), 0..11);
}

#[test]
fn an_oversize_value_stays_in_memory_when_it_cannot_be_written() {
    let dir = dir();
    let chest = chest_in(dir.path());
    chest.insert("k", block(1)).unwrap();
    chest.flush().unwrap();
    let fault = Fault::begin(&chest);
    let large = vec![7u8; 100 << 10];
    assert_eq!(chest.insert("k", large.clone()).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(*chest.get::<Vec<u8>>("k").unwrap(), large);
    fault.end();
    chest.flush().unwrap();
    drop(chest);
    assert_eq!(*chest_in(dir.path()).get::<Vec<u8>>("k").unwrap(), large);
}

#[test]
fn clean_values_are_spilled_even_when_nothing_can_be_written() {
    let dir = dir();
    let chest = chest_in(dir.path());
    for i in 0..5 {
        chest.insert(i, block(i)).unwrap();
    }
    chest.flush().unwrap();
    let fault = Fault::begin(&chest);
    for i in 5..9 {
        chest.insert(i, block(i)).unwrap();
    }
    check(&chest, 5..9);
    fault.end();
    check(&chest, 0..9);
}

/// Without anybody who needs room or asks for it.
#[test]
fn what_could_not_be_written_is_tried_again() {
    let dir = dir();
    let chest = Chest::builder().inline_limit(0).open(dir.path()).unwrap();
    let fault = Fault::begin(&chest);
    chest.insert(1, block(1)).unwrap();
    let wait_until = |is_done: &dyn Fn() -> bool| {
        let began = std::time::Instant::now();
        while !is_done() {
            assert!(began.elapsed().as_secs() < 60, "{}", chest.stats().unwrap());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    wait_until(&|| chest.stats().unwrap().write_errors > 0);
    fault.end();
    // What comes later is written earlier.
    chest.insert(2, block(2)).unwrap();
    let other = Chest::open(dir.path()).unwrap();
    wait_until(&|| other.contains_key(1).unwrap());
}

/// A value whose end uses the chest.
struct Last(Option<Chest>);

impl Value for Last {
    const KIND: Kind = Kind::Plain;
    fn type_name() -> String {
        "Last".into()
    }
    fn size(&self) -> usize {
        1000
    }
    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        out.write_all(&[7; 1000])?;
        Ok(Format::new("last", "last"))
    }
    fn decode(_: &mut Decoder) -> Result<Self> {
        Ok(Self(None))
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(chest) = &self.0 {
            chest.insert("dropped", 1).unwrap();
        }
    }
}

#[test]
fn a_value_that_does_not_stay_ends_when_nothing_is_locked() {
    let chest = Chest::builder().budget(500).temporary().unwrap();
    chest.insert("large", Last(Some(chest.clone()))).unwrap();
    assert_eq!(*chest.get::<i32>("dropped").unwrap(), 1);
    chest.prefer_disk("cold").unwrap();
    chest.remove("dropped").unwrap();
    chest.insert("cold", Last(Some(chest.clone()))).unwrap();
    assert_eq!(*chest.get::<i32>("dropped").unwrap(), 1);
}

/// A value that can be written only when its switch is on.
struct Stubborn(&'static AtomicBool, Vec<u8>);

impl Value for Stubborn {
    const KIND: Kind = Kind::Plain;
    fn type_name() -> String {
        "Stubborn".into()
    }
    fn size(&self) -> usize {
        self.1.len()
    }
    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        if !self.0.load(Ordering::Relaxed) {
            return Err(icechest::Error::new(ErrorKind::Io, "not now"));
        }
        out.write_all(&self.1)?;
        Ok(Format::new("stubborn", "stub"))
    }
    fn decode(input: &mut Decoder) -> Result<Self> {
        static READ: AtomicBool = AtomicBool::new(true);
        Ok(Self(&READ, input.read_to_vec()?))
    }
}

#[test]
fn one_value_that_cannot_be_written_keeps_no_other_from_it() {
    static NOW: AtomicBool = AtomicBool::new(false);
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    chest.insert("stubborn", Stubborn(&NOW, vec![7; 100])).unwrap();
    for i in 0..3000 {
        chest.insert(i, i).unwrap();
    }
    let error = chest.flush().unwrap_err();
    assert_eq!(error.key(), Some(&"stubborn".into()));
    assert_eq!(chest.stats().unwrap().dirty, 1);
    assert_eq!(Chest::open(dir.path()).unwrap().len().unwrap(), 3000);

    NOW.store(true, Ordering::Relaxed);
    drop(chest);
    assert_eq!(Chest::open(dir.path()).unwrap().get::<Stubborn>("stubborn").unwrap().1, [7; 100]);
}

#[test]
fn an_encoder_that_panics_is_an_error() {
    struct Bomb;
    impl Value for Bomb {
        const KIND: Kind = Kind::Plain;
        fn type_name() -> String {
            "Bomb".into()
        }
        fn size(&self) -> usize {
            100
        }
        fn encode(&self, _: &mut Encoder) -> Result<Format> {
            panic!("boom")
        }
        fn decode(_: &mut Decoder) -> Result<Self> {
            panic!("boom")
        }
    }
    let chest = Chest::temporary().unwrap();
    chest.insert("bomb", Bomb).unwrap();
    chest.insert("other", 7).unwrap();
    let error = chest.flush().unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Unsupported, Some(&"bomb".into())));
    assert!(chest.get::<Bomb>("bomb").is_ok());
    assert_eq!(chest.stats().unwrap().dirty, 1);
    assert!(chest.remove("bomb").unwrap());
    chest.flush().unwrap();
}

#[test]
fn a_decoder_that_panics_is_an_error() {
    #[derive(Debug)]
    struct Dud;
    impl Value for Dud {
        const KIND: Kind = Kind::Plain;
        fn type_name() -> String {
            "Dud".into()
        }
        fn size(&self) -> usize {
            100
        }
        fn encode(&self, _: &mut Encoder) -> Result<Format> {
            Ok(Format::new("dud", "dud"))
        }
        fn decode(_: &mut Decoder) -> Result<Self> {
            panic!("no way back")
        }
    }
    let chest = Chest::builder().budget(0).temporary().unwrap();
    chest.insert("dud", Dud).unwrap();
    let error = chest.get::<Dud>("dud").unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Unsupported, Some(&"dud".into())));
    assert_eq!(chest.stats().unwrap().resident_bytes, 0);
    chest.insert("dud", 7).unwrap();
    assert_eq!(*chest.get::<i32>("dud").unwrap(), 7);
}

#[test]
fn one_value_that_cannot_be_written_keeps_no_other_from_making_room() {
    static NEVER: AtomicBool = AtomicBool::new(false);
    let chest = Chest::builder().inline_limit(0).budget(55 << 10).policy(Lru).temporary().unwrap();
    chest.insert("stubborn", Stubborn(&NEVER, vec![7; 10 << 10])).unwrap();
    for i in 0..20 {
        chest.insert(i, block(i)).unwrap();
    }
    let stats = chest.stats().unwrap();
    assert!(stats.resident_bytes <= 55 << 10, "{stats}");
    check(&chest, 0..20);
    // Where there is nothing else to spill its error is told.
    let error = chest.set_budget(5u64 << 10).unwrap_err();
    assert_eq!(error.key(), Some(&"stubborn".into()));
}

/// Says when it is written that it cannot be.
struct Unstorable;

impl Value for Unstorable {
    const KIND: Kind = Kind::Plain;
    fn type_name() -> String {
        "Unstorable".into()
    }
    fn size(&self) -> usize {
        2000
    }
    fn encode(&self, _: &mut Encoder) -> Result<Format> {
        Err(icechest::Error::new(ErrorKind::Unsupported, "not this one"))
    }
    fn decode(_: &mut Decoder) -> Result<Self> {
        Ok(Self)
    }
}

#[test]
fn a_value_that_cannot_be_stored_takes_no_others_place() {
    let dir = dir();
    let chest = Chest::builder().budget(1000u64).open(dir.path()).unwrap();
    chest.insert("k", 7u8).unwrap();
    let error = chest.insert("k", Unstorable).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.into_value::<Unstorable>().is_some());
    assert_eq!(*chest.get::<u8>("k").unwrap(), 7);
}

#[test]
fn where_the_disk_has_a_limit_only_what_is_over_it_is_refused() {
    let dir = dir();
    let chest = Chest::builder().inline_limit(0).max_disk(1u64 << 20, WhenFull::Refuse).open(dir.path()).unwrap();
    let fault = Fault::begin(&chest);
    let error = chest.insert(1, block(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.into_value::<Vec<u8>>().is_none(), "the chest has it");
    check(&chest, 1..2);
    fault.end();
    chest.flush().unwrap();
    drop(chest);
    check(&Chest::open(dir.path()).unwrap(), 1..2);
}

/// Says that it takes so many bytes.
struct Huge(usize);

impl Value for Huge {
    const KIND: Kind = Kind::Plain;
    fn type_name() -> String {
        "Huge".into()
    }
    fn size(&self) -> usize {
        self.0
    }
    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        out.write_all(&[0; 100])?;
        Ok(Format::new("huge", "huge"))
    }
    fn decode(_: &mut Decoder) -> Result<Self> {
        Ok(Self(1))
    }
}

#[test]
fn what_no_row_can_tell_is_refused() {
    let dir = dir();
    let chest = chest_in(dir.path());
    chest.insert(1, block(1)).unwrap();
    let error = chest.insert(2, Huge(1 << 51)).unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Unsupported, Some(&2.into())), "{error}");
    chest.insert(3, Huge(1 << 50)).unwrap();
    chest.flush().unwrap();
    assert_eq!(chest.infos().unwrap().len(), 2);
}

/// Writes to a buffer, and does not look whether that could be written.
struct Careless(Vec<u8>);

impl Value for Careless {
    const KIND: Kind = Kind::Plain;
    fn type_name() -> String {
        "Careless".into()
    }
    fn size(&self) -> usize {
        self.0.len()
    }
    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        for bytes in self.0.chunks(1000) {
            let _ = out.write_all(bytes);
        }
        Ok(Format::new("careless", "care"))
    }
    fn decode(input: &mut Decoder) -> Result<Self> {
        Ok(Self(input.read_to_vec()?))
    }
}

#[test]
fn what_could_not_be_written_is_not_published_whoever_looks_away() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    let fault = Fault::begin(&chest);
    chest.insert("k", Careless(vec![7; 20 << 20])).unwrap();
    assert_eq!(chest.flush().unwrap_err().kind(), ErrorKind::Io);
    fault.end();
    chest.flush().unwrap();
    drop(chest);
    assert_eq!(Chest::open(dir.path()).unwrap().get::<Careless>("k").unwrap().0, [7; 20 << 20]);
}

/// Asks the chest whenever it is asked for its name.
struct Curious(Chest);

impl Value for Curious {
    const KIND: Kind = Kind::Plain;
    fn type_name() -> String {
        "Curious".into()
    }
    fn stored_name(&self) -> String {
        format!("Curious about {}", self.0.stats().unwrap().values)
    }
    fn size(&self) -> usize {
        1
    }
    fn encode(&self, _: &mut Encoder) -> Result<Format> {
        Ok(Format::new("curious", "cur"))
    }
    fn decode(_: &mut Decoder) -> Result<Self> {
        Err(icechest::Error::new(ErrorKind::Unsupported, "nobody reads it"))
    }
}

#[test]
fn a_value_may_use_the_chest_when_it_is_asked_what_it_is() {
    let chest = Chest::temporary().unwrap();
    let other = Chest::temporary().unwrap();
    chest.insert("other", Curious(other)).unwrap();
    chest.insert("own", Curious(chest.clone())).unwrap();
    assert_eq!(chest.info("own").unwrap().type_name, "Curious about 2");
    assert_eq!(chest.infos().unwrap().len(), 2);
    // It would keep itself for ever.
    chest.remove("own").unwrap();
}
