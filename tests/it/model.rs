//! A chest does what a `HashMap` does, whatever the budget, the policy and the number of reopenings.

use std::collections::HashMap;
use std::sync::Arc;

use icechest::{Chest, Compression, ErrorKind, Key, Largest, Lfu, Lru, Mru, Random};
use ndarray::{Array1, Array2};
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::helpers::dir;

/// A value of one of several types.
#[derive(Clone, Debug, PartialEq)]
enum Any {
    Number(i64),
    Text(Arc<String>),
    Bytes(Arc<Vec<u8>>),
    Vector(Arc<Array1<f32>>),
    Matrix(Arc<Array2<i16>>),
}

impl Any {
    /// A value that is told by its number.
    fn new(n: u32) -> Self {
        let len = [0, 1, 10, 200, 3000, 30_000][n as usize / 5 % 6];
        match n % 5 {
            0 => Self::Number(n.into()),
            1 => Self::Text(Arc::new(format!("text {n} ").repeat(len / 10))),
            2 => Self::Bytes(Arc::new((0..len as u32).map(|i| (i.wrapping_mul(n) >> 3) as u8).collect())),
            3 => Self::Vector(Arc::new((0..len / 4).map(|i| (i as u32 * n) as f32).collect())),
            _ => Self::Matrix(Arc::new(Array2::from_elem((3, len / 6), n as i16))),
        }
    }

    fn insert(&self, chest: &Chest, key: &Key) -> icechest::Result<()> {
        // Copies: what the chest has is not pinned by the model.
        match self {
            Self::Number(value) => chest.insert(key, *value),
            Self::Text(value) => chest.insert(key, String::clone(value)),
            Self::Bytes(value) => chest.insert(key, Vec::clone(value)),
            Self::Vector(value) => chest.insert(key, Array1::clone(value)),
            Self::Matrix(value) => chest.insert(key, Array2::clone(value)),
        }
    }

    /// What the chest has, as the type that this value has.
    fn get_like(&self, chest: &Chest, key: &Key) -> icechest::Result<Self> {
        Ok(match self {
            Self::Number(_) => Self::Number(*chest.get(key)?),
            Self::Text(_) => Self::Text(chest.get(key)?),
            Self::Bytes(_) => Self::Bytes(chest.get(key)?),
            Self::Vector(_) => Self::Vector(chest.get(key)?),
            Self::Matrix(_) => Self::Matrix(chest.get(key)?),
        })
    }

    fn take_like(&self, chest: &Chest, key: &Key) -> icechest::Result<Self> {
        Ok(match self {
            Self::Number(_) => Self::Number(*chest.take(key)?),
            Self::Text(_) => Self::Text(chest.take(key)?),
            Self::Bytes(_) => Self::Bytes(chest.take(key)?),
            Self::Vector(_) => Self::Vector(chest.take(key)?),
            Self::Matrix(_) => Self::Matrix(chest.take(key)?),
        })
    }

    /// Makes the same change to the chest's value and to this one.
    fn change(&mut self, chest: &Chest, key: &Key) -> icechest::Result<()> {
        match self {
            Self::Number(value) => {
                *value += 1;
                chest.update(key, |stored: &mut i64| *stored += 1)
            }
            Self::Text(value) => {
                Arc::make_mut(value).push('!');
                chest.update(key, |stored: &mut String| stored.push('!'))
            }
            Self::Bytes(value) => {
                Arc::make_mut(value).push(7);
                chest.update(key, |stored: &mut Vec<u8>| stored.push(7))
            }
            Self::Vector(value) => {
                *Arc::make_mut(value) += 1.0;
                chest.update(key, |stored: &mut Array1<f32>| *stored += 1.0)
            }
            Self::Matrix(value) => {
                *Arc::make_mut(value) *= 3;
                chest.update(key, |stored: &mut Array2<i16>| *stored *= 3)
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u8, u32),
    Get(u8),
    GetWrongType(u8),
    Remove(u8),
    RemoveMany(Vec<u8>),
    Take(u8),
    Contains(u8),
    Update(u8),
    GetOrInsert(u8, u32),
    Keys,
    Len,
    Iter,
    Flush,
    SetBudget(u32),
    Clear,
    Prefetch(Vec<u8>),
    Extend(Vec<(u8, u32)>),
    Hold(u8),
    LetGo,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..12u8;
    let value = || 0..3000u32;
    prop_oneof![
        8 => (key(), value()).prop_map(|(key, value)| Op::Insert(key, value)),
        8 => key().prop_map(Op::Get),
        1 => key().prop_map(Op::GetWrongType),
        2 => key().prop_map(Op::Remove),
        1 => vec(key(), 0..5).prop_map(Op::RemoveMany),
        1 => key().prop_map(Op::Take),
        2 => key().prop_map(Op::Contains),
        4 => key().prop_map(Op::Update),
        3 => (key(), value()).prop_map(|(key, value)| Op::GetOrInsert(key, value)),
        1 => Just(Op::Keys),
        1 => Just(Op::Len),
        1 => Just(Op::Iter),
        1 => Just(Op::Flush),
        2 => budget().prop_map(Op::SetBudget),
        1 => vec(key(), 0..12).prop_map(Op::Prefetch),
        1 => vec((key(), value()), 0..8).prop_map(Op::Extend),
        3 => key().prop_map(Op::Hold),
        1 => Just(Op::LetGo),
        1 => Just(Op::Reopen),
        1 => prop::bool::weighted(0.2).prop_map(|clear| if clear { Op::Clear } else { Op::Len }),
    ]
}

/// Nothing, far too little, some, and enough.
fn budget() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 1..300u32, 300..40_000u32, Just(1 << 24)]
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    budget: u32,
    policy: u8,
    inline: bool,
    named: bool,
    compression: Compression,
}

