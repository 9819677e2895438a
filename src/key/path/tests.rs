use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

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

fn options(patterns: &[&str]) -> FolderOptions {
    patterns.iter().fold(FolderOptions::new(), |options, pattern| options.exclude(pattern).unwrap())
}

/// The files that these patterns leave, of those named.
fn left(patterns: &[&str], names: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        fs::write(dir.path().join(name), name).unwrap();
    }
    let read = std::sync::Mutex::new(Vec::new());
    let of_file = |path: &Path, _: &Stamp| {
        read.lock().unwrap().push(path.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned());
        Ok(Digest::of_bytes(b""))
    };
    of_folder(dir.path(), &options(patterns), &of_file).unwrap();
    let read = read.into_inner().unwrap();
    names.iter().map(|name| (*name).to_owned()).filter(|name| read.contains(name)).collect()
}

#[test]
fn excluded_names_do_not_count() {
    let names = ["a.txt", "b.tmp", "sub/c.tmp", "sub/d.txt", "sub/deep/e.txt", "cache/f.txt", "sub/cache/g.txt"];
    let cases: [(&[&str], &[&str]); 10] = [
        (&[], &names),
        (&["*.tmp"], &["a.txt", "sub/d.txt", "sub/deep/e.txt", "cache/f.txt", "sub/cache/g.txt"]),
        (&["/*.tmp"], &["a.txt", "sub/c.tmp", "sub/d.txt", "sub/deep/e.txt", "cache/f.txt", "sub/cache/g.txt"]),
        (&["cache/"], &["a.txt", "b.tmp", "sub/c.tmp", "sub/d.txt", "sub/deep/e.txt"]),
        (&["/cache"], &["a.txt", "b.tmp", "sub/c.tmp", "sub/d.txt", "sub/deep/e.txt", "sub/cache/g.txt"]),
        (&["a.txt/"], &names),
        (
            &["*.tmp", "!c.tmp"],
            &["a.txt", "sub/c.tmp", "sub/d.txt", "sub/deep/e.txt", "cache/f.txt", "sub/cache/g.txt"],
        ),
        (&["!c.tmp", "*.t[mn]p", "sub/d*", "f.tx?"], &["a.txt", "sub/cache/g.txt"]),
        (&["sub/**/e.txt", "**/g.txt"], &["a.txt", "b.tmp", "sub/c.tmp", "sub/d.txt", "cache/f.txt"]),
        (&["sub/**", "!a.txt"], &["a.txt", "b.tmp", "cache/f.txt"]),
    ];
    for (patterns, expected) in cases {
        assert_eq!(left(patterns, &names), expected, "{patterns:?}");
    }
    // A line of a `.gitignore` may be blank.
    let blank = ["", " ", "/", "!", "!/"].iter().fold(FolderOptions::new(), |all, text| all.exclude(text).unwrap());
    assert_eq!(blank, FolderOptions::new());
    assert_eq!(FolderOptions::new().exclude("a[").unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn what_is_excluded_need_not_be_readable() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "x").unwrap();
    let before = digest(dir.path());
    let _listener = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    symlink(dir.path(), dir.path().join("circle")).unwrap();
    let options = options(&["socket", "circle"]);
    assert_eq!(Digest::of_path_with(dir.path(), &options).unwrap(), before);
}

#[test]
fn permissions_count_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (file, folder) = (dir.path().join("file"), dir.path().join("folder"));
    fs::write(&file, "x").unwrap();
    fs::create_dir(&folder).unwrap();
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let counting = FolderOptions::new().permissions(true);
    let both = || (digest(dir.path()), Digest::of_path_with(dir.path(), &counting).unwrap());
    set(&file, 0o644);
    let (without, with) = both();
    assert_ne!(without, with);
    for (path, mode) in [(&file, 0o755), (&folder, 0o700)] {
        let before = both();
        set(path, mode);
        assert_eq!(both().0, without);
        assert_ne!(both().1, before.1);
    }
    let before = both();
    set(dir.path(), 0o750);
    assert_eq!(both(), before);
    assert_eq!(Digest::of_path_with(&file, &counting).unwrap(), digest(&file));
}

