//! A medium that records what happens to it, fails when it is told to, and can be cut off from its power at any point
//! of the record: then what was not synced is there, or not, or in part.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Os, Storage, StorageFile};

pub(super) const EINTR: i32 = 4;

/// What happened to the medium. Files are numbered, because names change.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Make {
        path: PathBuf,
        file: usize,
    },
    Write {
        file: usize,
        offset: u64,
        bytes: Vec<u8>,
    },
    Truncate {
        file: usize,
        len: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// What was written to a file before is on the medium.
    Sync {
        file: usize,
    },
    /// What happened to the names in a folder is on the medium.
    SyncDir {
        dir: PathBuf,
    },
    /// The sync of a file failed: what was written since the last one is lost, and no later sync brings it back.
    Lost {
        file: usize,
    },
    /// Something that the test wants to remember.
    Mark(usize),
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    Error(i32),
    /// A write takes only a part of the bytes.
    ShortWrite,
}

#[derive(Default)]
struct Tape {
    events: Vec<Event>,
    /// Which number the file of a name has.
    names: HashMap<PathBuf, usize>,
    files: usize,
    calls: u64,
    /// From which call on which fault happens, and how many calls it lasts.
    fault: Option<(Fault, u64, u64)>,
    /// Only syncs count as calls.
    only_syncs: bool,
    boot: u32,
    before_sync: Option<Hook>,
}

/// What somebody else does at a moment.
type Hook = Arc<dyn Fn() + Send + Sync>;

/// A folder on a medium that is watched.
#[derive(Clone, Default)]
pub(super) struct Medium(Arc<Mutex<Tape>>);

impl std::fmt::Debug for Medium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Medium")
    }
}

/// A call of the operating system, for the purpose of failing.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Call {
    Write,
    Sync,
    Other,
    /// Of SQLite: interruptions and short writes are dealt with below the layer where it is watched.
    Sqlite,
    SqliteSync,
}

impl Medium {
    /// One whose machine was started so often.
    pub(super) fn of_boot(boot: u32) -> Self {
        let medium = Self::default();
        medium.tape().boot = boot;
        medium
    }

    fn tape(&self) -> MutexGuard<'_, Tape> {
        self.0.lock().unwrap()
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.tape().events.clone()
    }

    pub(super) fn mark(&self, mark: usize) {
        self.tape().events.push(Event::Mark(mark));
    }

    /// Begins to count calls, and lets those from `first` on fail, `count` of them.
    pub(super) fn fail(&self, fault: Fault, first: u64, count: u64, only_syncs: bool) {
        let mut tape = self.tape();
        tape.calls = 0;
        tape.only_syncs = only_syncs;
        tape.fault = Some((fault, first, count));
    }

    /// Runs this before each sync of a file or a folder.
    pub(super) fn before_sync(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.tape().before_sync = Some(Arc::new(hook));
    }

    /// Ends the fault. Gives how many calls there were since it began.
    pub(super) fn heal(&self) -> u64 {
        let mut tape = self.tape();
        tape.fault = None;
        tape.calls
    }

    /// Does something to the medium, or fails; then records it. Nothing else happens meanwhile.
    pub(super) fn call<T>(
        &self,
        call: Call,
        work: impl FnOnce() -> io::Result<T>,
        record: impl FnOnce(&mut Recorder<'_>, &T),
    ) -> io::Result<T> {
        let mut tape = self.tape();
        if let Some(Fault::Error(code)) = tape.next_fault(call) {
            return Err(io::Error::from_raw_os_error(code));
        }
        let done = work()?;
        record(&mut Recorder(&mut tape), &done);
        Ok(done)
    }

    /// Syncs a file or a folder.
    pub(super) fn sync_call(&self, call: Call, path: &Path, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut tape = self.tape();
        let file = tape.names.get(path).copied();
        if let Some(Fault::Error(code)) = tape.next_fault(call) {
            tape.events.extend(file.map(|file| Event::Lost { file }));
            return Err(io::Error::from_raw_os_error(code));
        }
        work()?;
        tape.events.push(match file {
            Some(file) => Event::Sync { file },
            None => Event::SyncDir { dir: path.to_owned() },
        });
        Ok(())
    }

    /// How many of so many bytes a write takes.
    pub(super) fn shorten(&self, len: usize) -> usize {
        let mut tape = self.tape();
        match tape.fault {
            Some((Fault::ShortWrite, ..)) => match tape.next_fault(Call::Write) {
                Some(_) => len.div_ceil(2),
                None => len,
            },
            _ => len,
        }
    }
}

