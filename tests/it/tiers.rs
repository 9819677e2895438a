//! The tiers: budget, spilling, policies, failures, reopening, threads and processes.

mod budget;
mod damage;
mod failure;
#[cfg(target_os = "linux")]
mod full;
mod limits;
mod process;
#[cfg(all(feature = "ndarray", feature = "polars"))]
mod reopen;
mod threads;
