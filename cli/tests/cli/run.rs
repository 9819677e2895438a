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

/// What is settled is known by its times.
fn settle() {
    std::thread::sleep(std::time::Duration::from_millis(150));
}

#[test]
fn where_what_a_command_left_as_it_was_has_changed_it_runs_again() {
    let shell = Shell::new();
    let run = |name: &str| {
        settle();
        let script = "mkdir -p results; cp $1 results/$1.out";
        let all = ["run", "c", "--status", "--in", name, "--out", "results", "--", "sh", "-c", script, "sh", name];
        shell.run(all).err.contains("hit")
    };
    let read = |name: &str| fs::read_to_string(shell.path("results").join(name)).unwrap();
    shell.file("a", "a 1");
    shell.file("b", "b 1");
    assert!(!run("a") && !run("b") && run("a") && run("b"));
    shell.file("a", "a 2");
    assert!(!run("a"));
    // It knows an older one of the other command's.
    assert!(!run("b"));
    assert_eq!([read("a.out"), read("b.out")], ["a 2", "b 1"]);
    // Where it is missing it is better than nothing; what the command made comes back in any case.
    shell.file("results/b.out", "mine");
    fs::remove_file(shell.path("results/a.out")).unwrap();
    assert!(run("b"));
    assert_eq!([read("a.out"), read("b.out")], ["a 2", "b 1"]);
}

#[test]
fn a_hit_touches_nothing_that_is_as_it_should_be() {
    use std::os::unix::fs::MetadataExt;
    let shell = Shell::new();
    let run = || {
        shell.ok(["run", "c", "--out", "d", "--", "sh", "-c", "mkdir -p d; echo made > d/made"]);
        ["d/made", "d/mine"].map(|name| fs::metadata(shell.path(name)).unwrap().ino())
    };
    fs::create_dir(shell.path("d")).unwrap();
    shell.file("d/mine", "mine");
    let before = run();
    assert_eq!(run(), before);
    // However young it was: it was mine.
    shell.file("d/mine", "edited");
    assert_eq!(run()[1], before[1]);
    assert_eq!(fs::read_to_string(shell.path("d/mine")).unwrap(), "edited");
    assert_eq!(fs::read_dir(shell.path("")).unwrap().count(), 2, "the chest and the folder");
}

/// It leaves what is up to date.
#[test]
fn what_another_source_gave_is_not_taken_for_what_a_command_leaves() {
    let shell = Shell::new();
    let make = || {
        settle();
        let script = "[ app -nt src ] || cp src app";
        shell.ok(["run", "c", "--in", "src", "--out", "app", "--", "sh", "-c", script]);
        fs::read_to_string(shell.path("app")).unwrap()
    };
    shell.file("src", "1");
    settle();
    shell.file("app", "1");
    assert_eq!(make(), "1");
    shell.file("src", "2");
    assert_eq!(make(), "2");
    shell.file("src", "1");
    assert_eq!(make(), "1");
    shell.file("src", "2");
    assert_eq!(make(), "2");
}

#[test]
fn a_chest_is_no_output_and_in_an_input_it_does_not_count() {
    let shell = Shell::new();
    fs::create_dir(shell.path("build")).unwrap();
    shell.file("build/f", "1");
    for output in ["build", ".", "..", "build/.cache", "build/.cache/values/x"] {
        let refused = shell.run(["run", "build/.cache", "--out", output, "--", "sh", "-c", "echo ran > build/f"]);
        assert!(refused.code == 2 && refused.err.contains(".cache"), "{output}: {} {}", refused.code, refused.err);
    }
    assert_eq!(fs::read_to_string(shell.path("build/f")).unwrap(), "1", "nothing has run");
    let run = || shell.run(["run", "build/.cache", "--in", "build", "--status", "--", "cat", "build/f"]);
    assert!(run().err.contains("miss") && run().err.contains("hit"));
    shell.file("build/f", "2");
    let again = run();
    assert_eq!((again.out.as_str(), again.err.contains("miss")), ("2", true));
}

