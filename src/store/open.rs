//! Stored values, open for reading: whole, or in part.

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;

use super::Store;
use super::get::check_type;
use crate::disk::Row;
use crate::error::{Error, ErrorKind, Result};
use crate::format::Decoder;
use crate::key::Key;
use crate::value::Value;

/// A file may vanish between its row and its opening when the value is replaced; then the row is read again.
const FIND_ATTEMPTS: usize = 100;

/// A stored value, open for reading: replacing or removing it does not matter any more.
pub(crate) struct Opened {
    pub(super) key: Key,
    pub(crate) version: i64,
    /// The catalog's generation before the row was read.
    pub(super) generation: Option<u64>,
    /// What the whole value takes in memory, as the catalog tells.
    size: u64,
    /// What decoding it takes besides.
    buffer: u64,
    path: Option<PathBuf>,
    /// What is told of the value.
    pub(super) about: Option<String>,
    decoder: Decoder,
}

impl Opened {
    /// What decoding the value takes, as the catalog tells.
    pub(super) fn promised(&self) -> u64 {
        self.size.saturating_add(self.buffer)
    }

    /// Decodes the value, or a part of it. Errors name the key and the file, and a panic is an error like any other.
    pub(crate) fn read<T>(mut self, decode: impl FnOnce(&mut Decoder) -> Result<T>) -> Result<T> {
        let decoded = panic::catch_unwind(AssertUnwindSafe(|| decode(&mut self.decoder)));
        let decoded = decoded.unwrap_or_else(|_| {
            let stored = self.decoder.stored_name();
            Err(Error::unsupported(format!("the decoder panicked, so the value, {stored}, cannot be read as that")))
        });
        decoded.map_err(|error| {
            let error = error.with_key(&self.key);
            match &self.path {
                Some(path) => error.with_path(path),
                None => error,
            }
        })
    }
}

impl Store {
    /// Opens a stored value that can be read as `V`. What is dirty must have been published.
    pub(super) fn open<V: Value>(&self, key: &Key) -> Result<Option<Opened>> {
        let opened = self.open_newest::<V>(key)?;
        if opened.is_none() {
            self.state().counts.misses += 1;
        }
        Ok(opened)
    }

    /// As [`open`](Self::open), for who looks and need not find anything.
    pub(super) fn open_newest<V: Value>(&self, key: &Key) -> Result<Option<Opened>> {
        for _ in 0..FIND_ATTEMPTS {
            let generation = self.disk.catalog().generation();
            let Some(row) = self.disk.catalog().find(key).map_err(|error| error.with_key(key))? else {
                return Ok(None);
            };
            check_type::<V>(key, row.kind, &row.stored_name)?;
            match self.open_row(row, generation) {
                Err(error) if error.is_missing_file() && self.was_replaced(&error, key)? => {}
                opened => return opened.map(Some),
            }
        }
        Err(Error::new(ErrorKind::Busy, "the value is replaced faster than it can be read").with_key(key))
    }

    pub(super) fn open_row(&self, row: Row, generation: Option<u64>) -> Result<Opened> {
        let path = row.file.as_deref().map(|name| self.disk.value_path(name)).transpose()?;
        let (key, version, size, buffer) = (row.key.clone(), row.version, row.bytes, decode_buffer(&row));
        let about = row.about.clone();
        Ok(Opened { key, version, generation, size, buffer, path, about, decoder: self.disk.read(row)? })
    }

    /// A missing file is damage unless its value was replaced or removed meanwhile.
    fn was_replaced(&self, error: &Error, key: &Key) -> Result<bool> {
        let Some(row) = self.disk.catalog().find(key)? else { return Ok(true) };
        for name in row.files() {
            let path = self.disk.value_path(&name)?;
            if Some(path.as_path()) == error.path() {
                return Err(Error::damaged("the value's file is missing").with_key(key).with_path(&path));
            }
        }
        Ok(true)
    }

    /// Opens a value that can be read as `V`, for whoever does not need it in memory.
    pub(crate) fn open_published<V: Value>(&self, key: &Key) -> Result<Option<Opened>> {
        let is_dirty = self.state().residents.is_dirty(key);
        if is_dirty {
            let lock = self.lock_key(key)?;
            self.publish(std::slice::from_ref(&lock))?;
        }
        let opened = self.open::<V>(key)?;
        if let Some(opened) = &opened {
            self.disk.note_use(opened.version);
        }
        Ok(opened)
    }

    /// Reads a part of a value; nothing becomes resident. `plan` tells what the part takes in memory, which is reserved
    /// while `read` reads it.
    #[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
    pub(crate) fn read_part<P, T>(
        &self,
        opened: Opened,
        plan: impl FnOnce(&mut Decoder, u64) -> Result<(u64, P)>,
        read: impl FnOnce(&mut Decoder, P) -> Result<T>,
    ) -> Result<T> {
        let whole = opened.promised();
        opened.read(|input| {
            let (bytes, plan) = plan(input, whole)?;
            let (_room, _made) = self.make_room(bytes);
            read(input, plan)
        })
    }
}

/// What decoding takes besides the value: formats that are not read as a stream are read whole.
fn decode_buffer(row: &Row) -> u64 {
    match row.format.as_str() {
        // The second is mapped.
        "npy" | "arrow" => 0,
        #[cfg(feature = "blosc")]
        "b2nd" => row.bytes.min(crate::format::BLOSC_BUFFERS),
        _ => row.payload,
    }
}
