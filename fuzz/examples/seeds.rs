//! Makes the seeds: small values, as the crate stores them.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use icechest::{AnyArray, Chest, Compression, Decoder, Encoder, Format, IntoValue, Kind, Result, Value};
use ndarray::{Array, Array1, Array2, Array3, ShapeBuilder, array};
use serde_json::json;

/// The bytes of a stored value.
struct Bytes<const KIND: u8>(Vec<u8>, String);

impl<const KIND: u8> Value for Bytes<KIND> {
    const KIND: Kind = match KIND {
        0 => Kind::Array,
        1 => Kind::Frame,
        _ => Kind::Plain,
    };

    fn type_name() -> String {
        "Bytes".to_owned()
    }

    fn reads(_stored_name: &str) -> bool {
        true
    }

    fn size(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, _out: &mut Encoder) -> Result<Format> {
        Err(std::io::Error::other("these bytes are only read").into())
    }

    fn decode(input: &mut Decoder) -> Result<Self> {
        Ok(Self(input.read_to_vec()?, input.format().to_owned()))
    }
}

/// How a value is stored, and in which format.
fn stored<I: IntoValue>(value: I, compression: Compression) -> Result<(Vec<u8>, String)> {
    let dir = tempfile::tempdir()?;
    let chest = Chest::builder().compression(compression).budget(0_u64).open(dir.path())?;
    chest.insert("value", value)?;
    chest.flush()?;
    drop(chest);
    let chest = Chest::open(dir.path())?;
    let bytes = match <I::Value as Value>::KIND {
        Kind::Array => chest.take::<Bytes<0>>("value").map(|bytes| (bytes.0.clone(), bytes.1.clone())),
        Kind::Frame => chest.take::<Bytes<1>>("value").map(|bytes| (bytes.0.clone(), bytes.1.clone())),
        Kind::Plain => chest.take::<Bytes<2>>("value").map(|bytes| (bytes.0.clone(), bytes.1.clone())),
    };
    bytes
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    arrays(&seeds)?;
    plain(&seeds)?;
    texts(&seeds)?;
    #[cfg(feature = "arrow")]
    frames(&seeds)?;
    Ok(())
}

fn put(seeds: &Path, target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let dir = seeds.join(target);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(name), bytes)
}

fn arrays(seeds: &Path) -> std::result::Result<(), Box<dyn Error>> {
    let put_array = |name: &str, array: AnyArray| -> std::result::Result<(), Box<dyn Error>> {
        let (bytes, format) = stored(array, Compression::Never)?;
        Ok(put(seeds, &format, name, &bytes)?)
    };
    put_array("f64", array![[1.0, 2.5], [f64::NAN, -0.0]].into_dyn().into())?;
    put_array("bool", array![true, false, true].into_dyn().into())?;
    put_array("scalar", Array::from_elem((), 7_u16).into_dyn().into())?;
    put_array("empty", Array3::<i8>::zeros((2, 0, 3)).into_dyn().into())?;
    put_array("fortran", Array2::from_shape_fn((3, 2).f(), |(i, j)| (i + j) as f32).into_dyn().into())?;
    let frame = |name: &str, array: AnyArray| -> std::result::Result<(), Box<dyn Error>> {
        let (bytes, format) = stored(array, Compression::Small)?;
        Ok(put(seeds, &format, name, &bytes)?)
    };
    frame("zeros", Array2::<f32>::zeros((100, 200)).into_dyn().into())?;
    frame("smooth", Array1::from_iter((0..5000).map(|i| f64::from(i / 300))).into_dyn().into())?;
    frame("bools", Array1::from_iter((0..33_000).map(|i| i % 5000 == 0)).into_dyn().into())?;
    frame("fortran", Array2::from_shape_fn((90, 100).f(), |(i, j)| (i / 40 + j / 50) as f32).into_dyn().into())?;
    // Two chunks, the first of zeros.
    frame("chunks", Array1::from_iter((0..700_000).map(|i| u64::from(i > 699_000))).into_dyn().into())?;
    Ok(())
}

/// What `arbitrary` reads as variant `index` of `count`.
fn variant(index: u32, count: u32) -> [u8; 4] {
    let first = (u64::from(index) << 32).div_ceil(u64::from(count));
    (first as u32).to_le_bytes()
}

fn plain(seeds: &Path) -> std::result::Result<(), Box<dyn Error>> {
    let map: HashMap<String, Vec<u32>> = [("a".to_owned(), vec![1, 2]), (String::new(), vec![])].into();
    let text = "the quick brown fox ".repeat(100);
    let nested = (Some((1_u8, Some("x".to_owned()))), (true, 'é', [1_u16, 2, 3]), vec![None, Some(-1_i128)]);
    let raw = [
        ("bytes", stored(vec![1_u8, 2, 3], Compression::Never)?.0),
        ("text", stored("grüße", Compression::Never)?.0),
        ("floats", stored(vec![1.0, f64::NAN], Compression::Never)?.0),
        ("map", stored(map, Compression::Never)?.0),
        ("nested", stored((nested.0.clone(), nested.1.0, nested.1.1, nested.2.clone()), Compression::Never)?.0),
        ("units", 3_u64.to_le_bytes().to_vec()),
        ("unit-set", 1_u64.to_le_bytes().to_vec()),
    ];
    for (of, (name, bytes)) in raw.iter().enumerate() {
        for (form, way) in ["raw", "lz4", "zstd"].iter().enumerate() {
            let input = [&variant(form as u32, 5), &variant(of as u32, 7), &[0][..], bytes].concat();
            put(seeds, "bincode", &format!("{name}-{way}"), &input)?;
        }
    }
    for (form, name, compression) in [(3, "lz4", Compression::Auto), (4, "zstd", Compression::Small)] {
        let (bytes, _) = stored(text.as_str(), compression)?;
        let encoded = (text.len() as u64 + 8).to_le_bytes();
        let input = [&variant(form, 5)[..], &variant(1, 7), &[1], &encoded, &bytes].concat();
        put(seeds, "bincode", &format!("frame-{name}"), &input)?;
    }
    Ok(())
}

