//! The label: what a value file says of itself, so that the catalog can be made again from the files alone.
//!
//! It is a block of bytes that every reader of the format steps over: behind the data of an array, in a skippable frame
//! behind compressed ones, as white space behind a JSON text, and before the footer of a Parquet or Arrow file, which is
//! found from the end. The rest of the file is the payload.
//!
//! ```text
//! JSON (UTF-8) · XXH3-128 of the JSON, 16 bytes · length of the JSON, u32 little endian · "ICECHEST"
//! ```

use std::io;

use serde_json::{Value as Json, json};

use super::catalog::Row;
use super::parts::{FACT, Place, from_hex};
use super::storage::{StorageFile, read_exact_at, write_all_at};
use crate::error::{Error, Result};
use crate::format::checksum;
use crate::key::Key;

const MAGIC: &[u8; 8] = b"ICECHEST";
const PARQUET: &[u8; 4] = b"PAR1";
const ARROW: &[u8; 6] = b"ARROW1";
const SKIPPABLE: u32 = 0x184d_2a50;

/// A longer JSON is none of ours: half of it is checksums, so this is enough for a value of a tebibyte.
const LONGEST: u64 = 64 << 20;

/// Bytes behind the JSON: its checksum, its length, and the magic.
const TAIL: u64 = 16 + 4 + 8;

/// How a label is written so that readers of the format step over it.
#[derive(Clone, Copy, PartialEq)]
enum Disguise {
    None,
    /// LZ4 and zstd have the same kind of frame for what their readers should skip: a magic number and a length.
    Frame,
    /// White space may follow a JSON text: each byte is four characters, two bits each, the highest first.
    Space,
}

impl Disguise {
    fn of(format: &str) -> Self {
        match format {
            "json" => Self::Space,
            "bincode+lz4" | "bincode+zstd" => Self::Frame,
            _ => Self::None,
        }
    }

    fn put_on(self, label: Vec<u8>) -> Vec<u8> {
        match self {
            Self::None => label,
            Self::Frame => {
                let len = u32::try_from(label.len()).unwrap_or(u32::MAX);
                [&SKIPPABLE.to_le_bytes(), &len.to_le_bytes(), label.as_slice()].concat()
            }
            Self::Space => label
                .iter()
                .flat_map(|byte| [6, 4, 2, 0].map(|shift| b" \t\n\r"[usize::from(byte >> shift & 3)]))
                .collect(),
        }
    }

    /// Bytes in the file for one of the label.
    fn width(self) -> u64 {
        if self == Self::Space { 4 } else { 1 }
    }

    /// Reads `len` bytes of a label that begin `back` bytes of the label before the offset `end` in the file.
    fn read(self, file: &dyn StorageFile, end: u64, back: u64, len: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(start) = back.checked_mul(self.width()).and_then(|back| end.checked_sub(back)) else {
            return Ok(None);
        };
        let mut bytes = vec![0; (len * self.width()) as usize];
        read_exact_at(file, &mut bytes, start)?;
        if self != Self::Space {
            return Ok(Some(bytes));
        }
        let bits = |space: &u8| b" \t\n\r".iter().position(|known| known == space);
        let byte = |four: &[u8]| four.iter().try_fold(0, |byte, space| Some(byte << 2 | bits(space)? as u8));
        Ok(bytes.chunks_exact(4).map(byte).collect())
    }
}

/// Puts the label of `row` into a file that holds the row's payload; the row then tells where it is. A part of a value
/// says where it belongs.
pub(super) fn write(file: &dyn StorageFile, row: &mut Row, place: Option<&Place>) -> io::Result<()> {
    let mut json = to_json(row);
    if let Some(Place { of, start }) = place {
        json["part"] = json!({ "of": of, "start": start });
    }
    let mut label = json.to_string().into_bytes();
    if row.format == "arrow" {
        // White space at the end, so that what follows the label stays aligned.
        label.resize((label.len() + TAIL as usize).next_multiple_of(8) - TAIL as usize, b' ');
    }
    let len = u32::try_from(label.len())
        .ok()
        .filter(|&len| u64::from(len) <= LONGEST)
        .ok_or_else(|| io::Error::other("the value is too large for a label"))?;
    let digest = checksum(&label);
    label.extend_from_slice(&digest);
    label.extend_from_slice(&len.to_le_bytes());
    label.extend_from_slice(MAGIC);
    let mut label = Disguise::of(&row.format).put_on(label);

    row.label_at = find_place(file, row.payload)?;
    row.stored_bytes = row.payload + label.len() as u64;
    let footer = label.len();
    label.resize(footer + (row.payload - row.label_at) as usize, 0);
    read_exact_at(file, &mut label[footer..], row.label_at)?;
    write_all_at(file, &label, row.label_at)
}

fn to_json(row: &Row) -> Json {
    let checksums: String = row.checksums.iter().map(|byte| format!("{byte:02x}")).collect();
    let about: Json = row.about.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    json!({
        "icechest": super::FORMAT_VERSION,
        "key": row.key.canonical(),
        "kind": row.kind.to_string(),
        "type": row.stored_name,
        "format": row.format,
        "bytes": row.bytes,
        "created_ns": row.created_ns,
        "payload": row.payload,
        "checksums": checksums,
        "about": about,
    })
}

