//! What must hold of a chest, tested from outside.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed, and says where")]

mod arrays;
mod examples;
mod frames;
mod helpers;
mod keys;
mod model;
mod plain;
mod python;
mod tiers;
