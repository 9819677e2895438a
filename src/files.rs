//! Files and folders that a chest keeps and gives back.

use std::path::Path;

use crate::chest::{Chest, not_found};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::value::{Files, restore};

impl Chest {
    /// Stores a file or a folder with all that it holds, in place of an older value with this key. It is published when this
    /// returns. A link that is given counts as what it leads to; links within a folder stay links.
    ///
    /// Costs reading and writing the files once; in memory it takes some MiB, whatever their size.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) names what cannot be read, [`Busy`](crate::ErrorKind::Busy) what changes meanwhile,
    /// [`Unsupported`](crate::ErrorKind::Unsupported) a pipe, a socket or a device, and [`Invalid`](crate::ErrorKind::Invalid)
    /// a path that [overlaps](Self::overlaps) the chest. Then the older value stays.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let (model, copy) = (dir.path().join("model"), dir.path().join("copy"));
    /// # let chest = icechest::Chest::temporary()?;
    /// std::fs::create_dir(&model)?;
    /// std::fs::write(model.join("weights.bin"), [1, 2, 3])?;
    /// chest.insert_files("model", &model)?;
    /// chest.restore("model", &copy)?;
    /// assert_eq!(std::fs::read(copy.join("weights.bin"))?, [1, 2, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn insert_files(&self, key: impl Into<Key>, path: impl AsRef<Path>) -> Result<()> {
        self.refuse_overlap(path.as_ref())?;
        let (key, files) = (key.into(), Files::at(path.as_ref())?);
        self.store()?.insert_published(&key, &files)
    }

    /// Writes stored files to `target`, in place of what is there, which stays as it was if this fails. A file goes to a file,
    /// a folder to a folder. They are copies: changing them changes nothing in the chest.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when no value has this key, [`WrongType`](crate::ErrorKind::WrongType) when it
    /// is no file or folder, [`Invalid`](crate::ErrorKind::Invalid) for a target that [overlaps](Self::overlaps) the chest, and
    /// those of reading and writing.
    pub fn restore(&self, key: impl Into<Key>, target: impl AsRef<Path>) -> Result<()> {
        let key = key.into();
        self.refuse_overlap(target.as_ref())?;
        let opened = self.store()?.open_published::<Files>(&key)?.ok_or_else(|| not_found(&key))?;
        opened.read(|input| restore(input, target.as_ref()))
    }

    /// Whether a path is the chest's directory, holds it or lies in it, links included. There need not be anything yet. Such a
    /// path cannot be stored, and nothing can be restored there: the chest would change, or be replaced.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// assert!(chest.overlaps(chest.path().join("values")) && chest.overlaps(chest.path().parent().unwrap()));
    /// assert!(!chest.overlaps(chest.path().with_file_name("other")));
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn overlaps(&self, path: impl AsRef<Path>) -> bool {
        let real = |path: &Path| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            // What is not there yet lies where the last of the folders before it is.
            let there = path.ancestors().find_map(|above| Some((above, std::fs::canonicalize(above).ok()?)));
            there.map_or(path.clone(), |(above, real)| match path.strip_prefix(above) {
                Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
                _ => real,
            })
        };
        let (ours, path) = (real(self.path()), real(path.as_ref()));
        ours.starts_with(&path) || path.starts_with(&ours)
    }

    fn refuse_overlap(&self, path: &Path) -> Result<()> {
        if !self.overlaps(path) {
            return Ok(());
        }
        let message =
            "the path is, holds or lies in the directory of the chest, which cannot keep itself; take another";
        Err(Error::invalid(message).with_path(path))
    }
}
