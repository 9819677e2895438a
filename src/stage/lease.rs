//! Single flight between processes: who computes a call has a lease on it, a locked file.
//!
//! The system frees the lock when the process dies, however it dies. The file names the process, for people, and the leases
//! that the call waits for, so that calls of several processes do not wait for each other for ever.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::context::Id;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Digest, Key};

/// The folder of leases in a chest.
const LEASES: &str = "leases";

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
}

/// The leases that this process has.
static HELD: Mutex<Vec<Held>> = Mutex::new(Vec::new());

fn held() -> MutexGuard<'static, Vec<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    /// Tells all who look what the call waits for.
    fn write(&self, waits_for: Option<&Path>) -> io::Result<()> {
        let name = waits_for.and_then(Path::file_name).unwrap_or_default();
        let mut file = &*self.file;
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}\n{}\n", std::process::id(), name.display())
    }

    /// The lease that the call which has this one waits for.
    fn waits_for(path: &Path) -> Option<PathBuf> {
        let mut text = String::new();
        File::open(path).ok()?.take(MOST).read_to_string(&mut text).ok()?;
        let name = text.lines().nth(1).filter(|name| !name.is_empty())?;
        // It was written by anybody: it leads nowhere else.
        let name = Path::new(name).file_name()?;
        Some(path.with_file_name(name))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Self(lease) = self;
        held().retain(|other| !Arc::ptr_eq(&other.file, &lease.file));
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
    id: Id,
    attempts: usize,
    /// The leases of calls that need this one, once they say so.
    told: Vec<Held>,
}

impl Request {
    /// Asks for the lease of a key, for the call `id`.
    pub(super) fn new(root: &Path, key: &Key, private: bool, id: Id) -> Self {
        let name = Digest::of_bytes(key.canonical().as_bytes()).to_string();
        let path = root.join(LEASES).join(name);
        Self { path, key: key.clone(), private, id, attempts: 0, told: Vec::new() }
    }

    /// Waits for the lease.
    pub(super) fn wait(mut self) -> Result<Lease> {
        loop {
            match self.attempt()? {
                Ok(lease) => return Ok(lease),
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
            let lease = Held { id: self.id, path: self.path.clone(), file: Arc::new(file) };
            // What it says helps others to notice circles; it is a lease without that too.
            let _ = lease.write(None);
            held().push(lease.clone());
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
            let file = match options.open(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.path.parent().map_or(Ok(()), fs::create_dir_all)?;
                    options.open(&self.path)?
                }
                file => file?,
            };
            match file.try_lock() {
                Ok(()) if is_at(&file, &self.path) => return Ok(Some(file)),
                // Whoever had it has removed it meanwhile.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    fn refuse_circle(&mut self) -> Result<()> {
        if self.told.is_empty() {
            self.told = held().iter().filter(|lease| lease.id.needs(self.id)).cloned().collect();
            for lease in &self.told {
                let _ = lease.write(Some(&self.path));
            }
        }
        let mut seen = vec![self.path.clone()];
        loop {
            let last = &seen[seen.len() - 1];
            if self.told.iter().any(|lease| lease.path == *last) {
                let message =
                    "the call needs its own result: calls of two processes, or of two handles, wait for each other";
                return Err(Error::new(ErrorKind::Busy, message).with_key(&self.key));
            }
            match Held::waits_for(last) {
                Some(next) if !seen.contains(&next) => seen.push(next),
                _ => return Ok(()),
            }
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        for lease in &self.told {
            let _ = lease.write(None);
        }
    }
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
