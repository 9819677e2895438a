//! Which elements of an array are valid.

use std::ops::Range;

/// A bit for each element, 64 to a word; bits behind the last one are zero.
#[derive(Clone)]
pub(super) struct Mask {
    words: Vec<u64>,
    len: usize,
}

impl Mask {
    /// `len` bits, which begin `offset` bits into these bytes.
    pub(super) fn new(bytes: &[u8], offset: usize, len: usize) -> Self {
        let (bytes, shift) = (&bytes[offset / 8..(offset + len).div_ceil(8)], offset % 8);
        // What is behind the last whole word, and behind the bits.
        let (whole, rest) = bytes.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let mut words: Vec<u64> = whole.iter().chain([&last]).map(|word| u64::from_le_bytes(*word)).collect();
        if shift > 0 {
            let count = words.len() - 1;
            (0..count).for_each(|index| words[index] = words[index] >> shift | words[index + 1] << (64 - shift));
            words[count] >>= shift;
        }
        words.truncate(len.div_ceil(64));
        if let (Some(last), rest @ 1..) = (words.last_mut(), len % 64) {
            *last &= (1 << rest) - 1;
        }
        Self { words, len }
    }

    /// What is valid in both.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
        self
    }

    /// What is valid where all that encloses it is.
    pub(super) fn within(own: Option<Self>, outer: Option<&Self>) -> Option<Self> {
        match (own, outer) {
            (Some(own), Some(outer)) => Some(own.and(outer)),
            (own, outer) => own.or_else(|| outer.cloned()),
        }
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The elements of a range that are not valid.
    pub(super) fn nulls(&self, range: Range<usize>) -> impl Iterator<Item = usize> {
        let words = range.start / 64..range.end.div_ceil(64);
        words.flat_map(move |index| {
            let first = index * 64;
            let mut nulls = !self.words[index] & u64::MAX << range.start.saturating_sub(first);
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
        self.words[index / 64] >> (index % 64) & 1 == 1
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
                assert_eq!((mask.len(), mask.words().len()), (len, len.div_ceil(64)));
                assert!(len % 64 == 0 || mask.words().last().is_some_and(|word| word >> (len % 64) == 0));
                for range in [0..len, len / 3..len, 0..len / 2, len / 2..len / 2, len / 5..len / 5 * 4] {
                    let nulls: Vec<usize> = range.clone().filter(|index| !mask.get(*index)).collect();
                    assert_eq!(mask.nulls(range).collect::<Vec<_>>(), nulls);
                }
            }
        }
    }
}
