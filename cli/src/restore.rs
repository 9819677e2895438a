//! Stored files and folders, written back beside what else there is.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use icechest::{Chest, Key};
use tempfile::TempDir;

use crate::failure::{Failure, Result};

/// Writes stored files to `target`. The files of a folder join those that the folder has already, in place of those of the
/// same names; nothing else is removed.
pub(crate) fn restore(chest: &Chest, key: Key, target: &Path) -> Result<()> {
    Unpacked::new(chest, key, target)?.join()
}

/// Stored files, unpacked beside their place.
pub(crate) struct Unpacked {
    new: PathBuf,
    target: PathBuf,
    /// Removed in the end.
    _folder: TempDir,
}

impl Unpacked {
    pub(crate) fn new(chest: &Chest, key: Key, target: &Path) -> Result<Self> {
        // What a link leads to: the link stays.
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_owned());
        let folder = scratch(&target).map_err(Failure::at("write", &target))?;
        let new = folder.path().join("new");
        chest.restore(key, &new)?;
        Ok(Self { new, target, _folder: folder })
    }

    /// Whether those of the files that are named here, by their paths from the target, are there as they were stored, or are
    /// not there.
    pub(crate) fn agrees(&self, kept: &[String]) -> bool {
        for inner in kept {
            let place = |base: &Path| if inner.is_empty() { base.to_owned() } else { base.join(inner) };
            let (new, there) = (place(&self.new), place(&self.target));
            let is_missing =
                matches!(fs::symlink_metadata(&there), Err(error) if error.kind() == io::ErrorKind::NotFound);
            // What cannot be read is another one.
            if !is_missing && !is_same(&new, &there).unwrap_or(false) {
                return false;
            }
        }
        true
    }

    /// Moves the files to their places.
    pub(crate) fn join(&self) -> Result<()> {
        if let Some(folder) = self.target.parent() {
            fs::create_dir_all(folder).map_err(Failure::at("write", folder))?;
        }
        join(&self.new, &self.target)
    }
}

/// A folder in the file system of a target, beside it if that is possible: what is left there after a kill is nobody's output.
fn scratch(target: &Path) -> io::Result<TempDir> {
    let there = target.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new(""));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    let make = |folder: &Path| tempfile::Builder::new().prefix(".icechest-").tempdir_in(folder);
    match there.parent().filter(|above| there == target && is_one_disk(above, there)) {
        Some(above) => make(above).or_else(|_| make(there)),
        None => make(there),
    }
}

#[cfg(unix)]
fn is_one_disk(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).ok().map(|meta| meta.dev());
    device(one).is_some() && device(one) == device(other)
}

#[cfg(not(unix))]
fn is_one_disk(_: &Path, _: &Path) -> bool {
    false
}

/// Whether two files have the same content, or two links the same target.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (meta, other_meta) = (fs::symlink_metadata(one)?, fs::symlink_metadata(other)?);
    if meta.file_type() != other_meta.file_type() {
        return Ok(false);
    }
    if meta.is_symlink() {
        return Ok(fs::read_link(one)? == fs::read_link(other)?);
    }
    if meta.len() != other_meta.len() {
        return Ok(false);
    }
    let [mut one, mut other] = [BufReader::new(File::open(one)?), BufReader::new(File::open(other)?)];
    loop {
        let (bytes, others) = (one.fill_buf()?, other.fill_buf()?);
        let len = bytes.len().min(others.len());
        if bytes[..len] != others[..len] || (len == 0 && bytes.len() != others.len()) {
            return Ok(false);
        }
        if len == 0 {
            return Ok(true);
        }
        one.consume(len);
        other.consume(len);
    }
}

/// Moves a file or a folder to its place.
fn join(new: &Path, target: &Path) -> Result<()> {
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
        // Who has it open goes on writing to it, and it is no newer than it was.
        _ if is_there && is_same(new, target).unwrap_or(false) => return Ok(()),
        _ => {
            narrow(new, target).map_err(Failure::at("write", target))?;
            return fs::rename(new, target).map_err(Failure::at("write", target));
        }
    }
    for entry in fs::read_dir(new).map_err(Failure::at("read", new))? {
        let name = entry.map_err(Failure::at("read", new))?.file_name();
        join(&new.join(&name), &target.join(&name))?;
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
