//! Finding the result of a call, or computing it, once at a time.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::call::Call;
use super::flight::{Lead, Role, Shared};
use super::lease::{Lease, Request};
use super::record::Record;
use super::settings::CallEvent;
use super::stored::{Origin, Stored};
use super::trace::CallSpan;
use super::wait;
use crate::error::{Error, ErrorKind, Result};
use crate::info::Info;
use crate::key::Key;
use crate::store::Recalled;
use crate::value::{Recorded, Value};

/// Where the result of a call came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The function ran.
    Computed,
    /// It was in memory.
    Memory,
    /// It was on disk.
    Disk,
    /// Another thread or task was computing it; this call waited.
    Joined,
    /// The function ran, and nothing was looked up or kept: the stage is disabled, or the call has no key.
    Called,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Computed => "computed",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Joined => "joined",
            Self::Called => "called",
        })
    }
}

/// The result of a call, and where it came from.
#[non_exhaustive]
#[derive(Debug)]
pub struct Run<V> {
    /// The result, shared with the chest: nobody can change it for others.
    pub value: Arc<V>,
    /// Where it came from.
    pub status: Status,
    /// How long that took, all in all.
    pub took: Duration,
    /// The bytes that it takes in memory.
    pub bytes: u64,
    /// The key that it is stored under; none if it is not.
    pub key: Option<Key>,
    /// Why it could not be stored.
    pub not_stored: Option<Error>,
}

/// What is told of a call that gave a result.
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "spans alone have it"))]
pub(super) struct Outcome<'a> {
    pub(super) key: Option<&'a Key>,
    pub(super) status: Status,
    pub(super) bytes: u64,
}

impl Outcome<'_> {
    /// The function ran, and nothing is known of what it gave.
    pub(super) const CALLED: Self = Self { key: None, status: Status::Called, bytes: 0 };
}

impl<V: Value> Run<V> {
    fn new(key: &Key, value: Arc<V>, status: Status) -> Self {
        let bytes = value.size() as u64;
        Self { value, status, took: Duration::ZERO, bytes, key: Some(key.clone()), not_stored: None }
    }

    fn called(value: Arc<V>) -> Self {
        let bytes = value.size() as u64;
        Self { value, status: Status::Called, took: Duration::ZERO, bytes, key: None, not_stored: None }
    }

    fn since(self, began: Instant) -> Self {
        Self { took: began.elapsed(), ..self }
    }

    fn unstored(mut self, error: Error) -> Self {
        self.key = None;
        self.not_stored = Some(error);
        self
    }

    pub(super) fn outcome(&self) -> Outcome<'_> {
        Outcome { key: self.key.as_ref(), status: self.status, bytes: self.bytes }
    }

    fn shared(&self) -> Shared {
        let not_stored = self.not_stored.as_ref().map(|error| Arc::new(error.again()));
        Shared { value: self.value.clone(), not_stored }
    }
}

/// The result of a call; `compute` runs in this thread.
pub(super) fn now<V: Value, E: From<Error>>(
    call: &Call,
    compute: impl FnOnce() -> Result<Arc<V>, E>,
) -> Result<Run<V>, E> {
    let span = CallSpan::new(call);
    let done = span.within(|| find_or_compute(call, compute));
    span.end(done.as_ref().ok().map(Run::outcome));
    done
}

/// The result of a call; `compute` runs in this task.
pub(super) async fn later<V: Value, E: From<Error>>(
    call: &Call,
    compute: impl Future<Output = Result<Arc<V>, E>>,
) -> Result<Run<V>, E> {
    let span = CallSpan::new(call);
    let done = span.around(find_or_compute_later(call, compute)).await;
    span.end(done.as_ref().ok().map(Run::outcome));
    done
}

/// As [`now`], within a span of the caller's.
pub(super) fn find_or_compute<V: Value, E: From<Error>>(
    call: &Call,
    compute: impl FnOnce() -> Result<Arc<V>, E>,
) -> Result<Run<V>, E> {
    let began = Instant::now();
    let Some(key) = call.usable_key::<V>()? else {
        call.count(Status::Called);
        return Ok(Run::called(compute()?).since(began));
    };
    let store = call.stage.chest.store()?;
    if let Some(run) = find(call, &key, began)? {
        return Ok(run);
    }
    loop {
        match store.stages.flights.enter(&key)? {
            // Whoever computes may wait for the key that this thread works on.
            Role::Join(_) if store.works_on_a_key() => {
                return Ok(computed(call, &key, compute, |compute| compute())?.since(began));
            }
            Role::Join(join) => {
                if let Some(run) = join.wait().and_then(|result| joined(call, &key, result)) {
                    return Ok(run.since(began));
                }
                if let Some(run) = find(call, &key, Instant::now())? {
                    return Ok(run.since(began));
                }
            }
            Role::Lead(lead) => {
                let _lease = match request(call, &key, &lead) {
                    Some(mut request) if store.works_on_a_key() => usable(request.attempt())?.and_then(Result::ok),
                    Some(request) => usable(request.wait())?,
                    None => None,
                };
                if let Some(run) = find_again(call, &key)? {
                    lead.finish(run.shared());
                    return Ok(run.since(began));
                }
                let run = computed(call, &key, compute, |compute| lead.id().within(compute))?;
                lead.finish(run.shared());
                return Ok(run.since(began));
            }
        }
    }
}

