//! Arrays that we write.

use half::f16;
use icechest::{AnyArray, Compression, Element};
use ndarray::{Array, ArrayD, Axis, Dimension, Ix1, Ix2, Ix3, IxDyn, ShapeBuilder, s};
use num_complex::Complex;
use serde_json::json;

use super::{COMPRESSIONS, Cases};

impl Cases {
    fn add_array<A: Number, D: Dimension + Send + Sync + 'static>(&mut self, what: &str, array: Array<A, D>) {
        let is_fortran = !array.is_standard_layout() && array.t().is_standard_layout();
        let order = if is_fortran { "F" } else { "C" };
        let name = format!("{}: {what} {} {:?} {order}", self.cases.len(), A::NAME, array.shape());
        let facts = json!({"dtype": A::DTYPE, "shape": array.shape(), "order": order});
        let bytes = bytes_of(&array);
        self.add_with_bytes(name, array, facts, &bytes);
    }
}

impl Cases {
    /// As [`add_array`](Self::add_array), written in blocks of so many rows.
    fn add_rows<A: Number, D: Dimension + Send + Sync + 'static>(&mut self, array: Array<A, D>, rows: usize) {
        self.add_array("rows", array.clone());
        let (key, _) = self.cases.last().unwrap();
        let mut writer = self.chest.array_writer::<A>(key, &array.shape()[1..]).unwrap();
        array.axis_chunks_iter(Axis(0), rows).for_each(|block| writer.write(block).unwrap());
        writer.finish().unwrap();
    }
}

/// Elements that are made of bits and compared by their bytes.
pub(super) trait Number: Element + bytemuck::NoUninit {
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
        pub(super) fn bytes_of_any(any: &AnyArray) -> Vec<u8> {
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
pub(super) fn noise(i: u64) -> u64 {
    let x = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Compresses well.
pub(super) fn smooth(i: u64) -> u64 {
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

#[test]
fn python_reads_arrays_that_were_written_in_pieces() {
    for (compression, expected) in
        [(Compression::Fast, "b2nd"), (Compression::Small, "b2nd"), (Compression::Never, "npy")]
    {
        let mut cases = Cases::new(compression);
        cases.add_rows(filled::<f64, _>(Ix2(3011, 997), smooth), 100);
        // A block that is larger than the beginning; rows that are larger than a chunk; just the beginning; noise.
        cases.add_rows(filled::<i32, _>(Ix1(5_000_001), smooth), 4_999_999);
        cases.add_rows(filled::<u16, _>(Ix3(3, 70, 30_011), smooth), 1);
        cases.add_rows(filled::<u8, _>(Ix1(8 << 20), smooth), 1 << 20);
        let mut turned = filled::<f32, _>(Ix2(40, 100_003), smooth);
        turned.invert_axis(Axis(1));
        cases.add_rows(turned, 7);
        cases.add_rows(filled::<i64, _>(Ix1(2_000_000), noise), 300_000);
        assert_eq!(cases.check(), [expected, expected, expected, expected, expected, "npy"]);
    }
}
