//! Who changes the chest: each opening is a session, with a lock file of its own from its first change on, which the
//! system frees when the process dies, however it dies. Who only reads leaves nothing behind.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The ending of lock files.
const LOCK: &str = "lock";

/// Hexadecimal digits of a session's name.
const DIGITS: usize = 12;

/// One opening of a chest. The names of files that it makes begin with its own name, so that files of a dead session are
/// known.
pub(crate) struct Session {
    name: Mutex<String>,
    files: AtomicU64,
    /// Where the lock file goes; none in a temporary chest, which is nobody else's.
    dir: Option<PathBuf>,
    private: bool,
    lock: Mutex<Option<Lock>>,
    /// Whether the next open should clean up after this session as after a dead one.
    leaves_files: AtomicBool,
}

struct Lock {
    path: PathBuf,
    _file: File,
}

/// A session whose process is gone. It is nobody else's to clean up until this is dropped.
pub(crate) struct Dead {
    pub(crate) name: String,
    path: PathBuf,
    _file: File,
}

impl Session {
    /// A session of a chest that only this process knows.
    pub(crate) fn alone() -> Self {
        Self::new(None, true)
    }

    fn new(dir: Option<PathBuf>, private: bool) -> Self {
        Self {
            name: Mutex::new(new_name()),
            files: AtomicU64::new(0),
            dir,
            private,
            lock: Mutex::default(),
            leaves_files: AtomicBool::new(false),
        }
    }

    /// Begins a session, whose lock file will be in `dir`.
    pub(crate) fn begin(dir: &Path, private: bool) -> Self {
        Self::new(Some(dir.to_owned()), private)
    }

    /// Tells others of the session, before it changes anything. On a full disk that waits for the first file.
    pub(crate) fn announce(&self) -> io::Result<()> {
        match self.lock() {
            Err(error) if is_full(&error) => Ok(()),
            locked => locked,
        }
    }

    /// Makes the lock file, if there is to be one.
    fn lock(&self) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody who cleans up may come between making the file and locking it. The name is a dead one to them then,
        // and never used again.
        for _ in 0..100 {
            if lock.is_some() {
                return Ok(());
            }
            let name = new_name();
            let path = dir.join(format!("{name}.{LOCK}"));
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, if self.private { 0o600 } else { 0o666 });
            let mut file = options.open(&path)?;
            if file.try_lock().is_ok() && path.exists() {
                // Only for messages to people.
                let _ = write!(file, "{}", std::process::id());
                *self.name.lock().unwrap_or_else(PoisonError::into_inner) = name;
                *lock = Some(Lock { path, _file: file });
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "lock files vanish as they are made"))
    }

    pub(crate) fn name(&self) -> String {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Files of this session could not be removed; a later open tries again.
    pub(crate) fn leaves_files(&self) {
        // Without the file they stay until the chest is repaired.
        let _ = self.lock();
        self.leaves_files.store(true, Ordering::Relaxed);
    }

    /// A name that no other file has or had.
    pub(crate) fn unique(&self) -> io::Result<String> {
        self.lock()?;
        Ok(format!("{}{:06x}", self.name(), self.files.fetch_add(1, Ordering::Relaxed)))
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Drop for Session {
    fn drop(&mut self) {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = lock.as_ref().filter(|_| !self.leaves_files.load(Ordering::Relaxed)) {
            // One that stays is that of a dead session.
            let _ = fs::remove_file(&lock.path);
        }
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        // What stays is cleaned up again by the next open.
        let _ = fs::remove_file(&self.path);
    }
}

/// What follows the unique part of a file's name, if it has one: the format's own ending. What comes before it is the
/// key's, and may have dots.
pub(crate) fn ending(name: &str) -> Option<&str> {
    let dots = name.rmatch_indices('.').map(|(at, _)| at);
    let mut end = name.len();
    for dot in dots {
        if maker(&name[dot + 1..end]).is_some() {
            return Some(name.get(end + 1..).unwrap_or_default());
        }
        end = dot;
    }
    None
}

/// The session that made a file of this unique part.
pub(crate) fn maker(unique: &str) -> Option<&str> {
    let is_ours = unique.len() > DIGITS && unique.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_ours.then(|| &unique[..DIGITS])
}

/// The sessions in `dir` whose processes are gone.
pub(crate) fn dead(dir: &Path) -> io::Result<Vec<Dead>> {
    let mut dead = Vec::new();
    for (name, path) in lock_files(dir)? {
        let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else { continue };
        // A file without a lock may be about to get one: its maker looks whether it is still there.
        if file.try_lock().is_ok() && path.exists() {
            dead.push(Dead { name, path, _file: file });
        }
    }
    Ok(dead)
}

/// The names of the live sessions in `dir`, with the numbers of their processes.
pub(crate) fn live(dir: &Path) -> io::Result<Vec<(String, u32)>> {
    let files = lock_files(dir)?.into_iter();
    Ok(files.filter_map(|(name, path)| Some((name, process_of(File::open(path))?))).collect())
}

/// The number of the process that has locked a file; none if nobody has. What cannot be told counts as locked, by 0: then
/// nothing of this session is touched.
fn process_of(lock: io::Result<File>) -> Option<u32> {
    let file = match lock {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(_) => return Some(0),
    };
    file.try_lock_shared().err()?;
    let mut pid = String::new();
    let _ = file.take(20).read_to_string(&mut pid);
    Some(pid.trim().parse().unwrap_or(0))
}

fn lock_files(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some((name, LOCK)) = file_name.to_str().and_then(|name| name.split_once('.')) else { continue };
        // A link or a pipe is none of ours.
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            files.push((name.to_owned(), entry.path()));
        }
    }
    Ok(files)
}

