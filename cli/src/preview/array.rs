//! The statistics and a corner of an array.

use std::fmt::Display;
use std::io::{self, Write};

use icechest::{AnyArray, Element};
use ndarray::{ArrayD, ArrayViewD, Axis};

use crate::human;

/// Arrays of so many elements or fewer are shown whole.
const WHOLE: usize = 100;
/// And if a line does not get longer than this.
const WHOLE_LINE: usize = 12;

/// Runs an expression on the array inside, by what its elements are.
macro_rules! by_elements {
    ($any:expr, $array:ident; integers $integers:expr; floats $floats:expr; complex $complex:expr; bools $bools:expr;
     others $others:expr) => {
        match $any {
            AnyArray::Bool($array) => $bools,
            AnyArray::I8($array) => $integers,
            AnyArray::I16($array) => $integers,
            AnyArray::I32($array) => $integers,
            AnyArray::I64($array) => $integers,
            AnyArray::U8($array) => $integers,
            AnyArray::U16($array) => $integers,
            AnyArray::U32($array) => $integers,
            AnyArray::U64($array) => $integers,
            AnyArray::F16($array) => $floats,
            AnyArray::F32($array) => $floats,
            AnyArray::F64($array) => $floats,
            AnyArray::Complex32($array) => $complex,
            AnyArray::Complex64($array) => $complex,
            // The library may learn new types.
            _ => $others,
        }
    };
}

pub(crate) fn show(any: &AnyArray, out: &mut dyn Write) -> io::Result<()> {
    let elements: usize = any.shape().iter().product();
    writeln!(out, "{any}, dtype {}, {}", any.dtype(), human::many(elements, "element"))?;
    by_elements!(any, array;
        integers { integers(array, out)?; corner(array, &|cells| texts(cells, |x| x.to_string()), out) };
        floats { floats(array, out)?; corner(array, &|cells| float_texts(cells), out) };
        complex corner(array, &|cells| texts(cells, |x| format!("{:.4}{:+.4}i", x.re, x.im)), out);
        bools {
            let trues = array.iter().filter(|&&x| x).count();
            writeln!(out, "{} true, {} false", human::count(trues), human::count(array.len() - trues))?;
            corner(array, &|cells| texts(cells, |x| x.to_string()), out)
        };
        others Ok(())
    )
}

/// Gives every element, in C order, as a text that reads back as the same number.
pub(crate) fn cells(any: &AnyArray, take: &mut dyn FnMut(&dyn Display) -> io::Result<()>) -> io::Result<()> {
    by_elements!(any, array;
        integers array.iter().try_for_each(|x| take(x));
        floats array.iter().try_for_each(|x| take(&format_args!("{x:?}")));
        complex array.iter().try_for_each(|x| take(&format_args!("{:?}{:+?}j", x.re, x.im)));
        bools array.iter().try_for_each(|x| take(x));
        others Err(io::Error::new(io::ErrorKind::Unsupported, "the type of its elements is not known here"))
    )
}

fn integers<A: Element + Into<i128>>(array: &ArrayD<A>, out: &mut dyn Write) -> io::Result<()> {
    let mut numbers = array.iter().map(|&x| x.into());
    let Some(first) = numbers.next() else { return Ok(()) };
    let start = (first, first, first);
    let (min, max, sum) = numbers.fold(start, |(min, max, sum), x| (x.min(min), x.max(max), sum + x));
    writeln!(out, "min {min}, max {max}, mean {}", short(sum as f64 / array.len() as f64))
}

fn floats<A: Element + Into<f64>>(array: &ArrayD<A>, out: &mut dyn Write) -> io::Result<()> {
    let (mut min, mut max, mut sum, mut nans) = (f64::INFINITY, f64::NEG_INFINITY, 0.0, 0);
    for &x in array {
        let x: f64 = x.into();
        if x.is_nan() {
            nans += 1;
        } else {
            min = min.min(x);
            max = max.max(x);
            sum += x;
        }
    }
    let count = array.len() - nans;
    if count > 0 {
        write!(out, "min {}, max {}, mean {}", short(min), short(max), short(sum / count as f64))?;
    }
    match (nans, count) {
        (0, 0) => Ok(()),
        (0, _) => writeln!(out),
        (_, 0) => writeln!(out, "all NaN"),
        _ => writeln!(out, ", {} NaN left out", human::count(nans)),
    }
}

/// Six digits, which is enough to look at.
fn short(x: f64) -> String {
    if x == 0.0 || (1e-4..1e7).contains(&x.abs()) {
        let digits = x.abs().log10().floor().clamp(0.0, 6.0) as usize;
        let text = format!("{x:.*}", 6 - digits);
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        text.to_owned()
    } else if x.is_finite() {
        format!("{x:.5e}")
    } else {
        x.to_string()
    }
}

fn texts<A>(cells: &[A], text: impl Fn(&A) -> String) -> Vec<String> {
    cells.iter().map(text).collect()
}

