//! The command as a user runs it: its exit codes, its output, and the files that it writes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

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
        let mut command = Command::new(env!("CARGO_BIN_EXE_icechest"));
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
    assert!(shell.fails(2, &["put", "c", "k", "empty"]).contains("folder"));
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

/// A chest with an array, a frame and a small value, and its value files in this order.
fn chest_to_damage(shell: &Shell) -> [String; 2] {
    shell.put("photo", &data("photo.npy"));
    shell.put("json:[\"f\",1]", &data("flights.csv"));
    shell.put("small", &data("airlines.json"));
    [0, 1].map(|i| shell.json_lines(&["ls", "c", "--json"])[i]["file"].as_str().unwrap().to_owned())
}

/// Runs a check that must end with this code and say nothing on standard error.
fn check(shell: &Shell, code: i32, options: &[&str]) -> String {
    let ran = shell.run(["check", "c"].iter().chain(options));
    assert_eq!((ran.code, ran.err.as_str()), (code, ""), "{}", ran.out);
    ran.out
}

fn check_json(shell: &Shell, code: i32, options: &[&str]) -> Json {
    serde_json::from_str(&check(shell, code, &[options, &["--json"]].concat())).unwrap()
}

fn flip_byte(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap()
}

#[test]
fn a_check_of_a_healthy_chest_says_so() {
    let shell = Shell::new();
    chest_to_damage(&shell);
    for options in [&[][..], &["--repair"]] {
        let told = check(&shell, 0, options);
        assert!(told.starts_with("healthy: 3 values, ") && told.lines().count() == 1, "{told}");
    }
    let stored: u64 = shell.json_lines(&["ls", "c", "--json"]).iter().filter_map(|v| v["stored_bytes"].as_u64()).sum();
    let facts = serde_json::json!({
        "values": 3, "bytes": stored, "damaged": [], "orphans": [], "orphan_bytes": 0, "foreign": [], "set_aside": [],
        "rebuilt": null, "repaired": false, "healthy": true,
    });
    assert_eq!(check_json(&shell, 0, &[]), facts);
}

#[test]
fn a_check_finds_a_flipped_byte_and_a_repair_removes_it() {
    let shell = Shell::new();
    let [photo, _] = chest_to_damage(&shell);
    flip_byte(&shell.path("c").join(&photo), 100_000);
    let error = shell.fails(3, &["get", "c", "photo"]);
    assert!(error.contains("icechest check tells whether more is damaged"), "{error}");

    let told = check(&shell, 3, &[]);
    assert!(told.contains("\"photo\"") && told.contains(&photo) && told.contains("checksum"), "{told}");
    assert!(last_line(&told).starts_with("DAMAGED: 1 file;") && told.contains("--repair"), "{told}");
    shell.get("json:[\"f\",1]");
    shell.get("small");

    let repaired = check_json(&shell, 3, &["--repair"]);
    let damage = &repaired["damaged"][0];
    assert_eq!((&damage["key"], &damage["file"]), (&"\"photo\"".into(), &photo.as_str().into()));
    assert_eq!(
        (&damage["is_saved"], &repaired["healthy"], &repaired["repaired"]),
        (&false.into(), &false.into(), &true.into())
    );
    let quarantined = damage["quarantined"].as_str().unwrap();
    assert!(quarantined.starts_with("quarantine/") && shell.path("c").join(quarantined).is_file(), "{quarantined}");
    assert!(!shell.path("c").join(&photo).exists());

    assert!(check(&shell, 0, &[]).starts_with("healthy: 2 values"));
    assert!(shell.fails(1, &["get", "c", "photo"]).contains("\"photo\""));
    shell.get("json:[\"f\",1]");
}

