//! Verifying a directory, and repairing it: nothing damaged is ever called sound, and nothing is deleted that might be
//! of use.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalog::Row;
use super::report::{Progress, Report, relative};
use super::session::Session;
use super::storage::retry;
use super::{CATALOG, Disk, DiskSettings, FOLDERS, LOCKS, MANIFEST, Os, Storage, TMP, VALUES, label, rebuild, session};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Compression, FrameFormat, checksum};
use crate::key::Key;

/// A check of a chest's directory, made by [`Chest::check`](crate::Chest::check).
///
/// Every value's checksums are verified, its label, the catalog's pages and rows, and whether there are files that no
/// row names. Others may use the chest meanwhile. Reading everything takes as long as the disk does.
///
/// ```
/// use icechest::Chest;
/// # let dir = tempfile::tempdir()?;
/// Chest::open(dir.path())?.insert("x", vec![1.5; 10_000])?;
/// let report = Chest::check(dir.path()).on_progress(|progress| eprintln!("{progress}")).run()?;
/// assert!(report.is_healthy() && report.values == 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a check begins with `run`"]
pub struct Check<'a> {
    dir: PathBuf,
    repair: bool,
    on_progress: Box<dyn FnMut(&Progress) + 'a>,
}

impl<'a> Check<'a> {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), repair: false, on_progress: Box::new(|_| {}) }
    }

    /// Whether what is damaged is moved to `quarantine/`, orphans are removed, and a catalog that is lost or destroyed is
    /// made again: from what can be read of it, and from the value files. Small values that are in the catalog alone are
    /// lost with its pages.
    pub fn repair(mut self, repair: bool) -> Self {
        self.repair = repair;
        self
    }

    /// Calls `show` as the check goes on.
    pub fn on_progress(mut self, show: impl FnMut(&Progress) + 'a) -> Self {
        self.on_progress = Box::new(show);
        self
    }

    /// Checks the directory.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when there is no chest, [`Unsupported`](ErrorKind::Unsupported) when a newer
    /// version made it, [`Busy`](ErrorKind::Busy) when the catalog has to be made again while other processes have the
    /// chest open, and those of reading. Damage is no error: the report tells it.
    pub fn run(mut self) -> Result<Report> {
        let root = fs::canonicalize(&self.dir)
            .map_err(|error| Error::io("cannot open the directory", error).with_path(&self.dir))?;
        if !is_chest(&root) {
            return Err(Error::invalid("the directory is not a chest").with_path(&root));
        }
        let mut report = Report { is_repaired: self.repair, ..Report::default() };
        let has_folders = self.check_folders(&root, &mut report)?;
        self.check_manifest(&root, &mut report)?;
        match open(&root) {
            Ok(disk) => self.check_values(disk, report),
            Err(error) if error.kind() == ErrorKind::Damaged => {
                if has_folders {
                    report.add(None, CATALOG, error.cause());
                }
                rebuild::rebuild(&root, self.repair, report, &mut *self.on_progress)
            }
            Err(error) => Err(error),
        }
    }

    /// Tells whether nothing stands in the place of the folders, perhaps after a repair.
    fn check_folders(&self, root: &Path, report: &mut Report) -> Result<bool> {
        let storage = Os::of_chest(root);
        let mut has_folders = true;
        for name in FOLDERS {
            let path = root.join(name);
            if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_dir()) {
                let damage = report.add(None, name, "something else is in the place of a folder");
                has_folders &= self.repair;
                if self.repair {
                    let place = super::quarantine(root, &path, &storage)?;
                    damage.quarantined = place.map(|place| relative(root, &place));
                }
            }
            if self.repair {
                let fail = |error| Error::io("cannot make the folder", error).with_path(&path);
                storage.create_dir(&path).map_err(fail)?;
            }
        }
        Ok(has_folders)
    }

    fn check_manifest(&self, root: &Path, report: &mut Report) -> Result<()> {
        match super::read_manifest(root) {
            Ok(true) => return Ok(()),
            Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
            Ok(false) | Err(_) => {}
        }
        report.add(None, MANIFEST, "the chest's format file is missing or damaged").is_saved = self.repair;
        if self.repair {
            let path = root.join(MANIFEST);
            let storage = Os::of_chest(root);
            super::quarantine(root, &path, &storage)?;
            super::write_manifest(root, &Session::alone(), &storage)
                .map_err(|error| Error::io("cannot write the chest's format file", error).with_path(&path))?;
        }
        Ok(())
    }

    fn check_values(mut self, disk: Disk, mut report: Report) -> Result<Report> {
        let (disk, mut report, rows) = match self.rows(&disk, &mut report) {
            Ok(rows) => (disk, report, rows),
            Err(error) if error.kind() == ErrorKind::Damaged => {
                report.add(None, CATALOG, error.plain());
                let root = disk.root().to_owned();
                drop(disk);
                return rebuild::rebuild(&root, self.repair, report, &mut *self.on_progress);
            }
            Err(error) => return Err(error),
        };
        let mut progress = Progress {
            of_values: rows.len() as u64,
            of_bytes: rows.iter().map(|row| row.stored_bytes).sum(),
            ..Progress::default()
        };
        report.values = progress.of_values;
        report.bytes = progress.of_bytes;
        for row in &rows {
            let before = progress.bytes;
            self.check_value(&disk, row, &mut report, &mut progress)?;
            progress.values += 1;
            progress.bytes = before + row.stored_bytes;
            (self.on_progress)(&progress);
        }
        if self.repair {
            disk.sync()?;
        }
        Ok(report)
    }

    /// The catalog's rows, after what dead processes left was told, and removed in a repair.
    fn rows(&self, disk: &Disk, report: &mut Report) -> Result<Vec<Row>> {
        let mut damaged = Vec::new();
        let mut rows = catalog_rows(disk, report, &mut damaged)?;
        if self.repair {
            adopt(disk, &rows, report)?;
        }
        check_files(disk, report)?;
        if self.repair {
            disk.recover()?;
            disk.clean_up()?;
            rows = catalog_rows(disk, &mut Report::default(), &mut Vec::new())?;
        }
        for row in damaged {
            let damage = report.add(Some(row.key), CATALOG, "the bytes of the value do not match their checksum");
            if self.repair {
                let place = disk.quarantine_bytes(row.version, &row.inline.unwrap_or_default())?;
                disk.discard_row(row.version)?;
                damage.quarantined = Some(relative(disk.root(), &place));
            }
        }
        Ok(rows)
    }

    fn check_value(&mut self, disk: &Disk, row: &Row, report: &mut Report, progress: &mut Progress) -> Result<()> {
        let Some(name) = &row.file else { return Ok(()) };
        let verified = disk.verify(row, |bytes| {
            progress.bytes += bytes;
            (self.on_progress)(progress);
        });
        let Err(problem) = verified.and_then(|()| check_labels(disk, row)) else { return Ok(()) };
        if disk.catalog().version(&row.key)? != Some(row.version) {
            // It was replaced or removed meanwhile.
            return Ok(());
        }
        if !problem.is_of_the_file() {
            return Err(problem);
        }
        let what = if problem.is_missing_file() { "the file is missing".to_owned() } else { problem.plain() };
        let file = problem.path().map_or_else(|| name.clone(), |path| relative(disk.root(), path));
        let damage = report.add(Some(row.key.clone()), &file, what);
        // If only the label is damaged, a new file gets a new one.
        damage.is_saved = self.repair && disk.verify(row, |_| {}).is_ok();
        if damage.is_saved {
            return disk.write_again(row.version);
        }
        if self.repair {
            // The sound parts of a value too: without the others they are of no use to the chest. A row may name what is no
            // file of a value; that is nobody's to move.
            for name in row.files() {
                let Ok(path) = disk.value_path(&name) else { continue };
                let place = disk.quarantine(&path)?.map(|place| relative(disk.root(), &place));
                if name == file {
                    damage.quarantined = place;
                }
            }
            // Afterwards: a file that no row names would be removed.
            disk.discard_row(row.version)?;
        }
        Ok(())
    }
}

