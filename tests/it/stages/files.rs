//! Files and folders that stages make, stored and restored.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use icechest::{Chest, ErrorKind, Files, Result};

use crate::helpers::dir;

fn tree(root: &Path) {
    fs::create_dir_all(root.join("sub/empty")).unwrap();
    fs::write(root.join("a.txt"), "alpha").unwrap();
    fs::write(root.join("sub/big.bin"), (0..3_000_000u32).map(|i| i as u8).collect::<Vec<_>>()).unwrap();
    fs::write(root.join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(root.join(format!("{}.txt", "long name ".repeat(20))), "long").unwrap();
    symlink("a.txt", root.join("link")).unwrap();
}

fn same(one: &Path, other: &Path) {
    assert_eq!(icechest::Digest::of_path(one).unwrap(), icechest::Digest::of_path(other).unwrap());
}

#[test]
fn folders_come_back_as_they_were() {
    let dir = dir();
    let (source, copy) = (dir.path().join("source"), dir.path().join("deep/copy"));
    tree(&source);
    let chest = Chest::open(dir.path().join("chest")).unwrap();
    chest.insert_files("tree", &source).unwrap();
    fs::remove_file(source.join("link")).unwrap();
    symlink("a.txt", source.join("link")).unwrap();
    for _ in 0..2 {
        // The second time in the place of the first.
        chest.restore("tree", &copy).unwrap();
        same(&source, &copy);
        assert_eq!(fs::read_link(copy.join("link")).unwrap(), Path::new("a.txt"));
        assert_eq!(fs::metadata(copy.join("run.sh")).unwrap().permissions().mode() & 0o111, 0o111);
        assert_eq!(fs::metadata(copy.join("a.txt")).unwrap().permissions().mode() & 0o111, 0);
        fs::write(copy.join("more"), "in the way").unwrap();
    }
    assert_eq!(fs::read_dir(copy.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    let files = chest.get::<Files>("tree").unwrap();
    assert!(files.is_folder());
    assert_eq!(files.bytes(), fs::metadata(source.join("sub/big.bin")).unwrap().len() + 5 + 10 + 4);
    let info = chest.info("tree").unwrap();
    assert_eq!((info.format.as_deref(), info.about["files"].as_u64()), (Some("tar"), Some(5)));
    assert!(info.bytes < 10_000);

    // Any tool unpacks it.
    let file = chest.file("tree").unwrap().unwrap();
    let unpacked = dir.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let tar = std::process::Command::new("tar").arg("-xf").arg(file).arg("-C").arg(&unpacked).status().unwrap();
    assert!(tar.success());
    same(&source, &unpacked);
}

#[test]
fn single_files_keep_their_content_and_their_target_its_name() {
    let dir = dir();
    let (source, copy) = (dir.path().join("model.bin"), dir.path().join("other name"));
    fs::write(&source, vec![7; 100_000]).unwrap();
    let chest = Chest::temporary().unwrap();
    chest.insert_files("model", &source).unwrap();
    fs::write(&copy, "in the way").unwrap();
    chest.restore("model", &copy).unwrap();
    same(&source, &copy);
    assert_eq!(chest.get::<Files>("model").unwrap().entries()[0].path, Path::new("model.bin"));
    assert_eq!(chest.restore("nothing", &copy).unwrap_err().kind(), ErrorKind::NotFound);
    chest.insert("x", 1).unwrap();
    assert_eq!(chest.restore("x", &copy).unwrap_err().kind(), ErrorKind::WrongType);
    same(&source, &copy);
}

#[test]
fn damage_leaves_the_target_as_it_was() {
    let dir = dir();
    let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
    tree(&source);
    let chest = Chest::open(dir.path().join("chest")).unwrap();
    chest.insert_files("tree", &source).unwrap();
    let file = chest.file("tree").unwrap().unwrap();
    drop(chest);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    fs::write(&copy, "before").unwrap();
    let chest = Chest::open(dir.path().join("chest")).unwrap();
    assert_eq!(chest.restore("tree", &copy).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(fs::read_to_string(&copy).unwrap(), "before");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn what_cannot_be_stored_is_refused_and_named() {
    let dir = dir();
    let chest = Chest::temporary().unwrap();
    let missing = dir.path().join("missing");
    let error = chest.insert_files("x", &missing).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Io, Some(missing.as_path())));
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let error = chest.insert_files("x", dir.path()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Unsupported, Some(socket.as_path())));
    assert!(chest.is_empty().unwrap());
}

#[test]
fn archives_that_lead_out_are_refused() {
    // As somebody could write them into a chest: by a type of their own that calls itself Files.
    struct Forged(Vec<u8>);
    impl icechest::Value for Forged {
        const KIND: icechest::Kind = icechest::Kind::Plain;
        fn type_name() -> String {
            "Files".into()
        }
        fn size(&self) -> usize {
            self.0.len()
        }
        fn encode(&self, out: &mut icechest::Encoder) -> Result<icechest::Format> {
            std::io::Write::write_all(out, &self.0)?;
            Ok(icechest::Format::new("tar", "tar"))
        }
        fn decode(_: &mut icechest::Decoder) -> Result<Self> {
            unreachable!()
        }
    }
    /// The header of a file, a folder or a link, as POSIX describes it.
    fn entry(name: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        let size = format!("{:011o}", content.len());
        header[124..135].copy_from_slice(size.as_bytes());
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..263].copy_from_slice(b"ustar\0");
        header[263..265].copy_from_slice(b"00");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
    let folder = || entry("./", b'5', "", b"");
    let outside = dir();
    let link = outside.path().to_str().unwrap();
    let archives = [
        vec![folder(), entry("../evil", b'0', "", b"x")],
        vec![folder(), entry("/tmp/icechest-evil", b'0', "", b"x")],
        vec![folder(), entry("out", b'2', link, b""), entry("out/evil", b'0', "", b"x")],
        vec![folder(), entry("fifo", b'6', "", b"")],
        vec![entry("a", b'0', "", b"x"), entry("b", b'0', "", b"x")],
        vec![vec![0; 1024]],
        vec![vec![7; 1024]],
        vec![],
    ];
    for (i, archive) in archives.into_iter().enumerate() {
        let dir = dir();
        let chest = Chest::temporary().unwrap();
        chest.insert("k", Forged(archive.concat())).unwrap();
        chest.flush().unwrap();
        let error = chest.restore("k", dir.path().join("target")).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Io), "{i}: {error:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{i}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{i}");
        assert!(!Path::new("/tmp/icechest-evil").exists());
    }
}

