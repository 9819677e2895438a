//! The digest of a file's or a folder's content.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use twox_hash::XxHash3_128;

use crate::error::{Error, Result};

/// Large reads: one system call for each MiB.
const READ_SIZE: usize = 1 << 20;

/// 128 bits that stand for content: of bytes, of a file, or of a whole folder.
///
/// The method is XXH3-128, which is made for speed and against accidents; it is no defence against somebody who
/// constructs two files with one digest on purpose.
///
/// As a key, or a part of one, it names a value by what it was made from:
///
/// ```
/// use icechest::{Chest, Digest};
/// # let dir = tempfile::tempdir()?;
/// let input = dir.path().join("input.csv");
/// std::fs::write(&input, "a,b\n1,2\n")?;
/// let chest = Chest::temporary()?;
/// chest.insert(("lines", Digest::of_path(&input)?), 2u64)?;
///
/// // The same content in another place is the same key; changed content is another.
/// let copy = dir.path().join("copy.csv");
/// std::fs::copy(&input, &copy)?;
/// assert!(chest.contains_key(("lines", Digest::of_path(&copy)?))?);
/// std::fs::write(&copy, "a,b\n1,3\n")?;
/// assert!(!chest.contains_key(("lines", Digest::of_path(&copy)?))?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub(super) [u8; 16]);

impl Digest {
    /// The digest of these bytes; a file of the same bytes has the same digest.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(XxHash3_128::oneshot(bytes).to_be_bytes())
    }

    /// The digest of a file's bytes, or of everything below a folder.
    ///
    /// Of a folder count the names, the layout and the content of all that it holds, hidden files and empty folders
    /// included; its own name and place, times and permissions do not. A symbolic link counts as what it leads to, so a
    /// dataset of links is known by its data; one that leads nowhere counts by the text of its target. Files are read
    /// by as many threads as there are processors.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) names the file or folder that is missing or cannot be read.
    /// [`Invalid`](crate::ErrorKind::Invalid) when links form a circle, and
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for sockets, pipes and devices.
    pub fn of_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let meta = fs::metadata(path).map_err(|error| cannot_read(path, error))?;
        if !meta.is_dir() {
            return of_file(path, &meta);
        }
        let mut walk = Walk::default();
        let tree = walk.folder(path)?;
        let files = hash_files(&walk.files)?;
        Ok(tree.digest(&files))
    }

    /// The 16 bytes, as `Display` shows them in hexadecimal.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

fn cannot_read(path: &Path, error: std::io::Error) -> Error {
    Error::io("cannot read the content for a digest", error).with_path(path)
}

fn of_file(path: &Path, meta: &fs::Metadata) -> Result<Digest> {
    if !meta.is_file() {
        // Reading a pipe would wait for ever.
        return Err(Error::unsupported("only files and folders have a digest").with_path(path));
    }
    let mut file = File::open(path).map_err(|error| cannot_read(path, error))?;
    let mut hasher = XxHash3_128::new();
    let mut buffer = vec![0; READ_SIZE.min(meta.len() as usize + 1)];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest(hasher.finish_128().to_be_bytes())),
            Ok(n) => hasher.write(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(cannot_read(path, error)),
        }
    }
}

/// What a folder holds; files by their place in the list of files to be hashed.
enum Node {
    File(usize),
    Folder(Vec<(OsString, Node)>),
    Dangling(PathBuf),
}

impl Node {
    /// Each entry is hashed as its kind, the length of its name, its name, and its own digest.
    fn digest(&self, files: &[Digest]) -> Digest {
        match self {
            Self::File(index) => files[*index],
            Self::Dangling(target) => Digest::of_bytes(target.as_os_str().as_encoded_bytes()),
            Self::Folder(entries) => {
                let mut hasher = XxHash3_128::new();
                hasher.write(b"folder");
                for (name, node) in entries {
                    let name = name.as_encoded_bytes();
                    hasher.write(&[node.tag()]);
                    hasher.write(&(name.len() as u64).to_le_bytes());
                    hasher.write(name);
                    hasher.write(&node.digest(files).0);
                }
                Digest(hasher.finish_128().to_be_bytes())
            }
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Self::File(_) => b'f',
            Self::Folder(_) => b'd',
            Self::Dangling(_) => b'l',
        }
    }
}

#[derive(Default)]
struct Walk {
    files: Vec<(PathBuf, fs::Metadata)>,
    /// The real paths of the folders that lead here, to notice a circle of links.
    above: Vec<PathBuf>,
}