#[test]
fn a_check_finds_short_and_missing_files() {
    let shell = Shell::new();
    let [photo, flights] = chest_to_damage(&shell);
    fs::OpenOptions::new().write(true).open(shell.path("c").join(&photo)).unwrap().set_len(1000).unwrap();
    fs::remove_file(shell.path("c").join(&flights)).unwrap();
    assert!(shell.fails(3, &["get", "c", "json:[\"f\",1]"]).contains("icechest check"));
    let report = check_json(&shell, 3, &[]);
    let fact = |i: usize, name: &str| report["damaged"][i][name].as_str().unwrap();
    assert_eq!([fact(0, "key"), fact(0, "file")], ["\"photo\"", photo.as_str()]);
    assert_eq!([fact(1, "key"), fact(1, "file")], ["[\"f\",1]", flights.as_str()]);
    assert!(fact(0, "problem").contains("1000 bytes") && fact(1, "problem").contains("missing"), "{report}");
    let told = check(&shell, 3, &["--repair"]);
    let row = |file: &str| told.lines().find(|line| line.contains(file)).unwrap();
    assert!(row(&photo).contains("in quarantine/") && row(&flights).contains("lost"), "{told}");
    assert!(last_line(&told).starts_with("repaired: 2 files"), "{told}");
    assert!(check(&shell, 0, &[]).starts_with("healthy: 1 value,"));
    shell.get("small");
}

#[test]
fn a_damaged_label_is_made_again() {
    let shell = Shell::new();
    let [photo, _] = chest_to_damage(&shell);
    let file = shell.path("c").join(&photo);
    flip_byte(&file, fs::metadata(&file).unwrap().len() as usize - 20);
    assert!(check(&shell, 3, &[]).contains("label"));
    let damage = &check_json(&shell, 3, &["--repair"])["damaged"][0];
    assert_eq!((&damage["key"], &damage["is_saved"]), (&"\"photo\"".into(), &true.into()));
    assert!(check(&shell, 0, &[]).starts_with("healthy: 3 values"));
    shell.get("photo");
}

#[test]
fn a_lost_or_destroyed_catalog_is_made_from_the_value_files() {
    for garbage in [None, Some(vec![b'?'; 20_000]), Some(Vec::new())] {
        let shell = Shell::new();
        let files = chest_to_damage(&shell);
        let shown = ["photo", "json:[\"f\",1]"].map(|key| shell.get(key));
        let catalog = shell.path("c/catalog.sqlite");
        match &garbage {
            Some(garbage) => fs::write(&catalog, garbage).unwrap(),
            None => fs::remove_file(&catalog).unwrap(),
        }
        let error = shell.fails(3, &["ls", "c"]);
        assert_eq!(error.matches("icechest check").count(), 1, "{error}");

        let report = check_json(&shell, 3, &[]);
        assert_eq!(report["damaged"][0]["file"], "catalog.sqlite");
        assert_eq!((&report["damaged"][0]["key"], &report["rebuilt"]), (&Json::Null, &Json::Null));
        let told = check(&shell, 3, &["--repair"]);
        assert!(told.contains("a new catalog was made, of 2 values"), "{told}");
        let done = if garbage.is_some() { "in quarantine/" } else { "made again" };
        assert!(told.lines().any(|line| line.contains("catalog.sqlite") && line.contains(done)), "{told}");
        assert_eq!(shell.path("c/quarantine/catalog.sqlite").exists(), garbage.is_some());

        assert!(check(&shell, 0, &[]).starts_with("healthy: 2 values"));
        assert_eq!(["photo", "json:[\"f\",1]"].map(|key| shell.get(key)), shown);
        assert!(files.iter().all(|file| shell.path("c").join(file).exists()));
    }
}

#[test]
fn a_check_tells_orphans_from_files_of_others() {
    let shell = Shell::new();
    let [photo, _] = chest_to_damage(&shell);
    let orphan = "values/photo.0123456789ab00000f.npy";
    fs::copy(shell.path("c").join(&photo), shell.path("c").join(orphan)).unwrap();
    shell.file("c/values/notes\u{1b}.txt", "mine");
    let len = fs::metadata(shell.path("c").join(orphan)).unwrap().len();

    let told = check(&shell, 0, &[]);
    assert!(told.contains(orphan) && told.contains(r"values/notes\u{1b}.txt"), "{told}");
    assert!(!told.contains('\u{1b}') && last_line(&told).starts_with("healthy: "), "{told}");
    let report = check_json(&shell, 0, &["--repair"]);
    assert_eq!((&report["orphans"], &report["orphan_bytes"]), (&serde_json::json!([orphan]), &len.into()));
    assert_eq!(report["foreign"], serde_json::json!(["values/notes\u{1b}.txt"]));
    assert!(!shell.path("c").join(orphan).exists() && shell.path("c").join(&photo).exists());
    assert_eq!(fs::read_to_string(shell.path("c/values/notes\u{1b}.txt")).unwrap(), "mine");
    assert!(!check(&shell, 0, &[]).contains(orphan));
}

