use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::*;

mod history;
mod simulated;

fn residents(policy: impl Policy) -> Residents {
    Residents::new(Allowance::Bytes(1000), Box::new(policy))
}

fn insert(residents: &mut Residents, name: &str, size: u64, version: Option<i64>) {
    residents.insert(Key::from(name), Arc::new(name.to_owned()), size, version);
}

/// The order in which everything would be spilled.
fn order(mut residents: Residents) -> String {
    let mut out = String::new();
    while let Some(victim) = residents.victim(|_| false) {
        residents.remove(&victim.key);
        out.push_str(&victim.key.as_text().unwrap());
    }
    assert_eq!(residents.used(), 0);
    out
}

/// Four values, sizes 30, 10, 40, 20; then `b` is used three times and `a` once.
fn used(policy: impl Policy) -> Residents {
    let mut residents = residents(policy);
    for (name, size) in [("a", 30), ("b", 10), ("c", 40), ("d", 20)] {
        insert(&mut residents, name, size, Some(1));
    }
    for name in ["b", "b", "b", "a"] {
        residents.touch(&Key::from(name));
    }
    residents
}

#[test]
fn how_much_a_share_of_the_memory_is_counts_when_it_matters() {
    #[derive(Debug)]
    struct Heard(Arc<Mutex<Vec<u64>>>);
    impl Policy for Heard {
        fn rank(&self, _usage: &Usage) -> Rank {
            Rank(0.0, 0.0)
        }

        fn set_budget(&self, bytes: u64) {
            self.0.lock().unwrap().push(bytes);
        }
    }
    let heard = Arc::new(Mutex::new(Vec::new()));
    let mut residents = Residents::new(Allowance::Share(0.5), Box::new(Heard(heard.clone())));
    assert!(residents.has_room(16 << 20));
    assert_eq!(residents.budget, 16 << 20);
    residents.take(16 << 20);
    // No machine that runs this has less than 40 MiB.
    assert!(residents.has_room(4 << 20));
    assert_eq!(residents.budget, Allowance::Share(0.5).bytes());
    assert_eq!(residents.given_budget(), residents.budget);
    assert_eq!(*heard.lock().unwrap(), [16 << 20, residents.budget]);

    let mut fixed = Residents::new(Allowance::Bytes(16 << 20), Box::new(Lru));
    assert!(fixed.has_room(16 << 20) && !fixed.has_room((16 << 20) + 1));
}

#[test]
fn policies_differ() {
    assert_eq!(order(used(Lru)), "cdba");
    assert_eq!(order(used(Mru)), "abdc");
    assert_eq!(order(used(Lfu)), "cdab");
    assert_eq!(order(used(Largest)), "cadb");
    let mut random: Vec<char> = order(used(Random)).chars().collect();
    random.sort_unstable();
    assert_eq!(random, ['a', 'b', 'c', 'd']);
}

#[test]
fn all_are_found_while_others_come_and_go() {
    let mut residents = residents(Lru);
    let mut model = std::collections::HashMap::new();
    let mut bits = 1u64;
    for version in 1..20_000 {
        bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let name = ((bits >> 40) % 1000).to_string();
        if bits >> 63 == 0 {
            insert(&mut residents, &name, 1, Some(version));
            model.insert(name, version);
        } else {
            assert_eq!(residents.remove(&Key::from(name.as_str())).is_some(), model.remove(&name).is_some());
        }
        if version % 1000 == 0 {
            for name in (0..1000).map(|i| i.to_string()) {
                let found = residents.find(&Key::from(name.as_str()), Resident::version).flatten();
                assert_eq!(found, model.get(&name).copied());
            }
            assert_eq!(residents.len(), model.len());
        }
    }
}

#[test]
fn of_one_rank_the_older_leaves_first_also_where_its_place_was_another_s() {
    #[derive(Debug)]
    struct Same;
    impl Policy for Same {
        fn rank(&self, _usage: &Usage) -> Rank {
            Rank(0.0, 0.0)
        }
    }
    let mut residents = residents(Same);
    insert(&mut residents, "x", 10, Some(1));
    insert(&mut residents, "b", 10, Some(1));
    residents.remove(&Key::from("x"));
    insert(&mut residents, "c", 10, None);
    insert(&mut residents, "d", 10, Some(1));
    let (c, edition) = (Key::from("c"), residents.edition(&Key::from("c")).unwrap());
    residents.mark_clean(&c, edition, residents.came(edition).unwrap_or(0), 2, None);
    for hint in [Some(Hint::Pin), None] {
        residents.set_hint(&c, hint);
    }
    assert_eq!(order(residents), "bcd");
}

