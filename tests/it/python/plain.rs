//! Plain values that we write.

use std::collections::BTreeMap;

use icechest::{Compression, Plain};
use serde_json::{Value as Json, json};

use super::arrays::{noise, smooth};
use super::{COMPRESSIONS, Cases};

fn documents() -> Vec<Json> {
    vec![
        json!(null),
        json!(true),
        json!(-7),
        json!([i64::MIN, u64::MAX, 0.1, 1e300, 5e-324]),
        json!("ß ☃ \u{1f9ca} \" \\ \n \0"),
        json!([]),
        json!({"": {}, "nested": [[1, [2.5, {"deep": [null]}]], "x"]}),
        json!((0..50_000).map(|i| format!("item {i}")).collect::<Vec<_>>()),
    ]
}

#[test]
fn python_reads_json() {
    let mut cases = Cases::new(Compression::Auto);
    for (i, document) in documents().into_iter().enumerate() {
        cases.add(format!("{i}"), document.clone(), json!({"value": document}));
    }
    assert!(cases.check().iter().all(|format| format == "json"));
}

fn add_plain<V: Plain>(cases: &mut Cases, value: V, bytes: &[u8]) {
    cases.add_with_bytes(format!("{}: {}", cases.cases.len(), V::name()), value, json!({}), bytes);
}

/// A length and its elements, in bincode.
fn sequence<'a>(len: usize, elements: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = (len as u64).to_le_bytes().to_vec();
    elements.into_iter().for_each(|element| bytes.extend_from_slice(element));
    bytes
}

fn add_plain_values(cases: &mut Cases) {
    for (bits, len) in [(noise as fn(u64) -> u64, 10), (noise, 300_000), (smooth, 300_000)] {
        let numbers: Vec<u64> = (0..len).map(bits).collect();
        let bytes: Vec<_> = numbers.iter().map(|number| number.to_le_bytes()).collect();
        add_plain(cases, numbers, &sequence(bytes.len(), bytes.iter().map(|bytes| &bytes[..])));
    }
    let text = "a text ☃ ".repeat(10_000);
    add_plain(cases, text.clone(), &sequence(text.len(), [text.as_bytes()]));
    add_plain(cases, text.clone().into_bytes(), &sequence(text.len(), [text.as_bytes()]));
    let pair = sequence(1, [&sequence(1, [&b"k"[..]])[..], &7u32.to_le_bytes()]);
    add_plain(cases, BTreeMap::from([("k".to_owned(), 7u32)]), &pair);
    add_plain(
        cases,
        (-1i16, true, 'ß', Some(1.5f64)),
        &[&b"\xff\xff\x01\xc3\x9f\x01"[..], &1.5f64.to_le_bytes()].concat(),
    );
}

#[test]
fn python_reads_plain_values_as_the_format_says() {
    for compression in COMPRESSIONS {
        let mut cases = Cases::new(compression);
        add_plain_values(&mut cases);
        let formats = cases.check();
        let expected = match compression {
            Compression::Never => "bincode",
            Compression::Small => "bincode+zstd",
            _ => "bincode+lz4",
        };
        assert_eq!((&*formats[0], &*formats[2], &*formats[3]), ("bincode", expected, expected));
    }
}
