//! Why the command ends without having done its work.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use icechest::{ErrorKind, Key};

pub(crate) type Result<T> = std::result::Result<T, Failure>;

pub(crate) enum Failure {
    /// What the library says.
    Chest(icechest::Error),
    /// Keys without a value.
    NoSuchKeys(Vec<Key>),
    /// The command cannot be meant like this.
    Usage(String),
    /// Damaged input, or reading or writing a file failed.
    Broken(String),
    /// Standard output cannot be written to.
    Output(io::Error),
    /// Damage that the output tells.
    Told,
    /// The command that was run has ended with this code, and has said why.
    Command(u8),
}

/// Follows errors about damage.
const CHECK_HINT: &str = "icechest check tells whether more is damaged";

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn broken(message: impl Into<String>) -> Self {
        Self::Broken(message.into())
    }

    /// For `map_err`: something failed at a file.
    pub(crate) fn at<E: fmt::Display>(doing: &str, path: &Path) -> impl FnOnce(E) -> Self {
        let place = format!("cannot {doing} {}", path.display());
        move |error| Self::Broken(format!("{place}: {error}"))
    }

    /// Whether there is nothing left to say.
    pub(crate) fn is_silent(&self) -> bool {
        self.is_closed_pipe() || matches!(self, Self::Told | Self::Command(_))
    }

    /// Whoever read the output has seen enough, which is no failure.
    fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Output(_) if self.is_closed_pipe() => ExitCode::SUCCESS,
            Self::NoSuchKeys(_) => 1.into(),
            Self::Usage(_) => 2.into(),
            Self::Command(code) => (*code).into(),
            Self::Chest(error) => match error.kind() {
                ErrorKind::NotFound => 1.into(),
                ErrorKind::Invalid => 2.into(),
                _ => 3.into(),
            },
            Self::Broken(_) | Self::Output(_) | Self::Told => 3.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chest(error) => write_chest_error(error, f),
            Self::NoSuchKeys(keys) => {
                let keys: Vec<_> = keys.iter().map(Key::to_string).collect();
                write!(f, "no value has this key: {}", keys.join(", "))
            }
            Self::Usage(message) | Self::Broken(message) => f.write_str(message),
            Self::Output(error) => write!(f, "cannot write to the output: {error}"),
            Self::Told => f.write_str("there is damage"),
            Self::Command(code) => write!(f, "the command has failed with code {code}"),
        }
    }
}

fn write_chest_error(error: &icechest::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let message = error.to_string();
    f.write_str(&message)?;
    // Some errors of the library know a better way out.
    let has_hint = message.contains("icechest check");
    if is_damage(error) && !has_hint { write!(f, "; {CHECK_HINT}") } else { Ok(()) }
}

fn is_damage(error: &icechest::Error) -> bool {
    let is_missing = || error.key().and(error.path()).is_some_and(|file| !file.exists());
    error.kind() == ErrorKind::Damaged || (error.kind() == ErrorKind::Io && is_missing())
}

impl From<icechest::Error> for Failure {
    fn from(error: icechest::Error) -> Self {
        Self::Chest(error)
    }
}

/// Only what is written to standard output may use this; files have [`Failure::at`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
