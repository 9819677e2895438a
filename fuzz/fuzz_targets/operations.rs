#![no_main]

use std::collections::HashMap;

use arbitrary::Arbitrary;
use icechest::{Chest, Compression, Key};
use libfuzzer_sys::fuzz_target;
use ndarray::Array2;
use tempfile::TempDir;

#[derive(Arbitrary, Debug)]
struct Input {
    settings: Settings,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Settings {
    budget: u16,
    inline_limit: u16,
    compression: u8,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Insert { key: u8, what: What },
    Get { key: u8 },
    Take { key: u8 },
    Remove { key: u8 },
    Update { key: u8, by: u8 },
    Keys,
    Flush,
    Reopen,
    Budget { bytes: u16 },
    Clear,
}

#[derive(Arbitrary, Clone, Debug)]
enum What {
    Bytes { first: u8, len: u16 },
    Text(String),
    Array { first: u8, rows: u8, columns: u8 },
}

#[derive(Clone, Debug, PartialEq)]
enum Held {
    Bytes(Vec<u8>),
    Text(String),
    Array(Array2<f32>),
}

impl What {
    fn make(&self) -> Held {
        match *self {
            Self::Bytes { first, len } => Held::Bytes((0..len).map(|i| first.wrapping_mul(i as u8)).collect()),
            Self::Text(ref text) => Held::Text(text.clone()),
            Self::Array { first, rows, columns } => {
                let (rows, columns) = (usize::from(rows), usize::from(columns));
                Held::Array(Array2::from_shape_fn((rows, columns), |(i, j)| (i * j % (1 + usize::from(first))) as f32))
            }
        }
    }
}

impl Held {
    fn insert(&self, chest: &Chest, key: Key) {
        match self {
            Self::Bytes(bytes) => chest.insert(key, bytes.clone()),
            Self::Text(text) => chest.insert(key, text.clone()),
            Self::Array(array) => chest.insert(key, array.clone()),
        }
        .expect("an insert succeeds");
    }

    fn update(&mut self, chest: &Chest, key: Key, by: u8) {
        match self {
            Self::Bytes(bytes) => {
                bytes.push(by);
                chest.update(key, |bytes: &mut Vec<u8>| bytes.push(by))
            }
            Self::Text(text) => {
                text.push(by.into());
                chest.update(key, |text: &mut String| text.push(by.into()))
            }
            Self::Array(array) => {
                *array += f32::from(by);
                chest.update(key, |array: &mut Array2<f32>| *array += f32::from(by))
            }
        }
        .expect("an update succeeds");
    }

    fn is_in(&self, chest: &Chest, key: &Key) -> bool {
        match self {
            Self::Bytes(bytes) => chest.get::<Vec<u8>>(key).is_ok_and(|found| *found == *bytes),
            Self::Text(text) => chest.get::<String>(key).is_ok_and(|found| *found == *text),
            Self::Array(array) => chest.get::<Array2<f32>>(key).is_ok_and(|found| *found == *array),
        }
    }
}

struct Run {
    dir: TempDir,
    settings: Settings,
    chest: Option<Chest>,
    model: HashMap<Key, Held>,
}

impl Run {
    fn new(settings: Settings) -> Self {
        let dir = tempfile::tempdir().expect("there is room for a directory");
        let mut run = Self { dir, settings, chest: None, model: HashMap::new() };
        run.reopen();
        run
    }

    fn reopen(&mut self) {
        // The old one is closed first.
        self.chest = None;
        let compression = match self.settings.compression % 3 {
            0 => Compression::Auto,
            1 => Compression::Never,
            _ => Compression::Small,
        };
        let builder = Chest::builder().compression(compression).inline_limit(self.settings.inline_limit.into());
        let chest = builder.budget(u64::from(self.settings.budget)).open(self.dir.path());
        self.chest = Some(chest.expect("a chest opens again"));
    }

    fn step(&mut self, step: &Step) {
        let Some(chest) = &self.chest else { return };
        match *step {
            Step::Insert { key, ref what } => {
                what.make().insert(chest, name(key));
                self.model.insert(name(key), what.make());
            }
            Step::Get { key } => self.compare(&name(key)),
            Step::Take { key } => {
                let key = name(key);
                let taken = match self.model.remove(&key) {
                    Some(Held::Bytes(bytes)) => chest.take::<Vec<u8>>(&key).is_ok_and(|found| *found == bytes),
                    Some(Held::Text(text)) => chest.take::<String>(&key).is_ok_and(|found| *found == text),
                    Some(Held::Array(array)) => chest.take::<Array2<f32>>(&key).is_ok_and(|found| *found == array),
                    None => chest.take::<String>(&key).is_err(),
                };
                assert!(taken, "{key} was taken as another value");
            }
            Step::Remove { key } => {
                let was_there = self.model.remove(&name(key)).is_some();
                assert_eq!(chest.remove(name(key)).expect("a removal succeeds"), was_there);
            }
            Step::Update { key, by } => {
                if let Some(held) = self.model.get_mut(&name(key)) {
                    held.update(chest, name(key), by);
                }
            }
            Step::Keys => self.compare_all(),
            Step::Flush => chest.flush().expect("a flush succeeds"),
            Step::Reopen => self.reopen(),
            Step::Budget { bytes } => chest.set_budget(u64::from(bytes)).expect("a budget is set"),
            Step::Clear => {
                chest.clear().expect("a chest is cleared");
                self.model.clear();
            }
        }
    }

    fn compare(&self, key: &Key) {
        let Some(chest) = &self.chest else { return };
        match self.model.get(key) {
            Some(held) => assert!(held.is_in(chest, key), "{key} is not what was inserted: {:?}", chest.info(key)),
            None => assert!(!chest.contains_key(key).expect("a look succeeds"), "{key} should not be there"),
        }
    }

    fn compare_all(&self) {
        let Some(chest) = &self.chest else { return };
        let mut keys = chest.keys().expect("keys are told");
        let mut expected: Vec<Key> = self.model.keys().cloned().collect();
        keys.sort();
        expected.sort();
        assert_eq!(keys, expected);
        assert_eq!(chest.len().expect("a length is told"), expected.len() as u64);
        expected.iter().for_each(|key| self.compare(key));
    }

    fn end(mut self) {
        self.compare_all();
        self.reopen();
        self.compare_all();
        self.chest = None;
        let report = Chest::check(self.dir.path()).run().expect("a check runs");
        assert!(report.is_healthy() && report.orphans.is_empty() && report.foreign.is_empty(), "{report}");
    }
}

/// Few keys, so that steps meet; of several forms.
fn name(key: u8) -> Key {
    match key % 6 {
        0 => "a/b".into(),
        1 => ("a", 1).into(),
        2 => 1.into(),
        3 => "1".into(),
        4 => "".into(),
        _ => "x".repeat(300).into(),
    }
}

fuzz_target!(|input: Input| {
    let mut run = Run::new(input.settings);
    input.steps.iter().take(40).for_each(|step| run.step(step));
    run.end();
});
