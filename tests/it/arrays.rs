//! Arrays of every type, dimension, order and size.

use std::fmt::Debug;

use half::f16;
use icechest::{AnyArray, Chest, Compression, Element, ErrorKind};
use ndarray::{Array, Array0, Array1, Array2, ArrayD, Axis, Dimension, IxDyn, ShapeBuilder, s};
use ndarray::{Ix0, Ix1, Ix2, Ix3, Ix4, Ix5, Ix6};
use num_complex::Complex;

use crate::helpers::{Case, come_back, come_back_in, dir, same_by};

/// Elements that are told apart bit by bit.
trait Bits: Element {
    fn bits(self) -> u128;
    /// The element with the low bits of `bits`, whatever they mean.
    fn of_bits(bits: u128) -> Self;
}

macro_rules! bits {
    ($($type:ty: |$self:ident| $bits:expr, |$from:ident| $of:expr;)*) => {$(
        impl Bits for $type {
            fn bits($self) -> u128 {
                $bits as u128
            }
            fn of_bits($from: u128) -> Self {
                $of
            }
        }
    )*};
}
bits! {
    bool: |self| self, |b| b & 1 == 1;
    i8: |self| self as u8, |b| b as i8;
    i16: |self| self as u16, |b| b as i16;
    i32: |self| self as u32, |b| b as i32;
    i64: |self| self as u64, |b| b as i64;
    u8: |self| self, |b| b as u8;
    u16: |self| self, |b| b as u16;
    u32: |self| self, |b| b as u32;
    u64: |self| self, |b| b as u64;
    f16: |self| self.to_bits(), |b| f16::from_bits(b as u16);
    f32: |self| self.to_bits(), |b| f32::from_bits(b as u32);
    f64: |self| self.to_bits(), |b| f64::from_bits(b as u64);
    Complex<f32>: |self| u128::from(self.re.to_bits()) << 32 | u128::from(self.im.to_bits()),
        |b| Complex::new(f32::from_bits((b >> 32) as u32), f32::from_bits(b as u32));
    Complex<f64>: |self| u128::from(self.re.to_bits()) << 64 | u128::from(self.im.to_bits()),
        |b| Complex::new(f64::from_bits((b >> 64) as u64), f64::from_bits(b as u64));
}

/// Runs a generic function for every element type.
macro_rules! for_every_type {
    ($function:ident($($argument:expr),*)) => {{
        for_every_type!(@ $function, ($($argument),*), bool i8 i16 i32 i64 u8 u16 u32 u64 f16 f32 f64);
        $function::<Complex<f32>>($($argument),*);
        $function::<Complex<f64>>($($argument),*);
    }};
    (@ $function:ident, $arguments:tt, $($type:ty)*) => {$( $function::<$type> $arguments; )*};
}

/// The same shape, order and bits.
fn identical<A: Bits, D: Dimension>(a: &Array<A, D>, b: &Array<A, D>) -> bool {
    let is_fortran = |array: &Array<A, D>| !array.is_standard_layout() && array.t().is_standard_layout();
    a.shape() == b.shape()
        && is_fortran(a) == is_fortran(b)
        && a.iter().zip(b).all(|(a, b)| a.bits() == b.bits())
        && b.len() == b.iter().count()
}

fn array_case<A: Bits, D: Dimension + Send + Sync + 'static>(array: Array<A, D>) -> Box<dyn Case> {
    same_by(array, identical::<A, D>)
}

