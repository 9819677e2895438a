//! Frames: polars and Arrow, of every type that Parquet carries, and of some that it does not.

use std::fmt::Debug;
use std::sync::Arc;

use icechest::{Chest, ErrorKind, Value};

use crate::helpers::dir;

mod arrow;
mod polars;

/// Stores a value in place of an older one. Either it is kept, comes back the same from memory and from disk, and this
/// is `Ok`; or it is refused at once, both it and the older value are still there, and this is the message.
fn kept<V: Value + Clone + Debug>(value: &V, same: fn(&V, &V) -> Result<(), String>) -> Result<(), String> {
    let dir = dir();
    let open = || Chest::builder().inline_limit(0).open(dir.path()).unwrap();
    let chest = open();
    chest.insert("k", "the older value").unwrap();
    if let Err(error) = chest.insert("k", value.clone()) {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(error.key(), Some(&"k".into()));
        let text = error.to_string();
        same(value, &error.into_value::<V>().expect("the refused value")).unwrap();
        assert_eq!(*chest.get::<String>("k").unwrap(), "the older value");
        return Err(text);
    }
    let check = |chest: &Chest, when: &str| {
        let found = chest.get::<V>("k").unwrap_or_else(|error| panic!("{when}: {error}\n{value:?}"));
        same(value, &found).unwrap_or_else(|error| panic!("{when}: {error}\nwas {value:?}\nis {found:?}"));
    };
    check(&chest, "resident");
    chest.flush().unwrap_or_else(|error| panic!("{error}\n{value:?}"));
    chest.set_budget(0).unwrap();
    check(&chest, "after spilling");
    drop(chest);
    check(&open(), "after reopening");
    Ok(())
}

/// The frame of one type as the other, from memory and after reopening.
fn read_as<V: Value + Clone, W: Value>(stored: V, check: impl Fn(&W)) {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    chest.insert("k", Arc::new(stored)).unwrap();
    check(&chest.get::<W>("k").unwrap());
    chest.get::<V>("k").unwrap();
    drop(chest);
    let chest = Chest::open(dir.path()).unwrap();
    check(&chest.get::<W>("k").unwrap());
    chest.get::<V>("k").unwrap();
}
