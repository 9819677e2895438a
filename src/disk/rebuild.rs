//! A new catalog in place of one that is lost or destroyed: from what can be read of it, and from the value files, each
//! of which says whose value it is.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use super::catalog::{Catalog, Row, Salvaged, salvage};
use super::parts::{Part, Place};
use super::report::{Progress, Report, relative};
#[cfg(unix)]
use super::storage::mode;
use super::storage::{Os, Storage};
use super::{CATALOG, LOCKS, VALUES, keep_out, label, make_catalog, quarantine, refuse_links, session, values};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Payload, checksum};
use crate::key::Key;

/// A new catalog that is complete but not in its place yet.
pub(super) const REBUILT: &str = "catalog.sqlite.rebuilt";

/// What SQLite keeps beside a database.
const LOGS: [&str; 2] = ["-wal", "-shm"];

/// Rows of one transaction.
const BATCH: usize = 1000;

/// Verifies the values of a chest whose catalog cannot be used; makes a new one in a repair.
pub(super) fn rebuild(
    root: &Path,
    repair: bool,
    mut report: Report,
    on_progress: &mut dyn FnMut(&Progress),
) -> Result<Report> {
    let storage = Os::of_chest(root);
    let io = |error| Error::io("cannot make the catalog again", error).with_path(root);
    let catalog = root.join(CATALOG);
    // Until the end.
    let alone = repair.then(|| keep_out(root)).transpose()?.flatten();
    if repair {
        let others = match session::live(&root.join(LOCKS)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            others => others.map_err(io)?,
        };
        if alone.is_none() || !others.is_empty() {
            let pids: Vec<String> = others.iter().map(|(_, pid)| pid.to_string()).collect();
            // Who only reads has not said who it is.
            let place =
                if pids.is_empty() { "elsewhere".to_owned() } else { format!("in process {}", pids.join(", ")) };
            let message =
                format!("the catalog has to be made again, and the chest is open {place}; close it there first");
            return Err(Error::new(ErrorKind::Busy, message).with_path(root));
        }
        if !catalog.exists() && root.join(REBUILT).exists() {
            // An earlier repair was interrupted at its last step.
            for name in LOGS {
                quarantine(root, &root.join(format!("{CATALOG}{name}")), &storage)?;
            }
            fs::rename(root.join(REBUILT), &catalog).map_err(io)?;
            storage.sync(root).map_err(io)?;
            report.rebuilt = Some(Catalog::open(&catalog, true)?.totals()?.0);
            return Ok(report);
        }
    }
    // A link might lead out of the chest.
    let is_ours = refuse_links(root).is_ok() && catalog.exists();
    let saved = match is_ours.then(|| salvage(&catalog)) {
        Some(Err(error)) if error.kind() != ErrorKind::Damaged => return Err(error.with_path(&catalog)),
        saved => saved.and_then(Result::ok).unwrap_or_default(),
    };
    let Salvaged { rows: saved, retired } = saved;
    let (found, damaged) = read_files(root, &mut report, on_progress)?;
    report_missing(&saved, &found, &mut report);
    let (rows, rest) = choose(saved, &retired, found);
    report.values = rows.len() as u64;
    report.bytes = rows.iter().map(|row| row.stored_bytes).sum();
    if !repair {
        return Ok(report);
    }
    make(root, &rows, &storage)?;
    // Before the new catalog is in its place: then they would be files that nobody needs.
    for name in rest {
        quarantine(root, &values::value_path(root, &name)?, &storage)?;
        report.set_aside.push(name);
    }
    // Not earlier: a repair that is interrupted must leave them, or the next one would take an older file for the newest.
    for name in damaged {
        let place = quarantine(root, &values::value_path(root, &name)?, &storage)?;
        for damage in report.damaged.iter_mut().filter(|damage| damage.file == name) {
            damage.quarantined = place.as_ref().map(|place| relative(root, place));
        }
    }
    for name in [CATALOG.to_owned(), format!("{CATALOG}-wal"), format!("{CATALOG}-shm")] {
        let place = quarantine(root, &root.join(&name), &storage)?;
        for damage in report.damaged.iter_mut().filter(|damage| damage.file == name && damage.key.is_none()) {
            damage.quarantined = place.as_ref().map(|place| relative(root, place));
        }
    }
    fs::rename(root.join(REBUILT), &catalog).map_err(io)?;
    storage.sync(root).map_err(io)?;
    let keys: HashSet<&Key> = rows.iter().map(|row| &row.key).collect();
    for damage in &mut report.damaged {
        damage.is_saved |= damage.key.as_ref().is_some_and(|key| keys.contains(key));
    }
    report.rebuilt = Some(rows.len() as u64);
    Ok(report)
}

