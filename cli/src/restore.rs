//! Stored files and folders, written back beside what else there is.

use std::fs;
use std::path::Path;

use icechest::{Chest, Key};

use crate::failure::{Failure, Result};

/// Writes stored files to `target`. The files of a folder join those that the folder has already, in place of those of the
/// same names; nothing else is removed. Those in `kept`, by their paths from there, come where there is nothing alone.
pub(crate) fn restore(chest: &Chest, key: Key, target: &Path, kept: &[String]) -> Result<()> {
    // What a link leads to: the link stays.
    let target = &fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
    if fs::symlink_metadata(target).is_err() {
        return Ok(chest.restore(key, target)?);
    }
    // In the same file system as its files.
    let near = if target.is_dir() { Some(&**target) } else { target.parent() };
    let near = near.filter(|near| !near.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let new = tempfile::Builder::new().prefix(".icechest-").tempdir_in(near).map_err(Failure::at("write", near))?;
    let new = new.path().join("new");
    chest.restore(key, &new)?;
    join(&new, target, Path::new(""), kept)
}

/// Moves a file or a folder to its place, which is `inner` from the target.
fn join(new: &Path, target: &Path, inner: &Path, kept: &[String]) -> Result<()> {
    let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let is_there = fs::symlink_metadata(target).is_ok();
    match (is_folder(new), target.is_dir()) {
        (true, true) => {}
        (true, false) if is_there => {
            return Err(Failure::usage(format!("{} is a file where a folder belongs", target.display())));
        }
        (false, _) if is_folder(target) => {
            return Err(Failure::usage(format!("{} is a folder where a file belongs", target.display())));
        }
        _ if is_there && kept.iter().any(|kept| Path::new(kept) == inner) => return Ok(()),
        _ => {
            narrow(new, target).map_err(Failure::at("write", target))?;
            return fs::rename(new, target).map_err(Failure::at("write", target));
        }
    }
    for entry in fs::read_dir(new).map_err(Failure::at("read", new))? {
        let name = entry.map_err(Failure::at("read", new))?.file_name();
        join(&new.join(&name), &target.join(&name), &inner.join(&name), kept)?;
    }
    Ok(())
}

/// Lets nobody read a file who could not read the one in whose place it comes.
#[cfg(unix)]
fn narrow(new: &Path, target: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let plain = |path: &Path| fs::symlink_metadata(path).ok().filter(|meta| meta.is_file()).map(|meta| meta.mode());
    match (plain(new), plain(target)) {
        (Some(mode), Some(old)) => fs::set_permissions(new, PermissionsExt::from_mode(mode & (old | 0o700))),
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn narrow(_: &Path, _: &Path) -> std::io::Result<()> {
    Ok(())
}
