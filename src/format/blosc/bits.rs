//! Blosc2's bit shuffle: bits of one significance lie together, which makes runs of numbers that change by little.
//!
//! Elements of `n` bytes become `8 n` planes: the lowest bits of all elements, then the next ones. Eight elements give a
//! byte to each plane, so what is left over is copied. Here it is made and undone without tables or instructions of any one
//! processor: 64 bytes of each plane are worked on at a time, as numbers of 64 bits that exchange bits, then bytes. The
//! compiler makes the most of whatever vectors there are when it runs. Method: as the transposition of a matrix of bits in
//! H. S. Warren, *Hacker's Delight*, 7-3.

use multiversion::multiversion;

use crate::format::blank::Blank;

/// Numbers that are worked on side by side.
const LANES: usize = 8;

/// Groups of eight elements, each of which has a byte in every plane, that are worked on together.
const GROUPS: usize = 8 * LANES;

/// The most bytes that an element may have, and a tile of such elements.
const WIDEST: usize = 16;
const TILE: usize = GROUPS * 8 * WIDEST;

type Lanes = [u64; LANES];

// Below are loops instead of closures: of what is given to an adapter, the compiler makes no version for other processors.

/// The bytes of elements that this knows to undo.
pub(super) const WIDTHS: [u8; 5] = [1, 2, 4, 8, 16];

/// Writes the elements of `width` bytes, one of [`WIDTHS`], whose shuffled bytes these are.
pub(super) fn undo(width: usize, shuffled: &[u8], dst: &mut Blank<'_>) {
    let (planes, rest) = shuffled.split_at(shuffled.len() - shuffled.len() % (8 * width));
    match width {
        1 => undo_all::<1>(planes, dst),
        2 => undo_all::<2>(planes, dst),
        4 => undo_all::<4>(planes, dst),
        8 => undo_all::<8>(planes, dst),
        _ => undo_all::<16>(planes, dst),
    }
    dst.put(rest);
}

/// Shuffles elements of `width` bytes, one of [`WIDTHS`], into as many bytes.
pub(super) fn make(width: usize, elements: &[u8], shuffled: &mut [u8]) {
    let (elements, rest) = elements.split_at(elements.len() - elements.len() % (8 * width));
    let (planes, rest_shuffled) = shuffled.split_at_mut(elements.len());
    match width {
        1 => make_all::<1>(elements, planes),
        2 => make_all::<2>(elements, planes),
        4 => make_all::<4>(elements, planes),
        8 => make_all::<8>(elements, planes),
        _ => make_all::<16>(elements, planes),
    }
    rest_shuffled.copy_from_slice(rest);
}

#[multiversion(targets("x86_64+avx2"))]
fn undo_all<const N: usize>(planes: &[u8], dst: &mut Blank<'_>) {
    let plane = planes.len() / (8 * N);
    let mut tile = [0; TILE];
    for start in (0..plane).step_by(GROUPS) {
        let groups = GROUPS.min(plane - start);
        if groups == GROUPS {
            undo_tile::<N>(&planes[start..], plane, &mut tile);
        } else {
            let mut padded = [0; TILE];
            for (padded, plane) in padded.chunks_exact_mut(GROUPS).zip(planes.chunks_exact(plane)) {
                padded[..groups].copy_from_slice(&plane[start..]);
            }
            undo_tile::<N>(&padded, GROUPS, &mut tile);
        }
        dst.put(&tile[..groups * 8 * N]);
    }
}

/// Writes the elements of the first [`GROUPS`] bytes of each plane, which begin `plane` bytes apart.
#[inline(always)]
fn undo_tile<const N: usize>(planes: &[u8], plane: usize, dst: &mut [u8; TILE]) {
    let width = N.min(8);
    // Elements, or their first and their second halves.
    for half in (0..N).step_by(8) {
        // A byte of each element, of those bytes that are not all zeros, which most are in numbers that are small or round:
        // how far left it belongs, and the bytes of eight elements to a number.
        let (mut columns, mut count) = ([(0, [[0; LANES]; 8]); 8], 0);
        for byte in 0..width {
            let mut bits = [[0; LANES]; 8];
            for (bit, lanes) in bits.iter_mut().enumerate() {
                let plane = &planes[((half + byte) * 8 + bit) * plane..][..GROUPS];
                for (lane, bytes) in lanes.iter_mut().zip(plane.as_chunks().0) {
                    *lane = u64::from_le_bytes(*bytes);
                }
            }
            if any(&bits) {
                transpose_bits(&mut bits);
                transpose_bytes(&mut bits);
                columns[count] = (8 * byte, bits);
                count += 1;
            }
        }
        for (group, dst) in dst.chunks_exact_mut(8 * N).take(GROUPS).enumerate() {
            let mut elements = [0; 8];
            for (shift, column) in &columns[..count] {
                let bytes = column[group % 8][group / 8].to_le_bytes();
                for (element, byte) in elements.iter_mut().zip(bytes) {
                    *element |= u64::from(byte) << shift;
                }
            }
            for (dst, element) in dst.chunks_exact_mut(N).zip(elements) {
                dst[half..half + width].copy_from_slice(&element.to_le_bytes()[..width]);
            }
        }
    }
}

