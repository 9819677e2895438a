#![no_main]

use icechest::AnyArray;
use icechest_fuzz::decode_within;
use libfuzzer_sys::fuzz_target;
use ndarray::{Array1, Array2, ArrayD};
use serde_json::Value::Null;

fuzz_target!(|bytes: &[u8]| {
    let limit = bytes.len() + 1024;
    decode_within::<AnyArray>(bytes, "npy", Null, limit);
    decode_within::<ArrayD<bool>>(bytes, "npy", Null, limit);
    decode_within::<Array1<f64>>(bytes, "npy", Null, limit);
    decode_within::<Array2<f32>>(bytes, "npy", Null, limit);
});
