//! The one error type: what happened, to which key and file, and what the user can do.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::key::Key;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an [`Error`] asks of its reader.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No value has this key. Insert one, or use [`Chest::find`](crate::Chest::find) where absence is normal.
    NotFound,
    /// The value is of another type. The message names both; ask for the stored one.
    WrongType,
    /// Stored bytes are not those that were published. Other keys are unaffected.
    Damaged,
    /// The disk or a limit is full. Values stay in memory; make room and call again.
    Full,
    /// Somebody else holds what the call needs. Try again.
    Busy,
    /// This value, directory or build cannot do what was asked. The message says what can.
    Unsupported,
    /// An argument makes no sense. Correct it.
    Invalid,
    /// The operating system said no. The source says why.
    Io,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::WrongType => "wrong type",
            Self::Damaged => "damaged",
            Self::Full => "full",
            Self::Busy => "busy",
            Self::Unsupported => "unsupported",
            Self::Invalid => "invalid",
            Self::Io => "I/O error",
        })
    }
}

/// What went wrong, with the key and the file concerned.
///
/// ```
/// use icechest::{Chest, ErrorKind};
/// let chest = Chest::temporary()?;
/// let error = chest.get::<String>("nobody").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert!(error.to_string().contains("\"nobody\""));
/// # Ok::<(), icechest::Error>(())
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    key: Option<Key>,
    path: Option<PathBuf>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    value: Option<Arc<dyn Any + Send + Sync>>,
}

impl Error {
    /// An error of this kind. Formats of your own report bad input with it; the chest adds the key and the file.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), key: None, path: None, source: None, value: None }))
    }

    /// Adds the error that caused this one.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn damaged(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// An I/O error with what was being done. A full disk is told apart, and so are bytes that failed their check.
    pub(crate) fn io(message: impl Into<String>, source: io::Error) -> Self {
        if source.get_ref().is_some_and(|inner| inner.is::<Self>()) {
            // The error was ours before it had to pass through `std::io`.
            if let Some(Ok(ours)) = source.into_inner().map(|inner| inner.downcast::<Self>()) {
                return *ours;
            }
            return Self::new(ErrorKind::Io, message);
        }
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => ErrorKind::Full,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ErrorKind::Damaged,
            io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Io,
        };
        Self::new(kind, message).with_source(source)
    }

    /// The same, with what it is about before it.
    pub(crate) fn about(mut self, what: &str) -> Self {
        self.0.message = format!("{what}: {}", self.0.message);
        self
    }

    pub(crate) fn with_key(mut self, key: &Key) -> Self {
        self.0.key.get_or_insert_with(|| key.clone());
        self
    }

    pub(crate) fn with_path(mut self, path: &Path) -> Self {
        self.0.path.get_or_insert_with(|| path.to_owned());
        self
    }

    pub(crate) fn with_value(mut self, value: Arc<dyn Any + Send + Sync>) -> Self {
        self.0.value = Some(value);
        self
    }

    /// The same, for whoever asks again; of the cause its text.
    pub(crate) fn again(&self) -> Self {
        let Inner { kind, key, path, .. } = &*self.0;
        let mut error = Self::new(*kind, self.plain());
        (error.0.key, error.0.path) = (key.clone(), path.clone());
        error
    }

    /// Whether the cause is a file that does not exist.
    pub(crate) fn is_missing_file(&self) -> bool {
        let io = self.0.source.as_ref().and_then(|source| source.downcast_ref::<io::Error>());
        io.is_some_and(|io| io.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the file is to blame, and not the rights or the limits of this process.
    pub(crate) fn is_of_the_file(&self) -> bool {
        // What a medium that cannot be read says; on Windows a bad checksum or a device that fails.
        const UNREADABLE: &[i32] = if cfg!(windows) { &[23, 1117] } else { &[5] };
        let io = self.0.source.as_ref().and_then(|source| source.downcast_ref::<io::Error>());
        self.kind() == ErrorKind::Damaged
            || self.is_missing_file()
            || io.and_then(io::Error::raw_os_error).is_some_and(|code| UNREADABLE.contains(&code))
    }

    /// What happened, without key and path.
    pub(crate) fn plain(&self) -> String {
        match &self.0.source {
            Some(source) => format!("{}: {source}", self.0.message),
            None => self.0.message.clone(),
        }
    }

    /// What caused this, without key and path; if nothing did, what happened.
    pub(crate) fn cause(&self) -> String {
        self.0.source.as_ref().map_or_else(|| self.0.message.clone(), ToString::to_string)
    }

    /// What this error asks of its reader.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The key of the value concerned, where there is one.
    pub fn key(&self) -> Option<&Key> {
        self.0.key.as_ref()
    }

    /// The file or directory concerned, where there is one.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Gives back the value that [`insert`](crate::Chest::insert) refused, so that nothing is lost.
    pub fn into_value<V: Any + Send + Sync>(self) -> Option<Arc<V>> {
        self.0.value?.downcast().ok()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.message)?;
        match (&self.0.key, &self.0.path) {
            (Some(key), Some(path)) => write!(f, " (key {key}, file {})", path.display())?,
            (Some(key), None) => write!(f, " (key {key})")?,
            (None, Some(path)) => write!(f, " (file {})", path.display())?,
            (None, None) => {}
        }
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl StdError for Error {
    /// The cause of the cause: the message already tells the cause itself.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().and_then(|source| source.source())
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::io("reading or writing failed", error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_key_file_and_cause() {
        let cause = io::Error::from(io::ErrorKind::StorageFull);
        let error =
            Error::io("cannot write the value", cause).with_key(&Key::from("k")).with_path(Path::new("values/k"));
        assert_eq!(error.kind(), ErrorKind::Full);
        let text = error.to_string();
        assert!(text.starts_with("cannot write the value (key \"k\", file values/k): "), "{text}");
    }

    #[test]
    fn survives_a_passage_through_io() {
        let error = Error::damaged("block 3").with_key(&Key::from(7));
        let back = Error::io("outer", io::Error::from(error));
        assert_eq!((back.kind(), back.to_string().as_str()), (ErrorKind::Damaged, "block 3 (key 7)"));
    }
}
