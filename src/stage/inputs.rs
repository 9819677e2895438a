//! Arguments that are files and folders, known by their content.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::chest::Chest;
use crate::error::{Error, Result};
use crate::key::{Digest, FolderOptions};

thread_local! {
    /// The chest that remembers digests, and the error of the argument that is read.
    static READING: RefCell<(Option<Chest>, Option<Error>)> = const { RefCell::new((None, None)) };
}

/// Runs `read`, in which digests of files come from what `chest` remembers. Gives the error that kept a file from being
/// read, in place of the serialiser's, which has only its text.
pub(super) fn reading<T>(chest: &Chest, read: impl FnOnce() -> Result<T>) -> Result<T> {
    struct Before(Option<Chest>);
    impl Drop for Before {
        fn drop(&mut self) {
            READING.with_borrow_mut(|reading| reading.0 = self.0.take());
        }
    }
    let before = READING.with_borrow_mut(|reading| {
        reading.1 = None;
        Before(reading.0.replace(chest.clone()))
    });
    let done = read();
    drop(before);
    done.map_err(|error| READING.with_borrow_mut(|reading| reading.1.take()).unwrap_or(error))
}

/// The digest of a file or a folder; from what the chest remembers where an argument is read.
fn digest_of(path: &Path) -> Result<Digest> {
    match READING.with_borrow(|reading| reading.0.clone()) {
        Some(chest) => chest.store()?.digests.of_path(path, &FolderOptions::new()),
        None => Digest::of_path(path),
    }
}

fn serialize<S: Serializer>(
    path: &Path,
    is_right: impl FnOnce(&Path) -> Result<()>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match is_right(path).and_then(|()| digest_of(path)) {
        Ok(digest) => digest.serialize(serializer),
        Err(error) => {
            let text = error.to_string();
            READING.with_borrow_mut(|reading| reading.1 = Some(error));
            Err(serde::ser::Error::custom(text))
        }
    }
}

macro_rules! contents {
    ($($(#[$doc:meta])* $name:ident, $is_right:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name(pub PathBuf);

        impl $name {
            /// The content of what is at this path when it is asked for.
            pub fn new(path: impl Into<PathBuf>) -> Self {
                Self(path.into())
            }
        }

        impl std::ops::Deref for $name {
            type Target = Path;
            fn deref(&self) -> &Path {
                &self.0
            }
        }

        impl AsRef<Path> for $name {
            fn as_ref(&self) -> &Path {
                &self.0
            }
        }

        impl<P: Into<PathBuf>> From<P> for $name {
            fn from(path: P) -> Self {
                Self(path.into())
            }
        }

        /// As the [`Digest`] of the content. In the arguments of a stage it is not read again where it is known.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize(&self.0, $is_right, serializer)
            }
        }
    )*};
}

contents! {
    /// A file that stands for its content, as an argument of a stage or within one: the same content in another place is the
    /// same argument, changed content another.
    ///
    /// ```
    /// use icechest::{FileContent, Key};
    /// # let dir = tempfile::tempdir()?;
    /// let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    /// std::fs::write(&one, "data")?;
    /// std::fs::write(&other, "data")?;
    /// assert_eq!(Key::of(&FileContent::new(&one))?, Key::of(&FileContent::new(&other))?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    FileContent, |path| if path.is_dir() { wrong(path, "a folder, not a file") } else { Ok(()) };
    /// A folder that stands for all that it holds; see [`Digest::of_path`].
    FolderContent, |path| if path.is_file() { wrong(path, "a file, not a folder") } else { Ok(()) };
    /// A file or a folder that stands for its content.
    PathContent, |_| Ok(());
}

fn wrong(path: &Path, what: &str) -> Result<()> {
    Err(Error::invalid(format!("the argument is {what}")).with_path(path))
}
