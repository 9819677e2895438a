//! Many processes with many threads use the same keys. Every read is checked: it is a value that was really written, whole
//! and no older than what the reader could know of.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use icechest::Chest;

use super::child::{Place, Role, Victim, say_ready};
use super::kills::names;
use super::value::{Held, Story, find, insert, key, random_len, read, update};
use crate::helpers::dir;

const PROCESSES: u64 = 8;
const THREADS: u64 = 4;
const KEYS: u64 = 200;
const BUDGET: u64 = 4 << 20;

/// A process closes its chest and opens it again after this time.
const OPEN_FOR: Duration = Duration::from_secs(3);

#[test]
fn no_read_is_wrong_or_old() {
    let dir = dir();
    let place = Place(dir.path().to_owned());
    Board::make(&place.board());
    drop(Chest::open(place.chest()).unwrap());
    let seconds = super::seconds_or(20).as_secs();
    let start = |slot| Victim::start(Role::Stresser { slot, seconds }, &place.0);
    let processes: Vec<_> = (0..PROCESSES).map(start).collect();
    let mut counts = Counts::default();
    for process in processes {
        counts.add_told(&process.finish());
    }
    let values = verify(&place);
    let _ = writeln!(
        std::io::stderr(),
        "stress: {PROCESSES} processes of {THREADS} threads in {seconds} s: {counts:?}; {values} values at the end"
    );
    assert!(counts.reads > 20 * seconds && counts.writes > 10 * seconds, "{counts:?}");
}

/// At the end each key has what was written last, and the directory has nothing else.
fn verify(place: &Place) -> usize {
    let board = Board::open(&place.board());
    let chest = Chest::open(place.chest()).unwrap();
    for key in 0..KEYS {
        let found = read(&chest, key).unwrap().map(|story| story.counter);
        let last = board.get(key, Post::Attempted);
        let expected = (last != board.get(key, Post::Removing)).then_some(last);
        assert_eq!(found, expected, "key {key}");
    }
    chest.sync().unwrap();
    let named: BTreeSet<String> = chest.infos().unwrap().into_iter().filter_map(|info| info.file).collect();
    let there = names(&place.chest().join("values")).iter().map(|name| format!("values/{name}")).collect();
    assert_eq!(named, there);
    drop(chest);
    let report = Chest::check(place.chest()).run().unwrap();
    assert!(report.is_healthy() && report.orphans.is_empty() && report.foreign.is_empty(), "{report}");
    report.values as usize
}

/// What happened, and how often.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    reads: u64,
    absent: u64,
    writes: u64,
    updates: u64,
    removals: u64,
    flushes: u64,
    held: u64,
    openings: u64,
}

impl Counts {
    fn all(&mut self) -> [&mut u64; 8] {
        let Self { reads, absent, writes, updates, removals, flushes, held, openings } = self;
        [reads, absent, writes, updates, removals, flushes, held, openings]
    }

    fn add(&mut self, mut other: Self) {
        self.all().into_iter().zip(other.all()).for_each(|(sum, count)| *sum += *count);
    }

    fn tell(&mut self) {
        println!("counts {}", self.all().map(|count| count.to_string()).join(" "));
    }

    fn add_told(&mut self, said: &str) {
        let line = said.lines().find_map(|line| line.split_once("counts ")).unwrap().1;
        let counts = line.split(' ').map(|count| count.parse::<u64>().unwrap());
        self.all().into_iter().zip(counts).for_each(|(sum, count)| *sum += count);
    }
}

/// What is noted for each key, for all to see.
#[derive(Clone, Copy)]
enum Post {
    /// The counter of the newest thing that its writer may have done.
    Attempted,
    /// The counter of what is published at least.
    Published,
    /// The counter of the last removal that may have happened.
    Removing,
}

/// A file with three numbers a key. Each is written by one thread; eight bytes of a page are read as they were written.
struct Board(File);

impl Board {
    fn make(path: &Path) {
        std::fs::write(path, vec![0; KEYS as usize * 24]).unwrap();
    }

    fn open(path: &Path) -> Self {
        Self(OpenOptions::new().read(true).write(true).open(path).unwrap())
    }

    fn get(&self, key: u64, post: Post) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, key * 24 + post as u64 * 8).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn set(&self, key: u64, post: Post, counter: u64) {
        self.0.write_all_at(&counter.to_le_bytes(), key * 24 + post as u64 * 8).unwrap();
    }
}

/// What one of the processes does.
pub(super) fn stress(place: &Place, slot: u64, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let board = Board::open(&place.board());
    let mut threads: Vec<_> = (0..THREADS).map(|thread| Stresser::new(&board, slot * THREADS + thread)).collect();
    let counts = Mutex::new(Counts::default());
    say_ready();
    while Instant::now() < end {
        let chest = Chest::builder().budget(BUDGET).open(place.chest()).unwrap();
        let until = end.min(Instant::now() + OPEN_FOR);
        thread::scope(|scope| {
            for stresser in &mut threads {
                scope.spawn(|| stresser.work(&chest, until));
            }
        });
        counts.lock().unwrap().openings += 1;
    }
    let mut counts = counts.into_inner().unwrap();
    threads.iter().for_each(|stresser| counts.add(stresser.counts));
    counts.tell();
}

