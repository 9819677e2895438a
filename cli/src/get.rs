//! `icechest get`: a value is shown, or becomes a file.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use icechest::{AnyArray, Chest, Files, Info, Key, Kind, Partial, Value};
use serde_json::Value as Json;

use crate::args::Part;
use crate::failure::{Failure, Result};
use crate::restore::restore;
use crate::{chests, preview, progress, save};

/// A value as the command knows it.
pub(crate) enum Got {
    Array(Arc<AnyArray>),
    Frame(Arc<Vec<RecordBatch>>),
    Json(Arc<Json>),
    Text(Arc<String>),
    Bytes(Arc<Vec<u8>>),
    Files(Arc<Files>),
    /// A type that only its name tells; perhaps one of `std`.
    Other,
}

impl Got {
    /// Reads a value, or the part of it that is wanted, by what it was stored as.
    pub(crate) fn read(chest: &Chest, info: &Info, part: &Part) -> Result<Self> {
        let (key, name) = (&info.key, info.type_name.as_str());
        Ok(match info.kind {
            Kind::Array if AnyArray::reads(name) => Self::Array(read(chest, key, part)?),
            Kind::Frame if Vec::<RecordBatch>::reads(name) => Self::Frame(read(chest, key, part)?),
            Kind::Plain if !part.is_all() => {
                return Err(Failure::usage("a plain value has neither rows nor columns".to_owned()));
            }
            Kind::Plain if Json::reads(name) => Self::Json(chest.get(key)?),
            Kind::Plain if String::reads(name) => Self::Text(chest.get(key)?),
            Kind::Plain if Vec::<u8>::reads(name) => Self::Bytes(chest.get(key)?),
            Kind::Plain if Files::reads(name) => Self::Files(chest.get(key)?),
            _ => Self::Other,
        })
    }
}

fn read<V: Partial>(chest: &Chest, key: &Key, part: &Part) -> Result<Arc<V>> {
    if part.is_all() {
        return Ok(chest.get(key)?);
    }
    let mut select = chest.select(key);
    if let Some(rows) = &part.rows {
        select = select.rows(rows.clone());
    }
    if let Some(columns) = &part.columns {
        select = select.columns(columns);
    }
    Ok(Arc::new(select.get()?))
}

pub(crate) fn get(dir: &Path, key: &Key, part: &Part, output: Option<&Path>, out: &mut dyn Write) -> Result<()> {
    let chest = chests::open(dir)?;
    let info = chest.info(key)?;
    // An ending that does not fit is told before a long read.
    if let Some(file) = output {
        save::check(&info, file)?;
    }
    let working = progress::of_work("reading");
    let got = Got::read(&chest, &info, part)?;
    drop(working);
    match output {
        Some(target) if matches!(got, Got::Files(_)) && save::is_stream(target) => {
            Err(Failure::usage("files and folders are written to a path, not to a stream"))
        }
        Some(target) if matches!(got, Got::Files(_)) => restore(&chest, key.clone(), target),
        Some(file) => save::save(&chest, &info, &got, file),
        None => preview::show(&chest, &info, &got, out),
    }
}
