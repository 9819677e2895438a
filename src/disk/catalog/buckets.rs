//! The index of the catalog: the versions of keys, found by a hash.
//!
//! It is a table of hashing that grows by a bucket at a time (linear hashing). A bucket is one blob with a checksum: so it
//! tells truthfully also what it does not hold, and a batch of new keys costs one change for each bucket instead of one
//! for each key.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rusqlite::Connection;
use twox_hash::XxHash3_64;

use super::sql_error;
use super::state::State;
use crate::error::{Error, Result};
use crate::key::Map;

/// Entries of a bucket before it is split, on the average.
const LOAD: i64 = 128;

/// More buckets could not be told apart by the part of the hash that entries have.
pub(super) const MOST: i64 = 1 << 31;

/// So many at the most are in memory while they are changed.
const MOST_LOADED: usize = if cfg!(test) { 16 } else { 2048 };

/// So many at the most stay in memory of those that were read: some 6 MiB, the index of half a million keys.
const MOST_READ: usize = if cfg!(test) { 16 } else { 4096 };

/// Bytes of the entries of a bucket that is worth keeping: twice what they are on the average.
const MOST_ENTRIES: usize = 2 * LOAD as usize * ENTRY;

/// Bytes of the checksum and of the level.
const HEAD: usize = 9;

/// Bytes of a hash and of a version.
const ENTRY: usize = 12;

/// What entries have of the hash of a key.
pub(super) fn short(hash: i64) -> u32 {
    hash as u32
}

/// All the entries whose hashes end in the same `level` bits as the bucket's number.
#[derive(Default)]
struct Bucket {
    level: u32,
    entries: Vec<(u32, i64)>,
    is_changed: bool,
}

/// How many bits of a hash a bucket's number stands for, if there are `count`.
fn level(number: i64, count: i64) -> u32 {
    let level = count.max(1).ilog2();
    let is_split = number >= 1 << level || number + (1 << level) < count;
    level + u32::from(is_split)
}

/// The number of the bucket for a hash, if there are `count`.
pub(super) fn number(hash: u32, count: i64) -> i64 {
    let level = count.max(1).ilog2();
    let long = ends_in(hash, level + 1);
    if long < count { long } else { ends_in(hash, level) }
}

/// The last bits of a hash.
fn ends_in(hash: u32, bits: u32) -> i64 {
    i64::from(hash) & ((1 << bits) - 1)
}

/// The seal of a bucket: of everything behind it, and of the number.
fn seal(number: i64, rest: &[u8]) -> [u8; 8] {
    XxHash3_64::oneshot_with_seed(number.cast_unsigned(), rest).to_le_bytes()
}

/// Level and entries of a bucket as it is stored.
fn open(number: i64, blob: &[u8]) -> Result<(u32, &[u8])> {
    let damaged = || Error::damaged("a part of the catalog's index does not match its checksum");
    let (sealed, rest) = blob.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (level, entries) = rest.split_first().ok_or_else(damaged)?;
    if seal(number, rest) != *sealed || *level > 32 {
        return Err(damaged());
    }
    Ok((u32::from(*level), entries))
}

/// The versions of a hash among the entries of its bucket.
fn versions(entries: &[u8], hash: u32) -> Vec<i64> {
    parse(entries).filter(|(other, _)| *other == hash).map(|(_, version)| version).collect()
}

fn parse(entries: &[u8]) -> impl Iterator<Item = (u32, i64)> {
    entries.chunks_exact(ENTRY).filter_map(|entry| {
        let (hash, version) = entry.split_first_chunk()?;
        Some((u32::from_le_bytes(*hash), i64::from_le_bytes(version.try_into().ok()?)))
    })
}

fn wrong_size() -> Error {
    Error::damaged("the catalog's index has another size than it should have")
}

fn missing() -> Error {
    Error::damaged("a part of the catalog's index is missing")
}

/// Calls `visit` with what is stored of a bucket.
fn read<T>(sql: &Connection, number: i64, visit: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    let mut query = sql.prepare_cached("SELECT entries FROM buckets WHERE number = ?1").map_err(sql_error)?;
    let mut rows = query.query([number]).map_err(sql_error)?;
    let row = rows.next().map_err(sql_error)?.ok_or_else(missing)?;
    let blob = row.get_ref(0).ok().and_then(|blob| blob.as_blob().ok()).ok_or_else(missing)?;
    visit(blob)
}

/// The index as a reader sees it, with the buckets that it has read and verified.
pub(super) struct Index {
    /// The buckets that there were at some time; brought up to date where that matters.
    pub(super) count: Cell<i64>,
    /// Buckets as of one commit.
    read: RefCell<Map<i64, Verified>>,
}

