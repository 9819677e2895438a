//! Digests of arrays.

use ndarray::{Array, ArrayBase, ArrayViewD, ArrayViewMutD, Axis, Data, Dimension};

use super::{Content, little_endian};
use crate::format::threads;
use crate::key::Digest;
use crate::key::outline::Outline;
use crate::key::stream::Stream;
use crate::value::Element;

/// Bytes of an array that are brought in order at a time: what stays in the processor's cache.
const GATHERED: usize = 256 << 10;

/// The same for several threads, which take a while to be started.
const GATHERED_TOGETHER: usize = 4 << 20;

/// The same where rows are long: enough of them that all of each line of the cache is used, also where it goes down the
/// rows, as in Fortran order.
const LONG_ROWS: usize = 32;
const GATHERED_LONG: usize = 16 << 20;

/// Elements of a row that are brought in order together with those below them.
const TILE: usize = 64;

impl<S: Data<Elem: Element>, D: Dimension> Content for ArrayBase<S, D> {
    fn digest(&self) -> Digest {
        let mut outline = Outline::new("array");
        outline.text(S::Elem::DTYPE);
        outline.number(self.ndim() as u64);
        self.shape().iter().for_each(|&len| outline.number(len as u64));
        let mut stream = Stream::default();
        push(self.view().into_dyn(), &mut stream);
        outline.stream(stream);
        outline.finish()
    }
}

/// Pushes the elements in their logical order.
fn push<A: Element>(array: ArrayViewD<'_, A>, stream: &mut Stream) {
    if let Some(elements) = array.as_slice() {
        stream.push(&little_endian(A::bytes(elements), width::<A>()));
        return;
    }
    // An array that is not contiguous has dimensions, and elements.
    let rows = array.shape()[0];
    let row_bytes = array.len() / rows * size_of::<A>();
    let threads = threads(array.len() * size_of::<A>());
    let gathered = if threads > 1 { GATHERED_TOGETHER } else { GATHERED };
    let at_a_time = (gathered / row_bytes).max(LONG_ROWS.min(GATHERED_LONG / row_bytes)).min(rows);
    let Some(&any) = array.first().filter(|_| at_a_time > 0) else {
        return array.outer_iter().for_each(|row| push(row, stream));
    };
    let mut block = Array::from_elem(array.slice_axis(Axis(0), (..at_a_time).into()).raw_dim(), any);
    for rows in array.axis_chunks_iter(Axis(0), at_a_time) {
        let mut block = block.slice_axis_mut(Axis(0), (..rows.len_of(Axis(0))).into());
        let bytes = rows.len() * size_of::<A>();
        gather(block.view_mut(), rows, threads.min(bytes / GATHERED));
        push(block.view(), stream);
    }
}

/// Copies elements to where they lie in order, with so many threads. Each has lines of the cache of its own, but for a few.
fn gather<A: Element>(block: ArrayViewMutD<'_, A>, rows: ArrayViewD<'_, A>, threads: usize) {
    let last = Axis(rows.ndim() - 1);
    let axis = if rows.len_of(last) >= 2 * TILE { last } else { Axis(0) };
    if threads > 1 && rows.len_of(axis) > 1 {
        let middle = rows.len_of(axis) / 2;
        let (block, block_behind) = block.split_at(axis, middle);
        let (rows, rows_behind) = rows.split_at(axis, middle);
        std::thread::scope(|scope| {
            scope.spawn(|| gather(block_behind, rows_behind, threads / 2));
            gather(block, rows, threads - threads / 2);
        });
        return;
    }
    let mut block = block;
    let len = if rows.ndim() > 1 { TILE } else { rows.len().max(1) };
    let tiles = block.axis_chunks_iter_mut(last, len).zip(rows.axis_chunks_iter(last, len));
    tiles.for_each(|(mut tile, elements)| tile.assign(&elements));
}

/// The bytes of a number; of a complex one, of either part.
fn width<A: Element>() -> usize {
    if A::DTYPE.starts_with("<c") { size_of::<A>() / 2 } else { size_of::<A>() }
}
