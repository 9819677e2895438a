//! Rows that are appended to stored values, and values that are made whole again.

use std::sync::Arc;

use super::Store;
use super::get::check_type;
use super::key_lock::KeyLock;
use crate::disk::{About, Draft, Old, Part, Row};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Decoder, Encoder, Format};
use crate::key::Key;
use crate::value::{AnyValue, Kind, Partial, Selection};

/// Other processes may change the value at the same time; then it is tried again.
const ATTEMPTS: usize = 100;

/// A part that is not larger than the rows that follow it is written again together with them, up to this size. So many
/// small additions become few files, and each row is written again only as often as its file doubles.
const LARGEST_MERGED: u64 = 64 << 20;

impl Store {
    /// Adds rows to a value; if there is none, they are one. Gives how many parts follow the value's own file.
    pub(crate) fn append<V: Partial>(&self, key: &Key, rows: Arc<V>) -> Result<usize> {
        if let Err(error) = key.check().and_then(|()| AnyValue::check(&*rows)).and_then(|()| rows.height().map(|_| ()))
        {
            return Err(error.with_key(key));
        }
        let lock = self.lock_to_change(key)?;
        self.publish(std::slice::from_ref(&lock))?;
        for _ in 0..ATTEMPTS {
            let row = self.disk.catalog().find(key)?;
            let done = match &row {
                Some(row) => check_type::<V>(key, row.kind, &row.stored_name)
                    .and_then(|()| self.read_rows::<V>(row, 0, Some(0)))
                    .and_then(|stored| self.append_to(&lock, row, &stored, &rows)),
                None => self
                    .write(key, &*rows)
                    .and_then(|draft| self.publish_over(&lock, None, draft))
                    .map(|done| (0, done)),
            };
            match done {
                Ok((parts, synced)) => return synced.map(|()| parts).map_err(|error| error.with_key(key)),
                // What was read belongs to a version that is no more.
                Err(_) if self.disk.catalog().version(key)? != row.map(|row| row.version) => {}
                Err(error) => return Err(error.with_key(key)),
            }
        }
        Err(Error::new(ErrorKind::Busy, "other processes change the value all the time").with_key(key))
    }

    /// Gives how many parts there are then, and what became of making them durable.
    fn append_to<V: Partial>(
        &self,
        lock: &KeyLock<'_>,
        row: &Row,
        stored: &V,
        rows: &Arc<V>,
    ) -> Result<(usize, Result<()>)> {
        rows.check_follows(stored)?;
        let count = rows.height()? as u64;
        if count == 0 {
            return Ok((0, Ok(())));
        }
        let as_part = match row.rows().filter(|_| has_room_for_parts(row)) {
            Some(before) => self.draft_rows(row, before, rows, count)?,
            None => None,
        };
        let (draft, parts) = match as_part {
            Some(draft) => draft,
            None => (self.with_joined(row, 0, row.bytes, rows, |joined| self.write(lock.key(), joined))?, 0),
        };
        let synced = self.publish_over(lock, Some(row.version), draft)?;
        Ok((parts, synced))
    }

    /// Writes rows as a part, together with small parts before. Gives how many parts there are then; none if the rows cannot
    /// be one.
    fn draft_rows<V: Partial>(
        &self,
        row: &Row,
        before: u64,
        rows: &Arc<V>,
        count: u64,
    ) -> Result<Option<(Draft, usize)>> {
        let mut parts = row.parts()?;
        let merged = parts.split_off(first_to_merge(&parts, AnyValue::size(&**rows)));
        let len = parts.len() + 1;
        let start = merged.iter().fold(before, |start, part| start.saturating_sub(part.rows));
        let draft = |parts: &[Part], start: u64, rows: &dyn AnyValue| {
            let write = || self.disk.draft_rows(row, parts.to_vec(), start, rows, before - start + count);
            self.guard(&row.key, write)
        };
        if !merged.is_empty() {
            let bytes = merged.iter().map(|part| part.bytes).sum();
            match self.with_joined(row, start, bytes, rows, |joined| draft(&parts, start, joined)) {
                // Each by itself they can be stored: their dictionaries have too many values for one, say.
                Err(error) if error.kind() == ErrorKind::Unsupported => parts.extend(merged),
                joined => return Ok(joined?.map(|draft| (draft, len))),
            }
        }
        let len = parts.len() + 1;
        Ok(draft(&parts, before, &**rows)?.map(|draft| (draft, len)))
    }

