//! The disk tier: a directory with a catalog and one immutable file for each value and version.
//!
//! [`values`] writes, publishes and reads values; [`sync`] brings them to the medium and finds its way after a power cut;
//! [`check`] verifies and repairs a directory. All of them go through [`storage`] to the operating system.

pub(crate) mod catalog;
pub(crate) mod check;
mod filesystem;
mod fork;
mod label;
mod parts;
mod pieces;
mod rebuild;
pub(crate) mod report;
mod session;
#[cfg(all(feature = "blosc", target_os = "linux"))]
mod speed;
mod storage;
mod sync;
mod temporary;
mod values;

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

pub(crate) use self::catalog::{Catalog, KnownDigest, Limit, OwnCommit, Row};
pub(crate) use self::fork::process;
pub(crate) use self::parts::FACT as PARTS;
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
pub(crate) use self::parts::Part;
use self::session::Session;
pub(crate) use self::storage::{Os, Storage, StorageFile, read_exact_at, retry, write_all_at};
pub(crate) use self::temporary::TemporaryDir;
pub(crate) use self::values::Draft;
#[cfg(any(feature = "arrow", feature = "lazy", feature = "ndarray"))]
pub(crate) use self::values::NewPlace;
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
pub(crate) use self::values::{About, Old};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Compression, FrameFormat, Verified};

/// The version of the directory's format, told in `docs/format.md`.
pub(crate) const FORMAT_VERSION: i64 = 1;

const MANIFEST: &str = "icechest.json";
const CATALOG: &str = "catalog.sqlite";
const VALUES: &str = "values";
const TMP: &str = "tmp";
const LOCKS: &str = "locks";
const QUARANTINE: &str = "quarantine";
/// The folder of the leases on calls of stages.
pub(crate) const LEASES: &str = "leases";

/// The folders that every chest has.
const FOLDERS: [&str; 3] = [VALUES, TMP, LOCKS];

/// The directory of a chest.
pub(crate) struct Disk {
    root: PathBuf,
    storage: Arc<dyn Storage>,
    catalog: Arc<Catalog>,
    session: Session,
    settings: DiskSettings,
    /// Files that nobody needs any more but that may still be there: with the rows that name them.
    garbage: Mutex<Vec<(i64, Option<String>)>>,
    /// Versions that were read, for the order of eviction.
    used: Mutex<Vec<i64>>,
    /// Versions that can be mapped and that this process wrote, or verified as a whole.
    verified: Verified,
    /// When the last value was written: the next one is later, whatever the clock says.
    last_ns: OnceLock<AtomicI64>,
    /// Whether a sync of the catalog failed.
    is_catalog_doubtful: AtomicBool,
    /// Held by who syncs: versions whose sync failed and that the catalog could not be told of.
    syncing: Mutex<HashSet<i64>>,
    /// Keeps others from making the catalog again.
    manifest: Option<File>,
    /// The process that opened the chest, see [`fork`].
    process: u32,
    temporary: Option<TemporaryDir>,
}

/// How a directory is opened.
#[derive(Clone, Copy)]
pub(crate) struct DiskSettings {
    pub(crate) inline_limit: usize,
    pub(crate) compression: Compression,
    /// Bytes a second that the disk reads, if the user knows.
    pub(crate) disk_speed: Option<u64>,
    pub(crate) frame_format: FrameFormat,
    pub(crate) limit: Option<Limit>,
    /// Whether new files are for their owner alone.
    pub(crate) private: bool,
}

