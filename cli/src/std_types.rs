//! Plain values of the types of `std`: a stored value tells its type by name only, so the likely ones are tried.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use icechest::{Plain, Value};

/// What is done with a value once its type is known.
pub(crate) trait Visitor {
    type Output;
    fn visit<T: Plain + Debug + PartialEq>(self) -> Self::Output;
}

/// Calls the visitor with the type of this name, if it is one of those known here.
pub(crate) fn visit<V: Visitor>(type_name: &str, visitor: V) -> Option<V::Output> {
    macro_rules! try_each {
        ($($type:ty),* $(,)?) => {
            $(if <$type as Value>::type_name() == type_name {
                return Some(visitor.visit::<$type>());
            })*
        };
    }
    macro_rules! try_scalars {
        ($($type:ty),*) => { try_each!($($type, Vec<$type>, Option<$type>),*) };
    }
    try_scalars!(bool, char, String, PathBuf, Duration, SystemTime);
    try_scalars!(i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize, f32, f64);
    try_each!(
        (),
        (f64, f64),
        (String, f64),
        (String, String),
        Vec<(f64, f64)>,
        Vec<(String, f64)>,
        Vec<(String, u64)>,
        Vec<(String, String)>,
        Vec<Vec<f32>>,
        Vec<Vec<f64>>,
        Vec<Vec<i64>>,
        Vec<Vec<String>>,
        HashMap<String, String>,
        HashMap<String, bool>,
        HashMap<String, i32>,
        HashMap<String, i64>,
        HashMap<String, u32>,
        HashMap<String, u64>,
        HashMap<String, usize>,
        HashMap<String, f64>,
        HashMap<String, Vec<String>>,
        HashMap<String, Vec<f64>>,
        BTreeMap<String, String>,
        BTreeMap<String, i64>,
        BTreeMap<String, u64>,
        BTreeMap<String, usize>,
        BTreeMap<String, f64>,
        BTreeMap<String, Vec<String>>,
        BTreeMap<String, Vec<f64>>,
    );
    None
}

/// Whether [`visit`] knows the type of this name.
pub(crate) fn knows(type_name: &str) -> bool {
    struct Known;
    impl Visitor for Known {
        type Output = ();
        fn visit<T: Plain + Debug + PartialEq>(self) {}
    }
    visit(type_name, Known).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_the_name_that_the_library_gives() {
        for name in ["u8", "Vec<f64>", "Option<String>", "HashMap<String, f64>", "(String, f64)", "()"] {
            assert!(knows(name), "{name}");
        }
        assert!(!knows("my_crate::Model"));
    }
}
