//! The digest of a folder: of all that is below it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::{fs, io};

use super::file::{cannot_read, changed, check, checked, look};
use super::{FolderOptions, Stamp};
use crate::error::{Error, Result};
use crate::key::Digest;
use crate::key::outline::Outline;

/// Gives the digest of a file that has this stamp.
pub(crate) type OfFile<'a> = &'a (dyn Fn(&Path, &Stamp) -> Result<Digest> + Sync);

/// The digest of a folder whose files have the digests that `of_file` gives.
///
/// # Errors
/// `Busy` if anything was changed before the last file was read.
pub(crate) fn of_folder(path: &Path, options: &FolderOptions, of_file: OfFile<'_>) -> Result<Digest> {
    let mut walk = Walk { options, files: Vec::new(), folders: Vec::new(), above: Vec::new() };
    let tree = walk.folder(path, "", look(path)?.1)?;
    let files = of_files(&walk.files, of_file)?;
    for (path, stamp) in walk.folders.iter().chain(&walk.files) {
        match fs::metadata(path) {
            Ok(now) => check(path, stamp, &now)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(changed(path)),
            Err(error) => return Err(cannot_read(path, error)),
        }
    }
    Ok(tree.digest(options.permissions, &files))
}

/// What a folder holds; files by their place in the list of files to be read.
enum Node {
    File(usize),
    Folder(Vec<Entry>),
    /// A link that leads nowhere.
    Link(PathBuf),
}

struct Entry {
    name: OsString,
    mode: u32,
    node: Node,
}

impl Node {
    fn digest(&self, permissions: bool, files: &[Digest]) -> Digest {
        match self {
            Self::File(index) => files[*index],
            Self::Link(target) => {
                let mut outline = Outline::new("link");
                outline.bytes(target.as_os_str().as_encoded_bytes());
                outline.finish()
            }
            Self::Folder(entries) => {
                let mut outline = Outline::new(if permissions { "folder with permissions" } else { "folder" });
                for Entry { name, mode, node } in entries {
                    outline.text(node.kind());
                    outline.bytes(name.as_encoded_bytes());
                    if permissions {
                        outline.number(u64::from(*mode));
                    }
                    outline.digest(node.digest(permissions, files));
                }
                outline.finish()
            }
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Folder(_) => "folder",
            Self::Link(_) => "link",
        }
    }
}

struct Walk<'a> {
    options: &'a FolderOptions,
    files: Vec<(PathBuf, Stamp)>,
    folders: Vec<(PathBuf, Stamp)>,
    /// The real paths of the folders that lead here, to notice a circle of links.
    above: Vec<PathBuf>,
}

impl Walk<'_> {
    /// `below` is the path from the root of all.
    fn folder(&mut self, path: &Path, below: &str, stamp: Stamp) -> Result<Node> {
        let fail = |error| cannot_read(path, error);
        let real = fs::canonicalize(path).map_err(fail)?;
        if self.above.contains(&real) {
            return Err(Error::invalid("symbolic links form a circle, so the folder has no digest").with_path(path));
        }
        self.above.push(real);
        self.folders.push((path.to_owned(), stamp));
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            let below = format!("{below}{}", name.to_string_lossy());
            entries.extend(self.entry(path.join(&name), &below, name)?);
        }
        entries.sort_by(|a, b| a.name.as_encoded_bytes().cmp(b.name.as_encoded_bytes()));
        self.above.pop();
        Ok(Node::Folder(entries))
    }

    /// None if it is excluded: then it need not be readable.
    fn entry(&mut self, path: PathBuf, below: &str, name: OsString) -> Result<Option<Entry>> {
        let meta = fs::metadata(&path);
        let is_folder = meta.as_ref().is_ok_and(fs::Metadata::is_dir);
        if self.options.excludes(below, is_folder) || is_folder && self.options.is_without(&path) {
            return Ok(None);
        }
        let meta = match meta {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let target = fs::read_link(&path).map_err(|_| changed(&path))?;
                return Ok(Some(Entry { name, mode: 0, node: Node::Link(target) }));
            }
            meta => meta.map_err(|error| cannot_read(&path, error))?,
        };
        let (meta, stamp) = checked(&path, meta)?;
        let node = if meta.is_dir() {
            self.folder(&path, &format!("{below}/"), stamp)?
        } else {
            self.files.push((path, stamp));
            Node::File(self.files.len() - 1)
        };
        Ok(Some(Entry { name, mode: mode(&meta), node }))
    }
}

#[cfg(unix)]
fn mode(meta: &fs::Metadata) -> u32 {
    use std::os::unix::fs::MetadataExt;
    meta.mode() & 0o7777
}

#[cfg(not(unix))]
fn mode(meta: &fs::Metadata) -> u32 {
    u32::from(meta.permissions().readonly())
}

/// The digests of all files, by as many threads as there are processors.
fn of_files(files: &[(PathBuf, Stamp)], of_file: OfFile<'_>) -> Result<Vec<Digest>> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(files.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((path, stamp)) = files.get(index) else { return Ok(done) };
            // An error ends the others' work too.
            let digest = of_file(path, stamp).inspect_err(|_| next.store(files.len(), Ordering::Relaxed))?;
            done.push((index, digest));
        }
    };
    let done = thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for worker in workers {
            // A panic goes on in this thread, as if there were no others.
            let others: Result<Vec<_>> = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            done = done.and_then(|mut done| {
                done.extend(others?);
                Ok(done)
            });
        }
        done
    });
    let mut done: Vec<(usize, Digest)> = done?;
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, digest)| digest).collect())
}
