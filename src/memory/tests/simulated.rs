//! The default policy on the workloads of the benchmark, which replays them as the tier would.

use super::*;

#[path = "../../../benches/policies/cost.rs"]
#[allow(dead_code, reason = "nothing is measured here")]
mod cost;
#[path = "../../../benches/policies/replay.rs"]
mod replay;
#[path = "../../../benches/policies/trace.rs"]
mod trace;
#[path = "../../../benches/policies/workloads.rs"]
mod workloads;

use self::cost::Cost;
use self::replay::{reload_time, replay};
use self::trace::{Act, Trace};
use self::workloads::Random as Numbers;

const COST: Cost = Cost { latency: 0.0005, per_byte: 1e-9 };

/// Replaces, reads and removes values of many sizes; some are read more often.
fn any_trace(seed: u64) -> Trace {
    let random = &mut Numbers(seed);
    let mut size = || {
        let bits = 4 + random.below(12);
        1 + random.below(1 << bits) as u64
    };
    let sizes: Vec<u64> = (0..300).map(|_| size()).collect();
    let mut acts: Vec<_> = (0..sizes.len()).map(|value| (Act::Insert, value)).collect();
    for _ in 0..20_000 {
        let below = 1 + random.below(sizes.len());
        let act = match random.below(50) {
            0 => Act::Insert,
            1 => Act::Remove,
            _ => Act::Read,
        };
        acts.push((act, random.below(below)));
    }
    Trace { name: String::new(), budget: sizes.iter().sum::<u64>() / 4, sizes, acts }
}

/// The values that the tier itself has to load.
fn loads_of_the_tier(policy: impl Policy, trace: &Trace) -> Vec<usize> {
    let mut residents = Residents::new(Allowance::Bytes(trace.budget), Box::new(policy));
    let mut loads = Vec::new();
    for &(act, value) in &trace.acts {
        let (key, size) = (Key::from(value), trace.sizes[value]);
        if act == Act::Remove {
            residents.remove(&key);
            continue;
        }
        if act == Act::Read && residents.edition(&key).is_some() {
            residents.touch(&key);
            continue;
        }
        while residents.used() + size > trace.budget {
            let victim = residents.victim(|_| false).unwrap();
            assert!(residents.spill(&victim.key));
        }
        if act == Act::Read {
            loads.push(value);
            residents.insert_loaded(key, Arc::new(0u8), size, 1, COST.of(size));
        } else {
            residents.insert(key, Arc::new(0u8), size, Some(1));
        }
    }
    loads
}

#[test]
fn the_benchmark_spills_as_the_tier_does() {
    for seed in 0..4 {
        let trace = any_trace(seed);
        let simulated = |policy: &dyn Policy| {
            let mut loads = Vec::new();
            replay(policy, &trace, COST, |value| loads.push(value));
            loads
        };
        let adaptive = simulated(&Adaptive::default());
        assert!(adaptive.len() > 1000 && adaptive != simulated(&Coldest), "the experts disagree");
        assert_eq!(loads_of_the_tier(Adaptive::default(), &trace), adaptive);
        assert_eq!(loads_of_the_tier(Coldest, &trace), simulated(&Coldest));
        assert_eq!(loads_of_the_tier(Lfu, &trace), simulated(&Lfu));
    }
}

#[test]
fn the_default_is_nowhere_much_slower_than_lru_and_faster_on_average() {
    let mut ratios = Vec::new();
    for trace in workloads::all().into_iter().chain(trace::recorded().unwrap()) {
        let lru = reload_time(&Lru, &trace, COST);
        let ratio = reload_time(&Adaptive::default(), &trace, COST) / lru;
        assert!(ratio < 1.05, "{}: {ratio:.3}", trace.name);
        ratios.push(ratio);
    }
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    assert!(mean < 0.86, "{mean:.3}");
}

#[test]
fn a_scan_does_not_drive_out_the_hot_set() {
    let traces = workloads::all();
    let named = |trace: &&Trace| trace.name.starts_with("scans") && trace.name.ends_with("50 %");
    for trace in traces.iter().filter(named) {
        let hot_loads = |policy: &dyn Policy| {
            let mut loads = 0;
            replay(policy, trace, COST, |value| loads += usize::from(value < 100));
            loads
        };
        let (ours, lru) = (hot_loads(&Adaptive::default()), hot_loads(&Lru));
        assert!(ours * 3 < lru * 2, "{}: {ours} of {lru}", trace.name);
    }
}
