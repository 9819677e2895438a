//! The memory tier without values: which of them would be resident, and what reloading the others would take.

use std::collections::BTreeSet;

use icechest::{Event, Key, Policy, Rank, Usage};
use twox_hash::XxHash3_64;

use super::cost::Cost;
use super::trace::{Act, Trace};

/// Under this name the tier's own history finds what it needs.
mod policy {
    pub(super) use icechest::Usage;
}
#[path = "../../src/memory/history.rs"]
#[allow(clippy::duplicate_mod, reason = "the unit tests replay too")]
mod history;

struct Tier<'a> {
    policy: &'a dyn Policy,
    trace: &'a Trace,
    /// The numbers of the keys, as the tier makes them.
    keys: Vec<u64>,
    history: history::History,
    residents: Vec<Option<Resident>>,
    count: usize,
    queue: BTreeSet<(Rank, u64, usize)>,
    editions: u64,
    used: u64,
}

#[derive(Clone)]
struct Resident {
    usage: Usage,
    rank: Rank,
    edition: u64,
}

/// The seconds that reloads take under a policy.
pub(crate) fn reload_time(policy: &dyn Policy, trace: &Trace, cost: Cost) -> f64 {
    let mut seconds = 0.0;
    replay(policy, trace, cost, |value| seconds += cost.of(trace.sizes[value]));
    seconds
}

/// Tells `loaded` of each value that has to be read from the directory.
pub(crate) fn replay(policy: &dyn Policy, trace: &Trace, cost: Cost, mut loaded: impl FnMut(usize)) {
    policy.set_budget(trace.budget);
    let mut tier = Tier {
        policy,
        trace,
        keys: (0..trace.sizes.len())
            .map(|value| XxHash3_64::oneshot(Key::from(value).canonical().as_bytes()))
            .collect(),
        history: history::History::default(),
        residents: vec![None; trace.sizes.len()],
        count: 0,
        queue: BTreeSet::new(),
        editions: 0,
        used: 0,
    };
    for &(act, value) in &trace.acts {
        match act {
            Act::Read if tier.residents[value].is_some() => tier.hit(value),
            Act::Read => {
                loaded(value);
                tier.insert(value, Some(cost.of(trace.sizes[value])));
            }
            Act::Insert => tier.insert(value, None),
            Act::Remove => _ = tier.leave(value, Event::Removed),
        }
    }
}

impl Tier<'_> {
    fn hit(&mut self, value: usize) {
        let Some(resident) = &mut self.residents[value] else { return };
        self.history.note(&mut resident.usage, self.count);
        let usage = resident.usage;
        let changed = self.policy.observe(Event::Hit, &usage);
        self.place(value, usage, changed);
    }

    fn insert(&mut self, value: usize, took: Option<f64>) {
        let size = self.trace.sizes[value];
        // A value larger than the budget is never resident.
        if size > self.trace.budget {
            self.leave(value, Event::Removed);
            return;
        }
        while self.used + size > self.trace.budget {
            let Some(&(_, _, victim)) = self.queue.first() else { break };
            self.leave(victim, Event::Spilled);
        }
        let before = self.leave(value, Event::Removed);
        let mut usage = self.history.begin(self.keys[value], size, took, self.count);
        usage.uses += before.map_or(0, |usage| usage.uses);
        self.editions += 1;
        self.count += 1;
        self.used += size;
        self.residents[value] = Some(Resident { usage, rank: Rank(0.0, 0.0), edition: self.editions });
        let changed = self.policy.observe(took.map_or(Event::Inserted, |seconds| Event::Loaded { seconds }), &usage);
        self.place(value, usage, changed);
    }

    fn place(&mut self, value: usize, usage: Usage, changed: bool) {
        if changed {
            self.place_all();
        } else if let Some(resident) = &mut self.residents[value] {
            self.queue.remove(&(resident.rank, resident.edition, value));
            resident.rank = self.policy.rank(&usage);
            self.queue.insert((resident.rank, resident.edition, value));
        }
    }

    fn place_all(&mut self) {
        self.queue.clear();
        for (value, resident) in self.residents.iter_mut().enumerate() {
            if let Some(resident) = resident {
                resident.rank = self.policy.rank(&resident.usage);
                self.queue.insert((resident.rank, resident.edition, value));
            }
        }
    }

    fn leave(&mut self, value: usize, event: Event) -> Option<Usage> {
        let resident = self.residents[value].take()?;
        self.queue.remove(&(resident.rank, resident.edition, value));
        self.used -= resident.usage.size;
        self.count -= 1;
        self.history.end(&resident.usage, self.count);
        if self.policy.observe(event, &resident.usage) {
            self.place_all();
        }
        Some(resident.usage)
    }
}
