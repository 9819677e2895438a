//! The tiers: budget, spilling, policies, failures, reopening, threads and processes.

mod budget;
mod damage;
mod failure;
mod limits;
mod process;
#[cfg(all(feature = "ndarray", feature = "polars"))]
mod reopen;
mod threads;
