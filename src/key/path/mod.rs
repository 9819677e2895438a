//! Digests of what paths lead to.

mod file;
mod folder;
mod matching;
mod options;
mod stamp;
#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests;

use std::path::Path;

pub(crate) use self::file::{look, read};
pub(crate) use self::folder::of_folder;
pub use self::matching::paths_matching;
pub use self::options::FolderOptions;
pub(crate) use self::stamp::{Stamp, nanoseconds};
use super::Digest;
use crate::error::Result;

impl Digest {
    /// The digest of a file's bytes, or of everything below a folder.
    ///
    /// Of a folder count the names, the layout and the content of all that it holds, hidden files and empty folders
    /// included; its own name and place, times and permissions do not. A symbolic link counts as what it leads to, so a
    /// dataset of links is known by its data; one that leads nowhere counts by the text of its target. Files are read
    /// by as many threads as there are processors. Nothing is remembered: every call reads everything.
    ///
    /// # Errors
    /// [`Busy`](crate::ErrorKind::Busy) names the file or folder that somebody changed in the meantime: what was read may
    /// never have been there as a whole. That is told by the size, the inode and the times, so a change that leaves them
    /// as they are is not noticed: by a mapping of the file that was made before, or within the moment that the file
    /// system's clock takes to tick, some milliseconds.
    /// [`Io`](crate::ErrorKind::Io) names the file or folder that is missing or cannot be read.
    /// [`Invalid`](crate::ErrorKind::Invalid) when links form a circle, and
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for sockets, pipes and devices.
    pub fn of_path(path: impl AsRef<Path>) -> Result<Self> {
        Self::of_path_with(path, &FolderOptions::default())
    }

    /// As [`of_path`](Self::of_path), of what counts. Of a file, all does.
    ///
    /// # Errors
    /// As [`of_path`](Self::of_path).
    pub fn of_path_with(path: impl AsRef<Path>, options: &FolderOptions) -> Result<Self> {
        let path = path.as_ref();
        match look(path)? {
            (meta, _) if meta.is_dir() => of_folder(path, options, &read),
            (_, stamp) => read(path, &stamp),
        }
    }
}
