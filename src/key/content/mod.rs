//! Digests of arrays, frames, text and bytes: by what they hold, not by how they hold it.

#[cfg(feature = "ndarray")]
mod array;
#[cfg(feature = "arrow")]
mod arrow;
#[cfg(any(feature = "arrow", feature = "polars"))]
mod column;
#[cfg(any(feature = "arrow", feature = "polars"))]
mod mask;
#[cfg(feature = "polars")]
mod polars;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests;

use std::sync::Arc;

use super::Digest;
use super::outline::Outline;
use super::stream::Stream;

/// What has a digest of its content.
///
/// Equal content has equal digests, in every process, on every machine and in every later release; different content
/// has different ones but for accidents that nobody lives to see. Kind and type are part of the content: an array,
/// its bytes, a text of these bytes and a file of them have four digests. Of
/// - bytes and text, what they are;
/// - arrays, the element type, the shape and the elements, wherever they lie in memory: a view in any order, with any
///   strides, has the digest of its copy;
/// - frames, the names, types and rows of the columns in their order, however the rows are cut into batches or chunks
///   and whatever lies in memory where a value is null. Text in dictionaries, categories and views counts as the text.
///   What the library compares counts too: the fields' nullability and metadata in Arrow, the list of an `Enum`'s
///   categories in polars. Frames of polars and of Arrow are different kinds.
///
/// Floats count by their bits: `0.0` and `-0.0` differ, and so do NaNs with other payloads. What cannot be looked into,
/// such as objects in a frame, has a new digest each time.
///
/// The cost is that of reading the content once: some 15 GB/s a thread where it is contiguous, on as many threads as there
/// are processors where it is large. What has to be put in order first takes two to six times as long: arrays in another
/// order than C, numbers with nulls, text; short text ten times.
///
/// ```
/// # #[cfg(feature = "ndarray")] {
/// use icechest::{Content, Digest};
/// use ndarray::array;
///
/// let a = array![[1.0, 2.0], [3.0, 4.0]];
/// assert_eq!(a.digest(), a.t().t().digest());
/// assert_ne!(a.digest(), a.t().digest());
/// assert_ne!(b"abc".digest(), "abc".digest());
/// # }
/// ```
pub trait Content {
    /// The digest of the content.
    fn digest(&self) -> Digest;
}

impl<T: Content + ?Sized> Content for &T {
    fn digest(&self) -> Digest {
        T::digest(self)
    }
}

impl<T: Content + ?Sized> Content for Arc<T> {
    fn digest(&self) -> Digest {
        T::digest(self)
    }
}

/// As of any content, not as of a file: see [`Digest::of_bytes`] for that.
impl Content for [u8] {
    fn digest(&self) -> Digest {
        of_bytes("bytes", self)
    }
}

impl<const N: usize> Content for [u8; N] {
    fn digest(&self) -> Digest {
        self.as_slice().digest()
    }
}

impl Content for Vec<u8> {
    fn digest(&self) -> Digest {
        self.as_slice().digest()
    }
}

impl Content for str {
    fn digest(&self) -> Digest {
        of_bytes("text", self.as_bytes())
    }
}

impl Content for String {
    fn digest(&self) -> Digest {
        self.as_str().digest()
    }
}

fn of_bytes(kind: &str, bytes: &[u8]) -> Digest {
    let mut stream = Stream::default();
    stream.push(bytes);
    let mut outline = Outline::new(kind);
    outline.stream(stream);
    outline.finish()
}

/// Numbers of so many bytes, the lowest byte first.
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
fn little_endian(bytes: &[u8], width: usize) -> std::borrow::Cow<'_, [u8]> {
    if cfg!(target_endian = "little") || width < 2 {
        return bytes.into();
    }
    bytes.chunks(width).flat_map(|number| number.iter().rev().copied()).collect()
}
