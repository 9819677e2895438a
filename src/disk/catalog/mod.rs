//! The catalog: one row a key, in SQLite. A committed row is what makes a value published.

mod buckets;
mod digests;
mod generation;
pub(super) mod read_only;
mod reader;
mod row;
mod schema;
mod state;
mod verify;
mod wal_index;
mod write;

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};

use self::buckets::short;
pub(crate) use self::digests::KnownDigest;
use self::generation::Generations;
pub(crate) use self::generation::OwnCommit;
use self::reader::{Reader, Readers};
pub(crate) use self::row::Row;
use self::row::{COLUMNS, hash};
use self::state::State;
pub(super) use self::verify::{Salvaged, salvage};
use self::wal_index::WalIndex;
pub(crate) use self::write::{Excess, Limit, Transaction};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;

/// Another process may hold the write lock for so long before a call gives up.
pub(super) const BUSY_TIMEOUT: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(30) };

/// What the writer remembers of the database: keys are spread over its indexes, so a batch of them touches many pages.
const WRITER_CACHE_KIB: i64 = 12 << 10;

/// What readers remember of it: the index of some hundred thousand keys.
const READER_CACHE_KIB: i64 = 4 << 10;

/// Pages of 4 KiB in the log before it is brought into the database, which takes two syncs.
const LOG_PAGES: u32 = 2000;

/// Where it gets that long all the same, whoever writes does it before going on.
const MOST_LOG_PAGES: u32 = 2 * LOG_PAGES;

/// Two connections: a reader never waits for this process's writer.
pub(crate) struct Catalog {
    path: PathBuf,
    durable: bool,
    /// Made when it is needed: to connect takes longer than to read a value.
    writer: Mutex<Option<Connection>>,
    readers: Readers,
    /// Of the reader's connection, which is closed only when the catalog is dropped.
    wal_index: Option<WalIndex>,
    generations: Generations,
    /// Whether nothing can be written.
    is_read_only: bool,
    /// Whether nobody else can write either, as far as anybody knows.
    stays: bool,
}

impl Catalog {
    /// Makes a new catalog, or opens one that another process made at the same time. The file exists, perhaps empty.
    pub(crate) fn create(path: &Path, durable: bool, boot: &str) -> Result<Self> {
        let mut writer = connect_writer(path, durable)?;
        let mut make = || {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if version == 0 {
                schema::create(&transaction, boot)?;
            }
            transaction.commit()
        };
        make().map_err(sql_error)?;
        Self::finish(path, durable, Some(writer))
    }

    /// Opens the catalog of an existing chest.
    pub(crate) fn open(path: &Path, durable: bool) -> Result<Self> {
        Self::finish(path, durable, None)
    }

    fn finish(path: &Path, durable: bool, writer: Option<Connection>) -> Result<Self> {
        let is_read_only = writer.is_none() && path.parent().is_some_and(read_only::is_read_only);
        let (reader, stays) = if is_read_only { read_only::connect(path)? } else { (connect(path, durable)?, false) };
        reader.pragma_update(None, "cache_size", -READER_CACHE_KIB).map_err(sql_error)?;
        // It reads, and SQLite opens its log at the first read.
        schema::check(&reader)?;
        // SAFETY: the connection lives as long as the catalog, and nobody else has the index.
        let wal_index = unsafe { WalIndex::of(&reader) };
        Ok(Self {
            path: path.to_owned(),
            durable,
            writer: Mutex::new(writer),
            readers: Readers::new(reader, path, durable),
            wal_index,
            generations: Generations::default(),
            is_read_only,
            stays,
        })
    }

    /// Whether nothing can be written.
    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Reads in one snapshot, which has all commits up to this moment.
    fn read<T>(&self, work: impl FnOnce(&Reader) -> Result<T>) -> Result<T> {
        self.readers.read(self.wal_index.as_ref(), work).map_err(|error| error.with_path(&self.path))
    }

