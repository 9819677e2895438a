//! A stage: a function's identity, and what is wanted of its calls.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::call::Call;
use super::memo::Memo;
use super::record::{self, CallInfo};
use super::run::Status;
use super::stats::{Counters, StageStats};
use super::trace;
use crate::chest::Chest;
use crate::error::{Error, Result};
use crate::key::signature::{Reading, type_name};
use crate::key::{Content, FolderOptions, Key, Keymap, Round};
use crate::value::Value;

/// A function whose results a chest keeps, each distinct call once: in this run, in later runs, for all processes.
///
/// Made by [`Chest::stage`]. It has the function's identity and settings; [`arg`](Self::arg), [`path`](Self::path) and their
/// like bind arguments, and [`Call::run`] finds or computes the result. A clone is cheap.
///
/// ```
/// use icechest::Chest;
/// # let dir = tempfile::tempdir()?;
/// # let train = dir.path().join("train.csv");
/// # std::fs::write(&train, "1\n2\n3\n")?;
/// let chest = Chest::open(dir.path().join("chest"))?;
/// let features = || {
///     chest.stage("features").arg("k", 5).path("train", &train).run(|| {
///         std::fs::read_to_string(&train).unwrap().lines().map(|x| x.parse::<f64>().unwrap() * 5.0).collect::<Vec<_>>()
///     })
/// };
/// assert_eq!(*features()?, [5.0, 10.0, 15.0]); // computed
/// assert_eq!(*features()?, [5.0, 10.0, 15.0]); // from memory; in a later run from disk
///
/// std::fs::write(&train, "4\n")?;
/// assert_eq!(*features()?, [20.0]); // the content of the file counts
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Stage {
    pub(super) chest: Chest,
    pub(super) settings: Arc<Settings>,
    pub(super) counters: Arc<Counters>,
}

type Hook = Arc<dyn Fn(&CallEvent<'_>) + Send + Sync>;
type Check = Arc<dyn Fn(&CallInfo, &(dyn Any + Send + Sync)) -> bool + Send + Sync>;

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) module: String,
    pub(super) version: String,
    pub(super) source: String,
    pub(super) ignored: Vec<String>,
    /// With the names of their types.
    pub(super) defaults: BTreeMap<String, (Key, &'static str)>,
    pub(super) reading: Reading,
    pub(super) keymap: Keymap,
    pub(super) expire: Option<Duration>,
    pub(super) tag: Option<String>,
    pub(super) keep_memory: bool,
    pub(super) children_hold_lease: bool,
    pub(super) disabled: bool,
    pub(super) force: bool,
    pub(super) unkeyable: WhenUnkeyable,
    pub(super) validate: Option<Check>,
    pub(super) hook: Option<Hook>,
    /// The first of the errors in these settings, told by the calls.
    pub(super) problem: Option<String>,
}

/// What happens to a call whose arguments make no key, or whose key or files cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnkeyable {
    /// The call is an error.
    #[default]
    Fail,
    /// The function is called, and its result is not kept.
    Call,
}

/// What happened to a call, for [`Stage::hook`].
#[non_exhaustive]
#[derive(Debug)]
pub enum CallEvent<'a> {
    /// The result was there, or another computed it.
    Hit {
        /// The call's key.
        key: &'a Key,
        /// Where the result was.
        status: Status,
    },
    /// The result is not there: it is computed now.
    Miss {
        /// The call's key.
        key: &'a Key,
    },
    /// What was stored was damaged. It is in the chest's `quarantine` now, and the result is computed again.
    Damaged {
        /// The call's key.
        key: &'a Key,
        /// What is damaged.
        error: &'a Error,
    },
    /// What was stored is too old, or [`Stage::validate`] refused it: it is computed again.
    Stale {
        /// The call's key.
        key: &'a Key,
    },
    /// The arguments make no key, and the function is called all the same.
    Unkeyable {
        /// Why not.
        error: &'a Error,
    },
    /// The result could not be stored, and the caller gets it all the same.
    NotStored {
        /// The call's key.
        key: &'a Key,
        /// Why not.
        error: &'a Error,
    },
}

