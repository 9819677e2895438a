//! Made-up workloads: a thousand values are inserted, then read some ten thousand times.

use super::trace::{Act, Trace};

const VALUES: usize = 1000;
const READS: usize = 20_000;
const MIB: u64 = 1 << 20;

/// How large the values are.
#[derive(Clone, Copy)]
enum Sizes {
    /// 8 MiB each.
    Equal,
    /// 1 MiB to 4 GiB, any order of magnitude as often as another.
    LogUniform,
}

type Workload = (&'static str, fn(&mut Random) -> Vec<(Act, usize)>);

const WORKLOADS: [Workload; 9] = [
    ("Zipf", zipf),
    ("drifting Zipf", drifting_zipf),
    ("pipeline, a stage at a time", pipeline),
    ("pipeline, a sliding window", window),
    ("sweeps in order", |_| sweeps(|| (0..VALUES).collect())),
    ("sweeps, shuffled", |random| sweeps(|| random.order())),
    ("scans mixed with a hot set", mixed_scans),
    ("scans between a hot set", scans),
    ("phases of the above", phases),
];

/// All of them, with values of equal and of very different sizes, and memory for a twentieth, a fifth or half of them.
pub(crate) fn all() -> Vec<Trace> {
    let mut traces = Vec::new();
    for (name, workload) in WORKLOADS {
        for (sizes, what) in [(Sizes::Equal, "equal sizes"), (Sizes::LogUniform, "1 MiB to 4 GiB")] {
            for percent in [5, 20, 50] {
                let random = &mut Random(traces.len() as u64);
                let acts = workload(random);
                let count = acts.iter().map(|&(_, value)| value + 1).max().unwrap_or(0);
                let sizes: Vec<u64> = (0..count).map(|_| size(sizes, random)).collect();
                let budget = sizes.iter().sum::<u64>() / 100 * percent;
                traces.push(Trace { name: format!("{name}, {what}, {percent} %"), budget, sizes, acts });
            }
        }
    }
    traces
}

fn size(sizes: Sizes, random: &mut Random) -> u64 {
    match sizes {
        Sizes::Equal => 8 * MIB,
        Sizes::LogUniform => (MIB as f64 * 4096_f64.powf(random.fraction())) as u64,
    }
}

fn inserts() -> Vec<(Act, usize)> {
    (0..VALUES).map(|value| (Act::Insert, value)).collect()
}

fn zipf(random: &mut Random) -> Vec<(Act, usize)> {
    let mut acts = inserts();
    let (law, order) = (Zipf::new(VALUES, 1.0), random.order());
    acts.extend((0..READS).map(|_| (Act::Read, order[law.draw(random)])));
    acts
}

/// Now and then a value that is read often and one that is not change places.
fn drifting_zipf(random: &mut Random) -> Vec<(Act, usize)> {
    let mut acts = inserts();
    let (law, mut order) = (Zipf::new(VALUES, 1.0), random.order());
    for read in 0..READS {
        if read % 50 == 0 {
            order.swap(law.draw(random), random.below(VALUES));
        }
        acts.push((Act::Read, order[law.draw(random)]));
    }
    acts
}

/// Runs of five stages: each stage reads what the one before wrote, and looks at the one before that. In the end the
/// results of all runs are read three times.
fn pipeline(_: &mut Random) -> Vec<(Act, usize)> {
    const PARTS: usize = 10;
    const STAGES: usize = 5;
    let mut acts = Vec::new();
    let runs = VALUES / (PARTS * STAGES);
    let value = |run: usize, stage: usize, part: usize| (run * STAGES + stage) * PARTS + part;
    for run in 0..runs {
        acts.extend((0..PARTS).map(|part| (Act::Insert, value(run, 0, part))));
        for stage in 1..STAGES {
            for part in 0..PARTS {
                acts.push((Act::Read, value(run, stage - 1, part)));
                acts.push((Act::Insert, value(run, stage, part)));
                if stage > 1 {
                    acts.push((Act::Read, value(run, stage - 2, part)));
                }
            }
        }
    }
    for _ in 0..3 {
        for run in 0..runs {
            acts.extend((0..PARTS).map(|part| (Act::Read, value(run, STAGES - 1, part))));
        }
    }
    acts
}

/// Each value is read four times, not far from each other, in each of four sweeps.
fn window(_: &mut Random) -> Vec<(Act, usize)> {
    let mut acts = inserts();
    for _ in 0..4 {
        for value in 0..VALUES {
            acts.extend([0, 3, 7, 20].iter().filter(|&&back| back <= value).map(|back| (Act::Read, value - back)));
        }
    }
    acts
}

/// All values, twelve times.
fn sweeps(mut order: impl FnMut() -> Vec<usize>) -> Vec<(Act, usize)> {
    let mut acts = inserts();
    acts.extend((0..12).flat_map(|_| order()).map(|value| (Act::Read, value)));
    acts
}

/// Every other read is of a tenth of the values, the others sweep over the rest.
fn mixed_scans(random: &mut Random) -> Vec<(Act, usize)> {
    const HOT: usize = VALUES / 10;
    let mut acts = inserts();
    for read in 0..READS / 2 {
        acts.push((Act::Read, random.below(HOT)));
        acts.push((Act::Read, HOT + read % (VALUES - HOT)));
    }
    acts
}

/// A tenth of the values is read often, then the rest once, and so on.
fn scans(random: &mut Random) -> Vec<(Act, usize)> {
    const HOT: usize = VALUES / 10;
    let mut acts = inserts();
    let law = Zipf::new(HOT, 0.8);
    for _ in 0..10 {
        acts.extend((0..1500).map(|_| (Act::Read, law.draw(random))));
        acts.extend((HOT..VALUES).map(|value| (Act::Read, value)));
    }
    acts
}

/// Zipf, sweeps, and a Zipf that moves on, twice.
fn phases(random: &mut Random) -> Vec<(Act, usize)> {
    let mut acts = inserts();
    let law = Zipf::new(VALUES, 1.0);
    for _ in 0..2 {
        let order = random.order();
        acts.extend((0..4000).map(|_| (Act::Read, order[law.draw(random)])));
        acts.extend((0..4).flat_map(|_| 0..VALUES).map(|value| (Act::Read, value)));
        acts.extend((0..4000).map(|read| (Act::Read, order[(law.draw(random) + read / 10) % VALUES])));
    }
    acts
}

/// Draws n in proportion to 1 / n^s.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(count: usize, s: f64) -> Self {
        let sum = |sum: &mut f64, n| {
            *sum += 1.0 / f64::powf(n as f64, s);
            Some(*sum)
        };
        Self((1..=count).scan(0.0, sum).collect())
    }

    fn draw(&self, random: &mut Random) -> usize {
        let at = random.fraction() * self.0.last().copied().unwrap_or(1.0);
        self.0.partition_point(|&sum| sum < at).min(self.0.len() - 1)
    }
}

/// Numbers that are the same in every run (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.fraction() * limit as f64) as usize
    }

    /// All values, in any order.
    fn order(&mut self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..VALUES).collect();
        for last in (1..VALUES).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}