/// Bits without any pattern: no compression makes them smaller.
fn noise(index: usize) -> u128 {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let low = mix((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
    u128::from(mix(low)) << 64 | u128::from(low)
}

/// Values that go up in steps, as measurements do: compression pays.
fn smooth(index: usize) -> u128 {
    (index / 64) as u128
}

fn filled<A: Bits, D: Dimension>(shape: impl ShapeBuilder<Dim = D>, bits: fn(usize) -> u128) -> Array<A, D> {
    let mut array = Array::from_elem(shape, A::of_bits(0));
    array.iter_mut().enumerate().for_each(|(i, element)| *element = A::of_bits(bits(i)));
    array
}

#[test]
fn every_type_comes_back_in_every_dimension() {
    fn cases<A: Bits>(all: &mut Vec<Box<dyn Case>>) {
        let shape = [2, 3, 1, 4, 2, 3];
        macro_rules! dimensions {
            ($($dimension:ty),*) => {$({
                let ndim = <$dimension>::NDIM.unwrap();
                let mut dim = <$dimension>::zeros(ndim);
                dim.slice_mut().copy_from_slice(&shape[..ndim]);
                all.push(array_case(filled::<A, _>(dim.clone(), noise)));
                all.push(array_case(filled::<A, _>(dim.f(), noise)));
            })*};
        }
        dimensions!(Ix0, Ix1, Ix2, Ix3, Ix4, Ix5, Ix6);
        for ndim in 0..=12 {
            let shape: Vec<usize> = (0..ndim).map(|axis| 1 + axis % 2).collect();
            all.push(array_case(filled::<A, _>(IxDyn(&shape), noise)));
            all.push(array_case(filled::<A, _>(IxDyn(&shape).f(), noise)));
        }
    }
    let mut all = Vec::new();
    for_every_type!(cases(&mut all));
    assert_eq!(all.len(), 14 * (14 + 26));
    come_back(&all);
}

#[test]
fn every_type_is_compressed_and_comes_back() {
    fn cases<A: Bits>(all: &mut Vec<Box<dyn Case>>) {
        for shape in [vec![65_536], vec![37, 11, 201]] {
            all.push(array_case(filled::<A, _>(IxDyn(&shape), smooth)));
            all.push(array_case(filled::<A, _>(IxDyn(&shape).f(), smooth)));
        }
    }
    let mut all = Vec::new();
    for_every_type!(cases(&mut all));
    come_back_in(|| Chest::builder().compression(Compression::Small), &all);
}

#[test]
fn special_numbers_come_back_bit_for_bit() {
    let halves: Array1<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    let singles = Array1::from(
        [0, 1, 0x8000_0000, 0x7f80_0000, 0xff80_0000, 0x7f80_0001, 0x7fc0_dead, 0xffff_ffff, 0x7f7f_ffff]
            .map(f32::from_bits)
            .to_vec(),
    );
    let doubles = Array1::from(
        [0, 1, 1 << 63, 0x7ff0_0000_0000_0000, 0x7ff0_0000_0000_0001, 0x7ff8_dead_beef_cafe, u64::MAX, 1 << 52]
            .map(f64::from_bits)
            .to_vec(),
    );
    let complex = doubles.mapv(|x| Complex::new(x, -x));
    let integers = Array1::from(vec![i64::MIN, -1, 0, 1, i64::MAX]);
    come_back(&[
        array_case(halves),
        array_case(singles),
        array_case(doubles),
        array_case(complex),
        array_case(integers),
        array_case(Array1::from(vec![u64::MAX, 0])),
        array_case(Array1::from(vec![i8::MIN, i8::MAX])),
    ]);
}

#[test]
fn empty_arrays_and_arrays_of_one_element_come_back() {
    fn cases<A: Bits>(all: &mut Vec<Box<dyn Case>>) {
        for shape in [&[0][..], &[0, 0], &[3, 0], &[0, 3], &[2, 0, 5], &[1], &[1, 1, 1], &[]] {
            all.push(array_case(filled::<A, _>(IxDyn(shape), noise)));
            all.push(array_case(filled::<A, _>(IxDyn(shape).f(), noise)));
        }
        all.push(array_case(Array0::from_elem((), A::of_bits(noise(9)))));
        all.push(array_case(Array2::from_elem((0, usize::MAX >> 1), A::of_bits(0))));
    }
    let mut all = Vec::new();
    for_every_type!(cases(&mut all));
    come_back(&all);
}

#[test]
fn arrays_that_do_not_lie_in_order_come_back() {
    let base = filled::<f64, Ix3>(Ix3(6, 7, 8), noise);
    let mut reversed = base.clone();
    reversed.invert_axis(Axis(0));
    reversed.invert_axis(Axis(2));
    let mut all_reversed = Array1::from_iter((0..1000).map(f64::from));
    all_reversed.invert_axis(Axis(0));
    let large = filled::<u16, Ix3>(Ix3(130, 90, 110), noise);
    come_back(&[
        array_case(base.clone().permuted_axes([1, 0, 2])),
        array_case(base.clone().permuted_axes([2, 0, 1])),
        array_case(base.clone().reversed_axes()),
        array_case(base.clone().slice_move(s![1..5;2, .., 3..])),
        array_case(base.clone().slice_move(s![..;-1, ..;-2, ..])),
        array_case(base.slice_move(s![3, .., 2])),
        array_case(reversed),
        array_case(all_reversed),
        // Larger than what is gathered in one go.
        array_case(large.clone().permuted_axes([0, 2, 1])),
        array_case(large.slice_move(s![..;-1, 1.., ..;3])),
    ]);
}

#[test]
fn views_are_stored_as_what_they_show() {
    let base = filled::<i32, Ix2>(Ix2(20, 30), noise);
    let dir = dir();
    let chest = Chest::open(dir.path()).unwrap();
    chest.insert("whole", base.view()).unwrap();
    chest.insert("transposed", base.t()).unwrap();
    chest.insert("row", base.row(7)).unwrap();
    chest.insert("part", base.slice(s![2..;3, ..;-2])).unwrap();
    drop(chest);
    let chest = Chest::open(dir.path()).unwrap();
    assert!(identical(&*chest.get::<Array2<i32>>("whole").unwrap(), &base));
    assert!(identical(&*chest.get::<Array2<i32>>("transposed").unwrap(), &base.t().to_owned()));
    assert_eq!(*chest.get::<Array1<i32>>("row").unwrap(), base.row(7));
    assert_eq!(*chest.get::<Array2<i32>>("part").unwrap(), base.slice(s![2..;3, ..;-2]));
}

#[test]
fn what_compresses_is_b2nd_and_what_does_not_is_npy() {
    let dir = dir();
    let chest = Chest::builder().inline_limit(2000).open(dir.path()).unwrap();
    chest.insert("smooth", filled::<f64, _>(Ix2(500, 400), smooth)).unwrap();
    chest.insert("noise", filled::<f64, _>(Ix2(500, 400), noise)).unwrap();
    chest.insert("small", filled::<f64, _>(Ix2(5, 4), smooth)).unwrap();
    chest.flush().unwrap();
    let info = |key: &str| chest.info(key).unwrap();
    let formats = ["smooth", "noise", "small"].map(|key| info(key).format.unwrap());
    assert_eq!(formats, ["b2nd", "npy", "npy"]);
    assert!(info("smooth").stored_bytes < info("smooth").bytes / 4);
    assert!(info("noise").stored_bytes < info("noise").bytes + 4096);
    assert!(chest.file("smooth").unwrap().unwrap().extension().unwrap() == "b2nd");
    assert!(chest.file("noise").unwrap().unwrap().extension().unwrap() == "npy");
    assert_eq!(info("small").file, None);
    let about = info("noise").about;
    assert_eq!(
        (&about["dtype"], &about["order"], &about["shape"]),
        (&"<f8".into(), &"C".into(), &vec![500, 400].into())
    );
    // What was done, and why.
    assert_eq!((&about["compression"], &about["why"]), (&"none".into(), &"a sample shrinks only to 100.0 %".into()));
    let about = info("smooth").about;
    assert!(about["compression"].as_str().unwrap().starts_with("lz4+"), "{about}");
    assert!(about["why"].as_str().unwrap().contains("the disk reads"), "{about}");
    assert_eq!(info("small").about["compression"], serde_json::Value::Null);
}

#[test]
fn the_disk_decides_how_an_array_is_compressed() {
    let how = |compression, speed: &str| {
        let chest = Chest::builder().compression(compression).disk_speed(speed).temporary().unwrap();
        chest.insert("walk", filled::<f64, _>(Ix2(500, 400), smooth)).unwrap();
        chest.flush().unwrap();
        chest.info("walk").unwrap().about["compression"].as_str().unwrap().to_owned()
    };
    assert_ne!(how(Compression::Auto, "10MB"), "none");
    // Memory could not be faster.
    assert_eq!(how(Compression::Auto, "1000TB"), "none");
    assert_eq!(how(Compression::Fast, "1000TB"), "lz4+shuffle");
    assert!(how(Compression::Small, "1000TB").starts_with("lz4hc+"));
    assert_eq!(how(Compression::Never, "1MB"), "none");
}

#[test]
fn compression_is_what_the_user_chose() {
    let stored = |compression| {
        let dir = dir();
        let chest = Chest::builder().compression(compression).open(dir.path()).unwrap();
        chest.insert("smooth", filled::<f32, _>(Ix1(200_000), smooth)).unwrap();
        chest.flush().unwrap();
        chest.info("smooth").unwrap().format.unwrap()
    };
    assert_eq!([Compression::Never, Compression::Auto, Compression::Small].map(stored), ["npy", "b2nd", "b2nd"]);
}

#[test]
fn lengths_around_block_boundaries_come_back() {
    const BLOCK: usize = 1 << 20;
    const HEADER: usize = 128;
    let mut all = Vec::new();
    for blocks in [1, 2] {
        for offset in [-1, 0, 1] {
            let len = (blocks * BLOCK - HEADER).strict_add_signed(offset);
            all.push(array_case(filled::<u8, _>(Ix1(len), noise)));
            all.push(array_case(filled::<u8, _>(Ix1(len + HEADER), noise)));
            all.push(array_case(filled::<u8, _>(Ix1(len), smooth)));
        }
    }
    come_back_in(|| Chest::builder().compression(Compression::Auto), &all);
    come_back_in(|| Chest::builder().compression(Compression::Never), &all);
}

#[test]
fn arrays_of_several_mib_come_back_in_both_orders() {
    let mut all = Vec::new();
    for bits in [noise, smooth] {
        all.push(array_case(filled::<f64, _>(Ix2(1031, 997), bits)));
        all.push(array_case(filled::<f64, _>(Ix2(1031, 997).f(), bits)));
        all.push(array_case(filled::<f32, _>(Ix3(3, 701, 1009).f(), bits)));
        all.push(array_case(filled::<u16, _>(Ix1(3_000_017), bits)));
        all.push(array_case(filled::<Complex<f64>, _>(Ix4(7, 31, 101, 13).f(), bits)));
    }
    come_back_in(Chest::builder, &all);
}

/// The message of a wrong type, and proof that the value is unharmed.
fn refused<V: icechest::Value + Debug>(chest: &Chest, key: &str, stored: &str, wanted: &str) {
    let error = chest.get::<V>(key).unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::WrongType, Some(&key.into())));
    let text = error.to_string();
    assert!(text.contains(stored) && text.contains(wanted), "{text}");
}