#[cfg(target_os = "linux")]
#[test]
fn a_command_whose_icechest_was_killed_runs_alone_to_its_end() {
    let shell = Shell::new();
    let script = "echo begun >> log; until [ -e go ]; do sleep 0.02; done; echo ended >> log; cp log o";
    let args = ["run", "c", "--out", "o", "--", "sh", "-c", script];
    let log = || fs::read_to_string(shell.path("log")).unwrap_or_default();
    let mut killed = shell.command().args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while log() != "begun\n" {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let mut second = shell.command().args(args).spawn().unwrap();
    settle();
    settle();
    assert_eq!(log(), "begun\n", "the second waits");
    shell.file("go", "");
    assert!(second.wait().unwrap().success());
    assert_eq!(log(), "begun\nended\nbegun\nended\n");
    assert_eq!(fs::read_to_string(shell.path("o")).unwrap(), log());
}

#[test]
fn a_command_that_waits_for_itself_is_told() {
    let shell = Shell::new();
    let icechest = env!("CARGO_BIN_EXE_icechest");
    shell.file("again.sh", format!("exec {icechest} run c -- sh again.sh"));
    let ran = shell.run(["run", "c", "--", "sh", "again.sh"]);
    assert!(ran.code == 2 && ran.err.contains("its own end"), "{} {}", ran.code, ran.err);
}

#[test]
fn what_a_command_did_in_its_input_is_done() {
    let shell = Shell::new();
    shell.file("d", "b\na\n");
    settle();
    let sort = || shell.run(["run", "c", "--in", "d", "--out", "d", "--", "sh", "-c", "sort -o d d; exit 0"]);
    let ran = sort();
    assert!(ran.code == 0 && ran.err.contains("not kept") && ran.err.contains("changed"), "{} {}", ran.code, ran.err);
    assert_eq!(fs::read_to_string(shell.path("d")).unwrap(), "a\nb\n");
}

#[test]
fn a_failure_is_told_where_it_is_asked_for() {
    let shell = Shell::new();
    let ran = shell.run(["run", "c", "--status", "--", "false"]);
    assert!(ran.code == 1 && ran.err.contains("miss"), "{} {}", ran.code, ran.err);
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_is_lost_is_told_and_output_that_nobody_wants_is_not() {
    let shell = Shell::new();
    for _ in 0..2 {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = shell.command().args(["run", "c", "--", "echo", "out"]).stdout(full).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(3) && err.contains("cannot write to the output"), "{err}");
    }
    shell.put("text", &shell.file("text.bin", vec![b'x'; 1 << 20]));
    let (closed, stdout) = std::io::pipe().unwrap();
    drop(closed);
    let output = shell.command().args(["get", "c", "text", "-o", "-"]).stdout(stdout).output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[cfg(target_os = "linux")]
#[test]
fn restored_files_can_be_read_by_nobody_else_than_before() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let shell = Shell::new();
    let mode = |name: &str| fs::metadata(shell.path(name)).unwrap().mode() & 0o777;
    let run = |umask: &str| {
        let script =
            "umask 022; mkdir -p d/e; echo k > key; chmod 600 key; echo t > d/tool; chmod 755 d/tool; chmod 700 d/e";
        let icechest = env!("CARGO_BIN_EXE_icechest");
        let all = format!("umask {umask}; exec {icechest} run c --out key --out d -- sh -c '{script}'");
        let ran = shell.command_of("sh").args(["-c", &all]).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
    };
    let forget = || (fs::remove_file(shell.path("key")).unwrap(), fs::remove_dir_all(shell.path("d")).unwrap());
    run("022");
    forget();
    run("022");
    assert_eq!(["key", "d", "d/tool", "d/e"].map(mode), [0o600, 0o755, 0o755, 0o700]);
    forget();
    run("077");
    assert_eq!(["key", "d", "d/tool", "d/e"].map(mode), [0o600, 0o700, 0o700, 0o700]);
    // One that is there already is not opened to others.
    fs::set_permissions(shell.path("d/tool"), PermissionsExt::from_mode(0o700)).unwrap();
    run("022");
    assert_eq!(mode("d/tool"), 0o700);
}

#[test]
fn what_was_kept_is_listed_and_taken_out_like_anything_else() {
    let shell = Shell::new();
    let script = "mkdir -p d/e; echo one > d/e/one; echo two > d/two";
    shell.ok(["run", "c", "--out", "d", "--", "sh", "-c", script]);
    let listed = shell.ok(["ls", "c"]);
    let key =
        listed.lines().find(|line| line.contains("\"out\",\"d\"")).unwrap().split_whitespace().collect::<Vec<_>>();
    // The whole key: it has a blank in it.
    let end = key.iter().position(|word| *word == "plain").unwrap();
    let key = format!("json:{}", key[..end].join(" "));
    let shown = shell.get(&key);
    assert!(shown.contains("e/one") && shown.contains("-o PATH"), "{shown}");
    shell.ok(["get", "c", &key, "-o", "elsewhere"]);
    assert_eq!(fs::read_to_string(shell.path("elsewhere/e/one")).unwrap(), "one\n");
    shell.put("folder", &shell.path("elsewhere"));
    shell.ok(["get", "c", "folder", "-o", "third"]);
    assert_eq!(fs::read_to_string(shell.path("third/two")).unwrap(), "two\n");
}
