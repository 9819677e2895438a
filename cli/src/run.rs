//! `icechest run`: a command as a stage.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use icechest::{Chest, ErrorKind, Key, PathContent, Run, Status};

use crate::failure::{Failure, Result};
use crate::outputs::Before;
use crate::restore::Unpacked;

/// What counts.
pub(crate) struct Request {
    pub(crate) inputs: Vec<PathBuf>,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) outputs: Vec<String>,
    pub(crate) keep_failures: bool,
    pub(crate) force: bool,
    pub(crate) command: Vec<String>,
}

/// The exit code, and what was printed to the two outputs.
type Outcome = (u8, Vec<u8>, Vec<u8>);

impl Request {
    pub(crate) fn run(&self, dir: &Path, tells: bool, out: &mut dyn Write) -> Result<()> {
        let chest = Chest::open(dir)?;
        self.refuse_overlaps(&chest)?;
        let done = match self.outcome(&chest, self.force) {
            // Some of the files are lost: everything is made again.
            Err(Failure::Chest(error)) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged) => {
                self.outcome(&chest, true)
            }
            done => done,
        };
        if tells && matches!(done, Err(Failure::Command(_))) {
            ignore_closed(writeln!(io::stderr(), "icechest: miss, the command has failed and will run again"))?;
        }
        let Done { run, key, unwritten } = done?;
        if let Some(error) = &run.not_stored {
            // The command has done its work all the same.
            ignore_closed(writeln!(io::stderr(), "icechest: the result is not kept: {error}"))?;
        }
        if tells {
            let took = chest.stage(STAGE).calls()?.into_iter().find(|call| call.key == key).map(|call| call.took);
            ignore_closed(tell(run.status, took.unwrap_or_default()))?;
        }
        let (code, stdout, stderr) = &*run.value;
        if run.status != Status::Computed {
            // As when it was computed: that nobody reads any more changes nothing of the outcome.
            ignore_closed(out.write_all(stdout).and_then(|()| out.flush()))?;
            ignore_closed(io::stderr().write_all(stderr))?;
        }
        chest.flush()?;
        ignore_closed(unwritten.map_or(Ok(()), Err))?;
        if *code == 0 { Ok(()) } else { Err(Failure::Command(*code)) }
    }

    /// A chest that kept itself would take itself back to what it was.
    fn refuse_overlaps(&self, chest: &Chest) -> Result<()> {
        match self.outputs.iter().find(|path| chest.overlaps(path)) {
            None => Ok(()),
            Some(path) => {
                let dir = chest.path().display();
                Err(Failure::usage(format!(
                    "the output {path} is, holds or lies in the chest {dir}; take another chest"
                )))
            }
        }
    }

    /// Runs the command, or restores what it made.
    fn outcome(&self, chest: &Chest, force: bool) -> Result<Done> {
        let params: BTreeMap<&str, &str> = self.params.iter().map(|(name, value)| (&**name, &**value)).collect();
        if params.len() < self.params.len() {
            return Err(Failure::usage("a parameter is given twice"));
        }
        let contents: Vec<PathContent> = self.inputs.iter().map(PathContent::from).collect();
        // What a command that outlives this process writes must not meet what the next one writes.
        let stage = chest.stage(STAGE).force(force).children_hold_lease(true);
        let call =
            stage.arg("command", &self.command).arg("params", params).arg("in", contents).arg("out", &self.outputs);
        let key = call.key::<Outcome>()?;
        let within = Within::of(chest, &key)?;
        let mut unwritten = None;
        let run = call.try_run_with_status(|| {
            let before = Before::look(&self.outputs);
            let outcome;
            (outcome, unwritten) = run(&self.command, &within)?;
            if outcome.0 != 0 && !self.keep_failures {
                return Err(Failure::Command(outcome.0));
            }
            // The outcome of an earlier run does not belong to the files of this one, should it end before all are stored.
            chest.remove(key.clone())?;
            for path in &self.outputs {
                if Path::new(path).exists() {
                    chest.insert_files(place(&key, path), path)?;
                    let kept = before.kept(path).map_err(Failure::at("read", Path::new(path)))?;
                    if kept.is_empty() {
                        chest.remove(kept_at(&key, path))?;
                    } else {
                        chest.insert(kept_at(&key, path), kept)?;
                    }
                } else if outcome.0 == 0 {
                    let message = "the command has ended well and has not made it, though --out names it";
                    return Err(Failure::broken(format!("{path}: {message}")));
                } else {
                    // Of an earlier run, which had another outcome.
                    chest.remove(place(&key, path))?;
                }
            }
            // Before the outcome.
            chest.flush()?;
            Ok(outcome)
        })?;
        if run.status != Status::Computed && !self.restore(chest, &key, run.value.0)? {
            // Somebody has changed what the command leaves as it is: it has to see that.
            return self.outcome(chest, true);
        }
        Ok(Done { run, key, unwritten })
    }
}

