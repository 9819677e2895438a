//! Parquet: what a file claims, checked before a library believes it, and the record batches of Arrow.

#[cfg(feature = "arrow")]
pub(crate) mod arrow;
mod claims;
mod footer;
mod thrift;

pub(crate) use self::claims::check;
