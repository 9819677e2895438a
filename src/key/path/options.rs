//! What of a folder counts.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::error::{Error, Result};

/// What of a folder counts for its digest. By default all names and all content, and no permissions.
///
/// ```
/// use icechest::{Digest, FolderOptions};
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// std::fs::write(dir.join("data.csv"), "1,2")?;
/// let options = FolderOptions::new().exclude("*.tmp")?.exclude("/cache/")?;
/// let before = Digest::of_path_with(dir, &options)?;
///
/// std::fs::write(dir.join("data.tmp"), "1,")?;
/// std::fs::create_dir(dir.join("cache"))?;
/// assert_eq!(Digest::of_path_with(dir, &options)?, before);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderOptions {
    excluded: Vec<Exclude>,
    pub(super) permissions: bool,
    /// The real path of a folder that does not count.
    without: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Exclude {
    pattern: Pattern,
    /// Whether it takes back what others exclude.
    is_exception: bool,
    is_of_folders: bool,
}

impl FolderOptions {
    /// Everything counts but permissions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves out what a pattern names, as `.gitignore` does: `*` and `?` stand for characters but `/`, `[ab]` for one of
    /// them, `**` for any folders. A pattern with a `/` at its beginning or in it is about the path from the folder
    /// itself, another one about names anywhere below. One that ends with `/` is about folders. One that begins with `!`
    /// takes back what those before it exclude, but not what is in an excluded folder, which is not looked into. A blank one
    /// names nothing. Files named `.gitignore` are not read.
    ///
    /// What is excluded need not be readable. In a name that is no Unicode, `?` stands for each character that is none.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when it is no pattern.
    pub fn exclude(mut self, pattern: &str) -> Result<Self> {
        let (text, is_exception) = pattern.strip_prefix('!').map_or((pattern, false), |rest| (rest, true));
        let (text, is_of_folders) = text.strip_suffix('/').map_or((text, false), |rest| (rest, true));
        if text.trim_matches('/').trim().is_empty() {
            return Ok(self);
        }
        let text = match text.strip_prefix('/') {
            Some(rest) => rest.to_owned(),
            None if text.contains('/') => text.to_owned(),
            None => format!("**/{text}"),
        };
        let parsed = Pattern::new(&text)
            .map_err(|error| Error::invalid(format!("{pattern:?} is no pattern of names")).with_source(error))?;
        self.excluded.push(Exclude { pattern: parsed, is_exception, is_of_folders });
        Ok(self)
    }

    /// Whether permissions count: on Unix those of owner, group and others and the three bits beside them, elsewhere
    /// whether a file is read-only. Those of the folder itself never do.
    #[must_use]
    pub fn permissions(mut self, count: bool) -> Self {
        self.permissions = count;
        self
    }

    /// Leaves out a folder with this real path.
    pub(crate) fn without(mut self, folder: &Path) -> Self {
        self.without = Some(folder.to_owned());
        self
    }

    /// Whether a folder is the one that is left out by its path.
    pub(super) fn is_without(&self, folder: &Path) -> bool {
        self.without.as_ref().is_some_and(|without| std::fs::canonicalize(folder).is_ok_and(|real| real == *without))
    }

    /// Whether a path below the folder is left out.
    pub(super) fn excludes(&self, below: &str, is_folder: bool) -> bool {
        let options =
            MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };
        let is_meant =
            |exclude: &&Exclude| (is_folder || !exclude.is_of_folders) && exclude.pattern.matches_with(below, options);
        self.excluded.iter().rev().find(is_meant).is_some_and(|exclude| !exclude.is_exception)
    }
}
