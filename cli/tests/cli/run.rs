//! Commands that run once for their inputs.

use super::*;

/// Appends a line to `runs` each time it runs, so that one can count.
const SCRIPT: &str = r#"echo ran >> runs; cat "$1" | tr a-z A-Z > model.txt; mkdir -p plots; echo "$1" > plots/p; echo "of $1"; echo warned >&2; exit "${2:-0}""#;

fn runs(shell: &Shell) -> usize {
    fs::read_to_string(shell.path("runs")).map_or(0, |runs| runs.lines().count())
}

#[test]
fn a_command_runs_once_for_its_inputs() {
    let shell = Shell::new();
    shell.file("data.csv", "a,b\n");
    let run = |options: &[&str], args: &[&str]| {
        let all = ["run", "c", "--in", "data.csv", "--out", "model.txt", "--out", "plots", "--status"];
        shell.run(all.iter().chain(options).chain(&["--", "sh", "-c", SCRIPT, "sh", "data.csv"]).chain(args))
    };
    let first = run(&[], &[]);
    assert_eq!((first.code, first.out.as_str()), (0, "of data.csv\n"), "{}", first.err);
    assert!(first.err.starts_with("warned\nicechest: miss"), "{}", first.err);

    fs::remove_file(shell.path("model.txt")).unwrap();
    fs::remove_dir_all(shell.path("plots")).unwrap();
    let again = run(&[], &[]);
    assert_eq!((again.code, again.out.as_str()), (0, "of data.csv\n"));
    assert!(again.err.contains("warned\n") && again.err.contains("icechest: hit (disk)"), "{}", again.err);
    assert_eq!(fs::read_to_string(shell.path("model.txt")).unwrap(), "A,B\n");
    assert_eq!(fs::read_to_string(shell.path("plots/p")).unwrap(), "data.csv\n");
    assert_eq!(runs(&shell), 1);

    // Content, parameters and the command line count; the time of the file does not.
    shell.file("data.csv", "a,b\n");
    run(&[], &[]);
    assert_eq!(runs(&shell), 1);
    run(&["--param", "k=5"], &[]);
    run(&["--param", "k=6"], &[]);
    run(&["--param", "k=5"], &[]);
    assert_eq!(runs(&shell), 3);
    shell.file("data.csv", "c,d\n");
    run(&[], &[]);
    assert_eq!(runs(&shell), 4);
    assert_eq!(fs::read_to_string(shell.path("model.txt")).unwrap(), "C,D\n");
    run(&[], &["0"]);
    run(&["--force"], &["0"]);
    assert_eq!(runs(&shell), 6);
}

#[test]
fn failures_run_again_unless_they_are_kept() {
    let shell = Shell::new();
    shell.file("data.csv", "a\n");
    let run = |options: &[&str]| {
        let all = ["run", "c", "--in", "data.csv", "--out", "model.txt"];
        shell.run(all.iter().chain(options).chain(&["--", "sh", "-c", SCRIPT, "sh", "data.csv", "7"]))
    };
    for expected in 1..3 {
        let failed = run(&[]);
        assert_eq!((failed.code, failed.out.as_str(), failed.err.as_str()), (7, "of data.csv\n", "warned\n"));
        assert_eq!(runs(&shell), expected);
    }
    for _ in 0..2 {
        assert_eq!(run(&["--keep-failures"]).code, 7);
    }
    assert_eq!(runs(&shell), 3);
    // Whoever reads no more of what it prints changes nothing of its outcome, whether it runs or not.
    for _ in 0..2 {
        let (closed, stdout) = std::io::pipe().unwrap();
        drop(closed);
        let (closed, stderr) = std::io::pipe().unwrap();
        drop(closed);
        let mut command = shell.command();
        command.args(["run", "c", "--keep-failures", "--", "sh", "-c", "yes | head -100000; echo no >&2; exit 5"]);
        assert_eq!(command.stdout(stdout).stderr(stderr).status().unwrap().code(), Some(5));
    }
    // A signal, as shells tell it.
    assert_eq!(shell.run(["run", "c", "--", "sh", "-c", "kill -9 $$"]).code, 137);
}

#[test]
fn what_cannot_be_run_is_told() {
    let shell = Shell::new();
    let told = |args: &[&str], code: i32, what: &str| {
        let ran = shell.run(args);
        assert!(ran.code == code && ran.err.contains(what), "{}: {}", ran.code, ran.err);
    };
    told(&["run", "c", "--in", "missing", "--", "true"], 3, "missing");
    told(&["run", "c", "--out", "never", "--", "true"], 3, "never");
    told(&["run", "c", "--", "no-such-command"], 3, "no-such-command");
    told(&["run", "c", "--param", "k", "--", "true"], 2, "NAME=VALUE");
    told(&["run", "c"], 2, "COMMAND");
    assert_eq!(shell.run(["ls", "c"]).out.lines().count(), 1, "nothing is kept of them");
}