impl Tape {
    fn next_fault(&mut self, call: Call) -> Option<Fault> {
        let (fault, first, count) = self.fault?;
        let counts = match fault {
            Fault::ShortWrite => call == Call::Write,
            Fault::Error(EINTR) => !matches!(call, Call::Sqlite | Call::SqliteSync),
            Fault::Error(_) => !self.only_syncs || matches!(call, Call::Sync | Call::SqliteSync),
        };
        if !counts {
            return None;
        }
        let number = self.calls;
        self.calls += 1;
        (first..first.saturating_add(count)).contains(&number).then_some(fault)
    }
}

/// Writes to the record.
pub(super) struct Recorder<'a>(&'a mut Tape);

impl Recorder<'_> {
    pub(super) fn make(&mut self, path: &Path) {
        if !self.0.names.contains_key(path) {
            let file = self.0.files;
            self.0.files += 1;
            self.0.names.insert(path.to_owned(), file);
            self.0.events.push(Event::Make { path: path.to_owned(), file });
        }
    }

    pub(super) fn write(&mut self, path: &Path, offset: u64, bytes: &[u8]) {
        if let Some(&file) = self.0.names.get(path) {
            self.0.events.push(Event::Write { file, offset, bytes: bytes.to_owned() });
        }
    }

    pub(super) fn truncate(&mut self, path: &Path, len: u64) {
        if let Some(&file) = self.0.names.get(path) {
            self.0.events.push(Event::Truncate { file, len });
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        if let Some(file) = self.0.names.remove(from) {
            self.0.names.insert(to.to_owned(), file);
            self.0.events.push(Event::Rename { from: from.to_owned(), to: to.to_owned() });
        }
    }

    pub(super) fn remove(&mut self, path: &Path) {
        if self.0.names.remove(path).is_some() {
            self.0.events.push(Event::Remove { path: path.to_owned() });
        }
    }
}

const OS: Os = Os { private: true };

