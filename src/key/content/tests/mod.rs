mod table;

#[cfg(feature = "ndarray")]
mod arrays;
#[cfg(feature = "arrow")]
mod arrow;
#[cfg(feature = "polars")]
mod polars;

use std::collections::HashSet;
use std::sync::Arc;

use super::*;

/// All of these differ.
fn assert_distinct(digests: &[Digest]) {
    for (index, digest) in digests.iter().enumerate() {
        let same: Vec<usize> = (0..index).filter(|&other| digests[other] == *digest).collect();
        assert!(same.is_empty(), "{index} is the same as {same:?}");
    }
    assert_eq!(digests.iter().collect::<HashSet<_>>().len(), digests.len());
}

#[test]
fn kinds_are_told_apart() {
    assert_distinct(&[
        b"abc".digest(),
        "abc".digest(),
        Digest::of_bytes(b"abc"),
        b"".digest(),
        "".digest(),
        Digest::of_bytes(b""),
        b"abcd".digest(),
        b"abc\0".digest(),
    ]);
    #[cfg(feature = "ndarray")]
    assert_ne!(ndarray::arr1(b"abc").digest(), b"abc".digest());
}

#[test]
fn whatever_holds_content_plays_no_part() {
    let bytes = b"abc".as_slice();
    assert_eq!(bytes.digest(), b"abc".digest());
    assert_eq!(bytes.to_vec().digest(), bytes.digest());
    assert_eq!(Arc::<[u8]>::from(bytes).digest(), bytes.digest());
    assert_eq!(Arc::<str>::from("abc").digest(), "abc".to_owned().digest());
    assert_eq!(Content::digest(&&&"abc"), "abc".digest());
}
