//! Decoders and bytes that anybody may have written: no panic, no abort, no endless loop, and no more memory than the
//! bytes justify. `fuzz/` looks for such bytes; here are those that it found, and mutations of sound ones.

mod catalog;
mod found;
mod mutate;
#[cfg(all(feature = "arrow", feature = "polars"))]
mod parquet;
mod seeds;

use std::collections::{BTreeMap, HashMap};

use icechest::{Decoder, Value};
use serde_json::Value as Json;

use self::mutate::mutants;
use self::seeds::{Seed, stored};

type Nested = (Option<(u8, Option<String>)>, bool, [u16; 3], Vec<Option<i128>>);

/// Decodes bytes, which may fail. A value that was read can be measured and, for all that it is, stored again.
fn decode<V: Value>(bytes: &[u8], format: &str, facts: &Json) {
    let decoded = V::decode(&mut Decoder::from_bytes(bytes.to_vec(), format, facts.clone()));
    if let Ok(value) = decoded {
        let _ = (value.size(), value.check());
    }
}

/// Decodes the seed, which is sound, and mutants of it.
fn attack<V: Value>(seed: &Seed, count: usize) {
    let sound = V::decode(&mut Decoder::from_bytes(seed.bytes.clone(), &seed.format, seed.facts.clone()));
    sound.unwrap_or_else(|error| panic!("{} {}: {error}", seed.format, V::type_name()));
    mutants(&seed.bytes, count, |bytes| decode::<V>(bytes, &seed.format, &seed.facts));
    for encoded in [0, 1, seed.bytes.len() as u64, 1 << 22] {
        decode::<V>(&seed.bytes, &seed.format, &serde_json::json!({"encoded": encoded}));
    }
}

#[test]
fn plain_values() {
    use icechest::Compression::{Auto, Never, Small};
    let map: HashMap<String, Vec<u32>> = [("a".to_owned(), vec![1, 2]), (String::new(), vec![])].into();
    let nested: Nested = (Some((1, Some("x".to_owned()))), true, [1, 2, 3], vec![None, Some(-1)]);
    let floats: Vec<f64> = (0..400).map(|i| f64::from(i / 7)).collect();
    let ordered: BTreeMap<u8, Option<char>> = [(1, None), (2, Some('é'))].into();
    attack::<HashMap<String, Vec<u32>>>(&stored(map, Never), 2000);
    attack::<Nested>(&stored(nested, Never), 2000);
    attack::<BTreeMap<u8, Option<char>>>(&stored(ordered, Never), 2000);
    for compression in [Never, Auto, Small] {
        attack::<Vec<u8>>(&stored(vec![7_u8; 3000], compression), 500);
        attack::<String>(&stored("the quick brown fox ".repeat(100), compression), 1000);
        attack::<Vec<f64>>(&stored(floats.clone(), compression), 1000);
    }
}

#[test]
fn documents() {
    let document = serde_json::json!({"a": [1, -2.5, null, true], "b": {"ü": "\n"}, "c": 1e300});
    attack::<Json>(&stored(document, icechest::Compression::Auto), 3000);
    decode::<Json>("[".repeat(100_000).as_bytes(), "json", &Json::Null);
}

#[test]
fn formats_that_a_type_does_not_have() {
    for format in ["", "npy", "b2nd", "parquet", "json", "bincode", "bincode+lz4", "bincode+zstd", "bincode+"] {
        for bytes in [&b""[..], b"\0\0\0\0\0\0\0\0", b"{}"] {
            decode::<String>(bytes, format, &Json::Null);
            decode::<Json>(bytes, format, &Json::Null);
        }
    }
}

#[cfg(feature = "ndarray")]
mod arrays {
    use icechest::AnyArray;
    use icechest::Compression::Never;
    use ndarray::{Array2, ArrayD, ShapeBuilder, array};

    use super::{attack, stored};

    #[test]
    fn npy() {
        attack::<Array2<f64>>(&stored(array![[1.0, 2.5], [f64::NAN, -0.0]], Never), 2000);
        attack::<AnyArray>(&stored(array![true, false, true], Never), 2000);
        attack::<ArrayD<f32>>(&stored(Array2::<f32>::ones((3, 2).f()), Never), 2000);
    }

    #[cfg(feature = "blosc")]
    #[test]
    fn b2nd() {
        use icechest::Compression::Small;
        use ndarray::Array1;

        let smooth = Array1::from_iter((0..9000).map(|i| f64::from(i / 300)));
        attack::<Array1<f64>>(&stored(smooth, Small), 1500);
        let fortran = Array2::from_shape_fn((90, 100).f(), |(i, j)| (i / 40 + j / 50) as f32);
        attack::<Array2<f32>>(&stored(fortran, Small), 1500);
        attack::<AnyArray>(&stored(Array2::<u8>::zeros((200, 200)), Small), 1000);
    }
}

#[cfg(feature = "arrow")]
#[test]
fn record_batches() {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int32Array, RecordBatch, StringArray};

    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "", "grüße"]));
    let batch = RecordBatch::try_from_iter([("numbers", numbers), ("names", names)]).unwrap();
    for compression in [icechest::Compression::Auto, icechest::Compression::Never] {
        attack::<RecordBatch>(&stored(batch.clone(), compression), 1500);
    }
    attack::<RecordBatch>(&seeds::stored_by(batch, mapped_frames()), 6000);
}

#[cfg(feature = "polars")]
#[test]
fn data_frames() {
    use polars_core::df;
    use polars_core::prelude::DataFrame;

    let frame = df!("numbers" => [Some(1), None, Some(3)], "names" => ["a", "", "grüße"]).unwrap();
    attack::<DataFrame>(&stored(frame.clone(), icechest::Compression::Auto), 1500);
    attack::<DataFrame>(&seeds::stored_by(frame, mapped_frames()), 6000);
}

#[cfg(any(feature = "arrow", feature = "polars"))]
fn mapped_frames() -> icechest::Builder {
    icechest::Chest::builder().frame_format(icechest::FrameFormat::Arrow)
}