    /// Reads the rows from `start` on, which take so many bytes, and works on them together with those that follow.
    fn with_joined<V: Partial, T>(
        &self,
        row: &Row,
        start: u64,
        bytes: u64,
        rows: &Arc<V>,
        work: impl FnOnce(&V) -> Result<T>,
    ) -> Result<T> {
        // What is read and a copy of the rows, and both once more when they are joined.
        let (_room, _made) = self.make_room(bytes.saturating_add(AnyValue::size(&**rows)).saturating_mul(2));
        let stored = self.read_rows::<V>(row, start, None)?;
        let joined = V::join(vec![stored, rows.part(&Selection::default())?])?;
        AnyValue::check(&joined)?;
        work(&joined)
    }

    /// Publishes what is made of a version in its place; memory forgets what it had. Gives what became of making it durable,
    /// where that is wanted at once: if that fails it is published all the same.
    fn publish_over(&self, lock: &KeyLock<'_>, old: Option<i64>, draft: Draft) -> Result<Result<()>> {
        let (versions, commit) = self.disk.publish_over(Old::Just(old), vec![draft])?;
        if let (Some(old), [new]) = (old, versions.as_slice()) {
            self.disk.note_verified_as(old, *new);
        }
        let synced = self.sync_if_wanted();
        self.forget_replaced(lock, commit);
        Ok(synced)
    }

    /// Reads rows of a stored value, from `start` to the end or as many as are wanted.
    fn read_rows<V: Partial>(&self, row: &Row, start: u64, count: Option<usize>) -> Result<V> {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let end = count.map_or(usize::MAX, |count| start.saturating_add(count));
        let selection = Selection { rows: Some(start..end), columns: None };
        self.open_row(row.clone(), None)?.read(|input| V::decode_part(input, &selection))
    }

    /// Writes a value that consists of parts as one. Tells whether it was one.
    pub(crate) fn compact(
        &self,
        key: &Key,
        rewrite: impl Fn(Kind, &mut Decoder, Encoder) -> Result<(Encoder, Format, u64)>,
    ) -> Result<Option<bool>> {
        let lock = self.lock_to_change(key)?;
        self.publish(std::slice::from_ref(&lock))?;
        for _ in 0..ATTEMPTS {
            let Some(row) = self.disk.catalog().find(key)? else { return Ok(None) };
            if row.parts()?.is_empty() {
                return Ok(Some(false));
            }
            let written = self.open_row(row.clone(), None).and_then(|opened| {
                let (encoder, place) = self.disk.begin(key)?;
                let (encoder, format, bytes) = opened.read(|input| rewrite(row.kind, input, encoder))?;
                let (kind, stored_name) = (row.kind, row.stored_name.clone());
                self.disk.complete(place, encoder, About { kind, stored_name, bytes, format })
            });
            match written.and_then(|draft| self.publish_over(&lock, Some(row.version), draft)) {
                Ok(synced) => return synced.map(|()| Some(true)).map_err(|error| error.with_key(key)),
                Err(_) if self.disk.catalog().version(key)? != Some(row.version) => {}
                Err(error) => return Err(error.with_key(key)),
            }
        }
        Err(Error::new(ErrorKind::Busy, "other processes change the value all the time").with_key(key))
    }
}

/// Whether rows can follow in files of their own: not those of small values in the catalog, and not those of arrays in
/// Fortran order, whose rows do not lie one after the other.
fn has_room_for_parts(row: &Row) -> bool {
    let facts: serde_json::Value =
        row.about.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let is_fortran =
        row.format == "npy" && facts["order"] == "F" && facts["shape"].as_array().is_some_and(|shape| shape.len() > 1);
    row.file.is_some() && !is_fortran
}

/// The first of the last parts that are so small that they are written again with rows of so many bytes.
fn first_to_merge(parts: &[Part], bytes: u64) -> usize {
    let mut merged = bytes;
    let mut first = parts.len();
    while first > 0 && parts[first - 1].bytes <= merged && merged + parts[first - 1].bytes <= LARGEST_MERGED {
        first -= 1;
        merged += parts[first].bytes;
    }
    first
}
