//! Stored results: where they come from, how long they hold, how they are listed, moved and lost.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use icechest::{CallEvent, Chest, Compression, ErrorKind, Key, Result, Stage, Status, Stored};

use super::ok;
use crate::helpers::dir;

/// Runs a stage, and tells where the result came from.
fn status(stage: &Stage, x: u64) -> Status {
    let run = stage.arg("x", x).run_with_status(|| vec![x; 1000]).unwrap();
    assert_eq!(*run.value, vec![x; 1000]);
    assert!(run.bytes >= 8000);
    run.status
}

#[test]
fn a_call_runs_once() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    let stage = chest.stage("f");
    assert_eq!(
        [status(&stage, 1), status(&stage, 1), status(&stage, 2)],
        [Status::Computed, Status::Memory, Status::Computed]
    );
    let stats = stage.stats();
    assert_eq!((stats.computed, stats.memory, stats.disk, stats.joined), (2, 1, 0, 0));
    drop((stage, chest));

    let later = Chest::open(dir.path()).unwrap();
    let stage = later.stage("f");
    assert_eq!([status(&stage, 1), status(&stage, 1)], [Status::Disk, Status::Memory]);
    assert_eq!(later.stage_stats().unwrap()["f"].disk, 1);
}

#[test]
fn other_processes_see_a_result_when_the_call_returns() {
    let dir = dir();
    let (ours, theirs) = (Chest::open(dir.path()).unwrap(), Chest::open(dir.path()).unwrap());
    assert_eq!(status(&ours.stage("f"), 1), Status::Computed);
    assert_eq!(status(&theirs.stage("f"), 1), Status::Disk);
}

#[test]
fn errors_and_panics_are_not_stored() {
    let chest = Chest::temporary().unwrap();
    let stage = chest.stage("f");
    let failed = stage.arg("x", 1).try_run(|| -> Result<u64, Box<dyn std::error::Error>> { Err("no".into()) });
    assert_eq!(failed.unwrap_err().to_string(), "no");
    let panicked = std::panic::catch_unwind(|| stage.arg("x", 1).run(|| -> u64 { panic!("no") }));
    assert!(panicked.is_err());
    assert!(chest.is_empty().unwrap());
    assert_eq!(*stage.arg("x", 1).run(|| 5u64).unwrap(), 5);

    // As values they are.
    let text = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    for _ in 0..2 {
        assert!(stage.arg("text", "many").run(|| text("many")).unwrap().is_err());
    }
    assert_eq!(stage.stats().memory, 1);
}

#[test]
fn lookup_put_and_forget_work_without_calling() {
    let chest = Chest::temporary().unwrap();
    let call = || chest.stage("f").arg("x", 1);
    assert!(call().lookup::<f64>().unwrap().is_none());
    call().put(2.5).unwrap();
    assert!(call().contains::<f64>().unwrap());
    assert_eq!(call().lookup::<f64>().unwrap().as_deref(), Some(&2.5));
    assert_eq!(*chest.get::<f64>(call().key::<f64>().unwrap()).unwrap(), 2.5);
    assert!(call().forget::<f64>().unwrap());
    assert!(!call().forget::<f64>().unwrap());
    assert!(!call().contains::<f64>().unwrap());
}

#[test]
fn force_disable_and_expire() {
    let chest = Chest::temporary().unwrap();
    let stage = chest.stage("f");
    assert_eq!(*stage.call().run(|| 1).unwrap(), 1);
    assert_eq!(*stage.clone().force(true).call().run(|| 2).unwrap(), 2);
    assert_eq!(*stage.call().run(|| 3).unwrap(), 2);
    assert_eq!(*stage.clone().disable(true).call().run(|| 4).unwrap(), 4);
    assert_eq!(*stage.call().run(|| 5).unwrap(), 2);

    let young = stage.clone().expire(Duration::from_secs(3600));
    assert_eq!(*young.call().run(|| 6).unwrap(), 2);
    std::thread::sleep(Duration::from_millis(15));
    let old = stage.clone().expire(Duration::from_millis(10));
    assert_eq!(*old.call().run(|| 7).unwrap(), 7);
    assert_eq!(*stage.call().run(|| 8).unwrap(), 7);
}