#[test]
fn a_wrong_type_is_refused_naming_both() {
    let dir = dir();
    let check = |chest: &Chest| {
        refused::<Array2<f32>>(chest, "m", "Array<f64, 2>", "Array<f32, 2>");
        refused::<Array1<f64>>(chest, "m", "Array<f64, 2>", "Array<f64, 1>");
        refused::<ArrayD<i64>>(chest, "m", "Array<f64, 2>", "Array<i64, dyn>");
        refused::<Vec<f64>>(chest, "m", "array Array<f64, 2>", "plain value Vec<f64>");
        refused::<Array1<f64>>(chest, "text", "plain value String", "array Array<f64, 1>");
        refused::<AnyArray>(chest, "text", "plain value String", "array AnyArray");
        assert_eq!(chest.get::<Array2<f64>>("m").unwrap().sum(), 6.0);
    };
    let chest = Chest::open(dir.path()).unwrap();
    chest.insert("m", Array2::from_elem((2, 3), 1.0)).unwrap();
    chest.insert("text", "no array").unwrap();
    check(&chest);
    drop(chest);
    check(&Chest::open(dir.path()).unwrap());
}

#[test]
fn any_array_reads_what_is_typed_and_the_other_way_round() {
    fn check<A: Bits>()
    where
        AnyArray: From<ArrayD<A>>,
    {
        let chest = Chest::temporary().unwrap();
        let array = filled::<A, _>(IxDyn(&[3, 5]).f(), noise);
        chest.insert("typed", array.clone().into_dimensionality::<Ix2>().unwrap()).unwrap();
        chest.insert("any", AnyArray::from(array.clone())).unwrap();
        for _ in 0..2 {
            let any = chest.get::<AnyArray>("typed").unwrap();
            assert_eq!((any.dtype(), any.element_name(), any.shape()), (A::DTYPE, A::NAME, &[3, 5][..]));
            assert!(identical(any.downcast_ref::<A>().unwrap(), &array));
            assert!(identical(&*chest.get::<ArrayD<A>>("any").unwrap(), &array));
            assert!(identical(&chest.get::<Array2<A>>("any").unwrap().view().into_dyn().to_owned(), &array));
            assert_eq!(chest.get::<Array1<A>>("any").unwrap_err().kind(), ErrorKind::WrongType);
            chest.flush().unwrap();
            chest.set_budget(0).unwrap();
        }
    }
    for_every_type!(check());
}

