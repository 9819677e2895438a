//! Values in the directory: written under a temporary name, published, read, removed.

use std::io;
use std::mem::take;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value as Json;

use super::catalog::{Excess, OwnCommit, Row};
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
use super::parts::Part;
use super::parts::{FACT, Place, too_large};
use super::storage::{StorageFile, read_exact_at, retry};
use super::{CATALOG, Disk, LOCKS, TMP, VALUES, label};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, Body, Decoder, Encoder, Format, Payload, ReadAt, TemporaryFile};
use crate::key::Key;
use crate::value::{AnyValue, Kind};

/// Replaced values may wait for a sync in so many bytes before one is made for them.
const WAITING: u64 = 64 << 20;

/// Of a directory that is over its limit so much more is freed, so that the next value need not evict again.
const LOW_WATER: f64 = 0.05;

/// No value takes the last bytes of a disk: without them the catalog could not be told of a removal.
const RESERVE: u64 = 1 << 20;

/// A value that was written but not published yet. Its file goes away when it is dropped.
pub(crate) struct Draft {
    pub(super) row: Row,
    /// The new files of the row, each with its name below the chest's directory.
    pub(super) files: Vec<(TemporaryFile, String)>,
}

/// Where a new value is written.
pub(crate) struct NewPlace {
    key: Key,
    unique: String,
    temporary: PathBuf,
}

impl NewPlace {
    /// Adds the key and the file to an error.
    pub(crate) fn name(&self, error: Error) -> Error {
        error.with_key(&self.key).with_path(&self.temporary)
    }
}

/// A file that was just written, so that nobody need verify it.
struct Written<'a> {
    file: &'a dyn StorageFile,
    len: u64,
}

impl ReadAt for Written<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        read_exact_at(self.file, buf, offset)
    }
}

/// What a value is told to be once it is written.
pub(crate) struct About {
    pub(crate) kind: Kind,
    pub(crate) stored_name: String,
    /// What it takes in memory.
    pub(crate) bytes: u64,
    pub(crate) format: Format,
}

/// What a key has before something is published under it.
#[derive(Clone, Copy)]
pub(crate) enum Old {
    /// Whatever it is.
    Any,
    /// This version, or nothing.
    Just(Option<i64>),
}

impl Disk {
    /// Writes a value under a temporary name, or to memory when it is small.
    pub(crate) fn draft(&self, key: &Key, value: &dyn AnyValue) -> Result<Draft> {
        match self.write_draft(key, value) {
            Err(error) if error.kind() == ErrorKind::Full && self.frees_by_sync() => self.write_draft(key, value),
            done => done,
        }
    }

    /// Syncs if that makes room: then files go that were replaced.
    fn frees_by_sync(&self) -> bool {
        self.catalog.waiting().is_ok_and(|waiting| waiting > 0) && self.sync().is_ok()
    }

    fn write_draft(&self, key: &Key, value: &dyn AnyValue) -> Result<Draft> {
        let (mut encoder, place) = self.begin(key)?;
        let format = value.encode(&mut encoder).map_err(|error| place.name(error))?;
        let about = About { kind: value.kind(), stored_name: value.stored_name(), bytes: value.size(), format };
        self.complete(place, encoder, about)
    }

    /// Writes rows that follow those of a stored value, and makes the row of that value with these rows at its end.
    /// `parts` are those of its parts that stay; together with the value's own file they have `start` rows. None if the
    /// rows would be written in another way than the value was: by another library, with other types.
    #[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
    pub(crate) fn draft_rows(
        &self,
        old: &Row,
        mut parts: Vec<Part>,
        start: u64,
        value: &dyn AnyValue,
        rows: u64,
    ) -> Result<Option<Draft>> {
        let (encoder, place) = self.begin(&old.key)?;
        let mut encoder = encoder.of_part();
        let format = value.encode(&mut encoder).map_err(|error| place.name(error))?;
        let about = About { kind: value.kind(), stored_name: value.stored_name(), bytes: value.size(), format };
        let of = Place { of: old.file.clone().unwrap_or_default(), start };
        let Draft { row: part, files } = self.complete_as(place, encoder, about, Some(of))?;
        if part.columns() != old.columns() {
            return Ok(None);
        }
        parts.push(Part::of_row(&part, rows)?);
        let row = old.with_parts(&parts, start.saturating_add(rows))?;
        Ok(Some(Draft { row: Row { version: 0, created_ns: part.created_ns, ..row }, files }))
    }