#[test]
fn expiry_counts_from_the_computation_also_in_a_later_run() {
    let dir = dir();
    let stage = |chest: &Chest| chest.stage("f").expire(Duration::from_millis(50));
    let chest = Chest::open(dir.path()).unwrap();
    chest.stage("f").call().run(|| 1).unwrap();
    drop(chest);
    std::thread::sleep(Duration::from_millis(60));
    let chest = Chest::open(dir.path()).unwrap();
    assert_eq!(*chest.stage("f").call().run(|| 2).unwrap(), 1);
    assert_eq!(*stage(&chest).call().run(|| 3).unwrap(), 3);
}

#[test]
fn a_check_of_the_users_own_decides() {
    let chest = Chest::temporary().unwrap();
    let stage = chest.stage("f").validate(|call, value: &u64| call.arguments["x"].to::<u64>().unwrap() == *value);
    stage.arg("x", 1).put(1u64).unwrap();
    stage.arg("x", 2).put(1u64).unwrap();
    assert_eq!(*stage.arg("x", 1).run(|| 7u64).unwrap(), 1);
    assert_eq!(*stage.arg("x", 2).run(|| 7u64).unwrap(), 7);
}

#[test]
fn results_that_are_not_to_be_kept_in_memory_are_read_again() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    let stage = chest.stage("f").keep_memory(false);
    assert_eq!(
        [status(&stage, 1), status(&stage, 1), status(&stage, 1)],
        [Status::Computed, Status::Disk, Status::Disk]
    );
    let stats = chest.stats().unwrap();
    assert_eq!((stats.resident, stats.prefer_disk), (0, 0));
}

#[test]
fn calls_are_listed_with_their_arguments() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    chest.insert("not a call", 1).unwrap();
    let stage = chest.stage("train").version(2).tag("nightly").module("shop");
    stage.arg("rate", 0.1).arg("layers", [64, 32]).run(|| vec![0.5f64; 9]).unwrap();
    chest.stage("other").arg("x", 1).run(|| 1).unwrap();
    let check = |chest: &Chest| {
        let calls = chest.stage("train").calls().unwrap();
        assert_eq!(calls.len(), 1);
        let call = &calls[0];
        assert_eq!((call.stage.as_str(), call.version.as_str(), call.module.as_str()), ("train", "2", "shop"));
        assert_eq!(call.arguments["rate"].to::<f64>().unwrap(), 0.1);
        assert_eq!(call.arguments["layers"].to::<Vec<u32>>().unwrap(), [64, 32]);
        assert_eq!((call.tag.as_deref(), call.type_name.as_str()), (Some("nightly"), "Vec<f64>"));
        assert_eq!(chest.get::<Vec<f64>>(&call.key).unwrap().len(), 9);
        assert!(call.to_string().starts_with("train(layers=[64,32], rate=0.1) -> Vec<f64>"), "{call}");
    };
    check(&chest);
    drop(chest);
    let chest = Chest::open(dir.path()).unwrap();
    check(&chest);
    let chest = Chest::temporary().unwrap();
    chest.stage("train").arg("rate", 0.1).run(|| 1).unwrap();
    assert_eq!(chest.stage("train").calls().unwrap().len(), 1, "also while it is only in memory");
}

#[test]
fn what_is_told_of_calls_survives_the_loss_of_the_catalog() {
    let dir = dir();
    let chest = Chest::builder().inline_limit(0).open(dir.path()).unwrap();
    chest.stage("train").arg("rate", 0.1).run(|| vec![1.5; 100]).unwrap();
    drop(chest);
    for file in ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"] {
        let _ = fs::remove_file(dir.path().join(file));
    }
    assert!(Chest::check(dir.path()).repair(true).run().unwrap().rebuilt.is_some());
    let chest = Chest::open(dir.path()).unwrap();
    assert_eq!(chest.stage("train").calls().unwrap()[0].arguments["rate"], Key::of(&0.1).unwrap());
    let run = chest.stage("train").arg("rate", 0.1).run_with_status(|| vec![0.0; 1]).unwrap();
    assert_eq!(run.status, Status::Disk);
}

