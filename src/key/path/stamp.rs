//! What tells that a file is still the one that it was, without reading it.

use std::fs::Metadata;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the system knows of a file's content. Where there are no inodes, and no times that a program cannot set, less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    /// When the content was changed, in nanoseconds since 1970: any program can set it.
    pub(crate) modified_ns: i64,
    /// When anything was changed, this time included: the system alone sets it.
    pub(crate) changed_ns: i64,
}

impl Stamp {
    #[cfg(unix)]
    pub(crate) fn new(meta: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified_ns: ns(meta.mtime(), meta.mtime_nsec()),
            changed_ns: ns(meta.ctime(), meta.ctime_nsec()),
        }
    }

    #[cfg(not(unix))]
    pub(crate) fn new(meta: &Metadata) -> Self {
        let modified_ns = meta.modified().map_or(0, nanoseconds);
        let created_ns = meta.created().map_or(0, nanoseconds);
        Self { device: 0, inode: created_ns.cast_unsigned(), size: meta.len(), modified_ns, changed_ns: modified_ns }
    }
}

/// Since 1970.
pub(crate) fn nanoseconds(time: SystemTime) -> i64 {
    let ns = |span: std::time::Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    time.duration_since(UNIX_EPOCH).map_or_else(|before| -ns(before.duration()), ns)
}
