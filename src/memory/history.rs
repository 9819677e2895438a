//! What is known of the uses of values, also of those that were spilled lately.

use std::collections::{HashMap, VecDeque};

use super::policy::Usage;

/// A use counts half after so many turns.
pub(super) const HALF_LIFE: f64 = 12.0;

/// An epoch is this part of a turn.
const EPOCHS: f64 = 4.0;

/// So many values are remembered after they were spilled, or as many as there are residents.
const REMEMBERED: usize = 1024;

/// Finding and opening a value takes about as long as reading so many bytes.
const OPENING: f64 = 1e5;

/// Counts uses and turns, and remembers values that are resident no more.
pub(super) struct History {
    uses: u64,
    turn: f64,
    past: HashMap<u64, Past>,
    /// The keys of the past with the time when they entered it, the oldest first.
    order: VecDeque<(u64, u64)>,
    entered: u64,
    /// How long reading took lately, and for how much.
    seconds: f64,
    bytes: f64,
}

struct Past {
    warmth: f64,
    turn: f64,
    cost: f64,
    entered: u64,
}

impl Default for History {
    fn default() -> Self {
        Self { uses: 0, turn: 0.0, past: HashMap::new(), order: VecDeque::new(), entered: 0, seconds: 1e-3, bytes: 1e6 }
    }
}

impl History {
    /// A value becomes resident, besides so many; `took` seconds to be read, if it was.
    pub(super) fn begin(&mut self, key: u64, size: u64, took: Option<f64>, residents: usize) -> Usage {
        let mut usage = Usage::new(key, size);
        let past = self.past.remove(&key);
        if let Some(past) = &past {
            (usage.warmth, usage.turn) = (past.warmth, past.turn);
        }
        usage.cost = past.map_or(size as f64 + OPENING, |past| past.cost);
        if let Some(took) = took {
            usage.cost = (usage.cost + self.measured(size, took)) / 2.0;
        }
        self.note(&mut usage, residents);
        usage
    }

    /// The bytes that are read on average in the time that this value took.
    fn measured(&mut self, size: u64, took: f64) -> f64 {
        let bytes = size as f64 + OPENING;
        self.seconds = 0.9 * self.seconds + took;
        self.bytes = 0.9 * self.bytes + bytes;
        if self.seconds > 0.0 { took * self.bytes / self.seconds } else { bytes }
    }

    /// A value is used, one of so many residents.
    pub(super) fn note(&mut self, usage: &mut Usage, residents: usize) {
        self.uses += 1;
        self.turn += 1.0 / residents.max(1) as f64;
        usage.uses += 1;
        usage.last_use = self.uses;
        usage.epoch = (self.turn * EPOCHS) as u64;
        usage.warmth = 1.0 + usage.warmth * ((usage.turn - self.turn) / HALF_LIFE).exp2();
        usage.turn = self.turn;
    }

    /// A value is resident no more, and others are, so many.
    pub(super) fn end(&mut self, usage: &Usage, residents: usize) {
        self.entered += 1;
        let Usage { key, warmth, turn, cost, .. } = *usage;
        self.past.insert(key, Past { warmth, turn, cost, entered: self.entered });
        self.order.push_back((key, self.entered));
        while self.order.len() > residents.max(REMEMBERED) {
            let Some((key, entered)) = self.order.pop_front() else { break };
            if self.past.get(&key).is_some_and(|past| past.entered == entered) {
                self.past.remove(&key);
            }
        }
    }
}
