//! Finding the result of a call, or computing it, once at a time.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::call::Call;
use super::flight::Role;
use super::lease::{Lease, Request};
use super::record::Record;
use super::settings::CallEvent;
use super::stored::{Origin, Stored};
use super::wait;
use crate::error::{Error, Result};
use crate::info::Info;
use crate::key::Key;
use crate::memory::Hint;
use crate::store::Store;
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
}

/// The result of a call; `compute` runs in this thread.
pub(super) fn now<V: Value, E: From<Error>>(
    call: &Call,
    compute: impl FnOnce() -> Result<Arc<V>, E>,
) -> Result<Run<V>, E> {
    let began = Instant::now();
    let Some(key) = call.usable_key::<V>()? else {
        call.count(Status::Called);
        return Ok(Run::called(compute()?).since(began));
    };
    let store = call.stage.chest.store()?;
    loop {
        if let Some(run) = find::<V>(call, &key)? {
            return Ok(run.since(began));
        }
        match store.stages.flights.enter(&key)? {
            Role::Join(join) => {
                if let Some(run) = join.wait().and_then(|value| joined(call, &key, value)) {
                    return Ok(run.since(began));
                }
            }
            Role::Lead(lead) => {
                let _lease = request(store, &key, &lead).map(Request::wait).transpose()?;
                if let Some(run) = find::<V>(call, &key)? {
                    lead.finish(run.value.clone());
                    return Ok(run.since(began));
                }
                call.stage.tell(&CallEvent::Miss { key: &key });
                let computing = Instant::now();
                let value = lead.id().within(compute)?;
                let run = computed(call, &key, value, computing.elapsed());
                lead.finish(run.value.clone());
                return Ok(run.since(began));
            }
        }
    }
}

/// The result of a call; `compute` runs in this task.
pub(super) async fn later<V: Value, E: From<Error>>(
    call: &Call,
    compute: impl Future<Output = Result<Arc<V>, E>>,
) -> Result<Run<V>, E> {
    let began = Instant::now();
    let Some(key) = call.usable_key::<V>()? else {
        call.count(Status::Called);
        return Ok(Run::called(compute.await?).since(began));
    };
    let store = call.stage.chest.store()?;
    loop {
        if let Some(run) = find::<V>(call, &key)? {
            return Ok(run.since(began));
        }
        match store.stages.flights.enter(&key)? {
            Role::Join(join) => {
                if let Some(run) = join.await.and_then(|value| joined(call, &key, value)) {
                    return Ok(run.since(began));
                }
            }
            Role::Lead(lead) => {
                let _lease = match request(store, &key, &lead) {
                    Some(request) => Some(lease(request).await?),
                    None => None,
                };
                if let Some(run) = find::<V>(call, &key)? {
                    lead.finish(run.value.clone());
                    return Ok(run.since(began));
                }
                call.stage.tell(&CallEvent::Miss { key: &key });
                let computing = Instant::now();
                let value = lead.id().around(compute).await?;
                let run = computed(call, &key, value, computing.elapsed());
                lead.finish(run.value.clone());
                return Ok(run.since(began));
            }
        }
    }
}

/// A temporary chest is nobody else's.
fn request(store: &Store, key: &Key, lead: &super::flight::Lead<'_>) -> Option<Request> {
    let is_shared = !store.disk.is_temporary();
    is_shared.then(|| Request::new(store.disk.root(), key, store.disk.is_private(), lead.id()))
}

async fn lease(mut request: Request) -> Result<Lease> {
    match request.attempt()? {
        Ok(lease) => Ok(lease),
        Err(_) => wait::on_a_thread(|| request.wait()).await?,
    }
}

/// The stored result, if it may be used. What is damaged is put aside.
pub(super) fn find<V: Value>(call: &Call, key: &Key) -> Result<Option<Run<V>>> {
    let (stage, settings) = (&call.stage, &*call.stage.settings);
    if settings.force {
        return Ok(None);
    }
    let began = Instant::now();
    let store = stage.chest.store()?;
    if !settings.keep_memory {
        store.state().residents.set_hint(key, Some(Hint::PreferDisk));
    }
    let recalled = match store.recall::<V>(key) {
        Err(error) if error.is_of_the_file() => {
            store.set_aside(key)?;
            stage.tell(&CallEvent::Damaged { key, error: &error });
            return Ok(None);
        }
        recalled => recalled?,
    };
    let Some(recalled) = recalled else { return Ok(None) };
    let (status, record) = match recalled.about {
        None => (Status::Memory, store.stages.known(key)),
        Some(about) => {
            let record = about.and_then(|about| Record::parse(&about)).map(Arc::new);
            record.iter().for_each(|record| store.stages.note(key, record.clone()));
            (Status::Disk, record)
        }
    };
    let run = Run::new(key, recalled.value, status);
    if !is_valid(call, key, &run, record.as_deref())? {
        stage.tell(&CallEvent::Stale { key });
        return Ok(None);
    }
    call.count(status);
    let took = record.map_or(Duration::ZERO, |record| record.took());
    stage.counters.add_saved(took.saturating_sub(began.elapsed()));
    stage.tell(&CallEvent::Hit { key, status });
    Ok(Some(run))
}

