//! Writes down what a program does with its values, for whoever wants to know which policy suits it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use super::policy::{Event, Policy, Rank, Usage};
use crate::error::{Error, Result};

/// So many events wait to be written; of more the trace tells only how many there were.
const WAITING: usize = 8192;

/// A policy with a recorder at its side.
#[derive(Debug)]
pub(crate) struct Recorder {
    policy: Box<dyn Policy>,
    events: Option<SyncSender<Told>>,
    missed: AtomicU64,
    writer: Option<JoinHandle<io::Result<BufWriter<File>>>>,
    path: PathBuf,
}

#[derive(Debug)]
enum Told {
    Budget(u64),
    Event(Event, Usage),
}

impl Recorder {
    pub(crate) fn new(policy: Box<dyn Policy>, path: &Path) -> Result<Self> {
        let error = |error| Error::io("cannot write the trace", error).with_path(path);
        let file = BufWriter::new(File::create(path).map_err(error)?);
        let (events, told) = mpsc::sync_channel(WAITING);
        let writer = thread::Builder::new().name("icechest-trace".to_owned()).spawn(move || write(file, told));
        let writer = Some(writer.map_err(error)?);
        Ok(Self { policy, events: Some(events), missed: AtomicU64::new(0), writer, path: path.to_owned() })
    }

    /// Never waits: the chest is locked.
    fn tell(&self, told: Told) {
        if self.events.as_ref().is_some_and(|events| events.try_send(told).is_err()) {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written.
    fn end(&mut self) -> io::Result<()> {
        self.events = None;
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let mut file = writer.join().unwrap_or_else(|_| Err(io::Error::other("its writer panicked")))?;
        match self.missed.load(Ordering::Relaxed) {
            0 => {}
            missed => writeln!(file, "missed {missed}")?,
        }
        file.flush()
    }
}

impl Policy for Recorder {
    fn rank(&self, usage: &Usage) -> Rank {
        self.policy.rank(usage)
    }

    fn observe(&self, event: Event, usage: &Usage) -> bool {
        self.tell(Told::Event(event, *usage));
        self.policy.observe(event, usage)
    }

    fn set_budget(&self, bytes: u64) {
        self.tell(Told::Budget(bytes));
        self.policy.set_budget(bytes);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("icechest: the trace {} is incomplete: {error}", self.path.display());
        }
    }
}

/// Writes events as they come. Keys become numbers in the order of their appearance.
fn write(mut file: BufWriter<File>, told: Receiver<Told>) -> io::Result<BufWriter<File>> {
    let mut numbers = HashMap::new();
    for told in told {
        let (event, usage) = match told {
            Told::Budget(bytes) => {
                writeln!(file, "budget {bytes}")?;
                continue;
            }
            Told::Event(event, usage) => (event, usage),
        };
        let next = numbers.len();
        let number = *numbers.entry(usage.key).or_insert(next);
        match event {
            Event::Inserted => writeln!(file, "insert {number} {}", usage.size)?,
            Event::Hit => writeln!(file, "hit {number}")?,
            Event::Loaded { seconds } => writeln!(file, "load {number} {} {seconds:.6}", usage.size)?,
            Event::Spilled => writeln!(file, "spill {number}")?,
            Event::Removed => writeln!(file, "remove {number}")?,
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Lru;

    #[test]
    fn a_trace_tells_what_happened_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let recorder = Recorder::new(Box::new(Lru), &path).unwrap();
        recorder.set_budget(100);
        let usage = Usage::new(77, 10);
        let loaded = Event::Loaded { seconds: 0.25 };
        for event in [Event::Inserted, Event::Hit, Event::Spilled, loaded, Event::Removed] {
            recorder.observe(event, &usage);
        }
        recorder.observe(Event::Inserted, &Usage::new(5, 20));
        drop(recorder);
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text, "budget 100\ninsert 0 10\nhit 0\nspill 0\nload 0 10 0.250000\nremove 0\ninsert 1 20\n");
    }

    #[test]
    fn a_trace_says_how_much_it_missed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let mut recorder = Recorder::new(Box::new(Lru), &path).unwrap();
        // Nobody takes what is told.
        let (events, told) = mpsc::sync_channel(1);
        recorder.events = Some(events);
        (0..3).for_each(|key| _ = recorder.observe(Event::Inserted, &Usage::new(key, 1)));
        drop((recorder, told));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "missed 2\n");
    }

    #[test]
    fn a_trace_that_cannot_be_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Recorder::new(Box::new(Lru), dir.path()).is_err());
    }
}
