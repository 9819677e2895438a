//! Which elements of an array are valid.

use std::borrow::Cow;
use std::ops::Range;

/// A bit for each element, the lowest of a byte first.
#[derive(Clone)]
pub(super) struct Mask<'a> {
    bytes: Cow<'a, [u8]>,
    /// Bits of the first byte that are before the first element.
    shift: usize,
    len: usize,
}

impl<'a> Mask<'a> {
    /// `len` bits, which begin `offset` bits into these bytes.
    pub(super) fn new(bytes: &'a [u8], offset: usize, len: usize) -> Self {
        Self { bytes: Cow::Borrowed(&bytes[offset / 8..(offset + len).div_ceil(8)]), shift: offset % 8, len }
    }

    /// What is valid in both, which have one length.
    fn and(&self, other: &Self) -> Self {
        let words = (0..self.len.div_ceil(64)).map(|index| self.word(index) & other.word(index));
        Self { bytes: words.flat_map(u64::to_le_bytes).collect(), shift: 0, len: self.len }
    }

    /// What is valid where all that encloses it is.
    pub(super) fn within(own: Option<Self>, outer: Option<&Self>) -> Option<Self> {
        match (own, outer) {
            (Some(own), Some(outer)) => Some(own.and(outer)),
            (own, outer) => own.or_else(|| outer.cloned()),
        }
    }

    /// The bits of 64 elements; those behind the last element are zero.
    pub(super) fn word(&self, index: usize) -> u64 {
        self.bits(index * 64..self.len.min(index * 64 + 64))
    }

    /// The bits of 64 elements at most, the first one lowest.
    pub(super) fn bits(&self, range: Range<usize>) -> u64 {
        let (bytes, shift) = self.at(range.start);
        // They may lie in nine bytes.
        let mut next = [0; 16];
        match bytes.first_chunk::<16>() {
            Some(whole) => next = *whole,
            None => next[..bytes.len()].copy_from_slice(bytes),
        }
        let word = (u128::from_le_bytes(next) >> shift) as u64;
        if range.len() < 64 { word & ((1 << range.len()) - 1) } else { word }
    }

    /// The bits of `bytes * 8` elements from one on, if they lie in bytes of their own.
    pub(super) fn bytes(&self, first: usize, bytes: usize) -> Option<&[u8]> {
        let (all, shift) = self.at(first);
        (shift == 0).then(|| &all[..bytes])
    }

    /// Writes the bits of as many elements as `words` have room for, from one on.
    pub(super) fn copy(&self, first: usize, words: &mut [[u8; 8]]) {
        let (bytes, shift) = self.at(first);
        let next = bytes.get(8..).unwrap_or_default().iter().step_by(8);
        let many = words.iter_mut().zip(bytes.as_chunks().0).zip(next);
        let copied = many.len();
        for ((word, low), &high) in many {
            // Twice, for the shift may be zero.
            let high = u64::from(high) << (63 - shift) << 1;
            *word = (u64::from_le_bytes(*low) >> shift | high).to_le_bytes();
        }
        for (index, word) in words.iter_mut().enumerate().skip(copied) {
            let first = first + index * 64;
            *word = self.bits(first..first + 64).to_le_bytes();
        }
    }

    /// The bytes from the one in which an element has its bit, and where in that it is.
    fn at(&self, first: usize) -> (&[u8], usize) {
        let bit = self.shift + first;
        (&self.bytes[bit / 8..], bit % 8)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The elements of a range that are not valid.
    pub(super) fn nulls(&self, range: Range<usize>) -> impl Iterator<Item = usize> {
        let words = range.start / 64..range.end.div_ceil(64);
        words.flat_map(move |index| {
            let first = index * 64;
            let mut nulls = !self.word(index) & u64::MAX << range.start.saturating_sub(first);
            if range.end - first < 64 {
                nulls &= (1 << (range.end - first)) - 1;
            }
            std::iter::from_fn(move || {
                let null = (nulls > 0).then(|| first + nulls.trailing_zeros() as usize);
                nulls &= nulls.wrapping_sub(1);
                null
            })
        })
    }

    pub(super) fn get(&self, index: usize) -> bool {
        let (bytes, shift) = self.at(index);
        bytes[0] >> shift & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_begin_anywhere() {
        let bytes: Vec<u8> = (0..40).map(|i: u8| i.wrapping_mul(73) ^ 0x5a).collect();
        let bit = |index: usize| bytes[index / 8] >> (index % 8) & 1 == 1;
        for offset in 0..80 {
            for len in [0, 1, 7, 63, 64, 65, 128, 200, 240] {
                let mask = Mask::new(&bytes, offset, len);
                assert!((0..len).all(|index| mask.get(index) == bit(offset + index)), "{offset} {len}");
                assert_eq!(mask.len(), len);
                let ones = (0..len.div_ceil(64)).map(|index| mask.word(index).count_ones()).sum::<u32>();
                assert_eq!(ones as usize, (0..len).filter(|&index| bit(offset + index)).count());
                let bits = |first: usize, len: usize| {
                    let bits = (0..len).map(|index| u64::from(bit(offset + first + index)) << index);
                    bits.fold(0, |all, bit| all | bit)
                };
                for first in [0, 1, 7, 8, 63, 64, len / 2, len] {
                    let Some(rest) = len.checked_sub(first) else { continue };
                    assert_eq!(
                        mask.bits(first..first + rest.min(64)),
                        bits(first, rest.min(64)),
                        "{offset} {len} {first}"
                    );
                    let mut words = vec![[0; 8]; rest / 64];
                    mask.copy(first, &mut words);
                    let expected: Vec<_> =
                        (0..rest / 64).map(|index| bits(first + index * 64, 64).to_le_bytes()).collect();
                    assert_eq!(words, expected, "{offset} {len} {first}");
                    let is_whole = (offset + first) % 8 == 0;
                    assert_eq!(mask.bytes(first, rest / 64 * 8), is_whole.then_some(words.as_flattened()));
                }
                for range in [0..len, len / 3..len, 0..len / 2, len / 2..len / 2, len / 5..len / 5 * 4] {
                    let nulls: Vec<usize> = range.clone().filter(|index| !mask.get(*index)).collect();
                    assert_eq!(mask.nulls(range).collect::<Vec<_>>(), nulls);
                }
            }
        }
    }
}
