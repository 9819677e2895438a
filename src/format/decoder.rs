//! The stream that a value is read from: no byte leaves it before its block passed the check.

use std::collections::HashSet;
#[cfg(feature = "ndarray")]
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
#[cfg(any(feature = "arrow", feature = "polars"))]
use std::ops::Range;
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
use std::sync::PoisonError;
use std::sync::{Arc, Mutex};

#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
use super::mapping::Mapping;
use super::payload::{Body, Payload, ReadAt};
use crate::error::{Error, Result};

/// Where [`Value::decode`](crate::Value::decode) reads from: a `Read` and `Seek` over the value's file.
///
/// Every byte was verified against its checksum before it is handed out; a mismatch ends the reading with an error of
/// kind [`Damaged`](crate::ErrorKind::Damaged). An example is at [`Value`](crate::Value).
pub struct Decoder {
    payload: Arc<Payload>,
    position: u64,
    format: String,
    stored_name: String,
    about: Option<serde_json::Value>,
    #[cfg_attr(
        not(any(feature = "arrow", feature = "blosc", feature = "polars")),
        expect(dead_code, reason = "compressed arrays and frames alone ask")
    )]
    size: u64,
    /// Rows that were appended.
    #[cfg_attr(
        not(any(feature = "arrow", feature = "ndarray", feature = "polars")),
        expect(dead_code, reason = "plain values have none")
    )]
    parts: Vec<Decoder>,
    /// Where it is noted that all of this version was verified.
    #[cfg_attr(
        not(any(feature = "arrow", feature = "ndarray", feature = "polars")),
        expect(dead_code, reason = "plain values are not mapped")
    )]
    verified: Option<(Verified, i64)>,
}

/// Versions that can be mapped and that this process wrote, or verified as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verified(
    #[cfg_attr(
        not(any(feature = "arrow", feature = "ndarray", feature = "polars")),
        expect(dead_code, reason = "plain values are not mapped")
    )]
    Arc<Mutex<HashSet<i64>>>,
);

#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
impl Verified {
    pub(crate) fn contains(&self, version: i64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&version)
    }

    pub(crate) fn insert(&self, version: i64) {
        /// More are forgotten, which costs another look at each.
        const MANY: usize = 100_000;
        let mut verified = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() == MANY {
            verified.clear();
        }
        verified.insert(version);
    }
}

impl Decoder {
    pub(crate) fn new(
        payload: Payload,
        format: String,
        stored_name: String,
        about: Option<serde_json::Value>,
        size: u64,
    ) -> Self {
        let (parts, verified) = (Vec::new(), None);
        Self { payload: Arc::new(payload), position: 0, format, stored_name, about, size, parts, verified }
    }

    /// With the place where it is noted that all of this version was verified.
    pub(crate) fn with_verified(self, verified: Verified, version: i64) -> Self {
        Self { verified: Some((verified, version)), ..self }
    }

    /// Whether this process wrote this version, or verified all of it.
    #[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
    pub(crate) fn is_verified(&self) -> bool {
        self.verified.as_ref().is_some_and(|(verified, version)| verified.contains(*version))
    }

    #[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
    pub(crate) fn note_verified(&self) {
        if let Some((verified, version)) = &self.verified {
            verified.insert(*version);
        }
    }

    /// Where in its file the label is.
    #[cfg(any(feature = "arrow", feature = "polars"))]
    pub(crate) fn label(&self) -> Option<Range<usize>> {
        match self.payload.body {
            Body::File { label_at, label_len, .. } => Some(label_at as usize..(label_at + label_len) as usize),
            _ => None,
        }
    }

    /// With the files of rows that were appended.
    pub(crate) fn with_parts(self, parts: Vec<Self>) -> Self {
        Self { parts, ..self }
    }

