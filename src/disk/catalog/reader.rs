//! Reading the catalog, in snapshots, and what is done for it behind everybody's back.
//!
//! To begin a snapshot and to end it takes as long as a query. So one stays open for a moment, and serves all queries until
//! somebody commits. Only for a moment, because the log cannot begin again from its start while there is one. The thread that
//! ends it also brings the log into the database, which is waiting for the disk most of the time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::buckets::Index;
use super::state::State;
use super::wal_index::WalIndex;
use super::{LOG_PAGES, MOST_LOG_PAGES, connect, sql_error};
use crate::error::Result;

/// A snapshot stays open for so long at the most.
const MOMENT: Duration = Duration::from_millis(10);

/// Queries within a moment after which snapshots stay open: fewer are not worth a thread.
const MANY: u32 = 8;

/// A connection for queries.
pub(super) struct Reader {
    pub(super) sql: Connection,
    pub(super) index: Index,
    /// The log's stamp from before the open snapshot began.
    snapshot: Option<u128>,
    /// The stamp at which the buckets of `index` were read.
    indexed: Option<u128>,
    /// Whether the open snapshot is of that stamp.
    is_indexed: bool,
    /// When snapshots began to be many, and how many.
    since: Instant,
    begun: u32,
}

impl Reader {
    /// Whether there were many snapshots in this moment.
    fn is_busy(&mut self) -> bool {
        if self.since.elapsed() > MOMENT && self.begun > 0 {
            (self.since, self.begun) = (Instant::now(), 0);
        }
        self.begun = self.begun.saturating_add(1);
        self.begun > MANY
    }

    /// Whether the buckets that `index` has are those of the snapshot.
    pub(super) fn is_indexed(&self) -> bool {
        self.is_indexed
    }

    fn begin(&mut self, stamp: Option<u128>) -> Result<()> {
        self.sql.prepare_cached("BEGIN").and_then(|mut begin| begin.execute([])).map_err(sql_error)?;
        self.snapshot = stamp;
        Ok(())
    }

    /// Makes the buckets that were read before those of the snapshot, which is to stay, by forgetting them if need be.
    fn take_index(&mut self, index: &WalIndex) {
        // With the first query a snapshot really begins. A commit may have come between it and the stamp that was looked at
        // before; then there are buckets of the one and rows of the other.
        let has_begun = State::read(&self.sql).is_ok();
        let stamp = Some(index.stamp());
        self.is_indexed = has_begun && stamp == self.snapshot;
        if self.is_indexed && stamp != self.indexed {
            self.index.forget();
            self.indexed = stamp;
        }
    }

    fn end(&mut self) {
        self.snapshot = None;
        self.is_indexed = false;
        if !self.sql.is_autocommit() {
            // Ending what only reads does not fail; if it did, the next snapshot would say so.
            let _ = self.sql.prepare_cached("COMMIT").and_then(|mut end| end.execute([]));
        }
    }
}

/// The connection for queries, and the thread, which is started when there is something to do.
pub(super) struct Readers {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    path: PathBuf,
    durable: bool,
    reader: Mutex<Reader>,
    /// The connection that brings the log in, once there is one.
    log: Mutex<Option<Connection>>,
    wishes: Mutex<Wishes>,
    wished: Condvar,
}

/// What the thread has to do.
#[derive(Clone, Copy, Default)]
struct Wishes {
    end_snapshot: bool,
    checkpoint: bool,
    close: bool,
}

impl Shared {
    fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the thread does until the catalog is closed.
    fn serve(&self) {
        loop {
            let wishes = self.next();
            if wishes.close {
                return;
            }
            if wishes.checkpoint {
                let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
                if log.is_none() {
                    *log = connect(&self.path, self.durable).ok();
                }
                log.as_ref().map(bring_in);
            } else {
                self.reader().end();
            }
        }
    }

    /// Waits for what there is to do. Snapshots are ended a moment after they were begun.
    fn next(&self) -> Wishes {
        let is_idle = |wishes: &mut Wishes| !wishes.end_snapshot && !wishes.checkpoint && !wishes.close;
        let mut wishes = self.wished.wait_while(self.wishes(), is_idle).unwrap_or_else(PoisonError::into_inner);
        if !wishes.checkpoint {
            let is_alone = |wishes: &mut Wishes| !wishes.checkpoint && !wishes.close;
            let waited = self.wished.wait_timeout_while(wishes, MOMENT, is_alone);
            wishes = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let now = *wishes;
        wishes.end_snapshot &= now.checkpoint;
        wishes.checkpoint = false;
        now
    }
}

/// Brings as much of the log into the database as nobody reads. What cannot be brought in now is so later.
fn bring_in(sql: &Connection) {
    let _ = sql.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
}

impl Readers {
    pub(super) fn new(sql: Connection, path: &Path, durable: bool) -> Self {
        let reader = Mutex::new(Reader {
            sql,
            index: Index::new(),
            snapshot: None,
            indexed: None,
            is_indexed: false,
            since: Instant::now(),
            begun: 0,
        });
        let (log, wishes, wished) = (Mutex::default(), Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { path: path.to_owned(), durable, reader, log, wishes, wished });
        Self { shared, thread: Mutex::default() }
    }

    /// Runs `work` in a snapshot that has all commits up to this moment.
    pub(super) fn read<T>(&self, index: Option<&WalIndex>, work: impl FnOnce(&Reader) -> Result<T>) -> Result<T> {
        let reader = self.shared.reader();
        self.read_at(index.map(|index| (index, index.stamp())), reader, work)
    }

