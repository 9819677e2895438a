//! Single flight between processes: who computes a call has a lease on it, a locked file.
//!
//! The system frees the lock when the process dies, however it dies. The file names the process, for people, and the leases
//! that the call waits for, so that calls of several processes do not wait for each other for ever.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::context::Id;
use crate::disk::{LEASES, Os, Storage};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Digest, Key};

/// No lease file is longer.
const MOST: u64 = 64 << 10;

/// Pauses between attempts in milliseconds: short ones first, for short calls. After the last one it comes again and again.
const PAUSES: [f64; 6] = [0.2, 1.0, 2.0, 5.0, 10.0, 20.0];

/// The right to compute a call, among all processes. Ends when it is dropped.
pub(super) struct Lease(Held);

#[derive(Clone)]
struct Held {
    id: Id,
    path: PathBuf,
    file: Arc<File>,
    /// The leases that the call waits for.
    waits: Arc<Mutex<Vec<PathBuf>>>,
}

/// The leases that this process has.
static HELD: Mutex<Vec<Held>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    /// Changes what the call waits for, and tells all who look.
    fn change(&self, change: impl FnOnce(&mut Vec<PathBuf>)) -> io::Result<()> {
        let mut waits = lock(&self.waits);
        change(&mut waits);
        let mut text = format!("{}\n", std::process::id());
        for name in waits.iter().filter_map(|path| path.file_name()) {
            text.push_str(&format!("{}\n", name.display()));
        }
        let mut file = &*self.file;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(text.as_bytes())
    }
}

/// The leases that a call waits for whose lease is this one.
fn waits_of(path: &Path) -> Vec<PathBuf> {
    let mut text = String::new();
    let file = open_safely(OpenOptions::new().read(true), path);
    if file.and_then(|file| file.take(MOST).read_to_string(&mut text)).is_err() {
        return Vec::new();
    }
    // It was written by anybody: it leads nowhere else.
    text.lines().skip(1).filter_map(|name| Some(path.with_file_name(Path::new(name).file_name()?))).collect()
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Self(lease) = self;
        lock(&HELD).retain(|other| !Arc::ptr_eq(&other.file, &lease.file));
        // Before the lock is gone: whoever takes it then finds that it is that of a file without a name.
        #[cfg(unix)]
        let _ = fs::remove_file(&lease.path);
    }
}

/// A lease that is asked for.
pub(super) struct Request {
    path: PathBuf,
    key: Key,
    private: bool,
    /// Whether processes that this one starts have it too.
    is_inherited: bool,
    id: Id,
    attempts: usize,
    /// The leases of calls that need this one, and say so.
    told: Vec<Held>,
    /// Whether nobody waits for it any more.
    is_over: Arc<AtomicBool>,
}

impl Request {
    /// Asks for the lease of a key, for the call `id`.
    pub(super) fn new(root: &Path, key: &Key, private: bool, id: Id) -> Self {
        let name = Digest::of_bytes(key.canonical().as_bytes()).to_string();
        let (path, key) = (root.join(LEASES).join(name), key.clone());
        Self { path, key, private, is_inherited: false, id, attempts: 0, told: Vec::new(), is_over: Arc::default() }
    }

    /// The lease lasts as long as any process that this one starts meanwhile, if this one is killed.
    pub(super) fn inherited(mut self, is_inherited: bool) -> Self {
        self.is_inherited = is_inherited;
        self
    }

    /// Ends the waiting of another thread when it is dropped.
    pub(super) fn end(&self) -> End {
        End(self.is_over.clone())
    }

    /// Waits for the lease.
    pub(super) fn wait(mut self) -> Result<Lease> {
        loop {
            match self.attempt()? {
                Ok(lease) => return Ok(lease),
                Err(_) if self.is_over.load(Ordering::Relaxed) => {
                    return Err(Error::new(ErrorKind::Busy, "nobody waits any more").with_key(&self.key));
                }
                Err(pause) => std::thread::sleep(pause),
            }
        }
    }

    /// Takes the lease, or tells how long to wait because somebody else has it.
    ///
    /// # Errors
    /// `Busy` when whoever has it waits for this process in turn.
    pub(super) fn attempt(&mut self) -> Result<Result<Lease, Duration>> {
        let io = |error| Error::io("cannot take the lease of a call", error).with_path(&self.path).with_key(&self.key);
        if let Some(file) = self.lock().map_err(io)? {
            let (id, path) = (self.id, self.path.clone());
            let lease = Held { id, path, file: Arc::new(file), waits: Arc::default() };
            // What it says helps others to notice circles; it is a lease without that too.
            let _ = lease.change(|_| {});
            lock(&HELD).push(lease.clone());
            return Ok(Ok(Lease(lease)));
        }
        let pause = PAUSES[self.attempts.min(PAUSES.len() - 1)];
        self.attempts += 1;
        if self.attempts > PAUSES.len() {
            self.refuse_circle()?;
        }
        Ok(Err(Duration::from_secs_f64(pause / 1000.0)))
    }

    /// The locked file; none if somebody else has it.
    fn lock(&self) -> io::Result<Option<File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, if self.private { 0o600 } else { 0o666 });
        loop {
            let file = match open_safely(&mut options, &self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let folders = Os { private: self.private };
                    self.path.parent().map_or(Ok(()), |parent| folders.create_dir(parent))?;
                    open_safely(&mut options, &self.path)?
                }
                file => file?,
            };
            match file.try_lock() {
                Ok(()) if is_at(&file, &self.path) => {
                    #[cfg(unix)]
                    if self.is_inherited {
                        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
                    }
                    return Ok(Some(file));
                }
                // Whoever had it has removed it meanwhile.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    fn refuse_circle(&mut self) -> Result<()> {
        // Calls come to need this one while it waits.
        let held: Vec<Held> = lock(&HELD).iter().filter(|lease| lease.id.needs(self.id)).cloned().collect();
        for lease in held {
            if !self.told.iter().any(|told| Arc::ptr_eq(&told.file, &lease.file)) {
                let _ = lease.change(|waits| waits.push(self.path.clone()));
                self.told.push(lease);
            }
        }
        let (mut seen, mut open) = (vec![self.path.clone()], vec![self.path.clone()]);
        while let Some(path) = open.pop() {
            if self.told.iter().any(|lease| lease.path == path) {
                let message =
                    "the call needs its own result: calls of two processes, or of two handles, wait for each other";
                return Err(Error::new(ErrorKind::Busy, message).with_key(&self.key));
            }
            for next in waits_of(&path) {
                if !seen.contains(&next) {
                    seen.push(next.clone());
                    open.push(next);
                }
            }
        }
        Ok(())
    }
}

/// See [`Request::end`].
pub(super) struct End(Arc<AtomicBool>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        for lease in &self.told {
            let _ = lease.change(|waits| {
                if let Some(index) = waits.iter().position(|path| *path == self.path) {
                    waits.swap_remove(index);
                }
            });
        }
    }
}

/// Opens a plain file in a plain folder: links that somebody put there lead nowhere, and nobody waits for a pipe.
fn open_safely(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let folder = path.parent().map_or(Ok(None), |folder| fs::symlink_metadata(folder).map(Some))?;
    if folder.is_some_and(|meta| !meta.is_dir()) {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "the place of the leases is no folder"));
    }
    #[cfg(unix)]
    {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags.bits().cast_signed());
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file")) }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
        _ => false,
    }
}

/// Elsewhere lease files are not removed.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}
