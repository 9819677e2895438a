//! The catalog: one row a key, in SQLite. A committed row is what makes a value published.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row as SqlRow, TransactionBehavior, params};
use twox_hash::XxHash3_64;

use super::wal_index::WalIndex;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::value::Kind;

/// Marks the file as ours: "ICEC".
const APPLICATION_ID: i64 = 0x4943_4543;

/// Another process may hold the write lock for so long before a call gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Rows are kept in the order of their insertion and found by a hash of the key, which writes several times faster than
/// a table ordered by random keys. The bytes of small values come last, so that the other columns are read without them.
const SCHEMA: &str = "
    CREATE TABLE entries (
        version      INTEGER PRIMARY KEY AUTOINCREMENT,
        hash         INTEGER NOT NULL,
        key          TEXT NOT NULL,
        kind         TEXT NOT NULL,
        type         TEXT NOT NULL,
        format       TEXT NOT NULL,
        bytes        INTEGER NOT NULL,
        stored_bytes INTEGER NOT NULL,
        payload      INTEGER NOT NULL,
        label_at     INTEGER NOT NULL,
        checksums    BLOB NOT NULL,
        created_ns   INTEGER NOT NULL,
        about        TEXT,
        file         TEXT,
        inline       BLOB
    ) STRICT;
    CREATE INDEX entries_by_hash ON entries (hash);
";

const SELECT_ALL: &str = "SELECT version, key, kind, type, format, bytes, stored_bytes, payload, label_at, checksums, \
                          created_ns, about, file FROM entries ORDER BY version";

const SELECT_ONE: &str = "SELECT version, NULL, kind, type, format, bytes, stored_bytes, payload, label_at, checksums, \
                          created_ns, about, file, inline FROM entries WHERE hash = ?1 AND key = ?2";

/// What the catalog knows of a published value.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Grows with every publication and is never used again.
    pub(crate) version: i64,
    pub(crate) key: Key,
    pub(crate) kind: Kind,
    pub(crate) stored_name: String,
    pub(crate) format: String,
    /// In memory.
    pub(crate) bytes: u64,
    /// On disk, the label included.
    pub(crate) stored_bytes: u64,
    pub(crate) payload: u64,
    pub(crate) label_at: u64,
    pub(crate) checksums: Vec<u8>,
    pub(crate) created_ns: i64,
    pub(crate) about: Option<String>,
    /// Below the chest's directory; none for a value in the catalog itself.
    pub(crate) file: Option<String>,
    pub(crate) inline: Option<Vec<u8>>,
}

/// Two connections: a reader never waits for this process's writer.
pub(crate) struct Catalog {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    /// Of the reader's connection, which is closed only when the catalog is dropped.
    wal_index: Option<WalIndex>,
}

impl Catalog {
    /// Makes a new catalog, or opens one that another process made at the same time.
    pub(crate) fn create(path: &Path, durable: bool) -> Result<Self> {
        let mut writer = connect(path, durable, OpenFlags::SQLITE_OPEN_CREATE)?;
        let mut make = || {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if version == 0 {
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
                transaction.pragma_update(None, "user_version", super::FORMAT_VERSION)?;
            }
            transaction.commit()
        };
        make().map_err(sql_error)?;
        Self::finish(path, durable, writer)
    }

    /// Opens the catalog of an existing chest.
    pub(crate) fn open(path: &Path, durable: bool) -> Result<Self> {
        let writer = connect(path, durable, OpenFlags::empty())?;
        Self::finish(path, durable, writer)
    }

