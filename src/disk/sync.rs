//! Bringing values to the medium, and what to do at the first open after a power cut.
//!
//! A published value survives the death of its process, not that of the machine: the system writes files and the
//! catalog's log when it likes, in any order. `sync` waits for the files, then for a transaction that says up to which
//! version all is there. What a value replaced is kept until then. So after a power cut the rows beyond that version
//! are verified, and one whose file did not make it gives way to the value before it.

use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::catalog::{BUSY_TIMEOUT, OwnCommit, Row, Transaction};
use super::check::check_labels;
use super::parts::{Part, Place};
use super::session::{self, Dead};
use super::storage::{retry, write_all_at};
use super::values::Draft;
use super::{Disk, LOCKS, TMP, VALUES};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ReadAt, TemporaryFile};
use crate::pause::Pause;

/// While there are more files than this to sync, others may publish meanwhile.
const FEW: usize = 8;

/// So often at most.
const ROUNDS: usize = 4;

/// Threads that sync files at the same time.
const SYNCERS: usize = 16;

/// Held by the process that syncs.
struct SyncLock(File);

impl Drop for SyncLock {
    fn drop(&mut self) {
        // A forked child has the file open too.
        let _ = self.0.unlock();
    }
}

impl Disk {
    /// Makes everything that is published durable.
    ///
    /// A file whose sync fails is not synced again, because that would succeed without having written anything: the
    /// value is written again, into a new file, by the next call.
    pub(crate) fn sync(&self) -> Result<()> {
        if self.is_temporary() {
            return Ok(());
        }
        // Of two that sync one file, the system tells one alone that it failed: processes, and threads.
        let _others = self.keep_others_from_syncing();
        let mut alone = self.alone();
        for _ in 0..ROUNDS {
            if self.sync_once(&mut alone)? {
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::Io, "other processes cannot sync their values").with_path(&self.root))
    }

    /// Waits for other processes that sync, and keeps them from it until this is dropped, by a lock on the folder of the
    /// locks. Where that cannot be had, they may.
    fn keep_others_from_syncing(&self) -> Option<SyncLock> {
        let folder = File::open(self.root.join(LOCKS)).ok()?;
        // A forked child of somebody who was killed may have it for ever.
        static IN_VAIN: Pause = Pause::new();
        let began = Instant::now();
        loop {
            match folder.try_lock() {
                Ok(()) => return Some(SyncLock(folder)),
                Err(TryLockError::WouldBlock) if began.elapsed() < BUSY_TIMEOUT && !IN_VAIN.is_on() => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => {
                    if !IN_VAIN.is_on() {
                        IN_VAIN.begin(began.elapsed());
                    }
                    return None;
                }
            }
        }
    }

    /// The right to sync, and what could not be synced.
    pub(super) fn alone(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction that is on the medium when this returns.
    pub(super) fn write_durably<T>(
        &self,
        _alone: &MutexGuard<'_, HashSet<i64>>,
        own: Option<&mut OwnCommit<'_>>,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        if self.is_catalog_doubtful.load(Ordering::Relaxed) {
            self.catalog.checkpoint().map_err(|error| self.explain(error))?;
            self.is_catalog_doubtful.store(false, Ordering::Relaxed);
        }
        let written = self.write_as(own, true, work);
        if written.as_ref().is_err_and(|error| error.kind() != ErrorKind::Busy) {
            self.is_catalog_doubtful.store(true, Ordering::Relaxed);
        }
        written
    }