fn settings() -> impl Strategy<Value = Settings> {
    let compression = prop::sample::select(&[Compression::Auto, Compression::Never, Compression::Small][..]);
    (budget(), 0..6u8, any::<bool>(), any::<bool>(), compression).prop_map(
        |(budget, policy, inline, named, compression)| Settings { budget, policy, inline, named, compression },
    )
}

impl Settings {
    fn open(self, dir: &TempDir) -> Chest {
        let builder = Chest::builder().budget(self.budget).compression(self.compression);
        let builder = if self.inline { builder } else { builder.inline_limit(0) };
        let builder = match self.policy {
            0 => builder,
            1 => builder.policy(Largest),
            2 => builder.policy(Lru),
            3 => builder.policy(Lfu),
            4 => builder.policy(Mru),
            _ => builder.policy(Random),
        };
        match self.named {
            true => builder.open(dir.path().join("chest")).unwrap(),
            false => builder.temporary_in(dir.path()).temporary().unwrap(),
        }
    }
}

/// A chest, what it must hold, and the handles that the test holds.
struct World {
    dir: TempDir,
    settings: Settings,
    chest: Chest,
    model: HashMap<Key, Any>,
    held: Vec<Any>,
}

fn key(n: u8) -> Key {
    match n % 3 {
        0 => Key::from(n),
        1 => Key::from(format!("key {n}")),
        _ => Key::from(("key", n)),
    }
}

impl World {
    fn new(settings: Settings) -> Self {
        let dir = dir();
        let chest = settings.open(&dir);
        Self { dir, settings, chest, model: HashMap::new(), held: Vec::new() }
    }

    fn insert(&mut self, n: u8, value: u32) {
        Any::new(value).insert(&self.chest, &key(n)).unwrap();
        self.model.insert(key(n), Any::new(value));
    }

