//! What is known of uses and costs.

use crate::memory::history::{HALF_LIFE, History};

#[test]
fn warmth_survives_a_spill_and_halves_with_time() {
    let mut history = History::default();
    let mut usage = history.begin(1, 100, None, 10);
    (0..3).for_each(|_| history.note(&mut usage, 1_000_000));
    assert!((usage.warmth - 4.0).abs() < 0.01 && usage.uses == 4, "{usage:?}");
    history.end(&usage, 9);
    let mut other = history.begin(2, 100, None, 10);
    for _ in 0..HALF_LIFE as usize * 10 {
        history.note(&mut other, 10);
    }
    let usage = history.begin(1, 100, None, 10);
    assert!((usage.warmth - 3.0).abs() < 0.1 && usage.uses == 1, "{usage:?}");
}

#[test]
fn a_value_that_takes_longer_than_others_costs_more() {
    let mut history = History::default();
    for key in 0..50 {
        history.begin(key, 1 << 20, Some(0.5), 1);
    }
    let usual = history.begin(50, 1 << 20, Some(0.5), 1);
    let unknown = history.begin(51, 1 << 20, None, 1);
    assert!((usual.cost / unknown.cost - 1.0).abs() < 0.01, "{usual:?} {unknown:?}");
    let mut slow = history.begin(52, 1 << 20, Some(5.0), 1);
    for _ in 0..5 {
        history.end(&slow, 1);
        (0..50).for_each(|key| _ = history.begin(key, 1 << 20, Some(0.5), 1));
        slow = history.begin(52, 1 << 20, Some(5.0), 1);
    }
    assert!(slow.cost > 4.0 * usual.cost, "{slow:?}");
    history.end(&slow, 1);
    assert_eq!(history.begin(52, 1 << 20, None, 1).cost, slow.cost);
}

#[test]
fn what_was_spilled_long_ago_is_forgotten() {
    let mut history = History::default();
    for key in 0..3000 {
        let usage = history.begin(key, 1, None, 5000);
        history.end(&usage, 5);
    }
    assert_eq!(history.begin(3000 - 1025, 1, None, 5000).warmth, 1.0);
    assert!(history.begin(2999, 1, None, 5000).warmth > 1.9);
}

#[test]
fn an_epoch_is_a_quarter_of_a_turn() {
    let mut history = History::default();
    let mut usage = history.begin(1, 1, None, 100);
    let began = usage.epoch;
    (0..100).for_each(|_| history.note(&mut usage, 100));
    assert!((4..=5).contains(&(usage.epoch - began)), "{usage:?}");
}