#[test]
fn a_dynamic_array_reads_as_a_fixed_dimension_and_back() {
    let chest = Chest::temporary().unwrap();
    chest.insert("d", filled::<f32, _>(IxDyn(&[4, 6]), noise)).unwrap();
    let fixed = chest.get::<Array2<f32>>("d").unwrap();
    let dynamic = chest.get::<ArrayD<f32>>("d").unwrap();
    assert!(identical(&fixed.view().into_dyn().to_owned(), &dynamic));
    assert_eq!(chest.get::<Array<f32, Ix3>>("d").unwrap_err().kind(), ErrorKind::WrongType);
}

#[test]
fn prefetch_takes_any_type_that_reads_the_value() {
    let chest = Chest::temporary().unwrap();
    chest.insert("d", filled::<f32, _>(IxDyn(&[4, 6]), noise)).unwrap();
    assert_eq!(chest.prefetch::<Array2<f32>, _>(["d"]).unwrap().wait().unwrap(), 1);
    assert_eq!(chest.prefetch::<AnyArray, _>(["d"]).unwrap().wait().unwrap(), 1);
}

#[test]
fn the_size_is_that_of_the_elements() {
    let chest = Chest::temporary().unwrap();
    chest.insert("a", filled::<f64, _>(Ix2(100, 10), noise)).unwrap();
    let overhead = size_of::<Array2<f64>>() as u64;
    assert_eq!(chest.info("a").unwrap().bytes, 8000 + overhead);
    assert_eq!(chest.stats().unwrap().resident_bytes, 8000 + overhead);
}

