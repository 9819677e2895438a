//! Settings, and the opening of a chest with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chest::Chest;
use crate::disk::{Disk, DiskSettings, Limit, Os, Storage};
use crate::error::Result;
use crate::format::{Compression, FrameFormat};
use crate::memory::{Adaptive, Allowance, Budget, Policy, Reading, Recorder, Residents};
use crate::store::Store;

/// A value that is stored in so many bytes or fewer goes into the catalog instead of a file.
const INLINE_LIMIT: usize = 16 << 10;

/// When published values are made durable, so that they survive a power cut. A killed process they survive at once.
///
/// After a power cut the next open verifies what was published and not made durable: each value is exact, or the one
/// before it, or absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Only by [`Chest::sync`]. The fastest, for what can be made again. The open after a restart of the machine reads
    /// everything that was never synced, to verify it.
    None,
    /// In the background, after 5 seconds at the latest, and when the chest is closed. Nobody waits for it.
    #[default]
    Eventual,
    /// At once: [`flush`](Chest::flush) returns when everything is durable, as does whatever else publishes or removes. Some
    /// milliseconds a file. What could not be made durable is published all the same, and tried again by the next of these.
    Immediate,
}

/// What happens to a value that a chest with a limit on disk has no room for; see [`Builder::max_disk`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused with [`Full`](crate::ErrorKind::Full), and given back.
    #[default]
    Refuse,
    /// The values that were least recently used are removed to make room for it.
    Evict,
}

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
    trace: Option<PathBuf>,
    compression: Compression,
    disk_speed: Option<Budget>,
    frame_format: FrameFormat,
    inline_limit: usize,
    durability: Durability,
    max_disk: Option<(Budget, WhenFull)>,
    private: bool,
    temporary_in: Option<PathBuf>,
    watch_memory: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            budget: Budget::default(),
            policy: Box::new(Adaptive::default()),
            trace: None,
            compression: Compression::default(),
            disk_speed: None,
            frame_format: FrameFormat::default(),
            inline_limit: INLINE_LIMIT,
            durability: Durability::default(),
            max_disk: None,
            private: true,
            temporary_in: None,
            watch_memory: false,
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

    /// Which value is spilled first; by default [`Adaptive`] decides.
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.policy = Box::new(policy);
        self
    }

    /// Writes what happens to the values in memory to a file, a line for each event: `insert 3 8388608` (bytes), `hit 3`,
    /// `load 3 8388608 0.002` (seconds), `spill 3`, `remove 3`, and `budget 268435456` when that is set. Numbers stand
    /// for keys. `benches/policies` replays such files with any policy. The file is complete when the last clone of the
    /// chest is dropped; `missed 7` in the end tells that seven events came faster than they could be written.
    ///
    /// Without it nothing is recorded and nothing is slower.
    ///
    /// ```
    /// use icechest::Chest;
    /// # let dir = tempfile::tempdir()?;
    /// let file = dir.path().join("trace");
    /// let chest = Chest::builder().budget(4096).trace(&file).temporary()?;
    /// chest.insert("x", vec![0u8; 1000])?;
    /// assert_eq!(chest.get::<Vec<u8>>("x")?.len(), 1000);
    /// drop(chest);
    /// assert!(std::fs::read_to_string(file)?.ends_with("\nhit 0\n"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn trace(mut self, file: impl Into<PathBuf>) -> Self {
        self.trace = Some(file.into());
        self
    }

    /// When values are compressed on their way to disk; by default where a sample shows that it pays. What was done with
    /// an array, and why, is in [`Info::about`](crate::Info::about).
    ///
    /// ```
    /// use icechest::{Chest, Compression};
    /// # #[cfg(feature = "blosc")] {
    /// let chest = Chest::builder().compression(Compression::Fast).temporary()?;
    /// chest.insert("steps", ndarray::Array1::from_iter((0..100_000).map(f64::from)))?;
    /// chest.flush()?;
    /// let about = chest.info("steps")?.about;
    /// assert_eq!(about["compression"], "lz4+shuffle");
    /// assert!(about["why"].as_str().unwrap().starts_with("as asked"));
    /// # }
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// The bytes that the disk reads in a second, as a number or a text such as `"200MB"`: the slower it is, the more
    /// compression pays. By default it is measured, once in a process, when an array of 1 MiB or more is written: with a
    /// file of 8 MiB that no name leads to. Where the system keeps the file in memory (`tmpfs`) the disk seems
    /// as fast as that; where it cannot be measured it is taken for one of 500 MB.
    ///
    /// ```
    /// use icechest::Chest;
    /// let chest = Chest::builder().disk_speed("200MB").temporary()?;
    /// assert!(Chest::builder().disk_speed("fast").temporary().is_err());
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn disk_speed(mut self, bytes: impl Into<Budget>) -> Self {
        self.disk_speed = Some(bytes.into());
        self
    }

    /// Which files frames go into; by default Parquet. A chest reads both, whatever it writes.
    ///
    /// ```
    /// # #[cfg(feature = "polars")] {
    /// use icechest::{Chest, FrameFormat, polars::{df, frame::DataFrame}};
    /// let chest = Chest::builder().frame_format(FrameFormat::Arrow).temporary()?;
    /// chest.insert("flights", df!("to" => ["ATL", "JFK"], "delay" => [3, 45]).unwrap())?;
    /// chest.flush()?;
    /// assert_eq!(chest.info("flights")?.format.as_deref(), Some("arrow"));
    /// assert_eq!(chest.get::<DataFrame>("flights")?.height(), 2);
    /// # }
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn frame_format(mut self, format: FrameFormat) -> Self {
        self.frame_format = format;
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

    /// When published values are made durable; by default in the background.
    ///
    /// ```
    /// use icechest::{Chest, Durability};
    /// # let dir = tempfile::tempdir()?;
    /// let chest = Chest::builder().durability(Durability::Immediate).open(dir.path())?;
    /// chest.insert("result of three days", 42)?;
    /// chest.flush()?; // on the medium
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The bytes that the values may take on disk, as a number or a text such as `"100GiB"`, and what happens to a value
    /// beyond. By default there is no limit.
    ///
    /// The limit holds for what this chest inserts, counting the values of all processes. It counts the files and the
    /// small values in the catalog; the catalog's own pages come on top, some hundred bytes a value, and its log of a few
    /// MiB. While a value is written its file is over the limit, and no more than that. To be able to refuse, such a
    /// chest publishes a value before [`insert`](Chest::insert) returns. In a temporary chest the limit is met when
    /// values are spilled.
    ///
    /// ```
    /// use icechest::{Chest, ErrorKind, WhenFull};
    /// # let parent = tempfile::tempdir()?;
    /// # let (small, cache) = (parent.path().join("small"), parent.path().join("cache"));
    /// let chest = Chest::builder().max_disk("1MiB", WhenFull::Refuse).open(small)?;
    /// let noise: Vec<u64> = (0..200_000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    /// let error = chest.insert("noise", noise).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Full);
    /// assert_eq!(error.into_value::<Vec<u64>>().unwrap().len(), 200_000); // nothing is lost
    ///
    /// let cache = Chest::builder().max_disk("1MiB", WhenFull::Evict).inline_limit(0).open(cache)?;
    /// for i in 0..30u64 {
    ///     cache.insert(i, (0..10_000u64).map(|j| (i + j).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect::<Vec<_>>())?;
    /// }
    /// assert!(cache.stats()?.stored_bytes <= 1 << 20 && cache.contains_key(29)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_disk(mut self, limit: impl Into<Budget>, when_full: WhenFull) -> Self {
        self.max_disk = Some((limit.into(), when_full));
        self
    }

    /// Whether new files and folders are for their owner alone, which is the default. If not, they have the modes that
    /// the process gives to new files.
    pub fn private(mut self, private: bool) -> Self {
        self.private = private;
        self
    }

    /// Where [`temporary`](Self::temporary) makes its directory; by default in `TMPDIR` or `/var/tmp`.
    pub fn temporary_in(mut self, parent: impl Into<PathBuf>) -> Self {
        self.temporary_in = Some(parent.into());
        self
    }

    /// Whether the chest gives memory back when the system runs short of it. Off by default.
    ///
    /// A background thread looks every quarter of a second at what this process may still use, limits of its cgroup
    /// included. When that is less than a tenth of the whole the budget is lowered, and values are spilled until 15 % are
    /// to be had; not below a sixteenth of what you gave. Above 20 % it rises again. [`Stats`](crate::Stats) tells both
    /// budgets.
    ///
    /// ```
    /// let chest = icechest::Chest::builder().budget("64MiB").watch_memory(true).temporary()?;
    /// let stats = chest.stats()?;
    /// assert!(stats.budget == 64 << 20 && stats.budget_now <= stats.budget);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn watch_memory(mut self, watch: bool) -> Self {
        self.watch_memory = watch;
        self
    }

    /// Opens the chest in `dir`, or makes one there.
    ///
    /// # Errors
    /// As for [`Chest::open`], and [`Invalid`](crate::ErrorKind::Invalid) for a budget that is no amount.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Chest> {
        let storage = self.storage();
        self.open_on(dir.as_ref(), storage)
    }

    /// Opens a chest on a storage that need not be the operating system's.
    pub(crate) fn open_on(self, dir: &Path, storage: Arc<dyn Storage>) -> Result<Chest> {
        let budget = self.budget.allowance()?;
        let disk = Disk::open(dir, self.disk_settings()?, storage)?;
        let durability = self.durability;
        self.start(disk, budget, durability)
    }

    /// Makes a chest that leaves nothing behind.
    ///
    /// # Errors
    /// As for [`Chest::temporary`], and [`Invalid`](crate::ErrorKind::Invalid) for a budget that is no amount.
    pub fn temporary(self) -> Result<Chest> {
        let budget = self.budget.allowance()?;
        let disk = Disk::temporary(self.temporary_in.as_deref(), self.disk_settings()?, self.storage())?;
        self.start(disk, budget, Durability::None)
    }

    fn start(self, disk: Disk, budget: Allowance, durability: Durability) -> Result<Chest> {
        let (policy, budget): (Box<dyn Policy>, _) = match &self.trace {
            // A trace begins with the whole budget.
            Some(file) => (Box::new(Recorder::new(self.policy, file)?), Allowance::Bytes(budget.bytes())),
            None => (self.policy, budget),
        };
        let chest = Chest::start(Store::new(disk, Residents::new(budget, policy), durability));
        if self.watch_memory {
            chest.watch_memory(Reading::now)?;
        }
        Ok(chest)
    }

    fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(Os { private: self.private })
    }

    fn disk_settings(&self) -> Result<DiskSettings> {
        let limit = match &self.max_disk {
            Some((limit, when_full)) => {
                Some(Limit { bytes: limit.bytes_on_disk()?, evict: *when_full == WhenFull::Evict })
            }
            None => None,
        };
        let disk_speed = self.disk_speed.as_ref().map(Budget::bytes_on_disk).transpose()?;
        let Self { inline_limit, compression, frame_format, private, .. } = *self;
        Ok(DiskSettings { inline_limit, compression, disk_speed, frame_format, limit, private })
    }
}
