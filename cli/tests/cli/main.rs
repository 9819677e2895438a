//! The command as a user runs it: its exit codes, its output, and the files that it writes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod check;
mod demo;
#[cfg(unix)]
mod run;
mod values;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value as Json;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data").join(name)
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// Runs `icechest` in a directory of its own, which holds the chest `c`.
struct Shell(tempfile::TempDir);

impl Shell {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn command(&self) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_icechest"))
    }

    fn command_of(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).env_remove("COLUMNS");
        command
    }

    fn run<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Ran {
        let Output { status, stdout, stderr } = self.command().args(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ran = Ran { code: status.code().unwrap(), out: text(stdout), err: text(stderr) };
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
        ran
    }

    /// Runs what must succeed, without a word on standard error; gives its output.
    fn ok<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> String {
        let ran = self.run(args);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
        ran.out
    }

    fn put(&self, key: &str, file: &Path) -> String {
        self.ok(["put".as_ref(), "c".as_ref(), OsStr::new(key), file.as_os_str()])
    }

    fn get(&self, key: &str) -> String {
        self.ok(["get", "c", key])
    }

    /// Runs what must fail; gives its message.
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, code, "{args:?}: {}{}", ran.out, ran.err);
        ran.err
    }

    fn json_lines(&self, args: &[&str]) -> Vec<Json> {
        self.ok(args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
