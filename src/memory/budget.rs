//! How much memory a chest may use.

use std::str::FromStr;
use std::sync::LazyLock;

use super::Reading;
use crate::error::{Error, Result};

/// The share of the memory that a chest takes when it is told nothing.
const DEFAULT_SHARE: f64 = 0.5;

/// What any process may use that this is made for, in bytes: half of what a chest may take besides its budget.
const SURE_MEMORY: u64 = 32 << 20;

/// The bytes that a chest may hold in memory.
///
/// Made from a number of bytes, from a fraction of what this process may use (the machine's memory or the limit of its
/// cgroup, whichever is less), or from a text such as `"2GiB"`, `"500 MB"` or `"25%"`.
///
/// Asking how much memory there is takes some hundred microseconds, so a chest with a fraction does that when it needs more
/// than this fraction of 32 MiB, which every process is taken to have.
///
/// ```
/// use icechest::Budget;
/// assert_eq!(Budget::from("2GiB").bytes()?, 2 << 30);
/// assert_eq!(Budget::from("1.5 MB").bytes()?, 1_500_000);
/// assert_eq!(Budget::from(4096).bytes()?, 4096);
/// assert!(Budget::from(0.25).bytes()? > 0);
/// assert!(Budget::from("lots").bytes().is_err());
/// # Ok::<(), icechest::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Budget(Amount);

#[derive(Clone, Debug)]
enum Amount {
    Bytes(u64),
    Share(f64),
    Text(String),
}

impl Budget {
    /// The number of bytes, on this machine and now.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a fraction outside 0 to 1, a negative number, or a text that is no
    /// amount.
    pub fn bytes(&self) -> Result<u64> {
        self.allowance().map(Allowance::bytes)
    }

    /// What is allowed, without asking the system how much memory there is.
    pub(crate) fn allowance(&self) -> Result<Allowance> {
        match &self.0 {
            Amount::Bytes(bytes) => Ok(Allowance::Bytes(*bytes)),
            Amount::Share(share) if (0.0..=1.0).contains(share) => Ok(Allowance::Share(*share)),
            Amount::Share(share) => Err(Error::invalid(format!("a budget of {share} is not between 0 and 1"))),
            Amount::Text(text) => parse(text),
        }
    }

    /// As [`bytes`](Self::bytes), for an amount that has nothing to do with memory.
    pub(crate) fn bytes_on_disk(&self) -> Result<u64> {
        match self.allowance()? {
            Allowance::Bytes(bytes) => Ok(bytes),
            Allowance::Share(_) => {
                Err(Error::invalid("a limit on disk is a number of bytes or a text such as \"10GiB\""))
            }
        }
    }
}

/// What a budget allows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Allowance {
    Bytes(u64),
    /// A fraction of what the process may use.
    Share(f64),
}

impl Allowance {
    /// The number of bytes. The first in a process that is a share takes some hundred microseconds.
    pub(crate) fn bytes(self) -> u64 {
        self.of(usable_memory)
    }

    /// As [`bytes`](Self::bytes), for a process that may use no more than any may.
    pub(super) fn sure_bytes(self) -> u64 {
        self.of(|| SURE_MEMORY)
    }

    fn of(self, usable: impl FnOnce() -> u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Share(share) => (usable() as f64 * share) as u64,
        }
    }
}

impl Default for Budget {
    /// Half of what the process may use.
    fn default() -> Self {
        Self(Amount::Share(DEFAULT_SHARE))
    }
}

impl From<f64> for Budget {
    /// A fraction of what the process may use.
    fn from(share: f64) -> Self {
        Self(Amount::Share(share))
    }
}

impl From<&str> for Budget {
    fn from(text: &str) -> Self {
        Self(Amount::Text(text.to_owned()))
    }
}

impl From<String> for Budget {
    fn from(text: String) -> Self {
        Self(Amount::Text(text))
    }
}

impl FromStr for Budget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let budget = Self::from(text);
        budget.allowance().map(|_| budget)
    }
}

macro_rules! budget_from {
    ($($int:ty)*) => {$(
        impl From<$int> for Budget {
            fn from(bytes: $int) -> Self {
                match u64::try_from(bytes) {
                    Ok(bytes) => Self(Amount::Bytes(bytes)),
                    Err(_) => Self(Amount::Text(bytes.to_string())),
                }
            }
        }
    )*};
}
budget_from!(i32 i64 u32 u64 usize);

fn parse(text: &str) -> Result<Allowance> {
    let wrong = || Error::invalid(format!("{text:?} is no amount of memory; use for example 2GiB, 500MB or 25%"));
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let number: f64 = trimmed[..digits].parse().map_err(|_| wrong())?;
    let unit = match trimmed[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1048576.0,
        "gib" => 1073741824.0,
        "tib" => 1099511627776.0,
        "%" if number <= 100.0 => return Ok(Allowance::Share(number / 100.0)),
        _ => return Err(wrong()),
    };
    Ok(Allowance::Bytes((number * unit) as u64))
}

/// What this process may use: the machine's memory, or the limit of its cgroup.
pub(crate) fn usable_memory() -> u64 {
    /// The system is asked once, in a dozen calls; whoever watches memory asks again.
    static USABLE: LazyLock<u64> = LazyLock::new(|| Reading::now().usable);
    *USABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let cases =
            [("0", 0), ("10", 10), ("1 kib", 1024), ("0.5MiB", 1 << 19), ("3gb", 3_000_000_000), ("2TiB", 2 << 40)];
        for (text, bytes) in cases {
            assert_eq!(Budget::from(text).bytes().unwrap(), bytes, "{text}");
        }
        for text in ["", "GiB", "-1", "1 parsec", "200%", "1.2.3"] {
            assert!(Budget::from(text).bytes().is_err(), "{text}");
        }
        assert!(Budget::from(-1).bytes().is_err());
        assert!(Budget::from(1.5).bytes().is_err());
        assert!(Budget::from(f64::NAN).bytes().is_err());
    }

    #[test]
    fn what_is_no_share_opens_no_chest() {
        for budget in [Budget::from(1.5), Budget::from(f64::NAN), Budget::from("200%"), Budget::from("lots")] {
            let opened = crate::Chest::builder().budget(budget.clone()).temporary();
            assert_eq!(opened.unwrap_err().kind(), crate::ErrorKind::Invalid, "{budget:?}");
        }
    }

    #[test]
    fn memory_is_no_measure_of_a_disk() {
        assert_eq!(Budget::from("1KiB").bytes_on_disk().unwrap(), 1024);
        assert!(Budget::from("25%").bytes_on_disk().is_err() && Budget::from(0.25).bytes_on_disk().is_err());
    }

    #[test]
    fn shares_are_of_the_usable_memory() {
        let all = Budget::from(1.0).bytes().unwrap();
        let half = Budget::from("50%").bytes().unwrap();
        assert!(all > 1 << 20 && half.abs_diff(all / 2) <= 1);
    }
}
