//! The digest of a column that comes in pieces, of whichever library.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::little_endian;
use super::mask::Mask;
#[cfg(feature = "arrow")]
use crate::key::Digest;
use crate::key::outline::Outline;
use crate::key::stream::Stream;

/// Bytes of elements that are made at a time, before they are hashed: what stays in the processor's cache.
const AT_A_TIME: usize = 1 << 20;

/// Slices that are looked through for the one that begins where a thread begins.
const SLICES: usize = 1 << 10;

/// Elements of any length.
pub(super) trait Slices<'a>: Sync {
    /// May be told without the element.
    fn len_of(&self, index: usize) -> usize;

    fn slice(&self, index: usize) -> &'a [u8];

    /// The bytes of an element that lies with its length, as a number, the first one lowest; whatever is behind them.
    fn word(&self, index: usize) -> Option<u128> {
        let _ = index;
        None
    }
}

/// Elements that are told by functions: their lengths, and they themselves.
impl<'a, L: Fn(usize) -> usize + Sync, S: Fn(usize) -> &'a [u8] + Sync> Slices<'a> for (L, S) {
    fn len_of(&self, index: usize) -> usize {
        self.0(index)
    }

    fn slice(&self, index: usize) -> &'a [u8] {
        self.1(index)
    }
}

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
            Some(mask) => self.validity.push(mask),
            None => self.validity.push_valid(len as u64),
        }
    }

    pub(super) fn truths(&mut self, truths: Mask, mask: Option<&Mask>) {
        let truths = Mask::within(Some(truths), mask);
        truths.iter().for_each(|truths| self.bits.push(truths));
    }

    /// Elements of `width` bytes, each a number.
    pub(super) fn numbers(&mut self, bytes: &[u8], width: usize, mask: Option<&Mask>) {
        self.fixed(&little_endian(bytes, width), width, mask);
    }

    /// Elements of `width` bytes.
    pub(super) fn fixed(&mut self, bytes: &[u8], width: usize, mask: Option<&Mask>) {
        let Some(mask) = mask.filter(|_| width > 0) else { return self.values.push(bytes) };
        // Not by the element, which may be long.
        self.values.push_made(bytes.len() as u64, 1, AT_A_TIME, |range, made: &mut Vec<u8>| {
            let range = range.start as usize..range.end as usize;
            made.clear();
            made.extend_from_slice(&bytes[range.clone()]);
            for null in mask.nulls(range.start / width..range.end.div_ceil(width)) {
                let null = (null * width).max(range.start)..((null + 1) * width).min(range.end);
                made[null.start - range.start..null.end - range.start].fill(0);
            }
            Cow::Borrowed(made)
        });
    }

    /// So many elements of any length.
    pub(super) fn slices<'a>(&mut self, len: usize, slices: impl Slices<'a>, mask: Option<&Mask>) {
        let is_valid = |index: usize| mask.is_none_or(|mask| mask.get(index));
        let len_of = |index| if is_valid(index) { slices.len_of(index) as u64 } else { 0 };
        let starts = self.lengths_of_slices(len, &len_of);
        self.bytes_of_slices(&starts, &slices, &len_of);
    }

    /// Gives where every [`SLICES`] of them begin among the bytes of all, and where those end.
    fn lengths_of_slices(&mut self, len: usize, len_of: &(impl Fn(usize) -> u64 + Sync)) -> Vec<u64> {
        // Each length is made once, for none lies in two chunks: so what is added up on the way is right.
        let sums: Vec<AtomicU64> = (0..len.div_ceil(SLICES)).map(|_| AtomicU64::new(0)).collect();
        self.lengths.push_made(len as u64, size_of::<u64>(), AT_A_TIME, |elements, made: &mut Vec<u8>| {
            let elements = elements.start as usize..elements.end as usize;
            made.resize(elements.len() * size_of::<u64>(), 0);
            let (mut at, mut lengths) = (elements.start, made.as_chunks_mut().0);
            while at < elements.end {
                let next = elements.end.min((at / SLICES + 1) * SLICES);
                let (some, rest) = lengths.split_at_mut(next - at);
                let sum = some.iter_mut().zip(at..next).fold(0, |sum: u64, (bytes, index)| {
                    let len = len_of(index);
                    *bytes = len.to_le_bytes();
                    sum + len
                });
                sums[at / SLICES].fetch_add(sum, Ordering::Relaxed);
                (at, lengths) = (next, rest);
            }
            Cow::Borrowed(made)
        });
        let mut total = 0;
        let ends = sums.into_iter().map(|sum| {
            total += sum.into_inner();
            total
        });
        std::iter::once(0).chain(ends).collect()
    }

    fn bytes_of_slices<'a>(
        &mut self,
        starts: &[u64],
        slices: &impl Slices<'a>,
        len_of: &(impl Fn(usize) -> u64 + Sync),
    ) {
        let (&total, starts) = starts.split_last().unwrap_or((&0, &[]));
        self.values.push_made(total, 1, AT_A_TIME, |bytes, made: &mut Vec<u8>| {
            let len = (bytes.end - bytes.start) as usize;
            made.resize(len + size_of::<u128>(), 0);
            let many = starts.partition_point(|&start| start <= bytes.start) - 1;
            let (mut index, mut at) = (many * SLICES, starts[many]);
            while at < bytes.end {
                let next = at + len_of(index);
                let is_whole = bytes.start <= at && next <= bytes.end;
                let to = &mut made[at.saturating_sub(bytes.start) as usize..];
                if let (true, Some(word), Some(to)) = (is_whole, slices.word(index), to.first_chunk_mut()) {
                    // With what is behind it, which the next one is written over.
                    *to = word.to_le_bytes();
                } else if next > bytes.start && next > at {
                    let skipped = bytes.start.saturating_sub(at) as usize;
                    let behind = next.saturating_sub(bytes.end) as usize;
                    let slice = slices.slice(index);
                    put(to, &slice[skipped..slice.len() - behind]);
                }
                (at, index) = (next, index + 1);
            }
            Cow::Borrowed(&made[..len])
        });
    }

    /// Lists: where each of so many is among the elements of all, which `add` adds to their column.
    pub(super) fn lists(
        &mut self,
        len: usize,
        range_of: impl Fn(usize) -> Range<usize> + Sync,
        mask: Option<&Mask>,
        mut add: impl FnMut(&mut Self, Range<usize>),
    ) {
        let range_of = |index| if mask.is_none_or(|mask| mask.get(index)) { range_of(index) } else { 0..0 };
        self.lengths.push_made(len as u64, size_of::<u64>(), AT_A_TIME, |lists, made: &mut Vec<u8>| {
            little_endian_words(lists, |index| range_of(index).len() as u64, made)
        });
        let mut run = 0..0;
        for range in (0..len).map(range_of).filter(|range| !range.is_empty()) {
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

/// The bytes of words, in a buffer.
fn little_endian_words(range: Range<u64>, word_of: impl Fn(usize) -> u64, made: &mut Vec<u8>) -> Cow<'_, [u8]> {
    let range = range.start as usize..range.end as usize;
    made.resize(range.len() * 8, 0);
    made.as_chunks_mut().0.iter_mut().zip(range).for_each(|(bytes, index)| *bytes = word_of(index).to_le_bytes());
    Cow::Borrowed(made)
}

/// Writes a slice to where bytes begin: a short one by its front and its back, which may overlap, for a copy of any length
/// takes several times as long.
#[inline]
fn put(bytes: &mut [u8], slice: &[u8]) {
    let bytes = &mut bytes[..slice.len()];
    if slice.len() > 16 {
        bytes.copy_from_slice(slice);
    } else if let (Some(front), Some(back)) = (slice.first_chunk::<8>(), slice.last_chunk::<8>()) {
        bytes[..8].copy_from_slice(front);
        bytes[slice.len() - 8..].copy_from_slice(back);
    } else if let (Some(front), Some(back)) = (slice.first_chunk::<4>(), slice.last_chunk::<4>()) {
        bytes[..4].copy_from_slice(front);
        bytes[slice.len() - 4..].copy_from_slice(back);
    } else {
        bytes.iter_mut().zip(slice).for_each(|(to, from)| *to = *from);
    }
}

static ONES: [u8; 1 << 16] = [0xff; 1 << 16];

/// Bits, hashed as words of 64. The last word waits until it is full.
#[derive(Default)]
struct Bits {
    stream: Stream,
    word: u64,
    used: usize,
}

impl Bits {
    /// Pushes the bits of a piece.
    fn push(&mut self, mask: &Mask) {
        // The last word is filled up first.
        let front = if self.used > 0 { mask.len().min(64 - self.used) } else { 0 };
        self.word |= mask.bits(0..front) << self.used;
        self.used += front;
        if self.used == 64 {
            self.stream.push(&self.word.to_le_bytes());
            (self.word, self.used) = (0, 0);
        }
        let words = (mask.len() - front) / 64;
        match mask.bytes(front, words * 8) {
            Some(bytes) => self.stream.push(bytes),
            None => self.stream.push_made(words as u64, 8, AT_A_TIME, |words, made: &mut Vec<u8>| {
                made.resize((words.end - words.start) as usize * 8, 0);
                mask.copy(front + words.start as usize * 64, made.as_chunks_mut().0);
                Cow::Borrowed(made)
            }),
        }
        let back = front + words * 64..mask.len();
        if !back.is_empty() {
            (self.word, self.used) = (mask.bits(back.clone()), back.len());
        }
    }

    /// Pushes so many bits that are one.
    fn push_ones(&mut self, mut len: usize) {
        while len > 0 {
            let some = len.min(ONES.len() * 8);
            self.push(&Mask::new(&ONES, 0, some));
            len -= some;
        }
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
    fn push(&mut self, mask: &Mask) {
        if self.bits.is_none() && mask.nulls(0..mask.len()).next().is_none() {
            self.valid += mask.len() as u64;
        } else {
            self.bits().push(mask);
        }
    }

    fn push_valid(&mut self, len: u64) {
        match &mut self.bits {
            None => self.valid += len,
            Some(bits) => bits.push_ones(len as usize),
        }
    }

    fn bits(&mut self) -> &mut Bits {
        let before = std::mem::take(&mut self.valid);
        self.bits.get_or_insert_default();
        self.push_valid(before);
        self.bits.get_or_insert_default()
    }

    fn finish(self, outline: &mut Outline) {
        self.bits.unwrap_or_default().finish(outline);
    }
}