/// As [`later`], within a span of the caller's.
pub(super) async fn find_or_compute_later<V: Value, E: From<Error>>(
    call: &Call,
    compute: impl Future<Output = Result<Arc<V>, E>>,
) -> Result<Run<V>, E> {
    let began = Instant::now();
    let Some(key) = call.usable_key::<V>()? else {
        call.count(Status::Called);
        return Ok(Run::called(compute.await?).since(began));
    };
    let store = call.stage.chest.store()?;
    if let Some(run) = find(call, &key, began)? {
        return Ok(run);
    }
    loop {
        match store.stages.flights.enter(&key)? {
            Role::Join(join) => {
                if let Some(run) = join.await.and_then(|result| joined(call, &key, result)) {
                    return Ok(run.since(began));
                }
                if let Some(run) = find(call, &key, Instant::now())? {
                    return Ok(run.since(began));
                }
            }
            Role::Lead(lead) => {
                let _lease = match request(call, &key, &lead) {
                    Some(request) => usable(lease(request).await)?,
                    None => None,
                };
                if let Some(run) = find_again(call, &key)? {
                    lead.finish(run.shared());
                    return Ok(run.since(began));
                }
                call.stage.tell(&CallEvent::Miss { key: &key });
                let computing = Instant::now();
                let value = lead.id().around(compute).await?;
                let run = keep_computed(call, &key, value, computing.elapsed());
                lead.finish(run.shared());
                return Ok(run.since(began));
            }
        }
    }
}

/// A temporary chest is nobody else's.
fn request(call: &Call, key: &Key, lead: &Lead<'_>) -> Option<Request> {
    let disk = &call.stage.chest.store().ok()?.disk;
    let request = || Request::new(disk.root(), key, disk.is_private(), lead.id());
    (!disk.is_temporary()).then(|| request().inherited(call.stage.settings.children_hold_lease))
}

/// A lease that cannot be had because the disk is full, say, is no reason not to compute.
fn usable<T>(lease: Result<T>) -> Result<Option<T>> {
    match lease {
        Err(error) if error.kind() == ErrorKind::Busy => Err(error),
        lease => Ok(lease.ok()),
    }
}

async fn lease(mut request: Request) -> Result<Lease> {
    match request.attempt()? {
        Ok(lease) => Ok(lease),
        Err(_) => {
            let _end = request.end();
            wait::on_a_thread(|| request.wait()).await?
        }
    }
}

/// The stored result, if it may be used, for who began to look for it then. What is damaged is put aside.
pub(super) fn find<V: Value>(call: &Call, key: &Key, began: Instant) -> Result<Option<Run<V>>> {
    look(call, key, began, || call.stage.tell(&CallEvent::Stale { key }))
}

/// As [`find`], for who has looked before and waited then: another may have computed it meanwhile.
fn find_again<V: Value>(call: &Call, key: &Key) -> Result<Option<Run<V>>> {
    look(call, key, Instant::now(), || {})
}

fn look<V: Value>(call: &Call, key: &Key, began: Instant, tell_stale: impl FnOnce()) -> Result<Option<Run<V>>> {
    let (stage, settings) = (&call.stage, &*call.stage.settings);
    if settings.force {
        return Ok(None);
    }
    let store = stage.chest.store()?;
    let _disk_only = (!settings.keep_memory).then(|| store.prefer_disk(key));
    let (status, value, about) = match store.recall::<V>(key)? {
        Recalled::Nothing => return Ok(None),
        Recalled::Damaged { error, version } => {
            store.set_aside(key, version)?;
            stage.tell(&CallEvent::Damaged { key, error: &error });
            return Ok(None);
        }
        Recalled::Memory(value) => (Status::Memory, value, None),
        Recalled::Disk(value, about) => (Status::Disk, value, about),
    };
    let run = Run::new(key, value, status);
    if !is_valid(call, key, &run)? {
        tell_stale();
        return Ok(None);
    }
    let run = run.since(began);
    call.count(status);
    let took = about.and_then(|about| Record::parse(&about)).map(|record| record.took());
    let took = took.inspect(|&took| store.stages.note(key, took)).or_else(|| store.stages.took(key));
    stage.counters.add_saved(took.unwrap_or_default().saturating_sub(run.took));
    stage.tell(&CallEvent::Hit { key, status });
    Ok(Some(run))
}

