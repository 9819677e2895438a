//! Plain values: the types of std, serde types, JSON; small and large, and types that do not fit.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use icechest::{Chest, Compression, ErrorKind, Plain, Value};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::helpers::{come_back, come_back_in, dir, same, same_by};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Plain)]
struct Model {
    name: String,
    weights: Vec<f64>,
    layers: Vec<Layer>,
    best: Option<Box<Model>>,
    unit: (),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
enum Layer {
    Input,
    Dense(usize),
    Conv { kernel: (u8, u8), name: Option<String> },
    Pair(i8, char),
}

impl Plain for Layer {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Plain)]
struct Tagged<T, const N: usize>
where
    T: Clone,
{
    tag: String,
    items: Vec<T>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Plain)]
#[plain(name = "measurement")]
struct Renamed {
    #[serde(rename = "x")]
    value: f32,
    #[serde(skip)]
    cache: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Plain)]
struct Nothing;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Plain)]
struct Newtype(Vec<Nothing>);

fn model(depth: usize) -> Model {
    let best = depth.checked_sub(1).map(|depth| Box::new(model(depth)));
    let layers = vec![
        Layer::Input,
        Layer::Dense(depth),
        Layer::Conv { kernel: (3, 5), name: Some("ß".into()) },
        Layer::Pair(-7, '☃'),
    ];
    Model { name: format!("model {depth}"), weights: vec![0.1, -0.0, f64::MAX], layers, best, unit: () }
}

#[test]
fn types_of_std_come_back() {
    let text = "text with ß, ☃ and \0".to_owned();
    come_back(&[
        same(()),
        same(true),
        same('☃'),
        same(String::new()),
        same(text.clone()),
        same(i8::MIN),
        same(i16::MIN),
        same(i32::MIN),
        same(i64::MIN),
        same(i128::MIN),
        same(isize::MIN),
        same(u8::MAX),
        same(u16::MAX),
        same(u32::MAX),
        same(u64::MAX),
        same(u128::MAX),
        same(usize::MAX),
        same_by(f32::from_bits(0x7fc0_1234), |a, b| a.to_bits() == b.to_bits()),
        same_by(f64::from_bits(0xfff8_0000_dead_beef), |a, b| a.to_bits() == b.to_bits()),
        same(Duration::new(7, 999_999_999)),
        same(UNIX_EPOCH + Duration::new(1 << 33, 5)),
        same(SystemTime::now()),
        same(PathBuf::from("/a/ß/../b")),
        same(IpAddr::from([127, 0, 0, 1])),
        same(Ipv4Addr::LOCALHOST),
        same(Ipv6Addr::LOCALHOST),
        same(SocketAddr::from(([1; 16], 443))),
    ]);
}

#[test]
fn collections_come_back() {
    let words: Vec<String> = (0..100).map(|i| format!("word {i}")).collect();
    let heap: BinaryHeap<i32> = [3, 1, 2].into();
    come_back(&[
        same(Vec::<u8>::new()),
        same((0..=255u8).cycle().take(100_000).collect::<Vec<u8>>()),
        same(words.clone()),
        same(words.iter().cloned().collect::<VecDeque<_>>()),
        same(words.iter().cloned().collect::<BTreeSet<_>>()),
        same(words.iter().cloned().collect::<HashSet<_>>()),
        same(words.iter().cloned().zip(0u64..).collect::<HashMap<_, _>>()),
        same(words.iter().cloned().zip(words.iter().map(|w| vec![w.len(); 3])).collect::<BTreeMap<_, _>>()),
        same_by(heap, |a, b| a.clone().into_sorted_vec() == b.clone().into_sorted_vec()),
        same([1.5f64; 32]),
        same([String::from("one")]),
        same::<[u8; 0]>([]),
        same((1u8,)),
        same((1u8, "a".to_owned(), 'b', 2.5f32, false, (), -7i64, vec![1u8])),
        same(Box::new(7u32)),
        same(Ok::<u8, String>(7)),
        same(Err::<u8, String>("no".into())),
        same(None::<Vec<u8>>),
        same(Some(Some(vec![Some(1u8), None]))),
        same(Some(None::<u8>)),
        same(vec![HashMap::from([(1u8, BTreeMap::from([("a".to_owned(), vec![(1u8, 2u16)])]))])]),
        same(vec![(); 1000]),
    ]);
}

