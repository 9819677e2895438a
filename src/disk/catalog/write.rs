//! What changes the catalog. Every change is a transaction; the next open undoes one that did not end.

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::buckets::{self, Buckets, short};
use super::row::{COLUMNS, hash};
use super::state::State;
use super::wal_index::WalIndex;
use super::{BUSY_TIMEOUT, Catalog, OwnCommit, Row, sql_error};
use crate::disk::parts::files;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;

/// Enough for the values of one eviction, however many are evicted.
const EVICT_AT_A_TIME: usize = 64;

/// How much a chest may take on disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) bytes: u64,
    /// Whether old values make room for new ones.
    pub(crate) evict: bool,
}

/// By how much a directory would be over its limit; `waiting` of that are values that were replaced and go away with the
/// next sync.
pub(crate) struct Excess {
    pub(crate) excess: u64,
    pub(crate) waiting: u64,
}

/// Rows whose files may not be on the medium yet.
pub(crate) struct Unsynced {
    pub(crate) files: Vec<(i64, String)>,
    /// Those that could not be synced before.
    pub(crate) doubtful: Vec<i64>,
}

/// A write transaction. It has the catalog's write lock from its beginning.
pub(crate) struct Transaction<'a> {
    sql: &'a Connection,
    /// Whether there may be a power cut to think of.
    durable: bool,
    state: State,
    /// The part of the index that is worked on.
    buckets: Buckets,
    /// The bytes that were waiting for a sync when the transaction began.
    waiting_before: i64,
    /// Whether there is something to write even if the state is as it was.
    moves_on: bool,
    /// Rows that nobody needs any more, with their files: to be removed when the transaction is committed.
    garbage: Garbage,
}

/// Rows, by their versions, with their files.
pub(crate) type Garbage = Vec<(i64, Option<String>)>;

/// What a row names.
struct Named {
    file: Option<String>,
    stored_bytes: i64,
    about: Option<String>,
}

impl Named {
    /// Reads the columns `file, stored_bytes, about`, which begin at this index.
    fn at(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<Self> {
        Ok(Self { file: row.get(index)?, stored_bytes: row.get(index + 1)?, about: row.get(index + 2)? })
    }

    /// All files of the value, each with its bytes.
    fn into_files(self) -> impl Iterator<Item = (String, i64)> {
        files(self.file, self.stored_bytes, self.about.as_deref())
    }
}

impl Catalog {
    /// Runs `work` in a transaction. Gives its result, and the files that nobody needs after it.
    ///
    /// A `full` transaction is on the medium when this returns, with all those before it.
    pub(crate) fn write<T>(
        &self,
        durable: bool,
        full: bool,
        own: Option<&mut OwnCommit<'_>>,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<(T, Garbage)> {
        if self.is_read_only {
            return Err(super::read_only::refusal());
        }
        let mut writer = self.writer();
        let writer = self.connected(&mut writer)?;
        self.readers.end();
        if full {
            writer.pragma_update(None, "synchronous", "FULL").map_err(sql_error)?;
        }
        let stamp = || self.wal_index.as_ref().map(WalIndex::stamp);
        let mut before = None;
        let result = run(writer, durable, |transaction| {
            // Nobody else commits until this transaction has ended.
            before = stamp();
            work(transaction)
        });
        let after = stamp();
        if let (Some(own), Ok(_)) = (own, &result) {
            own.made(before.zip(after));
        }
        if let Some(stamp) = after {
            self.readers.shorten_log(writer, stamp);
        }
        if full {
            // A level that stays too high is slow and safe.
            let _ = writer.pragma_update(None, "synchronous", "NORMAL");
        }
        result
    }

    /// Brings the whole log into the database file and syncs that: what to do when a sync of the log failed, because
    /// trying the same again might succeed without having written anything.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let mut writer = self.writer();
        let writer = self.connected(&mut writer)?;
        self.readers.end();
        writer.pragma_update(None, "synchronous", "FULL").map_err(sql_error)?;
        // SQLite does not wait for the checkpoint of another process.
        let began = Instant::now();
        let done = loop {
            let busy = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
            match busy.map_err(sql_error) {
                Ok(false) => break Ok(()),
                Ok(true) if began.elapsed() < BUSY_TIMEOUT => thread::sleep(Duration::from_millis(5)),
                Ok(true) => break Err(Error::new(ErrorKind::Busy, "other processes are using the catalog's log")),
                Err(error) if error.kind() == ErrorKind::Busy && began.elapsed() < BUSY_TIMEOUT => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => break Err(error),
            }
        };
        // A level that stays too high is slow and safe.
        let _ = writer.pragma_update(None, "synchronous", "NORMAL");
        done.map_err(|error| error.with_path(&self.path))
    }