/// The rows that the value files tell of themselves, and the names of damaged files, which are reported.
fn read_files(
    root: &Path,
    report: &mut Report,
    on_progress: &mut dyn FnMut(&Progress),
) -> Result<(Vec<Found>, Vec<String>)> {
    let storage = Os::of_chest(root);
    let names = match storage.list(&root.join(VALUES)) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
        Err(error) => return Err(Error::io("cannot read the folder", error).with_path(&root.join(VALUES))),
    };
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    let mut progress = Progress { of_values: names.len() as u64, ..Progress::default() };
    progress.of_bytes = names.iter().map(|name| size(&root.join(VALUES).join(name))).sum();
    for name in names {
        let file = format!("{VALUES}/{name}");
        let path = root.join(&file);
        progress.values += 1;
        progress.bytes += size(&path);
        if name.split('.').rev().find_map(session::maker).is_none() {
            report.foreign.push(file);
            on_progress(&progress);
            continue;
        }
        let mut told = None;
        let read = match read_file(&path, &storage, &mut told) {
            // It may be sound; what cannot be looked at is not judged.
            Err(error) if error.kind() == ErrorKind::Io && !error.is_of_the_file() => {
                return Err(error.with_path(&path));
            }
            read => read,
        };
        let key = told.as_ref().map(|(row, _)| row.key.clone());
        found.extend(told.map(|(row, place)| {
            let row = Row { file: Some(file.clone()), ..row };
            Found { row, place, is_sound: read.is_ok() }
        }));
        if let Err(error) = read {
            report.add(key, &file, error.plain());
            damaged.push(file);
        }
        on_progress(&progress);
    }
    Ok((found, damaged))
}

fn size(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |meta| meta.len())
}

/// Tells values whose row can be read but whose file is gone.
fn report_missing(saved: &[Row], found: &[Found], report: &mut Report) {
    let there: HashSet<&str> = found.iter().filter_map(|found| found.row.file.as_deref()).collect();
    let told: HashSet<String> = report.damaged.iter().map(|damage| damage.file.clone()).collect();
    for row in saved {
        for file in row.files().iter().filter(|file| !there.contains(file.as_str()) && !told.contains(*file)) {
            report.add(Some(row.key.clone()), file, "the file is missing");
        }
    }
}

/// A value file with a label.
struct Found {
    row: Row,
    /// Where it belongs, if it is a part of a value.
    place: Option<Place>,
    /// Whether its payload is what the label says.
    is_sound: bool,
}

/// Verifies a file by its own label, which goes into `told`.
fn read_file(path: &Path, storage: &dyn Storage, told: &mut Option<(Row, Option<Place>)>) -> Result<()> {
    let file = storage.open(path).map_err(|error| Error::io("cannot open the file", error))?;
    let (row, _) = told.insert(label::read(&*file)?);
    let label_len = row.stored_bytes - row.payload;
    Payload::file(file, row.payload, row.label_at, label_len, row.checksums.clone())?.verify(|_| {})?;
    Ok(())
}