#[test]
fn serde_types_come_back() {
    come_back(&[
        same(model(0)),
        same(model(50)),
        same(vec![model(1), model(2)]),
        same(Layer::Input),
        same(HashMap::from([(Layer::Dense(1), model(1)), (Layer::Pair(1, 'x'), model(0))])),
        same(Tagged::<_, 7> { tag: "t".into(), items: vec![vec![1u8], vec![]] }),
        same(Tagged::<_, 8> { tag: "t".into(), items: vec![Layer::Input] }),
        same(Renamed { value: 1.5, cache: 0 }),
        same(Nothing),
        same(Newtype(vec![Nothing; 5])),
    ]);
}

#[test]
fn json_comes_back() {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    come_back(&[
        same(json!(null)),
        same(json!({"a": [1, -2, 1.5, 1e300, "ß\u{0}", true, null, {}], "": {"x": []}})),
        same(json!([u64::MAX, i64::MIN, 0.1, -0.0, 1e-310])),
        same(deep),
        same(json!((0..20_000).map(|i| json!({"number": i, "text": format!("{i}")})).collect::<Vec<_>>())),
    ]);
    let chest = Chest::temporary().unwrap();
    chest.insert("j", json!({"a": 1})).unwrap();
    chest.flush().unwrap();
    assert_eq!(chest.info("j").unwrap().format.unwrap(), "json");
}

#[test]
fn json_that_could_not_be_read_again_is_refused() {
    let chest = Chest::temporary().unwrap();
    let deep = |depth: usize| {
        (0..depth).fold(json!(1), |inner, at| if at % 2 == 0 { json!([0, inner]) } else { json!({"a": inner}) })
    };
    chest.insert("j", deep(127)).unwrap();
    let error = chest.insert("j", deep(128)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    come_back(&[same(deep(127))]);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Plain)]
#[plain(name = "timed")]
struct Timed<T, const N: usize> {
    at: u64,
    value: T,
}

#[test]
fn a_named_type_has_other_names_for_other_parameters() {
    assert_eq!(<Timed<u64, 3> as Plain>::name(), "timed<u64, 3>");
    let chest = Chest::temporary().unwrap();
    chest.insert("k", Timed::<_, 3> { at: 1, value: 7_u64 }).unwrap();
    chest.flush().unwrap();
    assert_eq!(chest.get::<Timed<u64, 3>>("k").unwrap().value, 7);
    assert_eq!(chest.get::<Timed<f64, 3>>("k").unwrap_err().kind(), ErrorKind::WrongType);
    assert_eq!(chest.get::<Timed<u64, 4>>("k").unwrap_err().kind(), ErrorKind::WrongType);
}

