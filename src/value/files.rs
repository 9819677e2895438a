//! Files and folders as values: a tar archive, which every tool unpacks.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};

use super::{Kind, Value};
use crate::error::{Error, Result};
use crate::format::{Decoder, Encoder, Format};

/// The name of a folder itself in its archive; a file has its own.
const SELF: &str = "./";

/// A file or a folder that a chest keeps, made by [`Chest::insert_files`](crate::Chest::insert_files) or
/// [`Call::run_files`](crate::Call::run_files). In memory it is a list; [`Chest::restore`](crate::Chest::restore) gives the
/// files back.
///
/// It is stored as a tar archive. Names, content, symbolic links, whether a file may be executed and whether others may read it
/// are kept; times, owners and other permissions are not. What is restored can be read by no more people than any new file.
#[derive(Clone, PartialEq, Eq)]
pub struct Files {
    entries: Vec<FileEntry>,
    /// What it is read from when it is stored.
    source: Option<PathBuf>,
}

/// A file, a folder or a link in [`Files`].
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its place below the folder; empty for the folder itself. Of a single file, its name.
    pub path: PathBuf,
    /// The bytes of a file; 0 for all else.
    pub bytes: u64,
    /// Whether it is a folder.
    pub is_folder: bool,
}

impl Files {
    /// What is at this path when it is stored.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let source = std::path::absolute(path).map_err(|error| cannot_read(path, error))?;
        let entries = walk(&source)?.into_iter().map(|found| found.entry).collect();
        Ok(Self { entries, source: Some(source) })
    }

    fn source(&self) -> Result<&Path> {
        let message = "a list of files that was read from a chest has not their content; restore them, and store those";
        self.source.as_deref().ok_or_else(|| Error::unsupported(message))
    }

    /// All that there is, in the order of their paths.
    pub fn entries(&self) -> &[FileEntry] {
        &self.entries
    }

    /// Whether it is a folder, not a single file.
    pub fn is_folder(&self) -> bool {
        self.entries.first().is_some_and(|entry| entry.is_folder)
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_folder() { "folder" } else { "file" };
        write!(f, "Files(a {what}, {} entries, {} bytes)", self.entries.len(), self.bytes())
    }
}

impl Value for Files {
    const KIND: Kind = Kind::Plain;

    fn type_name() -> String {
        "Files".to_owned()
    }

    fn size(&self) -> usize {
        let entry = |entry: &FileEntry| size_of::<FileEntry>() + entry.path.as_os_str().len();
        size_of::<Self>() + self.entries.iter().map(entry).sum::<usize>()
    }

    fn check(&self) -> Result<()> {
        self.source().map(drop)
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        let source = self.source()?;
        out.describe("files", self.entries.iter().filter(|entry| !entry.is_folder).count());
        out.describe("bytes", self.bytes());
        let found = walk(source)?;
        if !found.iter().map(|found| &found.entry).eq(&self.entries) {
            return Err(changed(source));
        }
        let mut archive = Builder::new(out);
        for found in &found {
            found.append(&mut archive)?;
        }
        archive.finish()?;
        Ok(Format::new("tar", "tar"))
    }

    fn decode(input: &mut Decoder) -> Result<Self> {
        let mut entries = Vec::new();
        for entry in Archive::new(input).entries_with_seek()? {
            let entry = entry?;
            let is_folder = entry.header().entry_type().is_dir();
            let bytes = if entry.header().entry_type().is_file() { entry.size() } else { 0 };
            entries.push(FileEntry { path: inner(&entry.path()?)?, bytes, is_folder });
        }
        if entries.is_empty() {
            return Err(Error::damaged("the archive is empty"));
        }
        Ok(Self { entries, source: None })
    }
}

fn cannot_read(path: &Path, error: io::Error) -> Error {
    Error::io("cannot read the files to be stored", error).with_path(path)
}

fn changed(path: &Path) -> Error {
    Error::new(crate::ErrorKind::Busy, "the files change while they are stored").with_path(path)
}

/// A path below the folder, as an archive has it.
fn inner(path: &Path) -> Result<PathBuf> {
    let is_fine = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.components().all(|part| is_fine(&part)) {
        return Ok(path.components().filter(|part| matches!(part, Component::Normal(_))).collect());
    }
    Err(Error::damaged(format!("the archive has the path {}, which leads out of it", path.display())))
}