    /// Tells whether it is done; not if another process found meanwhile that it cannot sync a value.
    fn sync_once(&self, alone: &mut MutexGuard<'_, HashSet<i64>>) -> Result<bool> {
        let mut done = HashSet::new();
        // What cannot be synced nor read any more. It keeps nothing else from the medium; whoever reads it gets an error.
        let mut lost = HashSet::new();
        let mut loss = None;
        let mut before = usize::MAX;
        for _ in 0..ROUNDS {
            let unsynced = self.catalog.unsynced().map_err(|error| self.explain(error))?;
            let again: Vec<i64> = unsynced.doubtful.into_iter().chain(alone.clone()).collect();
            for version in again {
                if lost.contains(&version) {
                    continue;
                }
                match self.write_again(version) {
                    Err(error) if error.is_of_the_file() => {
                        loss.get_or_insert(error);
                        lost.insert(version);
                        done.insert(version);
                    }
                    written => {
                        written?;
                        alone.remove(&version);
                    }
                }
            }
            let files: Vec<_> = unsynced.files.into_iter().filter(|(version, _)| !done.contains(version)).collect();
            let count = files.len();
            // Where others publish faster than the disk syncs, each round would have more to do than the one before.
            if count >= before {
                break;
            }
            self.sync_files(files, &mut done, alone)?;
            if count <= FEW {
                break;
            }
            before = count;
        }
        // What came meanwhile is synced while nobody can add to it.
        let mut failure = None;
        let mut failed = Vec::new();
        let mut own = self.catalog.own_commit();
        let synced = self.write_durably(alone, Some(&mut own), |catalog| {
            let unsynced = catalog.unsynced()?;
            if unsynced.doubtful.iter().any(|version| !lost.contains(version)) {
                return Ok(false);
            }
            let files: Vec<_> = unsynced.files.into_iter().filter(|(version, _)| !done.contains(version)).collect();
            if !files.is_empty()
                && let Err((versions, error)) = self.sync_each(files, &mut done)
            {
                failure = Some(error);
                failed = versions;
                return catalog.mark_doubtful(&failed, &[]).map(|()| false);
            }
            catalog.mark_synced().map(|()| true)
        });
        match synced {
            // No value is another one: what memory has stays the newest.
            Ok(is_done) => {
                own.known();
                alone.retain(|version| !is_done || !lost.contains(version));
            }
            Err(_) => alone.extend(failed),
        }
        match synced {
            // If there is another round, that one tells.
            Ok(true) => failure.or(loss).map_or(synced, Err),
            _ => failure.map_or(synced, Err),
        }
    }