impl Chest {
    /// A stage of this name: a function whose results are kept here. Functions of one name, version and type of result
    /// answer for each other, so a name should belong to one function; a path such as `"shop::features"` is a good one.
    pub fn stage(&self, name: impl Into<String>) -> Stage {
        Stage::new(self.clone(), name.into())
    }

    /// What happened to the calls of each stage since the chest was opened, by name.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.stage("square").arg("x", 3).run(|| 9)?;
    /// chest.stage("square").arg("x", 3).run(|| 9)?;
    /// let stats = &chest.stage_stats()?["square"];
    /// assert_eq!((stats.computed, stats.memory), (1, 1));
    /// # Ok::<(), icechest::Error>(())
    /// ```
    ///
    /// # Errors
    /// In a forked child.
    pub fn stage_stats(&self) -> Result<BTreeMap<String, StageStats>> {
        Ok(self.store()?.stages.stats())
    }
}

impl Stage {
    pub(crate) fn new(chest: Chest, name: String) -> Self {
        let counters = chest.stages().counters(&name);
        let settings = Settings {
            name,
            module: String::new(),
            version: String::new(),
            source: String::new(),
            ignored: Vec::new(),
            defaults: BTreeMap::new(),
            reading: Reading::default(),
            keymap: Keymap::default(),
            expire: None,
            tag: None,
            keep_memory: true,
            children_hold_lease: false,
            disabled: false,
            force: false,
            unkeyable: WhenUnkeyable::default(),
            validate: None,
            hook: None,
            problem: None,
        };
        Self { chest, settings: Arc::new(settings), counters }
    }

    /// The stage's name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// The chest that keeps the results.
    pub fn chest(&self) -> &Chest {
        &self.chest
    }

    pub(super) fn set(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        set(Arc::make_mut(&mut self.settings));
        self
    }

    /// The module that the function is in, for functions of one name.
    #[must_use]
    pub fn module(self, module: impl Into<String>) -> Self {
        self.set(|settings| settings.module = module.into())
    }

    /// The version of the function: another one makes new entries. Change it with what the function computes.
    #[must_use]
    pub fn version(self, version: impl ToString) -> Self {
        self.set(|settings| settings.version = version.to_string())
    }

    /// What stands for the function's source, such as a text or a digest of it: a change makes new entries.
    #[must_use]
    pub fn source(self, source: impl ToString) -> Self {
        self.set(|settings| settings.source = source.to_string())
    }

    /// Arguments that play no part in the key, such as `verbose` or `threads`.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// let stage = chest.stage("sum").ignore(["threads"]);
    /// assert_eq!(stage.arg("n", 3).arg("threads", 1).key::<u32>()?, stage.arg("n", 3).arg("threads", 8).key::<u32>()?);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    #[must_use]
    pub fn ignore<S: Into<String>>(self, names: impl IntoIterator<Item = S>) -> Self {
        self.set(|settings| settings.ignored.extend(names.into_iter().map(Into::into)))
    }

    /// An argument that calls have if they do not say otherwise: with it and without it they are one call.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// let stage = chest.stage("smooth").default("width", 3);
    /// assert_eq!(stage.arg("x", 1).key::<f64>()?, stage.arg("x", 1).arg("width", 3).key::<f64>()?);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    #[must_use]
    pub fn default<T: Serialize>(self, name: impl Into<String>, value: T) -> Self {
        let key = Key::of(&value);
        self.set(|settings| match key {
            Ok(key) => _ = settings.defaults.insert(name.into(), (key, type_name::<T>())),
            Err(error) => _ = settings.problem.get_or_insert(error.to_string()),
        })
    }

    /// Rounds floats in the key. The function gets them as they are.
    #[must_use]
    pub fn round(self, round: Round) -> Self {
        self.set(|settings| settings.reading.round = Some(round))
    }

    /// Takes `0.0` and `-0.0` for one argument. By default floats are told apart by their bits, except that NaNs are one.
    #[must_use]
    pub fn one_zero(self) -> Self {
        self.set(|settings| settings.reading.one_zero = true)
    }

