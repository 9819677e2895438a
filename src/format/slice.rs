//! Slices of stored arrays: only the blocks and chunks that hold them are read.

use std::io;

use ndarray::{ArrayD, IxDyn, ShapeBuilder, SliceInfoElem};

use super::Decoder;
use super::npy::{self, Layout};
use crate::error::{Error, Result};
use crate::value::Element;

/// Elements of one axis: `count` of them, each `step` after the one before.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Steps {
    start: usize,
    step: usize,
    count: usize,
}

/// What a slice takes from an array of a certain shape.
pub(crate) struct Slice {
    axes: Vec<Steps>,
    /// What makes the slice of just these elements: axes that are turned round, left out or added.
    then: Vec<SliceInfoElem>,
}

impl Slice {
    /// Takes a slice as ndarray understands it; where that would panic, this is an error.
    pub(crate) fn new(shape: &[usize], elements: &[SliceInfoElem]) -> Result<Self> {
        let wrong = || Error::invalid(format!("the slice {elements:?} does not fit an array of shape {shape:?}"));
        let mut slice = Self { axes: Vec::new(), then: Vec::new() };
        let mut lens = shape.iter();
        for element in elements {
            let (steps, then) = match *element {
                SliceInfoElem::NewAxis => {
                    slice.then.push(*element);
                    continue;
                }
                SliceInfoElem::Index(index) => {
                    let &len = lens.next().ok_or_else(wrong)?;
                    let start = from_end(index, len).filter(|&start| start < len).ok_or_else(wrong)?;
                    (Steps { start, step: 1, count: 1 }, SliceInfoElem::Index(0))
                }
                SliceInfoElem::Slice { start, end, step } => {
                    let &len = lens.next().ok_or_else(wrong)?;
                    let start = from_end(start, len).filter(|&start| start <= len).ok_or_else(wrong)?;
                    let end = end.map_or(Some(len), |end| from_end(end, len));
                    let end = end.filter(|&end| end <= len).ok_or_else(wrong)?.max(start);
                    let stride = Some(step.unsigned_abs()).filter(|&stride| stride > 0).ok_or_else(wrong)?;
                    let count = (end - start).div_ceil(stride);
                    let first = if step > 0 || count == 0 { start } else { end - 1 - (count - 1) * stride };
                    let then = SliceInfoElem::Slice { start: 0, end: None, step: step.signum() };
                    (Steps { start: first, step: stride, count }, then)
                }
            };
            slice.axes.push(steps);
            slice.then.push(then);
        }
        if lens.next().is_some() {
            return Err(wrong());
        }
        Ok(slice)
    }

    /// The elements that it takes.
    pub(crate) fn len(&self) -> usize {
        self.axes.iter().map(|axis| axis.count).product()
    }

    /// Reads the elements.
    pub(crate) fn read<A: Element>(mut self, input: &mut Decoder, layout: &Layout) -> Result<ArrayD<A>> {
        let counts: Vec<usize> = self.axes.iter().map(|axis| axis.count).collect();
        let is_reversed = layout.is_reversed();
        let mut shape = layout.shape.clone();
        if is_reversed {
            shape.reverse();
            self.axes.reverse();
        }
        let cannot_read = |error| Error::io("cannot read a part of the array", error);
        let source = npy::elements(input, layout).map_err(cannot_read)?;
        let elements = A::read(self.len(), &mut |bytes| {
            let mut rest = &mut *bytes;
            each_run(&shape, &self.axes, size_of::<A>(), &mut |offset, len| {
                let (run, after) = std::mem::take(&mut rest).split_at_mut(len);
                rest = after;
                source.read_exact_at(run, offset as u64)
            })?;
            layout.to_native(bytes);
            Ok(())
        });
        let array = ArrayD::from_shape_vec(IxDyn(&counts).set_f(is_reversed), elements.map_err(cannot_read)?)
            .map_err(|error| Error::damaged("the array has no such shape").with_source(error))?;
        Ok(array.slice_move(&self.then[..]))
    }
}

/// An index that may count from the end.
fn from_end(index: isize, len: usize) -> Option<usize> {
    if index < 0 { len.checked_add_signed(index) } else { usize::try_from(index).ok() }
}

