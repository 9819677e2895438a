//! The default policy: three experts rehearse with what really happens, and the one that lost least time decides.

mod rehearsal;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use self::rehearsal::Rehearsal;
use super::history::HALF_LIFE;
use super::policy::{Event, Policy, Rank, Usage};

/// So many values take part in a rehearsal at most; of more, a part that their hashes choose.
const SAMPLE: usize = 1024;

/// A loss counts half after so many turns.
const MEMORY: f64 = 3.0;

/// An expert takes over when it loses less than this part of what the present one loses,
const ADVANTAGE: f64 = 0.95;

/// when the present one was so long in charge, in turns,
const TERM: f64 = 0.1;

/// and when it lost so many values lately.
const EVIDENCE: f64 = 8.0;

/// Settled takes in one newcomer of so many as if it were used already.
const WELCOME: u64 = 64;

/// An opinion about which value is spilled first. The rank of a value that is used never falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expert {
    /// What was not used for longest, by epochs; of equally cold values the largest. As [`Coldest`](super::Coldest).
    Recent,
    /// What saves least time for the room that it takes: by its uses, which age, and what a reload costs for each byte.
    Frequent,
    /// What came last and was never used again: for scans, and for data that comes round in turn.
    Settled,
}

const EXPERTS: [Expert; 3] = [Expert::Recent, Expert::Frequent, Expert::Settled];

impl Expert {
    fn rank(self, usage: &Usage) -> Rank {
        let size = usage.size.max(1) as f64;
        let by_epoch = Rank(usage.epoch as f64, -size);
        match self {
            Self::Recent => by_epoch,
            // What halves with time is compared by its logarithm, to which time is added instead.
            Self::Frequent => Rank((usage.warmth * usage.cost / size).log2() + usage.turn / HALF_LIFE, -size),
            Self::Settled if usage.uses <= 1 && !is_welcome(usage.last_use) => Rank(-1.0, -(usage.last_use as f64)),
            Self::Settled => by_epoch,
        }
    }
}

/// One number of `WELCOME`, without a pattern.
fn is_welcome(number: u64) -> bool {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) < u64::MAX / WELCOME
}

/// The default: decides as that expert of three would have that had to wait least for reloads lately.
///
/// - *Recent* spills what was not used for longest, of equally cold values the largest, as [`Coldest`](super::Coldest).
/// - *Frequent* spills what saves least time for its room: its uses, of which each counts half after 12 turns, times
///   what a reload was measured to cost, by its size.
/// - *Settled* spills what came last and was not used again, so that a scan, or data that comes round in turn and does
///   not fit, drives nothing out.
///
/// Each of them keeps book of what would be resident if it decided, with the same budget and the same uses. Recent
/// decides until another loses 5 % less time. Once anything was spilled a use costs some 0.5 µs in a chest of up to a
/// thousand values, less and less in larger ones, because a thousand of their values are watched; the books take some
/// 300 KiB.
///
/// ```
/// use icechest::{Adaptive, Chest};
/// let chest = Chest::builder().budget("64MiB").policy(Adaptive::default()).temporary()?; // as without a policy
/// # Ok::<(), icechest::Error>(())
/// ```
#[derive(Debug)]
pub struct Adaptive {
    /// The index of the expert that decides.
    decides: AtomicU8,
    /// Values whose key is not above this are watched.
    watched: AtomicU64,
    /// Whether anything was ever spilled: before that hits tell nothing.
    is_tight: AtomicBool,
    books: Mutex<Books>,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self {
            decides: AtomicU8::new(0),
            watched: AtomicU64::new(u64::MAX),
            is_tight: AtomicBool::new(false),
            books: Mutex::default(),
        }
    }
}

#[derive(Debug)]
struct Books {
    /// What is really resident, of the values that are watched.
    residents: HashMap<u64, Usage>,
    rehearsals: [Rehearsal; 3],
    budget: u64,
    /// The time of the last event, and of the last change of mind, in turns.
    now: f64,
    changed: f64,
}

impl Default for Books {
    fn default() -> Self {
        Self { residents: HashMap::new(), rehearsals: EXPERTS.map(Rehearsal::new), budget: 0, now: 0.0, changed: 0.0 }
    }
}

impl Policy for Adaptive {
    fn rank(&self, usage: &Usage) -> Rank {
        let decides = usize::from(self.decides.load(Ordering::Relaxed));
        EXPERTS.get(decides).unwrap_or(&Expert::Recent).rank(usage)
    }

    fn observe(&self, event: Event, usage: &Usage) -> bool {
        let watched = self.watched.load(Ordering::Relaxed);
        match event {
            Event::Hit if !self.is_tight.load(Ordering::Relaxed) => return false,
            Event::Spilled => self.is_tight.store(true, Ordering::Relaxed),
            _ => {}
        }
        if usage.key > watched {
            return false;
        }
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let decides = usize::from(self.decides.load(Ordering::Relaxed));
        books.note(event, usage);
        if books.size() > SAMPLE {
            self.watched.store(watched / 2, Ordering::Relaxed);
            books.narrow(watched / 2);
        }
        let better = books.better_than(decides);
        if let Some(better) = better {
            books.hand_over(decides, better);
            self.decides.store(better as u8, Ordering::Relaxed);
        }
        better.is_some()
    }

