//! `icechest demo`: real data grows past the memory budget, spills, and is read again by another process.

mod content;
mod grow;
mod report;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use icechest::{Chest, Key};

use crate::args::Part;
use crate::failure::{Failure, Result};
use crate::get::Got;
use crate::{human, progress};

const BUDGET: &str = "64 MiB";

/// Under this key a chest says that the demo made it, so that the demo may make it again.
const MARK: &str = "made by icechest demo";

/// Where the digest of a value is kept.
fn digest_key(key: &Key) -> Key {
    Key::from(("digest", key))
}

pub(crate) fn demo(data: Option<&Path>, dir: Option<&Path>, out: &mut dyn Write) -> Result<()> {
    let data = data_folder(data)?;
    // Held until the end, when the directory goes away.
    let mut temporary = None;
    let dir = match dir {
        Some(dir) => dir.to_owned(),
        None => {
            let made = tempfile::Builder::new().prefix("icechest-demo-").tempdir();
            let made = made.map_err(Failure::at("make a directory in", &std::env::temp_dir()))?;
            temporary.insert(made).path().join("chest")
        }
    };
    let started = Instant::now();
    let chest = open_new(&dir)?;
    writeln!(out, "Real data from {}, grown past a memory budget of {BUDGET}.", data.display())?;
    writeln!(out, "The chest: {}\n", chest.path().display())?;

    let values = grow::grow(&chest, &data, out)?;
    report::contents(&chest, out)?;
    report::spilled(&chest, out)?;
    report::memory(&chest, out)?;
    let dir = chest.path().to_owned();
    let examples = report::examples(&chest.infos()?);
    drop(chest);

    reopen(&dir, values, out)?;
    report::python(&dir, &examples, out)?;
    writeln!(out, "\nDone in {}.", human::seconds(started.elapsed()))?;
    match temporary {
        Some(temporary) => {
            writeln!(out, "The directory was temporary and is removed now; icechest demo --dir DIR keeps it.")?;
            temporary.close().map_err(Failure::at("remove", &dir))
        }
        None => Ok(writeln!(out, "Look around: icechest ls {}", dir.display())?),
    }
}

fn data_folder(data: Option<&Path>) -> Result<PathBuf> {
    let data = data.unwrap_or(Path::new("data"));
    match data.join("flights.parquet").is_file() {
        true => Ok(data.to_owned()),
        false => Err(Failure::usage(format!(
            "{} is not the data folder of icechest; run this in the project's folder or give --data DIR",
            data.display()
        ))),
    }
}

/// A chest in a new or empty directory, or in one that an earlier demo made.
fn open_new(dir: &Path) -> Result<Chest> {
    let chest = Chest::builder().budget(BUDGET).open(dir)?;
    if !chest.is_empty()? {
        if !chest.contains_key(MARK)? {
            return Err(Failure::usage(format!("{} holds values of yours; give another directory", dir.display())));
        }
        chest.clear()?;
    }
    chest.insert(MARK, true)?;
    Ok(chest)
}

/// Has a second process read and verify everything.
fn reopen(dir: &Path, values: usize, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "\nReopened in a second process")?;
    out.flush()?;
    let program = std::env::current_exe().map_err(Failure::at("find", Path::new("this program")))?;
    let mut second = Command::new(program);
    second.arg("demo-verify").arg(dir).arg(values.to_string());
    let status = second.status().map_err(Failure::at("start", Path::new("a second process")))?;
    if status.success() { Ok(()) } else { Err(Failure::broken("the second process did not read what was stored")) }
}

/// The second process: reads every value that has a digest and compares.
pub(crate) fn verify(dir: &Path, values: usize, out: &mut dyn Write) -> Result<()> {
    let started = Instant::now();
    let chest = Chest::builder().budget(BUDGET).open(dir)?;
    let opened = started.elapsed();
    let infos = chest.infos()?;
    writeln!(out, "  opened in {:.1} ms: {} values, all cold", opened.as_secs_f64() * 1e3, human::count(infos.len()))?;
    out.flush()?;

    let started = Instant::now();
    let bar = progress::of_things("verifying", values);
    let (mut verified, mut bytes) = (0, 0);
    for info in &infos {
        let Some(expected) = chest.find::<String>(digest_key(&info.key))? else { continue };
        let got = Got::read(&chest, info, &Part::default())?;
        let digest = content::digest(&got)?;
        if digest != *expected {
            let key = human::printable(&info.key.to_string());
            return Err(Failure::broken(format!("{key} came back different: its digest is {digest}, not {expected}")));
        }
        verified += 1;
        bytes += info.bytes;
        bar.inc(1);
    }
    bar.finish_and_clear();
    if verified != values {
        return Err(Failure::broken(format!("{verified} of {values} values were found")));
    }
    let (took, size) = (started.elapsed(), human::bytes(bytes));
    let speed = human::bytes((bytes as f64 / took.as_secs_f64()) as u64);
    writeln!(
        out,
        "  {values} values read back, {size} in {}: {speed}/s with their digests, under the same budget",
        human::seconds(took)
    )?;
    writeln!(out, "  every value is what the first process stored")?;
    Ok(())
}
