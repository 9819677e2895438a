//! The digest of bytes that come in pieces and may be very many.

use std::thread;

use super::Digest;
use crate::format::threads;

/// The unit that is hashed by one thread. It is part of every digest of content: another size gives other digests.
const CHUNK: usize = 1 << 20;

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

fn of_chunks(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(CHUNK).flat_map(|chunk| *Digest::of_bytes(chunk).as_bytes()).collect()
}

fn of_chunks_in_parallel(bytes: &[u8]) -> Vec<u8> {
    let share = bytes.len().div_ceil(threads(bytes.len())).next_multiple_of(CHUNK);
    if share >= bytes.len() {
        return of_chunks(bytes);
    }
    thread::scope(|scope| {
        let (own, others) = bytes.split_at(share);
        let others: Vec<_> = others.chunks(share).map(|bytes| scope.spawn(|| of_chunks(bytes))).collect();
        let mut digests = of_chunks(own);
        for other in others {
            // A panic goes on in this thread, as if there were no others.
            digests.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        digests
    })
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
}