struct Stresser<'a> {
    board: &'a Board,
    me: u64,
    random: fastrand::Rng,
    /// The newest counter that this thread knows of, for each key.
    known: HashMap<u64, u64>,
    /// What it did to its own keys and has not been published yet.
    unpublished: HashMap<u64, u64>,
    held: Vec<(Held, Story)>,
    counts: Counts,
}

impl<'a> Stresser<'a> {
    fn new(board: &'a Board, me: u64) -> Self {
        let random = fastrand::Rng::with_seed(me);
        let counts = Counts::default();
        Self { board, me, random, known: HashMap::new(), unpublished: HashMap::new(), held: Vec::new(), counts }
    }

    fn work(&mut self, chest: &Chest, until: Instant) {
        while Instant::now() < until {
            match self.random.u32(0..100) {
                0..60 => self.read(chest),
                60..75 => self.write(chest),
                75..80 => self.update(chest),
                80..85 => self.remove(chest),
                85..94 => self.flush(chest),
                94..98 => self.look_at_held(),
                98 => self.iterate(chest),
                _ => chest.sync().unwrap(),
            }
        }
    }

    /// One of the keys that only this thread changes.
    fn own_key(&mut self) -> u64 {
        let all = PROCESSES * THREADS;
        let own: Vec<u64> = (0..KEYS).filter(|key| key % all == self.me).collect();
        own[self.random.usize(0..own.len())]
    }

    /// The next counter of an own key, told to all before anything is done with it.
    fn attempt(&mut self, key: u64) -> u64 {
        let counter = self.board.get(key, Post::Attempted) + 1;
        self.board.set(key, Post::Attempted, counter);
        counter
    }

    fn done(&mut self, key: u64, counter: u64) {
        self.known.insert(key, counter);
        self.unpublished.insert(key, counter);
    }

    fn story(&mut self, key: u64) -> Story {
        let counter = self.attempt(key);
        Story { key, writer: self.me, counter, len: random_len(&mut self.random) / 2 }
    }

    fn write(&mut self, chest: &Chest) {
        let key = self.own_key();
        let story = self.story(key);
        insert(chest, story).unwrap();
        self.done(key, story.counter);
        self.counts.writes += 1;
    }

    fn update(&mut self, chest: &Chest) {
        let key = self.own_key();
        if self.is_absent(key) {
            return;
        }
        let story = self.story(key);
        assert!(update(chest, story).unwrap(), "key {key} is gone");
        self.done(key, story.counter);
        self.counts.updates += 1;
    }

    /// Whether an own key has no value.
    fn is_absent(&self, key: u64) -> bool {
        self.board.get(key, Post::Attempted) == self.board.get(key, Post::Removing)
    }

    fn remove(&mut self, chest: &Chest) {
        let number = self.own_key();
        let was_absent = self.is_absent(number);
        let counter = self.attempt(number);
        self.board.set(number, Post::Removing, counter);
        assert_eq!(chest.remove(key(number)).unwrap(), !was_absent, "key {number}");
        self.board.set(number, Post::Published, counter);
        self.known.insert(number, counter);
        self.unpublished.remove(&number);
        self.counts.removals += 1;
    }

    fn flush(&mut self, chest: &Chest) {
        chest.flush().unwrap();
        for (key, counter) in self.unpublished.drain() {
            self.board.set(key, Post::Published, counter);
        }
        self.counts.flushes += 1;
    }

    fn read(&mut self, chest: &Chest) {
        let key = self.random.u64(0..KEYS);
        let known = self.known.get(&key).copied().unwrap_or(0);
        let at_least = known.max(self.board.get(key, Post::Published));
        let held = find(chest, key).unwrap();
        self.counts.reads += 1;
        let Some(held) = held else { return self.check_absence(key, at_least) };
        let story = held.story();
        let at_most = self.board.get(key, Post::Attempted);
        assert_eq!((story.key, story.writer), (key, key % (PROCESSES * THREADS)));
        assert!(
            (at_least..=at_most).contains(&story.counter),
            "thread {} read {story:?}, which is not from {at_least} to {at_most}; it knew {known}",
            self.me
        );
        self.known.insert(key, story.counter);
        if self.held.len() < 4 && self.random.u32(0..20) == 0 {
            self.held.push((held, story));
        }
    }

    /// That there is no value must be the doing of a removal that is new enough.
    fn check_absence(&mut self, key: u64, at_least: u64) {
        let removing = self.board.get(key, Post::Removing);
        assert!(removing >= at_least, "key {key} is gone; removed was {removing}, but {at_least} is known");
        self.counts.absent += 1;
    }

    /// Values that somebody holds stay as they are, whatever became of their keys.
    fn look_at_held(&mut self) {
        for (held, story) in self.held.drain(..) {
            assert_eq!(held.story(), story);
            self.counts.held += 1;
        }
    }

    fn iterate(&mut self, chest: &Chest) {
        for entry in chest.iter::<Vec<u64>>().unwrap().take(5) {
            let (key, value) = entry.unwrap();
            assert_eq!(Held::Words(value).story().key, super::value::number(&key));
        }
        assert!(chest.len().unwrap() <= KEYS);
    }
}
