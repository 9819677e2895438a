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

/// A bucket of the index as somebody else might write it, with the right checksum.
fn write_bucket(root: &Path, number: i64, rest: &[u8]) {
    let seal = XxHash3_64::oneshot_with_seed(number.cast_unsigned(), rest);
    let connection = Connection::open(root.join("catalog.sqlite")).unwrap();
    let blob = [&seal.to_le_bytes(), rest].concat();
    connection.execute("INSERT OR REPLACE INTO buckets VALUES (?1, ?2)", params![number, blob]).unwrap();
}

#[test]
fn an_index_promises_nothing() {
    let scene = || {
        let dir = scene();
        let connection = Connection::open(dir.path().join("chest/catalog.sqlite")).unwrap();
        let blob: Vec<u8> = connection.query_row("SELECT entries FROM buckets", [], |row| row.get(0)).unwrap();
        (dir, blob[8..].to_vec())
    };
    let (_, rest) = scene();
    assert_eq!(rest.len(), 1 + 12, "a level and an entry");
    let mut lies: Vec<(i64, Vec<u8>, &str)> = vec![
        (0, vec![], "nothing"),
        (0, rest[..1].to_vec(), "no entry"),
        (0, rest[..7].to_vec(), "half an entry"),
        (0, [&rest[..], &rest[1..]].concat(), "an entry twice"),
        (1, rest.clone(), "a bucket too many"),
        (-1, rest.clone(), "a bucket before the first"),
    ];
    for level in [1, 32, 33, 255] {
        lies.push((0, [&[level], &rest[1..]].concat(), "another level"));
    }
    for version in [0, 7, -1, i64::MAX, i64::MIN] {
        lies.push((0, [&rest[..5], &version.to_le_bytes()].concat(), "another version"));
    }
    lies.push((0, [&rest[..1], &[rest[1] ^ 1], &rest[2..]].concat(), "another hash"));
    for (number, lie, what) in lies {
        let (dir, _) = scene();
        let root = dir.path().join("chest");
        write_bucket(&root, number, &lie);
        assert!(!Chest::check(&root).run().unwrap().is_healthy(), "{what}");
        use_and_repair(&root, what);
        assert_eq!(*Chest::open(&root).unwrap().get::<Vec<u8>>("value").unwrap(), value(), "{what}");
        assert_untouched(dir.path(), what);
    }
}

#[test]
fn a_row_without_a_version_is_none() {
    for version in [0, -1, i64::MIN] {
        let dir = scene();
        let root = dir.path().join("chest");
        let connection = Connection::open(root.join("catalog.sqlite")).unwrap();
        let blob: Vec<u8> = connection.query_row("SELECT entries FROM buckets", [], |row| row.get(0)).unwrap();
        connection.execute("UPDATE entries SET version = ?1", [version]).unwrap();
        drop(connection);
        write_bucket(&root, 0, &[&blob[8..13], &version.to_le_bytes()].concat());
        let read = Chest::open(&root).unwrap().get::<Vec<u8>>("value");
        assert_eq!(read.unwrap_err().kind(), icechest::ErrorKind::Damaged, "{version}");
        use_and_repair(&root, &format!("version {version}"));
        assert_eq!(*Chest::open(&root).unwrap().get::<Vec<u8>>("value").unwrap(), value(), "{version}");
    }
}

#[test]
fn the_sums_of_a_catalog_promise_nothing() {
    let numbers = [0, 1, -1, 1 << 31, 1 << 40, i64::MAX, i64::MIN];
    for column in ["live", "stored", "waiting", "synced", "last", "buckets"] {
        for number in numbers {
            let dir = scene();
            let root = dir.path().join("chest");
            let connection = Connection::open(root.join("catalog.sqlite")).unwrap();
            connection.execute(&format!("UPDATE state SET {column} = ?1"), [number]).unwrap();
            let columns = "live, stored, waiting, synced, last, buckets, boot";
            let sealed = connection.query_row(&format!("SELECT {columns} FROM state"), [], |row| {
                let mut sealed = Vec::new();
                for index in 0..6 {
                    sealed.extend(row.get::<_, i64>(index)?.to_le_bytes());
                }
                sealed.extend(row.get::<_, String>(6)?.bytes());
                Ok(XxHash3_64::oneshot(&sealed).cast_signed())
            });
            connection.execute("UPDATE state SET seal = ?1", [sealed.unwrap()]).unwrap();
            drop(connection);
            use_and_repair(&root, &format!("{column} = {number}"));
            assert_untouched(dir.path(), column);
        }
    }
}
