use std::fs::{self, File};
use std::thread::sleep;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

/// Longer than a file needs to settle.
const A_MOMENT: Duration = Duration::from_millis(80);

const WRONG: Digest = Digest([7; 16]);

fn catalog(dir: &TempDir) -> Arc<Catalog> {
    let path = dir.path().join("catalog.sqlite");
    if path.exists() {
        return Arc::new(Catalog::open(&path, true).unwrap());
    }
    fs::write(&path, "").unwrap();
    Arc::new(Catalog::create(&path, true, "boot").unwrap())
}

/// A file that has settled.
fn settled(dir: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    sleep(A_MOMENT);
    path
}

fn is_known(digests: &Digests, path: &Path) -> bool {
    lock(&digests.known).contains_key(path)
}

/// Remembers a wrong digest: who gives it has not read the file.
fn deceive(digests: &Digests, path: &Path) {
    lock(&digests.known).get_mut(path).unwrap().digest = WRONG;
}

#[test]
fn a_file_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = settled(&dir, "a", "alpha");
    let digests = Digests::new(None, PathBuf::new());
    assert_eq!(digests.of_path(&path, &FolderOptions::new()).unwrap(), Digest::of_bytes(b"alpha"));
    deceive(&digests, &path);
    assert_eq!(digests.of_path(&path, &FolderOptions::new()).unwrap(), WRONG);
    assert_eq!(digests.of_path(&path, &FolderOptions::new()).unwrap(), WRONG);
    // Another name is another file to whoever looks at names.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(digests.of_path(&link, &FolderOptions::new()).unwrap(), Digest::of_bytes(b"alpha"));
    // The link leads elsewhere.
    deceive(&digests, &link);
    let other = settled(&dir, "b", "omega");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&other, &link).unwrap();
    assert_eq!(digests.of_path(&link, &FolderOptions::new()).unwrap(), Digest::of_bytes(b"omega"));
}

#[test]
fn a_changed_file_is_read_again() {
    let changes: [&dyn Fn(&Path); 4] = [
        &|path| fs::write(path, "alphas").unwrap(),
        &|path| fs::write(path, "alpha").unwrap(),
        &|path| {
            let time = fs::metadata(path).unwrap().modified().unwrap();
            fs::write(path, "ALPHA").unwrap();
            File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        },
        &|path| {
            let new = path.with_extension("new");
            fs::write(&new, "ALPHA").unwrap();
            fs::rename(new, path).unwrap();
        },
    ];
    for change in changes {
        let dir = tempfile::tempdir().unwrap();
        let path = settled(&dir, "a", "alpha");
        let digests = Digests::new(Some(catalog(&dir)), PathBuf::new());
        digests.of_path(&path, &FolderOptions::new()).unwrap();
        deceive(&digests, &path);
        change(&path);
        for _ in 0..2 {
            assert_eq!(digests.of_path(&path, &FolderOptions::new()).unwrap(), Digest::of_path(&path).unwrap());
            sleep(A_MOMENT);
        }
        assert!(digests.of_path(&path, &FolderOptions::new()).unwrap() != WRONG && is_known(&digests, &path));
    }
}

#[test]
fn a_young_file_is_read_again_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let digests = Digests::new(None, PathBuf::new());
    for content in ["1", "2", "3", "4"] {
        // All may be within one tick of the clock.
        fs::write(&path, content).unwrap();
        assert_eq!(digests.of_path(&path, &FolderOptions::new()).unwrap(), Digest::of_bytes(content.as_bytes()));
        assert!(!is_known(&digests, &path));
    }
    sleep(A_MOMENT);
    digests.of_path(&path, &FolderOptions::new()).unwrap();
    assert!(is_known(&digests, &path));

    let future = SystemTime::now() + Duration::from_secs(3600);
    File::options().write(true).open(&path).unwrap().set_modified(future).unwrap();
    sleep(A_MOMENT);
    deceive(&digests, &path);
    assert_eq!(digests.of_path(&path, &FolderOptions::new()).unwrap(), Digest::of_bytes(b"4"));
    deceive(&digests, &path);
    assert_eq!(digests.of_path(&path, &FolderOptions::new()).unwrap(), Digest::of_bytes(b"4"));
}

#[test]
fn times_settle_by_how_finely_they_are_told() {
    let ms = 1_000_000;
    let stamp = |modified_ns, changed_ns| Stamp { device: 1, inode: 1, size: 1, modified_ns, changed_ns };
    let fine = 5_000 * ms + 1;
    assert!(!is_settled(&stamp(0, fine), fine + 49 * ms) && is_settled(&stamp(0, fine), fine + 50 * ms));
    assert!(!is_settled(&stamp(fine, 1), fine + 49 * ms) && is_settled(&stamp(fine, 1), fine + 50 * ms));
    let coarse = 5_000 * ms;
    assert!(!is_settled(&stamp(0, coarse), coarse + 2_400 * ms) && is_settled(&stamp(0, coarse), coarse + 2_500 * ms));
    // In the future.
    assert!(!is_settled(&stamp(fine + 9_000 * ms, fine), fine + 60 * ms));
    assert!(!is_settled(&stamp(0, i64::MAX), 0) && is_settled(&stamp(i64::MIN, i64::MIN + 1), i64::MAX));
}

