//! The Python libraries that people use read what we write (`tests/python/check.py`), and we read what they write
//! (`tests/python/make.py`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::builder::{Int32Builder, ListBuilder, MapBuilder, StringBuilder};
use arrow_array::types::{Int8Type, Int32Type};
use half::f16;
use icechest::{AnyArray, Chest, Compression, Element, IntoValue, Key};
use ndarray::{Array, ArrayD, Axis, Dimension, Ix1, Ix2, Ix3, IxDyn, ShapeBuilder, s};
use num_complex::Complex;
use polars_core::prelude::*;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::helpers::dir;

/// Runs a script of `tests/python`.
fn python(script: &str, arguments: &[&str], dir: &Path) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let interpreter = std::env::var_os("ICECHEST_PYTHON")
        .map_or_else(|| project.join("target/python/bin/python"), PathBuf::from);
    let run = Command::new(&interpreter)
        .arg(project.join("tests/python").join(script))
        .args(arguments)
        .arg(dir)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; run `make python`", interpreter.display()));
    let (said, failed) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{script} says\n{said}{failed}");
}

/// Values of a chest, each in a file, and what Python must find there.
struct Cases {
    chest: Chest,
    dir: TempDir,
    cases: Vec<(Key, Json)>,
}

impl Cases {
    fn new(compression: Compression) -> Self {
        let dir = dir();
        let chest = Chest::builder().inline_limit(0).compression(compression).open(dir.path().join("chest")).unwrap();
        Self { chest, dir, cases: Vec::new() }
    }

    /// Stores a value that looks like `facts` from outside.
    fn add(&mut self, name: String, value: impl IntoValue, mut facts: Json) {
        self.chest.insert(&name, value).unwrap_or_else(|error| panic!("{name}: {error}"));
        facts["name"] = name.as_str().into();
        self.cases.push((name.into(), facts));
    }

    /// As [`add`](Self::add), with bytes that Python compares with.
    fn add_with_bytes(&mut self, name: String, value: impl IntoValue, mut facts: Json, bytes: &[u8]) {
        let file = format!("{}.raw", self.cases.len());
        std::fs::write(self.dir.path().join(&file), bytes).unwrap();
        facts["raw"] = file.into();
        self.add(name, value, facts);
    }

    fn add_array<A: Number, D: Dimension + Send + Sync + 'static>(&mut self, what: &str, array: Array<A, D>) {
        let is_fortran = !array.is_standard_layout() && array.t().is_standard_layout();
        let order = if is_fortran { "F" } else { "C" };
        let name = format!("{}: {what} {} {:?} {order}", self.cases.len(), A::NAME, array.shape());
        let facts = json!({"dtype": A::DTYPE, "shape": array.shape(), "order": order});
        let bytes = bytes_of(&array);
        self.add_with_bytes(name, array, facts, &bytes);
    }

    /// Publishes everything and lets Python compare. Gives the formats of the files.
    fn check(mut self) -> Vec<String> {
        self.chest.flush().unwrap();
        for (key, facts) in &mut self.cases {
            facts["key"] = key.canonical().into();
            facts["file"] = self.chest.file(&*key).unwrap().unwrap().to_str().unwrap().into();
            facts["format"] = self.chest.info(&*key).unwrap().format.unwrap().into();
        }
        let manifest: Vec<_> = self.cases.iter().map(|(_, facts)| facts).collect();
        std::fs::write(self.dir.path().join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
        python("check.py", &[], self.dir.path());
        manifest.iter().map(|facts| facts["format"].as_str().unwrap().to_owned()).collect()
    }
}

const COMPRESSIONS: [Compression; 3] = [Compression::Auto, Compression::Never, Compression::Small];

/// Elements that are made of bits and compared by their bytes.
trait Number: Element + bytemuck::NoUninit {
    fn of(bits: u64) -> Self;
}

macro_rules! numbers {
    ($($type:ty: |$bits:ident| $of:expr;)*) => {
        $(impl Number for $type {
            fn of($bits: u64) -> Self {
                $of
            }
        })*

        /// Runs a generic function for every element type.
        macro_rules! for_every_type {
            ($function:ident($argument:expr)) => {{
                $($function::<$type>($argument);)*
            }};
        }

        /// The elements in C order, whatever their type is.
        fn bytes_of_any(any: &AnyArray) -> Vec<u8> {
            [$(any.downcast_ref::<$type>().map(bytes_of)),*].into_iter().flatten().next().unwrap()
        }
    };
}
numbers! {
    bool: |b| b & 1 == 1;
    i8: |b| b as i8;
    i16: |b| b as i16;
    i32: |b| b as i32;
    i64: |b| b as i64;
    u8: |b| b as u8;
    u16: |b| b as u16;
    u32: |b| b as u32;
    u64: |b| b;
    f16: |b| f16::from_bits(b as u16);
    f32: |b| f32::from_bits(b as u32);
    f64: |b| f64::from_bits(b);
    Complex<f32>: |b| Complex::new(f32::of(b), f32::of(!b));
    Complex<f64>: |b| Complex::new(f64::of(b), f64::of(!b));
}

/// The elements in C order.
fn bytes_of<A: Number, D: Dimension>(array: &Array<A, D>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(array.len() * size_of::<A>());
    array.iter().for_each(|element| bytes.extend_from_slice(bytemuck::bytes_of(element)));
    bytes
}

fn filled<A: Number, D: Dimension>(shape: impl ShapeBuilder<Dim = D>, bits: fn(u64) -> u64) -> Array<A, D> {
    let mut next = 0..;
    Array::from_shape_simple_fn(shape, || A::of(bits(next.next().unwrap())))
}

