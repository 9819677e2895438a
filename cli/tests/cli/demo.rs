//! The demo.

use super::*;

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