#[test]
fn a_resident_and_its_key_are_one_line_of_the_cache() {
    assert_eq!(front::ENTRY, 64);
}

/// A reader finds a value.
fn hit(front: &Front, name: &str) {
    front.note(front.find(&Key::from(name), |resident| resident.edition).unwrap());
}

#[test]
fn hits_are_uses_in_the_order_in_which_they_were_noted() {
    for (policy, expected) in [(Box::new(Lru) as Box<dyn Policy>, "cdba"), (Box::new(Lfu), "cdab")] {
        let mut residents = Residents::new(Allowance::Bytes(1000), policy);
        for name in ["a", "b", "c", "d"] {
            insert(&mut residents, name, 10, Some(1));
        }
        let front = residents.front();
        ["b", "b", "b", "a"].iter().for_each(|name| hit(&front, name));
        assert_eq!((residents.count_hits(), residents.count_hits()), (4, 0));
        assert_eq!(order(residents), expected);
    }
}

#[test]
fn a_hit_of_a_value_that_was_replaced_since_is_no_use_of_the_new_one() {
    let mut residents = residents(Lru);
    insert(&mut residents, "a", 10, Some(1));
    insert(&mut residents, "b", 10, Some(1));
    hit(&residents.front(), "a");
    insert(&mut residents, "a", 10, Some(2));
    insert(&mut residents, "b", 10, Some(2));
    assert_eq!(residents.count_hits(), 1);
    assert_eq!(order(residents), "ab");
}

#[test]
fn an_edition_finds_nothing_of_the_one_that_took_its_place() {
    let mut residents = residents(Lru);
    let (a, b) = (Key::from("a"), Key::from("b"));
    let first = residents.insert(a.clone(), Arc::new(1u8), 1, None);
    residents.remove(&a);
    let second = residents.insert(b.clone(), Arc::new(2u8), 2, None);
    assert!(first != second && residents.dirty_edition(first).is_none());
    assert_eq!(residents.dirty_edition(second), Some((b, 2)));
    residents.mark_clean(&a, first, residents.came(first).unwrap_or(0), 7, None);
    assert_eq!((residents.len(), residents.dirty_len()), (1, 1));
}

#[test]
fn what_a_reader_has_taken_is_not_spilled() {
    let mut residents = residents(Lru);
    insert(&mut residents, "a", 10, Some(1));
    let key = Key::from("a");
    let taken = residents.front().find(&key, |resident| resident.value().clone()).unwrap();
    assert!(!residents.spill(&key) && residents.victim(|_| false).is_none());
    drop(taken);
    assert!(residents.spill(&key) && residents.front().find(&key, |_| ()).is_none());
    assert_eq!((residents.gone.len(), residents.used()), (1, 0));
}

#[test]
fn of_equally_cold_values_the_largest_goes_first() {
    largest_of_the_coldest_first(Coldest);
    largest_of_the_coldest_first(Adaptive::default());
}

fn largest_of_the_coldest_first(policy: impl Policy) {
    let mut residents = residents(policy);
    for i in 0..100 {
        insert(&mut residents, &format!("{i} "), 5 + i % 7, Some(1));
    }
    // The epoch of the last inserts is over before the touches begin.
    for _ in 0..30 {
        residents.touch(&Key::from("0 "));
    }
    for i in 0..50 {
        residents.touch(&Key::from(format!("{i} ")));
    }
    let first = residents.victim(|_| false).unwrap().key.as_text().unwrap();
    let index: u64 = first.trim().parse().unwrap();
    assert!(index >= 50, "a value that was used lately is not first: {first}");
    let last: Vec<_> = order(residents).split_whitespace().map(|n| n.parse::<u64>().unwrap()).collect();
    assert!(last[..50].iter().all(|&n| n >= 50) && last[50..].iter().all(|&n| n < 50));
}

