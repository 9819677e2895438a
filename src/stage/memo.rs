//! Closures with a stage around them.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;

use super::call::Call;
use super::run::Run;
use super::settings::Stage;
use crate::error::Result;
use crate::value::Value;

/// A function whose results are kept, made by [`Stage::wrap`]. Its argument is bound to the name `argument`.
pub struct Memo<A, V, F> {
    stage: Stage,
    function: F,
    types: PhantomData<fn(&A) -> V>,
}

impl<A: Serialize, V: Value, F: Fn(&A) -> V> Memo<A, V, F> {
    pub(super) fn new(stage: Stage, function: F) -> Self {
        Self { stage, function, types: PhantomData }
    }

    /// The function's result for this argument.
    ///
    /// # Errors
    /// As for [`Call::run`].
    pub fn call(&self, argument: &A) -> Result<Arc<V>> {
        Ok(self.call_with_status(argument)?.value)
    }

    /// As [`call`](Self::call), and tells where the result came from.
    ///
    /// # Errors
    /// As for [`Call::run`].
    pub fn call_with_status(&self, argument: &A) -> Result<Run<V>> {
        self.of(argument).run_with_status(|| (self.function)(argument))
    }

    /// The call itself, to look its result up, to store or to forget it.
    pub fn of(&self, argument: &A) -> Call {
        self.stage.arg("argument", argument)
    }

    /// The stage around the function.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// The function itself.
    pub fn function(&self) -> &F {
        &self.function
    }
}

impl<A, V, F> fmt::Debug for Memo<A, V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memo({:?})", self.stage)
    }
}
