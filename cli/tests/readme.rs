//! The README's commands and its Python lines are run as they stand there, one after the other in one directory.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed, and says where")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The blocks of code of a language, with the language.
fn blocks<'a>(text: &'a str, languages: &[&str]) -> Vec<(&'a str, &'a str)> {
    let fenced = text.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n')).filter(|(language, _)| languages.contains(language)).collect()
}

fn check(what: &str, output: Output) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}\n{out}\n{err}");
}

fn icechest(line: &str, dir: &Path) {
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("icechest"), "{line}");
    let output = Command::new(env!("CARGO_BIN_EXE_icechest")).args(words).current_dir(dir).output().unwrap();
    check(line, output);
}

fn python(script: &str, dir: &Path) {
    let ours = root().join("target/python/bin/python");
    let interpreter = std::env::var_os("ICECHEST_PYTHON").map_or(ours, PathBuf::from);
    let output = Command::new(&interpreter).args(["-c", script]).current_dir(dir).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; run `make python`", interpreter.display()));
    check(script, output);
}

#[test]
fn readme_commands_and_python_lines_work() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    for file in std::fs::read_dir(root().join("data")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), dir.path().join("data").join(file.file_name())).unwrap();
    }
    let blocks = blocks(&readme, &["console", "python"]);
    assert_eq!(
        blocks.iter().map(|(language, _)| *language).collect::<Vec<_>>(),
        ["console", "console", "python", "console"]
    );
    for (language, text) in blocks {
        match language {
            "python" => python(text, dir.path()),
            _ => text.lines().for_each(|line| icechest(line.trim_start_matches("$ "), dir.path())),
        }
    }
    let original = std::fs::read(dir.path().join("data/photo.npy")).unwrap();
    assert!(std::fs::read(dir.path().join("photo-again.npy")).unwrap() == original, "what went in comes out");
}
