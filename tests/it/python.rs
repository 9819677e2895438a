//! The Python libraries that people use read what we write (`tests/python/check.py`), and we read what they write
//! (`tests/python/make.py`).

use std::path::{Path, PathBuf};
use std::process::Command;

use icechest::{Builder, Chest, Compression, IntoValue, Key};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::helpers::dir;

mod arrays;
mod frames;
mod plain;
mod theirs;

/// Runs a script of `tests/python`.
fn python(script: &str, arguments: &[&str], dir: &Path) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let interpreter =
        std::env::var_os("ICECHEST_PYTHON").map_or_else(|| project.join("target/python/bin/python"), PathBuf::from);
    let run = Command::new(&interpreter)
        .arg(project.join("tests/python").join(script))
        .args(arguments)
        .arg(dir)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; run `make python`", interpreter.display()));
    let (said, failed) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{script} says\n{said}{failed}");
}

/// Values of a chest, each in a file, and what Python must find there.
struct Cases {
    chest: Chest,
    dir: TempDir,
    cases: Vec<(Key, Json)>,
}

impl Cases {
    fn new(compression: Compression) -> Self {
        Self::with(Chest::builder().compression(compression))
    }

    fn with(builder: Builder) -> Self {
        let dir = dir();
        let chest = builder.inline_limit(0).open(dir.path().join("chest")).unwrap();
        Self { chest, dir, cases: Vec::new() }
    }

    /// Stores a value that looks like `facts` from outside.
    fn add(&mut self, name: String, value: impl IntoValue, mut facts: Json) {
        self.chest.insert(&name, value).unwrap_or_else(|error| panic!("{name}: {error}"));
        facts["name"] = name.as_str().into();
        self.cases.push((name.into(), facts));
    }

    /// As [`add`](Self::add), with bytes that Python compares with.
    fn add_with_bytes(&mut self, name: String, value: impl IntoValue, mut facts: Json, bytes: &[u8]) {
        let file = format!("{}.raw", self.cases.len());
        std::fs::write(self.dir.path().join(&file), bytes).unwrap();
        facts["raw"] = file.into();
        self.add(name, value, facts);
    }

    /// Publishes everything and lets Python compare. Gives the formats of the files.
    fn check(mut self) -> Vec<String> {
        self.chest.flush().unwrap();
        for (key, facts) in &mut self.cases {
            facts["key"] = key.canonical().into();
            facts["file"] = self.chest.file(&*key).unwrap().unwrap().to_str().unwrap().into();
            let info = self.chest.info(&*key).unwrap();
            facts["format"] = info.format.unwrap().into();
            facts["compression"] = info.about["compression"].clone();
        }
        let manifest: Vec<_> = self.cases.iter().map(|(_, facts)| facts).collect();
        std::fs::write(self.dir.path().join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
        python("check.py", &[], self.dir.path());
        manifest.iter().map(|facts| facts["format"].as_str().unwrap().to_owned()).collect()
    }
}

const COMPRESSIONS: [Compression; 3] = [Compression::Auto, Compression::Never, Compression::Small];