/// Something to be stored.
struct Found {
    place: PathBuf,
    entry: FileEntry,
    meta: fs::Metadata,
}

/// All that is at a path, folders before what they hold, each in the order of names.
fn walk(source: &Path) -> Result<Vec<Found>> {
    // A link that was given is what it leads to; links within a folder stay links.
    let meta = fs::metadata(source).map_err(|error| cannot_read(source, error))?;
    let path = if meta.is_dir() { PathBuf::new() } else { source.file_name().map(PathBuf::from).unwrap_or_default() };
    let mut all = Vec::new();
    let mut open = vec![Found::new(source.to_owned(), path, meta)?];
    while let Some(found) = open.pop() {
        if found.entry.is_folder {
            let mut names = Vec::new();
            for entry in fs::read_dir(&found.place).map_err(|error| cannot_read(&found.place, error))? {
                names.push(entry.map_err(|error| cannot_read(&found.place, error))?.file_name());
            }
            names.sort_by(|one, other| other.cmp(one));
            for name in names {
                let place = found.place.join(&name);
                let meta = fs::symlink_metadata(&place).map_err(|error| cannot_read(&place, error))?;
                open.push(Found::new(place, found.entry.path.join(name), meta)?);
            }
        }
        all.push(found);
    }
    Ok(all)
}

impl Found {
    fn new(place: PathBuf, path: PathBuf, meta: fs::Metadata) -> Result<Self> {
        if !meta.is_dir() && !meta.is_file() && !meta.is_symlink() {
            return Err(Error::unsupported("only files, folders and links can be stored").with_path(&place));
        }
        let bytes = if meta.is_file() { meta.len() } else { 0 };
        Ok(Self { entry: FileEntry { path, bytes, is_folder: meta.is_dir() }, place, meta })
    }

    fn append(&self, archive: &mut Builder<impl Write>) -> Result<()> {
        let io = |error| cannot_read(&self.place, error);
        let mut header = Header::new_gnu();
        header.set_metadata_in_mode(&self.meta, tar::HeaderMode::Deterministic);
        if is_private(&self.meta) {
            header.set_mode(header.mode()? & 0o700);
        }
        if self.entry.is_folder {
            let path = Path::new(SELF).join(&self.entry.path);
            return Ok(archive.append_data(&mut header, path, io::empty())?);
        }
        if self.meta.is_symlink() {
            let target = fs::read_link(&self.place).map_err(io)?;
            header.set_size(0);
            return Ok(archive.append_link(&mut header, &self.entry.path, target)?);
        }
        let mut content = Exact { file: File::open(&self.place).map_err(io)?, left: self.entry.bytes, is_short: false };
        archive.append_data(&mut header, &self.entry.path, &mut content)?;
        let after = content.file.metadata().map_err(io)?;
        let same_time = after.modified().ok() == self.meta.modified().ok();
        if content.is_short || after.len() != self.meta.len() || !same_time {
            Err(changed(&self.place))
        } else {
            Ok(())
        }
    }
}

/// Whether nobody but its owner may read it.
#[cfg(unix)]
fn is_private(meta: &fs::Metadata) -> bool {
    !meta.is_symlink() && std::os::unix::fs::MetadataExt::mode(meta) & 0o077 == 0
}

#[cfg(not(unix))]
fn is_private(_: &fs::Metadata) -> bool {
    false
}

/// The permissions that new folders in a folder do not have: as far as this process is told to withhold them.
#[cfg(unix)]
fn withheld(folder: &Path) -> io::Result<u32> {
    let probe = Scratch(folder.join(format!(".probe-{}-{:08x}", std::process::id(), fastrand::u32(..))));
    fs::create_dir(&probe.0)?;
    Ok(!std::os::unix::fs::MetadataExt::mode(&fs::metadata(&probe.0)?) & 0o077)
}

#[cfg(not(unix))]
fn withheld(_: &Path) -> io::Result<u32> {
    Ok(0)
}

/// Just so many bytes of a file, as the header says; what is missing is noted.
struct Exact {
    file: File,
    left: u64,
    is_short: bool,
}