#[multiversion(targets("x86_64+avx2"))]
fn make_all<const N: usize>(elements: &[u8], planes: &mut [u8]) {
    let plane = planes.len() / (8 * N);
    for (tile, start) in elements.chunks(GROUPS * 8 * N).zip((0..plane).step_by(GROUPS)) {
        if tile.len() == GROUPS * 8 * N {
            make_tile::<N>(tile, &mut planes[start..], plane);
        } else {
            let (mut padded, mut shuffled) = ([0; TILE], [0; TILE]);
            padded[..tile.len()].copy_from_slice(tile);
            make_tile::<N>(&padded, &mut shuffled, GROUPS);
            for (plane, shuffled) in planes.chunks_exact_mut(plane).zip(shuffled.chunks_exact(GROUPS)) {
                plane[start..].copy_from_slice(&shuffled[..tile.len() / (8 * N)]);
            }
        }
    }
}

/// Shuffles [`GROUPS`] times eight elements into as many bytes of each plane.
#[inline(always)]
fn make_tile<const N: usize>(src: &[u8], planes: &mut [u8], plane: usize) {
    let mut bytes = [[[0; LANES]; N]; 8];
    let width = N.min(8);
    for (lane, src) in src.chunks_exact(64 * N).take(LANES).enumerate() {
        for number in 0..N {
            for place in 0..8 {
                let mut elements = [0; 8];
                for (index, element) in elements.chunks_exact_mut(width).enumerate() {
                    let group = number % 8 + width * index;
                    element.copy_from_slice(&src[(group * 8 + place) * N + number / 8 * 8..][..width]);
                }
                bytes[place][number][lane] = u64::from_le_bytes(elements);
            }
        }
    }
    for bytes in &mut bytes {
        for numbers in bytes.chunks_mut(8) {
            transpose_bytes(numbers);
        }
    }
    for byte in 0..N {
        let mut bits = std::array::from_fn::<_, 8, _>(|place| bytes[place][byte]);
        if any(&bits) {
            transpose_bits(&mut bits);
        }
        for (bit, lanes) in bits.iter().enumerate() {
            let plane = &mut planes[(byte * 8 + bit) * plane..][..GROUPS];
            for (bytes, lane) in plane.as_chunks_mut().0.iter_mut().zip(lanes) {
                *bytes = lane.to_le_bytes();
            }
        }
    }
}

/// Whether there is any bit.
#[inline(always)]
fn any(numbers: &[Lanes; 8]) -> bool {
    let mut any = [0; LANES];
    for lanes in numbers {
        for (any, lane) in any.iter_mut().zip(lanes) {
            *any |= lane;
        }
    }
    any != [0; LANES]
}

/// Bit `i` of each byte of number `j` becomes bit `j` of that byte of number `i`.
#[inline(always)]
fn transpose_bits(numbers: &mut [Lanes]) {
    exchange(numbers, 4, 4, 0x0f0f_0f0f_0f0f_0f0f);
    exchange(numbers, 2, 2, 0x3333_3333_3333_3333);
    exchange(numbers, 1, 1, 0x5555_5555_5555_5555);
}

/// The same with bytes, of eight numbers or of any smaller power of two: pieces of so many bytes are transposed.
#[inline(always)]
fn transpose_bytes(numbers: &mut [Lanes]) {
    if numbers.len() >= 8 {
        exchange(numbers, 4, 32, 0x0000_0000_ffff_ffff);
    }
    if numbers.len() >= 4 {
        exchange(numbers, 2, 16, 0x0000_ffff_0000_ffff);
    }
    if numbers.len() >= 2 {
        exchange(numbers, 1, 8, 0x00ff_00ff_00ff_00ff);
    }
}

/// Numbers that are `step` apart exchange the high parts of the one with the low parts of the other.
#[inline(always)]
fn exchange(numbers: &mut [Lanes], step: usize, shift: u32, low: u64) {
    for index in (0..numbers.len()).filter(|index| index & step == 0) {
        let (front, back) = numbers.split_at_mut(index + step);
        for (front, back) in front[index].iter_mut().zip(&mut back[0]) {
            let (a, b) = (*front, *back);
            // Written so that the compiler can blend: twice as fast as with `^`.
            *front = a & low | b << shift & !low;
            *back = a >> shift & low | b & !low;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition, bit by bit.
    fn shuffled(width: usize, bytes: &[u8]) -> Vec<u8> {
        let whole = bytes.len() - bytes.len() % (8 * width);
        let plane = whole / (8 * width);
        let mut shuffled = vec![0; whole];
        for (index, element) in bytes[..whole].chunks_exact(width).enumerate() {
            for bit in 0..8 * width {
                shuffled[bit * plane + index / 8] |= (element[bit / 8] >> (bit % 8) & 1) << (index % 8);
            }
        }
        shuffled.extend(&bytes[whole..]);
        shuffled
    }

    #[test]
    fn elements_of_all_lengths_come_back() {
        let mut random = fastrand::Rng::with_seed(7);
        for width in WIDTHS.map(usize::from) {
            for len in [0, 1, 7, 8, 9, 8 * GROUPS, 8 * GROUPS + 3, 20 * GROUPS + 77] {
                let extra = random.usize(..width);
                let bytes: Vec<u8> = (0..len * width + extra).map(|_| random.u8(..)).collect();
                // All of it, and elements of which some bytes are always zero.
                for kept in [0xff, 0x55, 0x08] {
                    let mut bytes = bytes.clone();
                    let clear = |(at, byte): (usize, &mut u8)| *byte *= kept >> (at % width % 8) & 1;
                    bytes.iter_mut().enumerate().for_each(clear);
                    let (mut there, mut back) = (vec![0; bytes.len()], vec![0; bytes.len()]);
                    make(width, &bytes, &mut there);
                    assert!(there == shuffled(width, &bytes), "{width} {len}");
                    undo(width, &there, &mut Blank::over(&mut back));
                    assert!(back == bytes, "{width} {len}");
                }
            }
        }
    }
}
