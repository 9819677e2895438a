//! What changes the catalog. Every change is a transaction; the next open undoes one that did not end.

use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::buckets::{Buckets, short};
use super::row::{COLUMNS, hash};
use super::state::State;
use super::wal_index::WalIndex;
use super::{BUSY_TIMEOUT, Catalog, OwnCommit, Row, sql_error};
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
        let mut writer = self.writer();
        if full {
            writer.pragma_update(None, "synchronous", "FULL").map_err(sql_error)?;
        }
        let stamp = || self.wal_index.as_ref().map(WalIndex::stamp);
        let mut before = None;
        let result = run(&mut writer, durable, |transaction| {
            // Nobody else commits until this transaction has ended.
            before = stamp();
            work(transaction)
        });
        if let (Some(own), Ok(_)) = (own, &result) {
            own.made(before.zip(stamp()));
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
        let writer = self.writer();
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
        self.read_one(|reader| Ok(State::read(&reader.sql)?.boot))
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
    let query = "SELECT version, file FROM entries \
                 WHERE version > (SELECT synced FROM state) AND file IS NOT NULL ORDER BY version";
    let mut files = sql.prepare_cached(query)?;
    let files = files.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let mut doubtful = sql.prepare_cached("SELECT version FROM doubtful JOIN entries USING (version)")?;
    let doubtful = doubtful.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(Unsynced { files, doubtful })
}

impl<'a> Transaction<'a> {
    fn next_version(&mut self) -> Result<i64> {
        let next = self.state.last.checked_add(1);
        self.state.last = next.ok_or_else(|| Error::damaged("the catalog has given its last version"))?;
        Ok(self.state.last)
    }

    /// Publishes a row in place of the one that its key has. Gives its version.
    pub(crate) fn publish(&mut self, row: &Row) -> Result<i64> {
        let version = self.next_version()?;
        self.take_out(&row.key, version)?;
        let sql = "INSERT INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, \
                   ?17)";
        let mut insert = self.sql.prepare_cached(sql).map_err(sql_error)?;
        row.insert(&mut insert, version).map_err(sql_error)?;
        self.count_in(hash(row.key.canonical()), version, row.stored_bytes.cast_signed())?;
        Ok(version)
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
        let was_there = self.take_out(key, since)?;
        if !was_there {
            self.state.last -= 1;
        }
        Ok(was_there)
    }

