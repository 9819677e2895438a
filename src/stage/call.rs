//! One call of a stage: its arguments, bound to names.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::inputs::{self, Input, PathContent};
use super::record::Record;
use super::run::{self, Run, Status};
use super::settings::{CallEvent, Stage, WhenUnkeyable};
use super::stored::Stored;
use crate::error::{Error, ErrorKind, Result};
use crate::key::signature::Argument;
use crate::key::{Content, FolderOptions, Key, Signature};
use crate::value::{Files, IntoValue, Scratch, Value};

/// One call of a [`Stage`]: arguments bound to names, in any order. It runs at most once at a time, whoever makes it.
///
/// The type of the result is a part of the key: a stage that gives an `f64` and one that gives a `String` are two, also
/// under one name.
///
/// # Errors
///
/// An argument that cannot be serialised, a file that cannot be read and a name that is given twice are told by whatever
/// asks for the key.
#[must_use = "a call does nothing until it is run"]
pub struct Call {
    pub(super) stage: Stage,
    arguments: Arc<BTreeMap<String, Argument>>,
    problem: Option<Error>,
    /// The files and folders in the arguments.
    inputs: Vec<Input>,
    /// Whether the result never waits in memory to be written.
    pub(super) writes_through: bool,
}

impl Call {
    pub(super) fn new(stage: Stage) -> Self {
        let problem = stage.settings.problem.clone().map(Error::invalid);
        Self { stage, arguments: Arc::default(), problem, inputs: Vec::new(), writes_through: false }
    }

    /// Adds an argument: any serde type, a [`Digest`](crate::Digest), a [`FileContent`](crate::FileContent) or a
    /// [`Stored`] result of another stage, or something that holds them. For arrays and frames see
    /// [`content`](Self::content).
    ///
    /// Maps count in any order. Sets are lists for serde: a `HashSet`, whose order is another in each process, makes
    /// another key each time; give it as a `BTreeSet`.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// let call = chest.stage("train").arg("rate", 0.1).arg("layers", [64, 64]);
    /// assert_eq!(call.signature::<f64>()?.to_string(), "train (layers=[64,64], rate=0.1) -> f64");
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn arg<T: Serialize>(self, name: impl Into<String>, value: T) -> Self {
        self.bind(name.into(), |stage, inputs| {
            let (argument, found) = inputs::reading(&stage.chest, || stage.settings.reading.read(&value))?;
            inputs.extend(found);
            Ok(argument)
        })
    }

    /// Adds a file or a folder that stands for its content. The path itself plays no part: the same content elsewhere is the
    /// same call. A path that is to stand for itself is an [`arg`](Self::arg). The directory of the chest in a folder does not
    /// count.
    ///
    /// A file that was read before is known by its device, size, inode and times. So what somebody writes to it through a
    /// mapping is not noticed before the file system is told; a [`Digest::of_path`](crate::Digest::of_path) as argument reads
    /// the file each time.
    pub fn path(self, name: impl Into<String>, path: impl AsRef<Path>) -> Self {
        self.arg(name, PathContent::new(path.as_ref()))
    }

