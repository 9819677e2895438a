//! A chest of which somebody changed a file: whatever is in it, opening, reading, checking and repairing it end well,
//! and touch nothing outside of it.

#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use icechest::{Chest, Compression, ErrorKind, Key, Value};
use libfuzzer_sys::fuzz_target;
use ndarray::Array2;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use twox_hash::{XxHash3_64, XxHash3_128};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    attack: Attack,
    /// Which value, which column.
    which: u8,
    at: u32,
    bytes: &'a [u8],
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Attack {
    /// A value's file is these bytes, or has them somewhere.
    File,
    FilePart,
    /// The same, and the catalog is lost.
    FileAlone,
    FilePartAlone,
    /// A value's file has a label with this JSON and all that belongs to it; the catalog is lost.
    Label,
    LabelFields,
    /// A value's file is a link to one outside.
    Link,
    Catalog,
    CatalogPart,
    Log,
    Manifest,
    /// A row of the catalog says something else, and has the right checksum.
    Row,
}

impl Attack {
    /// Whether the attacker has made checksums, so that anything may be read.
    fn is_sealed(self) -> bool {
        matches!(self, Self::Label | Self::LabelFields | Self::Row)
    }
}

const TEXT: &str = "the quick brown fox jumps over the lazy dog ";
const KEYS: [&str; 6] = ["small", "bytes", "text", "squeezed", "array", "json"];
/// What is put in after a repair.
const NEW: &str = "new";
const OUTSIDE: &str = "outside";

fn small() -> Vec<u32> {
    vec![1, 2, 3]
}
fn bytes() -> Vec<u8> {
    (0..=255).collect()
}
fn text() -> String {
    TEXT.repeat(100)
}
fn array() -> Array2<f32> {
    Array2::from_shape_fn((3, 5), |(i, j)| (i * j) as f32)
}
fn document() -> Json {
    json!({"a": [1, 2.5, null], "b": "c"})
}

struct Template {
    _dir: TempDir,
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// By the place in `KEYS`; the first is in the catalog.
    values: Vec<Option<PathBuf>>,
}

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| make_template().expect("a chest is made"));

fn make_template() -> icechest::Result<Template> {
    let dir = tempfile::tempdir()?;
    let open = |compression, limit| Chest::builder().compression(compression).inline_limit(limit).open(dir.path());
    let chest = open(Compression::Auto, 1 << 10)?;
    chest.insert("small", small())?;
    chest.flush()?;
    drop(chest);
    let chest = open(Compression::Auto, 0)?;
    chest.insert("bytes", bytes())?;
    chest.insert("text", text())?;
    chest.insert("array", array())?;
    chest.insert("json", document())?;
    chest.flush()?;
    drop(chest);
    let chest = open(Compression::Small, 0)?;
    chest.insert("squeezed", text())?;
    chest.flush()?;
    let values = KEYS.iter().map(|key| chest.file(*key)).collect::<icechest::Result<Vec<_>>>()?;
    let root = chest.path().to_owned();
    drop(chest);
    let mut files = BTreeMap::new();
    for path in ["icechest.json", "catalog.sqlite"].map(|name| root.join(name)).iter().chain(values.iter().flatten()) {
        files.insert(path.strip_prefix(&root).expect("it is below").to_owned(), fs::read(path)?);
    }
    let values = values.into_iter().map(|path| Some(path?.strip_prefix(&root).ok()?.to_owned())).collect();
    Ok(Template { _dir: dir, files, values })
}

struct Scene {
    dir: TempDir,
    root: PathBuf,
    attack: Attack,
    /// A value that must not be read any more.
    forbidden: Option<&'static str>,
}

impl Scene {
    fn new(attack: Attack) -> Self {
        let dir = tempfile::tempdir().expect("there is room for a directory");
        let root = dir.path().join("chest");
        fs::create_dir_all(root.join("values")).expect("a folder is made");
        for (path, bytes) in &TEMPLATE.files {
            fs::write(root.join(path), bytes).expect("a file is written");
        }
        let scene = Self { root, dir, attack, forbidden: None };
        fs::write(scene.dir.path().join(OUTSIDE), outside()).expect("a file is written");
        scene
    }

