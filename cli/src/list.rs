//! `icechest ls`, `info`, `stats` and `rm`: what there is.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow_array::TimestampMillisecondArray;
use arrow_cast::display::array_value_to_string;
use icechest::{Info, Key, Stats};
use serde_json::{Value as Json, json};

use crate::chests;
use crate::failure::{Failure, Result};
use crate::human::{self, bytes};
use crate::table::Table;

/// Longer keys are cut in tables.
const KEY_COLUMNS: usize = 60;

pub(crate) fn ls(dir: &Path, json: bool, out: &mut dyn Write) -> Result<()> {
    let infos = chests::open(dir)?.infos()?;
    if json {
        return Ok(infos.iter().try_for_each(|info| writeln!(out, "{}", json_line(info)))?);
    }
    // Other programs get everything, however wide.
    let is_shown = io::stdout().is_terminal();
    let cut = |text: &str| if is_shown { human::cut(text, KEY_COLUMNS) } else { text.to_owned() };
    let mut table = Table::new(["key", "kind", "type", ">in memory", ">on disk", "format", "file"]);
    for info in infos {
        table.row([
            cut(&human::printable(info.key.canonical())),
            info.kind.to_string(),
            cut(&info.type_name),
            bytes(info.bytes),
            bytes(info.stored_bytes),
            info.format.unwrap_or_default(),
            info.file.unwrap_or_else(|| "(in the catalog)".to_owned()),
        ]);
    }
    let room = if is_shown { human::columns() } else { usize::MAX };
    table.fit(room);
    Ok(table.write(out, "", room)?)
}

/// The key comes first, as the JSON that it is.
fn json_line(info: &Info) -> String {
    let fields = [
        ("kind", json!(info.kind.to_string())),
        ("type", json!(info.type_name)),
        ("bytes", json!(info.bytes)),
        ("stored_bytes", json!(info.stored_bytes)),
        ("format", json!(info.format)),
        ("file", json!(info.file)),
        ("written", json!(info.written.map(iso))),
        ("about", info.about.clone()),
    ];
    // The key's text goes in as it is: as a number of JSON a large integer would be rounded.
    let mut line = format!("{{\"key\":{}", info.key.canonical());
    line.extend(fields.iter().map(|(name, value)| format!(",\"{name}\":{value}")));
    line.push('}');
    line
}

/// A time as RFC 3339 has it, in UTC.
fn iso(time: SystemTime) -> String {
    let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let array = TimestampMillisecondArray::from(vec![i64::try_from(millis).unwrap_or(i64::MAX)]);
    let utc: Arc<str> = "+00:00".into();
    array_value_to_string(&array.with_timezone(utc), 0).unwrap_or_default()
}

pub(crate) fn info(dir: &Path, key: &Key, json: bool, out: &mut dyn Write) -> Result<()> {
    let chest = chests::open(dir)?;
    let info = chest.info(key)?;
    if json {
        return Ok(writeln!(out, "{}", json_line(&info))?);
    }
    let file = match &info.file {
        Some(file) => chest.path().join(file).display().to_string(),
        None => "none: the value is in the catalog".to_owned(),
    };
    let mut line = |name: &str, text: &str| writeln!(out, "{name:<10} {}", human::printable(text));
    line("key", info.key.canonical())?;
    line("kind", &info.kind.to_string())?;
    line("type", &info.type_name)?;
    line("in memory", &bytes(info.bytes))?;
    line("on disk", &bytes(info.stored_bytes))?;
    line("format", &info.format.unwrap_or_default())?;
    line("file", &file)?;
    line("written", &info.written.map(iso).unwrap_or_default())?;
    let Json::Object(facts) = info.about else { return Ok(()) };
    for (name, fact) in facts {
        match fact.as_array().filter(|_| name == "columns") {
            Some(columns) => {
                line(&name, &human::count(columns.len()))?;
                columns.iter().try_for_each(|pair| line("", &format!("{}: {}", plain(&pair[0]), plain(&pair[1]))))?;
            }
            None => line(&name, &plain(&fact))?,
        }
    }
    Ok(())
}

/// Text without its quotes; everything else as JSON.
fn plain(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}

pub(crate) fn rm(dir: &Path, keys: &[Key]) -> Result<()> {
    let chest = chests::open(dir)?;
    let mut missing = Vec::new();
    for key in keys {
        if !chest.remove(key)? {
            missing.push(key.clone());
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Failure::NoSuchKeys(missing)) }
}

pub(crate) fn stats(dir: &Path, json: bool, out: &mut dyn Write) -> Result<()> {
    let chest = chests::open(dir)?;
    let stats = chest.stats()?;
    if json {
        return Ok(writeln!(out, "{}", stats_json(&stats))?);
    }
    by_kind(&chest.infos()?).write(out, "", human::columns())?;
    Ok(writeln!(out, "\n{stats}")?)
}

fn stats_json(stats: &Stats) -> Json {
    json!({
        "values": stats.values,
        "stored_bytes": stats.stored_bytes,
        "resident": stats.resident,
        "resident_bytes": stats.resident_bytes,
        "peak_bytes": stats.peak_bytes,
        "budget": stats.budget,
        "budget_now": stats.budget_now,
        "dirty": stats.dirty,
        "pinned": stats.pinned,
        "pinned_bytes": stats.pinned_bytes,
        "pins": stats.pins,
        "prefer_disk": stats.prefer_disk,
        "hits": stats.hits,
        "loads": stats.loads,
        "misses": stats.misses,
        "spills": stats.spills,
        "published": stats.published,
        "write_errors": stats.write_errors,
    })
}

/// Values, and what they take, by kind and format.
pub(crate) fn by_kind(infos: &[Info]) -> Table {
    let mut groups = BTreeMap::<_, (usize, u64, u64)>::new();
    for info in infos {
        let group = groups.entry((info.kind.to_string(), info.format.as_deref().unwrap_or(""))).or_default();
        *group = (group.0 + 1, group.1 + info.bytes, group.2 + info.stored_bytes);
    }
    let mut table = Table::new(["kind", "format", ">values", ">in memory", ">on disk"]);
    let mut total = (0, 0, 0);
    for ((kind, format), (values, memory, disk)) in groups {
        table.row([kind, format.to_owned(), human::count(values), bytes(memory), bytes(disk)]);
        total = (total.0 + values, total.1 + memory, total.2 + disk);
    }
    table.row(["total".to_owned(), String::new(), human::count(total.0), bytes(total.1), bytes(total.2)]);
    table
}