/// Floats with as many decimals as the longest of them needs, so that their points stand in one column.
fn float_texts<A: Element + Into<f64>>(cells: &[A]) -> Vec<String> {
    let numbers: Vec<f64> = cells.iter().map(|&x| x.into()).collect();
    let in_range = |x: &f64| !x.is_finite() || *x == 0.0 || (1e-4..1e7).contains(&x.abs());
    if !numbers.iter().all(in_range) {
        return texts(&numbers, |x| if x.is_finite() { format!("{x:.4e}") } else { x.to_string() });
    }
    let largest = numbers.iter().filter(|x| x.is_finite()).fold(0.0, |max: f64, x| max.max(x.abs()));
    let most = 7 - largest.max(1.0).log10().floor() as usize;
    let needed = |x: &f64| {
        let text = format!("{x:.most$}");
        text.split_once('.').map_or(0, |(_, decimals)| decimals.trim_end_matches('0').len())
    };
    let decimals = numbers.iter().map(needed).max().unwrap_or(0).max(1);
    texts(&numbers, |x| format!("{x:.decimals$}"))
}

type Texts<'a, A> = dyn Fn(&[A]) -> Vec<String> + 'a;

/// The array as NumPy shows it: the ends of each axis, and an ellipsis for what lies between.
fn corner<A: Element>(array: &ArrayD<A>, texts: &Texts<'_, A>, out: &mut dyn Write) -> io::Result<()> {
    if array.is_empty() {
        return Ok(());
    }
    let mut shown = Vec::new();
    let is_whole = array.len() <= WHOLE && array.shape().last().is_none_or(|&len| len <= WHOLE_LINE);
    gather(array.view(), is_whole, &mut shown);
    let texts = texts(&shown);
    let width = texts.iter().map(|text| text.len()).max().unwrap_or(0);
    let mut cells = texts.iter().map(|text| format!("{text:>width$}"));
    let mut text = String::new();
    write_axis(array.shape(), 0, is_whole, &mut cells, &mut text);
    writeln!(out, "\n{text}")
}

/// The indices of an axis that are shown: those of both ends, with `None` for what lies between.
fn picks(shape: &[usize], is_whole: bool) -> Vec<Option<usize>> {
    let len = shape[0];
    // The last two axes make a page; of pages there are fewer.
    let edge = match shape.len() {
        1 | 2 => 3,
        3 => 2,
        _ => 1,
    };
    if is_whole || len <= 2 * edge {
        return (0..len).map(Some).collect();
    }
    (0..edge).map(Some).chain([None]).chain((len - edge..len).map(Some)).collect()
}

fn gather<A: Element>(array: ArrayViewD<'_, A>, is_whole: bool, shown: &mut Vec<A>) {
    if array.ndim() == 0 {
        shown.extend(array.iter().copied());
        return;
    }
    for index in picks(array.shape(), is_whole).into_iter().flatten() {
        gather(array.index_axis(Axis(0), index), is_whole, shown);
    }
}

fn write_axis(
    shape: &[usize],
    depth: usize,
    is_whole: bool,
    cells: &mut dyn Iterator<Item = String>,
    text: &mut String,
) {
    if shape.is_empty() {
        text.push_str(&cells.next().unwrap_or_default());
        return;
    }
    let inner = &shape[1..];
    text.push('[');
    for (i, pick) in picks(shape, is_whole).into_iter().enumerate() {
        if i > 0 {
            // Rows stand below each other, pages with an empty line between.
            let breaks = inner.len().min(2);
            text.push_str(&"\n".repeat(breaks));
            text.push_str(&" ".repeat(if breaks == 0 { 1 } else { depth + 1 }));
        }
        match pick {
            Some(_) => write_axis(inner, depth + 1, is_whole, cells, text),
            None => text.push('…'),
        }
    }
    text.push(']');
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, array};

    use super::*;

    fn shown(array: impl Into<AnyArray>) -> String {
        let mut out = Vec::new();
        show(&array.into(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn small_arrays_are_whole() {
        let text = shown(array![[1.0, f64::NAN], [2.25, -3.0]].into_dyn());
        let expected = "\
f64 array of shape [2, 2], dtype <f8, 4 elements
min -3, max 2.25, mean 0.083333, 1 NaN left out

[[ 1.00   NaN]
 [ 2.25 -3.00]]
";
        assert_eq!(text, expected);
    }

    #[test]
    fn large_arrays_show_their_corners() {
        let text = shown(Array::from_iter(0..1000u32).into_shape_with_order(vec![10, 100]).unwrap());
        assert!(text.contains("min 0, max 999, mean 499.5\n"), "{text}");
        assert!(text.contains("[[  0   1   2 …  97  98  99]\n"), "{text}");
        assert!(text.contains(" …\n"), "{text}");
        assert!(text.ends_with("998 999]]\n"), "{text}");
    }

    #[test]
    fn odd_arrays_are_shown() {
        assert!(shown(Array::<f32, _>::zeros(vec![0, 3])).contains("0 elements\n"));
        assert!(shown(Array::from_elem(vec![], 7i8)).ends_with("\n\n7\n"));
        assert!(shown(Array::from_elem(vec![], f64::NAN)).contains("all NaN\n"));
        assert!(shown(array![1e-30, 1e30].into_dyn()).ends_with("[1.0000e-30  1.0000e30]\n"));
        assert!(shown(array![true, false, true].into_dyn()).contains("2 true, 1 false"));
        assert!(shown(array![i64::MIN, i64::MAX].into_dyn()).contains("min -9223372036854775808, max 922337"));
        assert!(shown(array![u64::MAX].into_dyn()).contains("max 18446744073709551615"));
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 1.0, 499.5, 0.123456789, 1e7, -1e-5, f64::INFINITY].map(short);
        assert_eq!(texts, ["0", "1", "499.5", "0.123457", "1.00000e7", "-1.00000e-5", "inf"]);
    }
}
