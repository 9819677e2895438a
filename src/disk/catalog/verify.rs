//! Verifying the catalog itself, and saving what a damaged one still tells.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::buckets::{self, Sum, short};
use super::row::{self, COLUMNS};
use super::state::State;
use super::{Catalog, Row, sql_error};
use crate::disk::parts::files;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;

/// More of SQLite's findings would not tell more.
const FINDINGS: i64 = 5;

impl Catalog {
    /// What is wrong with the catalog as a whole: its pages, its indexes, its sums.
    pub(crate) fn problems(&self) -> Result<Vec<String>> {
        self.read(|snapshot| {
            let sql = &snapshot.sql;
            let mut problems = integrity(sql).map_err(sql_error)?;
            let state = State::read(sql)?;
            problems.extend(sums(sql, &state).map_err(sql_error)?);
            match buckets::verify(sql, state.buckets) {
                Ok(sum) if sum == sum_of_rows(sql).map_err(sql_error)? => {}
                Ok(_) => problems.push("the index has other entries than the table".to_owned()),
                Err(error) if error.kind() == ErrorKind::Damaged => problems.push(error.plain()),
                Err(error) => return Err(error),
            }
            Ok(problems)
        })
    }

    /// Reads every row with the bytes of small values, in the order of their publication. Gives the rows that do not match
    /// their checksums, by their keys where these can be told.
    pub(crate) fn each_row(&self, mut visit: impl FnMut(Row)) -> Result<Vec<Option<Key>>> {
        self.read(|snapshot| {
            let sql = format!("SELECT {COLUMNS}, inline FROM entries ORDER BY version");
            let mut rows = snapshot.sql.prepare(&sql).map_err(sql_error)?;
            let mut rows = rows.query([]).map_err(sql_error)?;
            let mut broken = Vec::new();
            while let Some(row) = rows.next().map_err(sql_error)? {
                match Row::parse(row, None, true) {
                    Ok(row) => visit(row),
                    Err(error) if error.kind() == ErrorKind::Damaged => broken.push(row::key(row)),
                    Err(error) => return Err(error),
                }
            }
            Ok(broken)
        })
    }
}

/// What SQLite finds wrong with its pages and indexes.
fn integrity(sql: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut check = sql.prepare(&format!("PRAGMA integrity_check({FINDINGS})"))?;
    let findings = check.query_map([], |row| row.get::<_, String>(0))?;
    let findings = findings.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(findings.into_iter().map(|finding| finding.trim().to_owned()).filter(|finding| finding != "ok").collect())
}

/// What does not add up.
fn sums(sql: &Connection, state: &State) -> rusqlite::Result<Vec<String>> {
    let query =
        "SELECT count(*), coalesce(sum(stored_bytes), 0), count(DISTINCT key), coalesce(max(version), 0) FROM entries";
    let (count, stored, keys, newest) = sql.query_row(query, [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
    })?;
    let mut problems = Vec::new();
    if (count, stored) != (state.live, state.stored) {
        let State { live, stored: sum, .. } = state;
        problems.push(format!("there are {count} rows of {stored} bytes, and there should be {live} of {sum}"));
    }
    if keys != count {
        problems.push(format!("{count} rows have {keys} keys"));
    }
    if newest.max(state.synced) > state.last {
        problems.push(format!("the last version is {}, and there are later ones", state.last));
    }
    Ok(problems)
}

/// What the index should have.
fn sum_of_rows(sql: &Connection) -> rusqlite::Result<Sum> {
    let mut rows = sql.prepare("SELECT version, key FROM entries")?;
    let mut rows = rows.query([])?;
    let mut sum = Sum::default();
    while let Some(row) = rows.next()? {
        sum.add(short(row::hash(row.get_ref(1)?.as_str().unwrap_or_default())), row.get(0)?);
    }
    Ok(sum)
}

/// What can be read of a damaged catalog.
#[derive(Default)]
pub(crate) struct Salvaged {
    /// Rows that match their checksums.
    pub(crate) rows: Vec<Row>,
    /// Files of values that were replaced or removed.
    pub(crate) retired: HashSet<String>,
}

/// Reads what can be read of a damaged catalog. Each row is found by its number, which is taken from wherever it can be
/// read; pages that cannot be read are stepped over.
pub(crate) fn salvage(path: &Path) -> Result<Salvaged> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sql_error)?;
    connection.pragma_update(None, "trusted_schema", false).map_err(sql_error)?;
    if !super::schema::is_harmless(&connection).map_err(sql_error)? {
        return Err(Error::damaged("the catalog's tables are not of this format"));
    }
    let mut versions = BTreeSet::new();
    // What comes before the first page that cannot be read.
    let _: rusqlite::Result<()> = buckets::salvage(&connection, |version| _ = versions.insert(version));
    for order in ["ASC", "DESC"] {
        let _: rusqlite::Result<()> =
            connection.prepare(&format!("SELECT version FROM entries ORDER BY version {order}")).and_then(|mut all| {
                let mut all = all.query([])?;
                while let Some(row) = all.next()? {
                    versions.insert(row.get::<_, i64>(0)?);
                }
                Ok(())
            });
    }
    let sql = format!("SELECT {COLUMNS}, inline FROM entries WHERE version = ?1");
    let mut one = connection.prepare(&sql).map_err(sql_error)?;
    let mut keys = HashSet::new();
    let mut rows = Vec::new();
    // What a damaged row names is not known to be retired.
    let mut named = HashSet::new();
    // The newest first: of two rows of one key it counts.
    for version in versions.into_iter().rev() {
        let row = one.query_row([version], |row| {
            named.extend(files_at(row));
            Ok(Row::parse(row, None, true))
        });
        if let Ok(Ok(row)) = row
            && keys.insert(row.key.clone())
        {
            rows.push(row);
        }
    }
    rows.reverse();
    let mut retired = HashSet::new();
    // The table may be missing.
    let _: rusqlite::Result<()> = connection.prepare(&format!("SELECT {COLUMNS} FROM retired")).and_then(|mut all| {
        let mut all = all.query([])?;
        while let Some(row) = all.next()? {
            retired.extend(Row::parse(row, None, false).map(|row| row.files()).unwrap_or_default());
        }
        Ok(())
    });
    retired.retain(|file| !named.contains(file));
    Ok(Salvaged { rows, retired })
}

/// The files that a row of [`COLUMNS`] names, be it damaged or not.
fn files_at(row: &rusqlite::Row<'_>) -> Vec<String> {
    let text = |index| row.get::<_, Option<String>>(index).unwrap_or_default();
    files(text(14), 0, text(13).as_deref()).map(|(file, _)| file).collect()
}