    fn strike(&mut self, input: &Input) {
        let value = TEMPLATE.values[1 + usize::from(input.which) % (KEYS.len() - 1)].as_ref();
        let value = self.root.join(value.expect("all but the first have a file"));
        let catalog = self.root.join("catalog.sqlite");
        match input.attack {
            Attack::File | Attack::FileAlone => put(&value, input.bytes),
            Attack::FilePart | Attack::FilePartAlone => patch(&value, input.at, input.bytes),
            Attack::Label => label(&value, input.at, input.bytes),
            Attack::LabelFields => label_fields(&value, input),
            Attack::Link => {
                fs::remove_file(&value).expect("the file is there");
                let target = self.dir.path().join(OUTSIDE);
                std::os::unix::fs::symlink(target, &value).expect("a link is made");
            }
            Attack::Catalog => put(&catalog, input.bytes),
            Attack::CatalogPart => patch(&catalog, input.at, input.bytes),
            Attack::Log => put(&self.root.join("catalog.sqlite-wal"), input.bytes),
            Attack::Manifest => put(&self.root.join("icechest.json"), input.bytes),
            Attack::Row => self.forbidden = change_row(&catalog, input),
        }
        let alone = [Attack::FileAlone, Attack::FilePartAlone, Attack::Label, Attack::LabelFields];
        if alone.contains(&input.attack) {
            fs::remove_file(&catalog).expect("the catalog is there");
        }
    }

    /// Everything that only reads.
    fn read(&self) {
        let Ok(chest) = Chest::open(&self.root) else { return };
        if let Ok(keys) = chest.keys() {
            let known = |key: &Key| KEYS.iter().chain(&[NEW]).any(|known| Key::from(*known) == *key);
            assert!(self.attack.is_sealed() || keys.iter().all(known), "keys that nobody made: {keys:?}");
            for key in keys {
                let _ = (chest.get::<Json>(&key), chest.info(key));
            }
        }
        let _ = (chest.len(), chest.infos().map(|infos| infos.len()), chest.stats().map(|stats| stats.to_string()));
        self.get("small", &chest, small());
        self.get("bytes", &chest, bytes());
        self.get("text", &chest, text());
        self.get("squeezed", &chest, text());
        self.get("array", &chest, array());
        self.get("json", &chest, document());
    }

    fn get<V: Value + PartialEq>(&self, key: &'static str, chest: &Chest, was: V) {
        let found = chest.get::<V>(key);
        assert!(found.is_err() || self.forbidden != Some(key), "{key} was read from outside");
        if let Ok(found) = found {
            assert!(self.attack.is_sealed() || *found == was, "{key} is another value");
        }
    }

    fn check_and_repair(&self) {
        let _ = Chest::check(&self.root).run().map(|report| report.to_string());
        match Chest::check(&self.root).repair(true).run() {
            Err(error) => assert_ne!(error.kind(), ErrorKind::Damaged, "a repair found damage and left it: {error}"),
            Ok(report) => {
                let again = Chest::check(&self.root).run().expect("a repaired chest can be checked");
                assert!(again.is_healthy(), "a repair repairs: {report}, then {again}");
                let chest = Chest::open(&self.root).expect("a repaired chest opens");
                chest.insert(NEW, 7_u64).and_then(|()| chest.flush()).expect("a repaired chest takes values");
            }
        }
    }

    fn assert_nothing_happened_outside(&self) {
        let names: Vec<_> = fs::read_dir(self.dir.path()).expect("a folder is read").flatten().collect();
        assert_eq!(names.len(), 2, "files outside of the chest: {names:?}");
        let now = fs::read(self.dir.path().join(OUTSIDE)).ok();
        assert_eq!(now.as_deref(), Some(outside()), "a file outside of the chest was changed");
    }
}

/// A file that would be the value of `bytes`, were it in its place.
fn outside() -> &'static [u8] {
    let path = TEMPLATE.values[1].as_ref().expect("it has a file");
    &TEMPLATE.files[path]
}

fn put(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a file is written");
}

fn patch(path: &Path, at: u32, bytes: &[u8]) {
    let mut file = fs::read(path).expect("the file is there");
    let at = at as usize % file.len();
    let end = file.len().min(at + bytes.len());
    file[at..end].copy_from_slice(&bytes[..end - at]);
    put(path, &file);
}

/// A file of a payload of at most 64 bytes and a label in one of its forms, with the right checksum.
fn label(path: &Path, form: u32, json: &[u8]) {
    let mut label = json.to_vec();
    label.extend(XxHash3_128::oneshot(json).to_be_bytes());
    label.extend((json.len() as u32).to_le_bytes());
    label.extend(b"ICECHEST");
    let label = match form % 3 {
        0 => label,
        1 => [&0x184d_2a50_u32.to_le_bytes(), &(label.len() as u32).to_le_bytes(), &*label].concat(),
        _ => label.iter().flat_map(|byte| [6, 4, 2, 0].map(|s| b" \t\n\r"[usize::from(byte >> s & 3)])).collect(),
    };
    put(path, &[&bytes()[..form as usize / 3 % 64], &*label].concat());
}

