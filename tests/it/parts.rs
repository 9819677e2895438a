//! Parts of values: slices, rows and columns are those of the whole, and reading them reads nothing else.

use std::ops::Range;

use arrow_array::{Array as _, RecordBatch};
use icechest::polars::df;
use icechest::polars::frame::DataFrame;
use icechest::{AnyArray, Chest, Compression, ErrorKind};
use ndarray::{Array1, Array2, Array3, ArrayD, Axis, Ix3, IxDyn, SliceInfo, SliceInfoElem, s};
use tempfile::TempDir;

use crate::helpers::dir;

/// A chest whose values are in files alone.
fn cold(compression: Compression) -> (TempDir, Chest) {
    let dir = dir();
    let chest = Chest::builder().budget(0).inline_limit(0).compression(compression).open(dir.path()).unwrap();
    (dir, chest)
}

/// 17 MiB, so that there are several blocks and chunks.
fn cube() -> Array3<f64> {
    Array3::from_shape_fn((300, 7, 1060), |(i, j, k)| (i * 7 + j) as f64 + (k % 50) as f64 / 64.0)
}

#[test]
fn slices_are_those_of_the_whole_array() {
    let cube = cube();
    let fortran = cube.t().as_standard_layout().reversed_axes().into_owned();
    assert!(!fortran.is_standard_layout());
    for compression in [Compression::Never, Compression::Small] {
        let (_dir, chest) = cold(compression);
        chest.insert("C", cube.clone()).unwrap();
        chest.insert("F", fortran.clone()).unwrap();
        chest.insert("resident", cube.clone()).unwrap();
        for key in ["C", "F"] {
            let from = |key: &str| chest.slice::<f64, _, _, _>(key, s![100..200, .., ..]).unwrap();
            assert_eq!(from(key), cube.slice(s![100..200, .., ..]), "{key}");
            let part: Array2<f64> = chest.slice(key, s![.., 3, ..;-7]).unwrap();
            assert_eq!(part, cube.slice(s![.., 3, ..;-7]), "{key}");
            let part: Array1<f64> = chest.slice(key, s![-1, 0, 5..1000;3]).unwrap();
            assert_eq!(part, cube.slice(s![-1, 0, 5..1000;3]), "{key}");
            let part: Array3<f64> = chest.slice(key, s![7..7, .., ..]).unwrap();
            assert_eq!(part.dim(), (0, 7, 1060), "{key}");
            let elements: Vec<SliceInfoElem> = s![..;50, 1..3, -2..].as_ref().to_vec();
            let dynamic = SliceInfo::<_, Ix3, IxDyn>::try_from(elements).unwrap();
            let part: ArrayD<f64> = chest.slice(key, dynamic).unwrap();
            assert_eq!(part, cube.slice(s![..;50, 1..3, -2..]).into_dyn(), "{key}");
            assert_eq!(chest.slice::<f64, _, _, _>(key, s![.., .., ..]).unwrap(), cube, "{key}");
        }
        assert_eq!(chest.stats().unwrap().resident_bytes, 0);
        chest.set_budget("1GiB").unwrap();
        let _held = chest.get::<Array3<f64>>("resident").unwrap();
        let part: Array2<f64> = chest.slice("resident", s![10, .., ..]).unwrap();
        assert_eq!(part, cube.slice(s![10, .., ..]));
    }
}

