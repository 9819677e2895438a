//! Arguments that are files and folders, known by their content.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::chest::Chest;
use crate::error::{Error, Result};
use crate::key::{Digest, FolderOptions};

/// A file or a folder that was read for an argument.
pub(super) struct Input {
    pub(super) path: PathBuf,
    pub(super) options: FolderOptions,
    pub(super) digest: Digest,
}

/// What happens while an argument is read.
#[derive(Default)]
struct Reading {
    /// Remembers digests.
    chest: Option<Chest>,
    inputs: Vec<Input>,
    error: Option<Error>,
}

thread_local! {
    static READING: RefCell<Reading> = RefCell::default();
}

/// Runs `read`, in which digests of files come from what `chest` remembers. Gives the files, or the error that kept one from
/// being read in place of the serialiser's, which has only its text.
pub(super) fn reading<T>(chest: &Chest, read: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Input>)> {
    /// Also after a panic.
    struct Before(Reading);
    impl Drop for Before {
        fn drop(&mut self) {
            READING.replace(std::mem::take(&mut self.0));
        }
    }
    let now = Reading { chest: Some(chest.clone()), ..Reading::default() };
    let _before = Before(READING.replace(now));
    let done = read();
    let Reading { inputs, error, .. } = READING.take();
    done.map(|value| (value, inputs)).map_err(|generic| error.unwrap_or(generic))
}

/// The digest of a file or a folder; from what the chest remembers where an argument is read.
fn digest_of(path: &Path) -> Result<Digest> {
    let Some(chest) = READING.with_borrow(|reading| reading.chest.clone()) else { return Digest::of_path(path) };
    let options = FolderOptions::new();
    let digest = chest.store()?.digests.of_path(path, &options)?;
    READING.with_borrow_mut(|reading| reading.inputs.push(Input { path: path.to_owned(), options, digest }));
    Ok(digest)
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
            READING.with_borrow_mut(|reading| reading.error = Some(error));
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
