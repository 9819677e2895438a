//! A chest that many processes make at the same time, some of which are killed while they do.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use icechest::Chest;

use super::child::{Place, Role, Victim, say_ready};
use crate::helpers::dir;

const MAKERS: u64 = 4;

/// Opens the chest as soon as it is told to, and publishes a value.
pub(super) fn make(place: &Place, slot: u64) {
    say_ready();
    while !place.signal().exists() {
        std::hint::spin_loop();
    }
    let chest = Chest::builder().inline_limit(0).open(place.chest()).unwrap();
    chest.insert(slot, vec![slot; 100]).unwrap();
    chest.flush().unwrap();
    println!("made");
    thread::sleep(Duration::from_secs(3600));
}

#[test]
fn many_make_a_chest_at_once() {
    let time = super::seconds_or(80) / 10;
    let began = Instant::now();
    let mut random = fastrand::Rng::new();
    let (mut chests, mut kills) = (0u64, 0u64);
    while began.elapsed() < time {
        kills += make_one(&mut random);
        chests += 1;
    }
    let _ =
        writeln!(std::io::stderr(), "making: {chests} chests by {MAKERS} processes at once, {kills} of them killed");
    assert!(chests > 3 && kills > 0);
}

/// Gives how many makers were killed before they were done.
fn make_one(random: &mut fastrand::Rng) -> u64 {
    let dir = dir();
    let place = Place(dir.path().to_owned());
    let mut makers: Vec<_> = (0..MAKERS).map(|slot| Victim::start(Role::Maker { slot }, &place.0)).collect();
    makers.iter_mut().for_each(Victim::wait_until_ready);
    fs::write(place.signal(), "").unwrap();
    let to_kill = random.u64(0..MAKERS);
    for maker in makers.drain(..to_kill as usize) {
        thread::sleep(Duration::from_micros(random.u64(0..8000)));
        maker.kill();
    }
    makers.iter_mut().for_each(|maker| maker.wait_for("made\n"));
    makers.drain(..).for_each(Victim::kill);
    let chest = Chest::open(place.chest()).unwrap();
    for slot in to_kill..MAKERS {
        assert_eq!(**chest.get::<Vec<u64>>(slot).unwrap(), [slot; 100]);
    }
    let report = Chest::check(place.chest()).run().unwrap();
    assert!(report.is_healthy() && report.orphans.is_empty() && report.foreign.is_empty(), "{report}");
    to_kill
}
