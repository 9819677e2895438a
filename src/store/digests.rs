//! Digests of files, remembered as long as the files are as they were.
//!
//! A file is known by its absolute path, and is as it was if its device, inode, size and both its times are. A time tells
//! little of a file that was changed just before it was read: another change within the same tick of the file system's
//! clock leaves the time as it is. So what is that young is read again, each time, until it has settled.
//!
//! What this cannot see: bytes that are written through a mapping shared before and not yet told to the file system; a
//! change after the clock of the system was set back, to the very nanosecond of the change before; a network file system
//! that tells times of its server late. [`Digest::of_path`] reads everything.

use std::fs::canonicalize;
use std::path::{Path, PathBuf, absolute};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::disk::{Catalog, KnownDigest};
use crate::error::{Error, Result};
use crate::key::path::{Stamp, look, nanoseconds, of_folder, read};
use crate::key::{Digest, FolderOptions, Map};

/// Digests in memory; more are forgotten, and found in the catalog.
const MANY: usize = 100_000;

/// How long a file must have been as it is, where the file system counts nanoseconds: its clock ticks every few
/// milliseconds.
const SETTLED_NS: i64 = 50_000_000;

/// The same where it seems to count milliseconds or seconds: some count by two of them.
const COARSE_NS: i64 = 2_500_000_000;

/// So much is written to the catalog at once: rows, or bytes that would have to be read again.
const ROWS: usize = 256;
const BYTES: u64 = 16 << 20;

/// The digests that an open chest knows.
pub(crate) struct Digests {
    /// None where they are not kept: in a temporary chest.
    catalog: Option<Arc<Catalog>>,
    known: Mutex<Map<PathBuf, KnownDigest>>,
    /// Those that the catalog does not know yet.
    unwritten: Mutex<Vec<(PathBuf, KnownDigest)>>,
    /// A forked child leaves the catalog alone.
    process: u32,
    /// The chest's own directory: what a call stores there does not change the call.
    root: PathBuf,
}

impl Digests {
    pub(super) fn new(catalog: Option<Arc<Catalog>>, root: PathBuf) -> Self {
        Self { catalog, known: Mutex::default(), unwritten: Mutex::default(), process: process::id(), root }
    }

    /// The digest of a file or a folder, of whose files those are read that are not known. The directory of the chest in such
    /// a folder does not count.
    ///
    /// # Errors
    /// As [`Digest::of_path`].
    pub(crate) fn of_path(&self, path: &Path, options: &FolderOptions) -> Result<Digest> {
        let path = full(path)?;
        match look(&path)? {
            (meta, _) if meta.is_dir() => {
                let holds_us = canonicalize(&path).is_ok_and(|real| self.root != real && self.root.starts_with(real));
                let without = holds_us.then(|| options.clone().without(&self.root));
                of_folder(&path, without.as_ref().unwrap_or(options), &|path, stamp| self.of(path, stamp))
            }
            (_, stamp) => self.of(&path, &stamp),
        }
    }

    fn of(&self, path: &Path, stamp: &Stamp) -> Result<Digest> {
        let began = nanoseconds(SystemTime::now());
        if let Some(digest) = self.find(path, stamp, began) {
            return Ok(digest);
        }
        let digest = read(path, stamp)?;
        if is_settled(stamp, began) {
            self.keep(path, KnownDigest { stamp: *stamp, hashed_ns: began, digest });
        }
        Ok(digest)
    }

    fn find(&self, path: &Path, stamp: &Stamp, now: i64) -> Option<Digest> {
        let is_same =
            |known: &KnownDigest| known.stamp == *stamp && is_settled(stamp, known.hashed_ns) && is_settled(stamp, now);
        if let Some(known) = lock(&self.known).get(path).filter(|known| is_same(known)) {
            return Some(known.digest);
        }
        // What the catalog does not tell is read.
        let known = self.catalog()?.digest(path.as_os_str().as_encoded_bytes()).ok()?.filter(is_same)?;
        self.remember(path, known);
        Some(known.digest)
    }

    fn remember(&self, path: &Path, known: KnownDigest) {
        let mut all = lock(&self.known);
        if all.len() >= MANY {
            all.clear();
        }
        all.insert(path.to_owned(), known);
    }

    fn keep(&self, path: &Path, known: KnownDigest) {
        self.remember(path, known);
        if self.catalog().is_none() {
            return;
        }
        let mut unwritten = lock(&self.unwritten);
        unwritten.push((path.to_owned(), known));
        let bytes = unwritten.iter().fold(0, |sum: u64, (_, known)| sum.saturating_add(known.stamp.size));
        if unwritten.len() >= ROWS || bytes >= BYTES {
            let rows = std::mem::take(&mut *unwritten);
            drop(unwritten);
            self.write(&rows);
        }
    }

    fn write(&self, rows: &[(PathBuf, KnownDigest)]) {
        if let Some(catalog) = self.catalog().filter(|_| !rows.is_empty()) {
            // What could not be written is read again by the next process.
            let _ = catalog.put_digests(rows.iter().map(|(path, known)| (path.as_os_str().as_encoded_bytes(), *known)));
        }
    }

    fn catalog(&self) -> Option<&Catalog> {
        self.catalog.as_deref().filter(|_| self.process == process::id())
    }
}

impl Drop for Digests {
    fn drop(&mut self) {
        let rows = std::mem::take(&mut *lock(&self.unwritten));
        self.write(&rows);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn full(path: &Path) -> Result<PathBuf> {
    absolute(path).map_err(|error| Error::io("cannot tell the absolute path", error).with_path(path))
}

/// Whether a file of this stamp had been as it is for so long at this time that a later change cannot have the same times.
fn is_settled(stamp: &Stamp, time_ns: i64) -> bool {
    let newest = stamp.modified_ns.max(stamp.changed_ns);
    let slack = if stamp.changed_ns % 1_000_000 == 0 { COARSE_NS } else { SETTLED_NS };
    time_ns.saturating_sub(newest) >= slack
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests;