#[test]
fn npy_files_of_our_own_are_read() {
    let array = filled::<i16, _>(IxDyn(&[3, 4, 5]).f(), noise);
    let mut file = tempfile::tempfile().unwrap();
    let any = AnyArray::from(array.clone());
    any.write_npy(&mut file).unwrap();
    assert!(identical(AnyArray::from_npy(file).unwrap().downcast_ref::<i16>().unwrap(), &array));
}

#[test]
fn npy_files_that_lie_are_refused() {
    use std::io::Write;
    let header = |text: &str| {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.extend([0; 24]);
        bytes
    };
    let files = [
        (Vec::new(), ErrorKind::Damaged),
        (b"PAR1".to_vec(), ErrorKind::Damaged),
        (b"\x93NUMPY\x09\x00\x00\x00".to_vec(), ErrorKind::Damaged),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (4,), }"), ErrorKind::Damaged),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (18446744073709551615, 2), }"), ErrorKind::Damaged),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }"), ErrorKind::Damaged),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"), ErrorKind::Unsupported),
        (header("{'descr': '<U2', 'fortran_order': False, 'shape': (1,), }"), ErrorKind::Unsupported),
        (header("{'descr': '<f99999999999', 'fortran_order': False, 'shape': (0,), }"), ErrorKind::Unsupported),
        (header("{'descr': '<é', 'fortran_order': False, 'shape': (0,), }"), ErrorKind::Unsupported),
        (header("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }"), ErrorKind::Unsupported),
    ];
    for (bytes, kind) in files {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let error = AnyArray::from_npy(file).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}: {}", String::from_utf8_lossy(&bytes));
    }
    let mut truth = header("{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }");
    let end = truth.len();
    truth[end - 23] = 7;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&truth).unwrap();
    assert_eq!(AnyArray::from_npy(file).unwrap_err().kind(), ErrorKind::Damaged, "7 is no truth value");
}