#[test]
fn results_are_forgotten_by_tag_by_choice_and_all() {
    let chest = Chest::temporary().unwrap();
    for x in 0..10 {
        let tag = if x % 2 == 0 { "even" } else { "odd" };
        chest.stage("f").tag(tag).arg("x", x).run(|| x).unwrap();
    }
    chest.stage("g").arg("x", 1).run(|| 1).unwrap();
    let stage = chest.stage("f");
    assert_eq!(stage.forget_tagged("even").unwrap(), 5);
    assert_eq!(stage.forget(|call| call.arguments["x"] == Key::from(1)).unwrap(), 1);
    assert_eq!(stage.forget_all().unwrap(), 4);
    assert_eq!(chest.len().unwrap(), 1);
}

#[test]
fn results_move_to_new_keys() {
    let chest = Chest::temporary().unwrap();
    for x in 0..3 {
        chest.stage("f").arg("x", x).run(|| f64::from(x)).unwrap();
    }
    let new = chest.stage("f").version(2).default("seed", 0);
    let moved = new.upgrade::<f64>(|call| call.arguments["x"] != Key::from(2)).unwrap();
    assert_eq!(moved, 2);
    assert_eq!(*new.arg("x", 1).run(|| 9.0).unwrap(), 1.0);
    assert_eq!(*new.arg("x", 2).run(|| 9.0).unwrap(), 9.0);
    assert!(!chest.stage("f").arg("x", 1).contains::<f64>().unwrap());
    assert_eq!(new.upgrade::<f64>(|call| call.version == "2").unwrap(), 0);
}

/// The new key of one is the old key of another.
#[test]
fn results_that_are_in_the_way_of_others_move_first() {
    let chest = Chest::temporary().unwrap();
    let stage = chest.stage("f");
    let results = || [1, 2, 3, 4].map(|x| stage.arg("x", x).lookup::<f64>().unwrap().map(|found| *found));
    for x in 1..=3 {
        stage.arg("x", x).run(|| 10.0 * f64::from(x)).unwrap();
    }
    let change = |by: fn(u8) -> u8| {
        let moved = stage.upgrade::<f64>(|call| {
            let x = call.arguments["x"].to::<u8>().unwrap();
            call.arguments.insert("x".into(), Key::from(by(x)));
            true
        });
        moved.unwrap()
    };
    assert_eq!(change(|x| x + 1), 3);
    assert_eq!(results(), [None, Some(10.0), Some(20.0), Some(30.0)]);
    assert_eq!(change(|x| x - 1), 3);
    assert_eq!(results(), [Some(10.0), Some(20.0), Some(30.0), None]);
    // In a circle, and two of three.
    assert_eq!(change(|x| x % 3 + 1), 3);
    assert_eq!(results(), [Some(30.0), Some(10.0), Some(20.0), None]);
    assert_eq!(change(|x| [0, 2, 1, 3][usize::from(x)]), 2);
    assert_eq!(results(), [Some(10.0), Some(30.0), Some(20.0), None]);
}

/// Events as texts.
fn listen(stage: Stage) -> (Stage, Arc<Mutex<Vec<String>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = events.clone();
    let stage = stage.hook(move |event| {
        let text = match event {
            CallEvent::Hit { status, .. } => format!("hit {status}"),
            CallEvent::Miss { .. } => "miss".to_owned(),
            CallEvent::Damaged { error, .. } => format!("{}", error.kind()),
            CallEvent::Stale { .. } => "stale".to_owned(),
            CallEvent::NotStored { error, .. } => format!("not stored: {}", error.kind()),
            other => format!("{other:?}"),
        };
        log.lock().unwrap().push(text);
    });
    (stage, events)
}

