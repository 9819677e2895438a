//! Digests that every release has to give: results of stages are found by them.

use super::*;

/// A name and a digest a line. What another release makes of the same content is another key to everybody.
const TABLE: &str = include_str!("table.txt");

fn plain() -> Vec<(String, Digest)> {
    let many: Vec<u8> = (0..3 << 20).map(|i| (i >> 3) as u8).collect();
    let all =
        [("no bytes", b"".digest()), ("bytes", b"abc".digest()), ("text", "abc".digest()), ("MiBs", many.digest())];
    all.into_iter().map(|(name, digest)| (name.to_owned(), digest)).collect()
}

#[cfg(feature = "ndarray")]
fn arrays() -> Vec<(String, Digest)> {
    use half::f16;
    use ndarray::{Array, arr0, array};
    use num_complex::Complex;
    let all = [
        ("bool", array![true, false].digest()),
        ("i8", array![1i8, -2].digest()),
        ("i16", array![1i16, -2].digest()),
        ("i32", array![[1i32, -2], [3, 4]].digest()),
        ("i64", array![1i64, -2].digest()),
        ("u8", array![1u8, 2].digest()),
        ("u16", array![1u16, 2].digest()),
        ("u32", array![1u32, 2].digest()),
        ("u64", arr0(1u64 << 40).digest()),
        ("f16", array![f16::from_f32(1.5)].digest()),
        ("f32", array![1.5f32].digest()),
        ("f64", array![1.5, f64::NEG_INFINITY].digest()),
        ("complex 32", array![Complex::new(1.5f32, -2.0)].digest()),
        ("complex 64", array![Complex::new(1.5, -2.0)].digest()),
        ("many", Array::from_shape_fn((700, 900), |(i, j)| (i * j) as u64).digest()),
    ];
    all.into_iter().map(|(name, digest)| (format!("array {name}"), digest)).collect()
}

#[cfg(feature = "arrow")]
fn arrow() -> Vec<(String, Digest)> {
    let columns = super::arrow::columns(100).into_iter().enumerate();
    columns.map(|(index, column)| (format!("arrow {index}"), super::arrow::batch([column]).digest())).collect()
}

#[cfg(feature = "polars")]
fn polars() -> Vec<(String, Digest)> {
    let columns = super::polars::columns(100).into_iter();
    columns.enumerate().map(|(index, column)| (format!("polars {index}"), column.digest())).collect()
}

#[test]
fn digests_stay_as_they_are() {
    #[allow(unused_mut, reason = "without features there is nothing to add")]
    let mut digests = plain();
    #[cfg(feature = "ndarray")]
    digests.extend(arrays());
    #[cfg(feature = "arrow")]
    digests.extend(arrow());
    #[cfg(feature = "polars")]
    digests.extend(polars());
    let lines = digests.into_iter().map(|(name, digest)| format!("{name}: {digest}"));
    let changed: Vec<String> = lines.filter(|line| !TABLE.lines().any(|known| known == line)).collect();
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}
