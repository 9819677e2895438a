//! The digest of content.

use std::fmt;

use twox_hash::XxHash3_128;

/// 128 bits that stand for content: of bytes, of a file, of a whole folder, of an array or a frame (see
/// [`Content`](crate::Content)).
///
/// The method is XXH3-128, which is made for speed and against accidents; it is no defence against somebody who
/// constructs two files with one digest on purpose.
///
/// As a key, or a part of one, it names a value by what it was made from:
///
/// ```
/// use icechest::{Chest, Digest};
/// # let dir = tempfile::tempdir()?;
/// let input = dir.path().join("input.csv");
/// std::fs::write(&input, "a,b\n1,2\n")?;
/// let chest = Chest::temporary()?;
/// chest.insert(("lines", Digest::of_path(&input)?), 2u64)?;
///
/// // The same content in another place is the same key; changed content is another.
/// let copy = dir.path().join("copy.csv");
/// std::fs::copy(&input, &copy)?;
/// assert!(chest.contains_key(("lines", Digest::of_path(&copy)?))?);
/// std::fs::write(&copy, "a,b\n1,3\n")?;
/// assert!(!chest.contains_key(("lines", Digest::of_path(&copy)?))?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub(crate) [u8; 16]);

impl Digest {
    /// The digest of these bytes; a file of the same bytes has the same digest.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(XxHash3_128::oneshot(bytes).to_be_bytes())
    }

    /// The 16 bytes, as `Display` shows them in hexadecimal.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}