/// A handle to a stored result that may be used as it is. It is not read.
pub(super) fn stored<V: Value>(call: &Call) -> Result<Option<Stored<V>>> {
    let began = Instant::now();
    let (stage, settings) = (&call.stage, &*call.stage.settings);
    if settings.force || settings.validate.is_some() || settings.disabled {
        return Ok(None);
    }
    // What is wrong with the key, or with the catalog, is told by whoever computes or reads the result.
    let Ok(key) = call.key::<V>() else { return Ok(None) };
    let Ok(Some(info)) = Info::of(stage.chest.store()?, &key) else { return Ok(None) };
    let record = Record::of(&info.about);
    if settings.expire.is_some_and(|after| record.as_ref().is_some_and(|record| record.is_older(after))) {
        return Ok(None);
    }
    let status = if info.is_resident { Status::Memory } else { Status::Disk };
    call.count(status);
    let took = began.elapsed();
    stage.counters.add_saved(record.as_ref().map_or(Duration::ZERO, Record::took).saturating_sub(took));
    stage.tell(&CallEvent::Hit { key: &key, status });
    let origin = Origin { status, took, bytes: info.bytes };
    CallSpan::new(call).end(Some(Outcome { key: Some(&key), status, bytes: info.bytes }));
    Ok(Some(Stored::at(&stage.chest, key, record.and_then(|record| record.edition()), origin)))
}

/// Whether a stored result is young enough, and whether the user's check accepts it.
fn is_valid<V: Value>(call: &Call, key: &Key, run: &Run<V>) -> Result<bool> {
    let settings = &*call.stage.settings;
    if settings.expire.is_none() && settings.validate.is_none() {
        return Ok(true);
    }
    // Removed meanwhile.
    let Some(info) = Info::of(call.stage.chest.store()?, key)? else { return Ok(false) };
    let record = Record::of(&info.about);
    if settings.expire.is_some_and(|after| record.as_ref().is_some_and(|record| record.is_older(after))) {
        return Ok(false);
    }
    let Some(check) = &settings.validate else { return Ok(true) };
    // What somebody has inserted without a call is told as one of this stage, without arguments.
    let record = record.unwrap_or_else(|| Record::of_stage(settings));
    Ok(check(&record.info(key, run.value.stored_name(), run.bytes, info.stored_bytes), &*run.value))
}

fn joined<V: Value>(call: &Call, key: &Key, result: Shared) -> Option<Run<V>> {
    // Who wants a new result, or checks it, looks again.
    if call.stage.settings.force || call.stage.settings.validate.is_some() {
        return None;
    }
    // Of another type only where a keymap gives two stages one key; then each computes its own.
    let mut run = Run::new(key, result.value.downcast().ok()?, Status::Joined);
    if let Some(error) = result.not_stored {
        run = run.unstored(error.again());
    }
    call.count(run.status);
    let took = call.stage.chest.store().ok()?.stages.took(key);
    call.stage.counters.add_saved(took.unwrap_or_default());
    call.stage.tell(&CallEvent::Hit { key, status: run.status });
    Some(run)
}

/// Computes, and keeps what came of it.
fn computed<V: Value, C, E>(
    call: &Call,
    key: &Key,
    compute: C,
    run: impl FnOnce(C) -> Result<Arc<V>, E>,
) -> Result<Run<V>, E> {
    call.stage.tell(&CallEvent::Miss { key });
    let computing = Instant::now();
    let value = run(compute)?;
    Ok(keep_computed(call, key, value, computing.elapsed()))
}

/// Keeps what was computed. That it cannot be stored is no reason to lose it.
fn keep_computed<V: Value>(call: &Call, key: &Key, value: Arc<V>, took: Duration) -> Run<V> {
    let run = Run::new(key, value, Status::Computed);
    call.count(run.status);
    call.stage.counters.add_computing(took);
    let stored = call.check_inputs().and_then(|()| {
        let settings = &call.stage.settings;
        let again = settings.force || settings.expire.is_some() || settings.validate.is_some();
        let record = Record::new(&call.signature::<V>()?, took, settings.tag.clone(), again);
        keep(call, key, run.value.clone(), record)
    });
    match stored {
        Ok(()) => run,
        Err(error) => {
            call.stage.counters.count_not_stored();
            call.stage.tell(&CallEvent::NotStored { key, error: &error });
            run.unstored(error)
        }
    }
}

/// Stores a result together with what is told of its call.
pub(super) fn keep<V: Value>(call: &Call, key: &Key, value: Arc<V>, record: Record) -> Result<()> {
    let store = call.stage.chest.store()?;
    let recorded = Recorded::new(value, record.facts());
    let _disk_only = (!call.stage.settings.keep_memory).then(|| store.prefer_disk(key));
    if call.writes_through {
        store.insert_published(key, &recorded)?;
    } else {
        store.keep(key, Arc::new(recorded), !store.disk.is_temporary())?;
    }
    store.stages.note(key, record.took());
    Ok(())
}