#[test]
fn text_and_bytes_are_taken_as_they_are_at_hand() {
    let chest = Chest::temporary().unwrap();
    chest.insert("s", "a str").unwrap();
    chest.insert("b", &b"bytes"[..]).unwrap();
    chest.insert("a", std::sync::Arc::new(vec![1u8])).unwrap();
    assert_eq!(*chest.get::<String>("s").unwrap(), "a str");
    assert_eq!(*chest.get::<Vec<u8>>("b").unwrap(), b"bytes");
    assert_eq!(*chest.get::<Vec<u8>>("a").unwrap(), [1]);
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 7u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn values_of_many_blocks_come_back() {
    let counted: Vec<u64> = (0..3 << 20).collect();
    let texts: Vec<String> = (0..200_000).map(|i| format!("a line of text with the number {i}")).collect();
    let cases =
        [same(noise(20 << 20)), same(counted), same(texts), same(vec![0u8; 30 << 20]), same("ice ".repeat(5 << 20))];
    come_back_in(Chest::builder, &cases);
}

#[test]
fn lengths_around_block_boundaries_come_back() {
    let mut cases = Vec::new();
    for blocks in [1_usize, 2, 3] {
        for offset in [-9, -8, -7, -1, 0, 1] {
            // Eight bytes tell the length.
            cases.push(same(noise((blocks << 20_usize).strict_add_signed(offset))));
        }
    }
    come_back_in(|| Chest::builder().compression(Compression::Never), &cases);
}

#[test]
#[cfg(feature = "zstd")]
fn what_compresses_is_compressed() {
    let dir = dir();
    let format = |compression, value: Vec<u8>| {
        let chest = Chest::builder().compression(compression).open(dir.path()).unwrap();
        chest.insert("k", value).unwrap();
        chest.flush().unwrap();
        chest.info("k").unwrap().format.unwrap()
    };
    assert_eq!(format(Compression::Auto, vec![7; 100_000]), "bincode+lz4");
    assert_eq!(format(Compression::Auto, noise(100_000)), "bincode");
    assert_eq!(format(Compression::Never, vec![7; 100_000]), "bincode");
    assert_eq!(format(Compression::Small, vec![7; 100_000]), "bincode+zstd");
}

#[test]
fn small_values_are_inline_and_large_ones_have_a_file() {
    let dir = dir();
    let chest = Chest::builder().compression(Compression::Never).inline_limit(100).open(dir.path()).unwrap();
    chest.insert("small", noise(92)).unwrap();
    chest.insert("large", noise(93)).unwrap();
    assert_eq!(chest.info("small").unwrap().format, None, "not written yet, or written behind");
    chest.flush().unwrap();
    assert_eq!(chest.file("small").unwrap(), None);
    let file = chest.file("large").unwrap().unwrap();
    assert!(std::fs::metadata(file).unwrap().len() > 100);
    assert_eq!(chest.info("small").unwrap().stored_bytes, 100);
}

#[test]
fn a_wrong_type_is_refused_naming_both() {
    fn refused<V: Value + std::fmt::Debug>(chest: &Chest, key: &str, names: [&str; 2]) {
        let error = chest.get::<V>(key).unwrap_err();
        assert_eq!((error.kind(), error.key()), (ErrorKind::WrongType, Some(&key.into())));
        let text = error.to_string();
        assert!(names.iter().all(|name| text.contains(name)), "{text}");
        assert_eq!(chest.find::<V>(key).unwrap_err().kind(), ErrorKind::WrongType);
        assert_eq!(chest.take::<V>(key).unwrap_err().kind(), ErrorKind::WrongType);
    }
    let chest = Chest::temporary().unwrap();
    chest.insert("v", vec![1u64, 2]).unwrap();
    chest.insert("m", model(1)).unwrap();
    chest.insert("r", Renamed { value: 1.0, cache: 0 }).unwrap();
    for _ in 0..2 {
        refused::<Vec<i64>>(&chest, "v", ["Vec<u64>", "Vec<i64>"]);
        refused::<Vec<f64>>(&chest, "v", ["Vec<u64>", "Vec<f64>"]);
        refused::<u64>(&chest, "v", ["Vec<u64>", "plain value u64"]);
        refused::<VecDeque<u64>>(&chest, "v", ["Vec<u64>", "VecDeque<u64>"]);
        refused::<Layer>(&chest, "m", ["plain::Model", "plain::Layer"]);
        refused::<Option<Model>>(&chest, "m", ["plain::Model", "Option<"]);
        refused::<f32>(&chest, "r", ["measurement", "f32"]);
        refused::<serde_json::Value>(&chest, "r", ["measurement", "Json"]);
        assert_eq!(*chest.get::<Vec<u64>>("v").unwrap(), [1, 2]);
        assert_eq!(*chest.get::<Model>("m").unwrap(), model(1));
        chest.set_budget(0).unwrap();
    }
}

/// Bytes of one type never become a value of another.
#[test]
fn a_type_that_changed_under_its_name_is_an_error() {
    #[derive(Debug, Serialize, Deserialize, Plain)]
    #[plain(name = "config")]
    struct Old {
        size: u32,
    }
    #[derive(Debug, Serialize, Deserialize, Plain)]
    #[plain(name = "config")]
    struct New {
        size: u32,
        name: String,
    }
    #[derive(Debug, Serialize, Deserialize, Plain)]
    #[plain(name = "config")]
    struct Less {}
    let dir = dir();
    Chest::open(dir.path()).unwrap().insert("k", Old { size: 7 }).unwrap();
    let chest = Chest::open(dir.path()).unwrap();
    let errors = [chest.get::<New>("k").unwrap_err(), chest.get::<Less>("k").unwrap_err()];
    for error in errors {
        assert_eq!((error.kind(), error.key()), (ErrorKind::Damaged, Some(&"k".into())));
    }
    assert_eq!(chest.get::<Old>("k").unwrap().size, 7);
    let new = New { size: 1, name: "n".into() };
    chest.insert("k", new).unwrap();
    assert_eq!(chest.get::<New>("k").unwrap().name, "n");
    assert_eq!(chest.get::<New>("k").unwrap().size, 1);
}

/// A sequence of unknown length, and a map that flattens another, cannot be bincode.
#[test]
fn what_bincode_cannot_write_is_refused_and_nothing_is_lost() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Plain)]
    struct Flat {
        name: String,
        #[serde(flatten)]
        rest: BTreeMap<String, u32>,
    }
    let flat = Flat { name: "f".into(), rest: BTreeMap::from([("a".into(), 1)]) };
    let chest = Chest::temporary().unwrap();
    chest.insert("k", "older").unwrap();
    let error = chest.insert("k", flat.clone()).unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Unsupported, Some(&"k".into())));
    assert_eq!(*error.into_value::<Flat>().unwrap(), flat);
    assert_eq!(*chest.get::<String>("k").unwrap(), "older");
    chest.flush().unwrap();
}

