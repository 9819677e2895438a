//! Which value to spill: policies on workloads, by the time that reloads take. `cargo bench --bench policies`
//!
//! Each workload is replayed through the tier's own queue, with the chest's policies and with rivals from the
//! literature. A reload costs what reloads cost on this machine: a time for each, and one for each byte, measured at the
//! start. The table says what each policy's reloads take, relative to those of LRU. `-- docs/policies.md` replaces the
//! table in that file.

mod cost;
mod replay;
mod rivals;
mod table;
mod trace;
mod workloads;

use std::error::Error;

use icechest::{Adaptive, Coldest, Largest, Lru, Policy};

use self::cost::Cost;
use self::replay::reload_time;
use self::rivals::{GreedyDual, LfuAging, belady, s3_fifo};
use self::table::Table;
use self::trace::Trace;

type Rival = (&'static str, fn(&Trace, Cost) -> f64);

const RIVALS: [Rival; 8] = [
    ("LRU", |trace, cost| with(Lru, trace, cost)),
    ("largest", |trace, cost| with(Largest, trace, cost)),
    ("GDSF", |trace, cost| with(GreedyDual::default(), trace, cost)),
    ("LFU-DA", |trace, cost| with(LfuAging::default(), trace, cost)),
    ("S3-FIFO", s3_fifo),
    ("`Coldest`", |trace, cost| with(Coldest, trace, cost)),
    ("**`Adaptive`**", |trace, cost| with(Adaptive::default(), trace, cost)),
    ("Belady", belady),
];

fn with(policy: impl Policy, trace: &Trace, cost: Cost) -> f64 {
    reload_time(&policy, trace, cost)
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().skip(1).find(|argument| argument.ends_with(".md"));
    let cost = Cost::measure()?;
    println!("{cost}\n");
    let mut traces = workloads::all();
    traces.extend(trace::recorded()?);
    let mut table = Table::new(RIVALS.map(|(name, _)| name));
    for trace in &traces {
        table.add(&trace.name, RIVALS.map(|(_, replay)| replay(trace, cost)));
    }
    println!("{table}");
    if let Some(file) = file {
        table::publish(file.as_ref(), &format!("{cost}\n\n{table}"))?;
    }
    Ok(())
}
