//! Values that are in several places of a tier, or in several tiers: only what a user holds is held.

use std::sync::Arc;

use icechest::Chest;

const BUDGET: u64 = 1 << 20;

fn block(i: u64) -> Vec<u8> {
    vec![i as u8; 200 << 10]
}

fn check(chest: &Chest) {
    let stats = chest.stats().unwrap();
    assert!(stats.resident_bytes <= BUDGET && stats.peak_bytes <= BUDGET + (200 << 10), "{stats}");
    assert_eq!(stats.pinned, 0, "{stats}");
}

#[test]
fn a_value_under_two_keys_is_spilled() {
    let chest = Chest::builder().budget(BUDGET).temporary().unwrap();
    for i in 0..40u64 {
        let value = Arc::new(block(i));
        chest.insert((i, "a"), value.clone()).unwrap();
        chest.insert((i, "b"), value).unwrap();
    }
    check(&chest);
    for i in 0..40u64 {
        assert_eq!(*chest.get::<Vec<u8>>((i, "a")).unwrap(), block(i));
        assert_eq!(*chest.get::<Vec<u8>>((i, "b")).unwrap(), block(i));
    }
    check(&chest);
}

#[test]
fn what_goes_from_chest_to_chest_is_spilled_by_both() {
    let [from, to] = [(), ()].map(|()| Chest::builder().budget(BUDGET).temporary().unwrap());
    from.extend((0..40u64).map(|i| (i, block(i)))).unwrap();
    for entry in from.iter::<Vec<u8>>().unwrap() {
        let (key, value) = entry.unwrap();
        to.insert(key, value).unwrap();
    }
    check(&from);
    check(&to);
    assert_eq!(to.len().unwrap(), 40);
}

#[test]
fn what_a_user_holds_stays_wherever_else_it_is() {
    let [one, other] = [(), ()].map(|()| Chest::builder().budget(BUDGET).temporary().unwrap());
    let value = Arc::new(block(1));
    one.insert("x", value.clone()).unwrap();
    other.insert("x", value.clone()).unwrap();
    for i in 0..20u64 {
        one.insert(i, block(i)).unwrap();
    }
    assert!(one.info("x").unwrap().is_resident);
    assert_eq!(one.stats().unwrap().pinned, 1);
    drop(value);
    assert_eq!(one.stats().unwrap().pinned, 0);
    for i in 0..20u64 {
        one.insert(i, block(i)).unwrap();
    }
    assert!(!one.info("x").unwrap().is_resident && other.info("x").unwrap().is_resident);
}

#[test]
fn the_result_of_a_stage_that_is_stored_again_is_spilled() {
    let chest = Chest::builder().budget(BUDGET).temporary().unwrap();
    for i in 0..40u64 {
        let value = chest.stage("block").arg("i", i).run(|| block(i)).unwrap();
        chest.insert(i, value).unwrap();
    }
    check(&chest);
}

#[cfg(feature = "ndarray")]
#[test]
fn a_mapped_array_under_two_keys_is_spilled() {
    use icechest::StoredArray;
    use ndarray::{Array1, Ix1};

    let dir = crate::helpers::dir();
    let chest = Chest::builder().budget(BUDGET).open(dir.path()).unwrap();
    for i in 0..40 {
        let array = StoredArray::from(Array1::from_elem(25 << 10, f64::from(i)));
        chest.insert((i, "a"), array.clone()).unwrap();
        chest.insert((i, "b"), array).unwrap();
    }
    chest.flush().unwrap();
    check(&chest);
    for i in 0..40 {
        let found = chest.get::<StoredArray<f64, Ix1>>((i, "a")).unwrap();
        chest.insert((i, "c"), (*found).clone()).unwrap();
    }
    chest.flush().unwrap();
    check(&chest);
}

#[test]
fn what_did_not_fit_and_is_another_chests_now_is_held_by_nobody() {
    let dir = crate::helpers::dir();
    let large = || vec![7_u8; 3 << 20];
    Chest::open(dir.path()).unwrap().insert("large", large()).unwrap();
    let small = Chest::builder().budget(BUDGET).open(dir.path()).unwrap();
    let other = Chest::temporary().unwrap();
    other.insert("large", small.get::<Vec<u8>>("large").unwrap()).unwrap();
    small.insert("x", block(1)).unwrap();
    let stats = small.stats().unwrap();
    assert!(stats.resident_bytes <= BUDGET && stats.pinned == 0, "{stats}");
    assert!(small.info("x").unwrap().is_resident);
    assert_eq!(*other.get::<Vec<u8>>("large").unwrap(), large());
}

#[cfg(feature = "ndarray")]
#[test]
fn who_has_a_clone_of_an_array_under_two_keys_holds_it() {
    use icechest::StoredArray;
    use ndarray::Array1;

    let chest = Chest::builder().budget(BUDGET).temporary().unwrap();
    let array = Arc::new(StoredArray::from(Array1::from_elem(25 << 10, 1.0)));
    chest.insert("a", array.clone()).unwrap();
    chest.insert("b", array.clone()).unwrap();
    let clone = (*array).clone();
    drop(array);
    assert_eq!(chest.stats().unwrap().pinned, 2);
    drop(clone);
    assert_eq!(chest.stats().unwrap().pinned, 0);
}
