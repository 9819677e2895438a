//! Values that are read by mapping their file.

use std::fs;
use std::sync::Arc;

use icechest::{AnyArray, Chest, Compression, Content, Element, ErrorKind, Result, Status, StoredArray, stage};
use ndarray::{Array, Array1, Array2, Array3, ArrayD, Axis, Dimension, Ix1, IxDyn, concatenate};

use crate::helpers::{Case, come_back, dir};

fn smooth() -> Array1<f64> {
    Array1::from_shape_fn(500_000, |i| i as f64)
}

fn stored<D: Dimension>(array: Array<f64, D>) -> StoredArray<f64, D> {
    array.into()
}

/// An array that is given to be mapped.
#[derive(Debug)]
struct Given<A, D: Dimension>(Array<A, D>);

impl<A: Element, D: Dimension + Send + Sync + 'static> Case for Given<A, D> {
    fn insert(&self, chest: &Chest, key: &str) {
        chest.insert(key, StoredArray::from(self.0.clone())).unwrap();
    }

    fn check(&self, chest: &Chest, key: &str) {
        assert_eq!(chest.get::<StoredArray<A, D>>(key).unwrap().view(), self.0, "{key}");
    }
}

#[test]
fn mapped_arrays_come_back() {
    come_back(&[
        Box::new(Given(smooth())),
        Box::new(Given(Array2::from_shape_fn((300, 500), |(i, j)| (i * j) as f64).reversed_axes())),
        Box::new(Given(Array3::<i16>::zeros((3, 0, 2)))),
        Box::new(Given(Array1::from_elem(3, 0.5))),
        Box::new(Given(ArrayD::from_elem(IxDyn(&[]), 7_u8))),
        Box::new(Given(Array1::from_shape_fn(100_000, |i| i % 3 == 0))),
    ]);
}

#[test]
fn they_are_mapped_whatever_compresses_and_count_in_full() {
    let dir = dir();
    let open = || Chest::builder().budget("64MiB").compression(Compression::Small).open(dir.path()).unwrap();
    let chest = open();
    chest.insert("a", stored(smooth())).unwrap();
    assert!(!chest.get::<StoredArray<f64, Ix1>>("a").unwrap().is_mapped());
    drop(chest);
    let chest = open();
    let array = chest.get::<StoredArray<f64, Ix1>>("a").unwrap();
    assert!(array.is_mapped() && array.view() == smooth());
    let stats = chest.stats().unwrap();
    assert_eq!((stats.resident, stats.loads), (1, 1));
    assert!(stats.resident_bytes > 4_000_000 && stats.pinned == 1, "{stats:?}");
    // The same mapping, until the room is needed; whoever holds it keeps it.
    assert!(Arc::ptr_eq(&array, &chest.get("a").unwrap()));
    assert!(chest.view::<f64, Ix1>("a").unwrap().is_mapped());
    let info = chest.info("a").unwrap();
    assert_eq!((info.format.as_deref(), info.type_name.as_str()), (Some("npy"), "Array<f64, 1>"));
    chest.remove("a").unwrap();
    assert_eq!(array.view(), smooth());
}

#[test]
fn a_mapped_array_and_an_array_are_read_as_each_other() {
    let dir = dir();
    // A disk that is slow enough for compression to pay anywhere.
    let chest = Chest::builder().budget("64MiB").disk_speed("10MB").open(dir.path()).unwrap();
    chest.insert("mapped", stored(smooth())).unwrap();
    chest.insert("array", smooth()).unwrap();
    for _ in 0..2 {
        assert_eq!(*chest.get::<Array1<f64>>("mapped").unwrap(), smooth());
        assert_eq!(chest.get::<AnyArray>("mapped").unwrap().shape(), [500_000]);
        assert_eq!(chest.get::<StoredArray<f64, IxDyn>>("mapped").unwrap().view().shape(), [500_000]);
        // It is compressed, so it is read.
        let array = chest.get::<StoredArray<f64, Ix1>>("array").unwrap();
        assert!(!array.is_mapped() && array.view() == smooth());
        let error = chest.get::<StoredArray<f32, Ix1>>("mapped").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongType);
        assert!(error.to_string().contains("StoredArray<f32, 1>"), "{error}");
        chest.flush().unwrap();
        chest.set_budget(0).unwrap();
        chest.set_budget("64MiB").unwrap();
    }
    chest.append("mapped", smooth()).unwrap();
    let grown = chest.get::<StoredArray<f64, Ix1>>("mapped").unwrap();
    assert_eq!(grown.view(), concatenate(Axis(0), &[smooth().view(), smooth().view()]).unwrap());
    assert_eq!(grown.digest(), grown.view().to_owned().digest());
}