#[test]
fn what_is_too_old_is_told_once() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    let (stage, events) = listen(chest.stage("f").expire(Duration::ZERO));
    assert_eq!([status(&stage, 1), status(&stage, 1)], [Status::Computed; 2]);
    assert_eq!(*events.lock().unwrap(), ["miss", "stale", "miss"]);
}

#[test]
fn a_damaged_result_is_put_aside_and_computed_again() {
    const TEXT: &str = "the text that is stored, as it is";
    for inline_limit in [16 << 10, 0] {
        let dir = dir();
        let open =
            || Chest::builder().inline_limit(inline_limit).compression(Compression::Never).open(dir.path()).unwrap();
        let run = |stage: &Stage| stage.call().run_with_status(|| TEXT).unwrap().status;
        let chest = open();
        run(&chest.stage("f"));
        let file = chest.file(chest.stage("f").call().key::<String>().unwrap()).unwrap();
        assert_eq!(file.is_some(), inline_limit == 0);
        drop(chest);
        let path = file.unwrap_or_else(|| dir.path().join("catalog.sqlite"));
        let mut bytes = fs::read(&path).unwrap();
        let place = bytes.windows(TEXT.len()).position(|window| window == TEXT.as_bytes()).unwrap();
        bytes[place] ^= 0x20;
        fs::write(&path, bytes).unwrap();
        let chest = open();
        let (stage, events) = listen(chest.stage("f"));
        assert_eq!([run(&stage), run(&stage)], [Status::Computed, Status::Memory]);
        assert_eq!(*events.lock().unwrap(), ["damaged", "miss", "hit memory"]);
        assert_eq!(fs::read_dir(dir.path().join("quarantine")).unwrap().count(), 1);
        drop((stage, chest));
        assert!(Chest::check(dir.path()).run().unwrap().is_healthy());
    }
}

#[test]
fn a_missing_file_is_computed_again() {
    let dir = dir();
    let open = || Chest::builder().inline_limit(0).open(dir.path()).unwrap();
    let chest = open();
    status(&chest.stage("f"), 1);
    let file = chest.file(chest.stage("f").arg("x", 1u64).key::<Vec<u64>>().unwrap()).unwrap().unwrap();
    drop(chest);
    fs::remove_file(file).unwrap();
    let chest = open();
    assert_eq!([status(&chest.stage("f"), 1), status(&chest.stage("f"), 1)], [Status::Computed, Status::Memory]);
}

#[test]
fn a_result_that_cannot_be_stored_is_given_all_the_same() {
    #[derive(serde::Serialize, serde::Deserialize, icechest::Plain, Debug)]
    struct Odd {
        #[serde(skip_serializing_if = "Option::is_none")]
        x: Option<u32>,
    }
    let chest = Chest::temporary().unwrap();
    let (stage, events) = listen(chest.stage("f"));
    let run = stage.call().run_with_status(|| Odd { x: None }).unwrap();
    assert_eq!((run.value.x, run.status), (None, Status::Computed));
    assert_eq!(run.not_stored.unwrap().kind(), ErrorKind::Unsupported);
    assert_eq!(*events.lock().unwrap(), ["miss", "not stored: unsupported"]);
    assert_eq!(stage.stats().not_stored, 1);
}

#[test]
fn a_held_result_is_pinned_and_cannot_be_changed_for_others() {
    let chest = Chest::builder().budget("64KiB").temporary().unwrap();
    let stage = chest.stage("f");
    let held = stage.arg("x", 0u64).run(|| vec![0u64; 1000]).unwrap();
    for x in 1..50 {
        status(&stage, x);
    }
    assert!(chest.stats().unwrap().pinned >= 1);
    let again = stage.arg("x", 0u64).run(|| -> Vec<u64> { unreachable!() }).unwrap();
    assert!(Arc::ptr_eq(&held, &again), "one that is held is not loaded twice");
}