    /// The stream that a value is written to.
    pub(crate) fn begin(&self, key: &Key) -> Result<(Encoder, NewPlace)> {
        let (unique, temporary) = self.new_file().map_err(|error| error.with_key(key))?;
        let super::DiskSettings { compression, disk_speed, frame_format, .. } = self.settings;
        let encoder = Encoder::new(self.storage.clone(), temporary.clone(), compression, disk_speed, frame_format);
        Ok((encoder, NewPlace { key: key.clone(), unique, temporary }))
    }

    /// Ends the stream.
    pub(crate) fn complete(&self, place: NewPlace, encoder: Encoder, about: About) -> Result<Draft> {
        self.complete_as(place, encoder, about, None)
    }

    /// As [`complete`](Self::complete), perhaps for a part of a value, which is always a file.
    fn complete_as(&self, place: NewPlace, encoder: Encoder, about: About, part: Option<Place>) -> Result<Draft> {
        let io = |error| place.name(Error::io("cannot write the value", error));
        let inline_limit = if part.is_some() { 0 } else { self.settings.inline_limit };
        let mut encoded = encoder.finish(inline_limit).map_err(io)?;
        encoded.about.remove(FACT);
        let mut row = Row {
            version: 0,
            key: place.key.clone(),
            kind: about.kind,
            stored_name: about.stored_name,
            format: about.format.name().to_owned(),
            bytes: about.bytes,
            stored_bytes: encoded.len,
            payload: encoded.len,
            label_at: encoded.len,
            checksums: encoded.checksums,
            created_ns: self.now_ns()?,
            about: (!encoded.about.is_empty()).then(|| Json::Object(encoded.about).to_string()),
            file: None,
            inline: None,
        };
        if !row.is_sane() {
            return Err(too_large(&row.key));
        }
        self.check_written(&row, &encoded.body).map_err(|error| place.name(error))?;
        let mut files = Vec::new();
        match encoded.body {
            Body::Inline(bytes) => row.inline = Some(bytes),
            Body::File(file) => {
                label::write(&*file.file, &mut row, part.as_ref()).map_err(io)?;
                let (stem, extension) = (place.key.file_stem(), about.format.extension());
                let name = format!("{VALUES}/{stem}.{}.{extension}", place.unique);
                row.file = Some(name.clone());
                files.push((file, name));
            }
        }
        Ok(Draft { row, files })
    }

    /// Refuses what our own reader would refuse; then the value is still in memory.
    fn check_written(&self, row: &Row, body: &Body) -> Result<()> {
        match body {
            Body::Inline(bytes) => format::check_written(row.kind, &row.stored_name, &row.format, bytes, row.bytes),
            Body::File(file) => {
                let written = Written { file: &*file.file, len: row.payload };
                format::check_written(row.kind, &row.stored_name, &row.format, &written, row.bytes)
            }
        }
    }

    /// A path for somebody who makes files, removed by a later open if that process dies.
    pub(crate) fn scratch(&self) -> Result<PathBuf> {
        Ok(self.new_file()?.1)
    }

    /// The unique part of a new file's name, and the path that it is written under.
    pub(super) fn new_file(&self) -> Result<(String, PathBuf)> {
        self.announce()?;
        let io = |error| Error::io("cannot tell others of a new file", error).with_path(&self.root.join(LOCKS));
        let unique = retry(|| self.session.unique()).map_err(io)?;
        let temporary = self.root.join(TMP).join(&unique);
        Ok((unique, temporary))
    }

