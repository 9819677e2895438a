//! Paths by a pattern.

use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use glob::{MatchOptions, Pattern};

use super::file::cannot_read;
use crate::error::{Error, Result};

/// The files and folders that match a pattern, in the order of their paths: the inputs of a stage, for example.
///
/// `*` and `?` stand for characters of a name, `[ab]` for one of them, `**` for any number of folders, also none. As in a
/// shell, a name that begins with a dot is matched by a pattern that does so too, and `**` follows no links. The pattern
/// `*` in a name that is no Unicode stands for anything, `?` for each character that is none. That nothing matches is no error.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) when it is no pattern, [`Io`](crate::ErrorKind::Io) when a folder that may hold
/// matches cannot be read: an input that is left out would be a wrong result.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// for name in ["b.csv", "a.csv", "a.txt"] {
///     std::fs::write(dir.join(name), "")?;
/// }
/// let paths = icechest::paths_matching(dir.join("*.csv"))?;
/// assert_eq!(paths, [dir.join("a.csv"), dir.join("b.csv")]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn paths_matching(pattern: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let mut steps = Vec::new();
    let mut start = PathBuf::new();
    for component in pattern.as_ref().components() {
        match step(component)? {
            Step::Name(name) if steps.is_empty() => start.push(name),
            step => steps.push(step),
        }
    }
    let mut found = Vec::new();
    walk(&start, &steps, &mut found)?;
    found.sort();
    found.dedup();
    Ok(found)
}

enum Step {
    Name(PathBuf),
    Names(Pattern),
    AnyFolders,
}

fn step(component: Component<'_>) -> Result<Step> {
    let text = component.as_os_str();
    match text.to_str() {
        Some("**") => Ok(Step::AnyFolders),
        Some(text) if text.contains(['*', '?', '[']) => Pattern::new(text)
            .map(Step::Names)
            .map_err(|error| Error::invalid(format!("{text:?} is no pattern of names")).with_source(error)),
        _ => Ok(Step::Name(text.into())),
    }
}

fn walk(path: &Path, steps: &[Step], found: &mut Vec<PathBuf>) -> Result<()> {
    match steps {
        [] => {
            // A link that leads nowhere is there all the same.
            match fs::symlink_metadata(path) {
                Ok(_) => found.push(path.to_owned()),
                Err(error) if is_nothing(&error) => {}
                Err(error) => return Err(cannot_read(path, error)),
            }
            Ok(())
        }
        [Step::Name(name), rest @ ..] => walk(&path.join(name), rest, found),
        [Step::Names(pattern), rest @ ..] => {
            let names = names(path)?;
            let mut matching = names.into_iter().filter(|(name, _)| matches(pattern, name));
            matching.try_for_each(|(name, _)| walk(&path.join(name), rest, found))
        }
        [Step::AnyFolders, rest @ ..] => {
            if !rest.is_empty() {
                walk(path, rest, found)?;
            }
            for (name, is_folder) in names(path)? {
                if name.to_string_lossy().starts_with('.') {
                    continue;
                }
                let below = path.join(name);
                if rest.is_empty() {
                    found.push(below.clone());
                }
                if is_folder {
                    walk(&below, steps, found)?;
                }
            }
            Ok(())
        }
    }
}

/// Whether the error says that there is nothing, and not that it cannot be seen.
fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn matches(pattern: &Pattern, name: &Path) -> bool {
    let options =
        MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    pattern.matches_with(&name.to_string_lossy(), options)
}

/// What a folder holds, and whether it is a folder itself. Nothing, if it is no folder.
fn names(folder: &Path) -> Result<Vec<(PathBuf, bool)>> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let fail = |error| cannot_read(folder, error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_nothing(&error) => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let name = |entry: fs::DirEntry| Ok((entry.file_name().into(), entry.file_type()?.is_dir()));
    entries.map(|entry| entry.and_then(name).map_err(fail)).collect()
}
