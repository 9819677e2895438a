//! What must hold of a chest, tested from outside.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed, and says where")]

#[cfg(all(feature = "ndarray", feature = "arrow", feature = "lazy"))]
mod append;
#[cfg(feature = "ndarray")]
mod arrays;
#[cfg(all(feature = "ndarray", feature = "polars"))]
mod examples;
#[cfg(all(feature = "ndarray", feature = "arrow", feature = "polars"))]
mod fixture;
#[cfg(all(feature = "arrow", feature = "polars"))]
mod frames;
mod helpers;
mod hostile;
mod keys;
#[cfg(all(feature = "arrow", feature = "lazy"))]
mod lazy;
#[cfg(all(feature = "ndarray", feature = "blosc"))]
mod mapped;
#[cfg(all(feature = "ndarray", feature = "arrow", feature = "polars"))]
mod model;
#[cfg(all(feature = "ndarray", feature = "arrow", feature = "polars"))]
mod parts;
#[cfg(all(feature = "ndarray", feature = "arrow", feature = "polars"))]
mod pieces;
mod plain;
#[cfg(all(feature = "ndarray", feature = "arrow", feature = "polars"))]
mod python;
mod stages;
mod tiers;
#[cfg(unix)]
mod torture;
