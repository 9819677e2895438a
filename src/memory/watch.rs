//! The budget for now: less than what the user gave while the system is short of memory.

use sysinfo::{
    CGroupLimits, MemoryRefreshKind, Process, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System,
    get_current_pid,
};

/// What is to be had, as a share of the memory that this process may use. Below the first the budget is lowered, so far
/// that the second is free; above the third it rises again. What lies between keeps it from going up and down.
const SHORT: f64 = 0.10;
const ENOUGH: f64 = 0.15;
const AMPLE: f64 = 0.20;

/// The budget is not lowered below this share of what the user gave.
const LEAST: f64 = 1.0 / 16.0;

/// The memory of the system, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// What this process may use: the machine's memory, or the limit of its cgroup, or of one around it.
    pub(crate) usable: u64,
    /// How much of that is to be had without swapping; the page cache is.
    pub(crate) available: u64,
}

impl Reading {
    /// Asks the system, which takes some hundred microseconds.
    pub(crate) fn now() -> Self {
        let only_ram = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        let mut system = System::new_with_specifics(only_ram);
        let machine = Self { usable: system.total_memory(), available: system.available_memory() };
        match group(&mut system) {
            // What it calls free is without the page cache.
            Some(group) if group.total_memory < machine.usable => Self {
                usable: group.total_memory,
                available: group.total_memory.saturating_sub(group.rss).min(machine.available),
            },
            _ => machine,
        }
    }

    fn share(&self, share: f64) -> u64 {
        (self.usable as f64 * share) as u64
    }
}

/// The limits of this process's cgroup: never more than the machine's memory. Within a container the path of the cgroup may be
/// that on the machine, where nothing is; then those of the root, which is the container's.
fn group(system: &mut System) -> Option<CGroupLimits> {
    let me = get_current_pid().ok()?;
    let nothing_more = ProcessRefreshKind::nothing().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[me]), false, nothing_more);
    system.process(me).and_then(Process::cgroup_limits).or_else(|| system.cgroup_limits())
}

/// The limit that shortage sets, if there is any.
#[derive(Default)]
pub(super) struct Watch {
    limit: Option<u64>,
}

impl Watch {
    /// The budget for now of a chest that uses so many bytes and may use `given`.
    pub(super) fn follow(&mut self, reading: Reading, used: u64, given: u64) -> u64 {
        let enough = reading.share(ENOUGH);
        if reading.available < reading.share(SHORT) {
            let limit = used.min(self.budget(given)).saturating_sub(enough - reading.available);
            self.limit = Some(limit.max((given as f64 * LEAST) as u64));
        } else if reading.available > reading.share(AMPLE) {
            // By half of what is there: others may take from it too.
            let higher = used.saturating_add((reading.available - enough) / 2);
            self.limit = self.limit.map(|limit| limit.max(higher)).filter(|&limit| limit < given);
        }
        self.budget(given)
    }

    pub(super) fn budget(&self, given: u64) -> u64 {
        self.limit.map_or(given, |limit| limit.min(given))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn reading(percent: u64) -> Reading {
        Reading { usable: 10 * GIB, available: GIB * percent / 10 }
    }

    #[test]
    fn the_system_has_memory() {
        let now = Reading::now();
        assert!(now.usable > 1 << 26 && now.available <= now.usable, "{now:?}");
    }

    #[test]
    fn shortage_lowers_the_budget_by_what_is_missing() {
        let mut watch = Watch::default();
        assert_eq!(watch.follow(reading(50), 4 * GIB, 5 * GIB), 5 * GIB);
        // A tenth is not short yet.
        assert_eq!(watch.follow(reading(10), 4 * GIB, 5 * GIB), 5 * GIB);
        let lower = watch.follow(reading(5), 4 * GIB, 5 * GIB);
        assert!(lower.abs_diff(3 * GIB) < 1000, "15 % are to be had after a tenth more is spilled: {lower}");
        assert_eq!(watch.follow(reading(0), GIB / 100, 5 * GIB), 5 * GIB / 16);
    }

    #[test]
    fn between_short_and_ample_nothing_changes() {
        let mut watch = Watch::default();
        let lower = watch.follow(reading(5), 4 * GIB, 5 * GIB);
        for percent in [15, 11, 19, 15] {
            assert_eq!(watch.follow(reading(percent), lower, 5 * GIB), lower, "{percent}");
        }
    }

    #[test]
    fn it_rises_again_by_half_of_what_is_there() {
        let mut watch = Watch::default();
        let lower = watch.follow(reading(5), 4 * GIB, 5 * GIB);
        let higher = watch.follow(reading(25), lower, 5 * GIB);
        assert!(higher.abs_diff(lower + GIB / 2) < 1000, "{higher}");
        // Not without end while the memory is not filled.
        assert_eq!(watch.follow(reading(25), lower, 5 * GIB), higher);
        assert_eq!(watch.follow(reading(90), lower, 5 * GIB), 5 * GIB);
        assert_eq!(watch.follow(reading(15), lower, 5 * GIB), 5 * GIB, "the shortage is over");
    }

    #[test]
    fn a_budget_that_the_user_lowers_counts_at_once() {
        let mut watch = Watch::default();
        let lower = watch.follow(reading(5), 4 * GIB, 5 * GIB);
        assert_eq!((watch.budget(GIB), watch.budget(5 * GIB)), (GIB, lower));
    }
}