impl Read for Exact {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let n = self.file.read(&mut buf[..most])?;
        self.is_short |= n == 0 && most > 0;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Unpacks an archive in the place of what is at `target`, which stays as it was if that fails.
pub(crate) fn restore(input: &mut Decoder, target: &Path) -> Result<()> {
    let io = |error| Error::io("cannot restore the files", error).with_path(target);
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(io)?;
    let name =
        target.file_name().ok_or_else(|| Error::invalid("files need a name to be restored to").with_path(target))?;
    // Beside the target, so that it can be renamed.
    let hidden = |what: &str| {
        let unique = format!(".{}.{what}-{}-{:08x}", name.display(), std::process::id(), fastrand::u32(..));
        parent.join(unique)
    };
    let new = Scratch(hidden("new"));
    input.seek(SeekFrom::Start(0))?;
    let mut input = Noting { input, failure: None };
    unpack(&mut input, &new.0, target, withheld(parent).map_err(io)?)
        .map_err(|error| input.failure.take().unwrap_or(error))?;
    #[cfg(unix)]
    narrow(&new.0, target).map_err(io)?;
    let old = Scratch(hidden("old"));
    // A folder cannot take the place of another.
    let is_in_the_way = fs::symlink_metadata(target).is_ok_and(|meta| meta.is_dir()) || new.0.is_dir();
    if is_in_the_way && fs::symlink_metadata(target).is_ok() {
        fs::rename(target, &old.0).map_err(io)?;
    }
    fs::rename(&new.0, target).map_err(|error| {
        if fs::rename(&old.0, target).is_err() {
            // What was there stays beside its place.
            std::mem::forget(old);
        }
        io(error)
    })
}

/// Lets nobody read a new file who could not read the one in whose place it comes.
#[cfg(unix)]
fn narrow(new: &Path, target: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    match (fs::symlink_metadata(new), fs::symlink_metadata(target)) {
        (Ok(new_meta), Ok(old)) if new_meta.is_file() && old.is_file() => {
            fs::set_permissions(new, PermissionsExt::from_mode(new_meta.mode() & (old.mode() | 0o700)))
        }
        _ => Ok(()),
    }
}

/// Notes what is wrong with the stored bytes: of an error of reading the archive makes one of its own.
struct Noting<'a> {
    input: &'a mut Decoder,
    failure: Option<Error>,
}

impl Read for Noting<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.input.read(buf).map_err(|error| {
            self.failure = Some(Error::io("cannot read the stored files", error));
            io::ErrorKind::InvalidData.into()
        })
    }
}

/// Removed when it is dropped, if it is there.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left where it is.
        let _ = match fs::symlink_metadata(&self.0) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&self.0),
            Ok(_) => fs::remove_file(&self.0),
            Err(_) => Ok(()),
        };
    }
}

/// Unpacks to `place`, which does not exist; permissions in `withheld` are not given.
fn unpack(input: &mut Noting<'_>, place: &Path, target: &Path, withheld: u32) -> Result<()> {
    let io = |error| Error::io("cannot restore the files", error).with_path(target);
    let mut archive = Archive::new(input);
    archive.set_preserve_mtime(false);
    archive.set_mask(withheld);
    let mut is_first = true;
    let mut is_folder = false;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let (kind, path) = (entry.header().entry_type(), inner(&entry.path()?)?);
        if is_first {
            is_folder = kind.is_dir() && path.as_os_str().is_empty();
        }
        let is_known = matches!(kind, EntryType::Regular | EntryType::Directory | EntryType::Symlink);
        let is_alone = is_first && kind.is_file();
        if !is_known || !(is_folder || is_alone) {
            return Err(Error::damaged("the archive is not of files that a chest has stored"));
        }
        match (is_folder, is_first) {
            (false, _) => _ = entry.unpack(place).map_err(io)?,
            (true, true) => {
                fs::create_dir(place).map_err(io)?;
                #[cfg(unix)]
                if entry.header().mode()? & 0o077 == 0 {
                    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                    fs::set_permissions(place, mode).map_err(io)?;
                }
            }
            // Not through a link that came before it.
            (true, false) => {
                if !entry.unpack_in(place).map_err(io)? {
                    return Err(Error::damaged("the archive has a path that leads out of it"));
                }
            }
        }
        is_first = false;
    }
    if is_first { Err(Error::damaged("the archive is empty")) } else { Ok(()) }
}
