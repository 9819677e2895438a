//! Catalogs with rows that somebody made, right checksums and all.

use std::fs;
use std::path::Path;

use icechest::{Chest, Compression};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Row, params};
use tempfile::TempDir;
use twox_hash::{XxHash3_64, XxHash3_128};

use crate::helpers::dir;

const OUTSIDE: &str = "outside";

fn value() -> Vec<u8> {
    (0..=255).collect()
}

/// A chest with one value in a file, beside a copy of that file.
fn scene() -> TempDir {
    let dir = dir();
    let root = dir.path().join("chest");
    let chest = Chest::builder().inline_limit(0).compression(Compression::Never).open(&root).unwrap();
    chest.insert("value", value()).unwrap();
    chest.flush().unwrap();
    fs::copy(chest.file("value").unwrap().unwrap(), dir.path().join(OUTSIDE)).unwrap();
    dir
}

/// Sets a column of the value's row, and its checksum.
fn change(root: &Path, column: &str, to: &Sql) {
    let connection = Connection::open(root.join("catalog.sqlite")).unwrap();
    connection.execute(&format!("UPDATE entries SET {column} = ?1"), params![to]).unwrap();
    let columns = "key, kind, type, format, about, file, bytes, stored_bytes, payload, label_at, created_ns, checksums";
    let seal: i64 = connection.query_row(&format!("SELECT {columns} FROM entries"), [], seal).unwrap();
    connection.execute("UPDATE entries SET seal = ?1", [seal]).unwrap();
}

fn seal(row: &Row<'_>) -> rusqlite::Result<i64> {
    let mut sealed = Vec::new();
    for index in 0..6 {
        let text = row.get::<_, Option<String>>(index)?.unwrap_or_default();
        sealed.extend((text.len() as u64).to_le_bytes());
        sealed.extend(text.as_bytes());
    }
    for index in 6..11 {
        sealed.extend(row.get::<_, i64>(index)?.to_le_bytes());
    }
    for index in [4, 5] {
        sealed.push(u8::from(row.get::<_, Option<String>>(index)?.is_some()));
    }
    sealed.extend(row.get::<_, Vec<u8>>(11)?);
    Ok(XxHash3_64::oneshot(&sealed).cast_signed())
}

/// Reads, checks and repairs the chest. Tells whether the value could be read before the repair.
fn use_and_repair(root: &Path, what: &str) -> bool {
    let is_read = Chest::open(root).is_ok_and(|chest| {
        let _ = (chest.infos().map(|infos| infos.len()), chest.stats().map(|stats| stats.to_string()));
        chest.get::<Vec<u8>>("value").is_ok()
    });
    let check = || Chest::check(root);
    check().run().unwrap_or_else(|error| panic!("a check with {what}: {error}"));
    check().repair(true).run().unwrap_or_else(|error| panic!("a repair with {what}: {error}"));
    let again = check().run().unwrap();
    assert!(again.is_healthy(), "a repair with {what} leaves {again}");
    Chest::open(root).and_then(|chest| chest.insert("value", value())).unwrap();
    is_read
}

fn assert_untouched(dir: &Path, what: &str) {
    let names = fs::read_dir(dir).unwrap().count();
    let outside = fs::read(dir.join(OUTSIDE));
    assert!(names == 2 && outside.is_ok_and(|bytes| bytes[8..].starts_with(&value())), "{what} left the directory");
}

#[test]
fn a_file_of_another_place_is_neither_read_nor_touched() {
    let absolute = dir();
    let absolute = absolute.path().join(OUTSIDE).to_str().unwrap().to_owned();
    for file in ["../outside", "values/../../outside", "values/", "", ".", "values/\\..", "icechest.json", &absolute] {
        let dir = scene();
        let root = dir.path().join("chest");
        change(&root, "file", &Sql::Text(file.to_owned()));
        assert!(!use_and_repair(&root, file), "{file:?} was read");
        assert_untouched(dir.path(), file);
    }
}

#[test]
fn numbers_of_a_row_promise_nothing() {
    for column in ["bytes", "stored_bytes", "payload", "label_at", "created_ns"] {
        for number in [0, 1, -1, 1 << 20, 1 << 40, i64::MAX, i64::MIN] {
            let dir = scene();
            change(&dir.path().join("chest"), column, &Sql::Integer(number));
            use_and_repair(&dir.path().join("chest"), &format!("{column} = {number}"));
            assert_untouched(dir.path(), column);
        }
    }
}

#[test]
fn texts_of_a_row_promise_nothing() {
    let empty = XxHash3_128::oneshot(b"").to_be_bytes().to_vec();
    let texts = ["", "bincode+lz4", "json", "npy", "plain", "array", "Array<f64, 2>", "{\"encoded\":-1}", "[1]"];
    let texts = texts.map(|text| Sql::Text(text.to_owned()));
    let columns = ["kind", "type", "format", "about"].map(|column| texts.each_ref().map(|text| (column, text.clone())));
    let checksums = [vec![], vec![0; 15], empty].map(|bytes| ("checksums", Sql::Blob(bytes)));
    for (column, text) in columns.into_iter().flatten().chain(checksums) {
        let dir = scene();
        change(&dir.path().join("chest"), column, &text);
        use_and_repair(&dir.path().join("chest"), &format!("{column} = {text:?}"));
        assert_untouched(dir.path(), column);
    }
}

/// A link or a pipe in the place of the catalog: what it leads to is neither read nor touched, and nobody waits for it.
#[cfg(unix)]
#[test]
fn a_catalog_that_leads_elsewhere_is_not_followed() {
    let pipe = |path: &Path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    for leads in ["link", "pipe"] {
        let (dir, other) = (scene(), scene());
        let (root, elsewhere) = (dir.path().join("chest"), other.path().join("chest"));
        // Another catalog, which names a value that this chest does not have.
        Chest::open(&elsewhere).unwrap().insert("theirs", 1).unwrap();
        let catalog = root.join("catalog.sqlite");
        fs::remove_file(&catalog).unwrap();
        match leads {
            "link" => std::os::unix::fs::symlink(elsewhere.join("catalog.sqlite"), &catalog).unwrap(),
            _ => pipe(&catalog),
        }
        let bytes = fs::read(elsewhere.join("catalog.sqlite")).unwrap();
        let names = fs::read_dir(&elsewhere).unwrap().count();
        assert_eq!(Chest::open(&root).unwrap_err().kind(), icechest::ErrorKind::Damaged, "{leads}");
        assert!(!Chest::check(&root).run().unwrap().is_healthy());
        let report = Chest::check(&root).repair(true).run().unwrap();
        assert_eq!(report.rebuilt, Some(1), "{leads}: {report}");
        let chest = Chest::open(&root).unwrap();
        assert!(!chest.contains_key("theirs").unwrap() && chest.contains_key("value").unwrap());
        assert_eq!(fs::read(elsewhere.join("catalog.sqlite")).unwrap(), bytes);
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), names, "{leads} left the directory");
    }
}