impl Disk {
    /// Opens the chest in `root`, or makes one if there is nothing.
    pub(crate) fn open(root: &Path, settings: DiskSettings, storage: Arc<dyn Storage>) -> Result<Self> {
        let fail = |error| Error::io("cannot make the directory", error).with_path(root);
        let mut above = None;
        if !root.is_dir() {
            let path = std::path::absolute(root).map_err(fail)?;
            above = path.ancestors().find(|dir| dir.exists()).and_then(|dir| dir.canonicalize().ok());
            storage.create_dir(root).map_err(fail)?;
        }
        // Absolute, so that a later change of the working directory does no harm.
        let root =
            fs::canonicalize(root).map_err(|error| Error::io("cannot open the directory", error).with_path(root))?;
        filesystem::refuse_network(&root)?;
        let is_new = !read_manifest(&root)?;
        if is_new {
            drop(create(&root, true, settings.private, &*storage)?);
            // Folders that were made for it; its own and the one around it are on the medium already.
            let is_new = |dir: &&Path| above.as_ref().is_some_and(|above| dir.starts_with(above));
            for dir in root.ancestors().skip(2).take_while(is_new) {
                retry(|| storage.sync(dir))
                    .map_err(|error| Error::io("cannot make the directory", error).with_path(dir))?;
            }
        }
        let disk = Self::open_as_it_is(root, settings, storage)?;
        if is_new {
            disk.announce()?;
        }
        if !disk.catalog.is_read_only() {
            disk.recover()?;
        }
        Ok(disk)
    }

    /// Opens a chest in an absolute directory, without bringing it in order.
    pub(crate) fn open_as_it_is(root: PathBuf, settings: DiskSettings, storage: Arc<dyn Storage>) -> Result<Self> {
        let manifest = attend(&root)?;
        let catalog = open_catalog(&root, &*storage)?;
        // Of a repair that came to no end; none is at work, or this process would not be let in. What is changed from now on
        // it does not know, and a later repair would take it for the catalog.
        let _ = retry(|| storage.remove(&root.join(rebuild::REBUILT)));
        let session = Session::begin(&root.join(LOCKS), settings.private);
        Self::new(root, storage, catalog, session, settings, None, manifest)
    }

    /// A chest in a directory of its own that is removed when it is dropped.
    pub(crate) fn temporary(parent: Option<&Path>, settings: DiskSettings, storage: Arc<dyn Storage>) -> Result<Self> {
        let dir = TemporaryDir::create(parent)?;
        let catalog = create(dir.path(), false, settings.private, &*storage)?;
        Self::new(dir.path().to_owned(), storage, catalog, Session::alone(), settings, Some(dir), None)
    }