impl Storage for Medium {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.call(Call::Other, || OS.create(path), |record, _| record.make(path))?;
        Ok(Arc::new(Watched { file, number: self.tape().names[path], medium: self.clone() }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.call(Call::Other, || OS.open(path), |_, _| {})?;
        Ok(Arc::new(Watched { file, number: usize::MAX, medium: self.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Call::Other, || OS.rename(from, to), |record, ()| record.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Call::Other, || OS.remove(path), |record, ()| record.remove(path))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.call(Call::Other, || OS.create_dir(path), |_, ()| {})
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.call(Call::Other, || OS.list(dir), |_, _| {})
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let hook = self.tape().before_sync.clone();
        if let Some(hook) = hook {
            hook();
        }
        // The real medium need not be waited for.
        self.sync_call(Call::Sync, path, || fs::metadata(path).map(|_| ()))
    }

    fn boot(&self) -> String {
        format!("boot {}", self.tape().boot)
    }
}

struct Watched {
    file: Arc<dyn StorageFile>,
    number: usize,
    medium: Medium,
}

impl StorageFile for Watched {
    fn len(&self) -> io::Result<u64> {
        self.medium.call(Call::Other, || self.file.len(), |_, _| {})
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.medium.call(Call::Other, || self.file.read_at(buf, offset), |_, _| {})
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let bytes = &bytes[..self.medium.shorten(bytes.len())];
        let file = self.number;
        let event = |n: usize| Event::Write { file, offset, bytes: bytes[..n].to_owned() };
        self.medium.call(Call::Write, || self.file.write_at(bytes, offset), |record, &n| record.0.events.push(event(n)))
    }
}

/// What becomes of what was not synced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unsynced {
    Dropped,
    Kept,
    /// All names are there, but only the catalog's contents: the worst for values.
    Catalog,
    /// Of the names' changes a first part is there; of each file a random half of its pages of so many bytes.
    Torn {
        page: usize,
        seed: u64,
    },
}

/// Makes a folder as it is after a power cut that came after these events.
pub(super) fn cut(events: &[Event], root: &Path, target: &Path, unsynced: Unsynced) {
    let mut random = fastrand::Rng::with_seed(if let Unsynced::Torn { seed, .. } = unsynced { seed } else { 0 });
    let names = names_after(events, unsynced, &mut random);
    let contents = contents_after(events, unsynced, &mut random);
    for (path, file) in names {
        let path = target.join(path.strip_prefix(root).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents.get(&file).map_or(&[][..], Vec::as_slice)).unwrap();
    }
    fs::create_dir_all(target).unwrap();
}

/// The names on the medium: changes that were synced, and a first part of those that were not.
fn names_after(events: &[Event], unsynced: Unsynced, random: &mut fastrand::Rng) -> BTreeMap<PathBuf, usize> {
    let is_change = |event: &Event| matches!(event, Event::Make { .. } | Event::Rename { .. } | Event::Remove { .. });
    let dir_of = |event: &Event| match event {
        Event::Make { path, .. } | Event::Remove { path } | Event::Rename { to: path, .. } => {
            path.parent().unwrap().to_owned()
        }
        _ => unreachable!(),
    };
    // SQLite syncs the folder of a log that it has made, together with the log.
    let is_synced = |at: usize| {
        let dir = dir_of(&events[at]);
        events[at..].iter().any(|event| match (event, &events[at]) {
            (Event::SyncDir { dir: synced }, _) => *synced == dir,
            (Event::Sync { file: synced }, Event::Make { path, file }) => {
                synced == file && path.to_string_lossy().ends_with("-wal")
            }
            _ => false,
        })
    };
    let changes: Vec<usize> = (0..events.len()).filter(|&at| is_change(&events[at])).collect();
    let open: Vec<usize> = changes.iter().copied().filter(|&at| !is_synced(at)).collect();
    let kept = match unsynced {
        Unsynced::Dropped => 0,
        Unsynced::Kept | Unsynced::Catalog => open.len(),
        Unsynced::Torn { .. } => random.usize(..=open.len()),
    };
    let mut names = BTreeMap::new();
    for at in changes.into_iter().filter(|at| is_synced(*at) || open[..kept].contains(at)) {
        match &events[at] {
            Event::Make { path, file } => {
                names.insert(path.clone(), *file);
            }
            Event::Rename { from, to } => {
                // A rename between folders may be on the medium in one of them only; the file has its new name then.
                if let Some(file) = names.remove(from).or_else(|| made_as(events, from, at)) {
                    names.insert(to.clone(), file);
                }
            }
            Event::Remove { path } => {
                names.remove(path);
            }
            _ => {}
        }
    }
    names
}

/// The number of the file that had this name before an event.
fn made_as(events: &[Event], path: &Path, before: usize) -> Option<usize> {
    events[..before].iter().rev().find_map(|event| match event {
        Event::Make { path: made, file } if made == path => Some(*file),
        _ => None,
    })
}

/// The contents on the medium: what was synced, and what is left of the rest.
fn contents_after(all: &[Event], unsynced: Unsynced, random: &mut fastrand::Rng) -> HashMap<usize, Vec<u8>> {
    let mut contents: HashMap<usize, Vec<u8>> = HashMap::new();
    let mut pending: BTreeMap<usize, Vec<&Event>> = BTreeMap::new();
    for event in all {
        match event {
            Event::Write { file, .. } | Event::Truncate { file, .. } => pending.entry(*file).or_default().push(event),
            Event::Sync { file } => {
                for event in pending.remove(file).unwrap_or_default() {
                    apply(contents.entry(*file).or_default(), event);
                }
            }
            Event::Lost { file } => {
                pending.remove(file);
            }
            _ => {}
        }
    }
    for (file, events) in pending {
        let content = contents.entry(file).or_default();
        match unsynced {
            Unsynced::Dropped => {}
            Unsynced::Catalog if !is_of_catalog(all, file) => {}
            Unsynced::Kept | Unsynced::Catalog => events.into_iter().for_each(|event| apply(content, event)),
            Unsynced::Torn { page, .. } => {
                let mut whole = content.clone();
                events.into_iter().for_each(|event| apply(&mut whole, event));
                tear(content, whole, page, random);
            }
        }
    }
    contents
}

fn is_of_catalog(events: &[Event], file: usize) -> bool {
    events.iter().any(|event| match event {
        Event::Make { path, file: made } => *made == file && path.to_string_lossy().contains("catalog.sqlite"),
        _ => false,
    })
}

fn apply(content: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write { offset, bytes, .. } => {
            let start = *offset as usize;
            content.resize(content.len().max(start + bytes.len()), 0);
            content[start..start + bytes.len()].copy_from_slice(bytes);
        }
        Event::Truncate { len, .. } => content.resize(*len as usize, 0),
        _ => {}
    }
}

/// Takes a random half of the pages that are new, and one of the two lengths.
fn tear(content: &mut Vec<u8>, whole: Vec<u8>, page: usize, random: &mut fastrand::Rng) {
    let len = if random.bool() { whole.len() } else { content.len() };
    content.resize(len, 0);
    for (at, new) in whole.chunks(page).enumerate() {
        let start = at * page;
        if start < len && random.bool() {
            let end = (start + new.len()).min(len);
            content[start..end].copy_from_slice(&new[..end - start]);
        }
    }
}
