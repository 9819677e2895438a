//! The disk tier: a directory with a catalog and one immutable file for each value and version.

mod catalog;
mod label;
mod temporary;
mod wal_index;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use self::catalog::Catalog;
pub(crate) use self::catalog::Row;
use self::label::Label;
pub(crate) use self::temporary::TemporaryDir;
use crate::error::{Error, Result};
use crate::format::{Body, Compression, Decoder, Encoder, Payload, TemporaryFile};
use crate::key::Key;
use crate::value::Stored;

/// The version of the directory's format, told in `docs/format.md`.
pub(crate) const FORMAT_VERSION: i64 = 1;

const MANIFEST: &str = "icechest.json";
const CATALOG: &str = "catalog.sqlite";
const VALUES: &str = "values";
const TMP: &str = "tmp";

/// A file in `tmp` that nobody wrote to for so long was left by a process that is gone.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The directory of a chest.
pub(crate) struct Disk {
    root: PathBuf,
    catalog: Catalog,
    inline_limit: usize,
    compression: Compression,
    temporary: Option<TemporaryDir>,
}

/// How a directory is opened.
pub(crate) struct DiskSettings {
    pub(crate) inline_limit: usize,
    pub(crate) compression: Compression,
}

/// A value that was written but not published yet. Its file goes away when it is dropped.
pub(crate) struct Draft {
    row: Row,
    file: Option<TemporaryFile>,
}

