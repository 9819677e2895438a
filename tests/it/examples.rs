//! The programs in `examples/` run, and the reader in Python reads a chest without our code.

use std::path::{Path, PathBuf};
use std::process::Command;

use icechest::polars::df;
use icechest::{Chest, Compression};
use ndarray::Array2;

fn run(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; run `make build python`", program.display()));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {out}{err}", program.display());
    out.into_owned()
}

/// Beside this test's own program, where Cargo puts examples.
fn example(name: &str) -> PathBuf {
    let me = std::env::current_exe().unwrap();
    me.ancestors().nth(2).unwrap().join("examples").join(name)
}

#[test]
fn quick_start_runs() {
    let out = run(&example("quick_start"), &[]);
    assert!(out.contains("34 values"), "{out}");
}

#[test]
fn own_format_runs() {
    let out = run(&example("own_format"), &[]);
    assert_eq!(out.matches("451 x 300").count(), 3, "{out}");
}

#[test]
fn blocked_product_is_right_and_leaves_a_trace() {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let out = run(&example("blocked_product"), &[trace.to_str().unwrap()]);
    assert!(out.contains("relative error"), "{out}");
    let trace = std::fs::read_to_string(trace).unwrap();
    assert!(trace.starts_with("budget 8388608\ninsert 0 ") && trace.contains("\nload "), "{trace:.200}");
}

#[test]
fn larger_than_memory_stays_within_its_budget() {
    let out = run(&example("larger_than_memory"), &["--total", "512MiB", "--budget", "64MiB"]);
    let line: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((line["verified"].as_u64(), line["wrong"].as_u64()), (Some(64), Some(0)), "{out}");
    if let Some(peak) = line["peak_rss_bytes"].as_u64() {
        // The promise: the budget, a tenth of it, and 64 MiB.
        assert!(peak <= (64 << 20) + (64 << 20) / 10 + (64 << 20), "{out}");
    }
}

fn read_chest(chest: &Chest, key: Option<&str>) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ours = root.join("target/python/bin/python");
    let python = std::env::var_os("ICECHEST_PYTHON").map_or(ours, PathBuf::from);
    let script = root.join("examples/read_chest.py");
    let mut arguments = vec![script.to_str().unwrap(), chest.path().to_str().unwrap()];
    arguments.extend(key);
    run(&python, &arguments)
}

#[test]
fn python_reads_a_chest_without_our_code() {
    let dir = tempfile::tempdir().unwrap();
    for (name, inline_limit) in [("files", 0), ("catalog", 16 << 10)] {
        let chest = Chest::builder().inline_limit(inline_limit).open(dir.path().join(name)).unwrap();
        chest.insert("frame", df!("x" => [1i64, 2], "s" => ["a", "b"]).unwrap()).unwrap();
        chest.insert("array", Array2::from_shape_fn((3, 2), |(y, x)| (y * 10 + x) as i32)).unwrap();
        chest.insert("smooth", ndarray::Array1::<f64>::zeros(1 << 20)).unwrap();
        chest.insert("text", "grüße").unwrap();
        chest.insert("bytes", vec![7u8, 8]).unwrap();
        chest.insert("numbers", vec![0.5f64, 1.5]).unwrap();
        chest.insert("maybe", vec![Some("x".to_owned()), None]).unwrap();
        chest.insert("long", vec![3u32; 100_000]).unwrap();
        chest.insert("json", serde_json::json!({"a": [1, null]})).unwrap();
        chest.insert(("tuple", 1), true).unwrap();
        chest.flush().unwrap();

        let line = |key: &str| {
            let canonical = serde_json::to_string(key).unwrap();
            read_chest(&chest, Some(&canonical)).trim_end().split_once('\t').unwrap().1.to_owned()
        };
        assert_eq!(line("text"), "String\tgrüße");
        assert_eq!(line("bytes"), "Vec<u8>\tb'\\x07\\x08'");
        assert_eq!(line("numbers"), "Vec<f64>\t[0.5, 1.5]");
        assert_eq!(line("maybe"), "Vec<Option<String>>\t['x', None]");
        assert_eq!(line("json"), "Json\t{'a': [1, None]}");
        assert_eq!(line("array"), "Array<i32, 2>\t[[ 0  1]\n [10 11]\n [20 21]]");
        assert_eq!(line("long").matches('3').count(), 100_000 + 1, "the type's name has one");
        assert!(
            line("frame").contains("x: [[1,2]]") && line("frame").contains("s: [[\"a\",\"b\"]]"),
            "{}",
            line("frame")
        );
        assert!(line("smooth").starts_with("Array<f64, 1>\t[0. 0. 0."), "{}", line("smooth"));
        assert_eq!(read_chest(&chest, Some("[\"tuple\",1]")), "[\"tuple\",1]\tbool\tTrue\n");
        assert!(read_chest(&chest, None).contains("Array<f64, 1>"), "all of them");
    }
}

#[test]
fn python_notices_damage() {
    let dir = tempfile::tempdir().unwrap();
    let chest = Chest::builder().compression(Compression::Never).inline_limit(0).open(dir.path().join("c")).unwrap();
    chest.insert("bytes", vec![1u8; 10_000]).unwrap();
    chest.flush().unwrap();
    let file = chest.file("bytes").unwrap().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let damaged = std::panic::catch_unwind(|| read_chest(&chest, None)).unwrap_err();
    let message = damaged.downcast_ref::<String>().unwrap();
    assert!(message.contains("damaged"), "{message}");
}

#[test]
fn the_pipeline_computes_only_what_depends_on_a_change() {
    const STAGES: [&str; 6] = ["load", "clean", "features", "matrix", "train", "evaluate"];
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("flights.csv");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/flights.csv");
    std::fs::copy(&data, &input).unwrap();
    // The stages that were computed.
    let computed = |options: &[&str]| -> Vec<String> {
        let chest = dir.path().join("chest");
        let paths = ["--input", input.to_str().unwrap(), "--dir", chest.to_str().unwrap()];
        let out = run(&example("pipeline"), &[&paths, options].concat());
        let lines: Vec<serde_json::Value> = out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert!(lines.iter().map(|line| line["stage"].as_str().unwrap()).eq(STAGES), "{out}");
        assert!(
            lines.iter().all(|line| line["bytes"].as_u64() > Some(0) && line["seconds"].as_f64() > Some(0.0)),
            "{out}"
        );
        let off: f64 =
            out.split("predictions are ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap();
        assert!((5.0..30.0).contains(&off), "{out}");
        let is_computed = |line: &&serde_json::Value| line["status"] == "computed";
        lines.iter().filter(is_computed).map(|line| line["stage"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(computed(&[]), STAGES);
    assert_eq!(computed(&[]), [""; 0]);
    assert_eq!(computed(&["--alpha", "50"]), ["train", "evaluate"]);
    assert_eq!(computed(&["--hours", "6"]), ["features", "matrix", "train", "evaluate"]);
    assert_eq!(computed(&[]), [""; 0]);
    // Another flight; then the same data in another file.
    let mut text = std::fs::read_to_string(&input).unwrap();
    let last = text.lines().last().unwrap().to_owned();
    text.push_str(&last);
    text.push('\n');
    std::fs::write(&input, &text).unwrap();
    assert_eq!(computed(&[]), STAGES);
    std::fs::copy(&data, &input).unwrap();
    assert_eq!(computed(&[]), [""; 0]);
}