impl Walk {
    fn folder(&mut self, path: &Path) -> Result<Node> {
        let real = fs::canonicalize(path).map_err(|error| cannot_read(path, error))?;
        if self.above.contains(&real) {
            return Err(Error::invalid("symbolic links form a circle, so the folder has no digest").with_path(path));
        }
        self.above.push(real);
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| cannot_read(path, error))? {
            let entry = entry.map_err(|error| cannot_read(path, error))?;
            entries.push((entry.file_name(), self.node(&entry.path())?));
        }
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.above.pop();
        Ok(Node::Folder(entries))
    }

    fn node(&mut self, path: &Path) -> Result<Node> {
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return fs::read_link(path).map(Node::Dangling).map_err(|error| cannot_read(path, error));
            }
            Err(error) => return Err(cannot_read(path, error)),
        };
        if meta.is_dir() {
            return self.folder(path);
        }
        self.files.push((path.to_owned(), meta));
        Ok(Node::File(self.files.len() - 1))
    }
}

fn hash_files(files: &[(PathBuf, fs::Metadata)]) -> Result<Vec<Digest>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len());
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![None; files.len()]);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((path, meta)) = files.get(index) else { return Ok(()) };
            let digest = of_file(path, meta).inspect_err(|_| next.store(files.len(), Ordering::Relaxed))?;
            done.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[index] = Some(digest);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(Error::new(crate::ErrorKind::Io, "a hashing thread panicked")))
        })
    })?;
    // Every index was taken by a worker that finished without an error.
    Ok(done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).into_iter().flatten().collect())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::ErrorKind;

    fn tree(root: &Path) {
        fs::create_dir_all(root.join("sub/empty")).unwrap();
        fs::write(root.join("a.txt"), "alpha").unwrap();
        fs::write(root.join("sub/b.bin"), vec![7; 3 << 20]).unwrap();
    }

    fn digest(path: &Path) -> Digest {
        Digest::of_path(path).unwrap()
    }

    #[test]
    fn content_counts_and_place_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("deep/er/two"));
        tree(&one);
        tree(&two);
        let before = digest(&one);
        assert_eq!(before, digest(&two));
        assert_eq!(digest(&one.join("a.txt")), Digest::of_bytes(b"alpha"));

        let changes: [&dyn Fn(&Path); 5] = [
            &|root| fs::write(root.join("a.txt"), "alphb").unwrap(),
            &|root| fs::rename(root.join("a.txt"), root.join("c.txt")).unwrap(),
            &|root| fs::rename(root.join("a.txt"), root.join("sub/a.txt")).unwrap(),
            &|root| fs::remove_dir(root.join("sub/empty")).unwrap(),
            &|root| fs::write(root.join(".hidden"), "").unwrap(),
        ];
        for change in changes {
            fs::remove_dir_all(&two).unwrap();
            tree(&two);
            assert_eq!(before, digest(&two));
            change(&two);
            assert_ne!(before, digest(&two));
        }
    }

    #[test]
    fn kinds_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (empty, file, folder, dangling) = (make("1"), make("2"), make("3"), make("4"));
        fs::write(file.join("x"), "").unwrap();
        fs::create_dir(folder.join("x")).unwrap();
        symlink("nowhere", dangling.join("x")).unwrap();
        let all = [digest(&empty), digest(&file), digest(&folder), digest(&dangling), Digest::of_bytes(b"")];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
    }

    #[test]
    fn links_count_as_what_they_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let (real, linked) = (dir.path().join("real"), dir.path().join("linked"));
        tree(&real);
        fs::create_dir(&linked).unwrap();
        symlink(real.join("a.txt"), linked.join("a.txt")).unwrap();
        symlink(real.join("sub"), linked.join("sub")).unwrap();
        assert_eq!(digest(&real), digest(&linked));

        symlink(&linked, linked.join("circle")).unwrap();
        let error = Digest::of_path(&linked).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.path().unwrap().ends_with("circle"));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let error = Digest::of_path(&missing).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Io, Some(missing.as_path())));

        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [dir.path(), socket.as_path()] {
            let error = Digest::of_path(path).unwrap_err();
            assert_eq!((error.kind(), error.path()), (ErrorKind::Unsupported, Some(socket.as_path())));
        }
    }

    #[test]
    fn unreadable_files_are_an_error() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
        // The superuser reads everything; then the digest is that of the content.
        match File::open(&file) {
            Ok(_) => assert_eq!(digest(&file), Digest::of_bytes(b"x")),
            Err(_) => assert_eq!(Digest::of_path(dir.path()).unwrap_err().path(), Some(file.as_path())),
        }
    }
}