/// Of a value that is refused for what it holds, not for its type.
#[cfg(unix)]
#[test]
fn a_value_that_cannot_be_encoded_is_refused_and_nothing_is_lost() {
    use std::os::unix::ffi::OsStringExt;
    let chest = Chest::temporary().unwrap();
    chest.insert("k", PathBuf::from("text")).unwrap();
    let path = PathBuf::from(std::ffi::OsString::from_vec(b"no\xfftext".to_vec()));
    let times = vec![UNIX_EPOCH, UNIX_EPOCH - Duration::from_secs(1)];
    let error = chest.insert("k", path.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(*error.into_value::<PathBuf>().unwrap(), path);
    assert_eq!(chest.insert("k", times).unwrap_err().kind(), ErrorKind::Unsupported);
    let error = chest.update("k", |stored: &mut PathBuf| *stored = path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(*chest.get::<PathBuf>("k").unwrap(), PathBuf::from("text"));
}

/// Bincode writes these, but could never read them.
#[test]
fn what_bincode_cannot_read_is_refused_and_nothing_is_lost() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Plain)]
    #[serde(untagged)]
    enum Untagged {
        Number(u32),
        Text(String),
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Plain)]
    struct WithJson {
        json: serde_json::Value,
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Plain)]
    struct Skips {
        #[serde(skip_serializing_if = "Option::is_none")]
        maybe: Option<u8>,
        number: u8,
    }
    let chest = Chest::temporary().unwrap();
    fn refused<V: Plain + Clone + PartialEq + std::fmt::Debug>(chest: &Chest, value: V) {
        let error = chest.insert("k", value.clone()).unwrap_err();
        assert_eq!((error.kind(), error.key()), (ErrorKind::Unsupported, Some(&"k".into())), "{error}");
        assert_eq!(*error.into_value::<V>().unwrap(), value);
    }
    refused(&chest, Untagged::Number(7));
    refused(&chest, Untagged::Text("t".into()));
    refused(&chest, WithJson { json: json!({"a": 1}) });
    refused(&chest, Skips { maybe: None, number: 7 });
    assert!(chest.is_empty().unwrap());
    // Others of these types would come back.
    chest.insert("some", Skips { maybe: Some(1), number: 7 }).unwrap();
    refused(&chest, Skips { maybe: None, number: 7 });
    chest.insert("none", Vec::<Untagged>::new()).unwrap();
    refused(&chest, vec![Untagged::Number(7)]);
    refused(&chest, vec![Untagged::Number(7); 10_000]);
    assert_eq!(chest.len().unwrap(), 2);
}

#[test]
fn the_size_is_that_of_the_value_and_its_heap() {
    let chest = Chest::temporary().unwrap();
    chest.insert("v", vec![0u64; 1000]).unwrap();
    let bytes = chest.info("v").unwrap().bytes;
    assert!((8000..8100).contains(&bytes), "{bytes}");
}
