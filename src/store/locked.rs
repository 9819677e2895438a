//! The state of the store while it is locked.

use std::mem;
use std::ops::{Deref, DerefMut};

use super::State;
use crate::sync::MutexGuard;

/// The state, locked. Values that leave it end when it is unlocked: that may take long, and run a user's code.
pub(crate) struct Locked<'a>(Option<MutexGuard<'a, State>>);

impl<'a> Locked<'a> {
    pub(super) fn new(mut guard: MutexGuard<'a, State>) -> Self {
        guard.counts.hits += guard.residents.count_hits();
        Self(Some(guard))
    }

    /// Unlocks the state for as long as `wait` takes.
    pub(super) fn wait(mut self, wait: impl FnOnce(MutexGuard<'a, State>) -> MutexGuard<'a, State>) -> Self {
        match self.0.take() {
            Some(guard) => Self::new(wait(guard)),
            None => self,
        }
    }
}

impl Deref for Locked<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        match &self.0 {
            Some(guard) => guard,
            None => unreachable!("the guard is taken by those alone who end this"),
        }
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        match &mut self.0 {
            Some(guard) => guard,
            None => unreachable!("the guard is taken by those alone who end this"),
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Some(mut guard) = self.0.take() {
            let gone = mem::take(&mut guard.residents.gone);
            drop(guard);
            gone.into_iter().for_each(|value| value.recycle());
        }
    }
}