    fn set_budget(&self, bytes: u64) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.budget = bytes;
        books.share(self.watched.load(Ordering::Relaxed));
    }
}

impl Books {
    fn note(&mut self, event: Event, usage: &Usage) {
        let fade = ((self.now - usage.turn) / MEMORY).exp2().min(1.0);
        match event {
            Event::Spilled => _ = self.residents.remove(&usage.key),
            Event::Removed => {
                self.residents.remove(&usage.key);
                self.rehearsals.iter_mut().for_each(|rehearsal| rehearsal.remove(usage.key));
            }
            Event::Inserted | Event::Hit | Event::Loaded { .. } => {
                self.residents.insert(usage.key, *usage);
                self.now = usage.turn;
                for rehearsal in &mut self.rehearsals {
                    rehearsal.fade(fade);
                    rehearsal.take(usage, event != Event::Inserted);
                }
            }
        }
    }

    /// The most values that are in one of the books.
    fn size(&self) -> usize {
        self.rehearsals.iter().map(Rehearsal::len).max().unwrap_or(0).max(self.residents.len())
    }

    /// Watches fewer values.
    fn narrow(&mut self, watched: u64) {
        self.residents.retain(|&key, _| key <= watched);
        self.rehearsals.iter_mut().for_each(|rehearsal| rehearsal.retain(watched));
        self.share(watched);
    }

    /// Gives the values that are watched their share of the budget.
    fn share(&mut self, watched: u64) {
        let budget = (self.budget as f64 * (watched as f64 / u64::MAX as f64)) as u64;
        self.rehearsals.iter_mut().for_each(|rehearsal| rehearsal.set_budget(budget));
    }

    /// The expert that should take over, if one should.
    fn better_than(&self, decides: usize) -> Option<usize> {
        let present = self.rehearsals.get(decides)?;
        if present.losses() < EVIDENCE || self.now - self.changed < TERM {
            return None;
        }
        let losses = self.rehearsals.iter().map(Rehearsal::lost).enumerate();
        let (best, lost) = losses.min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        (lost < present.lost() * ADVANTAGE).then_some(best)
    }

    /// An expert takes over. It has to do with what is resident, so its book begins with that; and it has to show that
    /// it is better with that, so it keeps just the advantage that it needed.
    fn hand_over(&mut self, from: usize, to: usize) {
        self.changed = self.now;
        let lost = self.rehearsals.get(from).map_or(0.0, |present| present.lost() * ADVANTAGE);
        if let Some(rehearsal) = self.rehearsals.get_mut(to) {
            rehearsal.begin_with(self.residents.values(), lost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(key: u64, size: u64) -> Usage {
        let mut usage = Usage::new(key, size);
        (usage.uses, usage.warmth, usage.cost) = (2, 2.0, 1e5 + size as f64);
        usage
    }

    #[test]
    fn of_equal_values_every_expert_spills_the_largest_first() {
        for expert in EXPERTS {
            assert!(expert.rank(&usage(1, 2 << 20)) < expert.rank(&usage(2, 1 << 20)), "{expert:?}");
        }
    }

    #[test]
    fn what_is_dear_to_read_stays_longer() {
        let (cheap, mut dear) = (usage(1, 1 << 20), usage(2, 1 << 20));
        dear.cost *= 10.0;
        assert!(Expert::Frequent.rank(&cheap) < Expert::Frequent.rank(&dear));
    }

    #[test]
    fn the_rank_of_a_value_never_falls_when_it_is_used() {
        for expert in EXPERTS {
            for number in 1..200 {
                let mut before = usage(1, 1000);
                (before.uses, before.last_use) = (1, number);
                let mut after = before;
                after.uses += 1;
                after.last_use += 5;
                after.turn += 0.1;
                after.warmth = 1.0 + before.warmth * (-0.1 / HALF_LIFE).exp2();
                assert!(expert.rank(&before) <= expert.rank(&after), "{expert:?}");
            }
        }
    }

    #[test]
    fn however_many_values_there_are_a_thousand_are_watched() {
        let policy = Adaptive::default();
        policy.set_budget(5_000_000);
        for number in 0..100_000_u64 {
            let mut usage = usage(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), 100);
            usage.turn = number as f64 / 50_000.0;
            policy.observe(Event::Inserted, &usage);
            if number >= 50_000 {
                usage.key = (number - 50_000).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                policy.observe(Event::Spilled, &usage);
            }
        }
        let books = policy.books.lock().unwrap();
        assert!((SAMPLE / 4..=SAMPLE).contains(&books.size()), "{}", books.size());
        let watched = policy.watched.load(Ordering::Relaxed);
        assert!(books.residents.keys().all(|&key| key <= watched));
    }

    #[test]
    fn hits_are_not_watched_before_anything_was_spilled() {
        let policy = Adaptive::default();
        policy.set_budget(1000);
        policy.observe(Event::Inserted, &usage(1, 10));
        policy.observe(Event::Hit, &usage(2, 10));
        assert_eq!(policy.books.lock().unwrap().residents.len(), 1);
        policy.observe(Event::Spilled, &usage(1, 10));
        policy.observe(Event::Hit, &usage(2, 10));
        assert!(policy.books.lock().unwrap().residents.contains_key(&2));
    }
}
