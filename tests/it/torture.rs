//! What must hold whatever happens to the processes that share a chest: they are killed at random moments, and they get
//! into each other's way as much as they can.

mod child;
mod journal;
mod kills;
mod making;
mod model;
mod stress;
mod value;
mod writer;

use std::time::Duration;

/// How long a test may take, as told by `ICECHEST_TORTURE_SECONDS`.
pub(crate) fn seconds() -> Option<u64> {
    let seconds = std::env::var("ICECHEST_TORTURE_SECONDS").ok()?;
    Some(seconds.parse().unwrap_or_else(|_| panic!("ICECHEST_TORTURE_SECONDS is no number: {seconds}")))
}

fn seconds_or(default: u64) -> Duration {
    Duration::from_secs(seconds().unwrap_or(default))
}
