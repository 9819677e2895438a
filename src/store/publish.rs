//! Writing values to the directory: on demand, and behind the user's back.

use std::collections::HashSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::PoisonError;
use std::time::Duration;

#[cfg(unix)]
use super::background::encoders;
use super::key_lock::KeyLock;
use super::{Locked, State, Store};
use crate::builder::Durability;
use crate::disk::{Draft, OwnCommit};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::memory::{Edition, Resident};
use crate::sync::atomic::Ordering;
use crate::sync::{Instant, thread};
use crate::value::AnyValue;

/// Values that are published in one transaction: the more, the faster where they are small. Their files are open
/// until then, and the bytes of small ones are in memory.
pub(super) struct Batch {
    values: usize,
    files: usize,
    bytes: u64,
    /// Of values that have no file, and are in memory twice.
    inline_bytes: u64,
    inline_limit: u64,
}

impl Batch {
    pub(super) fn new(store: &Store) -> Self {
        let inline_limit = store.disk.inline_limit() as u64;
        Self { values: 16 << 10, files: files_at_a_time(), bytes: 32 << 20, inline_bytes: 4 << 20, inline_limit }
    }

    pub(super) fn is_full(&self) -> bool {
        self.values == 0 || self.files == 0 || self.bytes == 0 || self.inline_bytes == 0
    }

    pub(super) fn add(&mut self, size: u64) {
        self.values = self.values.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size);
        if size > self.inline_limit {
            self.files = self.files.saturating_sub(1);
        } else {
            self.inline_bytes = self.inline_bytes.saturating_sub(size);
        }
    }
}

/// So many files a batch may have open: all writers together an eighth of what the process may have.
fn files_at_a_time() -> usize {
    const MOST: usize = 256;
    #[cfg(not(unix))]
    return MOST;
    #[cfg(unix)]
    {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = limit.map_or(MOST, |limit| usize::try_from(limit).unwrap_or(MOST) / (8 * encoders()));
        files.clamp(4, MOST)
    }
}

/// Values that were published, whether they are durable or not.
pub(super) struct Published<'a> {
    pub(super) versions: Vec<i64>,
    /// Ends when memory knows of them.
    pub(super) commit: OwnCommit<'a>,
    /// What became of making them durable, where that is wanted at once.
    pub(super) synced: Result<()>,
}

/// A background writer waits for so many values to come together, but not long.
const MANY: usize = 512;

/// What is published is made durable after so long at the latest, where nothing else was asked for.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// It waits so long for more values to publish together with the first.
const LINGER: Duration = Duration::from_millis(5);

/// A background writer for which nothing was left but what others work on looks again after so long.
const RETRY: Duration = Duration::from_millis(50);

/// What a background writer could not publish, and tries again: soon at first, then less and less often.
#[derive(Default)]
struct Failed {
    editions: Vec<Edition>,
    pause: Duration,
    again: Option<Instant>,
}

impl Failed {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);

    fn add(&mut self, state: &State, batch: &[KeyLock<'_>]) {
        let dirty = batch.iter().filter(|lock| state.residents.is_dirty(lock.key()));
        self.editions.extend(dirty.filter_map(|lock| state.residents.edition(lock.key())));
        if self.again.is_none() {
            self.pause = (self.pause * 2).clamp(Self::SHORTEST, Self::LONGEST);
            self.again = Some(Instant::now() + self.pause);
        }
    }

    /// Lets the writers have them again, when it is time.
    fn put_back(&mut self, state: &mut State) {
        if self.again.is_some_and(|at| Instant::now() >= at) {
            state.pending.extend(self.editions.drain(..));
            self.again = None;
        }
    }
}

/// A thread on the list of writers; it is taken off also after a panic in a user's encoder.
///
/// Who needs room waits for writers, and then for nobody: so a thread that locks several keys to publish them is on the
/// list from before the first lock to after the last.
pub(super) struct Writing<'a>(&'a Store);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let me = thread::current().id();
        let mut state = self.0.state();
        if let Some(index) = state.writers.iter().position(|&writer| writer == me) {
            state.writers.swap_remove(index);
        }
        self.0.wake(&state);
    }
}

