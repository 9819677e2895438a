//! What is known of values and of the chest, without loading anything.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::disk::{PARTS, Row};
use crate::error::Result;
use crate::key::Key;
use crate::memory::{Hint, Resident};
use crate::store::{State, Store};
use crate::value::{AnyValue, Kind};

/// What is known of one value.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Info {
    /// Its key.
    pub key: Key,
    /// Array, frame or plain.
    pub kind: Kind,
    /// The name of the type that it is stored as.
    pub type_name: String,
    /// The bytes that it takes in memory.
    pub bytes: u64,
    /// The bytes that it takes on disk; 0 as long as it is only in memory.
    pub stored_bytes: u64,
    /// The format of its file, once it has one: `parquet`, `npy`, `b2nd`, `bincode`, `json` or a user's own.
    pub format: Option<String>,
    /// Its file below the chest's directory; none for small values, which live in the catalog. Of a value with
    /// [parts](crate::Chest::append), the one with its first rows.
    pub file: Option<String>,
    /// Its files, or 1 if it has none.
    pub parts: usize,
    /// Whether it is in memory.
    pub is_resident: bool,
    /// Whether the directory does not have this version yet.
    pub is_dirty: bool,
    /// What was said of its key in this opening of the chest.
    pub hint: Option<Hint>,
    /// When it was written to the directory.
    pub written: Option<SystemTime>,
    /// What its encoder told of it: a shape, a data type, columns. JSON `null` when nothing is known.
    pub about: serde_json::Value,
}

impl Info {
    pub(crate) fn of(store: &Store, key: &Key) -> Result<Option<Self>> {
        loop {
            let dirty = Dirty::find(key, &store.state());
            match dirty.map(Dirty::info) {
                Some(Some(info)) => return Ok(Some(info)),
                // Another one came in its place, or it was spilled.
                Some(None) => {}
                None => break,
            }
        }
        let row = store.disk.catalog().find(key)?;
        Ok(row.map(|row| Self::of_row(row, &store.state())))
    }

    pub(crate) fn of_all(store: &Store) -> Result<Vec<Self>> {
        // Before the rows: what is published meanwhile is in one of the two at least.
        let before = Dirty::all(&store.state());
        let rows = store.disk.catalog().rows()?;
        let mut infos = Vec::with_capacity(rows.len());
        let (dirty, mut known) = {
            let state = store.state();
            let dirty = Dirty::all(&state);
            let mut known: HashSet<Key> = dirty.iter().map(|dirty| dirty.key.clone()).collect();
            for row in rows {
                if known.insert(row.key.clone()) {
                    infos.push(Self::of_row(row, &state));
                }
            }
            (dirty, known)
        };
        let lost = before.into_iter().filter(|dirty| known.insert(dirty.key.clone()));
        for dirty in lost.collect::<Vec<_>>().into_iter().chain(dirty) {
            let key = dirty.key.clone();
            // One that was spilled meanwhile has a row now.
            let info = match dirty.info() {
                Some(info) => Some(info),
                None => Self::of(store, &key)?,
            };
            infos.extend(info);
        }
        Ok(infos)
    }

    fn of_row(row: Row, state: &State) -> Self {
        let resident =
            state.residents.find(&row.key, Resident::version).flatten().filter(|version| *version == row.version);
        let written = u64::try_from(row.created_ns).unwrap_or(0);
        let parts = 1 + row.parts().map_or(0, |parts| parts.len());
        let mut about: serde_json::Value =
            row.about.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        if let Some(facts) = about.as_object_mut().filter(|_| parts > 1) {
            facts.remove(PARTS);
        }
        Self {
            is_resident: resident.is_some(),
            is_dirty: false,
            hint: state.residents.hint(&row.key),
            key: row.key,
            kind: row.kind,
            type_name: row.stored_name,
            bytes: row.bytes,
            stored_bytes: row.stored_bytes,
            format: Some(row.format),
            file: row.file,
            written: Some(UNIX_EPOCH + Duration::from_nanos(written)),
            parts,
            about,
        }
    }
}

/// A value that is only in memory. What it tells of itself is a user's code, and is asked when nothing is locked. Until then
/// nobody holds it: it may be spilled.
struct Dirty {
    key: Key,
    bytes: u64,
    hint: Option<Hint>,
    value: Weak<dyn AnyValue>,
}

impl Dirty {
    fn find(key: &Key, state: &State) -> Option<Self> {
        let bytes = state.residents.dirty_size(key)?;
        let value = state.residents.find(key, |resident| Arc::downgrade(resident.value()))?;
        Some(Self { key: key.clone(), bytes, hint: state.residents.hint(key), value })
    }

    fn all(state: &State) -> Vec<Self> {
        state.residents.dirty_keys().iter().filter_map(|key| Self::find(key, state)).collect()
    }