    /// Tells arguments of different types apart, even if they are equal: `1u8` and `1u64`.
    #[must_use]
    pub fn typed(self) -> Self {
        self.set(|settings| settings.reading.typed = true)
    }

    /// How keys are made of calls.
    #[must_use]
    pub fn keymap(self, keymap: Keymap) -> Self {
        self.set(|settings| settings.keymap = keymap)
    }

    /// Results that are older are computed again; until then they stay where they are. So are those of stages that got such a result as a
    /// [handle](crate::Stored): a new one is another argument.
    #[must_use]
    pub fn expire(self, after: Duration) -> Self {
        self.set(|settings| settings.expire = Some(after))
    }

    /// A word for results that are computed from now on, for [`Stage::forget_tagged`] and listings.
    #[must_use]
    pub fn tag(self, tag: impl Into<String>) -> Self {
        self.set(|settings| settings.tag = Some(tag.into()))
    }

    /// Whether results stay in memory as long as the budget lets them; by default they do.
    #[must_use]
    pub fn keep_memory(self, keep: bool) -> Self {
        self.set(|settings| settings.keep_memory = keep)
    }

    /// Whether processes that the function starts keep others from making the same call until they end, should this process be
    /// killed: for functions that run programs that write files. So does then everything else that this process starts while
    /// the function runs. By default the call is free at once. Unix only.
    #[must_use]
    pub fn children_hold_lease(self, hold: bool) -> Self {
        self.set(|settings| settings.children_hold_lease = hold)
    }

    /// Calls the function every time and keeps nothing, if `disabled`.
    #[must_use]
    pub fn disable(self, disabled: bool) -> Self {
        self.set(|settings| settings.disabled = disabled)
    }

    /// Computes results that are there too, and keeps the new ones, if `force`.
    #[must_use]
    pub fn force(self, force: bool) -> Self {
        self.set(|settings| settings.force = force)
    }

    /// What happens to calls whose arguments make no key. By default they are errors.
    #[must_use]
    pub fn when_unkeyable(self, when: WhenUnkeyable) -> Self {
        self.set(|settings| settings.unkeyable = when)
    }

    /// Asks `is_valid` before a result of type `V` that was stored is used; if it says no, the result is computed again.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// let stage = chest.stage("price").validate(|_, price: &f64| *price > 0.0);
    /// stage.call().put(-1.0)?;
    /// assert_eq!(*stage.call().run(|| 2.0)?, 2.0);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    #[must_use]
    pub fn validate<V: Value>(self, is_valid: impl Fn(&CallInfo, &V) -> bool + Send + Sync + 'static) -> Self {
        let check = move |info: &CallInfo, value: &(dyn Any + Send + Sync)| {
            value.downcast_ref::<V>().is_none_or(|value| is_valid(info, value))
        };
        self.set(|settings| settings.validate = Some(Arc::new(check)))
    }

