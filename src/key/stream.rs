//! The digest of bytes that come in pieces and may be very many.

#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
use std::borrow::Cow;
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::Digest;
use crate::format::threads;

/// The unit that is hashed by one thread. It is part of every digest of content: another size gives other digests.
const CHUNK: usize = 1 << 20;

/// What all threads together make at a time, elements at both ends excepted.
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
const MADE_TOGETHER: usize = 32 << 20;

/// The digest of the digests of chunks, so that many threads can work on one array. How the bytes were cut into pieces
/// plays no part.
#[derive(Default)]
pub(super) struct Stream {
    digests: Vec<u8>,
    /// The beginning of a chunk.
    rest: Vec<u8>,
    len: u64,
}

impl Stream {
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        if !self.rest.is_empty() {
            let (front, back) = bytes.split_at(bytes.len().min(CHUNK - self.rest.len()));
            self.rest.extend_from_slice(front);
            if self.rest.len() < CHUNK {
                return;
            }
            self.digests.extend(Digest::of_bytes(&self.rest).as_bytes());
            self.rest.clear();
            bytes = back;
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % CHUNK);
        self.digests.extend(of_chunks_in_parallel(whole));
        self.rest.extend_from_slice(rest);
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn finish(mut self) -> Digest {
        self.digests.extend(of_chunks(&self.rest));
        Digest::of_bytes(&self.digests)
    }
}

#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
impl Stream {
    /// Pushes `len` elements of `width` bytes each that are not in memory as they count. `make` gives the bytes of a
    /// range of elements, in a buffer that it fills if it has to; about `at_a_time` of them, and at least some elements, on
    /// each thread. Those are made once whose width divides a chunk, if all that was pushed before had such widths.
    pub(super) fn push_made<B: Default>(
        &mut self,
        len: u64,
        width: usize,
        at_a_time: usize,
        make: impl for<'b> Fn(Range<u64>, &'b mut B) -> Cow<'b, [u8]> + Sync,
    ) {
        let (chunk, width) = (CHUNK as u64, width as u64);
        let total = len * width;
        if total == 0 {
            return;
        }
        let made = |bytes: Range<u64>, buffer: &mut B, take: &mut dyn FnMut(&[u8])| {
            if !bytes.is_empty() {
                let first = bytes.start / width;
                let elements = make(first..bytes.end.div_ceil(width), buffer);
                let (skipped, taken) = (bytes.start - first * width, bytes.end - bytes.start);
                take(&elements[skipped as usize..][..taken as usize]);
            }
        };
        let mut buffer = B::default();
        let front = if self.rest.is_empty() { 0 } else { total.min(chunk - self.rest.len() as u64) };
        made(0..front, &mut buffer, &mut |bytes| self.push(bytes));
        let whole = (total - front) / chunk * chunk;
        // Elements at both ends are made twice, so there are several between them.
        let smallest = 4 * width;
        let most = (MADE_TOGETHER as u64 / smallest.max(at_a_time as u64)).max(1);
        let threads = threads(usize::try_from(whole).unwrap_or(usize::MAX)).min(most as usize);
        let unit = (whole / threads as u64).min(at_a_time as u64).max(smallest).max(chunk).next_multiple_of(chunk);
        let digests = in_turn(whole.div_ceil(unit) as usize, threads, |index, buffer: &mut B| {
            let start = front + index as u64 * unit;
            let mut digests = Vec::new();
            made(start..(start + unit).min(front + whole), buffer, &mut |bytes| digests = of_chunks(bytes));
            digests
        });
        self.digests.extend(digests.into_iter().flatten());
        self.len += whole;
        made(front + whole..total, &mut buffer, &mut |bytes| self.push(bytes));
    }
}

fn of_chunks(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(CHUNK).flat_map(|chunk| *Digest::of_bytes(chunk).as_bytes()).collect()
}

fn of_chunks_in_parallel(bytes: &[u8]) -> Vec<u8> {
    let threads = threads(bytes.len());
    let share = bytes.len().div_ceil(threads).next_multiple_of(CHUNK).max(CHUNK);
    let digests = in_turn(bytes.len().div_ceil(share), threads, |index, _: &mut ()| {
        of_chunks(&bytes[index * share..bytes.len().min((index + 1) * share)])
    });
    digests.concat()
}

/// What `work` gives for each index. Each thread takes the next index, and has a buffer of its own.
fn in_turn<B: Default, T: Send>(count: usize, threads: usize, work: impl Fn(usize, &mut B) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = B::default();
        let indices = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < count));
        indices.map(|index| (index, work(index, &mut buffer))).collect::<Vec<_>>()
    };
    let mut done = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(count)).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            // A panic goes on in this thread, as if there were no others.
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, done)| done).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[&[u8]]) -> (u64, Digest) {
        let mut stream = Stream::default();
        pieces.iter().for_each(|piece| stream.push(piece));
        (stream.len(), stream.finish())
    }

    #[test]
    fn pieces_and_threads_play_no_part() {
        let bytes: Vec<u8> = (0..9 * CHUNK + 5).map(|i| (i * 7919 / 128) as u8).collect();
        let whole = of(&[&bytes]);
        for cut in [1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 8 * CHUNK + 3] {
            let (front, back) = bytes.split_at(cut);
            assert_eq!(of(&[front, back]), whole);
            assert_eq!(of(&[front, &[], &back[..3], &back[3..]]), whole);
        }
        let mut digests = Vec::new();
        for chunk in bytes.chunks(CHUNK) {
            digests.extend(Digest::of_bytes(chunk).as_bytes());
        }
        assert_eq!(whole, (bytes.len() as u64, Digest::of_bytes(&digests)));
        assert_ne!(of(&[&bytes[1..]]).1, whole.1);
        assert_eq!(of(&[]), (0, Digest::of_bytes(b"")));
    }

    #[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
    #[test]
    fn what_is_made_counts_as_what_is_there() {
        let bytes: Vec<u8> = (0..9 * CHUNK + 5).map(|i| (i * 7919 / 128) as u8).collect();
        let whole = of(&[&bytes]);
        for (width, at_a_time) in [(1, CHUNK), (1, 3 * CHUNK), (3, 2 * CHUNK), (CHUNK + 5, CHUNK)] {
            for cut in [0, 7, CHUNK, 8 * CHUNK + 3, bytes.len()] {
                let (front, back) = bytes.split_at(cut / width * width);
                let (back, rest) = back.split_at(back.len() / width * width);
                let mut stream = Stream::default();
                stream.push(front);
                stream.push_made((back.len() / width) as u64, width, at_a_time, |elements, buffer: &mut Vec<u8>| {
                    buffer.clear();
                    buffer.extend(&back[elements.start as usize * width..elements.end as usize * width]);
                    Cow::Borrowed(buffer.as_slice())
                });
                stream.push(rest);
                assert_eq!((stream.len(), stream.finish()), whole, "{width} {at_a_time} {cut}");
            }
        }
    }
}
