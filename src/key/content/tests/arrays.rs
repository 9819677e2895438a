use half::f16;
use ndarray::{Array, Array1, Array2, ArrayD, Axis, IxDyn, ShapeBuilder, Slice, arr0, arr1, arr2, array, s};
use num_complex::Complex;
use proptest::prelude::*;

use super::*;
use crate::{AnyArray, Element};

#[test]
fn types_and_shapes_count() {
    fn zeros<A: Element + Default>() -> Digest {
        Array2::<A>::from_elem((2, 6), A::default()).digest()
    }
    assert_distinct(&[
        zeros::<bool>(),
        zeros::<i8>(),
        zeros::<u8>(),
        zeros::<i16>(),
        zeros::<u16>(),
        zeros::<f16>(),
        zeros::<i32>(),
        zeros::<u32>(),
        zeros::<f32>(),
        zeros::<i64>(),
        zeros::<u64>(),
        zeros::<f64>(),
        zeros::<Complex<f32>>(),
        zeros::<Complex<f64>>(),
        Array2::<u8>::zeros((6, 2)).digest(),
        Array2::<u8>::zeros((3, 4)).digest(),
        Array1::<u8>::zeros(12).digest(),
        Array::<u8, _>::zeros((1, 2, 6)).digest(),
        Array::<u8, _>::zeros((2, 6, 1)).digest(),
        Array2::<u8>::zeros((0, 6)).digest(),
        Array2::<u8>::zeros((6, 0)).digest(),
        Array1::<u8>::zeros(0).digest(),
        arr0(0u8).digest(),
    ]);
}

#[test]
fn elements_count_by_their_bits() {
    let nan = |bits| arr1(&[f64::from_bits(bits)]).digest();
    assert_distinct(&[
        arr1(&[0.0]).digest(),
        arr1(&[-0.0]).digest(),
        nan(0x7ff8_0000_0000_0000),
        nan(0x7ff8_0000_0000_0001),
        nan(0xfff8_0000_0000_0000),
    ]);
    assert_ne!(arr1(&[true, false]).digest(), arr1(&[false, true]).digest());
    let complex = |re, im| arr1(&[Complex::<f32>::new(re, im)]).digest();
    assert_ne!(complex(1.0, 0.0), complex(0.0, 1.0));
}

/// The same elements, laid out in other ways.
fn layouts<A: Element + Default>(array: &ArrayD<A>) -> Vec<ArrayD<A>> {
    let mut fortran = Array::from_elem(array.raw_dim().f(), A::default());
    fortran.assign(array);
    let invert = |mut array: ArrayD<A>| {
        (0..array.ndim()).for_each(|axis| array.invert_axis(Axis(axis)));
        array
    };
    let reversed = invert(invert(array.clone()).as_standard_layout().into_owned());
    let shape: Vec<usize> = array.shape().iter().map(|len| 3 * len + 1).collect();
    let mut spread = Array::from_elem(shape, A::default());
    spread.slice_each_axis_inplace(|_| Slice::new(1, None, 3));
    spread.assign(array);
    vec![fortran, reversed, spread]
}

#[test]
fn layout_plays_no_part() {
    fn check<A: Element + Default>(of: impl Fn(usize) -> A) {
        let shapes: [&[usize]; 9] =
            [&[7], &[3, 4], &[4, 3, 2], &[1, 9], &[9, 1], &[0, 4], &[4, 0], &[300, 400], &[2, 3, 70_000]];
        for shape in shapes {
            let array = ArrayD::from_shape_vec(IxDyn(shape), (0..shape.iter().product()).map(&of).collect()).unwrap();
            for other in layouts(&array) {
                assert_eq!(other.digest(), array.digest(), "{} {shape:?} {:?}", A::NAME, other.strides());
            }
        }
    }
    // Rows that are brought in order one by one, and by several threads.
    for shape in [[5, 1_100_000], [700, 5000]] {
        let array = Array::from_shape_fn(shape, |(i, j)| (i * 7919 + j * 31) as i32).into_dyn();
        let mut fortran = Array::from_elem(array.raw_dim().f(), 0);
        fortran.assign(&array);
        assert_eq!(fortran.digest(), array.digest(), "{shape:?}");
        let odd = Slice::new(1, None, 2);
        assert_eq!(fortran.slice_axis(Axis(1), odd).digest(), array.slice_axis(Axis(1), odd).to_owned().digest());
    }
    check(|i| i % 3 == 0);
    check(|i| i as u8);
    check(|i| i as i64 * 77);
    check(|i| f16::from_f32(i as f32));
    check(|i| Complex::new(i as f64, -1.0));

    let one = array![[1, 2], [3, 4]];
    assert_eq!(one.digest(), arr2(&[[1, 2], [3, 4]]).t().t().digest());
    assert_ne!(one.digest(), one.t().digest());
    assert_eq!(one.slice(s![..;-1, ..]).digest(), array![[3, 4], [1, 2]].digest());
    // One row for all.
    assert_eq!(arr1(&[1, 2]).broadcast((2, 2)).unwrap().digest(), array![[1, 2], [1, 2]].digest());
    assert_eq!(arr0(3).broadcast((5, 0, 2)).unwrap().digest(), Array::<i32, _>::zeros((5, 0, 2)).digest());
}

#[test]
fn whatever_holds_an_array_plays_no_part() {
    let array = array![[1.5, 2.5]];
    assert_eq!(array.digest(), array.clone().into_dyn().digest());
    assert_eq!(array.digest(), array.clone().into_shared().digest());
    assert_eq!(array.digest(), array.view().digest());
    assert_eq!(array.digest(), AnyArray::from(array.clone().into_dyn()).digest());
}

#[test]
fn every_byte_of_a_large_array_counts() {
    let mut array = Array1::<u32>::from_iter(0..3 << 20);
    let before = array.digest();
    for index in [0, 1, (1 << 18) - 1, 1 << 18, 1 << 19, (3 << 20) - 1] {
        array[index] ^= 1 << 31;
        assert_ne!(array.digest(), before, "{index}");
        array[index] ^= 1 << 31;
    }
    assert_eq!(array.digest(), before);
}

proptest! {
    #[test]
    fn neighbours_differ(
        elements in proptest::collection::vec(any::<i16>(), 1..200),
        at in any::<prop::sample::Index>(),
        bit in 0..16,
    ) {
        let array = Array1::from(elements);
        let mut other = array.clone();
        other[at.index(array.len())] ^= 1i16 << bit;
        assert_distinct(&[
            array.digest(),
            other.digest(),
            array.slice(s![1..]).digest(),
            array.view().insert_axis(Axis(0)).digest(),
            array.mapv(i32::from).digest(),
        ]);
    }
}
