//! What the file system below a chest is, and who holds a lock in it.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// Refuses file systems where the catalog's locks and shared memory do not work between machines.
pub(super) fn refuse_network(root: &Path) -> Result<()> {
    match network_name(root) {
        None => Ok(()),
        Some(name) => Err(Error::unsupported(format!(
            "the directory is on {name}, a network file system, where locks between machines cannot be relied on; keep \
             the chest on a local disk and copy the directory when nobody has it open"
        ))
        .with_path(root)),
    }
}

#[cfg(target_os = "linux")]
fn network_name(path: &Path) -> Option<&'static str> {
    let magic = rustix::fs::statfs(path).ok()?.f_type;
    name_of(magic as u32)
}

#[cfg(not(target_os = "linux"))]
fn network_name(_: &Path) -> Option<&'static str> {
    None
}

/// The name of a network file system with this magic number; those are from `linux/magic.h` and the file systems' own
/// headers.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "other systems have no such numbers"))]
fn name_of(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x0102_1997 => "9P",
        0x00c3_6400 => "Ceph",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x0116_1970 => "GFS2",
        0x7461_636f => "OCFS2",
        0x7375_7245 => "Coda",
        0x1983_0326 => "BeeGFS",
        _ => return None,
    })
}

/// The process that holds the write lock of a SQLite database in WAL mode, where the system tells.
///
/// The lock is on one byte of the shared memory file, see "WAL-mode File Format" of SQLite. The file is not opened:
/// closing it would give up this process's own locks.
pub(super) fn writer_of(catalog: &Path) -> Option<u32> {
    let mut shm = catalog.as_os_str().to_owned();
    shm.push("-shm");
    let meta = fs::metadata(shm).ok()?;
    writer_in(&fs::read_to_string("/proc/locks").ok()?, inode(&meta)?)
}

#[cfg(unix)]
fn inode(meta: &fs::Metadata) -> Option<u64> {
    Some(std::os::unix::fs::MetadataExt::ino(meta))
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> Option<u64> {
    None
}

/// Lines are as `7: POSIX  ADVISORY  WRITE 4711 08:01:131 120 120`: the process, the device and inode, the bytes.
fn writer_in(locks: &str, inode: u64) -> Option<u32> {
    const WRITE_LOCK: u64 = 120;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "POSIX", _, "WRITE", pid, file, first, last] = fields[..] else { return None };
        let is_it = file.rsplit(':').next()?.parse() == Ok(inode);
        let range = first.parse().ok()?..=last.parse().unwrap_or(u64::MAX);
        (is_it && range.contains(&WRITE_LOCK)).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known() {
        assert_eq!(name_of(0x6969), Some("NFS"));
        assert_eq!(name_of(0xef53), None, "ext4");
        let dir = tempfile::tempdir().unwrap();
        assert!(refuse_network(dir.path()).is_ok());
    }

    #[test]
    fn the_writer_is_the_one_with_the_lock_on_its_byte() {
        let locks = "1: POSIX  ADVISORY  READ  17 08:01:131 124 124\n\
                     2: POSIX  ADVISORY  WRITE 18 08:01:99 120 120\n\
                     3: FLOCK  ADVISORY  WRITE 19 08:01:131 0 EOF\n\
                     4: POSIX  ADVISORY  WRITE 20 08:01:131 120 120\n";
        assert_eq!(writer_in(locks, 131), Some(20));
        assert_eq!(writer_in(locks, 7), None);
    }
}