    /// The time, later than that of every value before: the order of versions can be told by it.
    fn now_ns(&self) -> Result<i64> {
        let last_ns = match self.last_ns.get() {
            Some(last_ns) => last_ns,
            None => {
                let last = self.catalog.last_created_ns().map_err(|error| self.explain(error))?;
                self.last_ns.get_or_init(|| AtomicI64::new(last))
            }
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        let before = last_ns.fetch_max(now, Ordering::Relaxed);
        Ok(if before < now { now } else { last_ns.fetch_add(1, Ordering::Relaxed).saturating_add(1) })
    }

    /// Publishes drafts together: their files get their names, one transaction commits the rows, and the files that they
    /// replace go away. Gives the versions, and the commit, which ends when memory knows of them.
    pub(crate) fn publish(&self, drafts: Vec<Draft>) -> Result<(Vec<i64>, OwnCommit<'_>)> {
        self.publish_over(Old::Any, drafts)
    }

    /// As [`publish`](Self::publish), if the key of the only draft has what it should have; if not, the error is one of
    /// kind `Busy`.
    pub(crate) fn publish_over(&self, old: Old, drafts: Vec<Draft>) -> Result<(Vec<i64>, OwnCommit<'_>)> {
        let is_low = || self.storage.free(&self.root) < RESERVE;
        if is_low() && (!self.frees_by_sync() || is_low()) {
            let message = "the disk is full, but for the little that it takes to remove values";
            return Err(self.name_first(Error::new(ErrorKind::Full, message), drafts.first().map(|draft| &draft.row)));
        }
        let mut rows = Vec::with_capacity(drafts.len());
        let mut placed = Vec::new();
        for Draft { row, files } in drafts {
            for (mut file, name) in files {
                let path = self.root.join(&name);
                if let Err(error) = file.keep_as(&path) {
                    self.discard(placed);
                    return Err(Error::io("cannot publish the value", error).with_key(&row.key).with_path(&path));
                }
                placed.push(name);
            }
            rows.push(row);
        }
        let mut own = self.catalog.own_commit();
        let published = self.commit(&rows, old, &mut own).map_err(|error| self.name_first(error, rows.first()));
        #[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
        if let Ok(versions) = &published {
            // Not what was written by others.
            let is_mapped = |row: &Row| {
                let is_new = row.file.is_some() && row.parts().is_ok_and(|parts| parts.is_empty());
                is_new && ["arrow", "npy", "parquet"].contains(&row.format.as_str())
            };
            let mapped = rows.iter().zip(versions).filter(|(row, _)| is_mapped(row));
            mapped.for_each(|(_, &version)| self.note_verified(version));
        }
        if published.is_err() {
            self.discard(placed);
        }
        published.map(|versions| (versions, own))
    }

    /// Whether this process wrote this version, or verified all of it.
    #[cfg(feature = "lazy")]
    pub(crate) fn is_verified(&self, version: i64) -> bool {
        self.verified.contains(version)
    }

    /// This process wrote the new version, but for what it shares with the old one.
    #[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
    pub(crate) fn note_verified_as(&self, old: i64, new: i64) {
        if self.verified.contains(old) {
            self.note_verified(new);
        }
    }

    #[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
    pub(crate) fn note_verified(&self, version: i64) {
        self.verified.insert(version);
    }

    /// Names one of the values that an error concerns, and its file.
    fn name_first(&self, error: Error, row: Option<&Row>) -> Error {
        let Some(row) = row else { return error };
        let file = row.file.as_deref().unwrap_or(CATALOG);
        error.with_key(&row.key).with_path(&self.root.join(file))
    }

    /// Commits rows, if need be after making room for them.
    fn commit(&self, rows: &[Row], old: Old, own: &mut OwnCommit<'_>) -> Result<Vec<i64>> {
        let used = take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        let bytes: u64 = rows.iter().map(|row| row.stored_bytes).sum();
        // Twice for what waits for a sync and for evictions; others may take the room that was made.
        for _ in 0..10 {
            let mut over = None;
            let published = self.write_as(Some(own), false, |catalog| {
                if let (Old::Just(old), Some(row)) = (old, rows.first())
                    && catalog.version(&row.key)? != old
                {
                    return Err(Error::new(ErrorKind::Busy, "another process changed the value at the same time"));
                }
                catalog.touch(&used)?;
                let versions = catalog.publish(rows)?;
                match self.settings.limit.and_then(|limit| catalog.excess(limit)) {
                    Some(excess) => {
                        over = Some(excess);
                        // Undoes the transaction.
                        Err(Error::new(ErrorKind::Full, "the chest has reached its limit on disk"))
                    }
                    None => Ok((versions, catalog.stored(), catalog.waiting())),
                }
            });
            let limit = self.settings.limit;
            match (published, over, limit) {
                (Ok((versions, stored, waiting)), ..) => {
                    let is_over = limit.is_some_and(|limit| stored.saturating_add(waiting) > limit.bytes);
                    if waiting > WAITING || is_over && waiting > 0 {
                        // The values are published; that old ones stay longer than they should is no error.
                        let _: Result<()> = self.sync();
                    }
                    return Ok(versions);
                }
                (Err(error), Some(Excess { excess, waiting }), Some(limit)) => {
                    if bytes > limit.bytes {
                        let message =
                            format!("the value takes {bytes} bytes, and the chest may take {} on disk", limit.bytes);
                        return Err(Error::new(ErrorKind::Full, message));
                    }
                    if waiting > 0 {
                        self.sync()?;
                    } else if limit.evict {
                        let low_water = (limit.bytes as f64 * LOW_WATER) as u64;
                        let alone = self.alone();
                        // Not what is about to be a part of the new value.
                        let kept = if let Old::Just(version) = old { version } else { None };
                        self.write_durably(&alone, None, |catalog| {
                            catalog.touch(&used)?;
                            catalog.evict(excess.saturating_add(low_water), kept)
                        })?;
                    } else {
                        return Err(error);
                    }
                }
                (Err(error), ..) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Full, "other processes fill the chest faster than it can be emptied"))
    }

    /// Gives up files that have their names already but no rows. When a commit failed it may be done all the same, by
    /// whoever recovers the catalog after a crash; so they go after the next one that succeeds.
    pub(super) fn discard(&self, placed: Vec<String>) {
        if placed.is_empty() {
            return;
        }
        let moved_on = self.write(false, |catalog| {
            catalog.move_on();
            Ok(())
        });
        if moved_on.is_err() {
            self.session.leaves_files();
            return;
        }
        for name in placed {
            self.unlink(&name);
        }
    }

    /// Remembers that a value was read, if that matters to anybody.
    pub(crate) fn note_use(&self, version: i64) {
        /// So many are written down together.
        const MANY: usize = 1000;
        if !self.evicts() {
            return;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.last() != Some(&version) {
            used.push(version);
        }
        if used.len() >= MANY {
            drop(used);
            self.write_uses();
        }
    }

    /// Writes down what was read since the last time.
    pub(crate) fn write_uses(&self) {
        let used = take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        if used.is_empty() {
            return;
        }
        // The order of eviction is a matter of speed, not of truth.
        let mut own = self.catalog.own_commit();
        if self.write_as(Some(&mut own), false, |catalog| catalog.touch(&used)).is_ok() {
            own.known();
        }
    }

    /// Opens the stored bytes of a row.
    pub(crate) fn read(&self, row: Row) -> Result<Decoder> {
        let version = row.version;
        let (row, parts) = row.split()?;
        if parts.is_empty() {
            return Ok(self.read_one(row)?.with_verified(self.verified.clone(), version));
        }
        // What is known of one file says nothing of the others.
        let parts = parts.into_iter().map(|part| self.read_one(part)).collect::<Result<_>>()?;
        Ok(self.read_one(row)?.with_parts(parts))
    }

    fn read_one(&self, mut row: Row) -> Result<Decoder> {
        let about = row.about.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let (format, stored_name, size) = (take(&mut row.format), take(&mut row.stored_name), row.bytes);
        Ok(Decoder::new(self.payload(row)?, format, stored_name, about, size))
    }

    /// Reads and verifies all that is stored of a row; tells how many bytes it has read as it goes on.
    pub(super) fn verify(&self, row: &Row, mut on_bytes: impl FnMut(u64)) -> Result<()> {
        let (row, parts) = row.clone().split()?;
        for row in std::iter::once(row).chain(parts) {
            let path = row.file.as_deref().map(|name| self.value_path(name)).transpose()?;
            let verified = self.payload(row).and_then(|payload| Ok(payload.verify(&mut on_bytes)?));
            verified.map_err(|error| match &path {
                Some(path) => error.with_path(path),
                None => error,
            })?;
        }
        Ok(())
    }

    /// The stored bytes of a row without parts: those of an inline value are verified already, those of a file as they are read.
    pub(super) fn payload(&self, row: Row) -> Result<Payload> {
        let fail = |error: Error, path: &Path| error.with_key(&row.key).with_path(path);
        let catalog = || self.root.join(CATALOG);
        match (&row.file, row.inline) {
            (None, Some(bytes)) => Payload::inline(bytes, row.checksums).map_err(|error| fail(error, &catalog())),
            (Some(name), _) => {
                let path = self.value_path(name).map_err(|error| fail(error, &catalog()))?;
                let io = |error| fail(Error::io("cannot open the value's file", error), &path);
                let file = retry(|| self.storage.open(&path)).map_err(io)?;
                let len = retry(|| file.len()).map_err(io)?;
                if len != row.stored_bytes || row.payload > len {
                    let message = format!("the file has {len} bytes instead of {}", row.stored_bytes);
                    return Err(fail(Error::damaged(message), &path));
                }
                Payload::file(file, row.payload, row.label_at, len - row.payload, row.checksums)
                    .map_err(|error| fail(error, &path))
            }
            (None, None) => {
                Err(fail(Error::damaged("the catalog has neither bytes nor a file for this value"), &catalog()))
            }
        }
    }

    /// The path of a value's file. A catalog that names anything else is not followed.
    pub(crate) fn value_path(&self, name: &str) -> Result<PathBuf> {
        value_path(&self.root, name)
    }

    /// Removes keys; gives how many there were, and the commit, which ends when memory knows of it.
    pub(crate) fn remove(&self, keys: &[Key]) -> Result<(usize, OwnCommit<'_>)> {
        self.remove_as(Old::Any, keys)
    }

    /// As [`remove`](Self::remove), if this is still the version of the key.
    pub(crate) fn remove_just(&self, key: &Key, version: i64) -> Result<(usize, OwnCommit<'_>)> {
        self.remove_as(Old::Just(Some(version)), std::slice::from_ref(key))
    }

    fn remove_as(&self, old: Old, keys: &[Key]) -> Result<(usize, OwnCommit<'_>)> {
        let mut own = self.catalog.own_commit();
        let removed = self.write_as(Some(&mut own), false, |catalog| {
            let mut removed = 0;
            for key in keys {
                let is_meant = match old {
                    Old::Any => true,
                    Old::Just(version) => catalog.version(key)? == version,
                };
                removed += usize::from(is_meant && catalog.remove(key)?);
            }
            Ok((removed, catalog.waiting()))
        });
        let (removed, waiting) = removed?;
        if waiting > WAITING {
            let _: Result<()> = self.sync();
        }
        Ok((removed, own))
    }
}

pub(super) fn value_path(root: &Path, name: &str) -> Result<PathBuf> {
    let base = name.strip_prefix("values/").unwrap_or("");
    if base.is_empty() || base.starts_with('.') || base.contains(['/', '\\', '\0']) {
        return Err(Error::damaged(format!("the catalog names {name:?}, which is no value's file")));
    }
    Ok(root.join(VALUES).join(base))
}