/// A bucket as it is stored, without the seal.
struct Verified {
    level: u32,
    entries: Box<[u8]>,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { count: Cell::new(1), read: RefCell::default() }
    }

    /// Somebody committed, perhaps: what was read must be read again.
    pub(super) fn forget(&mut self) {
        self.read.get_mut().clear();
    }

    /// The versions that a key of this hash may have; usually that is one or none. Where the snapshot `is_known`, it is that in
    /// which buckets were read before, and in which this one is kept for the next query.
    pub(super) fn find(&self, sql: &Connection, hash: u32, is_known: bool) -> Result<Vec<i64>> {
        loop {
            let number = number(hash, self.count.get());
            if is_known
                && let Some(Verified { level, entries }) = self.read.borrow().get(&number)
                && ends_in(hash, *level) == number
            {
                return Ok(versions(entries, hash));
            }
            let found = read(sql, number, |blob| {
                let (level, entries) = open(number, blob)?;
                let is_right = ends_in(hash, level) == number;
                if is_right && is_known {
                    self.keep(number, level, entries);
                }
                Ok(is_right.then(|| versions(entries, hash)))
            })?;
            if let Some(versions) = found {
                return Ok(versions);
            }
            // It was split since.
            let now = State::read(sql)?.buckets;
            if now <= self.count.get() {
                return Err(wrong_size());
            }
            self.count.set(now);
        }
    }

    fn keep(&self, number: i64, level: u32, entries: &[u8]) {
        let mut read = self.read.borrow_mut();
        // None is better than another: hashes are spread evenly.
        if read.len() < MOST_READ && entries.len() <= MOST_ENTRIES {
            read.insert(number, Verified { level, entries: entries.into() });
        }
    }
}

/// The buckets that a transaction works on. They are written at its end, or when there are too many.
#[derive(Default)]
pub(super) struct Buckets(BTreeMap<i64, Bucket>);

impl Buckets {
    /// The index of an empty catalog.
    pub(super) fn create(sql: &Connection) -> rusqlite::Result<()> {
        Self(BTreeMap::from([(0, Bucket { is_changed: true, ..Bucket::default() })])).write(sql)
    }

    fn load(&mut self, sql: &Connection, count: i64, number: i64) -> Result<&mut Bucket> {
        if self.0.len() >= MOST_LOADED && !self.0.contains_key(&number) {
            self.write(sql).map_err(sql_error)?;
            self.0.clear();
        }
        match self.0.entry(number) {
            Entry::Occupied(loaded) => Ok(loaded.into_mut()),
            Entry::Vacant(place) => read(sql, number, |blob| {
                let (level, entries) = open(number, blob)?;
                if level != self::level(number, count) {
                    return Err(wrong_size());
                }
                Ok(place.insert(Bucket { level, entries: parse(entries).collect(), is_changed: false }))
            }),
        }
    }

    fn of(&mut self, sql: &Connection, count: i64, hash: u32) -> Result<&mut Bucket> {
        self.load(sql, count, number(hash, count))
    }

    /// The versions that a key of this hash may have.
    pub(super) fn find(&mut self, sql: &Connection, count: i64, hash: u32) -> Result<Vec<i64>> {
        let entries = &self.of(sql, count, hash)?.entries;
        Ok(entries.iter().filter(|(other, _)| *other == hash).map(|(_, version)| *version).collect())
    }

    pub(super) fn add(&mut self, sql: &Connection, count: i64, hash: u32, version: i64) -> Result<()> {
        let bucket = self.of(sql, count, hash)?;
        bucket.entries.push((hash, version));
        bucket.is_changed = true;
        Ok(())
    }

    pub(super) fn remove(&mut self, sql: &Connection, count: i64, hash: u32, version: i64) -> Result<()> {
        let bucket = self.of(sql, count, hash)?;
        let found = bucket.entries.iter().position(|entry| *entry == (hash, version));
        let found = found.ok_or_else(|| Error::damaged("the catalog's index does not have a row of its table"))?;
        bucket.entries.swap_remove(found);
        bucket.is_changed = true;
        Ok(())
    }

    /// Splits a bucket if there are too few for `live` entries. Gives how many there are.
    pub(super) fn grow(&mut self, sql: &Connection, count: i64, live: i64) -> Result<i64> {
        if live <= count.saturating_mul(LOAD) || count >= MOST {
            return Ok(count);
        }
        let bucket = self.load(sql, count, count - (1 << count.ilog2()))?;
        let level = bucket.level + 1;
        let entries = std::mem::take(&mut bucket.entries);
        let (there, here) = entries.into_iter().partition(|(hash, _)| ends_in(*hash, level) == count);
        *bucket = Bucket { level, entries: here, is_changed: true };
        self.0.insert(count, Bucket { level, entries: there, is_changed: true });
        Ok(count + 1)
    }