#[test]
fn arrays_have_rows() {
    let cube = cube();
    for compression in [Compression::Never, Compression::Small] {
        let (_dir, chest) = cold(compression);
        chest.insert("a", cube.clone()).unwrap();
        let part: Array3<f64> = chest.select("a").rows(290..1000).get().unwrap();
        assert_eq!(part, cube.slice(s![290.., .., ..]));
        let part: AnyArray = chest.select("a").rows(..=1).get().unwrap();
        assert_eq!(part.downcast_ref::<f64>().unwrap(), &cube.slice(s![..2, .., ..]).into_dyn());
        chest.set_budget("1GiB").unwrap();
        let any = chest.get::<AnyArray>("a").unwrap();
        assert_eq!(chest.select("a").rows(..=1).get::<AnyArray>().unwrap(), part);
        drop(any);
        let error = chest.select("a").columns(["x"]).get::<AnyArray>().unwrap_err();
        assert_eq!((error.kind(), error.key()), (ErrorKind::Unsupported, Some(&"a".into())));
        chest.insert("none", ArrayD::<u8>::zeros(vec![])).unwrap();
        assert_eq!(chest.select("none").rows(..1).get::<AnyArray>().unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

/// Rows enough for several row groups.
fn frame() -> DataFrame {
    let len = 700_000;
    df!(
        "n" => (0..len).collect::<Vec<i64>>(),
        "text" => (0..len).map(|i| (i % 3 > 0).then(|| format!("{}", i % 1000))).collect::<Vec<_>>(),
        "list" => (0..len).map(|i| f64::from(i as u32) / 8.0).collect::<Vec<_>>(),
    )
    .unwrap()
}

#[test]
fn frames_have_rows_and_columns() {
    let frame = frame();
    let height = frame.height();
    let (_dir, chest) = cold(Compression::Auto);
    chest.insert("f", frame.clone()).unwrap();
    let ranges: [Range<usize>; 8] = [
        0..height,
        0..10,
        262_140..262_150,
        262_144..524_288,
        300_000..650_000,
        height - 1..height + 5,
        height + 1..height + 5,
        5..5,
    ];
    let columns: [Option<&[&str]>; 4] = [None, Some(&["text"]), Some(&["list", "n"]), Some(&["n", "text", "list"])];
    for rows in ranges {
        for columns in columns {
            let select = || {
                let select = chest.select("f").rows(rows.clone());
                if let Some(columns) = columns { select.columns(columns.iter().copied()) } else { select }
            };
            let start = rows.start.min(height);
            let part = frame.slice(start as i64, rows.end.min(height).max(start) - start);
            let expected = match columns {
                Some(columns) => part.select(columns.iter().copied()).unwrap(),
                None => part,
            };
            let found: DataFrame = select().get().unwrap();
            assert_eq!(found.schema(), expected.schema(), "{rows:?} {columns:?}");
            assert!(found.equals_missing(&expected), "{rows:?} {columns:?}");

            let batches: Vec<RecordBatch> = select().get().unwrap();
            let batch: RecordBatch = select().get().unwrap();
            assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), expected.height());
            assert_eq!((batch.num_rows(), batch.num_columns()), expected.shape());
            let names = expected.get_column_names();
            assert!(batch.schema().fields().iter().zip(names).all(|(field, name)| field.name() == name.as_str()));
            for (column, expected) in batch.columns().iter().zip(expected.columns()) {
                assert_eq!(column.null_count(), expected.null_count());
            }
        }
    }
    // Without rows, all of them.
    let found: DataFrame = chest.select("f").columns(["n"]).get().unwrap();
    assert_eq!(found.shape(), (height, 1));
    assert_eq!(chest.stats().unwrap().resident_bytes, 0);
}

#[test]
fn parts_of_residents_are_those_of_files() {
    let (_dir, chest) = cold(Compression::Auto);
    chest.insert("f", frame()).unwrap();
    let all: Vec<RecordBatch> = (*chest.get::<Vec<RecordBatch>>("f").unwrap()).clone();
    assert!(all.len() > 3);
    let resident = Chest::temporary().unwrap();
    resident.insert("f", all).unwrap();
    let concat =
        |batches: Vec<RecordBatch>| arrow_select::concat::concat_batches(&batches[0].schema(), &batches).unwrap();
    for rows in [0..10, 65_000..70_000, 100_000..400_000, 5..5, 699_999..800_000] {
        let part = |chest: &Chest| concat(chest.select("f").rows(rows.clone()).columns(["text", "n"]).get().unwrap());
        assert_eq!(part(&resident), part(&chest), "{rows:?}");
    }
    let frame = Chest::temporary().unwrap();
    frame.insert("f", chest.get::<DataFrame>("f").unwrap()).unwrap();
    let part = |chest: &Chest| chest.select("f").rows(7..9).columns(["text", "n"]).get::<DataFrame>().unwrap();
    assert!(part(&frame).equals_missing(&part(&chest)));
}

#[test]
fn what_is_not_there_is_told() {
    let (_dir, chest) = cold(Compression::Auto);
    chest.insert("a", Array2::<u8>::zeros((5, 4))).unwrap();
    chest.insert("f", df!("x" => [1, 2]).unwrap()).unwrap();
    let slice =
        |key: &str| chest.slice::<u8, _, _, _>(key, s![9.., ..]).map(|part: Array2<u8>| part.len()).unwrap_err();
    let invalid = slice("a");
    assert_eq!((invalid.kind(), invalid.key()), (ErrorKind::Invalid, Some(&"a".into())));
    assert!(invalid.to_string().contains("[5, 4]"), "{invalid}");
    assert_eq!(slice("f").kind(), ErrorKind::WrongType);
    assert_eq!(slice("nobody").kind(), ErrorKind::NotFound);
    assert_eq!(chest.slice::<u8, _, _, _>("a", s![..]).unwrap_err().kind(), ErrorKind::WrongType);
    for warm in [false, true] {
        let columns = |name: &str| chest.select("f").columns([name]).get::<DataFrame>();
        let error = columns("y").unwrap_err();
        assert_eq!((error.kind(), error.key()), (ErrorKind::Invalid, Some(&"f".into())), "{warm}");
        assert!(error.to_string().contains("there are x"), "{error}");
        chest.set_budget("1MiB").unwrap();
        chest.get::<DataFrame>("f").unwrap();
        assert!(columns("x").is_ok());
    }
    assert_eq!(chest.select("a").get::<DataFrame>().unwrap_err().kind(), ErrorKind::WrongType);
    assert_eq!(chest.select("nobody").get::<DataFrame>().unwrap_err().kind(), ErrorKind::NotFound);
}

/// Spoils a byte of a value's file, at this share of its length.
fn spoil(chest: &Chest, key: &str, share: f64) {
    let path = chest.file(key).unwrap().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = (bytes.len() as f64 * share) as usize;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_not_wanted_is_not_read() {
    for compression in [Compression::Never, Compression::Small] {
        let (_dir, chest) = cold(compression);
        // Numbers that do not compress well: 16 MB in files, whose end is always read.
        let mut random = fastrand::Rng::with_seed(1);
        let noise = Array2::from_shape_fn((4000, 1000), |_| random.f32());
        chest.insert("a", noise.clone()).unwrap();
        spoil(&chest, "a", 0.7);
        let part: Array2<f32> = chest.slice("a", s![..1000, ..]).unwrap();
        assert_eq!(part, noise.slice_axis(Axis(0), (..1000).into()));
        for damaged in [chest.slice::<f32, _, _, _>("a", s![.., 3]).map(|_| ()), chest.get::<AnyArray>("a").map(|_| ())]
        {
            let error = damaged.unwrap_err();
            assert_eq!((error.kind(), error.key()), (ErrorKind::Damaged, Some(&"a".into())));
            assert!(error.path().is_some());
        }
    }
    let (_dir, chest) = cold(Compression::Auto);
    let len = 1_500_000_u64;
    let noise = |seed: u64| (0..len).map(|i| (i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect::<Vec<_>>();
    let frame = df!("a" => noise(1), "b" => noise(2)).unwrap();
    chest.insert("f", frame.clone()).unwrap();
    // In the second column of the last but one of six groups.
    spoil(&chest, "f", 0.82);
    let rows: DataFrame = chest.select("f").rows(..500_000).get().unwrap();
    assert!(rows.equals(&frame.head(Some(500_000))));
    assert_eq!(chest.select("f").rows(..500_000).get::<RecordBatch>().unwrap().num_columns(), 2);
    assert_eq!(chest.select("f").get::<DataFrame>().unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(chest.select("f").get::<RecordBatch>().unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn other_threads_and_writers_do_not_disturb() {
    let dir = dir();
    let chest = Chest::builder().budget("8MiB").open(dir.path()).unwrap();
    let array = |value: u32| Array2::from_elem((2000, 500), value);
    chest.insert("a", array(0)).unwrap();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut newest = 0;
                    while newest < 29 {
                        let part: Array1<u32> = chest.slice("a", s![1000, ..]).unwrap();
                        assert!(part.iter().all(|&value| value == part[0]), "torn");
                        assert!(part[0] >= newest, "{} after {newest}", part[0]);
                        newest = part[0];
                    }
                })
            })
            .collect();
        for value in 1..30 {
            chest.insert("a", array(value)).unwrap();
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}
