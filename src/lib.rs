//! A dictionary that spills: arrays, dataframes and plain values in memory under a budget, the rest in open files.
#![doc = ""]
mod builder;
mod chest;
mod disk;
mod entry;
mod error;
mod format;
mod info;
mod key;
mod memory;
mod store;
mod value;

pub use builder::Builder;
pub use chest::Chest;
pub use entry::Entry;
pub use error::{Error, ErrorKind, Result};
pub use format::{Compression, Decoder, Encoder, Format};
pub use icechest_macros::Plain;
pub use info::{Info, Stats};
pub use key::{Digest, Key};
pub use memory::{Budget, Coldest, Largest, Lfu, Lru, Mru, Policy, Random, Rank, Usage};
#[cfg(feature = "ndarray")]
pub use value::{AnyArray, Element};
pub use value::{IntoValue, Kind, Plain, Value};