fn texts(seeds: &Path) -> std::result::Result<(), Box<dyn Error>> {
    let document = json!({"a": [1, -2.5, null, true], "b": {"ü": "\n"}, "c": 1e300, "d": u64::MAX});
    put(seeds, "json", "document", &stored(document, Compression::Never)?.0)?;
    put(seeds, "json", "deep", "[".repeat(200).as_bytes())?;
    let keys = [
        r#""flights""#,
        r#"["station",7,true,null,-1.5]"#,
        r#"{"$int":"340282366920938463463374607431768211455"}"#,
        r#"{"$float":"NaN"}"#,
        r#"{"$bytes":"00ff"}"#,
        r#"{"$path":"data/a.csv"}"#,
        r#"{"$path_bytes":"61ff"}"#,
        r#"{"$digest":"00112233445566778899aabbccddeeff"}"#,
        r#"{"$map":[["a",1],["b",[]]]}"#,
        r#"{"$variant":["Name",{"$variant":["Other"]}]}"#,
        "1e300",
        r#""\u0001\n""#,
    ];
    for (index, key) in keys.iter().enumerate() {
        put(seeds, "key", &format!("{index:02}"), key.as_bytes())?;
    }
    attacks(seeds, &keys)
}

fn attacks(seeds: &Path, keys: &[&str]) -> std::result::Result<(), Box<dyn Error>> {
    const FORMS: u32 = 12;
    let attack = |form: u32, which: u8, at: u32, bytes: &[u8]| -> Vec<u8> {
        [&variant(form, FORMS)[..], &[which], &at.to_le_bytes(), bytes].concat()
    };
    let label = json!({
        "icechest": 1, "key": "\"bytes\"", "kind": "plain", "type": "Vec<u8>", "format": "bincode", "bytes": 3,
        "created_ns": 1, "payload": 0, "checksums": "99aa06d3014798d86001c324468d497f", "about": null,
    });
    let inputs = [
        ("file", attack(0, 0, 0, b"x")),
        ("part", attack(1, 1, 20, b"x")),
        ("alone", attack(2, 2, 0, b"x")),
        ("part-alone", attack(3, 3, 9, b"x")),
        ("label", attack(4, 0, 0, label.to_string().as_bytes())),
        ("field", attack(5, 1, 8 * 3, keys[1].as_bytes())),
        ("field-payload", attack(5, 7, 8 * 3, b"18446744073709551615")),
        ("link", attack(6, 0, 0, b"")),
        ("catalog", attack(7, 0, 0, b"SQLite format 3\0")),
        ("catalog-part", attack(8, 0, 4096 + 8, b"\0\xff")),
        ("log", attack(9, 0, 0, &[0x37, 0x7f, 6, 0x82, 0, 0x2d, 0xe2, 0x18])),
        ("manifest", attack(10, 0, 0, br#"{"format":"icechest","version":1}"#)),
        ("row-file", attack(11, 0, 0, b"values/../../outside")),
        ("row-file-up", attack(11, 0, 0, b"../outside")),
        ("row-key", attack(11, 1, 0, keys[8].as_bytes())),
        ("row-format", attack(11, 4, 0, b"b2nd")),
        ("row-about", attack(11, 5, 0, br#"{"encoded":1}"#)),
        ("row-stored", attack(11, 9, 0, &[255; 7])),
        ("row-payload", attack(11, 10, 0, &[255; 7])),
        ("row-version", attack(11, 13, 0, &[255, 255, 255, 255, 255, 255, 255, 127])),
    ];
    for (name, bytes) in inputs {
        put(seeds, "label_and_check", name, &bytes)?;
    }
    for (index, step) in [3_usize, 7, 11, 101].into_iter().enumerate() {
        let bytes: Vec<u8> = (0..400).map(|i| (i * step * step / 5) as u8).collect();
        put(seeds, "operations", &format!("{index}"), &bytes)?;
    }
    Ok(())
}

#[cfg(feature = "arrow")]
fn frames(seeds: &Path) -> std::result::Result<(), Box<dyn Error>> {
    use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int32Array, RecordBatch, StringArray};
    use std::sync::Arc;
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "", "grüße"]));
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]));
    let floats: ArrayRef = Arc::new(Float64Array::from_iter_values((0..3).map(f64::from)));
    let columns = [("numbers", numbers), ("names", names), ("flags", flags), ("floats", floats)];
    for (name, compression) in [("zstd", Compression::Auto), ("lz4", Compression::Never)] {
        let batch = RecordBatch::try_from_iter(columns.clone())?;
        put(seeds, "parquet", name, &stored(batch, compression)?.0)?;
        for (column, array) in &columns {
            let batch = RecordBatch::try_from_iter([(*column, array.clone())])?;
            put(seeds, "parquet", &format!("{column}-{name}"), &stored(batch, compression)?.0)?;
        }
    }
    Ok(())
}
