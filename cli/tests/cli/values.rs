//! Values that are put, shown, written and removed.

use super::*;

#[test]
fn values_round_trip_through_every_format() {
    let shell = Shell::new();
    let cases: [(&str, &[&str]); 7] = [
        ("flights.parquet", &["parquet", "arrow", "feather"]),
        ("flights.csv", &["csv", "parquet", "ipc", "csv"]),
        ("airports.arrow", &["arrow", "parquet"]),
        ("photo.npy", &["npy"]),
        ("sea_temperature.npy", &["npy"]),
        ("airlines.json", &["json"]),
        ("README.md", &["md", "bin"]),
    ];
    for (name, endings) in cases {
        let mut file = data(name);
        shell.put("first", &file);
        let shown = shell.get("first");
        for ending in endings {
            let written = shell.path(&format!("out.{ending}"));
            shell.ok(["get".as_ref(), "c".as_ref(), "first".as_ref(), "-o".as_ref(), written.as_os_str()]);
            shell.put("again", &written);
            assert!(shell.get("again") == shown, "{name} as {ending}");
            file = written;
        }
        // NumPy puts blanks into the header that nobody needs.
        let header = match name {
            "photo.npy" | "sea_temperature.npy" => Some(128),
            "README.md" => Some(0),
            _ => None,
        };
        if let Some(header) = header {
            let (ours, theirs) = (fs::read(&file).unwrap(), fs::read(data(name)).unwrap());
            assert!(ours[header..] == theirs[header..], "{name}");
        }
        if name == "flights.csv" {
            let lines = |path: &Path| fs::read_to_string(path).unwrap().lines().count();
            assert_eq!(lines(&file), lines(&data(name)));
        }
    }
    // Nothing but the chest and what was asked for.
    let left: Vec<_> = fs::read_dir(shell.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "c" || name.to_string_lossy().starts_with("out.")), "{left:?}");
}

#[test]
fn previews_are_readable() {
    let shell = Shell::new();
    for name in ["flights.parquet", "co2_mauna_loa.npy", "airlines.json", "README.md"] {
        let line = shell.put(name, &data(name));
        assert!(line.starts_with(&format!("\"{name}\": ")) && line.lines().count() == 1, "{line}");
    }
    let flights = shell.get("flights.parquet");
    assert!(flights.starts_with("195,583 rows x 19 columns\n"), "{flights}");
    assert!(flights.contains("more columns: ") && flights.contains("… 195,573 more rows"), "{flights}");
    assert!(flights.lines().all(|line| line.chars().count() <= 100), "{flights}");
    let co2 = shell.get("co2_mauna_loa.npy");
    assert!(co2.contains("shape [2284]") && co2.contains("min 313, max 373.9") && co2.contains("59 NaN"), "{co2}");
    assert!(shell.get("airlines.json").starts_with("[\n  {\n    \"carrier\": \"9E\","));
    assert!(shell.get("README.md").contains("# Real data\n"));
    assert!(shell.ok(["info", "c", "flights.parquet"]).contains("rows       195583"));
    assert!(shell.ok(["stats", "c"]).contains("plain  json"));
    assert_eq!(shell.ok(["ls", "c"]).lines().count(), 5);
}

#[test]
fn parts_of_values() {
    let shell = Shell::new();
    shell.put("flights", &data("flights.parquet"));
    shell.put("photo", &data("photo.npy"));
    shell.put("text", &shell.file("x.txt", "hello"));
    let shown = shell.ok(["get", "c", "flights", "--rows", "100..103", "--columns", "dest,carrier"]);
    assert!(shown.starts_with("3 rows x 2 columns\n"), "{shown}");
    let header = shown.lines().nth(2).unwrap();
    assert!(header.find("dest") < header.find("carrier"), "{shown}");
    shell.ok(["get", "c", "flights", "--rows", "195580..", "--columns", "dest", "-o", "tail.csv"]);
    let tail = fs::read_to_string(shell.path("tail.csv")).unwrap();
    assert_eq!(tail.lines().count(), 4);
    let all = shell.ok(["get", "c", "flights", "--columns", "dest", "-o", "all.csv"]);
    assert_eq!(all, "");
    assert!(fs::read_to_string(shell.path("all.csv")).unwrap().ends_with(tail.split_once('\n').unwrap().1));
    assert!(shell.ok(["get", "c", "photo", "--rows", "..10"]).contains("shape [10, 451, 3]"));

    assert!(shell.fails(2, &["get", "c", "photo", "--rows", "10"]).contains("100..200"));
    assert!(shell.fails(2, &["get", "c", "text", "--rows", "..10"]).contains("neither rows nor columns"));
    let error = shell.fails(2, &["get", "c", "flights", "--columns", "nobody"]);
    assert!(error.contains("\"nobody\"") && error.contains("carrier"), "{error}");
    shell.fails(3, &["get", "c", "photo", "--columns", "x"]);
}

