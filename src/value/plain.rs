//! Plain values: any serde type, stored as bincode.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Kind, Value};
use crate::error::Result;
use crate::format::{Decoder, Encoder, Format, bincode};

/// A serde type that a chest stores as bincode. The types of `std` have it; for yours write one derive or one line.
///
/// ```
/// use icechest::{Chest, Plain};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Plain)]
/// struct Model { weights: Vec<f64>, epochs: u32 }
///
/// #[derive(Serialize, Deserialize)]
/// struct Split(usize, usize);
/// impl Plain for Split {}
///
/// let chest = Chest::temporary()?;
/// chest.insert("model", Model { weights: vec![0.5; 3], epochs: 10 })?;
/// chest.insert("split", Split(80, 20))?;
/// assert_eq!(chest.get::<Model>("model")?.epochs, 10);
/// # Ok::<(), icechest::Error>(())
/// ```
///
/// Bincode does not describe itself, so a value is read only as the type whose [`name`](Self::name) it was stored under.
/// Two limits come from that: attributes that need a self-describing format (`untagged`, `flatten`,
/// `skip_serializing_if`) do not work, and a type that changed its fields should change its name.
///
/// The size that counts against the budget is that of the value itself plus that of its encoding, which is close to
/// what its heap holds.
pub trait Plain: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name in the catalog. By default the full path of the type, so a type that moved to another module needs its
    /// old name here: `#[plain(name = "…")]` in the derive.
    fn name() -> String {
        std::any::type_name::<Self>().to_owned()
    }
}

impl<T: Plain> Value for T {
    const KIND: Kind = Kind::Plain;

    fn type_name() -> String {
        T::name()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + bincode::encoded_len(self)
    }

    fn check(&self) -> Result<()> {
        bincode::check(self)
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        bincode::encode(self, out)
    }

    fn decode(input: &mut Decoder) -> Result<Self> {
        bincode::decode(input)
    }
}

macro_rules! plain {
    ($($type:ty => $name:literal),* $(,)?) => {$(
        impl Plain for $type {
            fn name() -> String {
                $name.to_owned()
            }
        }
    )*};
}
plain!(
    () => "()", bool => "bool", char => "char", String => "String", PathBuf => "PathBuf",
    i8 => "i8", i16 => "i16", i32 => "i32", i64 => "i64", i128 => "i128", isize => "isize",
    u8 => "u8", u16 => "u16", u32 => "u32", u64 => "u64", u128 => "u128", usize => "usize",
    f32 => "f32", f64 => "f64", Duration => "Duration", SystemTime => "SystemTime",
    IpAddr => "IpAddr", Ipv4Addr => "Ipv4Addr", Ipv6Addr => "Ipv6Addr", SocketAddr => "SocketAddr",
);

macro_rules! plain_of_one {
    ($($type:ident<T $(: $($bound:ident)+)?>),*) => {$(
        impl<T: Plain $($(+ $bound)+)?> Plain for $type<T> {
            fn name() -> String {
                format!("{}<{}>", stringify!($type), T::name())
            }
        }
    )*};
}
plain_of_one!(Option<T>, Vec<T>, Box<T>, VecDeque<T>, BTreeSet<T: Ord>, BinaryHeap<T: Ord>);

impl<T: Plain + Eq + Hash, S: BuildHasher + Default + Send + Sync + 'static> Plain for HashSet<T, S> {
    fn name() -> String {
        format!("HashSet<{}>", T::name())
    }
}

impl<K: Plain + Eq + Hash, V: Plain, S: BuildHasher + Default + Send + Sync + 'static> Plain for HashMap<K, V, S> {
    fn name() -> String {
        format!("HashMap<{}, {}>", K::name(), V::name())
    }
}

impl<K: Plain + Ord, V: Plain> Plain for BTreeMap<K, V> {
    fn name() -> String {
        format!("BTreeMap<{}, {}>", K::name(), V::name())
    }
}

impl<T: Plain, E: Plain> Plain for std::result::Result<T, E> {
    fn name() -> String {
        format!("Result<{}, {}>", T::name(), E::name())
    }
}

macro_rules! plain_tuples {
    ($(($($part:ident)*))*) => {$(
        impl<$($part: Plain),*> Plain for ($($part,)*) {
            fn name() -> String {
                format!("({})", [$($part::name()),*].join(", "))
            }
        }
    )*};
}
plain_tuples!((A)(A B)(A B C)(A B C D)(A B C D E)(A B C D E F)(A B C D E F G)(A B C D E F G H));

macro_rules! plain_fixed {
    ($($len:literal)*) => {$(
        impl<T: Plain> Plain for [T; $len] {
            fn name() -> String {
                format!("[{}; {}]", T::name(), $len)
            }
        }
    )*};
}
// The lengths for which serde has an implementation.
plain_fixed!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32);