    /// Takes a key's row out of the table. It is kept aside, together with its file, if a power cut could bring it back
    /// or make it needed again: because a value that comes in its place is not on the medium yet.
    fn take_out(&mut self, key: &Key, since: i64) -> Result<bool> {
        let Some(version) = self.version(key)? else { return Ok(false) };
        let select = "SELECT stored_bytes, file FROM entries WHERE version = ?1";
        let mut select = self.sql.prepare_cached(select).map_err(sql_error)?;
        let old = select.query_row([version], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?)));
        let (stored_bytes, file) = old.map_err(sql_error)?;
        let was_synced = self.durable && version <= self.state.synced;
        if self.durable && (file.is_some() || was_synced) {
            let retire = "INSERT INTO retired SELECT *, ?2 FROM entries WHERE version = ?1";
            let mut retire = self.sql.prepare_cached(retire).map_err(sql_error)?;
            retire.execute([version, since]).map_err(sql_error)?;
        }
        match (was_synced, file) {
            (true, Some(_)) => self.state.waiting = self.state.waiting.saturating_add(stored_bytes),
            (false, Some(file)) => self.garbage.push((version, Some(file))),
            (_, None) => {}
        }
        self.delete(hash(key.canonical()), version, stored_bytes)?;
        Ok(true)
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
        self.buckets.add(self.sql, self.state.buckets, short(hash), version)?;
        self.state.buckets = self.buckets.grow(self.sql, self.state.buckets, self.state.live)?;
        Ok(())
    }

    /// Removes the least recently used values until `bytes` are free. Gives their keys' number.
    ///
    /// The transaction has to be a full one: a power cut must not bring back a row whose file is gone.
    pub(crate) fn evict(&mut self, bytes: u64) -> Result<usize> {
        let mut freed = 0;
        let mut evicted = 0;
        while freed < bytes {
            let sql = "SELECT hash, version, stored_bytes, file FROM entries ORDER BY used LIMIT ?1";
            let mut oldest = self.sql.prepare_cached(sql).map_err(sql_error)?;
            let rows =
                oldest.query_map([EVICT_AT_A_TIME], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
            let rows = rows.and_then(Iterator::collect::<rusqlite::Result<Vec<(i64, i64, i64, Option<String>)>>>);
            let rows = rows.map_err(sql_error)?;
            if rows.is_empty() {
                break;
            }
            for (hash, version, stored_bytes, file) in rows {
                if freed >= bytes {
                    break;
                }
                self.delete(hash, version, stored_bytes)?;
                self.garbage.push((version, file));
                freed += stored_bytes.max(0).cast_unsigned();
                evicted += 1;
            }
        }
        Ok(evicted)
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
        let sql = "SELECT version, file FROM retired WHERE since <= ?1 OR version > ?1";
        let mut left = self.sql.prepare_cached(sql).map_err(sql_error)?;
        let left = left.query_map([self.state.synced], |row| Ok((row.get(0)?, row.get(1)?))).map_err(sql_error)?;
        for row in left {
            self.garbage.push(row.map_err(sql_error)?);
        }
        Ok(())
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
    pub(crate) fn mark_doubtful(&mut self, versions: &[i64]) -> Result<()> {
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
    /// Tells whether there is one.
    pub(crate) fn withdraw(&mut self, row: &Row) -> Result<bool> {
        let key = row.key.canonical();
        self.delete(hash(key), row.version, row.stored_bytes.cast_signed())?;
        // What was replaced or removed before the last sync is garbage.
        let select = "SELECT version, stored_bytes, file FROM retired WHERE hash = ?1 AND key = ?2 AND version <= ?3 \
                      AND since > ?3 ORDER BY version DESC LIMIT 1";
        let mut select = self.sql.prepare_cached(select).map_err(sql_error)?;
        let old = select.query_row(params![hash(key), key, self.state.synced], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<String>>(2)?))
        });
        let Some((version, stored_bytes, file)) = old.optional().map_err(sql_error)? else { return Ok(false) };
        let restore = "INSERT INTO entries SELECT version, hash, key, kind, type, format, bytes, stored_bytes, payload, \
                       label_at, checksums, created_ns, seal, used, about, file, inline FROM retired WHERE version = ?1";
        self.sql.execute(restore, [version]).map_err(sql_error)?;
        self.sql.execute("DELETE FROM retired WHERE version = ?1", [version]).map_err(sql_error)?;
        self.count_in(hash(key), version, stored_bytes)?;
        self.state.waiting = self.state.waiting.saturating_sub(if file.is_some() { stored_bytes } else { 0 });
        Ok(true)
    }

    /// Takes out a damaged row, if it is still there.
    pub(crate) fn discard(&mut self, version: i64) -> Result<bool> {
        let sql = "SELECT hash, stored_bytes FROM entries WHERE version = ?1";
        let found = self.sql.query_row(sql, [version], |row| Ok((row.get(0)?, row.get(1)?))).optional();
        let Some((hash, stored_bytes)) = found.map_err(sql_error)? else { return Ok(false) };
        self.delete(hash, version, stored_bytes)?;
        Ok(true)
    }

    /// The files that rows name, retired ones included.
    pub(crate) fn files(&self) -> Result<std::collections::HashSet<String>> {
        let sql =
            "SELECT file FROM entries WHERE file IS NOT NULL UNION SELECT file FROM retired WHERE file IS NOT NULL";
        let mut files = self.sql.prepare(sql).map_err(sql_error)?;
        let files = files.query_map([], |row| row.get(0)).map_err(sql_error)?;
        files.collect::<rusqlite::Result<_>>().map_err(sql_error)
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