#[test]
fn a_chain_of_handles_reads_nothing_that_is_not_needed() {
    let runs = AtomicU32::new(0);
    let pipeline = |chest: &Chest, factor: f64| -> Result<f64> {
        let count = || runs.fetch_add(1, Ordering::Relaxed);
        let load: Stored<Vec<f64>> = chest.stage("load").call().try_run_stored(|| {
            count();
            ok(vec![1.0; 100_000])
        })?;
        let scale = chest.stage("scale").arg("data", &load).arg("factor", factor).try_run_stored(|| {
            count();
            ok(load.get()?.iter().map(|x| x * factor).collect::<Vec<f64>>())
        })?;
        let sum = chest.stage("sum").arg("data", &scale).try_run(|| {
            count();
            ok(scale.get()?.iter().sum::<f64>())
        })?;
        Ok(*sum)
    };
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    assert_eq!(pipeline(&chest, 2.0).unwrap(), 200_000.0);
    assert_eq!(runs.load(Ordering::Relaxed), 3);
    drop(chest);
    let chest = Chest::open(dir.path()).unwrap();
    assert_eq!(pipeline(&chest, 2.0).unwrap(), 200_000.0);
    assert_eq!(runs.load(Ordering::Relaxed), 3);
    assert_eq!(pipeline(&chest, 3.0).unwrap(), 300_000.0);
    assert_eq!(runs.load(Ordering::Relaxed), 5, "only what depends on the factor");
}

#[test]
fn a_handle_that_is_damaged_says_so_and_is_made_again() {
    let dir = dir();
    let open = || Chest::builder().inline_limit(0).open(dir.path()).unwrap();
    let run = |chest: &Chest| chest.stage("f").call().run_stored(|| vec![3u64; 1000]).unwrap();
    let chest = open();
    assert_eq!(run(&chest).status(), Some(Status::Computed));
    let file = chest.file(run(&chest).key().unwrap()).unwrap().unwrap();
    drop(chest);
    let mut bytes = fs::read(&file).unwrap();
    bytes[10] ^= 1;
    fs::write(&file, bytes).unwrap();
    let chest = open();
    let stored = run(&chest);
    assert_eq!((stored.status(), stored.bytes() > 8000), (Some(Status::Disk), true), "it is not read");
    assert_eq!(stored.get().unwrap_err().kind(), ErrorKind::Damaged);
    let stored = run(&chest);
    assert_eq!(stored.status(), Some(Status::Computed));
    assert_eq!(*stored.get().unwrap(), vec![3u64; 1000]);
    assert_eq!(run(&chest).status(), Some(Status::Memory));
}

#[test]
fn time_saved_is_that_of_computing_less_that_of_finding() {
    let chest = Chest::temporary().unwrap();
    let stage = chest.stage("slow");
    for _ in 0..5 {
        stage.call().run(|| std::thread::sleep(Duration::from_millis(20))).unwrap();
    }
    let stats = stage.stats();
    assert!(stats.time_computing >= Duration::from_millis(20), "{stats}");
    assert!(stats.time_saved > Duration::from_millis(60), "{stats}");
}

#[test]
fn a_new_result_in_place_of_an_old_one_is_another_argument() {
    let chest = Chest::temporary().unwrap();
    let run = |value: f64, force: bool| -> f64 {
        let load = chest.stage("load").force(force).call().run_stored(|| value).unwrap();
        *chest.stage("double").arg("x", &load).try_run(|| ok(2.0 * *load.get()?)).unwrap()
    };
    assert_eq!([run(1.0, false), run(2.0, false), run(2.0, true), run(3.0, false)], [2.0, 2.0, 4.0, 4.0]);
    // The same where a check has refused the old one.
    let run = |value: f64, least: f64| -> f64 {
        let load = chest.stage("load checked").validate(move |_, found: &f64| *found >= least);
        let load = load.call().run_stored(|| value).unwrap();
        *chest.stage("double checked").arg("x", &load).try_run(|| ok(2.0 * *load.get()?)).unwrap()
    };
    assert_eq!([run(1.0, 0.0), run(2.0, 0.0), run(2.0, 1.5), run(3.0, 1.5)], [2.0, 2.0, 4.0, 4.0]);
}