impl Store {
    pub(super) fn writing(&self, state: &mut State) -> Writing<'_> {
        state.writers.push(thread::current().id());
        Writing(self)
    }

    /// Publishes those of the locked keys that are dirty. What can be published is, even if others fail; the first error
    /// is returned, and what failed stays dirty in memory.
    pub(super) fn publish(&self, locks: &[KeyLock<'_>]) -> Result<()> {
        match self.publish_together(locks) {
            Err(error) if error.kind() == ErrorKind::Full && locks.len() > 1 => self.publish_apart(locks),
            done => done,
        }
    }

    /// Publishes one after the other what there was no room for together: a limit is perhaps one for each of them.
    fn publish_apart(&self, locks: &[KeyLock<'_>]) -> Result<()> {
        /// After so many in vain there is no more hope.
        const VAIN: usize = 16;
        let published = locks.iter().map(|lock| self.publish_together(std::slice::from_ref(lock)));
        let failures: Vec<Error> = published.filter_map(Result::err).take(VAIN).collect();
        failures.into_iter().next().map_or(Ok(()), Err)
    }

    fn publish_together(&self, locks: &[KeyLock<'_>]) -> Result<()> {
        let mut failure = None;
        let mut editions = Vec::new();
        let mut drafts = Vec::new();
        let (_writing, dirty) = {
            let mut state = self.state();
            let found = |lock: &KeyLock<'_>| {
                let dirty = |resident: &Resident| {
                    resident.version().is_none().then(|| (resident.edition, resident.value().clone()))
                };
                let (edition, value) = state.residents.find(lock.key(), dirty).flatten()?;
                Some((lock.key().clone(), edition, state.residents.came(edition)?, value))
            };
            let dirty: Vec<_> = locks.iter().filter_map(found).collect();
            if dirty.is_empty() {
                return Ok(());
            }
            (self.writing(&mut state), dirty)
        };
        for (key, edition, came, value) in dirty {
            match self.write(&key, &*value) {
                Ok(draft) => {
                    drafts.push(draft);
                    editions.push((key, edition, came));
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        let published = if drafts.is_empty() { Ok(None) } else { self.publish_drafts(drafts).map(Some) };
        let mut state = self.state();
        match published {
            Ok(Some(Published { versions, commit, synced })) => {
                state.counts.published += versions.len() as u64;
                let generation = commit.known();
                for ((key, edition, came), version) in editions.into_iter().zip(versions) {
                    state.residents.mark_clean(&key, edition, came, version, generation);
                }
                failure = failure.or(synced.err());
            }
            Ok(None) => {}
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
        state.counts.write_errors += u64::from(failure.is_some());
        failure.map_or(Ok(()), Err)
    }

    /// Publishes a value that was written in pieces, in place of what the key had.
    pub(crate) fn publish_written(&self, key: &Key, draft: Draft) -> Result<()> {
        let lock = self.lock_to_change(key)?;
        let Published { commit, synced, .. } = self.publish_drafts(vec![draft])?;
        self.forget_replaced(&lock, commit);
        synced
    }

    /// Memory forgets what was under a key: what was published in its place did not come from there.
    pub(super) fn forget_replaced(&self, lock: &KeyLock<'_>, commit: OwnCommit<'_>) {
        let mut state = self.state();
        state.counts.published += 1;
        state.residents.remove(lock.key());
        state.residents.release(lock.key());
        commit.known();
    }

    /// Publishes drafts, and makes them durable where that is wanted at once.
    pub(super) fn publish_drafts(&self, drafts: Vec<Draft>) -> Result<Published<'_>> {
        let (versions, commit) = self.disk.publish(drafts)?;
        let synced = self.sync_if_wanted();
        Ok(Published { versions, commit, synced })
    }

    /// Makes what was published durable where that is wanted at once.
    pub(crate) fn sync_if_wanted(&self) -> Result<()> {
        self.note_unsynced();
        if self.durability == Durability::Immediate { self.sync() } else { Ok(()) }
    }

    /// A background writer syncs in time.
    pub(super) fn note_unsynced(&self) {
        if !self.is_unsynced.swap(true, Ordering::Relaxed) {
            self.start_writers();
            // Under the lock, so that a writer hears it that has found nothing to sync and is about to wait.
            let _state = self.state();
            self.work.notify_all();
        }
    }

    /// Makes what is published durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.is_unsynced.store(false, Ordering::Relaxed);
        self.disk.sync().inspect_err(|_| self.note_unsynced())
    }

    /// What is left to do when the chest is closed.
    pub(crate) fn sync_at_close(&self) -> Result<()> {
        let is_wanted = self.durability != Durability::None && self.is_unsynced.load(Ordering::Relaxed);
        if is_wanted { self.sync() } else { Ok(()) }
    }

    /// Writes a value; a panic in a user's encoder is an error like any other, so that no other value suffers.
    pub(super) fn write(&self, key: &Key, value: &dyn AnyValue) -> Result<Draft> {
        self.guard(key, || self.disk.draft(key, value))
    }

    /// Runs an encoder.
    pub(super) fn guard<T>(&self, key: &Key, write: impl FnOnce() -> Result<T>) -> Result<T> {
        panic::catch_unwind(AssertUnwindSafe(write)).unwrap_or_else(|_| {
            Err(Error::unsupported("the value's encoder panicked, so it cannot be written").with_key(key))
        })
    }

    /// Publishes everything that is there by now, or what comes in its place. Waits for values that other threads work on.
    /// What can be published is, even if others fail.
    pub(crate) fn flush(&self) -> Result<()> {
        let me = thread::current().id();
        let mut failure = None;
        let mut failed = HashSet::new();
        // What comes in later is not waited for: there may be no end of that.
        let now = self.state().residents.clock();
        loop {
            let mut state = self.state();
            if state.residents.dirty_len() > 0 && state.is_crowded(me) {
                // Not for long: others may write without end.
                state = self.wait(state);
            }
            let locks = self.lock_dirty(&mut state, now, &failed);
            if locks.is_empty() {
                // A closure that flushes cannot publish the value that it is changing.
                let is_due =
                    |key: &&Key| !failed.contains(*key) && state.busy.get(*key).is_none_or(|work| work.owner != me);
                let dirty = state.residents.dirty_until(now).map(|(key, _)| key).filter(is_due);
                let dirty: Vec<Key> = dirty.cloned().collect();
                if dirty.is_empty() {
                    drop(state);
                    // What a background writer has published, and could not make durable.
                    let is_missing =
                        self.durability == Durability::Immediate && self.is_unsynced.load(Ordering::Relaxed);
                    let synced = if is_missing { self.sync() } else { Ok(()) };
                    return failure.map_or(synced, Err);
                }
                self.wait_for_any(state, &dirty)?;
                continue;
            }
            let writing = self.writing(&mut state);
            drop(state);
            if let Err(error) = self.publish(&locks) {
                failure.get_or_insert(error);
                failed.extend(locks.iter().map(|lock| lock.key().clone()));
            }
            self.unlock(locks);
            drop(writing);
        }
    }

    /// Locks as many keys as make a batch, of those that were dirty by then and that nobody works on.
    fn lock_dirty<'a>(&'a self, state: &mut State, until: u64, failed: &HashSet<Key>) -> Vec<KeyLock<'a>> {
        let mut batch = Batch::new(self);
        let mut keys = Vec::new();
        let is_free = |key: &Key| !failed.contains(key) && !state.busy.contains_key(key);
        for (key, size) in state.residents.dirty_until(until).filter(|(key, _)| is_free(key)) {
            if batch.is_full() {
                break;
            }
            batch.add(size);
            keys.push(key.clone());
        }
        keys.iter().filter_map(|key| self.try_lock_key_in(state, key)).collect()
    }

    /// A background writer: publishes values as they come in, until the chest is closed. One of them also syncs now and
    /// then.
    pub(super) fn write_behind(&self, syncs: bool) {
        let mut next_sync = None;
        let mut failed = Failed::default();
        loop {
            let mut state = self.state();
            failed.put_back(&mut state);
            if syncs && self.is_sync_due(&mut next_sync) {
                drop(state);
                // A failure is told by whoever calls `sync` next, or at the end: it is not forgotten.
                let _: Result<()> = self.sync();
                continue;
            }
            if state.pending.is_empty() && !state.closing {
                let next = next_sync.into_iter().chain(failed.again).min();
                state = match next {
                    Some(at) => self.wait_for_work(state, at - Instant::now()),
                    None => state.wait(|guard| self.work.wait(guard).unwrap_or_else(PoisonError::into_inner)),
                };
            }
            if !state.pending.is_empty() && state.pending.len() < MANY && !state.closing {
                state = self.wait_for_work(state, LINGER);
            }
            if state.closing {
                return;
            }
            if state.pending.is_empty() {
                continue;
            }
            let batch = self.next_batch(&mut state);
            if batch.is_empty() {
                // Others work on all that is left. Whoever looked again and again would keep them from the state; but
                // they may work for long, while more values come in.
                if !state.pending.is_empty() {
                    // No time passes in the model, which would look again for ever.
                    drop(self.wait_at_most(state, (!cfg!(feature = "model")).then_some(RETRY)));
                }
                continue;
            }
            if !state.pending.is_empty() {
                self.work.notify_one();
            }
            let writing = self.writing(&mut state);
            drop(state);
            // What failed stays dirty; `flush`, or whoever needs its room, tries again and gets the error.
            match self.publish(&batch) {
                Ok(()) if failed.editions.is_empty() => failed.pause = Duration::ZERO,
                Ok(()) => {}
                Err(_) => failed.add(&self.state(), &batch),
            }
            self.unlock(batch);
            drop(writing);
        }
    }

    /// Puts all dirty values on the writers' list: nobody knows which of them somebody took off it in vain.
    pub(super) fn put_all_dirty_back(&self) {
        let mut state = self.state();
        let State { residents, pending, .. } = &mut *state;
        pending.clear();
        pending.extend(residents.dirty_editions());
    }

    fn wait_for_work<'a>(&self, state: Locked<'a>, timeout: Duration) -> Locked<'a> {
        state.wait(|guard| self.work.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Whether it is time to sync; `next` says when it is, if anything needs it.
    fn is_sync_due(&self, next: &mut Option<Instant>) -> bool {
        if self.durability != Durability::Eventual || !self.is_unsynced.load(Ordering::Relaxed) {
            *next = None;
            return false;
        }
        let at = *next.get_or_insert_with(|| Instant::now() + SYNC_EVERY);
        let is_due = Instant::now() >= at;
        if is_due {
            *next = None;
        }
        is_due
    }

    /// Takes dirty values off the list. Those that another thread works on come again later.
    fn next_batch<'a>(&'a self, state: &mut State) -> Vec<KeyLock<'a>> {
        let mut batch = Batch::new(self);
        let mut locks = Vec::new();
        for _ in 0..state.pending.len() {
            if batch.is_full() {
                break;
            }
            let Some(edition) = state.pending.pop_front() else { break };
            let Some((key, size)) = state.residents.dirty_edition(edition) else { continue };
            match self.try_lock_key_in(state, &key) {
                Some(lock) => {
                    batch.add(size);
                    locks.push(lock);
                }
                None => {
                    state.busy.entry(key).and_modify(|work| work.is_awaited = true);
                    state.pending.push_back(edition);
                }
            }
        }
        locks
    }

    /// Ends the threads in the background after what they are at, and waits for them.
    pub(crate) fn close(&self) {
        self.state().closing = true;
        self.work.notify_all();
        self.changed.notify_all();
        self.background.close();
    }
}