    /// A decoder of bytes in memory, to test a format of one's own with: a format reads what anybody may have written.
    /// `facts` is an object with what [`Encoder::describe`](crate::Encoder::describe) gave, or null.
    ///
    /// ```
    /// use icechest::{Decoder, ErrorKind, Value};
    /// use serde_json::{Value as Json, json};
    ///
    /// let mut input = Decoder::from_bytes(b"[1, 2]".to_vec(), "json", Json::Null);
    /// assert_eq!(Json::decode(&mut input)?, json!([1, 2]));
    ///
    /// let mut cut = Decoder::from_bytes(b"[1, ".to_vec(), "json", Json::Null);
    /// assert_eq!(Json::decode(&mut cut).unwrap_err().kind(), ErrorKind::Damaged);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn from_bytes(bytes: Vec<u8>, format: &str, facts: serde_json::Value) -> Self {
        let len = bytes.len() as u64;
        let payload = Payload::unverified(Body::Inline(bytes), len);
        Self::new(payload, format.to_owned(), String::new(), Some(facts), 0)
    }

    /// A file that somebody else wrote, without checksums.
    #[cfg(feature = "ndarray")]
    pub(crate) fn of_foreign_file(file: File, format: &str) -> Result<Self> {
        let len = file.metadata().map_err(|error| Error::io("cannot read the file", error))?.len();
        let payload = Payload::unverified(Body::Foreign(Arc::new(file)), len);
        Ok(Self::new(payload, format.to_owned(), String::new(), None, len))
    }

    /// The name of the format that [`encode`](crate::Value::encode) chose.
    pub fn format(&self) -> &str {
        &self.format
    }

    /// The name that the value was stored under.
    pub fn stored_name(&self) -> &str {
        &self.stored_name
    }

    /// A fact that [`encode`](crate::Value::encode) described the value with.
    pub fn fact(&self, name: &str) -> Option<&serde_json::Value> {
        self.about.as_ref()?.get(name)
    }

    /// The length of the stored value in bytes.
    pub fn stored_len(&self) -> u64 {
        self.payload.len()
    }

    /// All files: this one, and those of rows that were appended.
    #[cfg(feature = "lazy")]
    pub(crate) fn files(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.parts)
    }

    /// The files of rows that were appended: a value with such rows is read by those who know that.
    #[cfg(feature = "ndarray")]
    pub(crate) fn parts(&self) -> &[Self] {
        &self.parts
    }

    #[cfg(feature = "ndarray")]
    pub(crate) fn parts_mut(&mut self) -> &mut [Self] {
        &mut self.parts
    }

    #[cfg(any(feature = "arrow", feature = "polars"))]
    pub(crate) fn take_parts(&mut self) -> Vec<Self> {
        std::mem::take(&mut self.parts)
    }

    #[cfg(any(feature = "arrow", feature = "polars"))]
    pub(crate) fn put_parts(&mut self, parts: Vec<Self>) {
        self.parts = parts;
    }

    /// What the value took in memory, as the catalog tells.
    #[cfg(any(feature = "arrow", feature = "blosc", feature = "polars"))]
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Reads everything from the position to the end.
    ///
    /// # Errors
    /// [`Damaged`](crate::ErrorKind::Damaged) when a checksum does not match, and those of reading.
    pub fn read_to_vec(&mut self) -> Result<Vec<u8>> {
        let rest = self.payload.len() - self.position;
        // The length was compared with that of the file, so it is real.
        let mut bytes = vec![0; rest as usize];
        self.read_exact(&mut bytes).map_err(|error| Error::io("cannot read the value", error))?;
        Ok(bytes)
    }

    /// The bytes from the position to the end, where they are in memory.
    pub(crate) fn in_memory(&self) -> Option<&[u8]> {
        let Body::Inline(bytes) = &self.payload.body else { return None };
        bytes.get(self.position as usize..)
    }

    /// The file where it is: the payload and the label behind it. Verified, unless this version is already. None if there is
    /// no such file, or if it has to be read.
    #[cfg(feature = "ndarray")]
    pub(crate) fn map(&self) -> io::Result<Option<Mapping>> {
        let map = self.payload.map(true, self.is_verified())?;
        if map.is_some() {
            self.note_verified();
        }
        Ok(map)
    }

    /// The file where it is, with the label anywhere. Verified, unless it is already; whoever asks notes it, for there may be
    /// parts.
    #[cfg(any(feature = "arrow", feature = "polars"))]
    pub(crate) fn map_labelled(&self, is_verified: bool) -> io::Result<Option<Mapping>> {
        self.payload.map(false, is_verified)
    }

    #[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
    pub(crate) fn payload(&self) -> &Arc<Payload> {
        &self.payload
    }
}

impl Read for Decoder {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.payload.read_at(buf, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for Decoder {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.payload.len().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        match target.filter(|&target| target <= self.payload.len()) {
            Some(target) => {
                self.position = target;
                Ok(target)
            }
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "seeking outside the value")),
        }
    }
}