    /// What is not known to be on the medium.
    pub(crate) fn unsynced(&self) -> Result<Unsynced> {
        self.read(|snapshot| unsynced(&snapshot.sql).map_err(sql_error))
    }

    /// The boot of the machine in which the catalog was last brought in order.
    pub(crate) fn boot(&self) -> Result<String> {
        self.read(|reader| {
            let State { buckets, boot, .. } = State::read(&reader.sql)?;
            reader.index.count.set(buckets);
            Ok(boot)
        })
    }
}

fn run<T>(
    writer: &mut Connection,
    durable: bool,
    work: impl FnOnce(&mut Transaction<'_>) -> Result<T>,
) -> Result<(T, Garbage)> {
    let sql = writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql_error)?;
    let before = State::read(&sql)?;
    let (state, waiting_before, buckets) = (before.clone(), before.waiting, Buckets::default());
    let mut transaction =
        Transaction { sql: &sql, durable, state, buckets, waiting_before, moves_on: false, garbage: Vec::new() };
    let done = work(&mut transaction)?;
    let Transaction { state, buckets, moves_on, garbage, .. } = transaction;
    buckets.write(&sql).map_err(sql_error)?;
    if moves_on || before != state {
        state.write(&sql).map_err(sql_error)?;
    }
    sql.commit().map_err(sql_error)?;
    Ok((done, garbage))
}

fn unsynced(sql: &Connection) -> rusqlite::Result<Unsynced> {
    let query = "SELECT version, file, stored_bytes, about FROM entries \
                 WHERE version > (SELECT synced FROM state) AND file IS NOT NULL ORDER BY version";
    let mut query = sql.prepare_cached(query)?;
    let mut rows = query.query([])?;
    let mut files = Vec::new();
    while let Some(row) = rows.next()? {
        let version = row.get(0)?;
        files.extend(Named::at(row, 1)?.into_files().map(|(file, _)| (version, file)));
    }
    let mut doubtful = sql.prepare_cached("SELECT version FROM doubtful JOIN entries USING (version)")?;
    let doubtful = doubtful.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(Unsynced { files, doubtful })
}

