use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
enum Shape {
    Unit,
    New(i64),
    Tuple(u8, String),
    Struct { x: f64, y: Option<bool> },
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: T) {
    let key = Key::of(&value).unwrap();
    assert_eq!(key.to::<T>().unwrap(), value, "{key}");
    assert_eq!(Key::from_canonical(key.canonical()).unwrap(), key);
}

#[test]
fn serde_values_come_back() {
    round_trip(());
    round_trip(Some(3));
    round_trip(Some(None::<u8>));
    round_trip([None, Some(None), Some(Some(None)), Some(Some(Some(1u8)))]);
    assert_eq!(Key::of(&Some(Some(()))).unwrap().canonical(), r#"{"$some":{"$some":null}}"#);
    round_trip(None::<i32>);
    round_trip((1u8, -1i64, "x".to_owned(), 'c', true));
    round_trip(i128::MIN);
    round_trip(u128::MAX);
    round_trip(u64::MAX);
    round_trip(1.0f64);
    round_trip(-0.0f64);
    round_trip(1e300);
    round_trip(f64::NEG_INFINITY);
    round_trip(0.1f32);
    round_trip(PathBuf::from("/a/b"));
    round_trip(vec![Shape::Unit, Shape::New(-3), Shape::Tuple(1, "t".into()), Shape::Struct { x: 2.5, y: None }]);
    round_trip(HashMap::from([((1, 2), "a".to_owned()), ((0, 9), "b".to_owned())]));
    round_trip(BTreeMap::from([("k".to_owned(), vec![1u8, 2])]));
}

#[test]
fn types_are_told_apart() {
    let keys = [
        Key::from(1),
        Key::from("1"),
        Key::from(("1",)),
        Key::from(true),
        Key::from("true"),
        Key::from(b"1"),
        Key::from(Path::new("1")),
        Key::of(&1.0).unwrap(),
        Key::of(&Shape::Unit).unwrap(),
        Key::from("Unit"),
        Key::of(&()).unwrap(),
        Key::from("null"),
        Key::of(&BTreeMap::from([("$bytes", "31")])).unwrap(),
        Key::from("{\"$bytes\":\"31\"}"),
        Key::from(("a", "b")),
        Key::from(("a,b",)),
        Key::from((("a", "b"),)),
    ];
    let distinct: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}

#[test]
fn order_of_a_map_plays_no_part() {
    let a = BTreeMap::from([("x", 1), ("y", 2)]);
    let b: HashMap<_, _> = [("y", 2), ("x", 1)].into();
    assert_eq!(Key::of(&a).unwrap(), Key::of(&b).unwrap());
}

#[test]
fn conversions_agree_with_serde() {
    assert_eq!(Key::from("é\u{1}\"\\\n"), Key::of("é\u{1}\"\\\n").unwrap());
    assert_eq!(Key::from((1, "a", false)), Key::of(&(1u64, "a", false)).unwrap());
    assert_eq!(Key::from('x'), Key::of(&'x').unwrap());
    let (long, longer) = (i128::from(i64::MIN), i128::from(u64::MAX));
    for number in [0, -1, long, long - 1, longer, longer + 1, i128::MIN, i128::MAX] {
        assert_eq!(Key::from(number), Key::of(&number).unwrap());
        let is_tagged = number < long || number > longer;
        let expected = if is_tagged { format!("{{\"$int\":\"{number}\"}}") } else { number.to_string() };
        assert_eq!(Key::from(number).canonical(), expected);
    }
    assert_eq!(Key::from(u128::MAX), Key::of(&u128::MAX).unwrap());
    assert_eq!(Key::from(u8::MAX), Key::of(&u64::from(u8::MAX)).unwrap());
}

#[test]
fn a_digest_has_all_its_digits() {
    let digest = Digest([0, 1, 0xab, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0f]);
    assert_eq!(digest.to_string(), "0001ab0000000000000000000000000f");
    assert_eq!(Key::from(digest).canonical(), "{\"$digest\":\"0001ab0000000000000000000000000f\"}");
}

#[test]
fn too_deep_is_refused() {
    let mut nested = serde_json::json!(1);
    for _ in 0..100 {
        nested = serde_json::json!([nested]);
    }
    assert_eq!(Key::of(&nested).unwrap_err().kind(), crate::ErrorKind::Invalid);
    assert!(Key::from_canonical(&format!("{}1{}", "[".repeat(5000), "]".repeat(5000))).is_err());
}

#[test]
fn only_the_canonical_text_is_a_key() {
    let texts = [" 1", "1 ", "\"\\u0041\"", "{\"a\":1}", "{\"$bytes\":\"0\"}", "01", "", "{\"$map\":[[2,1],[1,1]]}"];
    let digits =
        ["-00607467121969530393080", "+607467121969530393080", "1e30", "607467121969530393080607467121969530393080"];
    let integers = digits.map(|digits| format!("{{\"$int\":\"{digits}\"}}"));
    let digest = r#"{"$digest":"hello"}"#;
    for text in texts.into_iter().chain(integers.iter().map(String::as_str)).chain([digest]) {
        assert!(Key::from_canonical(text).is_err(), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn paths_that_are_not_text() {
    use std::os::unix::ffi::OsStrExt;
    let path = Path::new(std::ffi::OsStr::from_bytes(b"a\xff/b"));
    let key = Key::from(path);
    assert_eq!(key.as_path().unwrap(), path);
    assert_eq!(Key::from_canonical(key.canonical()).unwrap(), key);
    assert_ne!(key, Key::from(Path::new("a\u{fffd}/b")));
}

proptest! {
    #[test]
    fn any_text_round_trips(text in any::<String>(), bytes in any::<Vec<u8>>(), number in any::<i64>(), x in any::<f64>()) {
        prop_assert_eq!(Key::from(&text).as_text().unwrap(), text.clone());
        let key = Key::from((text.clone(), number));
        prop_assert_eq!(key.to::<(String, i64)>().unwrap(), (text, number));
        prop_assert_eq!(Key::from(bytes.as_slice()).to::<Vec<u8>>().unwrap(), bytes);
        let back = Key::of(&x).unwrap().to::<f64>().unwrap();
        prop_assert!(back.to_bits() == x.to_bits() || back.is_nan() && x.is_nan());
    }
}
