//! What the code that `#[stage]` makes calls. Not for others: it changes with the macro.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::call::Call;
use super::output::Output;
use super::run;
use super::settings::CallEvent;
use crate::error::Error;
use crate::key::Content;

/// An argument, of which the compiler finds out whether it has content of its own or is a serde type: it looks for methods
/// of the type itself before those of a reference to it.
pub struct Probe<'a, T: ?Sized>(pub &'a T);

/// Text is text, although it has content.
impl Probe<'_, str> {
    pub fn bind(self, call: Call, name: &str) -> Call {
        call.arg(name, self.0)
    }
}

impl Probe<'_, &str> {
    pub fn bind(self, call: Call, name: &str) -> Call {
        call.arg(name, self.0)
    }
}

impl Probe<'_, String> {
    pub fn bind(self, call: Call, name: &str) -> Call {
        call.arg(name, self.0)
    }
}

impl Probe<'_, &String> {
    pub fn bind(self, call: Call, name: &str) -> Call {
        call.arg(name, self.0)
    }
}

/// Where a function is: its module, and its type or trait if it has one; and what its parameters stand for. `inside` is the
/// name of an item in the function.
pub fn place(inside: &str, generics: &[&str]) -> String {
    let function = inside.rsplit_once("::").map_or(inside, |(function, _)| function);
    let place = function.rsplit_once("::").map_or("", |(place, _)| place);
    if generics.is_empty() { place.to_owned() } else { format!("{place}<{}>", generics.join(", ")) }
}

pub trait AsContent {
    fn bind(self, call: Call, name: &str) -> Call;
}

impl<T: Content + ?Sized> AsContent for Probe<'_, T> {
    fn bind(self, call: Call, name: &str) -> Call {
        call.content(name, self.0)
    }
}

pub trait AsSerde {
    fn bind(self, call: Call, name: &str) -> Call;
}

impl<T: Serialize + ?Sized> AsSerde for &Probe<'_, T> {
    fn bind(self, call: Call, name: &str) -> Call {
        call.arg(name, self.0)
    }
}

/// Binds a path that stands for its content.
pub fn bind_path<P: AsRef<Path> + ?Sized>(call: Call, name: &str, path: &P) -> Call {
    call.path(name, path)
}

/// Why a call has no result to be stored, or none from the store.
enum Stop<R, E> {
    /// The body returned a handle that cannot be read.
    Handle(R),
    Failed(E),
    /// Before the body ran: after it a call has a result.
    Cache(Error),
}

impl<R, E> From<Error> for Stop<R, E> {
    fn from(error: Error) -> Self {
        Self::Cache(error)
    }
}

fn value<R: Output, E>(returned: Result<R, E>) -> Result<Arc<R::Value>, Stop<R, E>> {
    returned.map_err(Stop::Failed)?.into_output().map_err(Stop::Handle)
}

fn take<F>(body: &mut Option<F>) -> F {
    match body.take() {
        Some(body) => body,
        None => unreachable!("a call computes once"),
    }
}

/// A function that returns no `Result`: what is wrong with the cache is no reason not to run it.
pub fn run<R: Output>(call: Call, body: impl FnOnce() -> R) -> R {
    if let Ok(Some(stored)) = R::from_stored(&call) {
        return stored;
    }
    let mut body = Some(body);
    match run::now(&call, || value::<R, Infallible>(Ok(take(&mut body)()))) {
        Ok(run) => R::from_run(&call, run),
        Err(Stop::Handle(handle)) => handle,
        Err(Stop::Failed(never)) => match never {},
        Err(Stop::Cache(error)) => {
            call.stage.tell(&CallEvent::Unkeyable { error: &error });
            take(&mut body)()
        }
    }
}

/// As `run`, of an async function.
pub async fn run_async<R: Output>(call: Call, body: impl AsyncFnOnce() -> R) -> R {
    if let Ok(Some(stored)) = R::from_stored(&call) {
        return stored;
    }
    let mut body = Some(body);
    let done = run::later(&call, async { value::<R, Infallible>(Ok(take(&mut body)().await)) }).await;
    match done {
        Ok(run) => R::from_run(&call, run),
        Err(Stop::Handle(handle)) => handle,
        Err(Stop::Failed(never)) => match never {},
        Err(Stop::Cache(error)) => {
            call.stage.tell(&CallEvent::Unkeyable { error: &error });
            take(&mut body)().await
        }
    }
}

/// A function that returns a `Result`: its errors are not stored, and what is wrong with the cache is one of them.
pub fn try_run<R: Output, E: From<Error>>(call: Call, body: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
    if let Some(stored) = R::from_stored(&call)? {
        return Ok(stored);
    }
    let done = run::now(&call, || value(body()));
    finish(&call, done)
}

/// As `try_run`, of an async function.
pub async fn try_run_async<R: Output, E: From<Error>>(
    call: Call,
    body: impl AsyncFnOnce() -> Result<R, E>,
) -> Result<R, E> {
    if let Some(stored) = R::from_stored(&call)? {
        return Ok(stored);
    }
    let done = run::later(&call, async { value(body().await) }).await;
    finish(&call, done)
}

fn finish<R: Output, E: From<Error>>(call: &Call, done: Result<run::Run<R::Value>, Stop<R, E>>) -> Result<R, E> {
    match done {
        Ok(run) => Ok(R::from_run(call, run)),
        Err(Stop::Handle(handle)) => Ok(handle),
        Err(Stop::Failed(error)) => Err(error),
        Err(Stop::Cache(error)) => Err(error.into()),
    }
}
