//! `icechest put`: a file becomes a value.

use std::io::Write;
use std::path::Path;

use icechest::{Chest, Key};

use crate::failure::{Failure, Result};
use crate::load::{self, Loaded};
use crate::{human, progress};

pub(crate) fn put(dir: &Path, key: &Key, file: &Path, out: &mut dyn Write) -> Result<()> {
    if dir.exists() && !dir.is_dir() {
        return Err(Failure::usage(format!("{} is not a chest: it is a file", dir.display())));
    }
    // What is wrong with an existing directory is said before a long read; a new one is made only after a good read.
    let existing = dir.exists().then(|| Chest::open(dir)).transpose()?;
    let loaded = load::load(file)?;
    let shape = match &loaded {
        Loaded::Folder(_) => "a folder".to_owned(),
        Loaded::Array(array) => array.to_string(),
        Loaded::Frame(batches) => format!("frame of {}", load::size(batches)),
        Loaded::Json(_) => "JSON".to_owned(),
        Loaded::Bytes(_) => "bytes".to_owned(),
    };
    let chest = match existing {
        Some(chest) => chest,
        None => Chest::open(dir)?,
    };
    let working = progress::of_work(format!("storing {}", human::printable(&key.to_string())));
    loaded.insert(&chest, key)?;
    chest.flush()?;
    drop(working);
    let info = chest.info(key)?;
    let place = match &info.file {
        Some(file) => format!("in {file}"),
        None => "in the catalog".to_owned(),
    };
    let (memory, disk) = (human::bytes(info.bytes), human::bytes(info.stored_bytes));
    let format = info.format.unwrap_or_default();
    let key = human::printable(&key.to_string());
    writeln!(out, "{key}: {shape}, {memory}, stored as {format} of {disk} {place}").map_err(Failure::from)
}
