#![no_main]

use std::collections::{HashMap, HashSet};

use arbitrary::Arbitrary;
use icechest::Value;
use icechest_fuzz::decode;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value as Json, json};

type Nested = (Option<(u8, Option<String>)>, (bool, char, [u16; 3]), Vec<Option<i128>>);

/// A longer value would not show more.
const LONGEST: u64 = 8 << 20;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    form: Form,
    of: Type,
    /// What the catalog says of the length; else it is found out.
    encoded: Option<u64>,
    bytes: &'a [u8],
}

#[derive(Arbitrary, Debug)]
enum Form {
    /// As it is.
    Raw,
    /// A frame with any bytes in it.
    Lz4,
    Zstd,
    /// Any frame.
    AnyLz4,
    AnyZstd,
}

#[derive(Arbitrary, Debug)]
enum Type {
    Bytes,
    Text,
    Floats,
    Map,
    Nested,
    Units,
    UnitSet,
}

fuzz_target!(|input: Input| {
    let plain = input.bytes.len() as u64;
    let (format, bytes, len) = match input.form {
        Form::Raw => ("bincode", input.bytes.to_vec(), plain),
        Form::Lz4 => ("bincode+lz4", lz4(input.bytes), plain),
        Form::Zstd => ("bincode+zstd", zstd::encode_all(input.bytes, 1).expect("memory takes all"), plain),
        Form::AnyLz4 => ("bincode+lz4", input.bytes.to_vec(), 4 * plain),
        Form::AnyZstd => ("bincode+zstd", input.bytes.to_vec(), 4 * plain),
    };
    let facts = json!({"encoded": input.encoded.unwrap_or(len).min(LONGEST)});
    match input.of {
        Type::Bytes => again::<Vec<u8>>(&bytes, format, facts),
        Type::Text => again::<String>(&bytes, format, facts),
        Type::Floats => again::<Vec<f64>>(&bytes, format, facts),
        Type::Map => again::<HashMap<String, Vec<u32>>>(&bytes, format, facts),
        Type::Nested => again::<Nested>(&bytes, format, facts),
        Type::Units => again::<Vec<()>>(&bytes, format, facts),
        Type::UnitSet => again::<HashSet<()>>(&bytes, format, facts),
    }
});

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut frame = lz4_flex::frame::FrameEncoder::new(Vec::new());
    std::io::Write::write_all(&mut frame, bytes).expect("memory takes all");
    frame.finish().expect("memory takes all")
}

/// What was read takes no more memory than the bytes justify, and is written without a word.
fn again<V: Value>(bytes: &[u8], format: &str, facts: Json) {
    let limit = facts["encoded"].as_u64().unwrap_or(0) as usize + bytes.len() + 4096;
    if let Some(value) = decode::<V>(bytes, format, facts) {
        assert!(value.size() <= limit, "{} bytes became a value of {}", bytes.len(), value.size());
        value.check().expect("a value that was read can be stored");
    }
}