    fn sync_files(&self, files: Vec<(i64, String)>, done: &mut HashSet<i64>, alone: &mut HashSet<i64>) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let names = files.clone();
        self.sync_each(files, done).map_err(|(versions, error)| {
            let names = names.into_iter().filter(|(version, _)| versions.contains(version));
            let names: Vec<String> = names.map(|(_, file)| file).collect();
            // If the catalog cannot be told, it is remembered here.
            if self.write(false, |catalog| catalog.mark_doubtful(&versions, &names)).is_err() {
                self.is_catalog_doubtful.store(true, Ordering::Relaxed);
                alone.extend(versions);
            }
            error
        })
    }

    /// Syncs files and their folder. On failure gives the versions that are in doubt.
    fn sync_each(
        &self,
        files: Vec<(i64, String)>,
        done: &mut HashSet<i64>,
    ) -> std::result::Result<(), (Vec<i64>, Error)> {
        let all = || files.iter().map(|(version, _)| *version).collect::<Vec<_>>();
        let mut paths = Vec::with_capacity(files.len());
        for (version, name) in &files {
            paths.push((*version, self.value_path(name).map_err(|error| (all(), error))?));
        }
        let mut failed = Vec::new();
        let mut failure = None;
        for (version, path, error) in self.sync_together(&paths) {
            failed.push(version);
            failure.get_or_insert_with(|| {
                let error = Error::io("a value could not be synced; the next sync writes it again", error);
                self.with_key_of(version, error).with_path(path)
            });
        }
        let values = self.root.join(VALUES);
        if let Err(error) = retry(|| self.storage.sync(&values)) {
            let error = Error::io("the folder of the values could not be synced", error).with_path(&values);
            return Err((all(), failure.unwrap_or(error)));
        }
        match failure {
            Some(error) => Err((failed, error)),
            None => {
                done.extend(files.iter().map(|(version, _)| *version));
                Ok(())
            }
        }
    }

    /// Syncs files, many at a time where there are many: the disk writes them together then. Gives those that failed.
    fn sync_together<'a>(&self, files: &'a [(i64, PathBuf)]) -> Vec<(i64, &'a Path, std::io::Error)> {
        let failed = Mutex::new(Vec::new());
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((version, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                match retry(|| self.storage.sync(path)) {
                    // It was replaced meanwhile; if not, reading the value tells that it is missing.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push((*version, path.as_path(), error));
                    }
                    Ok(()) => {}
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..(files.len() / FEW).min(SYNCERS) {
                // Where there can be no more threads, those that there are do the rest.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_key_of(&self, version: i64, error: Error) -> Error {
        let rows = self.catalog.rows().unwrap_or_default();
        match rows.iter().find(|row| row.version == version) {
            Some(row) => error.with_key(&row.key),
            None => error,
        }
    }

    /// Writes a value again, into new files, because the old ones could not be synced.
    pub(super) fn write_again(&self, version: i64) -> Result<()> {
        let Some(old) = self.catalog.rows()?.into_iter().find(|row| row.version == version) else { return Ok(()) };
        if old.file.is_none() {
            return Ok(());
        }
        let (mut own, rows) = (old.clone(), old.rows().unwrap_or(0));
        let parts = old.parts()?;
        let mut start = parts.iter().fold(rows, |rows, part| rows.saturating_sub(part.rows));
        if !parts.is_empty() {
            own = old.with_parts(&[], start)?;
        }
        let mut files = vec![self.copy(&mut own, None)?];
        let of = own.file.clone().unwrap_or_default();
        let mut copies = Vec::new();
        for part in &parts {
            let mut row = part.as_row(&old)?;
            files.push(self.copy(&mut row, Some(Place { of: of.clone(), start }))?);
            copies.push(Part::of_row(&row, part.rows)?);
            start = start.saturating_add(part.rows);
        }
        let row = if parts.is_empty() { own } else { own.with_parts(&copies, rows)? };
        self.publish_copy(&old, Draft { row, files })
    }

    /// Copies a file of a value; the row is that of the copy then.
    fn copy(&self, row: &mut Row, place: Option<Place>) -> Result<(TemporaryFile, String)> {
        let name = row.file.clone().unwrap_or_default();
        let source = self.value_path(&name)?;
        let (unique, temporary) = self.new_file()?;
        let key = row.key.clone();
        let io = |error, path: &Path| {
            Error::io("cannot write a value again that could not be synced", error).with_key(&key).with_path(path)
        };
        let payload = self.payload(row.clone())?;
        let file = TemporaryFile::create(&self.storage, &temporary).map_err(|error| io(error, &temporary))?;
        let mut buf = vec![0; row.payload.min(crate::format::BLOCK as u64) as usize];
        let mut offset = 0;
        while offset < row.payload {
            let n = (row.payload - offset).min(buf.len() as u64) as usize;
            payload.read_exact_at(&mut buf[..n], offset).map_err(|error| io(error, &source))?;
            write_all_at(&*file.file, &buf[..n], offset).map_err(|error| io(error, &temporary))?;
            offset += n as u64;
        }
        super::label::write(&*file.file, row, place.as_ref()).map_err(|error| io(error, &temporary))?;
        let extension = session::ending(&name).unwrap_or("bin");
        let name = format!("{VALUES}/{}.{unique}.{extension}", key.file_stem());
        row.file = Some(name.clone());
        Ok((file, name))
    }

    /// Publishes a copy of a value, unless it was replaced meanwhile.
    fn publish_copy(&self, old: &Row, draft: Draft) -> Result<()> {
        let mut placed = Vec::new();
        for (mut file, name) in draft.files {
            let path = self.value_path(&name)?;
            if let Err(error) = file.keep_as(&path) {
                self.discard(placed);
                return Err(Error::io("cannot publish the value", error).with_key(&old.key).with_path(&path));
            }
            placed.push(name);
        }
        let is_current = self.write(false, |catalog| {
            let is_current = catalog.version(&old.key)? == Some(old.version);
            if is_current {
                catalog.publish(std::slice::from_ref(&draft.row))?;
            }
            Ok(is_current)
        });
        match is_current {
            Ok(true) => Ok(()),
            Ok(false) => {
                placed.iter().for_each(|name| _ = self.unlink(name));
                Ok(())
            }
            Err(error) => {
                self.discard(placed);
                Err(error)
            }
        }
    }

    /// Brings the directory in order at an open: after a power cut the values that it may have cost, and always what
    /// dead processes left.
    pub(super) fn recover(&self) -> Result<()> {
        let dead = self.dead_sessions()?;
        let boot = self.storage.boot();
        let is_new_boot = boot != self.catalog.boot().map_err(|error| self.explain(error))?;
        if is_new_boot {
            let recovered =
                self.write(false, |catalog| self.after_power_cut(catalog, &boot)).and_then(|()| self.sync());
            // The dead are not told by their own files any more.
            recovered.inspect_err(|_| {
                if !dead.is_empty() {
                    self.session.leaves_files()
                }
            })?;
        }
        if !is_new_boot && dead.is_empty() {
            return Ok(());
        }
        match self.remove_left(&dead) {
            // What is there can be read all the same.
            Err(error) if matches!(error.kind(), ErrorKind::Full | ErrorKind::Busy) => Ok(()),
            done => done,
        }
    }

    /// Removes what processes left that are gone.
    pub(super) fn clean_up(&self) -> Result<()> {
        self.remove_left(&self.dead_sessions()?)
    }

    fn dead_sessions(&self) -> Result<Vec<Dead>> {
        let locks = self.root.join(LOCKS);
        session::dead(&locks).map_err(|error| Error::io("cannot read the folder", error).with_path(&locks))
    }

    fn remove_left(&self, dead: &[Dead]) -> Result<()> {
        let removed = self.write(false, |catalog| {
            self.remove_orphans(&catalog.files()?, dead);
            catalog.collect()
        });
        match removed.inspect_err(|_| self.session.leaves_files()) {
            // What a damaged row named may be in none of the others: everything stays until the chest is repaired.
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(()),
            removed => removed,
        }
    }

    /// Verifies the values that were not synced. Nobody else writes meanwhile.
    fn after_power_cut(&self, catalog: &mut Transaction<'_>, boot: &str) -> Result<()> {
        // Another process may have been first.
        if catalog.boot() == boot {
            return Ok(());
        }
        for row in catalog.unsynced_rows()? {
            match self.verify(&row, |_| {}) {
                // The value alone is whole: the next sync writes it again, with its label.
                Ok(()) if row.file.is_some() && check_labels(self, &row).is_err() => {
                    catalog.mark_doubtful(&[row.version], &[])?;
                }
                Ok(()) => {}
                Err(error) if error.is_of_the_file() => {
                    let kept = catalog.withdraw(&row)?;
                    for name in row.files().into_iter().filter(|name| !kept.contains(name)) {
                        // A row may name what is no file of a value.
                        if let Ok(path) = self.value_path(&name) {
                            self.quarantine(&path)?;
                        }
                    }
                }
                // The value may be sound; the next open looks again.
                Err(error) => return Err(error),
            }
        }
        catalog.set_boot(boot);
        Ok(())
    }

    /// Removes what processes left that are gone: unfinished files, and values that no row names.
    fn remove_orphans(&self, named: &HashMap<String, bool>, dead: &[Dead]) {
        let files =
            [TMP, VALUES].map(|folder| (folder, self.storage.list(&self.root.join(folder)).unwrap_or_default()));
        // After the files: who comes now has made none of them.
        let Ok(mut live) = session::live(&self.root.join(LOCKS)) else { return };
        // This process has the locks of the dead.
        live.retain(|(name, _)| dead.iter().all(|dead| dead.name != *name));
        let there: HashSet<String> = files[1].1.iter().map(|name| format!("{VALUES}/{name}")).collect();
        let is_missing = |(name, is_needed): &(&String, &bool)| **is_needed && !there.contains(*name);
        let missing: Vec<&String> = named.iter().filter(is_missing).map(|(name, _)| name).collect();
        for (folder, name) in files.iter().flat_map(|(folder, names)| names.iter().map(move |name| (folder, name))) {
            let maker = name.split('.').rev().find_map(session::maker);
            let is_gone = maker.is_some_and(|maker| live.iter().all(|(name, _)| name != maker));
            if is_gone && !named.contains_key(&format!("{folder}/{name}")) {
                let path = self.root.join(folder).join(name);
                // Somebody has renamed it: a repair gives it its name back.
                if *folder == VALUES && !missing.is_empty() && self.may_be_missed(&path, &missing) {
                    continue;
                }
                // What stays is removed by a later open.
                if retry(|| self.storage.remove(&path)).is_err() && *folder == TMP {
                    let _ = std::fs::remove_dir_all(&path);
                }
            }
        }
    }

    /// Whether one of these names is of the key of a file.
    fn may_be_missed(&self, path: &Path, missing: &[&String]) -> bool {
        let Ok((row, _)) = self.storage.open(path).map_err(Error::from).and_then(|file| super::label::read(&*file))
        else {
            return false;
        };
        let stem = format!("{VALUES}/{}.", row.key.file_stem());
        missing.iter().any(|name| name.starts_with(&stem))
    }

    /// Moves a damaged file out of the way.
    pub(super) fn quarantine(&self, path: &Path) -> Result<Option<PathBuf>> {
        self.announce()?;
        super::quarantine(&self.root, path, &*self.storage)
    }

    /// Keeps the bytes of a damaged small value.
    pub(super) fn quarantine_bytes(&self, version: i64, bytes: &[u8]) -> Result<PathBuf> {
        let (unique, _) = self.new_file()?;
        let path = self.root.join(TMP).join(format!("version-{version}.{unique}"));
        let io = |error| Error::io("cannot keep a damaged value", error).with_path(&path);
        let file = retry(|| self.storage.create(&path)).map_err(io)?;
        write_all_at(&*file, bytes, 0).map_err(io)?;
        Ok(self.quarantine(&path)?.unwrap_or_else(|| path.clone()))
    }

    /// Takes out the row of a damaged value.
    pub(super) fn discard_row(&self, version: i64) -> Result<bool> {
        self.write(false, |catalog| catalog.discard(version))
    }
}
