//! What a function with `#[stage]` may return.

use std::sync::Arc;

use super::call::Call;
use super::run::{self, Run};
use super::stored::Stored;
use crate::error::Error;
use crate::value::Value;

/// What a function with [`#[stage]`](macro@crate::stage) may return, alone or in a `Result`: a value that can be cloned, an
/// [`Arc`] of a value, which is shared with the chest, or a [`Stored`] handle, which keeps nothing in memory.
pub trait Output: Sized {
    /// What is stored.
    type Value: Value;

    /// The value to be stored. Gives back what is none.
    #[doc(hidden)]
    fn into_output(self) -> Result<Arc<Self::Value>, Self>;

    /// What the caller gets.
    #[doc(hidden)]
    fn from_run(call: &Call, run: Run<Self::Value>) -> Self;

    /// What the caller gets of a stored result that need not be read.
    #[doc(hidden)]
    fn from_stored(_: &Call) -> Result<Option<Self>, Error> {
        Ok(None)
    }
}

impl<V: Value + Clone> Output for V {
    type Value = V;

    fn into_output(self) -> Result<Arc<V>, Self> {
        Ok(Arc::new(self))
    }

    fn from_run(_: &Call, run: Run<V>) -> Self {
        Arc::unwrap_or_clone(run.value)
    }
}

impl<V: Value> Output for Arc<V> {
    type Value = V;

    fn into_output(self) -> Result<Self, Self> {
        Ok(self)
    }

    fn from_run(_: &Call, run: Run<V>) -> Self {
        run.value
    }
}

impl<V: Value> Output for Stored<V> {
    type Value = V;

    fn into_output(self) -> Result<Arc<V>, Self> {
        self.get().map_err(|_| self)
    }

    fn from_run(call: &Call, run: Run<V>) -> Self {
        Self::of_run(call.stage.chest(), call.key::<V>().ok(), run)
    }

    fn from_stored(call: &Call) -> Result<Option<Self>, Error> {
        run::stored(call)
    }
}
