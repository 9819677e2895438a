//! Single flight within a process: of those who make one call at the same time, one computes and the others join.

use std::any::Any;
use std::collections::hash_map::Entry;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::context::{Id, Need};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Map};

/// A result, and why it could not be stored if it could not.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) value: Arc<dyn Any + Send + Sync>,
    pub(super) not_stored: Option<Arc<Error>>,
}

/// The calls that are being computed.
#[derive(Default)]
pub(super) struct Flights(Mutex<Map<Key, Arc<Flight>>>);

struct Flight {
    id: Id,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    end: Option<End>,
    wakers: Vec<Waker>,
}

/// How a computation ended.
#[derive(Clone)]
enum End {
    Done(Shared),
    Failed,
}

impl Flight {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What somebody who makes a call has to do.
pub(super) enum Role<'a> {
    Lead(Lead<'a>),
    Join(Join),
}

impl Flights {
    fn running(&self) -> MutexGuard<'_, Map<Key, Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// `Busy` when the call waits for itself.
    pub(super) fn enter(&self, key: &Key) -> Result<Role<'_>> {
        let flight = match self.running().entry(key.clone()) {
            Entry::Occupied(flight) => flight.get().clone(),
            Entry::Vacant(place) => {
                let flight = Arc::new(Flight { id: Id::new(), state: Mutex::default(), ended: Condvar::new() });
                place.insert(flight.clone());
                // Nobody needs a call that has just begun.
                let need = Need::of(flight.id);
                return Ok(Role::Lead(Lead { flights: self, key: key.clone(), flight, _need: need }));
            }
        };
        let need = Need::of(flight.id).ok_or_else(|| {
            let message =
                "the call needs its own result: it makes itself, with the same arguments, perhaps through others";
            Error::new(ErrorKind::Busy, message).with_key(key)
        })?;
        Ok(Role::Join(Join { flight, _need: need }))
    }
}

/// Whoever computes. If it is dropped without a result, one of those who wait is the next.
pub(super) struct Lead<'a> {
    flights: &'a Flights,
    key: Key,
    flight: Arc<Flight>,
    _need: Option<Need>,
}

impl Lead<'_> {
    pub(super) fn id(&self) -> Id {
        self.flight.id
    }

    /// Gives the result to all who wait.
    pub(super) fn finish(self, value: Shared) {
        self.flight.state().end = Some(End::Done(value));
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.flights.running().remove(&self.key);
        let mut state = self.flight.state();
        state.end.get_or_insert(End::Failed);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.flight.ended.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Whoever waits for another's result: as a thread, or as a future.
pub(super) struct Join {
    flight: Arc<Flight>,
    _need: Need,
}

impl Join {
    /// The result; none if there will be none, so that somebody has to try again.
    pub(super) fn wait(self) -> Option<Shared> {
        let state = self.flight.state();
        let state = self.flight.ended.wait_while(state, |state| state.end.is_none());
        result(&state.unwrap_or_else(PoisonError::into_inner))
    }
}

impl Future for Join {
    type Output = Option<Shared>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.flight.state();
        if state.end.is_some() {
            return Poll::Ready(result(&state));
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

fn result(state: &State) -> Option<Shared> {
    match &state.end {
        Some(End::Done(value)) => Some(value.clone()),
        _ => None,
    }
}
