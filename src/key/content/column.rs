//! The digest of a column that comes in pieces, of whichever library.

use std::ops::Range;

use super::little_endian;
use super::mask::Mask;
#[cfg(feature = "arrow")]
use crate::key::Digest;
use crate::key::outline::Outline;
use crate::key::stream::Stream;

/// Bytes of small elements that are added at a time.
const TOGETHER: usize = 64 << 10;

/// What was added so far. Each kind of column uses some of the streams: numbers have `values`, truth values `bits`, text
/// `lengths` and `values`, lists `lengths` and one child, structs a child for each field.
#[derive(Default)]
pub(super) struct Column {
    len: u64,
    validity: Validity,
    bits: Bits,
    lengths: Stream,
    values: Stream,
    children: Vec<Column>,
}

impl Column {
    /// Begins a piece of so many elements; what is not valid counts as nothing but null.
    pub(super) fn begin(&mut self, len: usize, mask: Option<&Mask>) {
        self.len += len as u64;
        match mask {
            Some(mask) => mask.words().for_each(|(word, bits)| self.validity.push(word, bits)),
            None => self.validity.push_valid(len as u64),
        }
    }

    pub(super) fn truths(&mut self, truths: Mask, mask: Option<&Mask>) {
        let truths = Mask::within(Some(truths), mask);
        truths.iter().flat_map(Mask::words).for_each(|(word, bits)| self.bits.push(word, bits));
    }

    /// Elements of `width` bytes, each a number.
    pub(super) fn numbers(&mut self, bytes: &[u8], width: usize, mask: Option<&Mask>) {
        self.fixed(&little_endian(bytes, width), width, mask);
    }

    /// Elements of `width` bytes.
    pub(super) fn fixed(&mut self, bytes: &[u8], width: usize, mask: Option<&Mask>) {
        let Some(mask) = mask.filter(|_| width > 0) else { return self.values.push(bytes) };
        let mut cleared = Vec::with_capacity(64 * width);
        for ((word, bits), elements) in mask.words().zip(bytes.chunks(64 * width)) {
            if word.count_ones() as usize == bits {
                self.values.push(elements);
                continue;
            }
            cleared.clear();
            cleared.extend_from_slice(elements);
            let nulls = cleared.chunks_mut(width).enumerate().filter(|(index, _)| word >> index & 1 == 0);
            nulls.for_each(|(_, element)| element.fill(0));
            self.values.push(&cleared);
        }
    }

    /// Elements of any length.
    pub(super) fn slices<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>, mask: Option<&Mask>) {
        // Each of them may be a few bytes.
        let (mut lengths, mut values) = (Vec::with_capacity(TOGETHER), Vec::with_capacity(2 * TOGETHER));
        for (index, slice) in slices.enumerate() {
            let slice = if mask.is_none_or(|mask| mask.get(index)) { slice } else { &[] };
            lengths.extend_from_slice(&(slice.len() as u64).to_le_bytes());
            values.extend_from_slice(slice);
            if lengths.len().max(values.len()) >= TOGETHER {
                self.lengths.push(&lengths);
                self.values.push(&values);
                lengths.clear();
                values.clear();
            }
        }
        self.lengths.push(&lengths);
        self.values.push(&values);
    }

    /// Lists: where each is among the elements of all, which `add` adds to their column.
    pub(super) fn lists(
        &mut self,
        ranges: impl Iterator<Item = Range<usize>>,
        mask: Option<&Mask>,
        mut add: impl FnMut(&mut Self, Range<usize>),
    ) {
        let mut run = 0..0;
        for (index, range) in ranges.enumerate() {
            let range = if mask.is_none_or(|mask| mask.get(index)) { range } else { 0..0 };
            self.length(range.len());
            if range.is_empty() {
                continue;
            }
            // Those that follow each other are added as one.
            if run.end == range.start {
                run.end = range.end;
                continue;
            }
            let done = std::mem::replace(&mut run, range);
            if !done.is_empty() {
                add(self.child(0), done);
            }
        }
        if !run.is_empty() {
            add(self.child(0), run);
        }
    }

    /// Elements that each stand for something else, by its digest.
    #[cfg(feature = "arrow")]
    pub(super) fn digests(&mut self, mut of: impl FnMut(usize) -> Digest, len: usize, mask: Option<&Mask>) {
        for index in 0..len {
            let digest = mask.is_none_or(|mask| mask.get(index)).then(|| of(index));
            self.values.push(&digest.map_or([0; 16], |digest| digest.0));
        }
    }

    /// Elements that cannot be looked into: like no others.
    pub(super) fn unknown(&mut self) {
        let (a, b) = (fastrand::u128(..), std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos());
        self.values.push(&a.to_le_bytes());
        self.values.push(&b.to_le_bytes());
    }

    fn length(&mut self, len: usize) {
        self.lengths.push(&(len as u64).to_le_bytes());
    }

    pub(super) fn child(&mut self, index: usize) -> &mut Self {
        if self.children.len() <= index {
            self.children.resize_with(index + 1, Self::default);
        }
        &mut self.children[index]
    }

    pub(super) fn finish(mut self, outline: &mut Outline) {
        outline.number(self.len);
        self.validity.finish(outline);
        self.bits.finish(outline);
        outline.stream(self.lengths);
        outline.stream(self.values);
        // A piece without elements has no children, or empty ones.
        self.children.retain(|child| child.len > 0);
        outline.number(self.children.len() as u64);
        self.children.into_iter().for_each(|child| child.finish(outline));
    }
}

/// Bits, 64 at a time.
#[derive(Default)]
struct Bits {
    stream: Stream,
    word: u64,
    used: usize,
}

impl Bits {
    fn push(&mut self, word: u64, bits: usize) {
        self.word |= word << self.used;
        let used = self.used + bits;
        if used < 64 {
            self.used = used;
            return;
        }
        self.stream.push(&self.word.to_le_bytes());
        self.word = if self.used == 0 { 0 } else { word >> (64 - self.used) };
        self.used = used - 64;
    }

    fn finish(mut self, outline: &mut Outline) {
        if self.used > 0 {
            self.stream.push(&self.word.to_le_bytes());
        }
        outline.stream(self.stream);
    }
}

/// A bit for each element, once there is one that is null: a column without nulls may have a mask or not.
#[derive(Default)]
struct Validity {
    /// Elements before the first null.
    valid: u64,
    bits: Option<Bits>,
}

impl Validity {
    fn push(&mut self, word: u64, bits: usize) {
        if self.bits.is_none() && word.count_ones() as usize == bits {
            self.valid += bits as u64;
            return;
        }
        self.bits().push(word, bits);
    }

    fn push_valid(&mut self, mut len: u64) {
        match &mut self.bits {
            None => self.valid += len,
            Some(bits) => {
                while len > 0 {
                    let some = len.min(64);
                    bits.push(u64::MAX >> (64 - some), some as usize);
                    len -= some;
                }
            }
        }
    }

    fn bits(&mut self) -> &mut Bits {
        if self.bits.is_none() {
            let before = std::mem::take(&mut self.valid);
            self.bits = Some(Bits::default());
            self.push_valid(before);
        }
        self.bits.get_or_insert_default()
    }

    fn finish(self, outline: &mut Outline) {
        self.bits.unwrap_or_default().finish(outline);
    }
}
