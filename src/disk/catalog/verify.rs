//! Verifying the catalog itself, and saving what a damaged one still tells.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::row::COLUMNS;
use super::{Catalog, Row, sql_error};
use crate::error::{ErrorKind, Result};

/// More of SQLite's findings would not tell more.
const FINDINGS: i64 = 5;

impl Catalog {
    /// What is wrong with the catalog as a whole: its pages, its indexes, its sums.
    pub(crate) fn problems(&self) -> Result<Vec<String>> {
        let reader = self.reader();
        let snapshot = reader.unchecked_transaction().map_err(sql_error)?;
        let mut problems = Vec::new();
        let mut check = snapshot.prepare(&format!("PRAGMA integrity_check({FINDINGS})")).map_err(sql_error)?;
        let mut findings = check.query([]).map_err(sql_error)?;
        while let Some(finding) = findings.next().map_err(sql_error)? {
            let finding: String = finding.get(0).map_err(sql_error)?;
            if finding != "ok" {
                problems.push(finding.trim().to_owned());
            }
        }
        let sums = "SELECT count(*), coalesce(sum(stored_bytes), 0), count(DISTINCT key), coalesce(max(version), 0) FROM entries";
        let counted = snapshot.query_row(sums, [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
        });
        let stated = snapshot.query_row("SELECT live, stored, synced FROM state WHERE id = 1", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        let last = super::write::sequence(&snapshot);
        let ((count, stored, keys, newest), (live, sum, synced), last) =
            (counted.map_err(sql_error)?, stated.map_err(sql_error)?, last.map_err(sql_error)?);
        if (count, stored) != (live, sum) {
            problems.push(format!("there are {count} rows of {stored} bytes, and there should be {live} of {sum}"));
        }
        if keys != count {
            problems.push(format!("{count} rows have {keys} keys"));
        }
        if newest > last || synced > last {
            problems.push(format!("the last version is {last}, and there are later ones"));
        }
        Ok(problems)
    }

    /// Reads every row with the bytes of small values, in the order of their publication. Gives how many rows do not match
    /// their checksums.
    pub(crate) fn each_row(&self, mut visit: impl FnMut(Row)) -> Result<u64> {
        let reader = self.reader();
        let sql = format!("SELECT {COLUMNS}, inline FROM entries ORDER BY version");
        let mut rows = reader.prepare(&sql).map_err(sql_error)?;
        let mut rows = rows.query([]).map_err(sql_error)?;
        let mut broken = 0;
        while let Some(row) = rows.next().map_err(sql_error)? {
            match Row::parse(row, None, true) {
                Ok(row) => visit(row),
                Err(error) if error.kind() == ErrorKind::Damaged => broken += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(broken)
    }
}

/// What can be read of a damaged catalog: rows that match their checksums. Each is found by its number, which is
/// taken from wherever it can be read; pages that cannot be read are stepped over.
pub(crate) fn salvage(path: &Path) -> Result<Vec<Row>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sql_error)?;
    connection.pragma_update(None, "trusted_schema", false).map_err(sql_error)?;
    // Views and triggers could run for ever; where the tables are others than ours, nothing is saved.
    super::schema::check(&connection)?;
    let mut versions = BTreeSet::new();
    for order in [
        "NOT INDEXED ORDER BY version",
        "NOT INDEXED ORDER BY version DESC",
        "INDEXED BY entries_by_hash ORDER BY hash",
        "INDEXED BY entries_by_mirror ORDER BY mirror",
    ] {
        // What comes before the first page that cannot be read.
        let _: rusqlite::Result<()> =
            connection.prepare(&format!("SELECT version FROM entries {order}")).and_then(|mut all| {
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
    // The newest first: of two rows of one key it counts.
    for version in versions.into_iter().rev() {
        let row = one.query_row([version], |row| Ok(Row::parse(row, None, true)));
        if let Ok(Ok(row)) = row
            && keys.insert(row.key.clone())
        {
            rows.push(row);
        }
    }
    rows.reverse();
    Ok(rows)
}
