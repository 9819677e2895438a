//! What `tracing` hears of calls.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use icechest::{Chest, Result, Stage, WhenUnkeyable};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

type Fields = BTreeMap<&'static str, String>;

/// Keeps the fields of all spans, the number of the span around each, and all events.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    spans: Vec<(Option<usize>, Fields)>,
    events: Vec<Fields>,
    entered: Vec<usize>,
}

struct Into<'a>(&'a mut Fields);

impl Visit for Into<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

fn index(id: &Id) -> usize {
    id.into_u64() as usize - 1
}

impl Subscriber for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "icechest::stage"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut state = self.0.lock().unwrap();
        let mut fields = Fields::new();
        span.record(&mut Into(&mut fields));
        let parent = state.entered.last().copied();
        state.spans.push((parent, fields));
        Id::from_u64(state.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        values.record(&mut Into(&mut self.0.lock().unwrap().spans[index(span)].1));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::new();
        event.record(&mut Into(&mut fields));
        self.0.lock().unwrap().events.push(fields);
    }

    fn enter(&self, span: &Id) {
        self.0.lock().unwrap().entered.push(index(span));
    }

    fn exit(&self, span: &Id) {
        assert_eq!(self.0.lock().unwrap().entered.pop(), Some(index(span)));
    }
}

fn heard(work: impl FnOnce() -> Result<()>) -> Result<State> {
    let kept = Kept::default();
    tracing::subscriber::with_default(kept.clone(), work)?;
    Ok(std::mem::take(&mut *kept.0.lock().unwrap()))
}

fn statuses(state: &State) -> Vec<(Option<usize>, &str, &str)> {
    state.spans.iter().map(|(parent, fields)| (*parent, &*fields["stage"], &*fields["status"])).collect()
}

#[test]
fn each_call_is_a_span_within_that_of_its_caller() -> Result<()> {
    let chest = Chest::temporary()?;
    let outer: Stage = chest.stage("outer");
    let call = |x: u64| {
        let inner = || chest.stage("inner").arg("x", x).run(|| vec![x; 100]).map(|value| value.len());
        outer.clone().arg("x", x).try_run(inner)
    };
    let state = heard(|| {
        call(1)?;
        call(1)?;
        // Forgotten by its caller, not by itself.
        assert!(outer.clone().arg("x", 1).forget::<usize>()?);
        call(1)?;
        Ok(())
    })?;
    let expected = [
        (None, "outer", "computed"),
        (Some(0), "inner", "computed"),
        (None, "outer", "memory"),
        (None, "outer", "computed"),
        (Some(3), "inner", "memory"),
    ];
    assert_eq!(statuses(&state), expected);
    let (_, inner) = &state.spans[1];
    assert!(inner["key"].starts_with("[\"inner\","), "{inner:?}");
    assert!(inner["bytes"].parse::<u64>().unwrap() >= 800, "{inner:?}");
    assert!(state.events.is_empty() && state.entered.is_empty());
    Ok(())
}

#[test]
fn a_task_and_a_handle_have_spans_too() -> Result<()> {
    let chest = Chest::temporary()?;
    let state = heard(|| {
        let yields = async {
            futures_lite::future::yield_now().await;
            5
        };
        futures_lite::future::block_on(chest.stage("later").call().run_async(yields))?;
        chest.stage("handle").call().run_stored(|| 5)?;
        chest.stage("handle").call().run_stored(|| 5)?;
        let failed = chest.stage("wrong").call().try_run(|| "five".parse::<i32>().map_err(icechest_error));
        assert!(failed.is_err());
        Ok(())
    })?;
    let expected = [
        (None, "later", "computed"),
        (None, "handle", "computed"),
        (None, "handle", "memory"),
        (None, "wrong", "failed"),
    ];
    assert_eq!(statuses(&state), expected);
    Ok(())
}

/// Its cache cannot be used for a file that is not there.
#[icechest::stage(chest = chest, ignore(chest), path(file))]
fn runs_all_the_same(chest: &Chest, file: &str) -> usize {
    chest.stage("inner").call().run(|| file.len()).map_or(0, |len| *len)
}

#[test]
fn a_function_that_runs_without_its_cache_has_a_span() -> Result<()> {
    let chest = Chest::temporary()?;
    let state = heard(|| {
        assert_eq!(runs_all_the_same(&chest, "/no/such/file"), 13);
        Ok(())
    })?;
    assert_eq!(statuses(&state), [(None, "runs_all_the_same", "called"), (Some(0), "inner", "computed")]);
    assert_eq!(state.events.len(), 1);
    Ok(())
}

fn icechest_error(error: std::num::ParseIntError) -> icechest::Error {
    std::io::Error::other(error).into()
}

#[test]
fn what_needs_a_look_is_a_warning() -> Result<()> {
    let chest = Chest::temporary()?;
    let state = heard(|| {
        let stage = chest.stage("text").when_unkeyable(WhenUnkeyable::Call);
        let missing = stage.path("file", "/there/is/no/such/file").run_with_status(|| 5)?;
        assert_eq!(*missing.value, 5);
        Ok(())
    })?;
    assert_eq!(statuses(&state), [(None, "text", "called")]);
    let [event] = &state.events[..] else { panic!("{:?}", state.events) };
    assert_eq!((&*event["stage"], &*event["message"]), ("text", "the arguments make no key"));
    assert!(event["error"].contains("/there/is/no/such/file"), "{event:?}");
    Ok(())
}