impl Disk {
    /// Moves a value to the quarantine, all its files: this version, which makes no sense, or one whose bytes do not match
    /// their checksums.
    pub(crate) fn set_aside(&self, key: &Key, version: Option<i64>) -> Result<()> {
        let row = match self.catalog().find(key) {
            Ok(row) => row,
            Err(error) => {
                // Of a row that is damaged itself, only the version is known.
                let version = self.catalog().version(key)?.ok_or(error)?;
                return self.discard_row(version).map(drop);
            }
        };
        let Some(row) = row else { return Ok(()) };
        if version != Some(row.version) {
            match self.verify(&row, |_| {}) {
                // It was replaced meanwhile.
                Ok(()) => return Ok(()),
                Err(error) if !error.is_of_the_file() => return Err(error),
                Err(_) => {}
            }
        }
        if let Some(bytes) = &row.inline {
            self.quarantine_bytes(row.version, bytes)?;
        }
        for path in row.files().iter().filter_map(|name| self.value_path(name).ok()) {
            self.quarantine(&path)?;
        }
        // Afterwards: a file that no row names would be removed.
        self.discard_row(row.version).map(drop)
    }
}

/// Whether there is a chest, or what is left of one.
fn is_chest(root: &Path) -> bool {
    let has_label = |name: String| {
        let file = Os::of_chest(root).open(&root.join(VALUES).join(name));
        file.is_ok_and(|file| label::read(&*file).is_ok())
    };
    [MANIFEST, CATALOG].iter().any(|name| root.join(name).exists())
        || Os::of_chest(root).list(&root.join(VALUES)).is_ok_and(|names| names.into_iter().any(has_label))
}

/// Opens a directory as it is: what dead processes left stays, to be told.
fn open(root: &Path) -> Result<Disk> {
    let (compression, frame_format) = (Compression::default(), FrameFormat::default());
    let storage = Os::of_chest(root);
    let private = storage.private;
    let settings = DiskSettings { inline_limit: 0, compression, disk_speed: None, frame_format, limit: None, private };
    Disk::open_as_it_is(root.to_owned(), settings, Arc::new(storage))
}

