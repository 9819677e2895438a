//! Which value is spilled first.

use std::cell::Cell;
use std::cmp::Ordering;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};

/// What a policy may know of a resident.
///
/// ```
/// use icechest::{Lru, Policy, Usage};
/// // Policies can be tried by hand.
/// let (mut old, mut new) = (Usage::new(1, 4096), Usage::new(2, 4096));
/// (old.last_use, new.last_use) = (3, 4);
/// assert!(Lru.rank(&old) < Lru.rank(&new));
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// A number made of the key: the same in every run, other for other keys, and without a pattern.
    pub key: u64,
    /// Bytes in memory.
    pub size: u64,
    /// How often the value was inserted or read since it became resident.
    pub uses: u64,
    /// The number of its last use, among all uses in this chest.
    pub last_use: u64,
    /// The epoch of its last use; values used in one epoch are about equally cold. An epoch lasts as many uses as a
    /// quarter of the residents.
    pub epoch: u64,
    /// The time of its last use in turns: one lasts as many uses as there are residents.
    pub turn: f64,
    /// Its uses at the time of the last, also those before it was spilled last; a use counts half after 12 turns.
    pub warmth: f64,
    /// What reading it back costs, as the number of bytes that are read in that time on average: about its size, and more
    /// where it was measured to take longer.
    pub cost: f64,
}

impl Usage {
    /// A value that was never used, with the number of its key and its size in bytes.
    pub fn new(key: u64, size: u64) -> Self {
        Self { key, size, ..Self::default() }
    }
}

/// What happened to a value.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// It came in.
    Inserted,
    /// It was read in memory.
    Hit,
    /// It was read from the directory.
    Loaded {
        /// How long that took.
        seconds: f64,
    },
    /// It had to leave memory.
    Spilled,
    /// It left memory because it was replaced, changed or removed.
    Removed,
}

/// A place in the queue: the lowest is spilled first. Compared by the first number, then by the second.
///
/// ```
/// use icechest::Rank;
/// assert!(Rank(1.0, 9.0) < Rank(2.0, 0.0));
/// assert!(Rank(1.0, -5.0) < Rank(1.0, 0.0));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Rank(pub f64, pub f64);

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0).then(self.1.total_cmp(&other.1))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Rank {}

/// Decides which value is spilled first: the one of the lowest rank.
///
/// A value is ranked when it is inserted and each time it is used. Clean values are spilled before dirty ones, and
/// values that somebody holds are not spilled, whatever their rank.
///
/// All methods are called with the chest locked: in them all calls of a chest give [`Busy`](crate::ErrorKind::Busy).
/// A panic does no harm.
///
/// ```
/// use icechest::{Chest, Policy, Rank, Usage};
///
/// /// Spills what gives most room for each time it was used.
/// #[derive(Debug)]
/// struct RoomPerUse;
/// impl Policy for RoomPerUse {
///     fn rank(&self, usage: &Usage) -> Rank {
///         Rank(usage.uses as f64 / usage.size.max(1) as f64, usage.last_use as f64)
///     }
/// }
/// let chest = Chest::builder().budget(1 << 20).policy(RoomPerUse).temporary()?;
/// chest.insert("a", vec![0u8; 1000])?;
/// # Ok::<(), icechest::Error>(())
/// ```
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// The place of a value that was just used. It is asked for at every use; after a panic the value takes its place by
    /// its last use.
    fn rank(&self, usage: &Usage) -> Rank;

    /// Hears what happened to a value, before it is ranked. Tells whether all residents shall be ranked anew, because
    /// the policy has changed its mind; that takes time in proportion to their number. By default nothing is heard.
    fn observe(&self, _event: Event, _usage: &Usage) -> bool {
        false
    }

    /// Hears the bytes that may be resident, at the beginning and when they change. A share of the machine's memory begins
    /// as that share of 32 MiB: how much it is, is asked when more is needed.
    fn set_budget(&self, _bytes: u64) {}
}

thread_local! {
    static IS_RANKING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is in a policy.
pub(crate) fn is_ranking() -> bool {
    IS_RANKING.get()
}

/// Asks a policy, which is a user's: nothing if it panics.
pub(super) fn ask<T>(question: impl FnOnce() -> T) -> Option<T> {
    IS_RANKING.set(true);
    let answer = panic::catch_unwind(AssertUnwindSafe(question));
    IS_RANKING.set(false);
    answer.ok()
}

/// The rank of a value, by its last use if the policy has none.
pub(super) fn rank(policy: &dyn Policy, usage: &Usage) -> Rank {
    ask(|| policy.rank(usage)).unwrap_or(Rank(usage.last_use as f64, 0.0))
}

/// Tells a policy what happened, and whether it wants all residents ranked anew.
pub(super) fn observe(policy: &dyn Policy, event: Event, usage: &Usage) -> bool {
    ask(|| policy.observe(event, usage)).unwrap_or(false)
}

macro_rules! policies {
    ($($(#[$doc:meta])* $name:ident: |$usage:ident| $rank:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name;
        impl Policy for $name {
            fn rank(&self, $usage: &Usage) -> Rank {
                $rank
            }
        }
    )*};
}
policies! {
    /// What was not used for longest, by epochs, and of equally cold values the largest.
    Coldest: |usage| Rank(usage.epoch as f64, -(usage.size as f64));
    /// The largest value first, of equal ones the least recently used.
    Largest: |usage| Rank(-(usage.size as f64), usage.last_use as f64);
    /// The least recently used value first.
    Lru: |usage| Rank(usage.last_use as f64, 0.0);
    /// The least frequently used value first, of equal ones the least recently used.
    Lfu: |usage| Rank(usage.uses as f64, usage.last_use as f64);
    /// The most recently used value first: for scans that come round again.
    Mru: |usage| Rank(-(usage.last_use as f64), 0.0);
    /// Any value.
    Random: |_usage| Rank(fastrand::f64(), 0.0);
}