#[test]
fn an_input_that_changes_while_the_function_runs_spoils_no_entry() {
    let dir = dir();
    let input = dir.path().join("input");
    fs::write(&input, "old").unwrap();
    let chest = Chest::temporary().unwrap();
    let run = |change: bool| {
        let call = chest.stage("read").path("input", &input);
        call.run_with_status(|| {
            if change {
                fs::write(&input, "new").unwrap();
            }
            fs::read_to_string(&input).unwrap()
        })
    };
    let spoilt = run(true).unwrap();
    assert_eq!((spoilt.value.as_str(), spoilt.not_stored.unwrap().kind()), ("new", ErrorKind::Busy));
    fs::write(&input, "old").unwrap();
    assert_eq!(run(false).unwrap().value.as_str(), "old");
    let again = run(false).unwrap();
    assert_eq!((again.value.as_str(), again.status), ("old", Status::Memory));
}

#[test]
fn results_whose_arguments_are_not_known_stay_where_they_are() {
    let chest = Chest::temporary().unwrap();
    for i in 0..2u8 {
        chest.stage("f").arg("text", vec![i.to_string(); 30_000].concat()).run(|| i).unwrap();
        chest.stage("f").arg("list", vec![i; 40_000]).run(|| i).unwrap();
    }
    let calls = chest.stage("f").calls().unwrap();
    assert_eq!(calls.iter().filter(|call| call.is_cut).count(), 2);
    assert_eq!(chest.stage("f").version(2).upgrade::<u8>(|_| true).unwrap(), 2);
    assert_eq!(chest.len().unwrap(), 4);
    assert!(chest.stats().unwrap().resident_bytes > 60_000, "what is told of a call counts too");
}

#[test]
fn moved_results_are_as_old_as_they_were() {
    let chest = Chest::temporary().unwrap();
    chest.stage("f").arg("x", 1.26).arg("log", 1).run(|| 1u8).unwrap();
    let before = chest.stage("f").calls().unwrap()[0].computed;
    let new = chest.stage("f").version(2).round(icechest::Round::to(0.5)).ignore(["log"]);
    assert_eq!(new.upgrade::<u8>(|_| true).unwrap(), 1);
    assert_eq!(chest.stage("f").calls().unwrap()[0].computed, before);
    assert_eq!(*new.arg("x", 1.3).arg("log", 2).run(|| 9u8).unwrap(), 1);
}

#[test]
fn stages_of_other_modules_keep_their_entries() {
    let chest = Chest::temporary().unwrap();
    chest.stage("f").module("a").arg("x", 1).run(|| 1u8).unwrap();
    chest.stage("f").module("b").arg("x", 1).run(|| 2u8).unwrap();
    assert_eq!(chest.stage("f").module("a").forget_all().unwrap(), 1);
    assert_eq!(*chest.stage("f").module("b").arg("x", 1).run(|| 9u8).unwrap(), 2);
    assert_eq!(chest.stage("f").forget_all().unwrap(), 1);
}

#[test]
fn a_large_result_that_is_held_is_not_loaded_twice() {
    let dir = dir();
    let chest = Chest::builder().budget("64KiB").open(dir.path()).unwrap();
    let run = || chest.stage("f").call().run(|| vec![7u64; 100_000]).unwrap();
    let held = run();
    assert!(Arc::ptr_eq(&held, &run()));
    assert!(chest.stats().unwrap().pinned_bytes >= 800_000);
}