#[test]
fn the_next_process_knows_what_this_one_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = settled(&dir, "a", "alpha");
    let first = Digests::new(Some(catalog(&dir)), PathBuf::new());
    first.of_path(&path, &FolderOptions::new()).unwrap();
    assert!(!lock(&first.unwritten).is_empty());
    drop(first);
    let bytes = path.as_os_str().as_encoded_bytes();
    let known = catalog(&dir).digest(bytes).unwrap().unwrap();
    assert_eq!(known.digest, Digest::of_bytes(b"alpha"));
    let wrong = KnownDigest { digest: WRONG, ..known };
    catalog(&dir).put_digests([(bytes, wrong)].into_iter()).unwrap();
    let second = Digests::new(Some(catalog(&dir)), PathBuf::new());
    assert_eq!(second.of_path(&path, &FolderOptions::new()).unwrap(), WRONG);
    assert!(is_known(&second, &path));

    // One that was read too early, by whatever release, is not believed.
    let early = KnownDigest { hashed_ns: known.stamp.changed_ns, ..wrong };
    catalog(&dir).put_digests([(bytes, early)].into_iter()).unwrap();
    assert_eq!(
        Digests::new(Some(catalog(&dir)), PathBuf::new()).of_path(&path, &FolderOptions::new()).unwrap(),
        Digest::of_bytes(b"alpha")
    );
}

#[test]
fn damaged_rows_are_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = settled(&dir, "a", "alpha");
    let changes = [
        "digest = zeroblob(16)",
        "digest = zeroblob(15)",
        "seal = seal + 1",
        "hashed_ns = hashed_ns + 1",
        "path = x'61'",
        "size = -1",
        "changed_ns = 0",
    ];
    for change in changes {
        let digests = Digests::new(Some(catalog(&dir)), PathBuf::new());
        digests.of_path(&path, &FolderOptions::new()).unwrap();
        drop(digests);
        let sql = Connection::open(dir.path().join("catalog.sqlite")).unwrap();
        assert_eq!(sql.execute(&format!("UPDATE digests SET {change}"), []).unwrap(), 1);
        let digests = Digests::new(Some(catalog(&dir)), PathBuf::new());
        assert_eq!(digests.of_path(&path, &FolderOptions::new()).unwrap(), Digest::of_bytes(b"alpha"), "{change}");
    }
    // A catalog without the table: nothing is remembered, and everything is read.
    let digests = Digests::new(Some(catalog(&dir)), PathBuf::new());
    Connection::open(dir.path().join("catalog.sqlite")).unwrap().execute("DROP TABLE digests", []).unwrap();
    assert_eq!(digests.of_path(&path, &FolderOptions::new()).unwrap(), Digest::of_bytes(b"alpha"));
}

#[test]
fn a_folder_reads_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    fs::create_dir_all(folder.join("sub")).unwrap();
    let names = ["a", "b", "sub/c"];
    names.iter().for_each(|name| fs::write(folder.join(name), name).unwrap());
    sleep(A_MOMENT);
    let digests = Digests::new(Some(catalog(&dir)), PathBuf::new());
    let of = |options: &FolderOptions| digests.of_path(&folder, options).unwrap();
    let whole = FolderOptions::new();
    assert_eq!(of(&whole), Digest::of_path(&folder).unwrap());
    assert!(names.iter().all(|name| is_known(&digests, &folder.join(name))));
    deceive(&digests, &folder.join("b"));
    assert_ne!(of(&whole), Digest::of_path(&folder).unwrap());
    let but_b = FolderOptions::new().exclude("b").unwrap();
    assert_eq!(of(&but_b), Digest::of_path_with(&folder, &but_b).unwrap());
    fs::write(folder.join("b"), "other").unwrap();
    assert_eq!(of(&whole), Digest::of_path(&folder).unwrap());
    fs::write(folder.join("sub/d"), "").unwrap();
    assert_eq!(of(&whole), Digest::of_path(&folder).unwrap());
}

#[test]
fn many_files_are_written_together_and_the_oldest_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    (0..ROWS + 40).for_each(|i| fs::write(folder.join(i.to_string()), i.to_string()).unwrap());
    sleep(A_MOMENT);
    let digests = Digests::new(Some(catalog(&dir)), PathBuf::new());
    digests.of_path(&folder, &FolderOptions::new()).unwrap();
    assert_eq!(lock(&digests.unwritten).len(), 40);
    drop(digests);
    let sql = Connection::open(dir.path().join("catalog.sqlite")).unwrap();
    let rows: i64 = sql.query_row("SELECT count(*) FROM digests", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 100);
}

#[test]
fn what_is_no_file_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let digests = Digests::new(None, PathBuf::new());
    let missing = dir.path().join("missing");
    let error = digests.of_path(&missing, &FolderOptions::new()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (crate::ErrorKind::Io, Some(missing.as_path())));
}