    /// None if it is not in memory any more.
    fn info(self) -> Option<Info> {
        let Self { key, bytes, hint, value } = self;
        let value = value.upgrade()?;
        Some(Info {
            key,
            kind: value.kind(),
            type_name: value.stored_name(),
            bytes,
            stored_bytes: 0,
            format: None,
            file: None,
            parts: 1,
            is_resident: true,
            is_dirty: true,
            hint,
            written: None,
            about: value.facts().map_or(serde_json::Value::Null, |facts| facts.clone().into()),
        })
    }
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match (&self.file, &self.format) {
            (Some(file), _) => file.as_str(),
            (None, Some(_)) => "in the catalog",
            (None, None) => "only in memory",
        };
        write!(f, "{}: {} {}, {}, {place}", self.key, self.kind, self.type_name, Bytes(self.bytes))
    }
}

/// Numbers about a chest. `Display` shows them as a small table with the memory as a bar.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Values in the chest.
    pub values: u64,
    /// Bytes that they take on disk.
    pub stored_bytes: u64,
    /// Values in memory.
    pub resident: u64,
    /// Bytes in memory: residents, values that somebody holds, and values on their way in.
    pub resident_bytes: u64,
    /// The most that `resident_bytes` has been.
    pub peak_bytes: u64,
    /// The bytes that may be in memory, as the user said.
    pub budget: u64,
    /// The bytes that may be in memory now: fewer while the system is short of memory and the chest
    /// [watches](crate::Builder::watch_memory) that.
    pub budget_now: u64,
    /// Values that the directory does not have yet.
    pub dirty: u64,
    /// Values in memory that somebody holds or has [pinned](crate::Chest::pin).
    pub pinned: u64,
    /// Bytes that these take.
    pub pinned_bytes: u64,
    /// Keys that are pinned, whether their values are in memory or not.
    pub pins: u64,
    /// Keys whose values [prefer the disk](crate::Chest::prefer_disk).
    pub prefer_disk: u64,
    /// Reads that were answered from memory.
    pub hits: u64,
    /// Reads that were answered from disk.
    pub loads: u64,
    /// Reads of keys that have no value.
    pub misses: u64,
    /// Values that had to leave memory.
    pub spills: u64,
    /// Values that were written to the directory.
    pub published: u64,
    /// Times that writing failed.
    pub write_errors: u64,
}

impl Stats {
    pub(crate) fn of(store: &Store) -> Result<Self> {
        let values = store.len()?;
        let (_, stored_bytes) = store.disk.catalog().totals()?;
        let mut state = store.state();
        let (pinned, pinned_bytes) = state.residents.pinned();
        let counts = state.counts;
        let residents = &mut state.residents;
        Ok(Self {
            values,
            stored_bytes,
            resident: residents.len() as u64,
            resident_bytes: residents.used(),
            peak_bytes: residents.peak(),
            budget: residents.given_budget(),
            budget_now: residents.budget(),
            dirty: residents.dirty_len() as u64,
            pinned: pinned as u64,
            pinned_bytes,
            pins: residents.hinted(Hint::Pin) as u64,
            prefer_disk: residents.hinted(Hint::PreferDisk) as u64,
            hits: counts.hits,
            loads: counts.loads,
            misses: counts.misses,
            spills: counts.spills,
            published: counts.published,
            write_errors: counts.write_errors,
        })
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: u64 = 30;
        let share = |part: u64| (part as f64 / self.budget.max(1) as f64 * WIDTH as f64).round() as u64;
        let filled = share(self.resident_bytes).min(WIDTH) as usize;
        let bar = format!("{}{}", "█".repeat(filled), "░".repeat(WIDTH as usize - filled));
        writeln!(f, "memory  {bar}  {} of {}", Bytes(self.resident_bytes), Bytes(self.budget))?;
        if self.budget_now < self.budget {
            writeln!(f, "        only {} now: the system is short of memory", Bytes(self.budget_now))?;
        }
        writeln!(
            f,
            "        {} resident, {} dirty, {} pinned, peak {}",
            self.resident,
            self.dirty,
            self.pinned,
            Bytes(self.peak_bytes)
        )?;
        if self.pins + self.prefer_disk > 0 {
            writeln!(f, "hints   {} keys pinned, {} prefer the disk", self.pins, self.prefer_disk)?;
        }
        writeln!(f, "disk    {} values, {}", self.values, Bytes(self.stored_bytes))?;
        writeln!(f, "reads   {} from memory, {} from disk, {} not found", self.hits, self.loads, self.misses)?;
        write!(f, "writes  {} published, {} spilled, {} failed", self.published, self.spills, self.write_errors)
    }
}

/// A number of bytes for people: three digits and a unit.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut number = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while number >= 1000.0 && unit + 1 < UNITS.len() {
            number /= 1024.0;
            unit += 1;
        }
        let decimals = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
        write!(f, "{number:.decimals$} {}", UNITS[unit])
    }
}