    /// Tells `hook` of hits, misses and what goes wrong, on the thread of the call.
    ///
    /// With the feature `tracing` each call is a span besides, `call` of the target `icechest::stage`, with the fields `stage`,
    /// `key`, `status` and `bytes`; calls that it makes are within it, and what goes wrong is a warning.
    ///
    /// ```
    /// use icechest::CallEvent;
    /// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
    /// # let chest = icechest::Chest::temporary()?;
    /// let misses = Arc::new(AtomicU32::new(0));
    /// let count = misses.clone();
    /// let stage = chest.stage("square").hook(move |event| {
    ///     if let CallEvent::Miss { .. } = event {
    ///         count.fetch_add(1, Ordering::Relaxed);
    ///     }
    /// });
    /// for x in [2, 2, 3] {
    ///     stage.arg("x", &x).run(|| x * x)?;
    /// }
    /// assert_eq!(misses.load(Ordering::Relaxed), 2);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    #[must_use]
    pub fn hook(self, hook: impl Fn(&CallEvent<'_>) + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.hook = Some(Arc::new(hook)))
    }

    /// A call without arguments, or to which they are added.
    pub fn call(&self) -> Call {
        Call::new(self.clone())
    }

    /// A call with an argument. See [`Call::arg`].
    pub fn arg<T: Serialize>(&self, name: impl Into<String>, value: T) -> Call {
        self.call().arg(name, value)
    }

    /// A call with a file or a folder, known by its content. See [`Call::path`].
    pub fn path(&self, name: impl Into<String>, path: impl AsRef<Path>) -> Call {
        self.call().path(name, path)
    }

    /// A call with an array, a frame or bytes. See [`Call::content`].
    pub fn content<C: Content + ?Sized>(&self, name: impl Into<String>, content: &C) -> Call {
        self.call().content(name, content)
    }

    /// A call with a folder of which not all counts. See [`Call::folder`].
    pub fn folder(&self, name: impl Into<String>, path: impl AsRef<Path>, options: &FolderOptions) -> Call {
        self.call().folder(name, path, options)
    }

    /// A call with a list of files and folders. See [`Call::paths`].
    pub fn paths<P: AsRef<Path>>(&self, name: impl Into<String>, paths: impl IntoIterator<Item = P>) -> Call {
        self.call().paths(name, paths)
    }

    /// Wraps a function of one argument, which may be a tuple or a struct.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// let power = chest.stage("power").wrap(|(base, exponent): &(u64, u32)| base.pow(*exponent));
    /// assert_eq!(*power.call(&(2, 10))?, 1024);
    /// assert_eq!(*power.call(&(2, 10))?, 1024); // not computed again
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn wrap<A: Serialize, V: Value, F: Fn(&A) -> V>(&self, function: F) -> Memo<A, V, F> {
        Memo::new(self.clone(), function)
    }

    /// What happened to the calls of stages of this name since the chest was opened.
    pub fn stats(&self) -> StageStats {
        self.counters.stats()
    }

    /// What is known of the stored results of stages of this name, of any version, and of any module if this stage has none,
    /// the oldest first. Takes time in
    /// proportion to all values of the chest.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.stage("square").arg("x", 3).run(|| 9)?;
    /// let calls = chest.stage("square").calls()?;
    /// assert_eq!(calls[0].arguments["x"].to::<i32>()?, 3);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of every method that reads.
    pub fn calls(&self) -> Result<Vec<CallInfo>> {
        let Settings { name, module, .. } = &*self.settings;
        let is_of_this = |call: &CallInfo| call.stage == *name && (module.is_empty() || call.module == *module);
        Ok(record::calls(&self.chest)?.into_iter().filter(is_of_this).collect())
    }

    /// Removes all stored results of stages of this name. Gives how many there were.
    ///
    /// # Errors
    /// Those of every method that writes; then some may still be there.
    pub fn forget_all(&self) -> Result<usize> {
        self.forget(|_| true)
    }

    /// Removes the stored results of stages of this name that have this tag. Gives how many there were.
    ///
    /// # Errors
    /// As for [`forget_all`](Self::forget_all).
    pub fn forget_tagged(&self, tag: &str) -> Result<usize> {
        self.forget(|call| call.tag.as_deref() == Some(tag))
    }

    /// Removes the stored results of stages of this name that `is_forgotten` chooses. Gives how many there were.
    ///
    /// What other stages have made of such a result as a [handle](crate::Stored) stays: a result that is computed again is the
    /// same argument to them. Forget theirs too, or [force](Self::force) this one.
    ///
    /// # Errors
    /// As for [`forget_all`](Self::forget_all).
    pub fn forget(&self, is_forgotten: impl Fn(&CallInfo) -> bool) -> Result<usize> {
        let keys = self.calls()?.into_iter().filter(is_forgotten).map(|call| call.key);
        self.chest.remove_many(keys)
    }

    pub(super) fn tell(&self, event: &CallEvent<'_>) {
        trace::event(self.name(), event);
        if let Some(hook) = &self.settings.hook {
            hook(event);
        }
    }
}

/// A panic in a hook or a check ends the call, and leaves the stage as it was.
impl std::panic::UnwindSafe for Stage {}
impl std::panic::RefUnwindSafe for Stage {}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { name, version, .. } = &*self.settings;
        write!(f, "Stage({name}{}{version})", if version.is_empty() { "" } else { " " })
    }
}
