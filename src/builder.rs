//! Settings, and the opening of a chest with them.

use std::path::{Path, PathBuf};

use crate::chest::Chest;
use crate::disk::{Disk, DiskSettings};
use crate::error::Result;
use crate::format::Compression;
use crate::memory::{Budget, Coldest, Policy, Residents};
use crate::store::Store;

/// A value that is stored in so many bytes or fewer goes into the catalog instead of a file.
const INLINE_LIMIT: usize = 16 << 10;

/// Opens a [`Chest`] with settings of your own.
///
/// ```
/// use icechest::{Chest, Compression, Lru};
/// let chest = Chest::builder()
///     .budget("64MiB")
///     .policy(Lru)
///     .compression(Compression::Never)
///     .temporary()?;
/// assert_eq!(chest.stats()?.budget, 64 << 20);
/// # Ok::<(), icechest::Error>(())
/// ```
#[derive(Debug)]
pub struct Builder {
    budget: Budget,
    policy: Box<dyn Policy>,
    compression: Compression,
    inline_limit: usize,
    temporary_in: Option<PathBuf>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            budget: Budget::default(),
            policy: Box::new(Coldest),
            compression: Compression::default(),
            inline_limit: INLINE_LIMIT,
            temporary_in: None,
        }
    }
}

impl Builder {
    /// The bytes that the chest may hold in memory: a number, a fraction of what the process may use, or a text such as
    /// `"2GiB"`. By default half of what the process may use.
    pub fn budget(mut self, budget: impl Into<Budget>) -> Self {
        self.budget = budget.into();
        self
    }

    /// Which value is spilled first; by default [`Coldest`].
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.policy = Box::new(policy);
        self
    }

    /// When values are compressed on their way to disk; by default where a sample shows that it pays.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Values that are stored in so many bytes or fewer go into the catalog, which is faster than a file each. By
    /// default 16 KiB; 0 gives every value a file (an empty one excepted), at most 1 MiB.
    ///
    /// Values in files survive even the loss of the catalog; values in the catalog do not.
    pub fn inline_limit(mut self, bytes: usize) -> Self {
        self.inline_limit = bytes.min(crate::format::BLOCK);
        self
    }

    /// Where [`temporary`](Self::temporary) makes its directory; by default in `TMPDIR` or `/var/tmp`.
    pub fn temporary_in(mut self, parent: impl Into<PathBuf>) -> Self {
        self.temporary_in = Some(parent.into());
        self
    }

    /// Opens the chest in `dir`, or makes one there.
    ///
    /// # Errors
    /// As for [`Chest::open`], and [`Invalid`](crate::ErrorKind::Invalid) for a budget that is no amount.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Chest> {
        let budget = self.budget.bytes()?;
        let disk = Disk::open(dir.as_ref(), self.disk_settings())?;
        Chest::start(Store::new(disk, Residents::new(budget, self.policy)))
    }

    /// Makes a chest that leaves nothing behind.
    ///
    /// # Errors
    /// As for [`Chest::temporary`], and [`Invalid`](crate::ErrorKind::Invalid) for a budget that is no amount.
    pub fn temporary(self) -> Result<Chest> {
        let budget = self.budget.bytes()?;
        let disk = Disk::temporary(self.temporary_in.as_deref(), self.disk_settings())?;
        Chest::start(Store::new(disk, Residents::new(budget, self.policy)))
    }

    fn disk_settings(&self) -> DiskSettings {
        DiskSettings { inline_limit: self.inline_limit, compression: self.compression }
    }
}