/// All rows, without the bytes of small values, which are verified on the way; those of which do not match go to
/// `damaged`.
fn catalog_rows(disk: &Disk, report: &mut Report, damaged: &mut Vec<Row>) -> Result<Vec<Row>> {
    let problems = disk.catalog().problems()?;
    if !problems.is_empty() {
        return Err(Error::damaged(problems.join("; ")));
    }
    let mut rows = Vec::new();
    let broken = disk.catalog().each_row(|mut row| match &row.inline {
        Some(bytes) if row.file.is_none() && checksum(bytes) != *row.checksums => damaged.push(row),
        _ => {
            row.inline = None;
            rows.push(row);
        }
    })?;
    if broken.is_empty() {
        return Ok(rows);
    }
    for key in broken.iter().flatten() {
        report.add(Some(key.clone()), CATALOG, "the row of the value does not match its checksum");
    }
    Err(Error::damaged(format!("rows that do not match their checksums: {}", broken.len())))
}

/// Whether the files say of themselves what the catalog says of them.
pub(super) fn check_labels(disk: &Disk, row: &Row) -> Result<()> {
    let (own, parts) = row.clone().split()?;
    check_label(disk, &own, None)?;
    parts.iter().try_for_each(|part| check_label(disk, part, row.file.as_deref()))
}

/// `of` is the file that the row's is a part of.
fn check_label(disk: &Disk, row: &Row, of: Option<&str>) -> Result<()> {
    let path = disk.value_path(row.file.as_deref().unwrap_or_default())?;
    check_label_in(disk, row, of, &path).map_err(|error| error.with_path(&path))
}

fn check_label_in(disk: &Disk, row: &Row, of: Option<&str>, path: &Path) -> Result<()> {
    let file = disk.storage.open(path).map_err(|error| Error::io("cannot open the value's file", error))?;
    let (told, place) = label::read(&*file)?;
    let is_same = told.key == row.key
        && place.as_ref().map(|place| place.of.as_str()) == of
        && told.checksums == row.checksums
        && told.label_at == row.label_at
        && told.format == row.format
        && told.stored_name == row.stored_name;
    if is_same { Ok(()) } else { Err(Error::damaged("the file's label belongs to another value")) }
}

/// Gives files their names back that somebody has renamed, perhaps by copying them to where names are spelled in another
/// way: a file that a row misses is one that no row names and whose label is just that of the row.
fn adopt(disk: &Disk, rows: &[Row], report: &mut Report) -> Result<()> {
    let mut missing = Vec::new();
    let mut named = HashSet::new();
    for row in rows {
        named.extend(row.files());
        let Ok((own, parts)) = row.clone().split() else { continue };
        let of = own.file.clone();
        let files = [(own, None)].into_iter().chain(parts.into_iter().map(|part| (part, of.clone())));
        missing.extend(files.filter(|(row, _)| {
            let path = row.file.as_deref().and_then(|name| disk.value_path(name).ok());
            path.is_some_and(|path| fs::symlink_metadata(path).is_err())
        }));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let folder = disk.root().join(VALUES);
    let io = |error| Error::io("cannot give a file its name back", error).with_path(&folder);
    for name in disk.storage.list(&folder).map_err(io)? {
        let (file, path) = (format!("{VALUES}/{name}"), folder.join(&name));
        let is_it = |(row, of): &(Row, Option<String>)| check_label_in(disk, row, of.as_deref(), &path).is_ok();
        if named.contains(&file) {
            continue;
        }
        let Some(index) = missing.iter().position(is_it) else { continue };
        let (row, _) = missing.swap_remove(index);
        let target = row.file.unwrap_or_default();
        disk.announce()?;
        retry(|| disk.storage.rename(&path, &folder.with_file_name(&target))).map_err(io)?;
        report.add(Some(row.key), &target, format!("the file had another name: {file}")).is_saved = true;
    }
    retry(|| disk.storage.sync(&folder)).map_err(io)
}

/// Files that no row names.
fn check_files(disk: &Disk, report: &mut Report) -> Result<()> {
    let root = disk.root();
    for folder in [VALUES, TMP] {
        let dir = root.join(folder);
        let io = |error| Error::io("cannot read the folder", error).with_path(&dir);
        let names = disk.storage.list(&dir).map_err(io)?;
        // After the names: who comes now has made none of them.
        let live = session::live(&root.join(LOCKS)).map_err(io)?;
        let named = disk.catalog().write(true, false, None, |catalog| catalog.files())?.0;
        for name in names {
            let file = format!("{folder}/{name}");
            let Ok(meta) = fs::symlink_metadata(dir.join(&name)) else { continue };
            let maker = name.split('.').rev().find_map(session::maker);
            match maker {
                _ if named.contains_key(&file) => {}
                Some(maker) if live.iter().any(|(name, _)| name == maker) => {}
                Some(_) if meta.is_file() => {
                    report.orphan_bytes += meta.len();
                    report.orphans.push(file);
                }
                _ => report.foreign.push(file),
            }
        }
    }
    Ok(())
}
