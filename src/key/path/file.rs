//! The digest of a file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use twox_hash::XxHash3_128;

use super::Stamp;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Digest;

/// What is read at a time: enough that the calls do not count, and little enough for the processor's cache.
const READ_SIZE: usize = 256 << 10;

/// Reads a file that is still as its stamp says.
///
/// # Errors
/// `Busy` if it is not, or not any more when it was read.
pub(crate) fn read(path: &Path, stamp: &Stamp) -> Result<Digest> {
    let fail = |error| cannot_read(path, error);
    let mut file = File::open(path).map_err(fail)?;
    check(path, stamp, &file.metadata().map_err(fail)?)?;
    let digest = hash(&mut file, stamp.size).map_err(fail)?;
    check(path, stamp, &file.metadata().map_err(fail)?)?;
    Ok(digest)
}

fn hash(file: &mut File, size: u64) -> io::Result<Digest> {
    let mut hasher = XxHash3_128::new();
    // One more byte than a small file has tells that it has ended.
    let mut buffer = vec![0; READ_SIZE.min(usize::try_from(size).unwrap_or(READ_SIZE).saturating_add(1))];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest(hasher.finish_128().to_be_bytes())),
            Ok(n) => hasher.write(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a path leads to, if that can have a digest.
pub(crate) fn look(path: &Path) -> Result<(fs::Metadata, Stamp)> {
    fs::metadata(path).map_err(|error| cannot_read(path, error)).and_then(|meta| checked(path, meta))
}

pub(super) fn checked(path: &Path, meta: fs::Metadata) -> Result<(fs::Metadata, Stamp)> {
    if !meta.is_file() && !meta.is_dir() {
        // Reading a pipe would wait for ever.
        return Err(Error::unsupported("only files and folders have a digest").with_path(path));
    }
    let stamp = Stamp::new(&meta);
    Ok((meta, stamp))
}

/// Refuses what is not as it was.
pub(super) fn check(path: &Path, stamp: &Stamp, now: &fs::Metadata) -> Result<()> {
    if Stamp::new(now) == *stamp {
        return Ok(());
    }
    Err(changed(path))
}

pub(super) fn changed(path: &Path) -> Error {
    let message = "the content changed while it was read for a digest; wait until nobody writes to it, and call again";
    Error::new(ErrorKind::Busy, message).with_path(path)
}

pub(super) fn cannot_read(path: &Path, error: io::Error) -> Error {
    Error::io("cannot read the content for a digest", error).with_path(path)
}