    fn new(
        root: PathBuf,
        storage: Arc<dyn Storage>,
        catalog: Catalog,
        session: Session,
        settings: DiskSettings,
        temporary: Option<TemporaryDir>,
        manifest: Option<File>,
    ) -> Result<Self> {
        let disk = Self {
            root,
            storage,
            catalog: Arc::new(catalog),
            session,
            settings,
            garbage: Mutex::default(),
            used: Mutex::default(),
            verified: Verified::default(),
            last_ns: OnceLock::new(),
            is_catalog_doubtful: AtomicBool::new(false),
            syncing: Mutex::default(),
            manifest,
            process: process(),
            temporary,
        };
        if disk.evicts() {
            disk.write(false, |catalog| catalog.index_uses())?;
        }
        Ok(disk)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether files are for their owner alone.
    pub(crate) fn is_private(&self) -> bool {
        self.settings.private
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// Whether values go only by this process's own calls: nobody else has the chest, and no limit evicts.
    pub(crate) fn is_left_alone(&self) -> bool {
        self.is_temporary() && !self.evicts()
    }

    fn evicts(&self) -> bool {
        self.settings.limit.is_some_and(|limit| limit.evict)
    }

    pub(crate) fn limit(&self) -> Option<Limit> {
        self.settings.limit
    }

    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Whether this is a child of the process that opened the chest. Locks and connections are not the child's, and
    /// threads of the parent may have been at work in the middle of anything.
    pub(crate) fn is_forked(&self) -> bool {
        process() != self.process
    }

    /// Encoded values up to this size are kept in the catalog.
    pub(crate) fn inline_limit(&self) -> usize {
        self.settings.inline_limit
    }

    /// Runs a transaction, then removes the files that nobody needs after it.
    fn write<T>(&self, full: bool, work: impl FnOnce(&mut catalog::Transaction<'_>) -> Result<T>) -> Result<T> {
        self.write_as(None, full, work)
    }

    /// As [`write`](Self::write), for a commit that memory is told of.
    fn write_as<T>(
        &self,
        own: Option<&mut OwnCommit<'_>>,
        full: bool,
        work: impl FnOnce(&mut catalog::Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        self.announce()?;
        let gone = std::mem::take(&mut *self.garbage.lock().unwrap_or_else(PoisonError::into_inner));
        let versions: Vec<i64> = gone.iter().map(|(version, _)| *version).collect();
        let written = self.catalog.write(!self.is_temporary(), full, own, |transaction| {
            transaction.forget(&versions)?;
            work(transaction)
        });
        match written {
            Ok((done, garbage)) => {
                self.throw_away(garbage);
                Ok(done)
            }
            Err(error) => {
                self.garbage.lock().unwrap_or_else(PoisonError::into_inner).extend(gone);
                Err(self.explain(error))
            }
        }
    }

    /// Tells others of this session, before it changes anything: what a dead process left is told by its lock file.
    fn announce(&self) -> Result<()> {
        if self.catalog.is_read_only() {
            return Err(catalog::read_only::refusal().with_path(&self.root));
        }
        let fail =
            |error| Error::io("cannot tell others that the chest changes", error).with_path(&self.root.join(LOCKS));
        retry(|| self.session.announce()).map_err(fail)
    }

    /// Removes files; their rows are forgotten by the next transaction.
    fn throw_away(&self, garbage: Vec<(i64, Option<String>)>) {
        let removed = garbage.into_iter().filter(|(_, file)| file.as_deref().is_none_or(|file| self.unlink(file)));
        let removed: Vec<_> = removed.collect();
        self.garbage.lock().unwrap_or_else(PoisonError::into_inner).extend(removed);
    }

    /// Removes a file that no row needs. Tells whether it is gone; one that stays is removed by a later open.
    fn unlink(&self, name: &str) -> bool {
        let Ok(path) = self.value_path(name) else { return true };
        match retry(|| self.storage.remove(&path)) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(_) => {
                self.session.leaves_files();
                false
            }
        }
    }

    /// Adds to an error of the catalog where it is, and who is in the way.
    fn explain(&self, error: Error) -> Error {
        let path = self.root.join(CATALOG);
        if error.kind() != ErrorKind::Busy {
            return error.with_path(&path);
        }
        let message = match filesystem::writer_of(&path) {
            Some(pid) => format!("process {pid} has held the catalog's write lock for too long; wait for it or end it"),
            None => {
                let others = session::live(&self.root.join(LOCKS)).unwrap_or_default();
                let me = std::process::id();
                let pids: HashSet<u32> = others.into_iter().map(|(_, pid)| pid).filter(|&pid| pid != me).collect();
                format!("another process holds the catalog's write lock; those that write to the chest: {pids:?}")
            }
        };
        Error::new(ErrorKind::Busy, message).with_path(&path).with_source(error.to_string())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A forked child has the file open too.
        if let Some(manifest) = &self.manifest {
            let _ = manifest.unlock();
        }
        // A draft whose writing failed may have stayed because removing it failed too.
        let session = self.session.name();
        let is_ours = |name: &String| name.starts_with(&session);
        if self.storage.list(&self.root.join(TMP)).is_ok_and(|names| names.iter().any(is_ours)) {
            self.session.leaves_files();
        }
    }
}

/// Whether there is a chest of a format that this version reads.
fn read_manifest(root: &Path) -> Result<bool> {
    let path = root.join(MANIFEST);
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_file() && meta.len() <= 1 << 16 => {
            let io = |error| Error::io("cannot read the chest's format", error).with_path(&path);
            let bytes = fs::read(&path).map_err(io)?;
            check_manifest(&bytes).map_err(|error| error.with_path(&path))?;
            Ok(true)
        }
        Ok(_) => Err(Error::damaged("the chest's format file is not a small regular file").with_path(&path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("cannot read the chest's format", error).with_path(&path)),
    }
}

/// Takes part in the chest: nobody makes its catalog again while the file is open. None if there is no manifest.
fn attend(root: &Path) -> Result<Option<File>> {
    let path = root.join(MANIFEST);
    if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file()) {
        return Ok(None);
    }
    let io = |error| Error::io("cannot open the chest's format file", error).with_path(&path);
    let file = match retry(|| File::open(&path)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let began = Instant::now();
    loop {
        match file.try_lock_shared() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if began.elapsed() < catalog::BUSY_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                let message = "another process is making the catalog again; wait until it is done";
                return Err(Error::new(ErrorKind::Busy, message).with_path(&path));
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
    }
}

/// Keeps others from opening the chest, if nobody has it open. None if somebody has.
fn keep_out(root: &Path) -> Result<Option<File>> {
    let path = root.join(MANIFEST);
    let io = |error| Error::io("cannot open the chest's format file", error).with_path(&path);
    let file = retry(|| File::open(&path)).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

fn open_catalog(root: &Path, storage: &dyn Storage) -> Result<Catalog> {
    let path = root.join(CATALOG);
    for folder in FOLDERS {
        let path = root.join(folder);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => continue,
            Ok(_) => {
                let message = "something else is in the place of a folder of the chest";
                return Err(Error::damaged(message).with_path(&path));
            }
            // Tools that copy a directory may leave empty folders out.
            Err(_) if catalog::read_only::is_read_only(root) => continue,
            Err(_) => retry(|| storage.create_dir(&path))
                .and_then(|()| retry(|| storage.sync(root)))
                .map_err(|error| Error::io("cannot make the folder", error).with_path(&path))?,
        }
    }
    refuse_links(root)?;
    let hint = "icechest check --repair makes it from the value files";
    if !path.exists() {
        return Err(Error::damaged(format!("the chest's catalog is missing; {hint}")).with_path(&path));
    }
    Catalog::open(&path, true).map_err(|error| {
        match error.kind() {
            ErrorKind::Damaged => {
                Error::damaged(format!("the chest's catalog is damaged; {hint}")).with_source(error.plain())
            }
            _ => error,
        }
        .with_path(&path)
    })
}

/// The catalog must not lead out of the chest.
fn refuse_links(root: &Path) -> Result<()> {
    for name in ["", "-wal", "-shm"] {
        let path = root.join(format!("{CATALOG}{name}"));
        if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file()) {
            return Err(Error::damaged("the catalog is not a regular file").with_path(&path));
        }
    }
    Ok(())
}

/// Makes a chest; several processes may do so at once. The manifest comes last: with it the chest is complete.
fn create(root: &Path, durable: bool, private: bool, storage: &dyn Storage) -> Result<Catalog> {
    let io = |path: &Path, error| Error::io("cannot make the chest", error).with_path(path);
    let ours = [VALUES, TMP, LOCKS, QUARANTINE, LEASES, temporary::LOCK];
    for entry in fs::read_dir(root).map_err(|error| io(root, error))? {
        let name = entry.map_err(|error| io(root, error))?.file_name();
        let name = name.to_string_lossy();
        if !ours.contains(&&*name) && !name.starts_with(CATALOG) && !name.starts_with(MANIFEST) {
            let message = format!("the directory is not a chest: it holds {name:?}; give an empty or a new one");
            return Err(Error::invalid(message).with_path(root));
        }
    }
    let has_values = fs::read_dir(root.join(VALUES)).is_ok_and(|mut entries| entries.next().is_some());
    // Another process may have made the chest since, and filled it.
    if durable && has_values && !read_manifest(root)? {
        let message =
            "the chest's format file is missing, but there are values; icechest check --repair makes it again";
        return Err(Error::damaged(message).with_path(&root.join(MANIFEST)));
    }
    for folder in FOLDERS {
        let path = root.join(folder);
        storage.create_dir(&path).map_err(|error| io(&path, error))?;
    }
    refuse_links(root)?;
    let path = root.join(CATALOG);
    let make = || {
        make_catalog(&path, private).map_err(|error| io(&path, error))?;
        Catalog::create(&path, durable, &storage.boot()).map_err(|error| error.with_path(&path))
    };
    let catalog = match make() {
        // A power cut took a part of it when it was made the first time.
        Err(error) if durable && error.kind() == ErrorKind::Damaged => {
            for name in ["", "-wal", "-shm"] {
                quarantine(root, &root.join(format!("{CATALOG}{name}")), storage)?;
            }
            make()?
        }
        made => made?,
    };
    if durable {
        // Without this a power cut could leave a chest without a catalog, or take the whole directory, whatever is
        // synced in it later.
        catalog.checkpoint().map_err(|error| error.with_path(&path))?;
        for dir in [root, root.parent().unwrap_or(root)] {
            retry(|| storage.sync(dir)).map_err(|error| io(dir, error))?;
        }
    }
    let session = if durable { Session::begin(&root.join(LOCKS), private) } else { Session::alone() };
    write_manifest(root, &session, storage).map_err(|error| io(&root.join(MANIFEST), error))?;
    if durable {
        retry(|| storage.sync(root)).map_err(|error| io(root, error))?;
    }
    Ok(catalog)
}

/// Moves a damaged file out of the way, into the folder for that. Gives its new place; none if there was no file.
fn quarantine(root: &Path, path: &Path, storage: &dyn Storage) -> Result<Option<PathBuf>> {
    let dir = root.join(QUARANTINE);
    let io = |error| Error::io("cannot move a damaged file to the quarantine", error).with_path(path);
    retry(|| storage.create_dir(&dir)).map_err(io)?;
    if fs::symlink_metadata(&dir).is_ok_and(|meta| !meta.is_dir()) {
        return Err(Error::damaged("something else is in the place of the quarantine folder").with_path(&dir));
    }
    let Some(name) = path.file_name() else { return Ok(None) };
    let mut target = dir.join(name);
    let mut copy = 1;
    while fs::symlink_metadata(&target).is_ok() {
        copy += 1;
        target = dir.join(format!("{}.{copy}", name.to_string_lossy()));
    }
    match retry(|| storage.rename(path, &target)) {
        Ok(()) => Ok(Some(target)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(error)),
    }
}

fn write_manifest(root: &Path, session: &Session, storage: &dyn Storage) -> std::io::Result<()> {
    let manifest = format!("{}\n", json!({"format": "icechest", "version": FORMAT_VERSION}));
    let write = || {
        let temporary = root.join(TMP).join(session.unique()?);
        let file = retry(|| storage.create(&temporary))?;
        let done = write_all_at(&*file, manifest.as_bytes(), 0)
            .and_then(|()| retry(|| storage.sync(&temporary)))
            .and_then(|()| retry(|| storage.rename(&temporary, &root.join(MANIFEST))));
        if done.is_err() {
            let _ = storage.remove(&temporary);
        }
        done
    };
    // Where no session is told, nobody knows that the temporary file is ours: whoever cleans up may take it away.
    let is_taken =
        |done: &std::io::Result<()>| matches!(done, Err(error) if error.kind() == std::io::ErrorKind::NotFound);
    (0..10).map(|_| write()).find(|done| !is_taken(done)).unwrap_or_else(write)
}

/// Makes an empty file for SQLite, which would make one that others can read. Its log gets the same mode.
fn make_catalog(path: &Path, private: bool) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    // One that is there is not opened: closing it again would free SQLite's locks of this process.
    options.write(true).create_new(true);
    #[cfg(unix)]
    if private {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(|_| ()),
    }
}

fn check_manifest(bytes: &[u8]) -> Result<()> {
    let manifest: Json = serde_json::from_slice(bytes)
        .map_err(|error| Error::damaged("the chest's format file is damaged").with_source(error))?;
    if manifest.get("format").and_then(Json::as_str) != Some("icechest") {
        return Err(Error::invalid("the directory is not a chest"));
    }
    match manifest.get("version").and_then(Json::as_i64) {
        Some(FORMAT_VERSION) => Ok(()),
        Some(version) if version > FORMAT_VERSION => Err(Error::unsupported(format!(
            "the chest has format {version}; this version of icechest reads up to {FORMAT_VERSION}; use a newer one"
        ))),
        _ => Err(Error::damaged("the chest's format file names no version")),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