    /// As [`path`](Self::path), for a folder of which not all counts.
    ///
    /// ```
    /// use icechest::FolderOptions;
    /// # let dir = tempfile::tempdir()?;
    /// # let chest = icechest::Chest::temporary()?;
    /// let options = FolderOptions::new().exclude("*.log")?;
    /// let key = || chest.stage("train").folder("data", dir.path(), &options).key::<f64>();
    /// let before = key()?;
    /// std::fs::write(dir.path().join("today.log"), "…")?;
    /// assert_eq!(key()?, before);
    /// std::fs::write(dir.path().join("new.csv"), "…")?;
    /// assert_ne!(key()?, before);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn folder(self, name: impl Into<String>, path: impl AsRef<Path>, options: &FolderOptions) -> Self {
        self.bind(name.into(), |stage, inputs| {
            let digest = stage.chest.store()?.digests.of_path(path.as_ref(), options)?;
            inputs.push(Input { path: path.as_ref().to_owned(), options: options.clone(), digest });
            stage.settings.reading.read(&digest)
        })
    }

    /// Adds a list of files and folders, each of which stands for its content; their order counts. With
    /// [`paths_matching`](crate::paths_matching) those that match a pattern.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let chest = icechest::Chest::temporary()?;
    /// # std::fs::write(dir.path().join("a.csv"), "1")?;
    /// let inputs = icechest::paths_matching(dir.path().join("*.csv"))?;
    /// let total = chest.stage("total").paths("inputs", &inputs).run(|| inputs.len())?;
    /// assert_eq!(*total, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn paths<P: AsRef<Path>>(self, name: impl Into<String>, paths: impl IntoIterator<Item = P>) -> Self {
        let paths: Vec<PathContent> = paths.into_iter().map(|path| PathContent::new(path.as_ref())).collect();
        self.arg(name, paths)
    }

    /// Adds an array, a frame or bytes, known by their [content](Content).
    ///
    /// ```
    /// # #[cfg(feature = "ndarray")] {
    /// # let chest = icechest::Chest::temporary()?;
    /// let data = ndarray::Array1::from_elem(1000, 0.5);
    /// let mean = chest.stage("mean").content("data", &data).run(|| data.mean())?;
    /// assert_eq!(*mean, Some(0.5));
    /// # }
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn content<C: Content + ?Sized>(self, name: impl Into<String>, content: &C) -> Self {
        self.bind(name.into(), |stage, _| stage.settings.reading.read(&content.digest()))
    }

    /// Binds an argument unless it is ignored; then it is not even read.
    fn bind(mut self, name: String, read: impl FnOnce(&Stage, &mut Vec<Input>) -> Result<Argument>) -> Self {
        if self.problem.is_some() || self.stage.settings.ignored.contains(&name) {
            return self;
        }
        match read(&self.stage, &mut self.inputs) {
            Ok(argument) => {
                if self.arguments.contains_key(&name) {
                    let message = format!("of the stage {} the argument {name} is given twice", self.stage.name());
                    self.problem = Some(Error::invalid(message));
                }
                Arc::make_mut(&mut self.arguments).insert(name, argument);
            }
            Err(error) => {
                let what = format!("the argument {name} of the stage {}", self.stage.name());
                self.problem = Some(error.about(&what));
            }
        }
        self
    }

    /// With these arguments as they were stored.
    pub(super) fn with_arguments(mut self, arguments: BTreeMap<String, Key>) -> Result<Self> {
        let settings = &self.stage.settings;
        for (name, value) in arguments {
            if !settings.ignored.contains(&name) {
                Arc::make_mut(&mut self.arguments).insert(name, settings.reading.argument(value, "")?);
            }
        }
        Ok(self)
    }

    /// Whether the files and folders are as they were when the arguments were bound: otherwise the result may be that of other
    /// content.
    ///
    /// # Errors
    /// `Busy` names the one that has changed.
    pub(super) fn check_inputs(&self) -> Result<()> {
        let digests = &self.stage.chest.store()?.digests;
        for Input { path, options, digest } in &self.inputs {
            if digests.of_path(path, options)? != *digest {
                let message = "the input has changed since the call began, so its result is not stored";
                return Err(Error::new(ErrorKind::Busy, message).with_path(path));
            }
        }
        Ok(())
    }

    /// What the call is known by, with a result of type `V`.
    ///
    /// # Errors
    /// What is wrong with the arguments.
    pub fn signature<V: Value>(&self) -> Result<Signature> {
        if let Some(problem) = &self.problem {
            return Err(problem.again());
        }
        let settings = &self.stage.settings;
        let mut arguments = self.arguments.clone();
        for (name, (value, type_name)) in &settings.defaults {
            if !arguments.contains_key(name) && !settings.ignored.contains(name) {
                Arc::make_mut(&mut arguments)
                    .insert(name.clone(), settings.reading.argument(value.clone(), type_name)?);
            }
        }
        Ok(Signature {
            name: settings.name.clone(),
            module: settings.module.clone(),
            version: settings.version.clone(),
            source: settings.source.clone(),
            result: V::type_name(),
            arguments,
        })
    }

    /// The key under which the chest keeps the result.
    ///
    /// # Errors
    /// What is wrong with the arguments, and those of a [keymap](Stage::keymap).
    pub fn key<V: Value>(&self) -> Result<Key> {
        let key = self.stage.settings.keymap.key(&self.signature::<V>()?)?;
        key.check()?;
        Ok(key)
    }

    /// The key; none if the function is to be called without looking.
    pub(super) fn usable_key<V: Value>(&self) -> Result<Option<Key>> {
        if self.stage.settings.disabled {
            return Ok(None);
        }
        match self.key::<V>() {
            Err(error) if self.stage.settings.unkeyable == WhenUnkeyable::Call => {
                self.stage.tell(&CallEvent::Unkeyable { error: &error });
                Ok(None)
            }
            key => key.map(Some),
        }
    }

    /// The result: the stored one, or the one that `compute` computes, which is stored. Of those who make the same call at
    /// the same time, in this process or another, one computes and the others wait. If `compute` panics, nothing is stored
    /// and the next one computes.
    ///
    /// A result that cannot be stored is given all the same; [`run_with_status`](Self::run_with_status) and
    /// [`Stage::hook`] tell why.
    ///
    /// Costs two microseconds or so where the result is in memory, the reading of one value where it is on disk, and its
    /// writing where it is computed: other processes see it when this returns.
    ///
    /// # Errors
    /// What is wrong with the arguments, those of reading, and [`Busy`](crate::ErrorKind::Busy) when the call needs its own
    /// result.
    pub fn run<I: IntoValue>(self, compute: impl FnOnce() -> I) -> Result<Arc<I::Value>> {
        Ok(self.run_with_status(compute)?.value)
    }

    /// As [`run`](Self::run), and tells where the result came from.
    ///
    /// ```
    /// use icechest::Status;
    /// # let chest = icechest::Chest::temporary()?;
    /// let run = || chest.stage("answer").call().run_with_status(|| 42);
    /// assert_eq!(run()?.status, Status::Computed);
    /// assert_eq!(run()?.status, Status::Memory);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn run_with_status<I: IntoValue>(self, compute: impl FnOnce() -> I) -> Result<Run<I::Value>> {
        self.try_run_with_status(|| Ok(compute()))
    }

    /// As [`run`](Self::run), for what may fail: an error goes to the caller and is not stored.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// let read = |text: &str| chest.stage("number").arg("text", text).try_run(|| -> std::io::Result<_> {
    ///     text.parse::<f64>().map_err(std::io::Error::other)
    /// });
    /// assert!(read("many").is_err());
    /// assert_eq!(*read("3.5")?, 3.5);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `compute`, and as for [`run`](Self::run).
    pub fn try_run<I: IntoValue, E: From<Error>>(
        self,
        compute: impl FnOnce() -> Result<I, E>,
    ) -> Result<Arc<I::Value>, E> {
        Ok(self.try_run_with_status(compute)?.value)
    }

    /// As [`try_run`](Self::try_run), and tells where the result came from.
    ///
    /// # Errors
    /// As for [`try_run`](Self::try_run).
    pub fn try_run_with_status<I: IntoValue, E: From<Error>>(
        self,
        compute: impl FnOnce() -> Result<I, E>,
    ) -> Result<Run<I::Value>, E> {
        run::now(&self, || compute().map(IntoValue::into_value))
    }

    /// As [`run`](Self::run), for a future. Waiting for another task or process keeps no thread of the executor; reading and
    /// writing the result does, as long as the disk takes.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub async fn run_async<I: IntoValue>(self, compute: impl Future<Output = I>) -> Result<Arc<I::Value>> {
        Ok(self.try_run_async(async { Result::<I>::Ok(compute.await) }).await?.value)
    }

    /// As [`try_run_with_status`](Self::try_run_with_status), for a future; see [`run_async`](Self::run_async).
    ///
    /// # Errors
    /// As for [`try_run`](Self::try_run).
    pub async fn try_run_async<I: IntoValue, E: From<Error>>(
        self,
        compute: impl Future<Output = Result<I, E>>,
    ) -> Result<Run<I::Value>, E> {
        run::later(&self, async { compute.await.map(IntoValue::into_value) }).await
    }

    /// As [`run`](Self::run), and gives a handle to the stored result, which need not stay in memory. As an argument of
    /// another stage it is known by this call's key: its content is not read.
    ///
    /// A result that is there is not read either, but where [`Stage::validate`] asks for that.
    ///
    /// # Errors
    /// As for [`run`](Self::run), and why the result could not be stored.
    pub fn run_stored<I: IntoValue>(self, compute: impl FnOnce() -> I) -> Result<Stored<I::Value>> {
        self.try_run_stored(|| Ok(compute()))
    }

    /// As [`run_stored`](Self::run_stored), for what may fail: an error goes to the caller and is not stored.
    ///
    /// # Errors
    /// Those of `compute`, and as for [`run_stored`](Self::run_stored).
    pub fn try_run_stored<I: IntoValue, E: From<Error>>(
        self,
        compute: impl FnOnce() -> Result<I, E>,
    ) -> Result<Stored<I::Value>, E> {
        if let Some(stored) = run::stored(&self)? {
            return Ok(stored);
        }
        let mut run = run::now(&self, || compute().map(IntoValue::into_value))?;
        match run.not_stored.take() {
            Some(error) => Err(error.into()),
            None => Ok(Stored::of_run(&self.stage.chest, None, run)),
        }
    }

    /// The files that the call makes: `make` gets a path that does not exist yet, and leaves a file or a folder there. They
    /// are stored; [`Stored::restore`] gives copies of them.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let chest = icechest::Chest::temporary()?;
    /// let report = |name: &str| {
    ///     chest.stage("report").arg("name", name).run_files(|path| std::fs::write(path, format!("Dear {name}")))
    /// };
    /// report("Ann")?;
    /// let stored = report("Ann")?; // not made again
    /// stored.restore(dir.path().join("ann.txt"))?;
    /// assert_eq!(std::fs::read_to_string(dir.path().join("ann.txt"))?, "Dear Ann");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of `make`, and as for [`run_stored`](Self::run_stored).
    pub fn run_files<E: From<Error>>(mut self, make: impl FnOnce(&Path) -> Result<(), E>) -> Result<Stored<Files>, E> {
        self.writes_through = true;
        // Until the result is stored.
        let scratch = Scratch(self.stage.chest.store()?.disk.scratch()?);
        let mut run = run::now(&self, || {
            make(&scratch.0)?;
            Ok::<_, E>(Arc::new(Files::at(&scratch.0)?))
        })?;
        match run.not_stored.take() {
            Some(error) => Err(error.into()),
            None if run.key.is_none() => {
                let message = "files need to be stored, and the stage is disabled or the call has no key";
                Err(Error::unsupported(message).into())
            }
            None => Ok(Stored::of_run(&self.stage.chest, None, run)),
        }
    }

    /// The stored result, if there is one. Nothing is computed.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn lookup<V: Value>(&self) -> Result<Option<Arc<V>>> {
        let key = self.key::<V>()?;
        Ok(run::find::<V>(self, &key, Instant::now())?.map(|run| run.value))
    }

    /// Whether a result is stored. Nothing is read.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn contains<V: Value>(&self) -> Result<bool> {
        self.stage.chest.contains_key(self.key::<V>()?)
    }

    /// Stores a result that was computed elsewhere.
    ///
    /// # Errors
    /// What is wrong with the arguments, and those of [`Chest::insert`](crate::Chest::insert).
    pub fn put<I: IntoValue>(&self, value: I) -> Result<()> {
        let signature = self.signature::<I::Value>()?;
        let record = Record::new(&signature, Duration::ZERO, self.stage.settings.tag.clone(), true);
        run::keep(self, &self.key::<I::Value>()?, value.into_value(), record)
    }

    /// Removes the stored result. Tells whether there was one.
    ///
    /// # Errors
    /// What is wrong with the arguments, and those of every method that writes.
    pub fn forget<V: Value>(&self) -> Result<bool> {
        self.stage.chest.remove(self.key::<V>()?)
    }

    pub(super) fn count(&self, status: Status) {
        self.stage.counters.count(status);
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.arguments.keys().map(String::as_str).collect();
        write!(f, "Call({}({}))", self.stage.name(), names.join(", "))
    }
}
