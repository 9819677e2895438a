//! A chest is a dictionary: after any operations, under any settings, it has what a `HashMap` has.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use icechest::{
    Adaptive, AnyArray, Builder, Chest, Coldest, Compression, ErrorKind, Key, Largest, Lfu, Lru, Mru, Random, Stats,
    Value,
};
use ndarray::Array2;
use polars_core::df;
use polars_core::prelude::DataFrame;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::helpers::dir;

/// A budget that everything fits into.
const AMPLE: u64 = 64 << 20;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_named_chest_is_a_dictionary(settings in settings(), ops in prop::collection::vec(op(), 1..40)) {
        let mut run = Run::named(&[settings]);
        ops.iter().for_each(|op| run.step(0, op));
        run.end();
    }

    #[test]
    fn a_temporary_chest_is_a_dictionary(settings in settings(), ops in prop::collection::vec(op(), 1..40)) {
        let mut run = Run::temporary(settings);
        ops.iter().for_each(|op| run.step(0, op));
        run.end();
    }

    #[test]
    fn two_chests_in_one_directory_are_one_dictionary(
        settings in [settings(), settings()],
        ops in prop::collection::vec((0..2usize, op()), 1..40),
    ) {
        let mut run = Run::named(&settings);
        ops.iter().for_each(|(on, op)| run.step(*on, op));
        run.end();
    }
}

/// The types of value that the operations use.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    Number,
    Text,
    Bytes,
    Floats,
    Array,
    Frame,
}

const TYPES: [Type; 6] = [Type::Number, Type::Text, Type::Bytes, Type::Floats, Type::Array, Type::Frame];

/// Runs an expression where `$V` is the Rust type.
macro_rules! with_type {
    ($type:expr, $V:ident => $do:expr) => {
        match $type {
            Type::Number => {
                type $V = u64;
                $do
            }
            Type::Text => {
                type $V = String;
                $do
            }
            Type::Bytes => {
                type $V = Vec<u8>;
                $do
            }
            Type::Floats => {
                type $V = Vec<f64>;
                $do
            }
            Type::Array => {
                type $V = Array2<f32>;
                $do
            }
            Type::Frame => {
                type $V = DataFrame;
                $do
            }
        }
    };
}

/// What a value is made from; it is short in the report of a failure.
#[derive(Clone, Copy, Debug)]
struct Spec {
    of: Type,
    /// Values with an odd seed are noise, which does not compress.
    seed: u64,
    /// About the number of bytes.
    len: usize,
    /// How often it was changed since.
    changes: usize,
}

impl Spec {
    fn changed(self) -> Self {
        Self { changes: self.changes + 1, ..self }
    }
}

trait Sample: Value + Clone {
    fn make(seed: u64, len: usize) -> Self;
    fn change(&mut self);
    fn is_same(&self, other: &Self) -> bool;

    fn of(spec: Spec) -> Self {
        let mut value = Self::make(spec.seed, spec.len);
        (0..spec.changes).for_each(|_| value.change());
        value
    }
}