#[test]
fn a_lost_output_is_made_again() {
    let shell = Shell::new();
    shell.file("data.csv", "a\n");
    let run = || {
        shell.run(["run", "c", "--in", "data.csv", "--out", "model.txt", "--", "sh", "-c", SCRIPT, "sh", "data.csv"])
    };
    run();
    let chest = icechest::Chest::open(shell.path("c")).unwrap();
    let output = chest.keys().unwrap().into_iter().find(|key| key.to_string().contains("model.txt")).unwrap();
    chest.remove(output).unwrap();
    drop(chest);
    fs::remove_file(shell.path("model.txt")).unwrap();
    assert_eq!(run().code, 0);
    assert_eq!(runs(&shell), 2);
    assert_eq!(fs::read_to_string(shell.path("model.txt")).unwrap(), "A\n");
}

/// What the command did not make stays where it is, also in a folder that it makes files in.
#[test]
fn a_hit_removes_nothing() {
    let shell = Shell::new();
    let run = |name: &str| {
        let script = "mkdir -p results/deep; echo $1 > results/$1; echo $1 > results/deep/$1";
        let ran = shell.run(["run", "c", "--out", "results", "--status", "--", "sh", "-c", script, "sh", name]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.err.contains("hit")
    };
    assert!(!run("one") && !run("two"));
    shell.file("results/notes.txt", "mine");
    fs::remove_file(shell.path("results/deep/one")).unwrap();
    shell.file("results/one", "changed");
    assert!(run("one"));
    let read = |name: &str| fs::read_to_string(shell.path("results").join(name)).unwrap();
    assert_eq!(["one", "deep/one", "two", "deep/two"].map(read), ["one\n", "one\n", "two\n", "two\n"]);
    assert_eq!(read("notes.txt"), "mine");
    assert_eq!(fs::read_dir(shell.path("results")).unwrap().count(), 4);
    // A link to a folder stays one, and a file is not taken for a folder.
    fs::rename(shell.path("results"), shell.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", shell.path("results")).unwrap();
    fs::remove_file(shell.path("elsewhere/one")).unwrap();
    assert!(run("one") && shell.path("results").is_symlink());
    assert_eq!(read("one"), "one\n");
    fs::remove_file(shell.path("results")).unwrap();
    shell.file("results", "mine");
    let script = "mkdir -p results/deep; echo $1 > results/$1; echo $1 > results/deep/$1";
    let refused = shell.run(["run", "c", "--out", "results", "--", "sh", "-c", script, "sh", "one"]);
    assert!(refused.code == 2 && refused.err.contains("results"), "{} {}", refused.code, refused.err);
    assert_eq!(fs::read_to_string(shell.path("results")).unwrap(), "mine");
}

#[test]
fn outputs_of_a_run_that_failed_half_way_are_not_restored() {
    let shell = Shell::new();
    let script = "echo $(cat version) | tee a; [ -e only-a ] || cat version > b";
    let run = |options: &[&str]| {
        shell.run(["run", "c", "--out", "a", "--out", "b"].iter().chain(options).chain(&["--", "sh", "-c", script]))
    };
    shell.file("version", "1");
    assert_eq!(run(&[]).code, 0);
    shell.file("version", "2");
    shell.file("only-a", "");
    fs::remove_file(shell.path("b")).unwrap();
    assert_eq!(run(&["--force"]).code, 3);
    fs::remove_file(shell.path("only-a")).unwrap();
    let again = run(&[]);
    assert_eq!((again.code, again.out.as_str()), (0, "2\n"));
    assert_eq!(["a", "b"].map(|name| fs::read_to_string(shell.path(name)).unwrap()), ["2\n", "2"]);
}

#[test]
fn the_status_for_nobody_changes_nothing() {
    let shell = Shell::new();
    for _ in 0..2 {
        let (closed, stderr) = std::io::pipe().unwrap();
        drop(closed);
        let mut command = shell.command();
        command.args(["run", "c", "--status", "--keep-failures", "--", "sh", "-c", "echo out; exit 5"]);
        let output = command.stderr(stderr).output().unwrap();
        assert_eq!((output.status.code(), output.stdout), (Some(5), b"out\n".to_vec()));
    }
}
