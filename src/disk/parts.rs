//! Rows that were appended to a value: each time a file of their own. The value's row names them all, among its facts.
//!
//! So a version of a value shares files with the versions before it. A file goes when no row names it any more.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::catalog::Row;
use crate::error::{Error, Result};
use crate::key::Key;

/// The fact that names the parts; facts of values cannot have this name.
pub(crate) const FACT: &str = "$parts";

/// Whatever is larger is a lie.
const LARGEST: u64 = 1 << 42;
const MOST: usize = 1 << 20;

/// A file of rows that were appended to a value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) file: String,
    pub(crate) format: String,
    pub(crate) rows: u64,
    /// In memory.
    pub(crate) bytes: u64,
    /// On disk, the label included.
    pub(crate) stored_bytes: u64,
    pub(crate) payload: u64,
    pub(crate) label_at: u64,
    /// In hexadecimal digits.
    pub(crate) checksums: String,
}

/// Which rows of which value a file holds.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The file of the value's first rows.
    pub(crate) of: String,
    /// The rows before.
    pub(crate) start: u64,
}

impl Part {
    /// The part that a row of its own would describe.
    pub(crate) fn of_row(row: &Row, rows: u64) -> Result<Self> {
        Ok(Self {
            file: row.file.clone().ok_or_else(|| Error::unsupported("rows without bytes cannot be appended"))?,
            format: row.format.clone(),
            rows,
            bytes: row.bytes,
            stored_bytes: row.stored_bytes,
            payload: row.payload,
            label_at: row.label_at,
            checksums: row.checksums.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// A row for this part alone, of the value of `row`.
    pub(crate) fn as_row(&self, row: &Row) -> Result<Row> {
        let nonsense = || Error::damaged("the catalog's row for this value makes no sense").with_key(&row.key);
        Ok(Row {
            format: self.format.clone(),
            bytes: self.bytes,
            stored_bytes: self.stored_bytes,
            payload: self.payload,
            label_at: self.label_at,
            checksums: from_hex(&self.checksums).ok_or_else(nonsense)?,
            about: Some(json!({ "rows": self.rows }).to_string()),
            file: Some(self.file.clone()),
            inline: None,
            ..row.clone()
        })
    }
}

/// More than a row may tell.
pub(super) fn too_large(key: &Key) -> Error {
    Error::unsupported("the value takes more than a pebibyte, or says so").with_key(key)
}

/// Bytes from hexadecimal digits.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
    text.len().is_multiple_of(2).then(|| text.as_bytes().chunks_exact(2).map(byte).collect()).flatten()
}

/// The parts that the facts of a row name.
fn named(about: Option<&str>) -> Result<Vec<Part>> {
    // Most values have none, and looking for the name is quicker than reading all facts.
    let Some(about) = about.filter(|about| about.contains(FACT)) else { return Ok(Vec::new()) };
    let nonsense = |error| Error::damaged("the catalog's row for this value makes no sense").with_source(error);
    let mut facts: Json = serde_json::from_str(about).map_err(nonsense)?;
    let Some(parts) = facts.get_mut(FACT).map(Json::take) else { return Ok(Vec::new()) };
    let parts: Vec<Part> = serde_json::from_value(parts).map_err(nonsense)?;
    // So that sums of them are numbers.
    let is_sane = |part: &Part| part.rows.max(part.bytes).max(part.stored_bytes) <= LARGEST;
    if parts.len() > MOST || !parts.iter().all(is_sane) {
        return Err(Error::damaged("the catalog's row for this value makes no sense"));
    }
    Ok(parts)
}

/// The files of a row with such columns: each with its bytes.
pub(super) fn files(
    file: Option<String>,
    stored_bytes: i64,
    about: Option<&str>,
) -> impl Iterator<Item = (String, i64)> + use<> {
    // A row that makes no sense is never used; it names what it names.
    let parts = named(about).unwrap_or_default();
    let appended: i64 = parts.iter().fold(0, |sum, part| sum.saturating_add(part.stored_bytes.cast_signed()));
    let first = file.map(|file| (file, stored_bytes.saturating_sub(appended)));
    first.into_iter().chain(parts.into_iter().map(|part| (part.file, part.stored_bytes.cast_signed())))
}

impl Row {
    pub(crate) fn parts(&self) -> Result<Vec<Part>> {
        named(self.about.as_deref()).map_err(|error| error.with_key(&self.key))
    }

    /// All files of the value.
    pub(crate) fn files(&self) -> Vec<String> {
        let stored_bytes = self.stored_bytes.cast_signed();
        files(self.file.clone(), stored_bytes, self.about.as_deref()).map(|(file, _)| file).collect()
    }

    /// The rows of each file of the value: the one of its own, with the facts about the whole, then its parts.
    pub(crate) fn split(self) -> Result<(Self, Vec<Self>)> {
        let parts = self.parts()?;
        if parts.is_empty() {
            return Ok((self, Vec::new()));
        }
        let nonsense = || Error::damaged("the catalog's row for this value makes no sense").with_key(&self.key);
        let appended = parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.stored_bytes));
        let own = appended.and_then(|appended| self.stored_bytes.checked_sub(appended)).ok_or_else(nonsense)?;
        let parts = parts.iter().map(|part| part.as_row(&self)).collect::<Result<_>>()?;
        Ok((Self { stored_bytes: own, ..self }, parts))
    }

    /// The row of a value that has `rows` rows, in its own file and in these parts.
    pub(crate) fn with_parts(&self, parts: &[Part], rows: u64) -> Result<Self> {
        let (own, old) = self.clone().split()?;
        let sum = |of: &dyn Fn(&Part) -> u64| parts.iter().map(of).fold(0, u64::saturating_add);
        let old_bytes = old.iter().map(|part| part.bytes).sum();
        let mut facts: Json = own.about.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let told = facts.as_object_mut();
        let told =
            told.ok_or_else(|| Error::damaged("the catalog does not tell what the value is").with_key(&self.key))?;
        told.remove(FACT);
        match told.get_mut("shape").and_then(|shape| shape.get_mut(0)) {
            Some(len) => *len = rows.into(),
            None => _ = told.insert("rows".to_owned(), rows.into()),
        }
        if !parts.is_empty() {
            told.insert(FACT.to_owned(), json!(parts));
        }
        let row = Self {
            bytes: self.bytes.saturating_sub(old_bytes).saturating_add(sum(&|part| part.bytes)),
            stored_bytes: own.stored_bytes.saturating_add(sum(&|part| part.stored_bytes)),
            about: Some(facts.to_string()),
            ..own
        };
        if row.is_sane() { Ok(row) } else { Err(too_large(&row.key)) }
    }

    /// The columns of a frame and their types, as the library names them that wrote it.
    #[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
    pub(crate) fn columns(&self) -> Option<Json> {
        let mut facts: Json = serde_json::from_str(self.about.as_deref()?).ok()?;
        facts.get_mut("columns").map(Json::take)
    }

    /// How many rows the value has, as its facts tell.
    pub(crate) fn rows(&self) -> Option<u64> {
        let facts: Json = serde_json::from_str(self.about.as_deref()?).ok()?;
        facts.get("shape").map_or_else(|| facts.get("rows"), |shape| shape.get(0))?.as_u64()
    }
}
