//! `icechest check`: whether everything is as it was stored, and a repair if it is not.

use std::io::{self, Write};
use std::path::Path;

use icechest::{Chest, Damage, Key, Report};
use serde_json::{Value as Json, json};

use crate::failure::{Failure, Result};
use crate::human::{self, bytes, many};
use crate::table::Table;
use crate::{chests, progress};

/// More lines of one sort would hide the others.
const LINES: usize = 20;

/// Longer keys are cut in the table.
const KEY_COLUMNS: usize = 30;

pub(crate) fn check(dir: &Path, repair: bool, json: bool, out: &mut dyn Write) -> Result<()> {
    chests::must_be_left(dir)?;
    let report = verify(dir, repair)?;
    let shown = if json { writeln!(out, "{}", report_json(&report)) } else { show(&report, out) };
    // Damage decides, even if nobody reads the report to its end.
    if report.is_healthy() { Ok(shown?) } else { Err(Failure::Told) }
}

fn verify(dir: &Path, repair: bool) -> Result<Report> {
    let bar = progress::of_bytes("verifying", 0);
    let report = Chest::check(dir)
        .repair(repair)
        .on_progress(|progress| {
            bar.set_length(progress.of_bytes);
            bar.set_position(progress.bytes);
        })
        .run();
    bar.finish_and_clear();
    Ok(report?)
}

fn report_json(report: &Report) -> Json {
    json!({
        "values": report.values,
        "bytes": report.bytes,
        "damaged": report.damaged.iter().map(damage_json).collect::<Vec<_>>(),
        "orphans": report.orphans,
        "orphan_bytes": report.orphan_bytes,
        "foreign": report.foreign,
        "set_aside": report.set_aside,
        "rebuilt": report.rebuilt,
        "repaired": report.is_repaired,
        "healthy": report.is_healthy(),
    })
}

/// The key is text: as a number of JSON a large integer would be rounded.
fn damage_json(damage: &Damage) -> Json {
    json!({
        "key": damage.key.as_ref().map(Key::canonical),
        "file": damage.file,
        "problem": damage.problem,
        "quarantined": damage.quarantined,
        "is_saved": damage.is_saved,
    })
}

fn show(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if !report.is_healthy() {
        // However narrow the terminal is: half of a file's name is of no use.
        damage_table(report).write(out, "", usize::MAX)?;
        more(report.damaged.len(), out)?;
        writeln!(out)?;
    }
    let fate = if report.is_repaired { "now removed" } else { "which --repair removes" };
    let orphans = format!("that no value needs, {}, {fate}", bytes(report.orphan_bytes));
    files(&report.orphans, &orphans, out)?;
    files(&report.foreign, "that icechest did not make, left alone", out)?;
    files(&report.set_aside, "of values that were replaced or removed, now in quarantine/", out)?;
    if let Some(values) = report.rebuilt {
        let values = many(values as usize, "value");
        writeln!(out, "a new catalog was made, of {values}; small values that only the old one held may be lost")?;
    }
    writeln!(out, "{}", verdict(report))
}

/// The problem comes last: it may be long.
fn damage_table(report: &Report) -> Table {
    let shown = &report.damaged[..report.damaged.len().min(LINES)];
    let mut table = Table::of_rows(shown.len());
    let mut column = |title: &str, cell: &dyn Fn(&Damage) -> String| {
        let cells = shown.iter().map(|damage| human::printable(&cell(damage))).collect();
        table.column(vec![title.to_owned()], false, cells);
    };
    column("key", &|damage| {
        let key = damage.key.as_ref().map_or("-", Key::canonical);
        human::cut(&human::printable(key), KEY_COLUMNS)
    });
    column("file", &|damage| damage.file.clone());
    if report.is_repaired {
        column("repair", &|damage| done(damage, report).to_owned());
    }
    column("problem", &|damage| damage.problem.clone());
    table
}

/// What a repair did.
fn done(damage: &Damage, report: &Report) -> &'static str {
    let is_frame = damage.key.is_none() && damage.quarantined.is_none();
    match (&damage.quarantined, damage.is_saved) {
        _ if is_frame && (damage.is_saved || report.rebuilt.is_some()) => "made again",
        (_, true) => "saved",
        (Some(_), false) => "in quarantine/",
        (None, false) => "lost",
    }
}

fn files(names: &[String], about: &str, out: &mut dyn Write) -> io::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    writeln!(out, "{} {about}:", many(names.len(), "file"))?;
    for name in names.iter().take(LINES) {
        writeln!(out, "  {}", human::printable(name))?;
    }
    more(names.len(), out)
}

fn more(lines: usize, out: &mut dyn Write) -> io::Result<()> {
    match lines.saturating_sub(LINES) {
        0 => Ok(()),
        rest => writeln!(out, "  and {} more, which --json names", human::count(rest)),
    }
}

fn verdict(report: &Report) -> String {
    let damaged = many(report.damaged.len(), "file");
    let values = many(report.values as usize, "value");
    match (report.is_healthy(), report.is_repaired) {
        (true, _) => format!("healthy: {values}, {}, every checksum verified", bytes(report.bytes)),
        (false, true) => format!("repaired: {damaged} had been damaged; every other is sound"),
        (false, false) => {
            format!(
                "DAMAGED: {damaged}; every other is sound. --repair saves what it can, the rest goes to quarantine/"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_end_with_their_number() {
        let names: Vec<_> = (0..1022).map(|i| format!("values/{i}")).collect();
        let mut out = Vec::new();
        files(&names, "of a test", &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("1,022 files of a test:\n  values/0\n"), "{text}");
        assert!(text.ends_with("values/19\n  and 1,002 more, which --json names\n"), "{text}");
    }
}