    /// What the chest gives for a key must be what the model has.
    fn get(&self, key: &Key) -> Option<Any> {
        match self.model.get(key) {
            Some(expected) => {
                let found = expected.get_like(&self.chest, key).unwrap();
                assert_eq!(&found, expected, "{key}");
                Some(found)
            }
            None => {
                assert_eq!(self.chest.get::<i64>(key).unwrap_err().kind(), ErrorKind::NotFound);
                assert!(self.chest.find::<String>(key).unwrap().is_none());
                None
            }
        }
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Insert(n, value) => self.insert(*n, *value),
            Op::Get(n) => drop(self.get(&key(*n))),
            Op::GetWrongType(n) => match (self.model.get(&key(*n)), self.chest.find::<Vec<char>>(key(*n))) {
                (Some(_), found) => assert_eq!(found.unwrap_err().kind(), ErrorKind::WrongType),
                (None, found) => assert!(found.unwrap().is_none()),
            },
            Op::Remove(n) => {
                assert_eq!(self.chest.remove(key(*n)).unwrap(), self.model.remove(&key(*n)).is_some());
            }
            Op::RemoveMany(all) => {
                let removed = all.iter().filter(|n| self.model.remove(&key(**n)).is_some()).count();
                assert_eq!(self.chest.remove_many(all.iter().map(|n| key(*n))).unwrap(), removed);
            }
            Op::Take(n) => match self.model.remove(&key(*n)) {
                Some(expected) => assert_eq!(expected.take_like(&self.chest, &key(*n)).unwrap(), expected),
                None => assert_eq!(self.chest.take::<i64>(key(*n)).unwrap_err().kind(), ErrorKind::NotFound),
            },
            Op::Contains(n) => {
                assert_eq!(self.chest.contains_key(key(*n)).unwrap(), self.model.contains_key(&key(*n)));
            }
            Op::Update(n) => match self.model.get_mut(&key(*n)) {
                Some(expected) => expected.change(&self.chest, &key(*n)).unwrap(),
                None => {
                    let error = self.chest.update(key(*n), |_: &mut i64| ()).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::NotFound);
                }
            },
            Op::GetOrInsert(n, value) => match self.model.get(&key(*n)) {
                Some(Any::Number(expected)) => {
                    let found = self.chest.get_or_insert_with(key(*n), || -> i64 { unreachable!() }).unwrap();
                    assert_eq!(*found, *expected);
                }
                Some(_) => {
                    let error = self.chest.get_or_insert_with(key(*n), || 0i64).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::WrongType);
                }
                None => {
                    let made = self.chest.entry(key(*n)).or_insert(i64::from(*value)).unwrap();
                    assert_eq!(*made, i64::from(*value));
                    self.model.insert(key(*n), Any::Number((*value).into()));
                }
            },
            Op::Keys => {
                let mut keys = self.chest.keys().unwrap();
                let mut expected: Vec<_> = self.model.keys().cloned().collect();
                keys.sort();
                expected.sort();
                assert_eq!(keys, expected);
                assert_eq!(self.chest.infos().unwrap().len(), keys.len());
            }
            Op::Len => {
                assert_eq!(self.chest.len().unwrap(), self.model.len() as u64);
                assert_eq!(self.chest.is_empty().unwrap(), self.model.is_empty());
            }
            Op::Iter => {
                let found: HashMap<_, _> =
                    self.chest.iter::<Vec<u8>>().unwrap().map(|entry| entry.unwrap()).collect();
                let is_bytes = |any: &&Any| matches!(any, Any::Bytes(_));
                assert_eq!(found.len(), self.model.values().filter(is_bytes).count());
                found.into_iter().for_each(|(key, value)| assert_eq!(self.model[&key], Any::Bytes(value)));
            }
            Op::Flush => {
                self.chest.flush().unwrap();
                assert_eq!(self.chest.stats().unwrap().dirty, 0);
            }
            Op::SetBudget(bytes) => {
                self.settings.budget = *bytes;
                self.chest.set_budget(*bytes).unwrap();
            }
            Op::Clear => {
                self.chest.clear().unwrap();
                self.model.clear();
            }
            Op::Prefetch(all) => {
                let wanted = all.iter().map(|n| key(*n)).filter(|key| matches!(self.model.get(key), Some(Any::Text(_))));
                let wanted: Vec<_> = wanted.collect();
                assert!(self.chest.prefetch::<String, _>(&wanted).unwrap() <= wanted.len());
            }
            Op::Extend(all) => all.iter().for_each(|(n, value)| self.insert(*n, *value)),
            Op::Hold(n) => self.held.extend(self.get(&key(*n))),
            Op::LetGo => self.held.clear(),
            Op::Reopen => self.reopen(),
        }
    }

    /// A named chest keeps everything; a temporary one ends, and its directory with it.
    fn reopen(&mut self) {
        let settings = Settings { named: true, ..self.settings };
        if self.settings.named {
            // The old one goes first: what it has not written yet is written by that.
            self.chest = Chest::temporary().unwrap();
        } else {
            self.model.clear();
        }
        self.chest = if self.settings.named { settings.open(&self.dir) } else { self.settings.open(&self.dir) };
        assert_eq!(self.chest.len().unwrap(), self.model.len() as u64);
    }

    /// What is in memory is within the budget, but for what this test holds.
    fn check_memory(&self) {
        let stats = self.chest.stats().unwrap();
        assert!(stats.resident_bytes <= stats.budget + stats.pinned_bytes, "{stats}\n{stats:?}");
        assert!(self.held.is_empty() <= (stats.pinned == 0), "nothing is pinned: {stats}");
        assert_eq!((stats.budget, stats.write_errors), (self.settings.budget.into(), 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_chest_does_what_a_hash_map_does(settings in settings(), ops in vec(op(), 1..60)) {
        let mut world = World::new(settings);
        for op in &ops {
            world.run(op);
            world.check_memory();
        }
        world.reopen();
        world.held.clear();
        world.model.keys().for_each(|key| drop(world.get(key)));
        world.chest.clear().unwrap();
        prop_assert_eq!(world.chest.stats().unwrap().resident_bytes, 0);
        drop(world.chest);
        let parent = world.dir.path();
        let left = |folder: &str| std::fs::read_dir(parent.join("chest").join(folder)).map_or(0, |dir| dir.count());
        prop_assert_eq!((left("values"), left("tmp")), (0, 0));
        prop_assert_eq!(std::fs::read_dir(parent).unwrap().count(), usize::from(world.settings.named));
    }
}
