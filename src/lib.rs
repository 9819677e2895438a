//! A dictionary that spills: arrays, dataframes and plain values in memory under a budget, the rest in open files.
//!
//! A [`Chest`] feels like a `HashMap`. What does not fit into its budget goes to a directory, one file a value: Parquet
//! for frames, NPY or Blosc2 for arrays, compressed bincode for serde types. Any later run, other process and other tool
//! reads them.
//!
//! ```
//! use icechest::Chest;
//!
//! # let parent = tempfile::tempdir()?;
//! # let dir = parent.path().join("chest");
//! let chest = Chest::builder().budget("1MiB").open(&dir)?;
//! for i in 0..10 {
//!     chest.insert(("part", i), vec![i as f64; 50_000])?; // 400 kB each, so most of them spill
//! }
//! assert!(chest.stats()?.resident_bytes <= 1 << 20);
//! assert_eq!(chest.get::<Vec<f64>>(("part", 3))?[0], 3.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to look
//!
//! - [`Chest`]: the dictionary; [`Builder`]: its settings.
//! - [`Key`]: what names a value; [`Digest`]: keys by the content of files and folders, [`Content`] of arrays and frames.
//! - [`Chest::slice`], [`Chest::select`]: parts of values; [`Chest::view`]: arrays without a copy; [`Chest::scan`],
//!   [`Chest::sink`]: queries over frames; [`Chest::append`]: rows that are added.
//! - [`Chest::stage`] and [`#[stage]`](macro@stage): functions that run once for each distinct call; [`Stored`]: their
//!   results, as arguments of each other.
//! - [`Chest::insert_files`], [`Chest::restore`]: files and folders as values.
//! - [`Value`] and [`Plain`]: what can be stored, and how to add types of your own.
//! - [`Policy`] and [`Budget`]: what stays in memory, and how much; [`Chest::pin`], [`Chest::prefer_disk`]: exceptions.
//! - [`Chest::prefetch`]: values that come into memory before they are needed.
//! - [`Durability`], [`Chest::check`]: crashes, power cuts and damage.
//! - [`Error`]: what went wrong, and what to do.
//!
//! # Guarantees
//!
//! Strong, that is, they hold whenever a call has returned:
//! - A value that was inserted is there until it is removed, or evicted by a [limit](Builder::max_disk). When it cannot
//!   be written it stays in memory.
//! - What `get` returns is what was inserted last in this process, or published last by any. Stored bytes are verified
//!   by a 128-bit checksum before they are decoded; those of files that are mapped ([`view`](Chest::view), [`StoredArray`],
//!   [`scan`](Chest::scan), [`FrameFormat::Arrow`]) when this process maps a version first, unless it wrote it. Any other change to a file is an error of kind
//!   [`Damaged`](ErrorKind::Damaged), for the keys concerned alone; [`Chest::check`] finds and repairs it.
//! - After [`flush`](Chest::flush) a value survives the death of the process, after [`sync`](Chest::sync) a power cut.
//!
//! Eventual:
//! - Other processes see a value once it is published: in moments, or when [`flush`](Chest::flush) returns.
//! - It is durable some seconds later, or as [`Durability`] says.
//! - Disk space of values that were replaced or removed after they were durable is free with the next sync: after 5
//!   seconds by default, and as soon as they take 64 MiB.
//! - The catalog's log does not shrink while the chest is open: up to some 50 MiB.
//!
//! A chest lives on a local disk; network file systems are refused. It is not usable in a forked child, which gets an
//! error and opens it again.
//!
//! Memory beyond the budget: values that you hold and that do not fit, and one that each thread inserts; buffers of up to
//! 20 MiB, and the row group of a frame that is being written (16 to 32 MiB), for each core, of which two at least, as only
//! so many threads write at the same time; the same for each thread that reads a file, or inserts a value that does not
//! become resident; 24 MiB for each array or frame that is written in pieces; the catalog's caches, of 20 MiB for writing and
//! up to 16 MiB for reading; 16 MiB of arrays that were spilled, for the next ones, in each process. A digest of an array that
//! is not in C order takes up to 48 MiB. The system's allocator may keep freed memory on top of that, most where many threads
//! decode frames.
//!
//! # Features
//!
//! `polars`, `arrow`, `ndarray` and `blosc` (all on by default) bring in the types of those crates, `lazy` (on too) the
//! queries of polars, which take long to compile; `tracing` (on too) tells of the calls of stages; `zstd` compresses plain
//! values further and comes with the first two. Without any, the core holds plain values.

// The benchmark of policies, which names the crate, is part of the unit tests too.
#[cfg(test)]
extern crate self as icechest;

#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
mod append;
mod builder;
mod chest;
mod disk;
mod entry;
mod error;
mod files;
mod format;
mod info;
mod iter;
mod key;
#[cfg(feature = "lazy")]
mod lazy;
mod memory;
mod pause;
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
mod select;
mod stage;
mod store;
mod sync;
mod value;
#[cfg(feature = "ndarray")]
mod view;
#[cfg(any(feature = "arrow", feature = "lazy", feature = "ndarray"))]
mod writer;

pub use builder::{Builder, Durability, WhenFull};
pub use chest::Chest;
pub use disk::check::Check;
pub use disk::report::{Damage, Progress, Report};
pub use entry::Entry;
pub use error::{Error, ErrorKind, Result};
pub use format::{Compression, Decoder, Encoder, Format, FrameFormat};
pub use icechest_macros::{Plain, stage};
pub use info::{Info, Stats};
pub use key::{Content, Digest, FolderOptions, Key, Keymap, Round, Signature, paths_matching};
pub use memory::{Adaptive, Budget, Coldest, Event, Hint, Largest, Lfu, Lru, Mru, Policy, Random, Rank, Usage};
/// The version of polars whose `DataFrame` a chest holds.
#[cfg(feature = "polars")]
pub use polars_core as polars;
#[cfg(feature = "arrow")]
pub use select::Batches;
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
pub use select::Select;
#[doc(hidden)]
pub use stage::private as __private;
pub use stage::{
    Call, CallEvent, CallInfo, FileContent, FolderContent, Memo, Output, PathContent, Run, Stage, StageStats, Status,
    Stored, WhenUnkeyable,
};
pub use store::Prefetch;
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
pub use value::Partial;
#[cfg(feature = "ndarray")]
pub use value::{AnyArray, Element, StoredArray};
pub use value::{FileEntry, Files, IntoValue, Kind, Plain, Value};
#[cfg(feature = "ndarray")]
pub use writer::ArrayWriter;
#[cfg(feature = "arrow")]
pub use writer::FrameWriter;

/// The README's snippets are tests.
#[cfg(all(doctest, feature = "polars", feature = "ndarray"))]
#[doc = include_str!("../README.md")]
struct Readme;