    fn read_at<T>(
        &self,
        at: Option<(&WalIndex, u128)>,
        mut reader: MutexGuard<'_, Reader>,
        work: impl FnOnce(&Reader) -> Result<T>,
    ) -> Result<T> {
        let stamp = at.map(|(_, stamp)| stamp);
        if stamp.is_none() || reader.snapshot != stamp {
            reader.end();
            // One that is open while others write keeps the log from beginning again; where it is long, none stays.
            let is_short = |stamp: &u128| WalIndex::frames(*stamp) <= LOG_PAGES;
            let stays = stamp.filter(|stamp| is_short(stamp) && reader.is_busy() && self.will_be_ended());
            reader.begin(stays)?;
        }
        if let Some((index, _)) = at.filter(|_| reader.snapshot.is_some() && !reader.is_indexed) {
            reader.take_index(index);
        }
        let done = work(&reader);
        if done.is_err() || reader.snapshot.is_none() {
            reader.end();
        }
        done
    }

    /// Ends an open snapshot, for somebody who writes.
    pub(super) fn end(&self) {
        self.shared.reader().end();
    }

    /// Keeps the log short, after a commit of `writer`: the thread does that if it can keep up.
    pub(super) fn shorten_log(&self, writer: &Connection, stamp: u128) {
        let frames = WalIndex::frames(stamp);
        if frames <= LOG_PAGES {
            return;
        }
        if frames <= MOST_LOG_PAGES && self.wish(|wishes| &mut wishes.checkpoint) {
            return;
        }
        // Not at the same time as the thread: SQLite would do nothing then.
        let _alone = self.shared.log.lock().unwrap_or_else(PoisonError::into_inner);
        bring_in(writer);
    }

    /// Tells the thread that there is a snapshot to end, if there is a thread.
    fn will_be_ended(&self) -> bool {
        self.wish(|wishes| &mut wishes.end_snapshot)
    }

    /// Tells the thread what to do. Gives whether it will.
    fn wish(&self, which: impl FnOnce(&mut Wishes) -> &mut bool) -> bool {
        let mut wishes = self.shared.wishes();
        let wish = which(&mut wishes);
        if *wish {
            return true;
        }
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let shared = self.shared.clone();
            let builder = thread::Builder::new().name("icechest-catalog".to_owned());
            *thread = builder.spawn(move || shared.serve()).ok();
        }
        *wish = thread.is_some();
        self.shared.wished.notify_one();
        thread.is_some()
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.shared.wishes().close = true;
        self.shared.wished.notify_one();
        if let Some(thread) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // It does not panic; if it did, nothing would be left to do.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use std::time::Instant;

    use super::super::{Catalog, Transaction};

    fn change(catalog: &Catalog) {
        let moved = catalog.write(true, false, None, |transaction: &mut Transaction<'_>| {
            transaction.move_on();
            Ok(())
        });
        moved.unwrap();
    }

    fn catalogs() -> (tempfile::TempDir, Catalog, Catalog) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        std::fs::write(&path, "").unwrap();
        let ours = Catalog::create(&path, true, "boot").unwrap();
        let theirs = Catalog::open(&path, true).unwrap();
        (dir, ours, theirs)
    }

    #[test]
    fn a_snapshot_that_stays_open_hides_no_commit() {
        let (_dir, ours, theirs) = catalogs();
        for boot in 0..200 {
            let boot = boot.to_string();
            let catalog = if boot.ends_with('7') { &ours } else { &theirs };
            let set = catalog.write(true, false, None, |transaction| {
                transaction.set_boot(&boot);
                Ok(())
            });
            set.unwrap();
            for _ in 0..20 {
                assert_eq!(ours.boot().unwrap(), boot);
            }
        }
    }

    #[test]
    fn the_index_of_one_commit_is_not_used_with_the_rows_of_another() {
        let (_dir, ours, theirs) = catalogs();
        change(&ours);
        let is_indexed = |stamp: u128| {
            let at = ours.wal_index.as_ref().map(|index| (index, stamp));
            ours.readers.read_at(at, ours.readers.shared.reader(), |reader| Ok(reader.is_indexed())).unwrap()
        };
        let stamp = || ours.wal_index.as_ref().unwrap().stamp();
        assert!((0..50).any(|_| is_indexed(stamp())), "a snapshot that stays");
        let before = stamp();
        change(&theirs);
        ours.readers.end();
        // As if the commit had come after the look at the stamp.
        assert!((0..50).all(|_| !is_indexed(before)));
        assert!((0..50).any(|_| is_indexed(stamp())));
    }

    #[test]
    fn a_reader_that_does_nothing_more_keeps_no_log_from_beginning_again() {
        let (dir, ours, theirs) = catalogs();
        change(&theirs);
        (0..50).for_each(|_| _ = ours.boot().unwrap());
        let log = || std::fs::metadata(dir.path().join("catalog.sqlite-wal")).unwrap().len();
        let began = Instant::now();
        theirs.checkpoint().unwrap();
        change(&theirs);
        let short = log();
        assert!(short < 20 << 10, "{short} bytes after {:?}", began.elapsed());
        // The same where this process writes: nobody has to wait.
        for _ in 0..10 {
            (0..50).for_each(|_| _ = ours.boot().unwrap());
            change(&ours);
        }
        ours.checkpoint().unwrap();
    }

    #[test]
    fn a_long_log_is_brought_in_while_others_go_on() {
        let (dir, ours, _theirs) = catalogs();
        let log = || std::fs::metadata(dir.path().join("catalog.sqlite-wal")).unwrap().len();
        for _ in 0..20_000 {
            change(&ours);
        }
        // Otherwise the log would have a page for each of them.
        assert!(log() < u64::from(super::MOST_LOG_PAGES) * 5000, "{}", log());
    }
}
