#![no_main]

use icechest_fuzz::decode_within;
use libfuzzer_sys::fuzz_target;
use serde_json::Value as Json;

fuzz_target!(|bytes: &[u8]| decode_within::<Json>(bytes, "json", Json::Null, 1024 + 256 * bytes.len()));