/// Twelve random hexadecimal digits, from the system's source of randomness: also those of forked processes differ.
fn new_name() -> String {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    format!("{:0DIGITS$x}", hasher.finish() >> (64 - 4 * DIGITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_cannot_be_looked_at_counts_as_live() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0123456789ab.lock");
        assert_eq!(process_of(File::open(&path)), None);
        fs::write(&path, "7").unwrap();
        assert_eq!(process_of(File::open(&path)), None);
        let holder = File::open(&path).unwrap();
        holder.lock().unwrap();
        assert_eq!(process_of(File::open(&path)), Some(7));
        assert_eq!(process_of(Err(io::ErrorKind::PermissionDenied.into())), Some(0));
    }

    #[test]
    fn the_ending_of_a_file_follows_its_unique_part() {
        assert_eq!(ending("a.csv.0123456789ab00000f.npy"), Some("npy"));
        assert_eq!(ending("a.0123456789ab000000.tar.gz"), Some("tar.gz"));
        assert_eq!(ending("0123456789ab000001.0123456789ab000000.bin"), Some("bin"));
        assert_eq!(ending("v1.2.0123456789ab000000"), Some(""));
        assert_eq!((ending("a.csv"), ending("")), (None, None));
    }

    /// What does not compress, and so has a file.
    fn large() -> Vec<u8> {
        (0..100_000_u64).map(|i| twox_hash::XxHash3_64::oneshot(&i.to_le_bytes()) as u8).collect()
    }

    #[test]
    fn who_only_reads_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let open = || crate::Chest::open(dir.path()).unwrap();
        let sessions = || lock_files(&dir.path().join("locks")).unwrap().len();
        open().extend([("small", vec![1_u8; 10]), ("large", large())]).unwrap();
        let chest = open();
        assert_eq!(*chest.get::<Vec<u8>>("large").unwrap(), large());
        assert!(chest.file("large").unwrap().is_some());
        assert!(!chest.contains_key("none").unwrap());
        assert_eq!(sessions(), 0);
        // If it died between the commit and the end of the file, the next one would have to know.
        chest.remove("large").unwrap();
        assert_eq!(sessions(), 1);
        drop(chest);
        assert_eq!(sessions(), 0);
        let chest = open();
        chest.insert("small", vec![3_u8; 10]).unwrap();
        chest.flush().unwrap();
        assert_eq!(sessions(), 1);
        drop(chest);
        // Who makes a chest changes it.
        let made = crate::Chest::open(dir.path().join("locks/new")).unwrap();
        assert_eq!(lock_files(&made.path().join("locks")).unwrap().len(), 1);
    }

    #[test]
    fn no_catalog_is_made_again_under_who_only_reads() {
        let dir = tempfile::tempdir().unwrap();
        crate::Chest::open(dir.path()).unwrap().insert("large", large()).unwrap();
        let reader = crate::Chest::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join("catalog.sqlite")).unwrap();
        let repair = || crate::Chest::check(dir.path()).repair(true).run();
        let error = repair().unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Busy, "{error}");
        drop(reader);
        assert_eq!(repair().unwrap().rebuilt, Some(1));
        assert_eq!(*crate::Chest::open(dir.path()).unwrap().get::<Vec<u8>>("large").unwrap(), large());
    }
}
