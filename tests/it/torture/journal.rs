//! What a writer did, written down so that it survives the writer: each thing before it is done, and when it is
//! published.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Of a power of two, so that no note crosses a page: a killed process might leave half of it.
const NOTE: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// A value may be published from now on.
    Inserting { key: u64, counter: u64 },
    /// A key may be gone from now on.
    Removing { key: u64, counter: u64 },
    /// The last of these is published.
    Published { key: u64 },
    /// All of these are.
    AllPublished,
}

impl Note {
    fn to_bytes(self) -> [u8; NOTE] {
        let words = match self {
            Self::Inserting { key, counter } => [1, key, counter],
            Self::Removing { key, counter } => [2, key, counter],
            Self::Published { key } => [3, key, 0],
            Self::AllPublished => [4, 0, 0],
        };
        let mut bytes = [0; NOTE];
        bytes.as_chunks_mut().0.iter_mut().zip(words).for_each(|(chunk, word)| *chunk = u64::to_le_bytes(word));
        bytes
    }

    fn from_bytes(bytes: &[u8; NOTE]) -> Self {
        let word = |i| u64::from_le_bytes(bytes.as_chunks().0[i]);
        match word(0) {
            1 => Self::Inserting { key: word(1), counter: word(2) },
            2 => Self::Removing { key: word(1), counter: word(2) },
            3 => Self::Published { key: word(1) },
            4 => Self::AllPublished,
            other => panic!("no note {other}"),
        }
    }
}

/// A journal at the hand of its writer.
pub(super) struct Journal(File);

impl Journal {
    pub(super) fn open(path: &Path) -> Self {
        Self(OpenOptions::new().create(true).append(true).open(path).unwrap())
    }

    pub(super) fn note(&mut self, note: Note) {
        self.0.write_all(&note.to_bytes()).unwrap();
    }
}

/// The notes of a journal from one on.
pub(super) fn notes_since(path: &Path, first: &mut u64) -> Vec<Note> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let end = file.metadata().unwrap().len() / NOTE as u64;
    let mut bytes = vec![0; (end - *first) as usize * NOTE];
    file.read_exact_at(&mut bytes, *first * NOTE as u64).unwrap();
    *first = end;
    bytes.as_chunks().0.iter().map(Note::from_bytes).collect()
}
