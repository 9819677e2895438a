//! Policies from the literature, and the bound that needs to know the future.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use icechest::{Event, Policy, Rank, Usage};

use super::cost::Cost;
use super::trace::{Act, Trace};

/// GreedyDual-Size-Frequency (Cherkasova 1998): uses times reload time by size, plus the value of what left last.
#[derive(Debug, Default)]
pub(crate) struct GreedyDual(Mutex<Aging>);

/// LFU with dynamic aging (Arlitt and others, 1999): uses, plus the value of what left last.
#[derive(Debug, Default)]
pub(crate) struct LfuAging(Mutex<Aging>);

#[derive(Debug, Default)]
struct Aging {
    age: f64,
    values: HashMap<u64, f64>,
}

impl Aging {
    fn rank(&mut self, usage: &Usage, worth: f64) -> Rank {
        self.values.insert(usage.key, self.age + worth);
        Rank(self.age + worth, usage.last_use as f64)
    }

    fn observe(&mut self, event: Event, usage: &Usage) -> bool {
        if matches!(event, Event::Spilled | Event::Removed) {
            let value = self.values.remove(&usage.key).unwrap_or(0.0);
            if event == Event::Spilled {
                self.age = self.age.max(value);
            }
        }
        false
    }
}

impl Policy for GreedyDual {
    fn rank(&self, usage: &Usage) -> Rank {
        let worth = usage.uses as f64 * usage.cost / usage.size.max(1) as f64;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).rank(usage, worth)
    }

    fn observe(&self, event: Event, usage: &Usage) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).observe(event, usage)
    }
}

impl Policy for LfuAging {
    fn rank(&self, usage: &Usage) -> Rank {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).rank(usage, usage.uses as f64)
    }

    fn observe(&self, event: Event, usage: &Usage) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).observe(event, usage)
    }
}

/// S3-FIFO (Yang and others, SOSP 2023), by bytes: a small queue for a tenth of the budget, a main one, and ghosts.
pub(crate) fn s3_fifo(trace: &Trace, cost: Cost) -> f64 {
    let mut queues = S3::new(trace);
    let mut seconds = 0.0;
    for &(act, value) in &trace.acts {
        match act {
            Act::Read if queues.place[value] != Place::Out => queues.uses[value] = (queues.uses[value] + 1).min(3),
            Act::Read => {
                seconds += cost.of(trace.sizes[value]);
                queues.insert(value);
            }
            Act::Insert => {
                queues.remove(value);
                queues.insert(value);
            }
            Act::Remove => queues.remove(value),
        }
    }
    seconds
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Out,
    Small,
    Main,
}

struct S3<'a> {
    trace: &'a Trace,
    place: Vec<Place>,
    uses: Vec<u8>,
    small: VecDeque<usize>,
    main: VecDeque<usize>,
    ghosts: VecDeque<usize>,
    small_bytes: u64,
    main_bytes: u64,
    ghost_bytes: u64,
}

impl<'a> S3<'a> {
    fn new(trace: &'a Trace) -> Self {
        let count = trace.sizes.len();
        Self {
            trace,
            place: vec![Place::Out; count],
            uses: vec![0; count],
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            small_bytes: 0,
            main_bytes: 0,
            ghost_bytes: 0,
        }
    }

    fn insert(&mut self, value: usize) {
        let size = self.trace.sizes[value];
        if size > self.trace.budget {
            return;
        }
        while self.small_bytes + self.main_bytes + size > self.trace.budget {
            if self.small_bytes > self.trace.budget / 10 || self.main.is_empty() {
                self.spill_small();
            } else {
                self.spill_main();
            }
        }
        self.uses[value] = 0;
        if let Some(at) = self.ghosts.iter().position(|&ghost| ghost == value) {
            self.ghosts.remove(at);
            self.ghost_bytes -= size;
            self.put_main(value);
        } else {
            self.place[value] = Place::Small;
            self.small.push_back(value);
            self.small_bytes += size;
        }
    }

    fn put_main(&mut self, value: usize) {
        self.place[value] = Place::Main;
        self.main.push_back(value);
        self.main_bytes += self.trace.sizes[value];
    }

    fn spill_small(&mut self) {
        let Some(value) = self.small.pop_front() else { return };
        let size = self.trace.sizes[value];
        self.small_bytes -= size;
        if self.uses[value] > 1 {
            self.uses[value] = 0;
            self.put_main(value);
            return;
        }
        self.place[value] = Place::Out;
        self.ghosts.push_back(value);
        self.ghost_bytes += size;
        while self.ghost_bytes > self.trace.budget {
            let Some(ghost) = self.ghosts.pop_front() else { break };
            self.ghost_bytes -= self.trace.sizes[ghost];
        }
    }

    fn spill_main(&mut self) {
        let Some(value) = self.main.pop_front() else { return };
        if self.uses[value] > 0 {
            self.uses[value] -= 1;
            self.main.push_back(value);
            return;
        }
        self.place[value] = Place::Out;
        self.main_bytes -= self.trace.sizes[value];
    }

    fn remove(&mut self, value: usize) {
        let size = self.trace.sizes[value];
        match self.place[value] {
            Place::Out => return,
            Place::Small => {
                self.small.retain(|&other| other != value);
                self.small_bytes -= size;
            }
            Place::Main => {
                self.main.retain(|&other| other != value);
                self.main_bytes -= size;
            }
        }
        self.place[value] = Place::Out;
    }
}

/// Belady's rule with sizes: spills the value whose next read is furthest away, in reads times size by reload time. The
/// true optimum is not known in reasonable time where sizes differ; this comes close to it.
pub(crate) fn belady(trace: &Trace, cost: Cost) -> f64 {
    let next = next_reads(trace);
    let mut seconds = 0.0;
    let mut used = 0;
    // The next read of each resident. Distances shrink alike, so the order by rank is made anew at each load.
    let mut residents: HashMap<usize, usize> = HashMap::new();
    for (now, &(act, value)) in trace.acts.iter().enumerate() {
        let size = trace.sizes[value];
        let is_resident = residents.contains_key(&value);
        if act == Act::Read && !is_resident {
            seconds += cost.of(size);
        }
        if act == Act::Remove {
            used -= residents.remove(&value).map_or(0, |_| size);
            continue;
        }
        if size > trace.budget {
            continue;
        }
        residents.insert(value, next[now]);
        used += if is_resident { 0 } else { size };
        if used <= trace.budget {
            continue;
        }
        let price = |value: usize| trace.sizes[value] as f64 / cost.of(trace.sizes[value]);
        let distance = |next: usize| if next == usize::MAX { f64::INFINITY } else { (next - now) as f64 };
        let far = |(&value, &next): (&usize, &usize)| (Rank(distance(next) * price(value), 0.0), value);
        let mut order: BTreeSet<(Rank, usize)> = residents.iter().map(far).collect();
        while used > trace.budget {
            let Some((_, victim)) = order.pop_last() else { break };
            residents.remove(&victim);
            used -= trace.sizes[victim];
        }
    }
    seconds
}

/// For each act when its value is read next, before it is replaced or removed; never is the largest number.
fn next_reads(trace: &Trace) -> Vec<usize> {
    let mut coming = vec![usize::MAX; trace.sizes.len()];
    let mut next = vec![usize::MAX; trace.acts.len()];
    for (at, &(act, value)) in trace.acts.iter().enumerate().rev() {
        next[at] = coming[value];
        coming[value] = if act == Act::Read { at } else { usize::MAX };
    }
    next
}