impl<'a> Transaction<'a> {
    /// For tables that are about no values.
    pub(super) fn connection(&self) -> &'a Connection {
        self.sql
    }

    fn next_version(&mut self) -> Result<i64> {
        let next = self.state.last.checked_add(1);
        self.state.last = next.ok_or_else(|| Error::damaged("the catalog has given its last version"))?;
        Ok(self.state.last)
    }

    /// Publishes rows of different keys in place of those that their keys have. Gives the versions, one after the other.
    pub(crate) fn publish(&mut self, rows: &[Row]) -> Result<Vec<i64>> {
        let versions: Vec<i64> = rows.iter().map(|_| self.next_version()).collect::<Result<_>>()?;
        let sql = "INSERT INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, \
                   ?17)";
        let mut insert = self.sql.prepare_cached(sql).map_err(sql_error)?;
        for (row, version) in rows.iter().zip(&versions) {
            row.insert(&mut insert, *version).map_err(sql_error)?;
        }
        self.grow(rows.len())?;
        // One part of the index after the other: each is read and written once. The rows are there by then: whoever finds
        // one by the hash of another looks at it.
        let hashes = rows.iter().map(|row| hash(row.key.canonical()));
        let count = self.state.buckets;
        let mut in_order: Vec<_> = hashes.zip(rows.iter().zip(&versions)).collect();
        in_order.sort_unstable_by_key(|(hash, (_, version))| (buckets::number(short(*hash), count), **version));
        for (hash, (row, version)) in in_order {
            self.take_out(&row.key, *version, &row.files())?;
            self.count_in(hash, *version, row.stored_bytes.cast_signed())?;
        }
        Ok(versions)
    }

    /// Lets the index grow for so many new entries.
    fn grow(&mut self, added: usize) -> Result<()> {
        let live = self.state.live.saturating_add(added as i64);
        for _ in 0..added {
            self.state.buckets = self.buckets.grow(self.sql, self.state.buckets, live)?;
        }
        Ok(())
    }

    /// By how much the directory would be over a limit. What this very transaction replaces does not count: it is gone
    /// after the sync that is due then.
    pub(crate) fn excess(&self, limit: Limit) -> Option<Excess> {
        let waiting = self.waiting_before.max(0).cast_unsigned();
        let excess = self.state.stored.max(0).cast_unsigned().saturating_add(waiting).saturating_sub(limit.bytes);
        (excess > 0).then_some(Excess { excess, waiting })
    }

    /// Bytes of all values on disk.
    pub(crate) fn stored(&self) -> u64 {
        self.state.stored.max(0).cast_unsigned()
    }

    /// Bytes of values that were replaced or removed and that stay until the next sync.
    pub(crate) fn waiting(&self) -> u64 {
        self.state.waiting.max(0).cast_unsigned()
    }

    /// Removes a key. Tells whether it was there.
    pub(crate) fn remove(&mut self, key: &Key) -> Result<bool> {
        let since = self.next_version()?;
        let was_there = self.take_out(key, since, &[])?;
        if !was_there {
            self.state.last -= 1;
        }
        Ok(was_there)
    }

    /// Takes a key's row out of the table. It is kept aside, together with its files, if a power cut could bring it back
    /// or make it needed again: because a value that comes in its place is not on the medium yet. That value may need
    /// some of its files too.
    fn take_out(&mut self, key: &Key, since: i64, needed: &[String]) -> Result<bool> {
        let Some(version) = self.version(key)? else { return Ok(false) };
        let select = "SELECT file, stored_bytes, about FROM entries WHERE version = ?1";
        let mut select = self.sql.prepare_cached(select).map_err(sql_error)?;
        let old = select.query_row([version], |row| Named::at(row, 0)).map_err(sql_error)?;
        let stored_bytes = old.stored_bytes;
        let mut files: Vec<(String, i64)> = old.into_files().collect();
        let was_synced = self.durable && version <= self.state.synced;
        if self.durable && (!files.is_empty() || was_synced) {
            let retire = "INSERT INTO retired SELECT *, ?2 FROM entries WHERE version = ?1";
            let mut retire = self.sql.prepare_cached(retire).map_err(sql_error)?;
            retire.execute([version, since]).map_err(sql_error)?;
        }
        let had = files.len();
        files.retain(|(file, _)| !needed.contains(file));
        let shares = files.len() < had;
        if was_synced {
            let bytes = files.iter().fold(0, |sum: i64, (_, bytes)| sum.saturating_add(*bytes));
            self.state.waiting = self.state.waiting.saturating_add(bytes);
        } else {
            self.throw_away(version, files, key)?;
        }
        if shares {
            self.pass_doubt_on(version, since)?;
        }
        self.delete(hash(key.canonical()), version, stored_bytes)?;
        Ok(true)
    }

    /// What could not be synced of a version is in doubt in the one that shares its files.
    fn pass_doubt_on(&mut self, old: i64, new: i64) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO doubtful SELECT ?2 FROM doubtful WHERE version = ?1";
        let mut pass = self.sql.prepare_cached(sql).map_err(sql_error)?;
        pass.execute([old, new]).map(|_| ()).map_err(sql_error)
    }

    /// Adds to the garbage a row that is nobody's any more, with those of its files that no other version of its key
    /// needs after a power cut: those wait for a sync.
    fn throw_away(&mut self, version: i64, mut files: Vec<(String, i64)>, key: &Key) -> Result<()> {
        if files.len() > 1 {
            let sql = "SELECT file, stored_bytes, about FROM retired \
                       WHERE hash = ?1 AND key = ?2 AND version <= ?3 AND since > ?3";
            let mut query = self.sql.prepare_cached(sql).map_err(sql_error)?;
            let key = key.canonical();
            let mut rows = query.query(params![hash(key), key, self.state.synced]).map_err(sql_error)?;
            while let Some(row) = rows.next().map_err(sql_error)? {
                let needed = Named::at(row, 0).map_err(sql_error)?;
                for (needed, bytes) in needed.into_files() {
                    let before = files.len();
                    files.retain(|(file, _)| *file != needed);
                    if files.len() < before {
                        self.state.waiting = self.state.waiting.saturating_add(bytes);
                    }
                }
            }
        }
        if files.is_empty() {
            self.garbage.push((version, None));
        }
        self.garbage.extend(files.into_iter().map(|(file, _)| (version, Some(file))));
        Ok(())
    }

    fn delete(&mut self, hash: i64, version: i64, stored_bytes: i64) -> Result<()> {
        let mut delete = self.sql.prepare_cached("DELETE FROM entries WHERE version = ?1").map_err(sql_error)?;
        delete.execute([version]).map_err(sql_error)?;
        self.buckets.remove(self.sql, self.state.buckets, short(hash), version)?;
        self.state.live = self.state.live.saturating_sub(1);
        self.state.stored = self.state.stored.saturating_sub(stored_bytes);
        Ok(())
    }

    fn count_in(&mut self, hash: i64, version: i64, stored_bytes: i64) -> Result<()> {
        self.state.live = self.state.live.saturating_add(1);
        self.state.stored = self.state.stored.saturating_add(stored_bytes);
        self.buckets.add(self.sql, self.state.buckets, short(hash), version)
    }

    /// Removes the least recently used values, but for this version, until `bytes` are free.
    ///
    /// The transaction has to be a full one: a power cut must not bring back a row whose file is gone.
    pub(crate) fn evict(&mut self, bytes: u64, kept: Option<i64>) -> Result<()> {
        let mut freed = 0;
        while freed < bytes {
            let sql = "SELECT hash, version, file, stored_bytes, about FROM entries WHERE version IS NOT ?2 \
                       ORDER BY used LIMIT ?1";
            let mut oldest = self.sql.prepare_cached(sql).map_err(sql_error)?;
            let rows = oldest.query_map(rusqlite::params![EVICT_AT_A_TIME, kept], |row| {
                Ok((row.get(0)?, row.get(1)?, Named::at(row, 2)?))
            });
            let rows = rows.and_then(Iterator::collect::<rusqlite::Result<Vec<(i64, i64, Named)>>>);
            let rows = rows.map_err(sql_error)?;
            if rows.is_empty() {
                break;
            }
            for (hash, version, named) in rows {
                if freed >= bytes {
                    break;
                }
                let stored_bytes = named.stored_bytes;
                self.delete(hash, version, stored_bytes)?;
                let files: Vec<String> = named.into_files().map(|(file, _)| file).collect();
                if files.len() > 1 {
                    self.forget_sharing(hash, &files)?;
                }
                self.garbage.extend(files.into_iter().map(|file| (version, Some(file))));
                freed += stored_bytes.max(0).cast_unsigned();
            }
        }
        Ok(())
    }

    /// Takes out retired rows that share these files, which are about to go. Their other files go too.
    fn forget_sharing(&mut self, hash: i64, files: &[String]) -> Result<()> {
        let sql = "SELECT version, file, stored_bytes, about FROM retired WHERE hash = ?1";
        let mut query = self.sql.prepare_cached(sql).map_err(sql_error)?;
        let rows = query.query_map([hash], |row| Ok((row.get(0)?, Named::at(row, 1)?))).map_err(sql_error)?;
        for (version, named) in rows.collect::<rusqlite::Result<Vec<(i64, Named)>>>().map_err(sql_error)? {
            let theirs: Vec<String> = named.into_files().map(|(file, _)| file).collect();
            if theirs.iter().any(|file| files.contains(file)) {
                self.sql.execute("DELETE FROM retired WHERE version = ?1", [version]).map_err(sql_error)?;
                let others = theirs.into_iter().filter(|file| !files.contains(file));
                self.garbage.extend(others.map(|file| (version, Some(file))));
            }
        }
        Ok(())
    }

    /// These versions were used, the last one most recently.
    pub(crate) fn touch(&mut self, versions: &[i64]) -> Result<()> {
        let mut touch =
            self.sql.prepare_cached("UPDATE entries SET used = ?2 WHERE version = ?1").map_err(sql_error)?;
        for version in versions {
            touch.execute([*version, self.state.last]).map_err(sql_error)?;
        }
        Ok(())
    }

    /// Forgets retired rows whose files are gone.
    pub(crate) fn forget(&mut self, versions: &[i64]) -> Result<()> {
        let mut forget = self.sql.prepare_cached("DELETE FROM retired WHERE version = ?1").map_err(sql_error)?;
        versions.iter().try_for_each(|version| forget.execute([version]).map(|_| ())).map_err(sql_error)
    }

    /// Adds to the garbage what an earlier process left of it.
    pub(crate) fn collect(&mut self) -> Result<()> {
        let synced = self.state.synced;
        let mut needed = HashSet::new();
        let sql = "SELECT file, stored_bytes, about FROM retired WHERE version <= ?1 AND since > ?1";
        let mut kept = self.sql.prepare_cached(sql).map_err(sql_error)?;
        let mut kept = kept.query([synced]).map_err(sql_error)?;
        while let Some(row) = kept.next().map_err(sql_error)? {
            needed.extend(Named::at(row, 0).map_err(sql_error)?.into_files().map(|(file, _)| file));
        }
        let sql = "SELECT version, hash, file, stored_bytes, about FROM retired WHERE since <= ?1 OR version > ?1";
        let mut left = self.sql.prepare_cached(sql).map_err(sql_error)?;
        let mut left = left.query([synced]).map_err(sql_error)?;
        while let Some(row) = left.next().map_err(sql_error)? {
            let (version, hash) = (row.get(0).map_err(sql_error)?, row.get(1).map_err(sql_error)?);
            let mut files: Vec<String> =
                Named::at(row, 2).map_err(sql_error)?.into_files().map(|(file, _)| file).collect();
            files.retain(|file| !needed.contains(file));
            if !files.is_empty() {
                let live = self.files_of(hash)?;
                files.retain(|file| !live.contains(file));
            }
            if files.is_empty() {
                self.garbage.push((version, None));
            }
            self.garbage.extend(files.into_iter().map(|file| (version, Some(file))));
        }
        Ok(())
    }

    /// The files of the values whose keys have this hash.
    fn files_of(&mut self, hash: i64) -> Result<Vec<String>> {
        let mut select = self
            .sql
            .prepare_cached("SELECT file, stored_bytes, about FROM entries WHERE version = ?1")
            .map_err(sql_error)?;
        let mut files = Vec::new();
        for version in self.buckets.find(self.sql, self.state.buckets, short(hash))? {
            let named = select.query_row([version], |row| Named::at(row, 0)).map_err(sql_error)?;
            files.extend(named.into_files().map(|(file, _)| file));
        }
        Ok(files)
    }

    /// What is not known to be on the medium; nothing can be added while the transaction lasts.
    pub(crate) fn unsynced(&self) -> Result<Unsynced> {
        unsynced(self.sql).map_err(sql_error)
    }

    /// All files are on the medium, so nothing that they replaced is needed any more. The transaction has to be a full
    /// one.
    pub(crate) fn mark_synced(&mut self) -> Result<()> {
        self.state.synced = self.state.last;
        self.state.waiting = 0;
        self.sql.execute("DELETE FROM doubtful", []).map_err(sql_error)?;
        self.collect()
    }

    /// Remembers that the files of these versions could not be synced.
    ///
    /// Versions that share these files since are doubtful too.
    pub(crate) fn mark_doubtful(&mut self, versions: &[i64], names: &[String]) -> Result<()> {
        let sharing = unsynced(self.sql).map_err(sql_error)?.files;
        let sharing = sharing.into_iter().filter(|(_, file)| names.contains(file)).map(|(version, _)| version);
        let versions: Vec<i64> = versions.iter().copied().chain(sharing).collect();
        let mut insert = self.sql.prepare_cached("INSERT OR IGNORE INTO doubtful VALUES (?1)").map_err(sql_error)?;
        versions.iter().try_for_each(|version| insert.execute([version]).map(|_| ())).map_err(sql_error)
    }

    /// The rows that are not known to be on the medium.
    pub(crate) fn unsynced_rows(&self) -> Result<Vec<Row>> {
        let sql = format!("SELECT {COLUMNS} FROM entries WHERE version > ?1 AND file IS NOT NULL ORDER BY version");
        let mut rows = self.sql.prepare(&sql).map_err(sql_error)?;
        let mut rows = rows.query([self.state.synced]).map_err(sql_error)?;
        let mut parsed = Vec::new();
        while let Some(row) = rows.next().map_err(sql_error)? {
            parsed.push(Row::parse(row, None, false)?);
        }
        Ok(parsed)
    }

    /// Takes out a row whose value is lost. The one that it replaced takes its place again, if that was on the medium.
    /// Gives the files of that one.
    pub(crate) fn withdraw(&mut self, row: &Row) -> Result<Vec<String>> {
        let key = row.key.canonical();
        self.delete(hash(key), row.version, row.stored_bytes.cast_signed())?;
        // What was replaced or removed before the last sync is garbage.
        let select = "SELECT version, file, stored_bytes, about FROM retired \
                      WHERE hash = ?1 AND key = ?2 AND version <= ?3 AND since > ?3 ORDER BY version DESC LIMIT 1";
        let mut select = self.sql.prepare_cached(select).map_err(sql_error)?;
        let old = select.query_row(params![hash(key), key, self.state.synced], |row| {
            Ok((row.get::<_, i64>(0)?, Named::at(row, 1)?))
        });
        let Some((version, old)) = old.optional().map_err(sql_error)? else { return Ok(Vec::new()) };
        let stored_bytes = old.stored_bytes;
        let files: Vec<(String, i64)> = old.into_files().collect();
        let restore = "INSERT INTO entries SELECT version, hash, key, kind, type, format, bytes, stored_bytes, payload, \
                       label_at, checksums, created_ns, seal, used, about, file, inline FROM retired WHERE version = ?1";
        self.sql.execute(restore, [version]).map_err(sql_error)?;
        self.sql.execute("DELETE FROM retired WHERE version = ?1", [version]).map_err(sql_error)?;
        self.count_in(hash(key), version, stored_bytes)?;
        // What both have in common was not counted.
        let theirs = row.files();
        let waited = files.iter().filter(|(file, _)| !theirs.contains(file)).map(|(_, bytes)| *bytes).sum();
        self.state.waiting = self.state.waiting.saturating_sub(waited);
        Ok(files.into_iter().map(|(file, _)| file).collect())
    }

    /// Takes out a damaged row, if it is still there.
    pub(crate) fn discard(&mut self, version: i64) -> Result<bool> {
        let sql = "SELECT hash, stored_bytes FROM entries WHERE version = ?1";
        let found = self.sql.query_row(sql, [version], |row| Ok((row.get(0)?, row.get(1)?))).optional();
        let Some((hash, stored_bytes)) = found.map_err(sql_error)? else { return Ok(false) };
        self.delete(hash, version, stored_bytes)?;
        Ok(true)
    }

    /// The files that rows name, and whether a value needs them now: the others are those of retired rows, perhaps gone.
    ///
    /// # Errors
    /// `Damaged` if a row does not match its checksum: then nobody knows what it named.
    pub(crate) fn files(&self) -> Result<HashMap<String, bool>> {
        let mut files = HashMap::new();
        for (table, is_needed) in [("retired", false), ("entries", true)] {
            let sql = format!("SELECT {COLUMNS} FROM {table} WHERE file IS NOT NULL");
            let mut query = self.sql.prepare(&sql).map_err(sql_error)?;
            let mut rows = query.query([]).map_err(sql_error)?;
            while let Some(row) = rows.next().map_err(sql_error)? {
                files.extend(Row::parse(row, None, false)?.files().into_iter().map(|file| (file, is_needed)));
            }
        }
        Ok(files)
    }

    pub(crate) fn boot(&self) -> &str {
        &self.state.boot
    }

    pub(crate) fn version(&mut self, key: &Key) -> Result<Option<i64>> {
        let versions = self.buckets.find(self.sql, self.state.buckets, short(hash(key.canonical())))?;
        super::choose(self.sql, key, versions)
    }

    /// Writes something, whatever it is: the log then goes on over what a transaction that failed left in it.
    pub(crate) fn move_on(&mut self) {
        self.moves_on = true;
    }

    pub(crate) fn set_boot(&mut self, boot: &str) {
        boot.clone_into(&mut self.state.boot);
    }

    /// Makes the index that finds the least recently used values.
    pub(crate) fn index_uses(&self) -> Result<()> {
        let sql = "SELECT 1 FROM sqlite_schema WHERE name = 'entries_by_use'";
        if !self.sql.prepare(sql).and_then(|mut found| found.exists([])).map_err(sql_error)? {
            self.sql.execute_batch(super::schema::BY_USE).map_err(sql_error)?;
        }
        Ok(())
    }
}
