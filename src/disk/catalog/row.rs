//! One row of the catalog: what is known of a published value.

use rusqlite::{Row as SqlRow, Statement};
use twox_hash::XxHash3_64;

use super::sql_error;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::value::Kind;

/// What the catalog knows of a published value.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Grows with every publication and is never used again.
    pub(crate) version: i64,
    pub(crate) key: Key,
    pub(crate) kind: Kind,
    pub(crate) stored_name: String,
    pub(crate) format: String,
    /// In memory.
    pub(crate) bytes: u64,
    /// On disk, the label included.
    pub(crate) stored_bytes: u64,
    pub(crate) payload: u64,
    pub(crate) label_at: u64,
    pub(crate) checksums: Vec<u8>,
    pub(crate) created_ns: i64,
    pub(crate) about: Option<String>,
    /// Below the chest's directory; none for a value in the catalog itself.
    pub(crate) file: Option<String>,
    pub(crate) inline: Option<Vec<u8>>,
}

/// The columns that [`Row::parse`] reads; the bytes of a small value come last.
pub(super) const COLUMNS: &str = "version, hash, key, kind, type, format, bytes, stored_bytes, payload, \
                                  label_at, checksums, created_ns, seal, about, file";

/// Equal keys have equal hashes; the key itself decides.
pub(super) fn hash(key: &str) -> i64 {
    XxHash3_64::oneshot(key.as_bytes()).cast_signed()
}

/// The key of a row that may be damaged elsewhere.
pub(super) fn key(row: &SqlRow<'_>) -> Option<Key> {
    let text = row.get_ref(2).ok()?.as_str().ok()?;
    (row.get(1) == Ok(hash(text))).then(|| Key::from_canonical(text).ok())?
}

impl Row {
    /// Whether its sizes may be true: a pebibyte is a lie that would only upset sums.
    pub(crate) fn is_sane(&self) -> bool {
        self.bytes.max(self.stored_bytes).max(self.payload) <= 1 << 50
    }

    /// A checksum of the row itself. The bytes of a small value have one of their own.
    fn seal(&self) -> i64 {
        let mut text = Vec::with_capacity(256 + self.checksums.len());
        let about = self.about.as_deref().unwrap_or_default();
        let file = self.file.as_deref().unwrap_or_default();
        for part in [self.key.canonical(), self.kind.name(), &self.stored_name, &self.format, about, file] {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        let numbers = [self.bytes, self.stored_bytes, self.payload, self.label_at, self.created_ns.cast_unsigned()];
        text.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        text.extend([u8::from(self.about.is_some()), u8::from(self.file.is_some())]);
        text.extend_from_slice(&self.checksums);
        XxHash3_64::oneshot(&text).cast_signed()
    }

    /// Puts the row into the table `entries` as its version.
    pub(super) fn insert(&self, statement: &mut Statement<'_>, version: i64) -> rusqlite::Result<usize> {
        let key = self.key.canonical();
        statement.execute(rusqlite::params![
            version,
            hash(key),
            key,
            self.kind.name(),
            self.stored_name,
            self.format,
            self.bytes,
            self.stored_bytes,
            self.payload,
            self.label_at,
            self.checksums,
            self.created_ns,
            self.seal(),
            version,
            self.about,
            self.file,
            self.inline,
        ])
    }

    /// Reads and verifies [`COLUMNS`], with the bytes of a small value if they were asked for. `expected` is the key that
    /// the row should have.
    pub(super) fn parse(row: &SqlRow<'_>, expected: Option<&Key>, with_inline: bool) -> Result<Self> {
        let text = |index| row.get_ref(index).ok().and_then(|text| text.as_str().ok()).unwrap_or_default();
        let key = text(2);
        let is_sealed = || -> rusqlite::Result<Option<Self>> {
            if row.get::<_, i64>(1)? != hash(key) {
                return Ok(None);
            }
            let expected = expected.filter(|expected| expected.canonical() == key);
            let key = expected.map_or_else(|| Key::from_canonical(key), |expected| Ok(expected.clone()));
            let (Ok(key), Ok(kind)) = (key, text(3).parse()) else { return Ok(None) };
            let parsed = Self {
                version: row.get(0)?,
                key,
                kind,
                stored_name: row.get(4)?,
                format: row.get(5)?,
                bytes: row.get(6)?,
                stored_bytes: row.get(7)?,
                payload: row.get(8)?,
                label_at: row.get(9)?,
                checksums: row.get(10)?,
                created_ns: row.get(11)?,
                about: row.get(13)?,
                file: row.get(14)?,
                inline: if with_inline { row.get(15)? } else { None },
            };
            Ok((parsed.seal() == row.get::<_, i64>(12)?).then_some(parsed))
        };
        // Versions begin with 1.
        match is_sealed() {
            Ok(Some(row)) if row.is_sane() && row.version > 0 => Ok(row),
            Ok(_) | Err(rusqlite::Error::IntegralValueOutOfRange(..) | rusqlite::Error::InvalidColumnType(..)) => {
                Err(Error::damaged("a row of the catalog does not match its checksum"))
            }
            Err(error) => Err(sql_error(error)),
        }
    }
}