/// Does not compress; among floats there are NaNs of every kind.
fn noise(i: u64) -> u64 {
    let x = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Compresses well.
fn smooth(i: u64) -> u64 {
    i / 64
}

fn add_small_arrays<A: Number>(cases: &mut Cases)
where
    AnyArray: From<ArrayD<A>>,
{
    for shape in [&[][..], &[0], &[3, 0, 2], &[1], &[7], &[5, 6], &[2, 1, 3, 1, 2, 1, 2, 1, 2]] {
        cases.add_array("small", filled::<A, _>(IxDyn(shape), noise));
        cases.add_array("small", filled::<A, _>(IxDyn(shape).f(), noise));
    }
    let any = filled::<A, _>(IxDyn(&[4, 3]).f(), noise);
    let (facts, bytes) = (json!({"dtype": A::DTYPE, "shape": [4, 3], "order": "F"}), bytes_of(&any));
    cases.add_with_bytes(format!("any {}", A::NAME), AnyArray::from(any), facts, &bytes);
}

fn add_large_arrays<A: Number>(cases: &mut Cases) {
    for bits in [noise, smooth] {
        cases.add_array("large", filled::<A, _>(Ix2(301, 257), bits));
        cases.add_array("large", filled::<A, _>(Ix2(301, 257).f(), bits));
        cases.add_array("large", filled::<A, _>(IxDyn(&[3, 2, 5, 4, 3, 31, 2, 4]), bits));
    }
    cases.add_array("line", filled::<A, _>(Ix1(90_001), smooth));
    let mut turned = filled::<A, _>(Ix3(40, 50, 60), smooth).permuted_axes([1, 2, 0]);
    turned.invert_axis(Axis(1));
    cases.add_array("part", turned.slice(s![.., ..;-2, 1..]).to_owned());
    cases.add_array("turned", turned);
}

#[test]
fn python_reads_small_arrays_of_every_type() {
    let mut cases = Cases::new(Compression::Auto);
    for_every_type!(add_small_arrays(&mut cases));
    let formats = cases.check();
    assert!(formats.iter().all(|format| format == "npy"));
}

#[test]
fn python_reads_large_arrays_of_every_type() {
    let mut cases = Cases::new(Compression::Auto);
    for_every_type!(add_large_arrays(&mut cases));
    let formats = cases.check();
    let compressed = formats.iter().filter(|format| *format == "b2nd").count();
    assert!((formats.len() / 3..formats.len()).contains(&compressed), "{compressed} of {} are b2nd", formats.len());
}

#[test]
fn python_reads_arrays_of_several_chunks_and_blocks() {
    for compression in COMPRESSIONS {
        let mut cases = Cases::new(compression);
        cases.add_array("chunks", filled::<f64, _>(Ix2(1031, 997), smooth));
        cases.add_array("chunks", filled::<f64, _>(Ix2(1031, 997).f(), smooth));
        cases.add_array("chunks", filled::<u16, _>(Ix3(2, 70, 30_011), smooth));
        cases.add_array("noise", filled::<i32, _>(Ix1(700_001), noise));
        let formats = cases.check();
        let expected = if compression == Compression::Never { "npy" } else { "b2nd" };
        assert_eq!(formats, [expected, expected, expected, "npy"]);
    }
}

/// A column of polars: what it is called in Arrow and in polars, and its values.
struct Typed {
    column: Column,
    arrow: &'static str,
    polars: &'static str,
    values: Json,
}

fn typed(column: impl Into<Column>, arrow: &'static str, polars: &'static str, values: Json) -> Typed {
    Typed { column: column.into(), arrow, polars, values }
}

fn series<T, A: ?Sized>(name: &str, values: T) -> Series
where
    Series: NamedFrom<T, A>,
{
    Series::new(name.into(), values)
}

fn number_columns() -> Vec<Typed> {
    macro_rules! integer {
        ($type:ident, $arrow:literal, $polars:literal) => {
            typed(
                series(stringify!($type), [Some($type::MIN), None, Some(7), Some($type::MAX)]),
                $arrow,
                $polars,
                json!([$type::MIN, null, 7, $type::MAX]),
            )
        };
    }
    let floats = json!([1.5, null, "nan", "-inf"]);
    vec![
        typed(
            series("bool", [Some(true), None, Some(false), Some(true)]),
            "bool",
            "Boolean",
            json!([true, null, false, true]),
        ),
        integer!(i8, "int8", "Int8"),
        integer!(i16, "int16", "Int16"),
        integer!(i32, "int32", "Int32"),
        integer!(i64, "int64", "Int64"),
        integer!(u8, "uint8", "UInt8"),
        integer!(u16, "uint16", "UInt16"),
        integer!(u32, "uint32", "UInt32"),
        integer!(u64, "uint64", "UInt64"),
        typed(
            series("f32", [Some(1.5f32), None, Some(f32::NAN), Some(f32::NEG_INFINITY)]),
            "float",
            "Float32",
            floats.clone(),
        ),
        typed(
            series("f64", [Some(1.5f64), None, Some(f64::NAN), Some(f64::NEG_INFINITY)]),
            "double",
            "Float64",
            floats,
        ),
        typed(
            series("exact", [0.1f64, f64::MAX, f64::MIN_POSITIVE, 5e-324]),
            "double",
            "Float64",
            json!([0.1, f64::MAX, f64::MIN_POSITIVE, 5e-324]),
        ),
        typed(
            series("decimal", [Some(-12345i64), None, Some(0), Some(99)]).cast(&DataType::Int128).unwrap()
                .into_decimal_of(20, 3),
            "decimal128(20, 3)",
            "Decimal(precision=20, scale=3)",
            json!(["-12.345", null, "0.000", "0.099"]),
        ),
    ]
}
