//! What a digest of typed content is made from.

use twox_hash::XxHash3_128;

use super::Digest;
use super::stream::Stream;

/// Keeps typed content apart from files and bytes, whose digests have the seed 0: not even a file that holds an outline
/// has the digest of what it outlines.
const SEED: u64 = u64::from_le_bytes(*b"icechest");

/// The kind of content, its shape, and the digests of its bytes, in a list that can be read in one way only.
pub(crate) struct Outline(Vec<u8>);

impl Outline {
    pub(crate) fn new(kind: &str) -> Self {
        let mut outline = Self(Vec::new());
        outline.text(kind);
        outline
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn digest(&mut self, digest: Digest) {
        self.0.extend(digest.as_bytes());
    }

    pub(super) fn stream(&mut self, stream: Stream) {
        self.number(stream.len());
        self.digest(stream.finish());
    }

    pub(crate) fn finish(self) -> Digest {
        Digest(XxHash3_128::oneshot_with_seed(SEED, &self.0).to_be_bytes())
    }
}