#[test]
fn a_stage_that_makes_files_makes_them_once() {
    let dir = dir();
    let made = std::cell::Cell::new(0);
    let make = |chest: &Chest| {
        chest.stage("report").arg("n", 3).run_files(|path| -> Result<()> {
            made.set(made.get() + 1);
            fs::create_dir(path)?;
            Ok(fs::write(path.join("report.txt"), "three".repeat(1 << 20))?)
        })
    };
    for _ in 0..2 {
        let chest = Chest::builder().inline_limit(0).open(dir.path().join("chest")).unwrap();
        let stored = make(&chest).unwrap();
        stored.restore(dir.path().join("out")).unwrap();
        assert!(fs::read_to_string(dir.path().join("out/report.txt")).unwrap() == "three".repeat(1 << 20));
        assert_eq!(chest.stage("report").calls().unwrap()[0].arguments["n"].to::<u32>().unwrap(), 3);
    }
    assert_eq!(made.get(), 1);
    // Damage is noticed when the files are restored; then they are made again.
    let chest = Chest::open(dir.path().join("chest")).unwrap();
    let key = make(&chest).unwrap().key().unwrap().clone();
    {
        let file = chest.file(&key).unwrap().unwrap();
        let mut bytes = fs::read(&file).unwrap();
        let place = bytes.len() / 2;
        bytes[place] ^= 1;
        drop(chest);
        fs::write(&file, bytes).unwrap();
        let chest = Chest::open(dir.path().join("chest")).unwrap();
        assert_eq!(make(&chest).unwrap().restore(dir.path().join("out")).unwrap_err().kind(), ErrorKind::Damaged);
        make(&chest).unwrap().restore(dir.path().join("out")).unwrap();
        assert_eq!(made.get(), 2);
    }
    let chest = Chest::open(dir.path().join("chest")).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("chest/tmp")).unwrap().count(), 0);
    let failed = chest.stage("report").arg("n", 4).run_files(|path| fs::write(path.join("x"), "")).unwrap_err();
    assert_eq!(failed.kind(), std::io::ErrorKind::NotFound);
    let nothing = chest.stage("report").arg("n", 5).run_files(|_| Result::<()>::Ok(())).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::Io, "{nothing}");
}
