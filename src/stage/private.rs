//! What the code that `#[stage]` makes calls. Not for others: it changes with the macro.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::call::Call;
use super::output::Output;
use super::run::{self, Outcome, Run};
use super::settings::CallEvent;
use super::settings::Stage;
use super::trace::CallSpan;
use crate::chest::Chest;
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

/// A stage for a function at this place; without a key of its own, not for a closure, of which nobody can tell which it is.
pub fn stage(chest: &Chest, name: impl Into<String>, place: Place, has_key: bool) -> Stage {
    let stage = chest.stage(name).module(place.module);
    if !place.has_closure || has_key {
        return stage;
    }
    let problem = format!(
        "the stage {} is called with a closure in the place of a generic parameter, and all closures of a function have one \
         name; pass a function, or tell calls apart with `key = …`",
        stage.name()
    );
    stage.set(|settings| _ = settings.problem.get_or_insert(problem))
}

/// Where a function is, and what its parameters stand for.
pub struct Place {
    pub(super) module: String,
    /// Whether one of them is a closure.
    pub(super) has_closure: bool,
}

/// Whether a type's name has that of a closure in it, not of something that is declared in one.
fn names_a_closure(name: &str) -> bool {
    name.split("{{closure}}").skip(1).any(|rest| !rest.starts_with("::"))
}

/// Where a function is: its module, and its type or trait if it has one; and what its parameters stand for. `inside` is the
/// name of an item in the function, `closure` that of a closure, which tells more: of functions of generic types and traits,
/// and of those that a trait has by default, it has the type itself.
pub fn place(inside: &str, closure: &str, generics: &[&str]) -> Place {
    /// Looks for one character: for two it would take ten times as long.
    fn around(path: &str) -> Option<&str> {
        path.rsplit_once(':').and_then(|(path, _)| path.strip_suffix(':'))
    }
    let function = around(inside).unwrap_or_default();
    let place = around(function).unwrap_or_default();
    let itself = (!closure.starts_with(function)).then(|| closure.trim_end_matches("::{{closure}}"));
    let generics: Vec<&str> = itself.into_iter().chain(generics.iter().copied()).collect();
    // That of a closure in the function ends with what is no parameter; an async function is a closure itself.
    let own = closure.trim_end_matches("::{{closure}}");
    let has_closure = generics.iter().any(|&name| names_a_closure(if name == closure { own } else { name }));
    let module = if generics.is_empty() { place.to_owned() } else { format!("{place}<{}>", generics.join(", ")) };
    Place { module, has_closure }
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
    let span = CallSpan::new(&call);
    let mut body = Some(body);
    let compute = || value::<R, Infallible>(Ok(take(&mut body)()));
    let done = match span.within(|| run::find_or_compute(&call, compute)) {
        Ok(run) => Ok(run),
        Err(Stop::Handle(returned)) => Err(returned),
        Err(Stop::Failed(never)) => match never {},
        Err(Stop::Cache(error)) => span.within(|| {
            call.stage.tell(&CallEvent::Unkeyable { error: &error });
            Err(take(&mut body)())
        }),
    };
    give(&call, &span, done)
}

/// As `run`, of an async function.
pub async fn run_async<R: Output>(call: Call, body: impl AsyncFnOnce() -> R) -> R {
    if let Ok(Some(stored)) = R::from_stored(&call) {
        return stored;
    }
    let span = CallSpan::new(&call);
    let mut body = Some(body);
    let compute = async { value::<R, Infallible>(Ok(take(&mut body)().await)) };
    let done = match span.around(run::find_or_compute_later(&call, compute)).await {
        Ok(run) => Ok(run),
        Err(Stop::Handle(returned)) => Err(returned),
        Err(Stop::Failed(never)) => match never {},
        Err(Stop::Cache(error)) => {
            span.within(|| call.stage.tell(&CallEvent::Unkeyable { error: &error }));
            Err(span.around(take(&mut body)()).await)
        }
    };
    give(&call, &span, done)
}

/// A function that returns a `Result`: its errors are not stored, and what is wrong with the cache is one of them.
pub fn try_run<R: Output, E: From<Error>>(call: Call, body: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
    if let Some(stored) = R::from_stored(&call)? {
        return Ok(stored);
    }
    let span = CallSpan::new(&call);
    let done = span.within(|| run::find_or_compute(&call, || value(body())));
    finish(&call, &span, done)
}

/// As `try_run`, of an async function.
pub async fn try_run_async<R: Output, E: From<Error>>(
    call: Call,
    body: impl AsyncFnOnce() -> Result<R, E>,
) -> Result<R, E> {
    if let Some(stored) = R::from_stored(&call)? {
        return Ok(stored);
    }
    let span = CallSpan::new(&call);
    let done = span.around(run::find_or_compute_later(&call, async { value(body().await) })).await;
    finish(&call, &span, done)
}

/// What the function gives: a result that was stored, or what its body has returned.
fn give<R: Output>(call: &Call, span: &CallSpan, done: Result<Run<R::Value>, R>) -> R {
    span.end(Some(done.as_ref().map_or(Outcome::CALLED, Run::outcome)));
    match done {
        Ok(run) => R::from_run(call, run),
        Err(returned) => returned,
    }
}

fn finish<R: Output, E: From<Error>>(
    call: &Call,
    span: &CallSpan,
    done: Result<Run<R::Value>, Stop<R, E>>,
) -> Result<R, E> {
    let error = match done {
        Ok(run) => return Ok(give(call, span, Ok(run))),
        Err(Stop::Handle(returned)) => return Ok(give(call, span, Err(returned))),
        Err(Stop::Failed(error)) => error,
        Err(Stop::Cache(error)) => error.into(),
    };
    span.end(None);
    Err(error)
}
