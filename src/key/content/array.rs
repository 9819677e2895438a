//! Digests of arrays.

use ndarray::{
    Array, ArrayBase, ArrayD, ArrayView2, ArrayViewD, ArrayViewMut2, ArrayViewMutD, Axis, Data, Dimension, IxDyn,
};

use super::{Content, little_endian};
use crate::key::Digest;
use crate::key::outline::Outline;
use crate::key::stream::Stream;
use crate::value::Element;

/// Bytes that a thread brings in order at a time: what stays in the processor's cache.
const GATHERED: usize = 1 << 20;

/// The same where rows are long: enough of them that all of each line of the cache is used, also where it goes down the
/// rows, as in Fortran order.
const LONG_ROWS: usize = 32;
const GATHERED_LONG: usize = 16 << 20;

/// Longer rows are brought in order one by one.
const LONGEST_ROW: usize = GATHERED_LONG / 4;

/// Rows and columns that are brought in order together where memory goes down the rows: as many as the cache holds.
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
    if row_bytes > LONGEST_ROW {
        return array.outer_iter().for_each(|row| push(row, stream));
    }
    let at_a_time = GATHERED.max((LONG_ROWS * row_bytes).min(GATHERED_LONG));
    stream.push_made(rows as u64, row_bytes, at_a_time, |rows, block: &mut Option<ArrayD<A>>| {
        let rows = array.slice_axis(Axis(0), (rows.start as usize..rows.end as usize).into());
        let known = block.take().filter(|block| block.len_of(Axis(0)) >= rows.len_of(Axis(0)));
        let first = rows[IxDyn(&vec![0; rows.ndim()])];
        let block = block.insert(known.unwrap_or_else(|| Array::from_elem(rows.raw_dim(), first)));
        gather(block.slice_axis_mut(Axis(0), (..rows.len_of(Axis(0))).into()), rows.view());
        // Always a slice: it was made in order.
        let elements = block.as_slice().unwrap_or_default();
        little_endian(A::bytes(&elements[..rows.len()]), width::<A>())
    });
}

/// Copies elements to where they lie in order.
fn gather<A: Element>(mut block: ArrayViewMutD<'_, A>, elements: ArrayViewD<'_, A>) {
    let stride = |axis: &Axis| elements.stride_of(*axis).unsigned_abs();
    let last = Axis(elements.ndim() - 1);
    let nearest = (0..elements.ndim()).map(Axis).filter(|axis| elements.len_of(*axis) > 1).min_by_key(stride);
    // Memory that goes along the rows, or planes that are too small to be worth it.
    let is_plane = |axis: &Axis| *axis != last && elements.len_of(*axis) * elements.len_of(last) >= 8 * TILE;
    let Some(nearest) = nearest.filter(is_plane) else { return block.assign(&elements) };
    if let Some(other) = (0..last.0).map(Axis).find(|axis| *axis != nearest) {
        let planes = block.axis_iter_mut(other).zip(elements.axis_iter(other));
        planes.for_each(|(block, elements)| gather(block, elements));
        return;
    }
    match (block.view_mut().into_dimensionality(), elements.view().into_dimensionality()) {
        (Ok(block), Ok(elements)) => gather_plane(block, elements),
        _ => block.assign(&elements),
    }
}

/// Memory goes along the rows of `block`, but down those of `elements`, which may be far apart: each tile is copied as it
/// lies, by few instructions, so that the processor waits for several columns at once, and brought in order from there.
fn gather_plane<A: Element>(mut block: ArrayViewMut2<'_, A>, elements: ArrayView2<'_, A>) {
    let Some(&any) = elements.first() else { return };
    let mut tile = [[any; TILE]; TILE];
    let rows = block.axis_chunks_iter_mut(Axis(0), TILE).zip(elements.axis_chunks_iter(Axis(0), TILE));
    for (mut block, elements) in rows {
        let tiles = block.axis_chunks_iter_mut(Axis(1), TILE).zip(elements.axis_chunks_iter(Axis(1), TILE));
        for (mut block, elements) in tiles {
            for (column, place) in elements.columns().into_iter().zip(&mut tile) {
                let place = &mut place[..column.len()];
                match column.as_slice() {
                    Some(column) => place.copy_from_slice(column),
                    None => place.iter_mut().zip(column).for_each(|(place, &element)| *place = element),
                }
            }
            // No more than that, which spares the check of each index.
            for (index, mut row) in block.rows_mut().into_iter().enumerate().take(TILE) {
                match row.as_slice_mut() {
                    Some(places) => places.iter_mut().zip(&tile).for_each(|(place, column)| *place = column[index]),
                    None => row.iter_mut().zip(&tile).for_each(|(place, column)| *place = column[index]),
                }
            }
        }
    }
}

/// The bytes of a number; of a complex one, of either part.
fn width<A: Element>() -> usize {
    if A::DTYPE.starts_with("<c") { size_of::<A>() / 2 } else { size_of::<A>() }
}
