//! `icechest run`: a command as a stage.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use icechest::{Chest, ErrorKind, Key, PathContent, Run, Status};

use crate::failure::{Failure, Result};
use crate::restore::restore;

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
        let (run, key) = match self.outcome(&chest, self.force) {
            // Some of the files are lost: everything is made again.
            Err(Failure::Chest(error)) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged) => {
                self.outcome(&chest, true)?
            }
            done => done?,
        };
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
        if *code == 0 { Ok(()) } else { Err(Failure::Command(*code)) }
    }

    /// Runs the command, or restores what it made.
    fn outcome(&self, chest: &Chest, force: bool) -> Result<(Run<Outcome>, Key)> {
        let params: BTreeMap<&str, &str> = self.params.iter().map(|(name, value)| (&**name, &**value)).collect();
        if params.len() < self.params.len() {
            return Err(Failure::usage("a parameter is given twice"));
        }
        let contents: Vec<PathContent> = self.inputs.iter().map(PathContent::from).collect();
        let stage = chest.stage(STAGE).force(force);
        let call =
            stage.arg("command", &self.command).arg("params", params).arg("in", contents).arg("out", &self.outputs);
        let key = call.key::<Outcome>()?;
        let run = call.try_run_with_status(|| {
            let outcome = run(&self.command)?;
            if outcome.0 != 0 && !self.keep_failures {
                return Err(Failure::Command(outcome.0));
            }
            // The outcome of an earlier run does not belong to the files of this one, should it end before all are stored.
            chest.remove(key.clone())?;
            for path in &self.outputs {
                if outcome.0 == 0 || Path::new(path).exists() {
                    chest.insert_files(place(&key, path), path)?;
                } else {
                    // Of an earlier run, which had another outcome.
                    chest.remove(place(&key, path))?;
                }
            }
            Ok(outcome)
        })?;
        if let Some(error) = run.not_stored {
            return Err(error.into());
        }
        if run.status != Status::Computed {
            for path in &self.outputs {
                match restore(chest, place(&key, path), Path::new(path)) {
                    // A command that failed may have made none.
                    Err(Failure::Chest(error)) if error.kind() == ErrorKind::NotFound && run.value.0 != 0 => {}
                    done => done?,
                }
            }
        }
        Ok((run, key))
    }
}

/// The name of the stage of all commands.
const STAGE: &str = "icechest run";

/// Where an output is kept.
fn place(call: &Key, path: &str) -> Key {
    Key::from((call.clone(), "out", path))
}

fn tell(status: Status, took: Duration) -> io::Result<()> {
    let mut err = io::stderr();
    match status {
        Status::Computed | Status::Called => writeln!(err, "icechest: miss, the command took {took:.2?}"),
        hit => writeln!(err, "icechest: hit ({hit}), {took:.2?} saved"),
    }
}

/// Runs a command. What it prints is passed on, and kept.
fn run(command: &[String]) -> Result<Outcome> {
    let Some((program, args)) = command.split_first() else { return Err(Failure::usage("there is no command")) };
    let mut child = Command::new(program)
        .args(args)
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
    Ok((code(status), stdout?, stderr?))
}

fn ignore_closed(written: io::Result<()>) -> io::Result<()> {
    written.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

fn wait(child: &mut Child, program: &str) -> Result<ExitStatus> {
    child.wait().map_err(Failure::at("wait for", Path::new(program)))
}

/// Copies everything to `to` as it comes, and keeps it. When nobody reads any more it is only kept.
fn pass_on(from: Option<impl Read>, to: &mut dyn Write) -> Result<Vec<u8>> {
    let Some(mut from) = from else { return Ok(Vec::new()) };
    let (mut all, mut buffer) = (Vec::new(), [0; 16 << 10]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(all),
            Ok(n) => {
                all.extend_from_slice(&buffer[..n]);
                let _ = to.write_all(&buffer[..n]).and_then(|()| to.flush());
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
