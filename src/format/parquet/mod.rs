//! Parquet: what a file claims, checked before a library believes it, and the record batches of Arrow.

#[cfg(feature = "arrow")]
pub(crate) mod arrow;
mod claims;
#[cfg(feature = "arrow")]
mod dictionaries;
mod footer;
mod thrift;

use super::{Decoder, Encoder, Format};
#[cfg(feature = "arrow")]
use crate::error::ErrorKind;
use crate::error::Result;
#[cfg(feature = "polars")]
use crate::value::frame;

#[cfg(feature = "arrow")]
pub(crate) use self::claims::Justified;
#[cfg(feature = "polars")]
pub(crate) use self::claims::Part;
pub(crate) use self::claims::{RATIO, check};
#[cfg(feature = "arrow")]
pub(crate) use self::dictionaries::Dictionaries;
pub(crate) use self::footer::check_schema;
#[cfg(feature = "polars")]
pub(crate) use self::footer::footer_range;

/// Writes the frame that is read, as one file; with the library that can read it. Gives the bytes that it takes in memory
/// too.
pub(crate) fn rewrite(input: &mut Decoder, out: Encoder) -> Result<(Encoder, Format, u64)> {
    #[cfg(feature = "arrow")]
    match arrow::pieces(input) {
        Err(error) if error.kind() == ErrorKind::Unsupported && cfg!(feature = "polars") => {}
        // What polars wrote it writes again: rows of its frames could not follow another library's as files of their own.
        #[cfg(feature = "polars")]
        Ok(pieces) if !arrow::wrote(&pieces, input) && frame::reads(input) => {}
        pieces => return arrow::rewrite(pieces?, out),
    }
    #[cfg(feature = "polars")]
    return frame::rewrite(input, out);
    #[cfg(not(feature = "polars"))]
    unreachable!("what arrow cannot read is an error then")
}
