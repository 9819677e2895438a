//! What there is where a command leaves its files: which of it the command made, and which was there before.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What was changed so shortly before may change again without another time: it is waited for.
const YOUNG: Duration = Duration::from_millis(100);

/// The files that there were before the command ran.
pub(crate) struct Before(HashMap<PathBuf, Stamp>);

/// What tells a file from what it was.
#[derive(PartialEq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    system: [u64; 4],
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        #[cfg(unix)]
        let system = {
            use std::os::unix::fs::MetadataExt;
            [meta.dev(), meta.ino(), meta.ctime().cast_unsigned(), meta.ctime_nsec().cast_unsigned()]
        };
        #[cfg(not(unix))]
        let system = [0; 4];
        Self { len: meta.len(), modified: meta.modified().ok(), system }
    }

    fn is_young(&self) -> bool {
        self.modified.is_none_or(|modified| modified.elapsed().is_ok_and(|age| age < YOUNG))
    }
}

impl Before {
    /// Looks at all that there is below some paths. What cannot be looked at counts as made by the command.
    pub(crate) fn look(outputs: &[String]) -> Self {
        let look = || {
            let mut files = HashMap::new();
            for output in outputs {
                let _ = each_file(Path::new(output), &mut |path, meta| {
                    files.insert(path.to_owned(), Stamp::of(meta));
                });
            }
            files
        };
        let mut files = look();
        if files.values().any(Stamp::is_young) {
            std::thread::sleep(YOUNG);
            files = look();
        }
        Self(files)
    }

    /// The files below an output that are as they were, by their paths from there; empty for the output itself.
    pub(crate) fn kept(&self, output: &str) -> io::Result<Vec<String>> {
        let mut kept = Vec::new();
        each_file(Path::new(output), &mut |path, meta| {
            let inner = path.strip_prefix(output).ok().and_then(Path::to_str);
            let is_same = self.0.get(path).is_some_and(|before| *before == Stamp::of(meta));
            kept.extend(inner.filter(|_| is_same).map(str::to_owned));
        })?;
        Ok(kept)
    }
}

/// Visits files and links below a path; the path itself may be a link to them.
fn each_file(path: &Path, visit: &mut dyn FnMut(&Path, &Metadata)) -> io::Result<()> {
    let mut open = vec![(path.to_owned(), fs::metadata(path)?)];
    while let Some((path, meta)) = open.pop() {
        if !meta.is_dir() {
            visit(&path, &meta);
            continue;
        }
        for entry in fs::read_dir(&path)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            open.push((path, meta));
        }
    }
    Ok(())
}
