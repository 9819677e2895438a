//! The label: what a value file says of itself, so that the catalog can be made again from the files alone.
//!
//! It is a block of bytes that every reader of the format steps over: behind the data of an array, in a skippable frame
//! behind compressed ones, as white space behind a JSON text, and before the footer of a Parquet file, which is found
//! from the end. The rest of the file is the payload.
//!
//! ```text
//! JSON (UTF-8) · XXH3-128 of the JSON, 16 bytes · length of the JSON, u32 little endian · "ICECHEST"
//! ```

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use serde_json::{Value as Json, json};

use crate::error::Result;
use crate::format::{Encoded, checksum};
use crate::key::Key;
use crate::value::Kind;

const MAGIC: &[u8; 8] = b"ICECHEST";
const PARQUET: &[u8; 4] = b"PAR1";
const SKIPPABLE: u32 = 0x184d_2a50;

/// What the catalog knows of a value besides its bytes.
pub(crate) struct Label<'a> {
    pub(crate) key: &'a Key,
    pub(crate) kind: Kind,
    pub(crate) stored_name: &'a str,
    pub(crate) format: &'a str,
    pub(crate) bytes: u64,
    pub(crate) created_ns: i64,
}

impl Label<'_> {
    fn to_json(&self, encoded: &Encoded) -> Json {
        let checksums: String = encoded.checksums.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({
            "icechest": super::FORMAT_VERSION,
            "key": self.key.canonical(),
            "kind": self.kind.to_string(),
            "type": self.stored_name,
            "format": self.format,
            "bytes": self.bytes,
            "created_ns": self.created_ns,
            "payload": encoded.len,
            "checksums": checksums,
            "about": encoded.about,
        })
    }

    /// Puts the label into a file that holds a payload. Returns where it is, and how long.
    pub(crate) fn write(&self, file: &mut File, encoded: &Encoded) -> Result<(u64, u64), io::Error> {
        let json = self.to_json(encoded).to_string();
        let mut label = json.into_bytes();
        let len = u32::try_from(label.len()).map_err(|_| io::Error::other("the value is too large for a label"))?;
        let digest = checksum(&label);
        label.extend_from_slice(&digest);
        label.extend_from_slice(&len.to_le_bytes());
        label.extend_from_slice(MAGIC);
        let label = disguise(label, self.format);

        let at = place(file, encoded.len)?;
        let mut tail = vec![0; (encoded.len - at) as usize];
        read_at(file, &mut tail, at)?;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&label)?;
        file.write_all(&tail)?;
        Ok((at, label.len() as u64))
    }
}

/// Gives a label the form that readers of the format step over.
fn disguise(label: Vec<u8>, format: &str) -> Vec<u8> {
    match format {
        // White space may follow a JSON text: each byte is four characters, two bits each, the highest first.
        "json" => {
            label.iter().flat_map(|byte| [6, 4, 2, 0].map(|shift| b" \t\n\r"[usize::from(byte >> shift & 3)])).collect()
        }
        // LZ4 and zstd have the same kind of frame for what their readers should skip: a magic number and a length.
        "bincode+lz4" | "bincode+zstd" => {
            let len = u32::try_from(label.len()).unwrap_or(u32::MAX);
            [&SKIPPABLE.to_le_bytes(), &len.to_le_bytes(), label.as_slice()].concat()
        }
        _ => label,
    }
}

/// Where in a payload of `len` bytes a label goes: before the footer of a Parquet file, else at the end.
fn place(file: &File, len: u64) -> io::Result<u64> {
    let (mut head, mut tail) = ([0; 4], [0; 8]);
    if len < 12 {
        return Ok(len);
    }
    read_at(file, &mut head, 0)?;
    read_at(file, &mut tail, len - 8)?;
    if head != *PARQUET || tail[4..] != *PARQUET {
        return Ok(len);
    }
    let footer = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]])) + 8;
    Ok(len.checked_sub(footer).filter(|&at| at >= 4).unwrap_or(len))
}

fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    crate::format::read_exact_at(file, buf, offset)
}