/// Calls `each(offset, len)` for the runs of bytes of an array in C order that hold the elements, in their order.
fn each_run(
    shape: &[usize],
    axes: &[Steps],
    size: usize,
    each: &mut dyn FnMut(usize, usize) -> io::Result<()>,
) -> io::Result<()> {
    if axes.iter().any(|axis| axis.count == 0) {
        return Ok(());
    }
    let is_whole = |(axis, len): &(&Steps, &usize)| axis.count == **len;
    let whole = axes.iter().zip(shape).rev().take_while(is_whole).count();
    let axes = &axes[..axes.len() - whole];
    let inner_bytes = shape[axes.len()..].iter().product::<usize>() * size;
    let Some((last, outer)) = axes.split_last() else { return each(0, inner_bytes) };
    let (runs, run) =
        if last.step == 1 || last.count == 1 { (1, last.count * inner_bytes) } else { (last.count, inner_bytes) };
    let outer_runs: usize = outer.iter().map(|axis| axis.count).product();
    for n in 0..outer_runs {
        // Where the innermost of the outer axes stand, from the last to the first.
        let (mut n, mut offset, mut stride) = (n, 0, shape[outer.len()] * inner_bytes);
        for (axis, len) in outer.iter().zip(shape).rev() {
            offset += (axis.start + n % axis.count * axis.step) * stride;
            n /= axis.count;
            stride *= len;
        }
        for i in 0..runs {
            each(offset + (last.start + i * last.step) * inner_bytes, run)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, IxDyn, s};

    use super::*;

    /// Takes the slice of an array of its own indices.
    fn taken(shape: &[usize], elements: &[SliceInfoElem]) -> Result<ArrayD<usize>> {
        let slice = Slice::new(shape, elements)?;
        let mut found = Vec::new();
        each_run(shape, &slice.axes, 1, &mut |offset, len| {
            found.extend(offset..offset + len);
            Ok(())
        })
        .unwrap();
        let counts: Vec<usize> = slice.axes.iter().map(|axis| axis.count).collect();
        assert_eq!(found.len(), slice.len());
        Ok(ArrayD::from_shape_vec(IxDyn(&counts), found).unwrap().slice_move(&slice.then[..]))
    }

    #[test]
    fn slices_are_those_of_ndarray() {
        let shape = [5, 4, 3];
        let all = ArrayD::from_shape_vec(IxDyn(&shape), (0..60).collect()).unwrap();
        let starts = [-5, -1, 0, 2];
        let ends = [None, Some(-1), Some(0), Some(3)];
        let mut axis = vec![SliceInfoElem::Index(-1), SliceInfoElem::Index(1)];
        for (start, end) in starts.iter().flat_map(|&start| ends.map(|end| (start, end))) {
            axis.extend([-3, -1, 1, 2].map(|step| SliceInfoElem::Slice { start, end, step }));
        }
        let mut cases = 0;
        for &first in &axis {
            for &second in axis.iter().step_by(3) {
                for &third in axis.iter().step_by(5) {
                    let elements = [first, SliceInfoElem::NewAxis, second, third];
                    let Ok(taken) = taken(&shape, &elements) else { continue };
                    assert_eq!(taken, all.slice(&elements[..]), "{elements:?}");
                    cases += 1;
                }
            }
        }
        assert!(cases > 1000, "{cases}");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for elements in [
            s![..].as_ref(),
            s![.., ..6].as_ref(),
            s![5, ..].as_ref(),
            s![-6, ..].as_ref(),
            s![.., .., ..].as_ref(),
            s![6.., ..].as_ref(),
        ] {
            assert!(Slice::new(&[5, 4], elements).is_err(), "{elements:?}");
        }
        let backwards = SliceInfoElem::Slice { start: 3, end: Some(1), step: 1 };
        assert_eq!(Slice::new(&[5], &[backwards]).unwrap().len(), 0);
        assert!(Slice::new(&[5], &[SliceInfoElem::Slice { start: 0, end: None, step: 0 }]).is_err());
    }
}
