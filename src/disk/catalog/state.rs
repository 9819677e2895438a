//! What is known of the catalog as a whole: one row, changed together with what it tells.

use rusqlite::{Connection, params};
use twox_hash::XxHash3_64;

use super::{buckets, sql_error};
use crate::error::{Error, Result};

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    /// Values.
    pub(super) live: i64,
    /// Bytes that they take on disk.
    pub(super) stored: i64,
    /// Bytes of replaced and removed values that stay until the next sync.
    pub(super) waiting: i64,
    /// All versions up to this one are on the medium.
    pub(super) synced: i64,
    /// The last version that was given.
    pub(super) last: i64,
    /// Buckets of the index.
    pub(super) buckets: i64,
    /// The boot of the machine in which the directory was last brought in order.
    pub(super) boot: String,
}

impl State {
    pub(super) fn read(sql: &Connection) -> Result<Self> {
        let query = "SELECT live, stored, waiting, synced, last, buckets, boot, seal FROM state WHERE id = 1";
        let mut query = sql.prepare_cached(query).map_err(sql_error)?;
        let (state, seal) = query
            .query_row([], |row| {
                let [live, stored, waiting, synced] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
                let [last, buckets] = [row.get(4)?, row.get(5)?];
                Ok((Self { live, stored, waiting, synced, last, buckets, boot: row.get(6)? }, row.get::<_, i64>(7)?))
            })
            .map_err(sql_error)?;
        let is_sane = state.last >= 0 && (1..=buckets::MOST).contains(&state.buckets);
        if state.seal() != seal || !is_sane {
            return Err(Error::damaged("the catalog's sums do not match their checksum"));
        }
        Ok(state)
    }

    pub(super) fn write(&self, sql: &Connection) -> rusqlite::Result<()> {
        let update = "INSERT OR REPLACE INTO state VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let Self { live, stored, waiting, synced, last, buckets, boot } = self;
        let columns = params![live, stored, waiting, synced, last, buckets, boot, self.seal()];
        sql.prepare_cached(update)?.execute(columns).map(|_| ())
    }

    fn seal(&self) -> i64 {
        let numbers = [self.live, self.stored, self.waiting, self.synced, self.last, self.buckets];
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).chain(self.boot.bytes()).collect();
        XxHash3_64::oneshot(&bytes).cast_signed()
    }
}