impl Request {
    /// Restores what the command made. Tells whether the rest of its outputs is as the command left it.
    fn restore(&self, chest: &Chest, key: &Key, code: u8) -> Result<bool> {
        let mut all = Vec::new();
        for path in &self.outputs {
            let kept = chest.find::<Vec<String>>(kept_at(key, path))?.unwrap_or_default();
            let unpacked = match Unpacked::new(chest, place(key, path), Path::new(path)) {
                // A command that failed may have made none.
                Err(Failure::Chest(error)) if error.kind() == ErrorKind::NotFound && code != 0 => continue,
                unpacked => unpacked?,
            };
            if !unpacked.agrees(&kept) {
                return Ok(false);
            }
            all.push(unpacked);
        }
        // Not before all are there.
        all.iter().try_for_each(Unpacked::join)?;
        Ok(true)
    }
}

/// A command that has run, now or before.
struct Done {
    run: Run<Outcome>,
    key: Key,
    /// Why not all that it printed could be passed on.
    unwritten: Option<io::Error>,
}

/// The calls whose commands this process is a part of, for those that the command starts.
struct Within(String);

impl Within {
    const NAME: &str = "ICECHEST_WITHIN";

    /// With this call.
    fn of(chest: &Chest, key: &Key) -> Result<Self> {
        let above = std::env::var(Self::NAME).unwrap_or_default();
        let call = format!("{} {key}", chest.path().display());
        if above.lines().any(|other| other == call) {
            return Err(Failure::usage("the command runs `icechest run` for itself, and would wait for its own end"));
        }
        Ok(Self(format!("{above}{call}\n")))
    }
}

/// The name of the stage of all commands.
const STAGE: &str = "icechest run";

/// Where an output is kept.
fn place(call: &Key, path: &str) -> Key {
    Key::from((call.clone(), "out", path))
}

/// Where is told which files of an output the command has left as they were.
fn kept_at(call: &Key, path: &str) -> Key {
    Key::from((call.clone(), "kept", path))
}

fn tell(status: Status, took: Duration) -> io::Result<()> {
    let mut err = io::stderr();
    match status {
        Status::Computed | Status::Called => writeln!(err, "icechest: miss, the command took {took:.2?}"),
        hit => writeln!(err, "icechest: hit ({hit}), {took:.2?} saved"),
    }
}

/// Runs a command. What it prints is passed on, and kept; with the error if it could not be passed on.
fn run(command: &[String], within: &Within) -> Result<(Outcome, Option<io::Error>)> {
    let Some((program, args)) = command.split_first() else { return Err(Failure::usage("there is no command")) };
    let mut child = Command::new(program)
        .args(args)
        .env(Within::NAME, &within.0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Failure::at("run", Path::new(program)))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = thread::scope(|scope| {
        let stderr = scope.spawn(|| pass_on(stderr, &mut io::stderr()));
        let stdout = pass_on(stdout, &mut io::stdout());
        (stdout, stderr.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let status = wait(&mut child, program)?;
    let ((stdout, lost), (stderr, lost_too)) = (stdout?, stderr?);
    Ok(((code(status), stdout, stderr), lost.or(lost_too)))
}

fn ignore_closed(written: io::Result<()>) -> io::Result<()> {
    written.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

fn wait(child: &mut Child, program: &str) -> Result<ExitStatus> {
    child.wait().map_err(Failure::at("wait for", Path::new(program)))
}

/// Copies everything to `to` as it comes, and keeps it. When it cannot be written any more it is only kept.
fn pass_on(from: Option<impl Read>, to: &mut dyn Write) -> Result<(Vec<u8>, Option<io::Error>)> {
    let mut all = Vec::new();
    let Some(mut from) = from else { return Ok((all, None)) };
    let (mut buffer, mut failure) = ([0; 16 << 10], None);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((all, failure)),
            Ok(n) => {
                all.extend_from_slice(&buffer[..n]);
                if failure.is_none() {
                    failure = to.write_all(&buffer[..n]).and_then(|()| to.flush()).err();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::broken(format!("cannot read what the command prints: {error}"))),
        }
    }
}

/// As shells tell it: of a signal, 128 more than its number.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return u8::try_from(128 + signal).unwrap_or(u8::MAX);
    }
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