#[test]
fn who_shares_an_array_pins_it() {
    let dir = dir();
    let chest = Chest::builder().budget("64MiB").open(dir.path()).unwrap();
    let array = stored(smooth());
    chest.insert("a", array.clone()).unwrap();
    let pinned = || chest.stats().unwrap().pinned;
    assert_eq!(pinned(), 1);
    chest.flush().unwrap();
    chest.set_budget(0).unwrap();
    assert!(chest.stats().unwrap().resident == 1 && !chest.get::<StoredArray<f64, Ix1>>("a").unwrap().is_mapped());
    drop(array);
    chest.set_budget(1).unwrap();
    assert_eq!(chest.stats().unwrap().resident, 0);
    chest.set_budget("64MiB").unwrap();
    // The clone of a mapped one, as the result of a stage is.
    let mapped = StoredArray::clone(&chest.get::<StoredArray<f64, Ix1>>("a").unwrap());
    assert!(mapped.is_mapped() && pinned() == 1);
    drop(mapped);
    assert_eq!(pinned(), 0);
}

#[test]
fn what_is_not_published_is_looked_at_in_memory() {
    let chest = Chest::builder().budget("64MiB").temporary().unwrap();
    chest.insert("a", stored(smooth())).unwrap();
    let view = chest.view::<f64, Ix1>("a").unwrap();
    assert!(!view.is_mapped() && view.view() == smooth());
    assert_eq!(chest.stats().unwrap().published, 0);
}

/// A walk of 200,000 steps, and where it came from.
fn walk(chest: &Chest) -> (Arc<StoredArray<f64, Ix1>>, Status) {
    let compute = || StoredArray::from(Array1::from_shape_fn(200_000, |i| (i % 100) as f64));
    let run = chest.stage("walk").arg("len", 200_000).run_with_status(compute).unwrap();
    (run.value, run.status)
}

#[stage(chest = chest, ignore(chest))]
fn total(chest: &Chest, walk: &StoredArray<f64, Ix1>) -> Result<f64> {
    Ok(walk.view().sum())
}

#[test]
fn a_result_is_mapped_by_another_process_and_made_again_if_damaged() {
    let dir = dir();
    let open = || Chest::open(dir.path()).unwrap();
    let chest = open();
    assert_eq!(total(&chest, &walk(&chest).0).unwrap(), 9_900_000.0);
    drop(chest);
    let chest = open();
    let (found, status) = walk(&chest);
    assert!(found.is_mapped() && status == Status::Disk);
    // Known by its content, as it was when it was in memory.
    assert_eq!(total(&chest, &found).unwrap(), 9_900_000.0);
    assert_eq!(chest.len().unwrap(), 2);
    assert_eq!(walk(&chest).1, Status::Memory);
    let path = fs::read_dir(dir.path().join("values")).unwrap().next().unwrap().unwrap().path();
    drop((chest, found));
    let mut bytes = fs::read(&path).unwrap();
    bytes[700_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (made, status) = walk(&open());
    assert_eq!((made.view().sum(), status), (9_900_000.0, Status::Computed));
    assert!(walk(&open()).0.is_mapped());
}
