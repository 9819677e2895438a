//! Waiting in a future for what only a thread can wait for.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::{future, thread};

use crate::error::{Error, Result};

struct Shared<T>(Mutex<(Option<thread::Result<T>>, Option<Waker>)>);

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, (Option<thread::Result<T>>, Option<Waker>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `work` gives, on a thread of its own. A panic goes on in the future.
pub(super) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let shared = Arc::new(Shared(Mutex::new((None, None))));
    let theirs = shared.clone();
    let run = move || {
        let result = panic::catch_unwind(AssertUnwindSafe(work));
        let mut state = theirs.lock();
        state.0 = Some(result);
        let waker = state.1.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    };
    let spawned = thread::Builder::new().name("icechest-wait".to_owned()).spawn(run);
    spawned.map_err(|error| Error::io("cannot start a thread that waits", error))?;
    let result = future::poll_fn(|context| {
        let mut state = shared.lock();
        let result = state.0.take();
        if result.is_none() {
            state.1 = Some(context.waker().clone());
        }
        result.map_or(Poll::Pending, Poll::Ready)
    });
    Ok(result.await.unwrap_or_else(|panic| panic::resume_unwind(panic)))
}