#[test]
fn files_become_values_or_are_refused() {
    let shell = Shell::new();
    shell.put("bom", &shell.file("Bom.CSV", "\u{feff}name,n\n\"a,\"\"b\",1\n,2.5\n"));
    let shown = shell.get("bom");
    assert!(shown.contains("2 rows x 2 columns") && shown.contains("\nname"), "{shown}");
    assert!(shown.contains("a,\"b") && shown.contains("null") && shown.contains("2.5"), "{shown}");
    shell.put("head", &shell.file("head.csv", "a,b\n"));
    assert!(shell.get("head").starts_with("0 rows x 2 columns\n"));
    shell.put("twice", &shell.file("twice.csv", "a,a\n1,2\n"));
    assert!(shell.get("twice").contains("a_2"));
    let ragged = shell.file("ragged.csv", "a,b\n1\n");
    let error = shell.fails(3, &["put", "new", "k", ragged.to_str().unwrap()]);
    assert!(error.contains("ragged.csv"), "{error}");
    let rounded = shell.file("rounded.json", "[123456789012345678901]");
    assert!(shell.fails(3, &["put", "new", "k", rounded.to_str().unwrap()]).contains("rounded"));
    assert!(!shell.path("new").exists(), "a file that cannot be read makes no chest");
}

#[test]
fn exit_codes() {
    let shell = Shell::new();
    let file = shell.file("x.txt", "hello");
    let file = file.to_str().unwrap();
    // A chest that does not exist is not made by looking for it.
    for args in [&["get", "c", "k"][..], &["ls", "c"], &["info", "c", "k"], &["rm", "c", "k"], &["stats", "c"]] {
        let error = shell.fails(2, args);
        assert!(error.starts_with("icechest: c does not exist"), "{error}");
        assert!(!shell.path("c").exists(), "{args:?}");
    }
    fs::create_dir(shell.path("empty")).unwrap();
    assert!(shell.fails(2, &["ls", "empty"]).contains("is not a chest"));
    assert_eq!(fs::read_dir(shell.path("empty")).unwrap().count(), 0);
    assert!(shell.fails(2, &["put", ".", "k", file]).contains("is not a chest"));
    assert!(shell.fails(2, &["put", "x.txt", "k", file]).contains("is a file"));
    assert!(shell.fails(3, &["put", "c", "k", "missing.npy"]).contains("missing.npy"));
    assert!(!shell.path("c").exists());

    shell.ok(["put", "c", "k", file]);
    let error = shell.fails(1, &["get", "c", "nobody"]);
    assert!(error.starts_with("icechest: ") && error.contains("\"nobody\""), "{error}");
    shell.fails(1, &["info", "c", "nobody"]);
    // What is there goes, what is missing is told.
    assert!(shell.fails(1, &["rm", "c", "nobody", "k", "json:7"]).contains("\"nobody\", 7"));
    shell.fails(1, &["get", "c", "k"]);
    shell.ok(["put", "c", "k", file]);
    assert_eq!(shell.ok(["rm", "c", "k"]), "");

    for args in [&["fly"][..], &[], &["rm", "c"], &["get", "c"], &["get", "c", "json:[1, 2]"], &["ls", "c", "--what"]] {
        shell.fails(2, args);
    }
    assert!(shell.fails(2, &["get", "c", "json:[1, 2]"]).contains("[1,2]"), "the canonical form is told");
    assert_eq!(shell.run(["--help"]).code, 0);
    assert_eq!(shell.run(["--version"]).code, 0);
}

/// What is written to is what is open under these names, not the file that it may be.
#[cfg(unix)]
#[test]
fn standard_output_is_no_file() {
    let shell = Shell::new();
    shell.put("text", &shell.file("text.txt", "value\n"));
    for name in ["-", "/dev/stdout", "/dev/fd/1"] {
        let log = fs::File::create(shell.path("log")).unwrap();
        let script = r#"echo before; "$0" get c text -o $1; echo after"#;
        let mut command = Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_icechest"), name]).current_dir(shell.path("."));
        assert!(command.stdout(log).status().unwrap().success());
        assert_eq!(fs::read_to_string(shell.path("log")).unwrap(), "before\nvalue\nafter\n", "{name}");
    }
    assert!(!shell.path("-").exists());
}