    /// The writer's place; see [`connected`](Self::connected).
    fn writer(&self) -> MutexGuard<'_, Option<Connection>> {
        // A panic while writing has rolled its transaction back.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connected<'a>(&self, writer: &'a mut Option<Connection>) -> Result<&'a mut Connection> {
        let connection = match writer.take() {
            Some(connection) => connection,
            None => connect_writer(&self.path, self.durable)?,
        };
        Ok(writer.insert(connection))
    }

    /// The row of a key, with the bytes of a small value.
    pub(crate) fn find(&self, key: &Key) -> Result<Option<Row>> {
        self.read(|reader| reader.find(key))
    }

    /// The version of a key's value, if it has one.
    pub(crate) fn version(&self, key: &Key) -> Result<Option<i64>> {
        self.read(|reader| reader.version(key))
    }

    /// All rows in the order of their publication, without the bytes of small values.
    pub(crate) fn rows(&self) -> Result<Vec<Row>> {
        let sql = format!("SELECT {COLUMNS} FROM entries ORDER BY version");
        self.list(&sql, |row| Row::parse(row, None, false))
    }

    pub(crate) fn keys(&self) -> Result<Vec<Key>> {
        self.list("SELECT version, hash, key FROM entries ORDER BY version", |row| {
            row::key(row).ok_or_else(|| Error::damaged("the catalog holds a damaged key"))
        })
    }

    /// One thing a row; an error if there are not as many as there should be.
    fn list<T>(&self, sql: &str, read: impl Fn(&rusqlite::Row<'_>) -> Result<T>) -> Result<Vec<T>> {
        self.read(|snapshot| {
            let mut statement = snapshot.sql.prepare_cached(sql).map_err(sql_error)?;
            let mut rows = statement.query([]).map_err(sql_error)?;
            let mut things = Vec::new();
            while let Some(row) = rows.next().map_err(sql_error)? {
                things.push(read(row)?);
            }
            if things.len() as u64 != totals(&snapshot.sql)?.0 {
                return Err(Error::damaged("the catalog's list of values is not complete"));
            }
            Ok(things)
        })
    }

    /// How many values there are, and the bytes that they take on disk.
    pub(crate) fn totals(&self) -> Result<(u64, u64)> {
        self.read(|reader| totals(&reader.sql))
    }

    /// Bytes of files that nobody needs after the next sync.
    pub(crate) fn waiting(&self) -> Result<u64> {
        Ok(self.read(|reader| State::read(&reader.sql))?.waiting.max(0).cast_unsigned())
    }

    /// How many keys there are, these included.
    pub(crate) fn len_with(&self, keys: &[Key]) -> Result<u64> {
        self.read(|snapshot| {
            let (mut len, _) = totals(&snapshot.sql)?;
            for key in keys {
                len += u64::from(snapshot.version(key)?.is_none());
            }
            Ok(len)
        })
    }

    /// When the latest value was written.
    pub(crate) fn last_created_ns(&self) -> Result<i64> {
        let sql = "SELECT created_ns FROM entries ORDER BY version DESC LIMIT 1";
        self.read(|reader| {
            let mut statement = reader.sql.prepare(sql).map_err(sql_error)?;
            let mut rows = statement.query([]).map_err(sql_error)?;
            rows.next().map_err(sql_error)?.map_or(Ok(0), |row| row.get(0).map_err(sql_error))
        })
    }
}

fn totals(connection: &Connection) -> Result<(u64, u64)> {
    let State { live, stored, .. } = State::read(connection)?;
    Ok((live.max(0).cast_unsigned(), stored.max(0).cast_unsigned()))
}

impl Reader {
    /// The row of a key, with the bytes of a small value.
    fn find(&self, key: &Key) -> Result<Option<Row>> {
        static SQL: LazyLock<String> =
            LazyLock::new(|| format!("SELECT {COLUMNS}, inline FROM entries WHERE version = ?1"));
        for version in self.versions(key)? {
            let mut statement = self.sql.prepare_cached(&SQL).map_err(sql_error)?;
            let mut rows = statement.query([version]).map_err(sql_error)?;
            let row = rows.next().map_err(sql_error)?.ok_or_else(|| no_row(key))?;
            let row = Row::parse(row, Some(key), true)?;
            if row.key == *key {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// The version of a key's value, if it has one. Its row is not read as a whole.
    fn version(&self, key: &Key) -> Result<Option<i64>> {
        choose(&self.sql, key, self.versions(key)?)
    }

    /// The versions that a key may have.
    fn versions(&self, key: &Key) -> Result<Vec<i64>> {
        let hash = short(hash(key.canonical()));
        self.index.find(&self.sql, hash, self.is_indexed()).map_err(|error| error.with_key(key))
    }
}

/// The version that is of this key.
fn choose(sql: &Connection, key: &Key, versions: Vec<i64>) -> Result<Option<i64>> {
    for version in versions {
        let mut statement =
            sql.prepare_cached("SELECT hash, key FROM entries WHERE version = ?1").map_err(sql_error)?;
        let found = statement.query_row([version], |row| {
            let text = row.get_ref(1)?.as_str().unwrap_or_default();
            Ok((row.get::<_, i64>(0)? == hash(text)).then(|| text == key.canonical()))
        });
        match found.optional().map_err(sql_error)?.ok_or_else(|| no_row(key))? {
            Some(true) => return Ok(Some(version)),
            Some(false) => {}
            None => return Err(Error::damaged("a row of the catalog does not match its checksum").with_key(key)),
        }
    }
    Ok(None)
}

fn no_row(key: &Key) -> Error {
    Error::damaged("the catalog's table does not have a row of its index").with_key(key)
}

fn connect_writer(path: &Path, durable: bool) -> Result<Connection> {
    let writer = connect(path, durable)?;
    writer.pragma_update(None, "cache_size", -WRITER_CACHE_KIB).map_err(sql_error)?;
    Ok(writer)
}

fn connect(path: &Path, durable: bool) -> Result<Connection> {
    let open = || {
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", if durable { "NORMAL" } else { "OFF" })?;
        // See `Readers::shorten_log`.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
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

/// Tells full, busy and damaged from other failures of SQLite.
pub(super) fn sql_error(error: rusqlite::Error) -> Error {
    let (kind, message) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (ErrorKind::Full, "no room for the catalog"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Busy, "another process holds the catalog's write lock; try again")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (ErrorKind::Damaged, "the catalog is damaged"),
        Some(ErrorCode::CannotOpen) => (ErrorKind::Io, "cannot open the catalog"),
        // The statements are constants, so a schema that does not fit them was tampered with.
        Some(ErrorCode::Unknown) => (ErrorKind::Damaged, "the catalog's tables are damaged"),
        _ if matches!(
            error,
            rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::QueryReturnedNoRows
                | rusqlite::Error::Utf8Error(..)
        ) =>
        {
            (ErrorKind::Damaged, "the catalog holds a value that makes no sense")
        }
        _ => (ErrorKind::Io, "the catalog cannot be used"),
    };
    Error::new(kind, message).with_source(error)
}
