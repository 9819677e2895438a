//! Whether anybody committed to the catalog since, without a query.
//!
//! In WAL mode SQLite keeps an index of its log in memory that all processes share. Its header changes with every
//! commit; the format is described in SQLite's "WAL-mode File Format". Reading it takes nanoseconds.

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::{Connection, ffi};

/// Bytes of a region of the index; the header is at the beginning of the first.
const REGION: i32 = 32 << 10;

/// The header's words that tell commits apart: the counter of changes, the last frame, and the header's checksum.
const WORDS: [usize; 4] = [2, 4, 10, 11];

/// The header, as long as the connection is open.
pub(super) struct WalIndex(*const AtomicU32);

// SAFETY: the pointer leads to memory that is shared between processes and only read here, atomically.
unsafe impl Send for WalIndex {}
// SAFETY: as above.
unsafe impl Sync for WalIndex {}

impl WalIndex {
    /// Finds the header, if there is one: not when the database is not in WAL mode or was never read.
    ///
    /// # Safety
    /// The `WalIndex` must not be used after `connection` is closed.
    pub(super) unsafe fn of(connection: &Connection) -> Option<Self> {
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        // SAFETY: the handle is that of an open connection, "main" is a C string, and this file control writes one
        // pointer to where the last argument points.
        let found = unsafe {
            let handle = connection.handle();
            ffi::sqlite3_file_control(handle, c"main".as_ptr(), ffi::SQLITE_FCNTL_FILE_POINTER, (&raw mut file).cast())
        };
        if found != ffi::SQLITE_OK || file.is_null() {
            return None;
        }
        // SAFETY: SQLite gave the pointer to its open file, whose methods stay as long as it is open.
        let map = unsafe { (*file).pMethods.as_ref()?.xShmMap? };
        let mut region: *mut std::ffi::c_void = ptr::null_mut();
        // SAFETY: the arguments are those that SQLite's own reader passes for the first region, without extending it.
        // The region is mapped already by the connection and stays where it is until the connection closes.
        let mapped = unsafe { map(file, 0, REGION, 0, &raw mut region) };
        (mapped == ffi::SQLITE_OK && !region.is_null()).then_some(Self(region.cast::<AtomicU32>().cast_const()))
    }

    /// Whether one commit, and no other, lies between two stamps.
    pub(super) fn follows(before: u128, after: u128) -> bool {
        // The first word counts commits.
        let commits = |stamp: u128| (stamp >> 96) as u32;
        commits(after) == commits(before).wrapping_add(1)
    }

    /// Frames of the log, a page each, at a stamp.
    pub(super) fn frames(stamp: u128) -> u32 {
        (stamp >> 64) as u32
    }

    /// A number that is another one after each commit. One that is read while another process writes the header may be
    /// like neither; it differs from both.
    pub(super) fn stamp(&self) -> u128 {
        WORDS.iter().fold(0, |stamp, &word| {
            // SAFETY: the header has 12 words and the region is mapped, see `of`; it is aligned as memory pages are.
            let word = unsafe { &*self.0.add(word) };
            stamp << 32 | u128::from(word.load(Ordering::Acquire))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_with_every_commit_of_another_connection() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let connection = Connection::open(dir.path().join("db")).unwrap();
            connection.pragma_update(None, "journal_mode", "WAL").unwrap();
            connection.execute_batch("CREATE TABLE IF NOT EXISTS t (x); SELECT * FROM t").unwrap();
            connection
        };
        let (reader, writer) = (open(), open());
        let count = || reader.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count(), 0);
        // SAFETY: `reader` lives to the end of the test.
        let index = unsafe { WalIndex::of(&reader) }.expect("the database is in WAL mode");
        let mut seen = std::collections::HashSet::from([index.stamp()]);
        for i in 1..=2000 {
            let before = index.stamp();
            writer.execute("INSERT INTO t VALUES (1)", []).unwrap();
            assert!(seen.insert(index.stamp()), "commit {i}");
            assert!(WalIndex::follows(before, index.stamp()), "commit {i}");
            assert!(i % 500 != 0 || count() == i);
        }
        writer.pragma_query(None, "wal_checkpoint", |_| Ok(())).unwrap();
        let checkpointed = index.stamp();
        writer.execute("INSERT INTO t VALUES (1)", []).unwrap();
        assert_ne!(index.stamp(), checkpointed);
        assert_eq!(index.stamp(), index.stamp());
    }
}
