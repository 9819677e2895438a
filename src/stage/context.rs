//! Which call waits for which, over all chests of this process: so that no call waits for itself.

use std::cell::Cell;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// A call that is being computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(u64);

/// The calls that a call needs before it can end: those that it computes within itself, and those that it waits for.
static NEEDS: Mutex<Option<HashMap<Id, Vec<Id>>>> = Mutex::new(None);

thread_local! {
    static CURRENT: Cell<Option<Id>> = const { Cell::new(None) };
}

fn needs() -> MutexGuard<'static, Option<HashMap<Id, Vec<Id>>>> {
    NEEDS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Id {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether this call needs the other, perhaps through further calls.
    pub(super) fn needs(self, other: Self) -> bool {
        reaches(needs().get_or_insert_default(), self, other)
    }

    /// Runs `work` as a part of this call.
    pub(super) fn within<T>(self, work: impl FnOnce() -> T) -> T {
        struct Before(Option<Id>);
        impl Drop for Before {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _before = Before(CURRENT.replace(Some(self)));
        work()
    }

    /// As [`within`](Self::within), for a future, which may go from thread to thread.
    pub(super) fn around<F>(self, future: F) -> Within<F> {
        Within { id: self, future: Box::pin(future) }
    }
}

/// A future that is a part of a call.
pub(super) struct Within<F> {
    id: Id,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let id = self.id;
        id.within(|| self.future.as_mut().poll(context))
    }
}

/// That the call which runs now needs another one. Ends when this is dropped.
pub(super) struct Need(Option<(Id, Id)>);

impl Need {
    /// None if the other call needs this one, perhaps through further calls.
    pub(super) fn of(other: Id) -> Option<Self> {
        let Some(me) = CURRENT.get() else { return Some(Self(None)) };
        let mut needs = needs();
        let edges = needs.get_or_insert_default();
        if reaches(edges, other, me) {
            return None;
        }
        edges.entry(me).or_default().push(other);
        Some(Self(Some((me, other))))
    }
}

impl Drop for Need {
    fn drop(&mut self) {
        let Some((me, other)) = self.0 else { return };
        let mut needs = needs();
        let edges = needs.get_or_insert_default();
        if let Some(others) = edges.get_mut(&me) {
            if let Some(index) = others.iter().position(|&id| id == other) {
                others.swap_remove(index);
            }
            if others.is_empty() {
                edges.remove(&me);
            }
        }
    }
}

fn reaches(edges: &HashMap<Id, Vec<Id>>, from: Id, to: Id) -> bool {
    let (mut seen, mut open) = (vec![from], vec![from]);
    while let Some(id) = open.pop() {
        if id == to {
            return true;
        }
        for &next in edges.get(&id).into_iter().flatten() {
            if !seen.contains(&next) {
                seen.push(next);
                open.push(next);
            }
        }
    }
    false
}
