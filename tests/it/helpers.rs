//! What the tests share: chests in directories of their own, and values that must come out as they went in.

use std::any::type_name;
use std::fmt::Debug;

use icechest::{Builder, Chest, Compression, Value};
use tempfile::TempDir;

/// An empty directory, removed when it is dropped.
pub(crate) fn dir() -> TempDir {
    tempfile::Builder::new().prefix("icechest-it-").tempdir().unwrap()
}

/// A value that is put into chests.
pub(crate) trait Case: Debug {
    fn insert(&self, chest: &Chest, key: &str);
    fn check(&self, chest: &Chest, key: &str);
}

/// A value, and what "the same" means for its type.
struct Same<V>(V, fn(&V, &V) -> bool);

impl<V: Value> Debug for Same<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} bytes", type_name::<V>(), self.0.size())
    }
}

impl<V: Value + Clone> Case for Same<V> {
    fn insert(&self, chest: &Chest, key: &str) {
        // A copy: the chest's own value is not pinned by this test.
        chest.insert(key, self.0.clone()).unwrap_or_else(|error| panic!("{self:?} at {key}: {error}"));
    }

    fn check(&self, chest: &Chest, key: &str) {
        let found = chest.get::<V>(key).unwrap_or_else(|error| panic!("{self:?} at {key}: {error}"));
        assert!((self.1)(&self.0, &found), "{self:?} at {key} came back as another value: {:?}", chest.info(key));
    }
}

/// A value that must come back, by this measure.
pub(crate) fn same_by<V: Value + Clone>(value: V, same: fn(&V, &V) -> bool) -> Box<dyn Case> {
    Box::new(Same(value, same))
}

/// A value that must come back equal.
pub(crate) fn same<V: Value + Clone + PartialEq>(value: V) -> Box<dyn Case> {
    same_by(value, V::eq)
}

/// Puts all cases into chests with every place and compression, and checks them while they are resident, after they
/// were spilled, and after reopening.
pub(crate) fn come_back(cases: &[Box<dyn Case>]) {
    for compression in [Compression::Auto, Compression::Never, Compression::Small] {
        for inline_limit in [16 << 10, 0] {
            let settings = || Chest::builder().compression(compression).inline_limit(inline_limit);
            come_back_in(settings, cases);
        }
    }
}

/// As [`come_back`], in chests with these settings.
pub(crate) fn come_back_in(settings: impl Fn() -> Builder, cases: &[Box<dyn Case>]) {
    let dir = dir();
    let key = |index: usize| format!("case {index}");
    let check = |chest: &Chest| cases.iter().enumerate().for_each(|(i, case)| case.check(chest, &key(i)));

    let chest = settings().open(dir.path()).unwrap();
    cases.iter().enumerate().for_each(|(i, case)| case.insert(&chest, &key(i)));
    check(&chest);
    chest.flush().unwrap();
    chest.set_budget(0).unwrap();
    assert_eq!(chest.stats().unwrap().resident, 0);
    check(&chest);
    drop(chest);
    check(&settings().open(dir.path()).unwrap());
}