/// A handle to a stored result that may be used as it is. It is not read.
pub(super) fn stored<V: Value>(call: &Call) -> Result<Option<Stored<V>>> {
    let began = Instant::now();
    let (stage, settings) = (&call.stage, &*call.stage.settings);
    if settings.force || settings.validate.is_some() {
        return Ok(None);
    }
    let Some(key) = call.usable_key::<V>()? else { return Ok(None) };
    // What is wrong with the catalog is told by whoever reads the result.
    let Ok(Some(info)) = Info::of(stage.chest.store()?, &key) else { return Ok(None) };
    let record = Record::of(&info.about);
    if settings.expire.is_some_and(|after| record.as_ref().is_some_and(|record| record.is_older(after))) {
        return Ok(None);
    }
    let status = if info.is_resident { Status::Memory } else { Status::Disk };
    call.count(status);
    let took = began.elapsed();
    stage.counters.add_saved(record.map_or(Duration::ZERO, |record| record.took()).saturating_sub(took));
    stage.tell(&CallEvent::Hit { key: &key, status });
    Ok(Some(Stored::at(&stage.chest, key, Origin { status, took, bytes: info.bytes })))
}

/// Whether a stored result is young enough, and whether the user's check accepts it.
fn is_valid<V: Value>(call: &Call, key: &Key, run: &Run<V>, record: Option<&Record>) -> Result<bool> {
    let settings = &*call.stage.settings;
    if settings.expire.is_none() && settings.validate.is_none() {
        return Ok(true);
    }
    // One that this process does not remember is told by the catalog.
    let stored = match record {
        Some(_) => None,
        None => Record::of(&call.stage.chest.info(key)?.about),
    };
    let Some(record) = record.or(stored.as_ref()) else { return Ok(true) };
    if settings.expire.is_some_and(|after| record.is_older(after)) {
        return Ok(false);
    }
    let Some(check) = &settings.validate else { return Ok(true) };
    let info = record.info(key, run.value.stored_name(), run.bytes, 0);
    Ok(check(&info, &*run.value))
}

fn joined<V: Value>(call: &Call, key: &Key, value: Arc<dyn Any + Send + Sync>) -> Option<Run<V>> {
    // Of another type only where a keymap gives two stages one key; then each computes its own.
    let run = Run::new(key, value.downcast().ok()?, Status::Joined);
    call.count(run.status);
    if let Some(record) = call.stage.chest.store().ok()?.stages.known(key) {
        call.stage.counters.add_saved(record.took());
    }
    call.stage.tell(&CallEvent::Hit { key, status: run.status });
    Some(run)
}

/// Keeps what was computed. That it cannot be stored is no reason to lose it.
fn computed<V: Value>(call: &Call, key: &Key, value: Arc<V>, took: Duration) -> Run<V> {
    let mut run = Run::new(key, value, Status::Computed);
    call.count(run.status);
    call.stage.counters.add_computing(took);
    if let Err(error) = keep(call, key, run.value.clone(), took) {
        call.stage.counters.count_not_stored();
        call.stage.tell(&CallEvent::NotStored { key, error: &error });
        run.key = None;
        run.not_stored = Some(error);
    }
    run
}

/// Stores a result together with what is told of its call.
pub(super) fn keep<V: Value>(call: &Call, key: &Key, value: Arc<V>, took: Duration) -> Result<()> {
    let store = call.stage.chest.store()?;
    let settings = &*call.stage.settings;
    let record = Record::new(&call.signature::<V>()?, took, settings.tag.clone());
    let recorded = Recorded { value, facts: record.facts() };
    if !settings.keep_memory {
        store.state().residents.set_hint(key, Some(Hint::PreferDisk));
    }
    store.stages.note(key, Arc::new(record));
    if call.writes_through {
        return store.insert_published(key, &recorded);
    }
    store.keep(key, Arc::new(recorded), !store.disk.is_temporary())
}