    /// Writes what was changed.
    pub(super) fn write(&self, sql: &Connection) -> rusqlite::Result<()> {
        let mut write = sql.prepare_cached("INSERT OR REPLACE INTO buckets VALUES (?1, ?2)")?;
        let mut blob = Vec::new();
        for (number, bucket) in self.0.iter().filter(|(_, bucket)| bucket.is_changed) {
            blob.clear();
            blob.extend_from_slice(&[0; HEAD - 1]);
            blob.push(bucket.level as u8);
            for (hash, version) in &bucket.entries {
                blob.extend_from_slice(&hash.to_le_bytes());
                blob.extend_from_slice(&version.to_le_bytes());
            }
            let seal = seal(*number, &blob[HEAD - 1..]);
            blob[..HEAD - 1].copy_from_slice(&seal);
            write.execute((number, &*blob))?;
        }
        Ok(())
    }
}

/// A sum that is the same for the same entries, in whatever order.
#[derive(Default, PartialEq)]
pub(super) struct Sum(u64, u64);

impl Sum {
    pub(super) fn add(&mut self, hash: u32, version: i64) {
        self.0 += 1;
        self.1 = self.1.wrapping_add(XxHash3_64::oneshot_with_seed(u64::from(hash), &version.to_le_bytes()));
    }
}

/// Verifies all buckets. Gives the sum of their entries.
pub(super) fn verify(sql: &Connection, count: i64) -> Result<Sum> {
    let stored: i64 = sql.query_row("SELECT count(*) FROM buckets", [], |row| row.get(0)).map_err(sql_error)?;
    let mut sum = Sum::default();
    for number in 0..count {
        read(sql, number, |blob| {
            let (level, entries) = open(number, blob)?;
            for (hash, version) in parse(entries) {
                if self::number(hash, count) != number || level != self::level(number, count) {
                    return Err(Error::damaged("an entry of the catalog's index is where nobody finds it"));
                }
                sum.add(hash, version);
            }
            Ok(())
        })?;
    }
    if stored != count {
        return Err(wrong_size());
    }
    Ok(sum)
}

/// All versions that the index names, as far as it can be read, be they true or not.
pub(super) fn salvage(sql: &Connection, mut visit: impl FnMut(i64)) -> rusqlite::Result<()> {
    let mut all = sql.prepare("SELECT entries FROM buckets")?;
    let mut all = all.query([])?;
    while let Some(row) = all.next()? {
        let blob = row.get_ref(0)?.as_blob().unwrap_or_default();
        parse(blob.get(HEAD..).unwrap_or_default()).for_each(|(_, version)| visit(version));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    #[test]
    fn each_hash_has_one_bucket_that_grows_with_the_index() {
        for count in 1..200 {
            for hash in (0..u32::MAX).step_by(1_234_567) {
                let here = number(hash, count);
                assert!(here < count);
                // The next split moves it to the new bucket or nowhere.
                assert_eq!(here, ends_in(hash, level(here, count)));
                let next = number(hash, count + 1);
                assert!(next == here || next == count && here == count - (1 << count.ilog2()));
            }
        }
    }

    #[test]
    fn a_reader_that_knows_an_older_size_finds_everything_all_the_same() {
        let sql = Connection::open_in_memory().unwrap();
        super::super::schema::create(&sql, "boot").unwrap();
        let hash = |version: i64| XxHash3_64::oneshot(&version.to_le_bytes()) as u32;
        let mut old = Index::new();
        // More than are in memory at a time.
        for batch in 0..20 {
            let mut state = State::read(&sql).unwrap();
            let mut buckets = Buckets::default();
            for version in batch * 1000..(batch + 1) * 1000 {
                buckets.add(&sql, state.buckets, hash(version), version).unwrap();
                state.live += 1;
                state.buckets = buckets.grow(&sql, state.buckets, state.live).unwrap();
            }
            buckets.remove(&sql, state.buckets, hash(batch * 1000), batch * 1000).unwrap();
            assert!(buckets.remove(&sql, state.buckets, hash(batch * 1000), batch * 1000).is_err());
            buckets.write(&sql).unwrap();
            state.write(&sql).unwrap();
            for version in 0..(batch + 1) * 1000 {
                let expected = if version % 1000 == 0 { vec![] } else { vec![version] };
                assert_eq!(Index::new().find(&sql, hash(version), false).unwrap(), expected);
                assert_eq!(old.find(&sql, hash(version), true).unwrap(), expected);
            }
            assert!(old.count.get() > batch && old.count.get() <= state.buckets);
            old.forget();
            let mut sum = Sum::default();
            (0..(batch + 1) * 1000)
                .filter(|version| version % 1000 != 0)
                .for_each(|version| sum.add(hash(version), version));
            assert!(verify(&sql, state.buckets).unwrap() == sum);
        }
    }
}
