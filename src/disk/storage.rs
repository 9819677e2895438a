//! What the disk tier asks of the operating system, in one small trait: tests put a medium in its place that fails, or
//! that forgets what was not synced.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::pieces::Pieces;

/// Files and folders.
pub(crate) trait Storage: fmt::Debug + Send + Sync {
    /// Makes a file for reading and writing. It must not exist.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;
    /// Opens a regular file for reading; links are not followed.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder, if there is none.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Returns when a file's content, or a folder's names, are on the medium.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Differs after the machine was started again: then what was not synced may be lost.
    fn boot(&self) -> String;
    /// Bytes that are left on the disk, as far as they can be told.
    fn free(&self, _dir: &Path) -> u64 {
        u64::MAX
    }
    /// Bytes a second that the disk reads, as far as that can be told.
    #[cfg(feature = "blosc")]
    fn read_speed(&self, _dir: &Path) -> Option<u64> {
        None
    }
}

/// An open file.
pub(crate) trait StorageFile: Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// Reads some bytes; none at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of the bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// The system's file, if this is one: it can be mapped.
    #[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
    fn as_file(&self) -> Option<&File> {
        None
    }
}

/// Reads all of `buf`.
pub(crate) fn read_exact_at(file: &dyn StorageFile, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match retry(|| file.read_at(buf, offset))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                offset += n as u64;
                buf = &mut buf[n..];
            }
        }
    }
    Ok(())
}

/// Writes all of `bytes`.
pub(crate) fn write_all_at(file: &dyn StorageFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match retry(|| file.write_at(bytes, offset))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => {
                offset += n as u64;
                bytes = &bytes[n..];
            }
        }
    }
    Ok(())
}

/// Calls again when a signal came in between.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// The operating system's files.
#[derive(Debug)]
pub(crate) struct Os {
    /// Whether new files are for their owner alone.
    pub(crate) private: bool,
}

impl Os {
    /// Makes files for those who may read the chest in `root`.
    pub(crate) fn of_chest(root: &Path) -> Self {
        Self { private: mode(root).is_none_or(|mode| mode & 0o077 == 0) }
    }
}

/// Who may do what with the values of the chest in `root`, where the system has modes.
pub(super) fn mode(root: &Path) -> Option<u32> {
    #[cfg(unix)]
    return fs::metadata(root.join(super::VALUES)).ok().map(|meta| std::os::unix::fs::MetadataExt::mode(&meta));
    #[cfg(not(unix))]
    return {
        _ = root;
        None
    };
}

impl Storage for Os {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, if self.private { 0o600 } else { 0o666 });
        Ok(Arc::new(options.open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(open_regular(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        if self.private {
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        }
        builder.create(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        // Names that are not Unicode are none of ours.
        fs::read_dir(dir)?
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        // Windows syncs files that are open for writing, and no folders.
        if cfg!(windows) && path.is_dir() {
            return Ok(());
        }
        OpenOptions::new().read(true).write(cfg!(windows)).open(path)?.sync_all()
    }

    fn boot(&self) -> String {
        /// No process sees two.
        static BOOT: LazyLock<String> = LazyLock::new(|| match fs::read_to_string("/proc/sys/kernel/random/boot_id") {
            Ok(id) => id.trim().to_owned(),
            Err(_) => sysinfo::System::boot_time().to_string(),
        });
        BOOT.clone()
    }

    #[cfg(unix)]
    fn free(&self, dir: &Path) -> u64 {
        match rustix::fs::statvfs(dir) {
            Ok(disk) if disk.f_blocks > 0 => disk.f_bavail.saturating_mul(disk.f_frsize),
            _ => u64::MAX,
        }
    }

    #[cfg(all(feature = "blosc", target_os = "linux"))]
    fn read_speed(&self, dir: &Path) -> Option<u64> {
        super::speed::read_speed(dir)
    }
}

/// Opens a file for reading that must be a regular one: a link might lead out of the chest, and a pipe would never end.
fn open_regular(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits().cast_signed());
    }
    #[cfg(not(unix))]
    if fs::symlink_metadata(path)?.file_type().is_symlink() {
        return Err(not_regular());
    }
    let opened = options.open(path);
    // That is how the system says that it was told not to follow a link.
    #[cfg(unix)]
    let opened = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => not_regular(),
        _ => error,
    });
    let file = opened?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file")
}

static PIECES: Pieces = Pieces::new();

impl StorageFile for File {
    #[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
    fn as_file(&self) -> Option<&File> {
        Some(self)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    #[cfg(unix)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, offset)
    }

    #[cfg(unix)]
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        PIECES.write(bytes, offset, |piece| std::os::unix::fs::FileExt::write_at(self, piece, offset))
    }

    #[cfg(windows)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(self, buf, offset)
    }

    #[cfg(windows)]
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        PIECES.write(bytes, offset, |piece| std::os::windows::fs::FileExt::seek_write(self, piece, offset))
    }
}