    fn finish(path: &Path, durable: bool, writer: Connection) -> Result<Self> {
        let pragma = |name: &str| writer.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sql_error);
        if pragma("application_id")? != APPLICATION_ID || pragma("user_version")? != super::FORMAT_VERSION {
            return Err(Error::damaged("the catalog is not one of this format"));
        }
        let reader = connect(path, durable, OpenFlags::empty())?;
        // SQLite opens its log at the first read.
        reader.query_row("SELECT count(*) FROM entries WHERE version < 0", [], |_| Ok(())).map_err(sql_error)?;
        // SAFETY: the connection lives as long as the catalog, and nobody else has the index.
        let wal_index = unsafe { WalIndex::of(&reader) };
        Ok(Self { writer: Mutex::new(writer), reader: Mutex::new(reader), wal_index })
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        // A panic while writing has rolled its transaction back.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that differs after every commit of any process, if that can be told without a query.
    pub(crate) fn stamp(&self) -> Option<u128> {
        self.wal_index.as_ref().map(WalIndex::stamp)
    }

    /// The row of a key, with the bytes of a small value.
    pub(crate) fn find(&self, key: &Key) -> Result<Option<Row>> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached(SELECT_ONE).map_err(sql_error)?;
        let found =
            statement.query_row(params![hash(key), key.canonical()], |row| Ok(parse(row, key.clone(), row.get(13)?)));
        found.optional().map_err(sql_error)?.transpose()
    }

    /// The version of a key's value, if it has one.
    pub(crate) fn version(&self, key: &Key) -> Result<Option<i64>> {
        let reader = self.reader();
        let sql = "SELECT version FROM entries WHERE hash = ?1 AND key = ?2";
        let mut statement = reader.prepare_cached(sql).map_err(sql_error)?;
        statement.query_row(params![hash(key), key.canonical()], |row| row.get(0)).optional().map_err(sql_error)
    }

    /// All rows in the order of their publication, without the bytes of small values.
    pub(crate) fn rows(&self) -> Result<Vec<Row>> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached(SELECT_ALL).map_err(sql_error)?;
        let rows = statement.query_map([], |row| {
            let canonical: String = row.get(1)?;
            Ok(read_key(&canonical).and_then(|key| parse(row, key, None)))
        });
        let rows = rows.map_err(sql_error)?;
        rows.map(|row| row.map_err(sql_error)?).collect()
    }

    pub(crate) fn keys(&self) -> Result<Vec<Key>> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached("SELECT key FROM entries ORDER BY version").map_err(sql_error)?;
        let keys = statement.query_map([], |row| row.get::<_, String>(0)).map_err(sql_error)?;
        keys.map(|key| read_key(&key.map_err(sql_error)?)).collect()
    }

    /// How many values there are, and the bytes that they take on disk.
    pub(crate) fn totals(&self) -> Result<(u64, u64)> {
        let sql = "SELECT count(*), coalesce(sum(stored_bytes), 0) FROM entries";
        self.reader().query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).map_err(sql_error)
    }

    /// How many keys there are, these included.
    pub(crate) fn len_with(&self, keys: &[Key]) -> Result<u64> {
        let count = || {
            let reader = self.reader();
            // One snapshot for the count and the look-ups.
            let snapshot = reader.unchecked_transaction()?;
            let mut len: u64 = snapshot.query_row("SELECT count(*) FROM entries", [], |row| row.get(0))?;
            let mut has = snapshot.prepare_cached("SELECT 1 FROM entries WHERE hash = ?1 AND key = ?2")?;
            for key in keys {
                len += u64::from(!has.exists(params![hash(key), key.canonical()])?);
            }
            Ok(len)
        };
        count().map_err(sql_error)
    }

    /// Publishes rows in one transaction. Gives their versions, and the files of the rows that they replace.
    pub(crate) fn publish(&self, rows: &[Row]) -> Result<(Vec<i64>, Vec<String>)> {
        let sql = "INSERT INTO entries (hash, key, kind, type, format, bytes, stored_bytes, payload, label_at, checksums, \
                   created_ns, about, file, inline) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
        let mut versions = Vec::with_capacity(rows.len());
        let mut replaced = Vec::new();
        let mut publish = || {
            let mut writer = self.writer();
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut insert = transaction.prepare_cached(sql)?;
                for row in rows {
                    delete(&transaction, &row.key, &mut replaced)?;
                    versions.push(insert.insert(params![
                        hash(&row.key),
                        row.key.canonical(),
                        row.kind.to_string(),
                        row.stored_name,
                        row.format,
                        row.bytes,
                        row.stored_bytes,
                        row.payload,
                        row.label_at,
                        row.checksums,
                        row.created_ns,
                        row.about,
                        row.file,
                        row.inline,
                    ])?);
                }
            }
            transaction.commit()
        };
        publish().map_err(sql_error)?;
        Ok((versions, replaced))
    }

    /// Removes keys in one transaction. Gives how many there were, and their files.
    pub(crate) fn remove(&self, keys: &[Key]) -> Result<(usize, Vec<String>)> {
        let mut files = Vec::new();
        let mut remove = || {
            let mut writer = self.writer();
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut removed = 0;
            for key in keys {
                removed += delete(&transaction, key, &mut files)?;
            }
            transaction.commit().map(|()| removed)
        };
        let removed = remove().map_err(sql_error)?;
        Ok((removed, files))
    }
}