/// Of several rows of a key the one in the old catalog counts, else the file that was written last; if that one is
/// damaged the value is lost, because an older one would be a wrong one. So is a value whose files are all `retired`: it was
/// replaced or removed. Gives the rows in the order of their writing, and the sound files that are left over.
fn choose(saved: Vec<Row>, retired: &HashSet<String>, found: Vec<Found>) -> (Vec<Row>, Vec<String>) {
    let (parts, found): (Vec<Found>, Vec<Found>) = found.into_iter().partition(|found| found.place.is_some());
    let is_retired = |found: &Found| found.row.file.as_ref().is_some_and(|file| retired.contains(file));
    // A file that is retired as the whole value, but to which rows were appended, still begins it.
    let begun: HashSet<&str> =
        parts.iter().filter(|part| !is_retired(part)).filter_map(|part| Some(&*part.place.as_ref()?.of)).collect();
    let counts =
        |found: &&Found| !is_retired(found) || found.row.file.as_deref().is_some_and(|file| begun.contains(file));
    let mut newest: HashMap<&Key, &str> = HashMap::new();
    let mut by_age: Vec<&Found> = found.iter().filter(counts).collect();
    // One that was written again has the time of the one before.
    by_age.sort_by_key(|found| (found.row.created_ns, found.is_sound));
    newest.extend(by_age.iter().filter_map(|found| Some((&found.row.key, found.row.file.as_deref()?))));
    for row in &saved {
        match &row.file {
            Some(file) => newest.insert(&row.key, file),
            None => newest.insert(&row.key, ""),
        };
    }
    let told: HashMap<&str, &Row> = saved.iter().filter_map(|row| Some((row.file.as_deref()?, row))).collect();
    let mut rows: Vec<Row> = Vec::new();
    for found in found.iter().filter(|found| found.is_sound) {
        let Some(file) = found.row.file.as_deref() else { continue };
        if newest.get(&found.row.key).copied() != Some(file) {
            continue;
        }
        rows.extend(match told.get(file) {
            Some(saved) => with_named(&found.row, saved, &parts),
            None => with_parts(&found.row, file, &parts),
        });
    }
    let is_sound = |row: &Row| row.inline.as_ref().is_some_and(|bytes| checksum(bytes) == *row.checksums);
    let named: HashSet<String> = rows.iter().flat_map(Row::files).collect();
    let sound = found.iter().chain(&parts).filter(|found| found.is_sound);
    let rest = sound.filter_map(|found| found.row.file.clone()).filter(|file| !named.contains(file)).collect();
    rows.extend(saved.iter().filter(|row| row.file.is_none() && is_sound(row)).cloned());
    rows.sort_by_key(|row| row.created_ns);
    (rows, rest)
}

/// The row of a value, as its files tell, with the parts that the old catalog's row names. None if one of them is damaged.
fn with_named(row: &Row, saved: &Row, parts: &[Found]) -> Option<Row> {
    let named = saved.parts().ok()?;
    if named.is_empty() {
        return Some(row.clone());
    }
    let mut rows = row.rows()?;
    let mut chosen = Vec::new();
    for part in &named {
        let is_it = |found: &&Found| found.is_sound && found.row.file.as_ref() == Some(&part.file);
        let found = parts.iter().find(is_it)?;
        let count = found.row.rows()?;
        chosen.push(Part::of_row(&found.row, count).ok()?);
        rows = rows.checked_add(count)?;
    }
    row.with_parts(&chosen, rows).ok()
}

/// The row of a value whose first rows are in `file`, with the parts that say that they follow, each of which begins where
/// the one before ends; the latest where there are several. None if one of them is damaged.
fn with_parts(row: &Row, file: &str, parts: &[Found]) -> Option<Row> {
    let is_of_it = |found: &&Found| found.row.key == row.key && found.place.as_ref().is_some_and(|p| p.of == file);
    let parts: Vec<&Found> = parts.iter().filter(is_of_it).collect();
    if parts.is_empty() {
        return Some(row.clone());
    }
    let mut rows = row.rows()?;
    let mut chosen = Vec::new();
    loop {
        let follows = |found: &&&Found| found.place.as_ref().is_some_and(|place| place.start == rows);
        let Some(next) = parts.iter().filter(follows).max_by_key(|found| found.row.created_ns) else { break };
        let count = next.row.rows().filter(|&count| next.is_sound && count > 0)?;
        chosen.push(Part::of_row(&next.row, count).ok()?);
        rows = rows.checked_add(count)?;
    }
    row.with_parts(&chosen, rows).ok()
}

/// Makes a whole catalog beside the old one.
fn make(root: &Path, rows: &[Row], storage: &Os) -> Result<()> {
    let path = root.join(REBUILT);
    let temporary = root.join(format!("{REBUILT}.new"));
    let io = |error| Error::io("cannot make the catalog again", error).with_path(&path);
    for name in ["", "-wal", "-shm"] {
        // What an interrupted repair left.
        let mut left = temporary.clone().into_os_string();
        left.push(name);
        let _ = fs::remove_file(left);
    }
    make_catalog(&temporary, storage.private).map_err(io)?;
    #[cfg(unix)]
    if let Some(mode) = mode(root) {
        // Whoever could use the chest can use it afterwards.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode & 0o666);
        fs::set_permissions(&temporary, mode).map_err(io)?;
    }
    let catalog = Catalog::create(&temporary, true, &storage.boot())?;
    for batch in rows.chunks(BATCH) {
        catalog.write(true, false, None, |transaction| transaction.publish(batch).map(|_| ()))?;
    }
    catalog.checkpoint()?;
    drop(catalog);
    storage.sync(&temporary).map_err(io)?;
    fs::rename(&temporary, &path).map_err(io)
}
