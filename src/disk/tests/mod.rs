//! The disk tier on a medium that fails, or that loses its power.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod faults;
mod locks;
mod medium;
mod power;
mod sqlite;
