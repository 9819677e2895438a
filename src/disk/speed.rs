//! How fast a disk reads, measured once for each disk that a process writes to.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use rustix::fs::{Advice, Mode, OFlags, fadvise, open};

/// What is written and read: long enough that the disk's delays count as they do for a value.
const LEN: usize = 8 << 20;

/// How much is asked for at a time.
const PIECE: usize = 1 << 20;

/// By device; none where it could not be measured.
static SPEEDS: LazyLock<Mutex<HashMap<u64, Option<u64>>>> = LazyLock::new(Mutex::default);

/// Bytes a second that the disk below `dir` reads. Measured at the first call, which takes some 30 ms; nothing is left
/// behind.
pub(super) fn read_speed(dir: &Path) -> Option<u64> {
    let device = dir.metadata().ok()?.dev();
    let mut speeds = SPEEDS.lock().unwrap_or_else(PoisonError::into_inner);
    *speeds.entry(device).or_insert_with(|| measure(dir).ok())
}

/// Writes a file without a name, has the system forget its pages, and reads it. Where the pages are all there is, or are
/// kept elsewhere as well, that is as fast as the disk will ever seem.
fn measure(dir: &Path) -> io::Result<u64> {
    let file = File::from(open(dir, OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?);
    // Not a pattern: some disks compress.
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        bits.to_le_bytes()
    };
    let mut piece: Vec<u8> = (0..PIECE / 8).flat_map(|_| noise()).collect();
    for offset in (0..LEN).step_by(PIECE) {
        file.write_all_at(&piece, offset as u64)?;
    }
    file.sync_data()?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    let began = Instant::now();
    for offset in (0..LEN).step_by(PIECE) {
        file.read_exact_at(&mut piece, offset as u64)?;
    }
    Ok((LEN as f64 / began.elapsed().as_secs_f64().max(1e-9)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_measured_once_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let first = read_speed(dir.path());
        assert_eq!(read_speed(dir.path()), first);
        // Any disk reads a MB a second.
        assert!(first.is_none_or(|speed| speed > 1_000_000), "{first:?}");
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        assert_eq!(read_speed(&dir.path().join("no such folder")), None);
    }
}
