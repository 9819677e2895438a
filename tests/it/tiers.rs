//! The tiers: budget, spilling, policies, failures, reopening, threads and processes.

mod budget;
mod failure;
mod process;
mod reopen;
mod threads;