impl Disk {
    /// Opens the chest in `root`, or makes one if there is nothing.
    pub(crate) fn open(root: &Path, settings: DiskSettings) -> Result<Self> {
        fs::create_dir_all(root).map_err(|error| Error::io("cannot make the directory", error).with_path(root))?;
        // Absolute, so that a later change of the working directory does no harm.
        let root =
            fs::canonicalize(root).map_err(|error| Error::io("cannot open the directory", error).with_path(root))?;
        let manifest = root.join(MANIFEST);
        let catalog = match fs::read(&manifest) {
            Ok(bytes) => {
                check_manifest(&bytes).map_err(|error| error.with_path(&manifest))?;
                open_catalog(&root)?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(&root, true)?,
            Err(error) => return Err(Error::io("cannot read the chest's format", error).with_path(&manifest)),
        };
        let disk = Self::new(root, catalog, settings, None);
        disk.sweep();
        Ok(disk)
    }

    /// A chest in a directory of its own that is removed when it is dropped.
    pub(crate) fn temporary(parent: Option<&Path>, settings: DiskSettings) -> Result<Self> {
        let dir = TemporaryDir::create(parent)?;
        let catalog = create(dir.path(), false)?;
        Ok(Self::new(dir.path().to_owned(), catalog, settings, Some(dir)))
    }

    fn new(root: PathBuf, catalog: Catalog, settings: DiskSettings, temporary: Option<TemporaryDir>) -> Self {
        let DiskSettings { inline_limit, compression } = settings;
        Self { root, catalog, inline_limit, compression, temporary }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Removes what dead writers left.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.root.join(TMP)) else { return };
        for entry in entries.flatten() {
            let age = entry.metadata().and_then(|meta| meta.modified()).map(|at| at.elapsed().unwrap_or_default());
            if age.is_ok_and(|age| age > ABANDONED) {
                // A file that cannot be removed is tried again by the next open.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Writes a value under a temporary name, or to memory when it is small.
    pub(crate) fn write(&self, key: &Key, value: &dyn Stored) -> Result<Draft> {
        let unique = fastrand::u64(..);
        let temporary = self.root.join(TMP).join(format!("{unique:016x}"));
        let fail = |error: Error| error.with_key(key).with_path(&temporary);
        let io = |error| fail(Error::io("cannot write the value", error));

        let mut encoder = Encoder::new(temporary.clone(), self.compression);
        let format = value.encode(&mut encoder).map_err(fail)?;
        let mut encoded = encoder.finish(self.inline_limit).map_err(io)?;
        let mut row = Row {
            version: 0,
            key: key.clone(),
            kind: value.kind(),
            stored_name: value.stored_name(),
            format: format.name().to_owned(),
            bytes: value.size(),
            stored_bytes: encoded.len,
            payload: encoded.len,
            label_at: encoded.len,
            checksums: Vec::new(),
            created_ns: now_ns(),
            about: (!encoded.about.is_empty()).then(|| Json::Object(encoded.about.clone()).to_string()),
            file: None,
            inline: None,
        };
        let body = std::mem::replace(&mut encoded.body, Body::Inline(Vec::new()));
        let file = match body {
            Body::Inline(bytes) => {
                row.inline = Some(bytes);
                None
            }
            Body::File(mut file) => {
                let label = Label {
                    key,
                    kind: row.kind,
                    stored_name: &row.stored_name,
                    format: &row.format,
                    bytes: row.bytes,
                    created_ns: row.created_ns,
                };
                let (at, len) = label.write(&mut file.file, &encoded).map_err(io)?;
                row.label_at = at;
                row.stored_bytes += len;
                row.file = Some(format!("{VALUES}/{}.{unique:016x}.{}", key.file_stem(), format.extension()));
                Some(file)
            }
        };
        row.checksums = encoded.checksums;
        Ok(Draft { row, file })
    }

    /// Publishes drafts together: their files get their names, one transaction commits the rows, and the files that they
    /// replace go away. Gives the versions.
    pub(crate) fn publish(&self, drafts: Vec<Draft>) -> Result<Vec<i64>> {
        let mut rows = Vec::with_capacity(drafts.len());
        let mut placed = Vec::new();
        for Draft { row, file } in drafts {
            if let (Some(mut file), Some(name)) = (file, &row.file) {
                let path = self.root.join(name);
                let result = file.keep_as(&path);
                if let Err(error) = result {
                    self.unlink(&placed);
                    return Err(Error::io("cannot publish the value", error).with_key(&row.key).with_path(&path));
                }
                placed.push(name.clone());
            }
            rows.push(row);
        }
        let (versions, replaced) = self.catalog.publish(&rows).map_err(|error| {
            self.unlink(&placed);
            match rows.as_slice() {
                [row] => error.with_key(&row.key),
                _ => error,
            }
            .with_path(&self.root.join(CATALOG))
        })?;
        self.unlink(&replaced);
        Ok(versions)
    }

    /// Opens the stored bytes of a row.
    pub(crate) fn read(&self, row: Row) -> Result<Decoder> {
        let fail = |error: Error, path: &Path| error.with_key(&row.key).with_path(path);
        let about = row.about.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let payload = match (&row.file, row.inline) {
            (None, Some(bytes)) => {
                let path = self.root.join(CATALOG);
                Payload::inline(bytes, row.checksums).map_err(|error| fail(error, &path))?
            }
            (Some(name), _) => {
                let path = self.value_path(name).map_err(|error| error.with_key(&row.key))?;
                let io = |error| fail(Error::io("cannot open the value's file", error), &path);
                let file = File::open(&path).map_err(io)?;
                let len = file.metadata().map_err(io)?.len();
                if len != row.stored_bytes || row.payload > len {
                    let message = format!("the file has {len} bytes instead of {}", row.stored_bytes);
                    return Err(fail(Error::damaged(message), &path));
                }
                Payload::file(file, row.payload, row.label_at, len - row.payload, row.checksums)
                    .map_err(|error| fail(error, &path))?
            }
            (None, None) => {
                return Err(
                    Error::damaged("the catalog has neither bytes nor a file for this value").with_key(&row.key)
                );
            }
        };
        Ok(Decoder::new(payload, row.format, row.stored_name, about))
    }

    /// The path of a value's file. A catalog that names anything else is not followed.
    pub(crate) fn value_path(&self, name: &str) -> Result<PathBuf> {
        let base = name.strip_prefix("values/").unwrap_or("");
        if base.is_empty() || base.starts_with('.') || base.contains(['/', '\\', '\0']) {
            return Err(Error::damaged(format!("the catalog names {name:?}, which is no value's file")));
        }
        Ok(self.root.join(VALUES).join(base))
    }

    /// Removes keys; gives how many there were.
    pub(crate) fn remove(&self, keys: &[Key]) -> Result<usize> {
        let (removed, files) = self.catalog.remove(keys)?;
        self.unlink(&files);
        Ok(removed)
    }

    /// Removes files that no row names any more. One that stays behind is an orphan, which takes room but does no harm.
    fn unlink(&self, names: &[String]) {
        for name in names {
            if let Ok(path) = self.value_path(name) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn open_catalog(root: &Path) -> Result<Catalog> {
    let path = root.join(CATALOG);
    if !path.exists() {
        return Err(Error::damaged("the chest's catalog is missing").with_path(&path));
    }
    Catalog::open(&path, true).map_err(|error| error.with_path(&path))
}

/// Makes a chest; several processes may do so at once. The manifest comes last: with it the chest is complete.
fn create(root: &Path, durable: bool) -> Result<Catalog> {
    let io = |path: &Path, error| Error::io("cannot make the chest", error).with_path(path);
    let ours = [VALUES, TMP, "quarantine", "lock"];
    for entry in fs::read_dir(root).map_err(|error| io(root, error))? {
        let name = entry.map_err(|error| io(root, error))?.file_name();
        let name = name.to_string_lossy();
        if !ours.contains(&&*name) && !name.starts_with(CATALOG) && !name.starts_with(MANIFEST) {
            let message = format!("the directory is not a chest: it holds {name:?}; give an empty or a new one");
            return Err(Error::invalid(message).with_path(root));
        }
    }
    for folder in [VALUES, TMP] {
        let path = root.join(folder);
        private_dir(&path).map_err(|error| io(&path, error))?;
    }
    let path = root.join(CATALOG);
    let catalog = Catalog::create(&path, durable).map_err(|error| error.with_path(&path))?;
    let manifest = json!({"format": "icechest", "version": FORMAT_VERSION});
    let temporary = root.join(format!("{MANIFEST}.{:016x}", fastrand::u64(..)));
    fs::write(&temporary, format!("{manifest}\n")).map_err(|error| io(&temporary, error))?;
    fs::rename(&temporary, root.join(MANIFEST)).map_err(|error| io(&temporary, error))?;
    Ok(catalog)
}

fn private_dir(path: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn check_manifest(bytes: &[u8]) -> Result<()> {
    let manifest: Json = serde_json::from_slice(bytes)
        .map_err(|error| Error::damaged("the chest's format file is damaged").with_source(error))?;
    if manifest.get("format").and_then(Json::as_str) != Some("icechest") {
        return Err(Error::invalid("the directory is not a chest"));
    }
    match manifest.get("version").and_then(Json::as_i64) {
        Some(FORMAT_VERSION) => Ok(()),
        Some(version) if version > FORMAT_VERSION => Err(Error::unsupported(format!(
            "the chest has format {version}; this version of icechest reads up to {FORMAT_VERSION}; use a newer one"
        ))),
        _ => Err(Error::damaged("the chest's format file names no version")),
    }
}
