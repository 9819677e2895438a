//! The tables of the catalog. Their text is part of the format: a catalog with other text is not opened.

use rusqlite::Connection;

use super::buckets::Buckets;
use super::sql_error;
use super::state::State;
use crate::error::{Error, Result};

/// Marks the file as ours: "ICEC".
pub(super) const APPLICATION_ID: i64 = 0x4943_4543;

/// Rows are kept in the order of their insertion and found by their versions, which the index in `buckets` tells: that
/// writes several times faster than a table or an index ordered by random keys. The bytes of small values come last, so
/// that the other columns are read without them.
macro_rules! columns {
    () => {
        "hash INTEGER NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL, type TEXT NOT NULL, \
         format TEXT NOT NULL, bytes INTEGER NOT NULL, stored_bytes INTEGER NOT NULL, payload INTEGER NOT NULL, \
         label_at INTEGER NOT NULL, checksums BLOB NOT NULL, created_ns INTEGER NOT NULL, seal INTEGER NOT NULL, \
         used INTEGER NOT NULL, about TEXT, file TEXT, inline BLOB"
    };
}

/// Each table and index: its name, and what makes it.
const PARTS: [(&str, &str); 7] = [
    ("entries", concat!("CREATE TABLE entries (version INTEGER PRIMARY KEY, ", columns!(), ") STRICT")),
    ("buckets", "CREATE TABLE buckets (number INTEGER PRIMARY KEY, entries BLOB NOT NULL) STRICT"),
    // Rows that were replaced or removed, as long as their file or their value may be needed after a power cut.
    (
        "retired",
        concat!("CREATE TABLE retired (version INTEGER PRIMARY KEY, ", columns!(), ", since INTEGER NOT NULL) STRICT"),
    ),
    // Versions whose file could not be synced: it is not tried again, the value is written again.
    ("doubtful", "CREATE TABLE doubtful (version INTEGER PRIMARY KEY) STRICT"),
    (
        "state",
        "CREATE TABLE state (id INTEGER PRIMARY KEY, live INTEGER NOT NULL, stored INTEGER NOT NULL, \
         waiting INTEGER NOT NULL, synced INTEGER NOT NULL, last INTEGER NOT NULL, buckets INTEGER NOT NULL, boot TEXT NOT NULL, seal INTEGER NOT NULL) STRICT",
    ),
    // Of files that are not in the chest, as they were when they were read.
    (
        "digests",
        "CREATE TABLE digests (id INTEGER PRIMARY KEY, place INTEGER NOT NULL UNIQUE, path BLOB NOT NULL, \
         device INTEGER NOT NULL, inode INTEGER NOT NULL, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL, \
         changed_ns INTEGER NOT NULL, hashed_ns INTEGER NOT NULL, digest BLOB NOT NULL, seal INTEGER NOT NULL) STRICT",
    ),
    // Made when a chest with a limit first needs it.
    ("entries_by_use", BY_USE),
];

pub(super) const BY_USE: &str = "CREATE INDEX entries_by_use ON entries (used)";

/// Makes the tables in an empty database.
pub(super) fn create(connection: &Connection, boot: &str) -> rusqlite::Result<()> {
    for (_, sql) in PARTS.iter().filter(|(_, sql)| *sql != BY_USE) {
        connection.execute_batch(sql)?;
    }
    Buckets::create(connection)?;
    State { boot: boot.to_owned(), buckets: 1, ..State::default() }.write(connection)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", crate::disk::FORMAT_VERSION)
}

/// Refuses a database that is not a catalog of this format. Views and triggers would be code that runs on load.
pub(super) fn check(connection: &Connection) -> Result<()> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sql_error);
    if pragma("application_id")? != APPLICATION_ID || pragma("user_version")? != crate::disk::FORMAT_VERSION {
        return Err(Error::damaged("the catalog is not one of this format"));
    }
    let mut missing: Vec<&str> = PARTS.iter().map(|(name, _)| *name).filter(|name| *name != "entries_by_use").collect();
    let mut parts = connection.prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema").map_err(sql_error)?;
    let parts = parts.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(sql_error)?;
    for part in parts {
        let (name, sql): (String, String) = part.map_err(sql_error)?;
        let is_ours = PARTS.iter().any(|(ours, text)| *ours == name && *text == sql);
        if !is_ours && !name.starts_with("sqlite_") {
            return Err(Error::damaged(format!("the catalog's schema has {name:?}, which is not of this format")));
        }
        missing.retain(|ours| *ours != name);
    }
    match missing.as_slice() {
        [] => Ok(()),
        [name, ..] => Err(Error::damaged(format!("the catalog has no {name:?}"))),
    }
}

/// Whether rows can be read without running anything, even if parts are missing: the table is ours, and there are no
/// views and triggers.
pub(super) fn is_harmless(connection: &Connection) -> rusqlite::Result<bool> {
    let mut parts = connection.prepare("SELECT type, name, coalesce(sql, '') FROM sqlite_schema")?;
    let parts = parts.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut has_entries = false;
    for part in parts {
        let (kind, name, sql): (String, String, String) = part?;
        has_entries |= (name.as_str(), sql.as_str()) == PARTS[0];
        let is_ours = PARTS.iter().any(|(ours, text)| *ours == name && *text == sql);
        if kind == "view" || kind == "trigger" || !is_ours && !name.starts_with("sqlite_") {
            return Ok(false);
        }
    }
    Ok(has_entries)
}
