//! What users say of keys.

/// What a user said of a key, with [`Chest::pin`](crate::Chest::pin) or
/// [`Chest::prefer_disk`](crate::Chest::prefer_disk).
///
/// ```
/// use icechest::Hint;
/// # let chest = icechest::Chest::temporary()?;
/// chest.insert("k", 1)?;
/// chest.pin("k")?;
/// assert_eq!(chest.info("k")?.hint, Some(Hint::Pin));
/// # Ok::<(), icechest::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hint {
    /// Its value stays in memory: it is spilled after all others.
    Pin,
    /// Its value is not kept in memory: it is published when it is inserted, and read again each time.
    PreferDisk,
}

/// The order in which values leave memory, before their rank counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    First,
    Normal,
    Last,
}

impl From<Option<Hint>> for Standing {
    fn from(hint: Option<Hint>) -> Self {
        match hint {
            Some(Hint::PreferDisk) => Self::First,
            None => Self::Normal,
            Some(Hint::Pin) => Self::Last,
        }
    }
}