fn delete(connection: &Connection, key: &Key, files: &mut Vec<String>) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached("DELETE FROM entries WHERE hash = ?1 AND key = ?2 RETURNING file")?;
    let mut rows = statement.query(params![hash(key), key.canonical()])?;
    let mut deleted = 0;
    while let Some(row) = rows.next()? {
        deleted += 1;
        files.extend(row.get::<_, Option<String>>(0)?);
    }
    Ok(deleted)
}

fn connect(path: &Path, durable: bool, create: OpenFlags) -> Result<Connection> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", if durable { "NORMAL" } else { "OFF" })?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    };
    // While another process turns on WAL mode or closes the last connection, SQLite answers "busy" without waiting.
    let began = Instant::now();
    loop {
        match open().map_err(sql_error) {
            Err(error) if error.kind() == ErrorKind::Busy && began.elapsed() < BUSY_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened.map_err(|error| error.with_path(path)),
        }
    }
}

/// Equal keys have equal hashes; the key itself decides.
fn hash(key: &Key) -> i64 {
    XxHash3_64::oneshot(key.canonical().as_bytes()).cast_signed()
}

fn read_key(canonical: &str) -> Result<Key> {
    Key::from_canonical(canonical)
        .map_err(|error| Error::damaged("the catalog holds a malformed key").with_source(error))
}

fn parse(row: &SqlRow<'_>, key: Key, inline: Option<Vec<u8>>) -> Result<Row> {
    let kind = row.get_ref(2).ok().and_then(|kind| kind.as_str().ok()).unwrap_or_default().parse()?;
    let read = || {
        Ok(Row {
            version: row.get(0)?,
            key,
            kind,
            stored_name: row.get(3)?,
            format: row.get(4)?,
            bytes: row.get(5)?,
            stored_bytes: row.get(6)?,
            payload: row.get(7)?,
            label_at: row.get(8)?,
            checksums: row.get(9)?,
            created_ns: row.get(10)?,
            about: row.get(11)?,
            file: row.get(12)?,
            inline,
        })
    };
    read().map_err(sql_error)
}

/// Tells full, busy and damaged from other failures of SQLite.
fn sql_error(error: rusqlite::Error) -> Error {
    let (kind, message) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (ErrorKind::Full, "no room for the catalog"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Busy, "another process holds the catalog's write lock; try again")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (ErrorKind::Damaged, "the catalog is damaged"),
        Some(ErrorCode::CannotOpen) => (ErrorKind::Io, "cannot open the catalog"),
        _ if matches!(error, rusqlite::Error::IntegralValueOutOfRange(..) | rusqlite::Error::InvalidColumnType(..)) => {
            (ErrorKind::Damaged, "the catalog holds a value that makes no sense")
        }
        _ => (ErrorKind::Io, "the catalog cannot be used"),
    };
    Error::new(kind, message).with_source(error)
}
