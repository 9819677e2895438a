//! What a check of a directory tells: how far it is, what it found, what it did.

use std::fmt;
use std::path::Path;

use crate::key::Key;

/// How far a [`Check`](crate::Check) is.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Values that were verified.
    pub values: u64,
    /// All values.
    pub of_values: u64,
    /// Bytes of them on disk.
    pub bytes: u64,
    /// Bytes of all.
    pub of_bytes: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} values, {} of {} bytes", self.values, self.of_values, self.bytes, self.of_bytes)
    }
}

/// Something that is not as it was published.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Damage {
    /// The key of the value, if that can be told.
    pub key: Option<Key>,
    /// The file, below the chest's directory.
    pub file: String,
    /// What is wrong with it.
    pub problem: String,
    /// Where a repair moved it, below the chest's directory.
    pub quarantined: Option<String>,
    /// Whether the value is there all the same.
    pub is_saved: bool,
}

/// What a [`Check`](crate::Check) found and did.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Values in the chest, the damaged ones included; if the catalog is lost, those that can be saved.
    pub values: u64,
    /// Bytes of them on disk.
    pub bytes: u64,
    /// What is damaged.
    pub damaged: Vec<Damage>,
    /// Files that no row of the catalog names, left by processes that died. They do no harm; a repair removes them.
    pub orphans: Vec<String>,
    /// Bytes that these take.
    pub orphan_bytes: u64,
    /// Files in the chest's folders that are not the chest's. They are left alone.
    pub foreign: Vec<String>,
    /// Sound files that a new catalog does not name, because another file of their key is newer. They are moved to
    /// `quarantine/`.
    pub set_aside: Vec<String>,
    /// Whether this was a repair.
    pub is_repaired: bool,
    /// How many values a new catalog has, if a repair had to make one.
    pub rebuilt: Option<u64>,
}

impl Report {
    /// Whether nothing is damaged.
    pub fn is_healthy(&self) -> bool {
        self.damaged.is_empty()
    }

    pub(super) fn add(&mut self, key: Option<Key>, file: &str, problem: impl fmt::Display) -> &mut Damage {
        let damage =
            Damage { key, file: file.to_owned(), problem: problem.to_string(), quarantined: None, is_saved: false };
        self.damaged.push(damage);
        let last = self.damaged.len() - 1;
        &mut self.damaged[last]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for damage in &self.damaged {
            let key = damage.key.as_ref().map(|key| format!("{key} in ")).unwrap_or_default();
            write!(f, "damaged: {key}{}: {}", damage.file, damage.problem)?;
            match (&damage.quarantined, damage.is_saved) {
                (Some(place), false) => writeln!(f, "; now {place}")?,
                (Some(place), true) => writeln!(f, "; the value is saved, the old file is now {place}")?,
                (None, true) => writeln!(f, "; saved")?,
                (None, false) => writeln!(f)?,
            }
        }
        for foreign in &self.foreign {
            writeln!(f, "foreign: {foreign} is not of this chest")?;
        }
        for file in &self.set_aside {
            writeln!(f, "set aside: {file}, of a value that was replaced or removed, is now in quarantine/")?;
        }
        if let Some(values) = self.rebuilt {
            writeln!(f, "rebuilt: the catalog has {values} values; the old one is in quarantine")?;
        }
        if !self.orphans.is_empty() {
            let done = if self.is_repaired { "removed" } else { "a repair removes them" };
            writeln!(
                f,
                "orphans: {} files of {} bytes that no value needs; {done}",
                self.orphans.len(),
                self.orphan_bytes
            )?;
        }
        let (values, bytes, damaged) = (self.values, self.bytes, self.damaged.len());
        match damaged {
            0 => write!(f, "healthy: {values} values, {bytes} bytes, every checksum verified"),
            _ => write!(f, "DAMAGED: {damaged} of {values} values or files, the others are sound"),
        }
    }
}

/// A path as it is told: below the directory of the chest.
pub(super) fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}