#[test]
fn results_keep_their_modules_when_they_are_upgraded() {
    let chest = Chest::temporary().unwrap();
    let stage = |module: &str| chest.stage("f").module(module);
    for (module, result) in [("one", 1.0), ("other", 2.0)] {
        stage(module).arg("x", 7).run(|| result).unwrap();
    }
    assert_eq!(chest.stage("f").version(2).upgrade::<f64>(|_| true).unwrap(), 2);
    let found = |module: &str| *stage(module).version(2).arg("x", 7).run(|| 0.0).unwrap();
    assert_eq!((found("one"), found("other")), (1.0, 2.0));

    // One that was moved and renamed.
    let moved = chest.stage("f").version(2).upgrade::<f64>(|call| {
        (call.stage, call.module) = ("g".to_owned(), "new".to_owned());
        call.arguments["x"] == Key::from(7) && call.key != stage("other").version(2).arg("x", 7).key::<f64>().unwrap()
    });
    assert_eq!(moved.unwrap(), 1);
    assert_eq!(*chest.stage("g").module("new").version(2).arg("x", 7).run(|| 0.0).unwrap(), 1.0);
    assert_eq!(found("other"), 2.0);
}

#[test]
fn results_that_would_get_one_key_are_not_upgraded() {
    let chest = Chest::temporary().unwrap();
    let stage = chest.stage("f");
    (0..3).for_each(|x| _ = stage.arg("x", x).run(|| x).unwrap());
    let error = stage.upgrade::<i32>(|call| call.arguments.remove("x").is_some()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let onto_the_last = |call: &mut icechest::CallInfo| {
        let x = call.arguments.insert("x".into(), Key::from(2));
        x == Some(Key::from(0))
    };
    assert_eq!(stage.upgrade::<i32>(onto_the_last).unwrap_err().kind(), ErrorKind::Invalid);
    (0..3).for_each(|x| assert_eq!(*stage.arg("x", x).run(|| 9).unwrap(), x));
}

#[test]
fn a_source_that_counts_is_known_and_kept() {
    let chest = Chest::temporary().unwrap();
    chest.stage("f").source("x + 1").arg("x", 1).run(|| 2).unwrap();
    assert_eq!(chest.stage("f").calls().unwrap()[0].source, "x + 1");
    assert_eq!(chest.stage("f").version(2).upgrade::<i32>(|_| true).unwrap(), 1);
    assert_eq!(*chest.stage("f").version(2).source("x + 1").arg("x", 1).run(|| 0).unwrap(), 2);
    assert_eq!(chest.stage("f").version(2).source("1 + x").upgrade::<i32>(|_| true).unwrap(), 1);
    assert_eq!(*chest.stage("f").version(2).source("1 + x").arg("x", 1).run(|| 0).unwrap(), 2);
}

#[test]
fn what_was_made_of_a_result_is_not_made_of_one_that_was_moved_to_its_place() {
    let chest = Chest::temporary().unwrap();
    let load = |x: i32| chest.stage("load").arg("x", x).run_stored(|| vec![x]).unwrap();
    let total = |data: Stored<Vec<i32>>| {
        *chest.stage("total").arg("data", &data).run(|| data.get().unwrap().iter().sum::<i32>()).unwrap()
    };
    assert_eq!([total(load(1)), total(load(2))], [1, 2]);
    let next = |call: &mut icechest::CallInfo| {
        let x: i32 = call.arguments["x"].to().unwrap();
        call.arguments.insert("x".into(), Key::from(x + 1));
        true
    };
    assert_eq!(chest.stage("load").upgrade::<Vec<i32>>(next).unwrap(), 2);
    assert_eq!([total(load(2)), total(load(3))], [1, 2]);
}

#[test]
fn a_result_that_is_not_stored_is_another_argument() {
    #[icechest::stage(chest = chest, ignore(chest, disabled, value), disable = disabled)]
    fn read(chest: &Chest, disabled: bool, value: i32) -> Stored<Vec<i32>> {
        Stored::new(vec![value])
    }
    #[icechest::stage(chest = chest, ignore(chest))]
    fn total(chest: &Chest, data: &Stored<Vec<i32>>) -> i32 {
        data.get().unwrap().iter().sum()
    }
    let chest = Chest::temporary().unwrap();
    assert_eq!(total(&chest, &read(&chest, false, 1)), 1);
    // As if a file had changed, or the disk were full.
    assert_eq!(total(&chest, &read(&chest, true, 2)), 2);
    assert_eq!(total(&chest, &read(&chest, false, 3)), 1);
}