/// The row that a value file tells of itself, without its name and its version; and where it belongs, if it is a part of
/// a value.
///
/// # Errors
/// `Damaged` when there is no label, or one that was changed.
pub(super) fn read(file: &dyn StorageFile) -> Result<(Row, Option<Place>)> {
    let len = file.len().map_err(|error| Error::io("cannot read the file", error))?;
    let found = find(file, len).map_err(|error| Error::io("cannot read the file's label", error))?;
    let (json, disguise, end) = found.ok_or_else(|| Error::damaged("the file has no label, or a damaged one"))?;
    let label_len = (json.len() as u64 + TAIL) * disguise.width() + if disguise == Disguise::Frame { 8 } else { 0 };
    let nonsense = || Error::damaged("the file's label makes no sense");
    let mut label: Json = serde_json::from_slice(&json).map_err(|error| nonsense().with_source(error))?;
    if label["icechest"].as_i64().is_none_or(|version| version > super::FORMAT_VERSION) {
        return Err(Error::unsupported("the file was written by a newer version of icechest"));
    }
    let text = |name: &str| label[name].as_str().map(str::to_owned).ok_or_else(nonsense);
    let number = |name: &str| label[name].as_u64().ok_or_else(nonsense);
    let row = Row {
        version: 0,
        key: Key::from_canonical(&text("key")?).map_err(|error| nonsense().with_source(error))?,
        kind: text("kind")?.parse()?,
        stored_name: text("type")?,
        format: text("format")?,
        bytes: number("bytes")?,
        stored_bytes: len,
        payload: number("payload")?,
        label_at: end.checked_sub(label_len).ok_or_else(nonsense)?,
        checksums: from_hex(&text("checksums")?).ok_or_else(nonsense)?,
        created_ns: label["created_ns"].as_i64().ok_or_else(nonsense)?,
        about: about_of(&mut label),
        file: None,
        inline: None,
    };
    if row.payload.checked_add(label_len) != Some(len) || Disguise::of(&row.format) != disguise || !row.is_sane() {
        return Err(nonsense());
    }
    let place = match &label["part"] {
        Json::Null => None,
        part => Some(Place {
            of: part["of"].as_str().map(str::to_owned).ok_or_else(nonsense)?,
            start: part["start"].as_u64().ok_or_else(nonsense)?,
        }),
    };
    Ok((row, place))
}

/// The facts of a label: about its own file alone.
fn about_of(label: &mut Json) -> Option<String> {
    let about = label.get_mut("about")?.as_object_mut()?;
    about.remove(FACT);
    Some(label["about"].to_string())
}

/// The JSON of a file's label, how it is written, and where the label ends.
fn find(file: &dyn StorageFile, len: u64) -> io::Result<Option<(Vec<u8>, Disguise, u64)>> {
    let candidates =
        [(Disguise::Frame, len), (Disguise::None, len), (Disguise::None, footer(file, len)?), (Disguise::Space, len)];
    for (disguise, end) in candidates {
        let Some(tail) = disguise.read(file, end, TAIL, TAIL)? else { continue };
        let Some((digest, rest)) = tail.split_first_chunk::<16>() else { continue };
        let Some((json_len, MAGIC)) =
            rest.split_first_chunk::<4>().and_then(|(n, rest)| Some((n, rest.try_into().ok()?)))
        else {
            continue;
        };
        // Not longer than the file, or it cannot be read.
        let json_len = u64::from(u32::from_le_bytes(*json_len));
        if json_len > LONGEST || (json_len + TAIL) * disguise.width() > end {
            continue;
        }
        let Some(json) = disguise.read(file, end, json_len + TAIL, json_len)? else { continue };
        if checksum(&json) != *digest {
            continue;
        }
        let framed = [SKIPPABLE.to_le_bytes(), ((json_len + TAIL) as u32).to_le_bytes()].concat();
        let is_framed =
            disguise != Disguise::Space && disguise.read(file, end, json_len + TAIL + 8, 8)? == Some(framed);
        if is_framed == (disguise == Disguise::Frame) {
            return Ok(Some((json, disguise, end)));
        }
    }
    Ok(None)
}

/// Where in a payload of `len` bytes a label goes: before the footer of a Parquet or Arrow file, else at the end.
fn find_place(file: &dyn StorageFile, len: u64) -> io::Result<u64> {
    let mut head = [0; 6];
    if len < 12 {
        return Ok(len);
    }
    read_exact_at(file, &mut head, 0)?;
    if head.starts_with(PARQUET) || head == *ARROW { footer(file, len) } else { Ok(len) }
}

/// Where the footer of a Parquet or Arrow file of `len` bytes begins; of any other file, the end.
fn footer(file: &dyn StorageFile, len: u64) -> io::Result<u64> {
    let mut tail = [0; 10];
    if len < 12 {
        return Ok(len);
    }
    read_exact_at(file, &mut tail, len - 10)?;
    // The length of what comes before it, then the magic.
    let footer = match &tail {
        [l0, l1, l2, l3, magic @ ..] if magic == ARROW => u64::from(u32::from_le_bytes([*l0, *l1, *l2, *l3])) + 10,
        [_, _, l0, l1, l2, l3, magic @ ..] if magic == PARQUET => {
            u64::from(u32::from_le_bytes([*l0, *l1, *l2, *l3])) + 8
        }
        _ => return Ok(len),
    };
    Ok(len.checked_sub(footer).filter(|&at| at >= 4).unwrap_or(len))
}