#[test]
fn names_that_are_no_unicode_count() {
    let dir = tempfile::tempdir().unwrap();
    let make = |folder: &str, name: &[u8]| {
        let folder = dir.path().join(folder);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(OsStr::from_bytes(name)), "x").unwrap();
        folder
    };
    let (one, two, text) = (make("1", b"a\xff"), make("2", b"a\xfe"), make("3", "a\u{fffd}".as_bytes()));
    let all = [digest(&one), digest(&two), digest(&text)];
    assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), 3);
    assert_eq!(paths_matching(one.join("a*")).unwrap(), [one.join(OsStr::from_bytes(b"a\xff"))]);
}

#[test]
fn a_file_that_grows_while_it_is_read_is_busy() {
    use std::io::Write;
    /// Ends the writer however the test ends.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, vec![7; 16 << 20]).unwrap();
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = End(&end);
        scope.spawn(|| {
            let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
            while !end.load(Ordering::Relaxed) {
                file.write_all(b"line").unwrap();
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
        });
        for path in [path.as_path(), dir.path()] {
            // On a busy machine the writer may sleep as long as the file is read.
            let error = (0..1000).find_map(|_| Digest::of_path(path).err()).unwrap();
            assert_eq!((error.kind(), error.path().unwrap().ends_with("log")), (ErrorKind::Busy, true), "{error}");
            assert!(error.to_string().contains("changed while it was read"));
        }
    });
    digest(dir.path());
}

#[test]
fn a_folder_that_changes_while_it_is_read_is_busy() {
    type Change = (fn(&Path), &'static str);
    let changes: [Change; 6] = [
        (|root| fs::write(root.join("new"), "").unwrap(), ""),
        (|root| fs::write(root.join("sub/new"), "").unwrap(), "sub"),
        (|root| fs::remove_file(root.join("sub/b.bin")).unwrap(), "sub"),
        (|root| fs::rename(root.join("a.txt"), root.join("z.txt")).unwrap(), ""),
        (|root| fs::write(root.join("a.txt"), "other").unwrap(), "a.txt"),
        (|root| set_times_back(&root.join("sub/b.bin")), "sub/b.bin"),
    ];
    for (change, blamed) in changes {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        // Beyond what the file system's clock tells apart.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let done = AtomicBool::new(false);
        let of_file = |_: &Path, _: &Stamp| {
            if !done.swap(true, Ordering::Relaxed) {
                change(dir.path());
            }
            Ok(Digest::of_bytes(b""))
        };
        let error = of_folder(dir.path(), &FolderOptions::new(), &of_file).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Busy, Some(dir.path().join(blamed).as_path())));
        of_folder(dir.path(), &FolderOptions::new(), &of_file).unwrap();
    }
}

/// Writes other bytes, and hides that from the size and the time.
fn set_times_back(path: &Path) {
    let meta = fs::metadata(path).unwrap();
    fs::write(path, vec![8; meta.len() as usize]).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(meta.modified().unwrap()).unwrap();
}

#[test]
fn patterns_find_paths() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for name in ["a.csv", "b.csv", ".c.csv", "[x].csv", "sub/d.csv", "sub/deep/e.csv", "sub/.hidden/f.csv"] {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), "").unwrap();
    }
    symlink(root, root.join("sub/circle")).unwrap();
    let cases: [(&str, &[&str]); 12] = [
        ("*.csv", &["[x].csv", "a.csv", "b.csv"]),
        ("[ab].csv", &["a.csv", "b.csv"]),
        ("[!a].csv", &["b.csv"]),
        ("?.csv", &["a.csv", "b.csv"]),
        (".*.csv", &[".c.csv"]),
        ("[[]x].csv", &["[x].csv"]),
        ("**/*.csv", &["[x].csv", "a.csv", "b.csv", "sub/d.csv", "sub/deep/e.csv"]),
        ("sub/**", &["sub/circle", "sub/d.csv", "sub/deep", "sub/deep/e.csv"]),
        ("*/*.csv", &["sub/d.csv"]),
        ("sub/circle/a.csv", &["sub/circle/a.csv"]),
        ("a.csv", &["a.csv"]),
        ("*/nothing", &[]),
    ];
    for (pattern, expected) in cases {
        let expected: Vec<PathBuf> = expected.iter().map(|name| root.join(name)).collect();
        assert_eq!(paths_matching(root.join(pattern)).unwrap(), expected, "{pattern}");
    }
    assert_eq!(paths_matching(root.join("a[")).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(paths_matching("Cargo.tom*").unwrap(), [PathBuf::from("Cargo.toml")]);
}