#[test]
fn a_long_list_of_damage_is_cut_and_told_by_json() {
    let shell = Shell::new();
    let chest = icechest::Chest::open(shell.path("c")).unwrap();
    chest.extend((0..30).map(|i| (i, vec![f64::from(i).sin(); 10_000]))).unwrap();
    chest.extend((0..30).map(|i| (format!("random {i}"), fs::read(data("photo.npy")).unwrap()))).unwrap();
    drop(chest);
    let files: Vec<_> = fs::read_dir(shell.path("c/values")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 30);
    files.iter().for_each(|file| flip_byte(file, 50));
    let told = check(&shell, 3, &[]);
    let more = format!("  and {} more, which --json names", files.len() - 20);
    assert_eq!(
        (told.lines().filter(|line| line.contains("values/")).count(), told.contains(&more)),
        (20, true),
        "{told}"
    );
    assert_eq!(check_json(&shell, 3, &[])["damaged"].as_array().unwrap().len(), files.len());
    // Who stops reading does not make it healthy.
    let mut child = shell.command().args(["check", "c", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_check_of_what_is_no_chest_makes_none() {
    let shell = Shell::new();
    for options in [&[][..], &["--repair"], &["--json"]] {
        let error = shell.fails(2, &[&["check", "c"], options].concat());
        assert!(error.starts_with("icechest: c does not exist"), "{error}");
    }
    shell.file("file", "x");
    fs::create_dir(shell.path("empty")).unwrap();
    for name in ["file", "empty", "."] {
        assert!(shell.fails(2, &["check", name, "--repair"]).contains("is not a chest"));
    }
    assert_eq!(fs::read_dir(shell.path("empty")).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn devices_and_links_stay_what_they_are() {
    let shell = Shell::new();
    shell.put("text", &shell.file("text", "hello"));
    assert_eq!(shell.ok(["get", "c", "text", "-o", "/dev/stdout"]), "hello");
    let real = shell.file("real.txt", "old");
    let link = shell.path("link.txt");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    shell.ok(["get", "c", "text", "-o", "link.txt"]);
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(real).unwrap(), "hello");
}

#[test]
fn the_demo_ends_with_success() {
    let shell = Shell::new();
    let error = shell.fails(2, &["demo"]);
    assert!(error.contains("--data"), "{error}");

    let data = data("");
    let demo = ["demo", "--dir", "d", "--data", data.to_str().unwrap()];
    let shown = shell.ok(demo);
    assert!(shown.contains("every value is what the first process stored"), "{shown}");
    assert!(shown.contains("pl.read_parquet(") && shown.contains("np.load(") && shown.contains("blosc2.open("));
    assert!(!shown.contains('\u{1b}') && !shown.contains('\r'), "no drawing in a pipe");
    let path = shown.split("np.load(\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(Path::new(path).is_file(), "{path}");

    // Damage is found by the second process.
    let digests = shell.json_lines(&["ls", "d", "--json"]);
    let count = digests.iter().filter(|line| line["key"][0] == "digest").count().to_string();
    shell.ok(["demo-verify", "d", &count]);
    shell.ok(["rm", "d", "photo"]);
    assert!(shell.fails(3, &["demo-verify", "d", &count]).contains("were found"));
    shell.put("mine", &data.join("airlines.json"));
    assert!(shell.fails(2, &["demo", "--dir", "c", "--data", data.to_str().unwrap()]).contains("values of yours"));
    assert_eq!(shell.json_lines(&["ls", "c", "--json"]).len(), 1);
}

/// Appends a line to `runs` each time it runs, so that one can count.
#[cfg(unix)]
const SCRIPT: &str = r#"echo ran >> runs; cat "$1" | tr a-z A-Z > model.txt; mkdir -p plots; echo "$1" > plots/p; echo "of $1"; echo warned >&2; exit "${2:-0}""#;

#[cfg(unix)]
fn runs(shell: &Shell) -> usize {
    fs::read_to_string(shell.path("runs")).map_or(0, |runs| runs.lines().count())
}

#[cfg(unix)]
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

#[cfg(unix)]
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
    // A signal, as shells tell it.
    assert_eq!(shell.run(["run", "c", "--", "sh", "-c", "kill -9 $$"]).code, 137);
}

#[cfg(unix)]
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

#[cfg(unix)]
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
