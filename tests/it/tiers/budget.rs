use std::sync::Arc;

use icechest::{Budget, Chest, ErrorKind, Largest, Lfu, Lru, Mru, Policy, Random};

use crate::helpers::dir;

/// A value of `kib` KiB, a little more in memory.
fn block(kib: usize) -> Vec<u8> {
    vec![kib as u8; kib << 10]
}

/// Which of the keys are in memory.
fn resident(chest: &Chest, keys: &str) -> String {
    keys.chars().filter(|&key| chest.info(key).unwrap().is_resident).collect()
}

#[test]
fn a_budget_is_bytes_or_text_or_a_share() {
    let budget = |budget: Budget| Chest::builder().budget(budget).temporary().unwrap().stats().unwrap().budget;
    assert_eq!(budget(4096.into()), 4096);
    assert_eq!(budget("1.5 MiB".into()), 3 << 19);
    let all = budget(1.0.into());
    assert!(all > 1 << 26);
    assert!(budget(0.25.into()).abs_diff(all / 4) < 2 && budget("25%".into()).abs_diff(all / 4) < 2);
    assert!(Chest::temporary().unwrap().stats().unwrap().budget.abs_diff(all / 2) < 2);
    for wrong in ["lots", "-1", "3 parsecs"] {
        let error = Chest::builder().budget(wrong).temporary().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(wrong), "{error}");
    }
    let chest = Chest::temporary().unwrap();
    assert_eq!(chest.set_budget("much").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(chest.set_budget(1.5).unwrap_err().kind(), ErrorKind::Invalid);
}

/// A control group with a limit, below that of this process.
#[cfg(target_os = "linux")]
struct Group(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl Group {
    /// None where this process may not make one.
    fn of(limit: u64) -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let versions =
            [(":memory:/", "/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("0::/", "/sys/fs/cgroup", "memory.max")];
        versions.into_iter().find_map(|(mark, root, file)| {
            let (_, own) = own.lines().find_map(|line| line.split_once(mark))?;
            let group = Self(std::path::Path::new(root).join(own).join(format!("icechest-{}", std::process::id())));
            std::fs::create_dir(&group.0).ok()?;
            std::fs::write(group.0.join(file), limit.to_string()).ok().map(|()| group)
        })
    }
}

#[cfg(target_os = "linux")]
impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_share_is_one_of_what_the_control_group_allows() {
    const WHAT: &str = "ICECHEST_TEST_GROUP";
    const LIMIT: u64 = 256 << 20;
    if std::env::var_os(WHAT).is_some() {
        assert_eq!(Chest::temporary().unwrap().stats().unwrap().budget, LIMIT / 2);
        return;
    }
    let Some(group) = Group::of(LIMIT) else { return println!("no control group can be made here") };
    let status = std::process::Command::new("sh")
        .args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#])
        .arg(&group.0)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "tiers::budget::a_share_is_one_of_what_the_control_group_allows", "--nocapture"])
        .env(WHAT, "1")
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn memory_stays_within_the_budget_and_nothing_is_forgotten() {
    let chest = Chest::builder().budget(100 << 10).temporary().unwrap();
    for i in 0..100 {
        chest.insert(i, block(10)).unwrap();
        assert!(chest.stats().unwrap().resident_bytes <= 100 << 10);
    }
    for i in 0..100 {
        assert_eq!(*chest.get::<Vec<u8>>(i).unwrap(), block(10));
        assert!(chest.stats().unwrap().resident_bytes <= 100 << 10);
    }
    let stats = chest.stats().unwrap();
    assert_eq!(stats.values, 100);
    assert!(stats.peak_bytes <= 100 << 10, "{stats}");
    assert!(stats.spills >= 90 && stats.loads >= 90, "{stats}");
}

#[test]
fn a_value_larger_than_the_budget_goes_to_disk_at_once() {
    let chest = Chest::builder().budget(64 << 10).temporary().unwrap();
    chest.insert("small", block(20)).unwrap();
    chest.insert("large", block(100)).unwrap();
    let info = chest.info("large").unwrap();
    assert!(!info.is_resident && !info.is_dirty);
    assert!(chest.info("small").unwrap().is_resident, "nothing had to leave for it");
    assert!(chest.stats().unwrap().peak_bytes < 64 << 10);
    assert_eq!(*chest.get::<Vec<u8>>("large").unwrap(), block(100));
    assert!(!chest.info("large").unwrap().is_resident);
    chest.insert("large", block(1)).unwrap();
    assert_eq!(*chest.get::<Vec<u8>>("large").unwrap(), block(1));
}

#[test]
fn a_value_that_is_held_is_not_loaded_twice() {
    let dir = dir();
    let chest = Chest::builder().budget(64 << 10).open(dir.path()).unwrap();
    for kib in [10, 100] {
        chest.insert("k", block(kib)).unwrap();
        chest.flush().unwrap();
        chest.set_budget(0).unwrap();
        let held = chest.get::<Vec<u8>>("k").unwrap();
        chest.set_budget(64 << 10).unwrap();
        let loads = chest.stats().unwrap().loads;
        assert!(Arc::ptr_eq(&held, &chest.get("k").unwrap()), "{kib}");
        chest.set_budget(0).unwrap();
        assert!(Arc::ptr_eq(&held, &chest.get("k").unwrap()), "{kib}");
        let stats = chest.stats().unwrap();
        assert_eq!(stats.loads, loads);
        assert_eq!(stats.pinned, 1);
        assert!(stats.pinned_bytes > (kib as u64) << 10 && stats.resident_bytes >= stats.pinned_bytes);
        drop(held);
        chest.set_budget(64 << 10).unwrap();
        chest.get::<Vec<u8>>("k").unwrap();
        assert_eq!(chest.stats().unwrap().pinned_bytes, 0);
    }
}

#[test]
fn the_chest_shares_what_it_was_given() {
    let chest = Chest::temporary().unwrap();
    let mine = Arc::new(block(1));
    chest.insert("k", mine.clone()).unwrap();
    assert!(Arc::ptr_eq(&mine, &chest.get("k").unwrap()));
    let oversize = Chest::builder().budget(0).temporary().unwrap();
    oversize.insert("k", mine.clone()).unwrap();
    assert!(Arc::ptr_eq(&mine, &oversize.get("k").unwrap()), "held by this test, so not loaded");
}

#[test]
fn clean_values_are_spilled_without_writing() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    for i in 0..20 {
        chest.insert(i, block(1)).unwrap();
    }
    chest.flush().unwrap();
    let before = chest.stats().unwrap();
    assert_eq!((before.published, before.dirty, before.resident), (20, 0, 20));
    chest.set_budget(0).unwrap();
    let after = chest.stats().unwrap();
    assert_eq!((after.published, after.resident, after.spills), (20, 0, 20));
    for i in 0..20 {
        chest.get::<Vec<u8>>(i).unwrap();
    }
    assert_eq!(chest.stats().unwrap().published, 20);
}

