//! Parquet: what a file claims, checked before a library believes it, and the record batches of Arrow.

#[cfg(feature = "arrow")]
pub(crate) mod arrow;
mod claims;
mod footer;
mod thrift;

#[cfg(feature = "arrow")]
pub(crate) use self::claims::Justified;
#[cfg(feature = "polars")]
pub(crate) use self::claims::Part;
pub(crate) use self::claims::{RATIO, check};
pub(crate) use self::footer::check_schema;
#[cfg(feature = "polars")]
pub(crate) use self::footer::footer_range;
