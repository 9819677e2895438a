//! Directories of temporary chests: removed on drop, and by the next one if their process died.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::session::Session;
use super::{Os, Storage};
use crate::error::{Error, Result};

const PREFIX: &str = "icechest-tmp-";
pub(super) const LOCK: &str = "lock";

/// A directory without a lock file this old was left by a process that died at its birth.
const STILLBORN: Duration = Duration::from_secs(3600);

/// A directory that a live process holds by a lock on its file `lock`.
pub(crate) struct TemporaryDir {
    path: PathBuf,
    process: u32,
    _lock: File,
}

impl TemporaryDir {
    /// Makes a directory in `parent`, by default where large temporary files belong, and removes those of dead
    /// processes.
    pub(crate) fn create(parent: Option<&Path>) -> Result<Self> {
        let parent = parent.map_or_else(default_parent, Path::to_owned);
        let fail = |error| Error::io("cannot make a temporary directory", error).with_path(&parent);
        fs::create_dir_all(&parent).map_err(fail)?;
        sweep(&parent);
        // Another process's sweep may come between making a directory and locking it; then a new one is made.
        for _ in 0..100 {
            let path = parent.join(format!("{PREFIX}{}", Session::alone().name()));
            Os { private: true }.create_dir(&path).map_err(fail)?;
            let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path.join(LOCK));
            match lock {
                Ok(lock) if lock.try_lock().is_ok() && path.join(LOCK).exists() => {
                    return Ok(Self { path, process: std::process::id(), _lock: lock });
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(fail(error)),
            }
        }
        Err(Error::new(crate::ErrorKind::Busy, "temporary directories vanish as they are made").with_path(&parent))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // It is the parent's.
            return;
        }
        // What cannot be removed now is removed by the next temporary chest.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// `TMPDIR` where the user set it; else `/var/tmp`, because `/tmp` is often held in memory.
fn default_parent() -> PathBuf {
    let var = Path::new("/var/tmp");
    if std::env::var_os("TMPDIR").is_none() && var.is_dir() { var.to_owned() } else { std::env::temp_dir() }
}

/// Removes the directories of dead processes: their lock is free.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) && is_dead(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_dead(dir: &Path) -> bool {
    match OpenOptions::new().write(true).open(dir.join(LOCK)) {
        Ok(lock) => !matches!(lock.try_lock(), Err(TryLockError::WouldBlock | TryLockError::Error(_))),
        Err(_) => {
            let age = fs::metadata(dir).and_then(|meta| meta.modified()).map(|at| at.elapsed().unwrap_or_default());
            age.is_ok_and(|age| age > STILLBORN)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_away_with_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let dir = TemporaryDir::create(Some(parent.path())).unwrap();
        fs::write(dir.path().join("x"), "x").unwrap();
        let other = TemporaryDir::create(Some(parent.path())).unwrap();
        assert!(dir.path().exists(), "the directory of a live owner stays");
        drop((dir, other));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn those_of_dead_processes_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join(format!("{PREFIX}dead"));
        let young = parent.path().join(format!("{PREFIX}young"));
        let foreign = parent.path().join("foreign");
        for dir in [&dead, &young, &foreign] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(dead.join(LOCK), "").unwrap();
        fs::write(dead.join("value"), "x").unwrap();
        let _dir = TemporaryDir::create(Some(parent.path())).unwrap();
        assert!(!dead.exists());
        assert!(young.exists(), "somebody may be about to lock it");
        assert!(foreign.exists());
    }
}