#[test]
fn clean_before_dirty_and_never_pinned() {
    let mut residents = residents(Lru);
    insert(&mut residents, "dirty", 10, None);
    insert(&mut residents, "clean", 10, Some(1));
    insert(&mut residents, "pinned", 10, Some(1));
    let pin = residents.find(&Key::from("pinned"), |resident| resident.value().clone()).unwrap();
    let victim = residents.victim(|_| false).unwrap();
    assert_eq!((victim.key.as_text().unwrap().as_str(), victim.is_dirty), ("clean", false));
    let victim = residents.victim(|key| *key == Key::from("clean")).unwrap();
    assert_eq!((victim.key.as_text().unwrap().as_str(), victim.is_dirty), ("dirty", true));
    assert_eq!(residents.pinned(), (1, 10));
    drop(pin);
    assert_eq!(residents.pinned(), (0, 0));
}

#[test]
fn a_published_value_becomes_clean_unless_it_was_replaced() {
    let mut residents = residents(Lru);
    let key = Key::from("k");
    let edition = residents.insert(key.clone(), Arc::new(1u8), 1, None);
    let newer = residents.insert(key.clone(), Arc::new(2u8), 2, None);
    residents.mark_clean(&key, edition, residents.came(edition).unwrap_or(0), 7, None);
    assert_eq!(residents.dirty_len(), 1);
    residents.mark_clean(&key, newer, residents.came(newer).unwrap_or(0), 8, None);
    assert_eq!((residents.dirty_len(), residents.find(&key, Resident::version).unwrap()), (0, Some(8)));
    assert_eq!((residents.used(), residents.peak()), (2, 2));
}

#[test]
fn held_values_count_until_they_are_released() {
    let mut residents = residents(Lru);
    let key = Key::from("big");
    let value: Arc<dyn AnyValue> = Arc::new(vec![0u8; 9]);
    residents.hold(key.clone(), &value, 5000, 3);
    assert_eq!(residents.used(), 5000);
    assert!(residents.held(&key).is_some());
    drop(value);
    residents.forget_released();
    assert_eq!(residents.used(), 0);
    assert!(residents.held(&key).is_none());
}

#[test]
fn a_policy_that_changes_its_mind_ranks_all_residents_anew() {
    #[derive(Debug, Default)]
    struct Turncoat(AtomicBool);
    impl Policy for Turncoat {
        fn rank(&self, usage: &Usage) -> Rank {
            if self.0.load(Ordering::Relaxed) { Mru.rank(usage) } else { Lru.rank(usage) }
        }
        fn observe(&self, event: Event, usage: &Usage) -> bool {
            let turns = event == Event::Hit && usage.uses == 3;
            if turns {
                self.0.store(true, Ordering::Relaxed);
            }
            turns
        }
    }
    let mut residents = residents(Turncoat::default());
    for (name, version) in [("a", Some(1)), ("b", None), ("c", Some(1)), ("d", None)] {
        insert(&mut residents, name, 1, version);
    }
    let first = |residents: &mut Residents| residents.victim(|_| false).unwrap().key;
    assert_eq!(first(&mut residents), Key::from("a"));
    (0..2).for_each(|_| residents.touch(&Key::from("b")));
    assert_eq!(first(&mut residents), Key::from("c"));
    assert_eq!(order(residents), "cabd");
}

#[test]
fn policies_hear_what_happens_and_the_budget() {
    #[derive(Clone, Debug, Default)]
    struct Ears(Arc<Mutex<Vec<String>>>);
    impl Policy for Ears {
        fn rank(&self, usage: &Usage) -> Rank {
            Lru.rank(usage)
        }
        fn observe(&self, event: Event, usage: &Usage) -> bool {
            self.0.lock().unwrap().push(format!("{event:?} {} {}", usage.size, usage.uses));
            panic!("and harms nobody");
        }
        fn set_budget(&self, bytes: u64) {
            self.0.lock().unwrap().push(bytes.to_string());
        }
    }
    let ears = Ears::default();
    let mut residents = residents(ears.clone());
    let key = Key::from("a");
    insert(&mut residents, "a", 7, Some(1));
    residents.touch(&key);
    assert!(residents.spill(&key));
    residents.insert_loaded(key.clone(), Arc::new(0u8), 7, 1, 0.5);
    insert(&mut residents, "a", 8, None);
    residents.remove(&key);
    residents.set_budget(5);
    let heard = ears.0.lock().unwrap_or_else(PoisonError::into_inner).join(", ");
    assert_eq!(
        heard,
        "1000, Inserted 7 1, Hit 7 2, Spilled 7 2, Loaded { seconds: 0.5 } 7 1, Removed 7 1, Inserted 8 2, Removed 8 2, 5"
    );
}
