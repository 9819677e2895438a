//! Frames: polars and Arrow, of every type that Parquet carries, and of some that it does not.

use std::fmt::Debug;

use icechest::{Chest, ErrorKind, FrameFormat, Value};

use crate::helpers::dir;

mod arrow;
mod polars;

/// Stores values, each in place of an older one. Either a value is kept, comes back the same from memory and from disk,
/// and its answer is `Ok`; or it is refused at once, both it and the older value are still there, and its answer is the
/// message.
fn kept_each<V>(values: &[V], same: fn(&V, &V) -> Result<(), String>) -> Vec<Result<(), String>>
where
    V: Value + Clone + Debug,
{
    let answers = kept_each_in(FrameFormat::Arrow, values, same);
    assert_eq!(answers, kept_each_in(FrameFormat::Parquet, values, same), "what is refused hangs on the type alone");
    answers
}

fn kept_each_in<V>(format: FrameFormat, values: &[V], same: fn(&V, &V) -> Result<(), String>) -> Vec<Result<(), String>>
where
    V: Value + Clone + Debug,
{
    let dir = dir();
    let open = || Chest::builder().inline_limit(0).frame_format(format).open(dir.path()).unwrap();
    let chest = open();
    let insert = |(key, value): (usize, &V)| {
        chest.insert(key, "the older value").unwrap();
        let Err(error) = chest.insert(key, value.clone()) else { return Ok(()) };
        assert_eq!((error.kind(), error.key()), (ErrorKind::Unsupported, Some(&key.into())), "{error}");
        let text = error.to_string();
        same(value, &error.into_value::<V>().expect("the refused value")).unwrap();
        Err(text)
    };
    let answers: Vec<_> = values.iter().enumerate().map(insert).collect();
    let check = |chest: &Chest, when: &str| {
        for (key, (value, answer)) in values.iter().zip(&answers).enumerate() {
            if answer.is_err() {
                assert_eq!(*chest.get::<String>(key).unwrap(), "the older value");
                continue;
            }
            let found = chest.get::<V>(key).unwrap_or_else(|error| panic!("{when}: {error}\n{value:?}"));
            same(value, &found).unwrap_or_else(|error| panic!("{when}: {error}\nwas {value:?}\nis {found:?}"));
        }
    };
    check(&chest, "resident");
    chest.flush().unwrap();
    chest.set_budget(0).unwrap();
    check(&chest, "after spilling");
    drop(chest);
    check(&open(), "after reopening");
    answers
}

fn kept<V: Value + Clone + Debug>(value: &V, same: fn(&V, &V) -> Result<(), String>) -> Result<(), String> {
    kept_each(std::slice::from_ref(value), same).remove(0)
}

/// The frames of one type as the other, from memory and after reopening. The check is told which frame it is.
fn read_each_as<V: Value + Clone, W: Value>(stored: Vec<V>, check: impl Fn(usize, &W)) {
    let dir = dir();
    let len = stored.len();
    let chest = Chest::open(dir.path()).unwrap();
    stored.into_iter().enumerate().for_each(|(key, frame)| chest.insert(key, frame).unwrap());
    let read = |chest: &Chest| {
        for key in 0..len {
            check(key, &chest.get::<W>(key).unwrap());
            chest.get::<V>(key).unwrap();
        }
    };
    read(&chest);
    drop(chest);
    read(&Chest::open(dir.path()).unwrap());
}

fn read_as<V: Value + Clone, W: Value>(stored: V, check: impl Fn(&W)) {
    read_each_as(vec![stored], |_, frame| check(frame));
}