#[test]
fn a_temporary_chest_writes_only_when_room_is_needed() {
    let chest = Chest::builder().budget(100 << 10).temporary().unwrap();
    for i in 0..9 {
        chest.insert(i, block(10)).unwrap();
    }
    assert_eq!(chest.stats().unwrap().published, 0);
    chest.insert(9, block(20)).unwrap();
    assert!(chest.stats().unwrap().published > 0);
}

#[test]
fn a_named_chest_writes_behind() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    chest.insert("k", block(1)).unwrap();
    let other = Chest::open(dir.path()).unwrap();
    // Nobody flushes.
    while other.find::<Vec<u8>>("k").unwrap().is_none() {
        std::thread::yield_now();
    }
}

/// Which of `a` to `d` stay when room is needed: `a` is large, `b` is used often, `c` least often and longest ago.
fn stays(policy: impl Policy) -> String {
    let chest = Chest::builder().budget(100 << 10).policy(policy).temporary().unwrap();
    chest.insert('c', block(10)).unwrap();
    chest.insert('a', block(40)).unwrap();
    chest.insert('b', block(10)).unwrap();
    chest.insert('d', block(10)).unwrap();
    for key in "abbbbaabdad".chars() {
        chest.get::<Vec<u8>>(key).unwrap();
    }
    // All are clean, so that nothing but the policy decides.
    chest.flush().unwrap();
    chest.set_budget(75 << 10).unwrap();
    assert_eq!(resident(&chest, "abcd"), "abcd");
    chest.set_budget(65 << 10).unwrap();
    resident(&chest, "abcd")
}

#[test]
fn policies_differ_in_what_they_keep() {
    assert_eq!(stays(Largest), "bcd");
    assert_eq!(stays(Lru), "abd");
    assert_eq!(stays(Lfu), "abd");
    assert_eq!(stays(Mru), "abc");
    assert!(stays(Random).len() < 4);
}

