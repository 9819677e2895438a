//! The tiers: budget, spilling, policies, failures, reopening, threads and processes.

mod ahead;
mod budget;
mod damage;
mod failure;
#[cfg(target_os = "linux")]
mod full;
mod hints;
mod limits;
mod process;
#[cfg(target_os = "linux")]
mod promise;
#[cfg(all(feature = "ndarray", feature = "polars"))]
mod reopen;
mod shared;
mod threads;
