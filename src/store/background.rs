//! The threads of a chest: the writer, the watch of memory, and those that load what will be read soon.

use std::collections::VecDeque;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, LazyLock, PoisonError};
use std::time::Duration;

use super::Store;
use crate::error::{Error, Result};
use crate::sync::atomic::Ordering;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// So many threads load values, started when there is something to load: one may wait for the disk while the other
/// decodes.
const LOADERS: usize = 2;

/// So many threads write values at the same time; whoever else needs room waits for what these make.
pub(super) fn encoders() -> usize {
    /// Asking the system takes long.
    static CORES: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    // In the model all machines are alike.
    if cfg!(feature = "model") { 2 } else { CORES.max(2) }
}

/// Background writers: a core is left for whoever inserts, and helps when room is needed.
fn writers() -> usize {
    /// More would write faster than a disk does.
    const MOST: usize = 3;
    if cfg!(feature = "model") { 2 } else { (encoders() - 1).min(MOST) }
}

/// Loading that is done in steps of one value, so that who comes later need not wait for all of it.
pub(super) trait Task: Send + Sync {
    /// Loads a value. Tells whether there are more to load.
    fn step(&self, store: &Store) -> bool;

    /// The chest is closed: what is not loaded will not be.
    fn end(&self);
}

/// Runs what a panic does not end: a user's value may panic when it is dropped, wherever that is.
pub(super) fn again_after_panics(mut work: impl FnMut()) {
    while panic::catch_unwind(AssertUnwindSafe(&mut work)).is_err() {}
}

/// When a task has its turn.
#[derive(Clone, Copy)]
pub(super) enum Turn {
    /// Somebody is about to need it.
    Soon,
    /// After those, and one step after the other with its like.
    Later,
}

pub(super) struct Background {
    queue: Mutex<Queue>,
    /// Signals work for a loader.
    work: Condvar,
    /// Signals the end to threads that let time pass.
    end: Condvar,
}

#[derive(Default)]
struct Queue {
    soon: VecDeque<Arc<dyn Task>>,
    later: VecDeque<Arc<dyn Task>>,
    threads: Vec<JoinHandle<()>>,
    loaders: usize,
    writers: usize,
    /// Loaders that wait for work.
    idle: usize,
    is_closing: bool,
}

impl Queue {
    fn pop(&mut self) -> Option<Arc<dyn Task>> {
        self.soon.pop_front().or_else(|| self.later.pop_front())
    }
}

impl Background {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::new(Queue::default()), work: Condvar::new(), end: Condvar::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next task, when there is one; none when the chest is closed.
    fn next(&self) -> Option<Arc<dyn Task>> {
        let mut queue = self.queue();
        loop {
            if queue.is_closing {
                return None;
            }
            if let Some(task) = queue.pop() {
                return Some(task);
            }
            queue.idle += 1;
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    /// Puts a task behind the others that wait.
    fn put_back(&self, task: Arc<dyn Task>) {
        let mut queue = self.queue();
        if queue.is_closing {
            drop(queue);
            return task.end();
        }
        queue.later.push_back(task);
    }

    /// Lets time pass. Tells whether the chest is closed.
    pub(super) fn wait_for_end(&self, timeout: Duration) -> bool {
        let queue = self.queue();
        if queue.is_closing {
            return true;
        }
        let (queue, _) = self.end.wait_timeout(queue, timeout).unwrap_or_else(PoisonError::into_inner);
        queue.is_closing
    }

    /// Ends all threads after what they are at, and waits for them.
    pub(super) fn close(&self) {
        let (soon, later, threads) = {
            let mut queue = self.queue();
            queue.is_closing = true;
            self.work.notify_all();
            self.end.notify_all();
            (mem::take(&mut queue.soon), mem::take(&mut queue.later), mem::take(&mut queue.threads))
        };
        soon.iter().chain(&later).for_each(|task| task.end());
        let me = thread::current().id();
        // A value that owns a chest may be dropped by one of these threads.
        for thread in threads.into_iter().filter(|other| other.thread().id() != me) {
            // A user's code cannot end them with a panic; if something else did, there is nothing to be done.
            let _ = thread.join();
        }
    }
}

impl Store {
    /// Starts a thread that `close` ends and waits for; `work` must look for the end.
    pub(crate) fn start_thread(self: &Arc<Self>, name: &str, work: impl FnOnce(&Self) + Send + 'static) -> Result<()> {
        self.start_in(&mut self.background.queue(), name, work)
    }

    /// Starts the threads that write values behind the user's back, when there is something to write for the first time.
    ///
    /// Where the system gives none, the next value tries again; `flush` and who needs room write all the same.
    pub(super) fn start_writers(&self) {
        if !self.writes_behind || self.has_writers.load(Ordering::Relaxed) {
            return;
        }
        let Some(store) = self.me.upgrade() else { return };
        let mut queue = self.background.queue();
        while queue.writers < writers() && !queue.is_closing {
            let syncs = queue.writers == 0;
            let write = move |store: &Self| {
                let mut is_first = true;
                again_after_panics(|| {
                    if !mem::take(&mut is_first) {
                        store.put_all_dirty_back();
                    }
                    store.write_behind(syncs);
                });
            };
            if store.start_in(&mut queue, "icechest-writer", write).is_err() {
                break;
            }
            queue.writers += 1;
        }
        self.has_writers.store(queue.writers > 0, Ordering::Relaxed);
    }

    fn start_in(
        self: &Arc<Self>,
        queue: &mut Queue,
        name: &str,
        work: impl FnOnce(&Self) + Send + 'static,
    ) -> Result<()> {
        let store = self.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&store));
        queue.threads.push(thread.map_err(|error| Error::io("cannot start a thread", error))?);
        Ok(())
    }

    /// Loads in the background, on as many threads as there are.
    ///
    /// # Errors
    /// When there are no threads, and none can be started.
    pub(super) fn load_in_background(self: &Arc<Self>, task: Arc<dyn Task>, steps: usize, turn: Turn) -> Result<()> {
        let mut queue = self.background.queue();
        for _ in 0..steps.min(LOADERS) {
            if queue.idle <= queue.soon.len() + queue.later.len() && queue.loaders < LOADERS {
                match self.start_in(&mut queue, "icechest-loader", Self::run_loader) {
                    Ok(()) => queue.loaders += 1,
                    Err(error) if queue.loaders == 0 => return Err(error),
                    Err(_) => {}
                }
            }
            match turn {
                Turn::Soon => queue.soon.push_back(task.clone()),
                Turn::Later => queue.later.push_back(task.clone()),
            }
            self.background.work.notify_one();
        }
        Ok(())
    }

    fn run_loader(&self) {
        again_after_panics(|| {
            while let Some(task) = self.background.next() {
                if task.step(self) {
                    self.background.put_back(task);
                }
            }
        });
    }
}