/// The label that a value should have, but for one field.
fn label_fields(path: &Path, input: &Input) {
    let len = input.at as usize / 3 % 64;
    let checksums = format!("{:032x}", XxHash3_128::oneshot(&bytes()[..len]));
    let format = ["bincode", "bincode+lz4", "json"][input.at as usize % 3];
    let mut fields = json!({
        "icechest": 1, "key": "\"bytes\"", "kind": "plain", "type": "Vec<u8>", "format": format, "bytes": 1,
        "created_ns": 1, "payload": len, "checksums": checksums, "about": {"encoded": 1},
    });
    let names = ["icechest", "key", "kind", "type", "format", "bytes", "created_ns", "payload", "checksums", "about"];
    let text = String::from_utf8_lossy(input.bytes);
    let told = serde_json::from_str(&text).unwrap_or_else(|_| Json::from(text));
    fields[names[usize::from(input.which) % names.len()]] = told;
    label(path, input.at, fields.to_string().as_bytes());
}

/// Changes a column of the row of `bytes` and seals it again. Tells the value if its file lies outside now.
fn change_row(catalog: &Path, input: &Input) -> Option<&'static str> {
    let columns = [
        "file",
        "key",
        "kind",
        "type",
        "format",
        "about",
        "checksums",
        "inline",
        "bytes",
        "stored_bytes",
        "payload",
        "label_at",
        "created_ns",
        "version",
    ];
    let column = columns[usize::from(input.which) % columns.len()];
    let text = String::from_utf8_lossy(input.bytes).into_owned();
    let mut number = [0; 8];
    let len = input.bytes.len().min(8);
    number[..len].copy_from_slice(&input.bytes[..len]);
    let value = match column {
        "checksums" | "inline" => Sql::Blob(input.bytes.to_vec()),
        "bytes" | "stored_bytes" | "payload" | "label_at" | "created_ns" | "version" => {
            Sql::Integer(i64::from_le_bytes(number))
        }
        _ => Sql::Text(text.clone()),
    };
    let connection = Connection::open(catalog).expect("the catalog opens");
    let update = format!("UPDATE entries SET {column} = ?1 WHERE key = '\"bytes\"'");
    if connection.execute(&update, params![value]).is_ok_and(|rows| rows == 1) {
        seal(&connection);
    }
    let inside = text.strip_prefix("values/").is_some_and(|name| !name.contains('/'));
    (column == "file" && !inside).then_some("bytes")
}

/// Gives each row the hashes and the checksum that belong to it.
fn seal(connection: &Connection) {
    let sql = "SELECT version, key, kind, type, format, about, file, bytes, stored_bytes, payload, label_at, \
               created_ns, checksums FROM entries";
    let mut query = connection.prepare(sql).expect("the query is right");
    let rows = query.query_map([], |row| {
        let part = |index| row.get::<_, Option<String>>(index);
        let texts = [part(1)?, part(2)?, part(3)?, part(4)?, part(5)?, part(6)?];
        let mut numbers = [0_i64; 5];
        for (index, number) in numbers.iter_mut().enumerate() {
            *number = row.get(7 + index)?;
        }
        Ok((row.get::<_, i64>(0)?, texts, numbers, row.get::<_, Vec<u8>>(12)?))
    });
    let rows: Vec<_> = rows.expect("the query runs").flatten().collect();
    for (version, texts, numbers, checksums) in rows {
        let mut sealed = Vec::new();
        for text in &texts {
            let text = text.as_deref().unwrap_or_default();
            sealed.extend((text.len() as u64).to_le_bytes());
            sealed.extend(text.as_bytes());
        }
        sealed.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        sealed.extend([u8::from(texts[4].is_some()), u8::from(texts[5].is_some())]);
        sealed.extend(checksums);
        let key = texts[0].as_deref().unwrap_or_default().as_bytes();
        let hash = XxHash3_64::oneshot(key).cast_signed();
        let seal = XxHash3_64::oneshot(&sealed).cast_signed();
        let update = "UPDATE entries SET hash = ?1, seal = ?2 WHERE version = ?3";
        connection.execute(update, [hash, seal, version]).expect("a row is sealed");
    }
}

fuzz_target!(|input: Input| {
    let mut scene = Scene::new(input.attack);
    scene.strike(&input);
    scene.read();
    scene.check_and_repair();
    scene.read();
    scene.assert_nothing_happened_outside();
});
