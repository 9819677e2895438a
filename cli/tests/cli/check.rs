//! Verifying and repairing.

use super::*;

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
