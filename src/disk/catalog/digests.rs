//! Digests of files that were read before. A row may be missing, wrong or damaged: then the file is read again.

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};
use twox_hash::XxHash3_64;

use super::{Catalog, sql_error};
use crate::error::Result;
use crate::key::Digest;
use crate::key::path::Stamp;

/// More than that are forgotten, the oldest first.
const MOST: i64 = if cfg!(test) { 100 } else { 1_000_000 };

/// What a file was when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownDigest {
    pub(crate) stamp: Stamp,
    /// When reading it began.
    pub(crate) hashed_ns: i64,
    pub(crate) digest: Digest,
}

impl KnownDigest {
    fn seal(&self, path: &[u8]) -> i64 {
        let Stamp { device, inode, size, modified_ns, changed_ns } = self.stamp;
        let times = [modified_ns, changed_ns, self.hashed_ns].map(i64::cast_unsigned);
        let mut bytes: Vec<u8> = [device, inode, size].iter().chain(&times).flat_map(|n| n.to_le_bytes()).collect();
        bytes.extend(self.digest.as_bytes());
        bytes.extend(path);
        XxHash3_64::oneshot(&bytes).cast_signed()
    }

    /// None if the row is not what was written.
    fn parse(row: &SqlRow<'_>, path: &[u8]) -> rusqlite::Result<Option<Self>> {
        let unsigned = |index| row.get(index).map(i64::cast_unsigned);
        let [device, inode, size] = [unsigned(1)?, unsigned(2)?, unsigned(3)?];
        let stamp = Stamp { device, inode, size, modified_ns: row.get(4)?, changed_ns: row.get(5)? };
        let known = Self { stamp, hashed_ns: row.get(6)?, digest: Digest(row.get(7)?) };
        Ok((row.get_ref(0)?.as_blob()? == path && known.seal(path) == row.get::<_, i64>(8)?).then_some(known))
    }
}

/// The place of a path in the table. Two paths of one place take it from each other.
fn place(path: &[u8]) -> i64 {
    XxHash3_64::oneshot(path).cast_signed()
}

impl Catalog {
    /// What is known of the file with this path.
    pub(crate) fn digest(&self, path: &[u8]) -> Result<Option<KnownDigest>> {
        let sql = "SELECT path, device, inode, size, modified_ns, changed_ns, hashed_ns, digest, seal FROM digests \
                   WHERE place = ?1";
        self.read(|reader| {
            let mut query = reader.sql.prepare_cached(sql).map_err(sql_error)?;
            let found = query.query_row([place(path)], |row| KnownDigest::parse(row, path)).optional();
            Ok(found.map_err(sql_error)?.flatten())
        })
    }

    /// Remembers digests, in one transaction.
    pub(crate) fn put_digests<'a>(&self, digests: impl Iterator<Item = (&'a [u8], KnownDigest)>) -> Result<()> {
        let mut own = self.own_commit();
        self.write(true, false, Some(&mut own), |transaction| {
            put(transaction.connection(), digests).map_err(sql_error)
        })?;
        // No value was changed, so nothing in memory is out of date.
        own.known();
        Ok(())
    }
}

fn put<'a>(sql: &Connection, digests: impl Iterator<Item = (&'a [u8], KnownDigest)>) -> rusqlite::Result<()> {
    let insert = "INSERT OR REPLACE INTO digests VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let mut insert = sql.prepare_cached(insert)?;
    for (path, known) in digests {
        let Stamp { device, inode, size, modified_ns, changed_ns } = known.stamp;
        let [device, inode, size] = [device, inode, size].map(u64::cast_signed);
        let (hashed_ns, digest) = (known.hashed_ns, known.digest.as_bytes());
        let (place, seal) = (place(path), known.seal(path));
        insert.execute(params![place, path, device, inode, size, modified_ns, changed_ns, hashed_ns, digest, seal])?;
    }
    let prune = "DELETE FROM digests WHERE id <= (SELECT max(id) FROM digests) - ?1";
    sql.prepare_cached(prune)?.execute([MOST]).map(|_| ())
}