#[cfg(unix)]
#[test]
fn a_file_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt;

    let shell = Shell::new();
    shell.put("text", &shell.file("text.txt", "value"));
    let file = shell.file("mine.txt", "before");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    shell.ok(["get", "c", "text", "-o", "mine.txt"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "value");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn endings_that_do_not_fit_are_told() {
    let shell = Shell::new();
    shell.put("frame", &data("airports.arrow"));
    shell.put("array", &data("photo.npy"));
    shell.put("json", &data("airlines.json"));
    for (key, file, told) in
        [("frame", "x.npy", ".parquet"), ("array", "x.csv", ".npy"), ("json", "x.csv", ".json"), ("frame", "x", ".csv")]
    {
        let error = shell.fails(2, &["get", "c", key, "-o", file]);
        assert!(error.contains(told), "{error}");
        assert!(!shell.path(file).exists());
    }
    assert!(shell.fails(3, &["get", "c", "json", "-o", "no/such/folder.json"]).contains("folder.json"));
}

#[test]
fn json_lines_name_everything() {
    let shell = Shell::new();
    shell.put("flights", &data("flights.csv"));
    shell.put("json:[\"a\",1]", &data("photo.npy"));
    shell.put("json:18446744073709551615", &data("airlines.json"));
    shell.put("json:{\"$int\":\"340282366920938463463374607431768211455\"}", &data("airlines.json"));
    let lines = shell.json_lines(&["ls", "c", "--json"]);
    let fields = |line: &Json, names: [&str; 3]| names.map(|name| line[name].clone());
    let flights = fields(&lines[0], ["key", "kind", "format"]);
    assert_eq!(flights, ["flights", "frame", "parquet"].map(Json::from));
    assert_eq!(lines[1]["key"], serde_json::json!(["a", 1]));
    assert_eq!(lines[1]["kind"], "array");
    assert_eq!(lines[1]["about"]["shape"], serde_json::json!([300, 451, 3]));
    let file = lines[0]["file"].as_str().unwrap();
    assert_eq!(fs::metadata(shell.path("c").join(file)).unwrap().len(), lines[0]["stored_bytes"].as_u64().unwrap());
    assert_eq!((&lines[2]["kind"], &lines[2]["file"]), (&Json::from("plain"), &Json::Null));
    assert!(lines.iter().all(|line| line["bytes"].as_u64().unwrap() > 0 && line["type"].is_string()));
    assert_eq!((&lines[2]["key"], lines[3]["key"].is_object()), (&Json::from(u64::MAX), true));
    assert_eq!(shell.json_lines(&["info", "c", "flights", "--json"]), lines[..1]);
    let stats = shell.json_lines(&["stats", "c", "--json"]);
    assert_eq!((stats.len(), &stats[0]["values"]), (1, &Json::from(4)));
}

#[test]
fn hostile_keys_name_values() {
    let shell = Shell::new();
    let long = "k".repeat(10_000);
    let keys =
        ["", "../../etc", "a\nb\u{1b}[31m", "氷🧊", "CON", "--", "-o", "json", &long, "json:{\"$bytes\":\"00ff\"}"];
    for (i, key) in keys.iter().enumerate() {
        let file = shell.file("value.json", i.to_string());
        shell.ok(["put".as_ref(), "--".as_ref(), "c".as_ref(), OsStr::new(key), file.as_os_str()]);
    }
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(shell.ok(["get", "--", "c", key]), format!("{i}\n"), "{key:.20}");
    }
    let listed = shell.ok(["ls", "c"]);
    assert_eq!(listed.lines().count(), keys.len() + 1);
    assert!(!listed.contains('\u{1b}'));
    assert_eq!(shell.json_lines(&["ls", "c", "--json"])[2]["key"], keys[2]);
    let inside: Vec<_> = fs::read_dir(shell.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(inside.len(), 2, "{inside:?}");
    shell.ok(["rm", "--", "c"].iter().chain(&keys));
    assert_eq!(shell.ok(["ls", "c", "--json"]), "");
}

#[test]
fn a_closed_pipe_ends_the_command_quietly() {
    let shell = Shell::new();
    let file = shell.file("x", "x");
    let chest = icechest::Chest::open(shell.path("c")).unwrap();
    chest.extend((0..5000).map(|i| (format!("a key that fills the pipe, number {i}"), i))).unwrap();
    drop(chest);
    drop(file);
    let mut child = shell.command().args(["ls", "c"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("key"), "{line}");
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert_eq!((child.wait().unwrap().code(), error.as_str()), (Some(0), ""));
}

#[test]
fn values_of_std_types_are_shown_and_written_as_json() {
    let shell = Shell::new();
    let chest = icechest::Chest::open(shell.path("c")).unwrap();
    chest.insert("scores", vec![0.5, 1.5]).unwrap();
    chest.insert("name", "Ada\n").unwrap();
    chest.insert("lost", vec![f64::NAN]).unwrap();
    chest.insert("many", (0..100_000i64).collect::<Vec<_>>()).unwrap();
    chest.insert("odd", std::net::Ipv4Addr::LOCALHOST).unwrap();
    drop(chest);
    assert_eq!(shell.get("scores"), "[0.5, 1.5]\n");
    assert_eq!(shell.get("name"), "Ada\n");
    assert!(shell.get("many").ends_with("for all of it: -o FILE.json\n"));
    assert!(shell.get("odd").contains("chest.get::<Ipv4Addr>(key)"));
    shell.ok(["get", "c", "scores", "-o", "scores.json"]);
    assert_eq!(fs::read_to_string(shell.path("scores.json")).unwrap(), "[\n  0.5,\n  1.5\n]\n");
    shell.ok(["get", "c", "name", "-o", "name.txt"]);
    assert_eq!(fs::read_to_string(shell.path("name.txt")).unwrap(), "Ada\n");
    // JSON has no NaN: better no file than a wrong one.
    shell.fails(3, &["get", "c", "lost", "-o", "lost.json"]);
    assert!(!shell.path("lost.json").exists());
    shell.fails(2, &["get", "c", "odd", "-o", "odd.json"]);
}

#[test]
fn damaged_values_are_told_and_leave_no_file() {
    let shell = Shell::new();
    shell.put("photo", &data("photo.npy"));
    let file = shell.path("c").join(shell.json_lines(&["info", "c", "photo", "--json"])[0]["file"].as_str().unwrap());
    let mut bytes = fs::read(&file).unwrap();
    bytes[100_000] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert!(shell.fails(3, &["get", "c", "photo"]).contains("checksum"));
    fs::write(shell.path("old.npy"), "old").unwrap();
    shell.fails(3, &["get", "c", "photo", "-o", "old.npy"]);
    assert_eq!(fs::read_to_string(shell.path("old.npy")).unwrap(), "old");
}

/// On a read-only medium, or somebody else's.
#[cfg(target_os = "linux")]
#[test]
fn a_chest_that_may_only_be_read_is_read() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;

    let shell = Shell::new();
    let array = data("digits.npy");
    shell.put("array", &array);
    shell.put("small", &shell.file("small.txt", "a text"));
    let tool = shell.path("tool");
    fs::copy(env!("CARGO_BIN_EXE_icechest"), &tool).unwrap();
    let chmod = |mode: &str| {
        assert!(shell.command_of("chmod").args(["-R", mode, "c"]).status().unwrap().success());
    };
    fs::set_permissions(shell.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    // Nothing is forbidden to the superuser.
    let is_root = fs::metadata(shell.path("")).unwrap().uid() == 0;
    let run = |args: &[&str]| {
        let mut command = shell.command_of(tool.to_str().unwrap());
        if is_root {
            command.uid(65534).gid(65534);
        }
        let output = command.args(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let check = || {
        let (code, out, err) = run(&["ls", "c"]);
        assert!(code == 0 && err.is_empty() && out.contains("array") && out.contains("small"), "{code} {out} {err}");
        let (code, out, err) = run(&["get", "c", "small"]);
        assert!(code == 0 && err.is_empty() && out.ends_with("a text\n"), "{code} {out} {err}");
        assert_eq!(run(&["get", "c", "array"]).0, 0);
        let (code, _, err) = run(&["rm", "c", "small"]);
        assert!(code == 3 && err.contains("can only be read") && err.contains("copy"), "{code} {err}");
    };
    chmod("a+rX,a-w");
    check();
    // Tools that copy a directory may leave empty folders out.
    chmod("u+w");
    for name in ["tmp", "locks"] {
        fs::remove_dir(shell.path("c").join(name)).unwrap();
    }
    chmod("a-w");
    check();
    // Somebody who may write has it open.
    chmod("u+w");
    let chest = icechest::Chest::open(shell.path("c")).unwrap();
    chest.insert("new", "a newer text").unwrap();
    chest.flush().unwrap();
    chmod("a+rX,a-w");
    check();
    assert!(run(&["get", "c", "new"]).1.contains("a newer text"));
    chmod("u+w");
    drop(chest);
}