#[test]
fn recency_counts_on_hits() {
    let chest = Chest::builder().budget(35 << 10).policy(Lru).temporary().unwrap();
    for key in "abc".chars() {
        chest.insert(key, block(10)).unwrap();
    }
    chest.get::<Vec<u8>>('a').unwrap();
    chest.insert('d', block(10)).unwrap();
    assert!(resident(&chest, "abcd").contains('a'));
    assert!(!resident(&chest, "abcd").contains('b'));
}

#[test]
fn frequency_counts_on_hits() {
    let chest = Chest::builder().budget(35 << 10).policy(Lfu).temporary().unwrap();
    for key in "abc".chars() {
        chest.insert(key, block(10)).unwrap();
    }
    for key in "aabbc".chars() {
        chest.get::<Vec<u8>>(key).unwrap();
    }
    chest.flush().unwrap();
    chest.set_budget(25 << 10).unwrap();
    assert_eq!(resident(&chest, "abc"), "ab");
}

#[test]
fn a_policy_of_the_users_own_decides() {
    #[derive(Debug)]
    struct Smallest;
    impl Policy for Smallest {
        fn rank(&self, usage: &icechest::Usage) -> icechest::Rank {
            icechest::Rank(usage.size as f64, 0.0)
        }
    }
    assert_eq!(stays(Smallest).len(), 3);
    assert!(stays(Smallest).contains('a'));
}

#[test]
fn the_budget_changes_at_run_time() {
    let chest = Chest::builder().budget("1MiB").temporary().unwrap();
    for i in 0..50 {
        chest.insert(i, block(10)).unwrap();
    }
    assert_eq!(chest.stats().unwrap().resident, 50);
    chest.set_budget("105KiB").unwrap();
    let stats = chest.stats().unwrap();
    assert!(stats.resident_bytes <= 105 << 10 && stats.resident > 0 && stats.budget == 105 << 10, "{stats}");
    chest.set_budget(0).unwrap();
    assert_eq!(chest.stats().unwrap().resident_bytes, 0);
    chest.set_budget("1MiB").unwrap();
    assert_eq!(chest.prefetch::<Vec<u8>, _>(0..50).unwrap().wait().unwrap(), 50);
    assert_eq!(chest.stats().unwrap().resident, 50);
}

#[test]
fn pinned_values_stay_and_count() {
    let chest = Chest::builder().budget(50 << 10).temporary().unwrap();
    chest.insert("pinned", block(40)).unwrap();
    let pin = chest.get::<Vec<u8>>("pinned").unwrap();
    for i in 0..10 {
        chest.insert(i, block(20)).unwrap();
    }
    assert!(chest.info("pinned").unwrap().is_resident);
    assert!(Arc::ptr_eq(&pin, &chest.get("pinned").unwrap()));
    // The pin leaves no room for another.
    assert!(chest.stats().unwrap().resident_bytes <= 62 << 10);
    drop(pin);
    chest.insert("another", block(40)).unwrap();
    assert!(chest.stats().unwrap().resident_bytes <= 50 << 10);
}

#[test]
fn a_replaced_value_stays_with_its_holder() {
    let chest = Chest::temporary().unwrap();
    chest.insert("k", vec![1]).unwrap();
    let old = chest.get::<Vec<i32>>("k").unwrap();
    chest.insert("k", vec![2]).unwrap();
    chest.update("k", |value: &mut Vec<i32>| value.push(3)).unwrap();
    assert_eq!((&**old, &**chest.get::<Vec<i32>>("k").unwrap()), (&[1][..], &[2, 3][..]));
    chest.remove("k").unwrap();
    assert_eq!(*old, [1]);
}

#[test]
fn an_update_changes_what_is_cold_or_resident() {
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    chest.insert("k", vec![0u64]).unwrap();
    for i in 1..20 {
        match i % 4 {
            0 => chest.set_budget(0).unwrap(),
            1 => chest.set_budget("1MiB").unwrap(),
            2 => chest.flush().unwrap(),
            _ => {}
        }
        let len = chest.update("k", |list: &mut Vec<u64>| {
            list.push(i);
            list.len()
        });
        assert_eq!(len.unwrap() as u64, i + 1);
    }
    let error = chest.update("nobody", |_: &mut u8| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = chest.update("k", |_: &mut u8| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongType);
    drop(chest);
    assert_eq!(*Chest::open(dir.path()).unwrap().get::<Vec<u64>>("k").unwrap(), (0..20).collect::<Vec<_>>());
}