/// Noise for an odd seed, else runs of equal numbers.
fn numbers(seed: u64, len: usize) -> impl Iterator<Item = u64> {
    let mut state = seed;
    (0..len).map(move |i| {
        if seed.is_multiple_of(2) {
            return seed + i as u64 / 50;
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 29
    })
}

impl Sample for u64 {
    fn make(seed: u64, len: usize) -> Self {
        seed << 32 | len as u64
    }
    fn change(&mut self) {
        *self += 1;
    }
    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Sample for String {
    fn make(seed: u64, len: usize) -> Self {
        numbers(seed, len).filter_map(|n| char::from_u32(n as u32 % 1000)).collect()
    }
    fn change(&mut self) {
        self.insert_str(0, "changed ");
    }
    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Sample for Vec<u8> {
    fn make(seed: u64, len: usize) -> Self {
        numbers(seed, len).map(|n| n as u8).collect()
    }
    fn change(&mut self) {
        self.push(7);
    }
    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Sample for Vec<f64> {
    fn make(seed: u64, len: usize) -> Self {
        // Among the bits of noise are those of NaNs.
        numbers(seed, len / 8)
            .map(|n| if seed.is_multiple_of(2) { n as f64 / 3.0 } else { f64::from_bits(n) })
            .collect()
    }
    fn change(&mut self) {
        self.truncate(self.len() / 2);
        self.extend([-0.0, f64::NAN]);
    }
    fn is_same(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().zip(other).all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

impl Sample for Array2<f32> {
    fn make(seed: u64, len: usize) -> Self {
        let numbers: Vec<f32> = numbers(seed, len / 4 / 3 * 3).map(|n| (n >> 20) as f32 + 0.5).collect();
        Self::from_shape_vec((numbers.len() / 3, 3), numbers).unwrap()
    }
    fn change(&mut self) {
        self.map_inplace(|x| *x = *x / 2.0 - 1.0);
        self.swap_axes(0, 1);
    }
    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Sample for DataFrame {
    fn make(seed: u64, len: usize) -> Self {
        let numbers: Vec<u64> = numbers(seed, len / 40).collect();
        let maybe = |n: &u64| (!n.is_multiple_of(3)).then_some(*n as f64 / 7.0);
        let text = |n: &u64| format!("{n}{}", ", a text that is longer than a view holds".repeat(*n as usize % 2));
        df!(
            "number" => &numbers,
            "maybe" => numbers.iter().map(maybe).collect::<Vec<_>>(),
            "text" => numbers.iter().map(text).collect::<Vec<_>>(),
        )
        .unwrap()
    }
    fn change(&mut self) {
        *self = match self.height() {
            0..10 => self.vstack(self).unwrap(),
            rows => self.slice(2, rows / 2),
        };
    }
    fn is_same(&self, other: &Self) -> bool {
        self.schema() == other.schema() && self.equals_missing(other)
    }
}

/// How a chest is opened.
#[derive(Clone, Debug)]
struct Settings {
    budget: u64,
    policy: usize,
    compression: Compression,
    every_value_has_a_file: bool,
}

impl Settings {
    fn builder(&self) -> Builder {
        let builder = Chest::builder().budget(self.budget).compression(self.compression);
        let builder = if self.every_value_has_a_file { builder.inline_limit(0) } else { builder };
        match self.policy {
            0 => builder.policy(Coldest),
            1 => builder.policy(Largest),
            2 => builder.policy(Lru),
            3 => builder.policy(Lfu),
            4 => builder.policy(Mru),
            5 => builder.policy(Adaptive::default()),
            _ => builder.policy(Random),
        }
    }
}

/// What is done to a chest; keys are told by their number.
#[derive(Clone, Debug)]
enum Op {
    Insert(usize, Spec),
    /// Inserts a value that the test holds.
    Share(usize, Spec),
    Extend(Vec<usize>, Spec),
    Get(usize),
    /// Gets a value and holds it.
    Hold(usize),
    /// Drops all held values.
    Release,
    GetAsAnother(usize, Type),
    /// Gets an array or a frame as another type that reads it.
    GetAsRelative(usize),
    Look(usize),
    GetOrInsert(usize, Spec),
    Entry(usize, Spec),
    Update(usize),
    UpdateAndPanic(usize),
    Take(usize),
    Remove(usize),
    RemoveMany(Vec<usize>),
    Clear,
    Iterate(Type),
    Prefetch(Vec<usize>),
    Flush,
    SetBudget(u64),
    Reopen(Settings),
    CheckAll,
}

/// Keys that are easily taken for one another.
fn key(index: usize) -> Key {
    match index {
        0 => Key::from("1"),
        1 => Key::from(1),
        2 => Key::from(("1",)),
        3 => Key::from(b"1"),
        4 => Key::from(Path::new("../1")),
        5 => Key::from(""),
        6 => Key::from(("deep", ("é", -1i64), true)),
        _ => Key::of(&BTreeMap::from([("x", 0.5)])).unwrap(),
    }
}

const KEYS: usize = 8;

/// Mostly one of a few, so that operations meet.
fn a_key() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![2 => 0..2usize, 1 => 0..KEYS]
}

fn some_keys() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..KEYS, 0..KEYS)
}

fn budget() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..2000u64, 2000..300_000u64, 2000..300_000u64, Just(AMPLE)]
}

fn settings() -> impl Strategy<Value = Settings> {
    let compression = prop::sample::select(vec![Compression::Auto, Compression::Never, Compression::Small]);
    (budget(), 0..7usize, compression, any::<bool>()).prop_map(|(budget, policy, compression, file)| Settings {
        budget,
        policy,
        compression,
        every_value_has_a_file: file,
    })
}

fn a_type() -> impl Strategy<Value = Type> {
    prop::sample::select(TYPES.to_vec())
}

fn spec() -> impl Strategy<Value = Spec> {
    let len = prop_oneof![0..50usize, 0..5000usize, 0..200_000usize];
    (a_type(), 0..1000u64, len).prop_map(|(of, seed, len)| Spec { of, seed, len, changes: 0 })
}

fn op() -> impl Strategy<Value = Op> {
    let key = a_key();
    prop_oneof![
        8 => (key.clone(), spec()).prop_map(|(key, spec)| Op::Insert(key, spec)),
        2 => (key.clone(), spec()).prop_map(|(key, spec)| Op::Share(key, spec)),
        2 => (some_keys(), spec()).prop_map(|(keys, spec)| Op::Extend(keys, spec)),
        8 => key.clone().prop_map(Op::Get),
        4 => key.clone().prop_map(Op::Hold),
        2 => Just(Op::Release),
        3 => (key.clone(), a_type()).prop_map(|(key, of)| Op::GetAsAnother(key, of)),
        2 => key.clone().prop_map(Op::GetAsRelative),
        3 => key.clone().prop_map(Op::Look),
        2 => (key.clone(), spec()).prop_map(|(key, spec)| Op::GetOrInsert(key, spec)),
        2 => (key.clone(), spec()).prop_map(|(key, spec)| Op::Entry(key, spec)),
        4 => key.clone().prop_map(Op::Update),
        2 => key.clone().prop_map(Op::UpdateAndPanic),
        2 => key.clone().prop_map(Op::Take),
        3 => key.clone().prop_map(Op::Remove),
        1 => some_keys().prop_map(Op::RemoveMany),
        1 => Just(Op::Clear),
        1 => a_type().prop_map(Op::Iterate),
        2 => some_keys().prop_map(Op::Prefetch),
        2 => Just(Op::Flush),
        2 => budget().prop_map(Op::SetBudget),
        2 => settings().prop_map(Op::Reopen),
        1 => Just(Op::CheckAll),
    ]
}

/// A value that the test holds.
struct Handle {
    /// The chest that gave it, and for which key.
    on: usize,
    key: usize,
    spec: Spec,
    value: Arc<dyn Any + Send + Sync>,
    bytes: u64,
    /// Nothing was written to this key since, so the chest has to give this very value.
    is_newest: bool,
    /// The chest did not itself replace it, so it may count it as in memory.
    is_counted: bool,
}

/// Chests, and the dictionary that they have to agree with.
struct Run {
    chests: Vec<Chest>,
    budgets: Vec<u64>,
    model: BTreeMap<usize, Spec>,
    handles: Vec<Handle>,
    /// The directory of named chests.
    root: Option<PathBuf>,
    /// Dropped last.
    parent: TempDir,
}

impl Run {
    fn new(parent: TempDir, root: Option<PathBuf>, budgets: Vec<u64>, chests: Vec<Chest>) -> Self {
        Self { chests, budgets, model: BTreeMap::new(), handles: Vec::new(), root, parent }
    }

    /// Chests on one directory.
    fn named(settings: &[Settings]) -> Self {
        let parent = dir();
        let root = parent.path().join("chest");
        let chests = settings.iter().map(|settings| settings.builder().open(&root).unwrap()).collect();
        Self::new(parent, Some(root), settings.iter().map(|settings| settings.budget).collect(), chests)
    }

    fn temporary(settings: Settings) -> Self {
        let parent = dir();
        let chest = settings.builder().temporary_in(parent.path()).temporary().unwrap();
        Self::new(parent, None, vec![settings.budget], vec![chest])
    }

    /// Does it, compares the result, and checks what must hold at any time.
    fn step(&mut self, on: usize, op: &Op) {
        match op {
            Op::Insert(key, spec) => with_type!(spec.of, V => self.insert::<V>(on, *key, *spec)),
            Op::Share(key, spec) => with_type!(spec.of, V => self.share::<V>(on, *key, *spec)),
            Op::Extend(keys, spec) => with_type!(spec.of, V => self.extend::<V>(on, keys, *spec)),
            Op::Get(key) => with_type!(self.type_of(*key), V => drop(self.get::<V>(on, *key))),
            Op::Hold(key) => with_type!(self.type_of(*key), V => self.hold::<V>(on, *key)),
            Op::Release => self.release(),
            Op::GetAsAnother(key, of) => with_type!(of, V => self.get_as_another::<V>(on, *key, *of)),
            Op::GetAsRelative(key) => self.get_as_relative(on, *key),
            Op::Look(key) => with_type!(self.type_of(*key), V => self.look::<V>(on, *key)),
            Op::GetOrInsert(key, spec) => with_type!(spec.of, V => self.get_or_insert::<V>(on, *key, *spec)),
            Op::Entry(key, spec) => with_type!(spec.of, V => self.entry::<V>(on, *key, *spec)),
            Op::Update(key) => with_type!(self.type_of(*key), V => self.update::<V>(on, *key)),
            Op::UpdateAndPanic(key) => with_type!(self.type_of(*key), V => self.update_and_panic::<V>(on, *key)),
            Op::Take(key) => with_type!(self.type_of(*key), V => self.take::<V>(on, *key)),
            Op::Remove(key) => self.remove(on, *key),
            Op::RemoveMany(keys) => self.remove_many(on, keys),
            Op::Clear => self.clear(on),
            Op::Iterate(of) => with_type!(of, V => self.iterate::<V>(on, *of)),
            Op::Prefetch(keys) => {
                keys.iter().for_each(|key| with_type!(self.type_of(*key), V => self.prefetch::<V>(on, *key)))
            }
            Op::Flush => self.flush(on),
            Op::SetBudget(budget) => self.set_budget(on, *budget),
            Op::Reopen(settings) => self.reopen(on, settings),
            Op::CheckAll => self.check_all(on),
        }
        (0..self.chests.len()).for_each(|on| self.check_numbers(on));
    }

    /// The type of what the model has; any where it has nothing.
    fn type_of(&self, key: usize) -> Type {
        self.model.get(&key).map_or(Type::Number, |spec| spec.of)
    }

    fn has(&self, key: usize, of: Type) -> bool {
        self.model.get(&key).is_some_and(|spec| spec.of == of)
    }

    /// What the model has under a key now, was written by this chest. Several chests agree after each write is flushed.
    fn wrote(&mut self, on: usize, key: usize, spec: Option<Spec>) {
        match spec {
            Some(spec) => self.model.insert(key, spec),
            None => self.model.remove(&key),
        };
        for handle in self.handles.iter_mut().filter(|handle| handle.key == key) {
            handle.is_newest = false;
            handle.is_counted &= handle.on != on;
        }
        if self.chests.len() > 1 {
            self.flush(on);
        }
    }

    fn hold_value<V: Sample>(&mut self, on: usize, key: usize, value: Arc<V>) {
        let (spec, bytes) = (self.model[&key], value.size() as u64);
        self.handles.push(Handle { on, key, spec, value, bytes, is_newest: true, is_counted: true });
    }

    /// It is what the model has, and the very value that the test holds.
    fn check_value<V: Sample>(&self, on: usize, key: usize, value: &Arc<V>) {
        assert!(value.is_same(&V::of(self.model[&key])), "key {key} has another value");
        for held in self.handles.iter().filter(|held| held.is_newest && held.on == on && held.key == key) {
            let held = held.value.clone().downcast::<V>().unwrap();
            assert!(Arc::ptr_eq(value, &held), "key {key} is in memory twice");
        }
    }

    fn insert<V: Sample>(&mut self, on: usize, at: usize, spec: Spec) {
        self.chests[on].insert(key(at), V::of(spec)).unwrap();
        self.wrote(on, at, Some(spec));
    }

    fn share<V: Sample>(&mut self, on: usize, at: usize, spec: Spec) {
        let value = Arc::new(V::of(spec));
        self.chests[on].insert(key(at), value.clone()).unwrap();
        self.wrote(on, at, Some(spec));
        self.hold_value(on, at, value);
    }

    fn extend<V: Sample>(&mut self, on: usize, keys: &[usize], spec: Spec) {
        let spec = |i| Spec { seed: spec.seed + i as u64, ..spec };
        self.chests[on].extend(keys.iter().enumerate().map(|(i, &at)| (key(at), V::of(spec(i))))).unwrap();
        keys.iter().enumerate().for_each(|(i, &at)| self.wrote(on, at, Some(spec(i))));
    }

    fn get<V: Sample>(&self, on: usize, at: usize) -> Option<Arc<V>> {
        match self.chests[on].get::<V>(key(at)) {
            Ok(value) => {
                self.check_value(on, at, &value);
                Some(value)
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
                assert!(!self.model.contains_key(&at), "{error}");
                None
            }
        }
    }

    fn hold<V: Sample>(&mut self, on: usize, at: usize) {
        if let Some(value) = self.get::<V>(on, at) {
            self.hold_value(on, at, value);
        }
    }

    fn release(&mut self) {
        self.check_handles();
        self.handles.clear();
        // What the held values kept from being spilled goes when room is next asked for.
        (0..self.chests.len()).for_each(|on| self.set_budget(on, self.budgets[on]));
    }

    /// Every way to a value refuses the wrong type and changes nothing.
    fn get_as_another<V: Sample>(&mut self, on: usize, at: usize, of: Type) {
        if self.has(at, of) {
            return;
        }
        let chest = &self.chests[on];
        let before = in_memory(&chest.stats().unwrap());
        let missing = if self.model.contains_key(&at) { ErrorKind::WrongType } else { ErrorKind::NotFound };
        let is_missing = |error: icechest::Error| assert_eq!(error.kind(), missing, "{error}");
        is_missing(chest.get::<V>(key(at)).err().unwrap());
        is_missing(chest.take::<V>(key(at)).err().unwrap());
        is_missing(chest.update(key(at), |_: &mut V| unreachable!("not for another type")).unwrap_err());
        is_missing(chest.prefetch::<V, _>([key(at)]).unwrap().wait().unwrap_err());
        if self.model.contains_key(&at) {
            is_missing(chest.find::<V>(key(at)).err().unwrap());
            let make = || -> V { unreachable!("there is a value") };
            is_missing(chest.get_or_insert_with(key(at), make).err().unwrap());
            is_missing(
                chest.entry(key(at)).and_modify(|_: &mut V| unreachable!("not for another type")).err().unwrap(),
            );
        }
        // A chest that has company may have found that a value was replaced.
        assert!(self.chests.len() > 1 || before == in_memory(&chest.stats().unwrap()));
    }

    fn get_as_relative(&mut self, on: usize, at: usize) {
        let Some(&spec) = self.model.get(&at) else { return };
        match spec.of {
            Type::Array => {
                let found = self.chests[on].get::<AnyArray>(key(at)).unwrap();
                let found = found.downcast_ref::<f32>().unwrap().view().into_dimensionality().unwrap();
                assert_eq!(found, Array2::of(spec));
            }
            Type::Frame => {
                let (found, expected) = (self.chests[on].get::<RecordBatch>(key(at)).unwrap(), DataFrame::of(spec));
                assert_eq!((found.num_rows(), found.num_columns()), expected.shape());
            }
            _ => return,
        }
        // Memory has the value in this form now.
        for handle in self.handles.iter_mut().filter(|handle| handle.on == on && handle.key == at) {
            handle.is_newest = false;
        }
    }

    fn look<V: Sample>(&self, on: usize, at: usize) {
        let chest = &self.chests[on];
        let spec = self.model.get(&at);
        assert_eq!(chest.contains_key(key(at)).unwrap(), spec.is_some());
        match chest.info(key(at)) {
            Ok(info) => {
                let expected = V::of(*spec.unwrap());
                assert_eq!((info.key, info.kind, info.type_name), (key(at), V::KIND, expected.stored_name()));
            }
            Err(error) => assert!(error.kind() == ErrorKind::NotFound && spec.is_none(), "{error}"),
        }
        match chest.find::<V>(key(at)).unwrap() {
            Some(value) => self.check_value(on, at, &value),
            None => assert!(spec.is_none()),
        }
    }

    fn get_or_insert<V: Sample>(&mut self, on: usize, at: usize, spec: Spec) {
        if self.model.contains_key(&at) && !self.has(at, spec.of) {
            return;
        }
        let mut is_made = false;
        let value = self.chests[on].get_or_insert_with(key(at), || {
            is_made = true;
            V::of(spec)
        });
        let value = value.unwrap();
        assert_eq!(is_made, !self.model.contains_key(&at));
        if is_made {
            self.wrote(on, at, Some(spec));
        }
        self.check_value(on, at, &value);
    }

    /// Changes what is there, or inserts.
    fn entry<V: Sample>(&mut self, on: usize, at: usize, spec: Spec) {
        let now = self.model.get(&at).copied();
        if now.is_some_and(|now| now.of != spec.of) {
            return;
        }
        let chest = self.chests[on].clone();
        if now.is_none() {
            let failed = chest.entry(key(at)).or_try_insert_with(|| Err::<V, _>(std::io::Error::other("not made")));
            assert_eq!(failed.err().unwrap().to_string(), "not made");
            assert!(!chest.contains_key(key(at)).unwrap());
        }
        let entry = chest.entry(key(at)).and_modify(V::change).unwrap();
        let value = entry.or_insert_with(|| V::of(spec)).unwrap();
        self.wrote(on, at, Some(now.map_or(spec, Spec::changed)));
        self.check_value(on, at, &value);
    }

    fn update<V: Sample>(&mut self, on: usize, at: usize) {
        let now = self.model.get(&at).copied();
        let change = |value: &mut V| {
            assert!(value.is_same(&V::of(now.unwrap())));
            value.change();
            value.size()
        };
        match self.chests[on].update(key(at), change) {
            Ok(size) => {
                self.wrote(on, at, now.map(Spec::changed));
                let found = self.get::<V>(on, at).unwrap();
                // A frame may have come back from its file with other buffers.
                assert!(V::KIND == icechest::Kind::Frame || found.size() == size);
            }
            Err(error) => assert!(error.kind() == ErrorKind::NotFound && now.is_none(), "{error}"),
        }
    }

    /// A change that panics is none.
    fn update_and_panic<V: Sample>(&mut self, on: usize, at: usize) {
        let chest = self.chests[on].clone();
        let change = |value: &mut V| {
            value.change();
            resume_unwind(Box::new("no hook, no noise"));
        };
        let result = catch_unwind(AssertUnwindSafe(|| chest.update::<V, ()>(key(at), change)));
        assert_eq!(result.is_err(), self.model.contains_key(&at));
        self.get::<V>(on, at);
    }

    fn take<V: Sample>(&mut self, on: usize, at: usize) {
        match self.chests[on].take::<V>(key(at)) {
            Ok(value) => {
                self.check_value(on, at, &value);
                self.wrote(on, at, None);
            }
            Err(error) => {
                assert!(error.kind() == ErrorKind::NotFound && !self.model.contains_key(&at), "{error}");
            }
        }
    }

    fn remove(&mut self, on: usize, at: usize) {
        assert_eq!(self.chests[on].remove(key(at)).unwrap(), self.model.contains_key(&at));
        self.wrote(on, at, None);
    }

    fn remove_many(&mut self, on: usize, keys: &[usize]) {
        let there: BTreeSet<_> = keys.iter().filter(|at| self.model.contains_key(at)).collect();
        assert_eq!(self.chests[on].remove_many(keys.iter().map(|&at| key(at))).unwrap(), there.len());
        keys.iter().for_each(|&at| self.wrote(on, at, None));
    }

    fn clear(&mut self, on: usize) {
        self.chests[on].clear().unwrap();
        self.model.clone().into_keys().for_each(|at| self.wrote(on, at, None));
        assert!(self.chests[on].is_empty().unwrap());
    }

    fn iterate<V: Sample>(&self, on: usize, of: Type) {
        let mut rest: BTreeMap<Key, usize> =
            self.model.iter().filter(|(_, spec)| spec.of == of).map(|(&at, _)| (key(at), at)).collect();
        for entry in self.chests[on].iter::<V>().unwrap() {
            let (key, value) = entry.unwrap();
            let at = rest.remove(&key).expect("each key of this type comes once");
            self.check_value(on, at, &value);
        }
        assert_eq!(rest, BTreeMap::new());
    }

    fn prefetch<V: Sample>(&self, on: usize, at: usize) {
        let chest = &self.chests[on];
        match chest.prefetch::<V, _>([key(at)]).unwrap().wait() {
            Ok(resident) => {
                assert!(self.model.contains_key(&at));
                assert!(resident == 1 || self.budgets[on] < AMPLE);
                let loads = chest.stats().unwrap().loads;
                self.get::<V>(on, at);
                assert!(resident == 0 || chest.stats().unwrap().loads == loads, "it was not in memory");
            }
            Err(error) => {
                assert!(error.kind() == ErrorKind::NotFound && !self.model.contains_key(&at), "{error}");
            }
        }
    }

    fn flush(&self, on: usize) {
        self.chests[on].flush().unwrap();
        assert_eq!(self.chests[on].stats().unwrap().dirty, 0);
    }

    fn set_budget(&mut self, on: usize, budget: u64) {
        self.chests[on].set_budget(budget).unwrap();
        self.budgets[on] = budget;
    }

    /// Drops a named chest and opens it again; of a temporary one only a clone goes.
    fn reopen(&mut self, on: usize, settings: &Settings) {
        let Some(root) = &self.root else {
            self.chests[on] = self.chests[on].clone();
            return;
        };
        drop(self.chests.remove(on));
        self.chests.insert(on, settings.builder().open(root).unwrap());
        self.budgets[on] = settings.budget;
        for handle in self.handles.iter_mut().filter(|handle| handle.on == on) {
            handle.is_newest = false;
            handle.is_counted = false;
        }
    }

    fn check_numbers(&self, on: usize) {
        let stats = self.chests[on].stats().unwrap();
        assert_eq!(stats.values, self.model.len() as u64);
        assert_eq!(stats.budget, self.budgets[on]);
        let mut seen = HashSet::new();
        let counted = |held: &&Handle| held.on == on && held.is_counted && seen.insert(Arc::as_ptr(&held.value).addr());
        let held: u64 = self.handles.iter().filter(counted).map(|held| held.bytes).sum();
        assert!(stats.resident_bytes <= stats.budget + held, "{held} bytes are held\n{stats}");
    }

    /// What the test holds is as it was, whatever happened to its key.
    fn check_handles(&self) {
        for handle in &self.handles {
            with_type!(handle.spec.of, V => {
                let value = handle.value.downcast_ref::<V>().unwrap();
                assert!(value.is_same(&V::of(handle.spec)), "a held value of key {} has changed", handle.key);
            });
        }
    }

    fn check_all(&self, on: usize) {
        let chest = &self.chests[on];
        let expected: BTreeSet<Key> = self.model.keys().map(|&at| key(at)).collect();
        let keys = chest.keys().unwrap();
        assert_eq!(keys.len(), expected.len());
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), expected);
        assert_eq!(chest.infos().unwrap().into_iter().map(|info| info.key).collect::<BTreeSet<_>>(), expected);
        assert_eq!(chest.len().unwrap(), expected.len() as u64);
        (0..KEYS).for_each(|at| with_type!(self.type_of(at), V => self.look::<V>(on, at)));
        TYPES.iter().for_each(|of| with_type!(of, V => self.iterate::<V>(on, *of)));
        self.check_handles();
    }

    /// A named chest has everything and nothing else when it is opened again; a temporary one leaves nothing.
    fn end(mut self) {
        (0..self.chests.len()).for_each(|on| self.check_all(on));
        let Some(root) = self.root.clone() else {
            self.chests.clear();
            assert_eq!(names(self.parent.path()), BTreeSet::new());
            return;
        };
        self.chests.clear();
        self.handles.clear();
        self.chests.push(Chest::open(&root).unwrap());
        self.check_all(0);
        let files = self.chests[0].infos().unwrap().into_iter().filter_map(|info| info.file);
        let files: BTreeSet<String> = files.map(|file| file.strip_prefix("values/").unwrap().to_owned()).collect();
        assert_eq!(names(&root.join("values")), files);
        assert_eq!(names(&root.join("tmp")), BTreeSet::new());
    }
}

/// What a call that fails must leave as it was.
fn in_memory(stats: &Stats) -> (u64, u64, u64) {
    (stats.values, stats.resident, stats.resident_bytes)
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
