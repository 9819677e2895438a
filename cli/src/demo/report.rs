//! What the demo shows of its chest.

use std::io::Write;
use std::path::Path;

use icechest::{Chest, Info};

use crate::failure::Result;
use crate::human::{self, bytes};
use crate::list::by_kind;
use crate::table::Table;

/// Lines of the demo are no longer than this, where file names allow it.
const COLUMNS: usize = 100;

pub(super) fn contents(chest: &Chest, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "\nWhat the chest holds")?;
    Ok(by_kind(&chest.infos()?).write(out, "  ", COLUMNS)?)
}

/// The largest value of each format that has a file.
pub(super) fn examples(infos: &[Info]) -> Vec<Info> {
    let mut examples: Vec<Info> = Vec::new();
    for info in infos.iter().filter(|info| info.file.is_some()) {
        match examples.iter_mut().find(|example| example.format == info.format) {
            Some(example) if example.bytes < info.bytes => *example = info.clone(),
            Some(_) => {}
            None => examples.push(info.clone()),
        }
    }
    examples
}

/// Values that left memory, with their files: some of each format.
pub(super) fn spilled(chest: &Chest, out: &mut dyn Write) -> Result<()> {
    const EACH: usize = 2;
    let infos = chest.infos()?;
    let cold: Vec<_> = infos.iter().filter(|info| !info.is_resident && info.file.is_some()).collect();
    let total = cold.iter().map(|info| info.bytes).sum();
    writeln!(out, "\nWhat spilled where: {} values of {} are only on disk, such as", cold.len(), bytes(total))?;
    let mut table = Table::new(["key", ">in memory", ">on disk", "file"]);
    for format in ["parquet", "b2nd", "npy", "json"] {
        let mut of_format: Vec<_> = cold.iter().filter(|info| info.format.as_deref() == Some(format)).collect();
        of_format.sort_by_key(|info| std::cmp::Reverse(info.bytes));
        for info in of_format.into_iter().take(EACH) {
            let key = human::cut(info.key.canonical(), 34);
            let file = info.file.clone().unwrap_or_default();
            table.row([key, bytes(info.bytes), bytes(info.stored_bytes), file]);
        }
    }
    Ok(table.write(out, "  ", usize::MAX)?)
}

pub(super) fn memory(chest: &Chest, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "\nMemory against the budget")?;
    for line in chest.stats()?.to_string().lines() {
        writeln!(out, "  {line}")?;
    }
    if let Some(peak) = process_peak() {
        writeln!(out, "  process peak resident memory {}, the program and this demo's own work included", bytes(peak))?;
    }
    Ok(())
}

/// The most memory that this process ever had, where the system tells.
fn process_peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// How to open the same files elsewhere.
pub(super) fn python(dir: &Path, examples: &[Info], out: &mut dyn Write) -> Result<()> {
    writeln!(out, "\nThe same files in Python")?;
    for info in examples {
        let Some(file) = &info.file else { continue };
        // The path as a literal: what Python and JSON understand in it is the same.
        let path = serde_json::Value::from(dir.join(file).to_string_lossy());
        let (module, call) = match info.format.as_deref() {
            Some("parquet") => ("import polars as pl", format!("pl.read_parquet({path})")),
            Some("npy") => ("import numpy as np", format!("np.load({path})")),
            Some("b2nd") => ("import blosc2", format!("blosc2.open({path})[:]")),
            _ => continue,
        };
        writeln!(out, "  {module}\n  {call}")?;
    }
    Ok(())
}
