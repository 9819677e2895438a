//! What the command understands.

use std::ops::Range;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use icechest::Key;

use crate::chests::parse_key;

/// Arrays, frames and plain values in a directory.
#[derive(Parser)]
#[command(name = "icechest", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
CHEST is a directory. KEY is text, or json: and the key's JSON as ls shows it, for keys of other types:
json:1  'json:[\"a\",1]'

Exit codes: 0 done, 1 no such key, 2 usage, 3 damaged or I/O. Of run: that of its command.";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Store a file under a key, in place of an older value.
    ///
    /// FILE is read by its ending: .npy as an array; .parquet, .csv, .arrow, .feather or .ipc as a frame; .json as a
    /// document; anything else as bytes. A folder is stored with all that it holds. A chest that does not exist is made.
    Put {
        /// The directory of the chest.
        chest: PathBuf,
        /// Text, or json: and JSON.
        #[arg(value_parser = parse_key)]
        key: Key,
        /// The file or the folder to store.
        file: PathBuf,
    },
    /// Show a value, or write it to a file.
    Get {
        /// The directory of the chest.
        chest: PathBuf,
        /// Text, or json: and JSON.
        #[arg(value_parser = parse_key)]
        key: Key,
        /// Write to FILE, in the format of its ending:
        /// frames to .parquet, .csv or .arrow; arrays to .npy or .csv; documents to .json; text and bytes to any, also
        /// to - on Unix, which is standard output. What a command made that `icechest run` ran, and a folder, to any path:
        /// their files join those that are there.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        part: Part,
    },
    /// List the values, the oldest first.
    Ls {
        /// The directory of the chest.
        chest: PathBuf,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show what is known of a value without reading it.
    Info {
        /// The directory of the chest.
        chest: PathBuf,
        /// Text, or json: and JSON.
        #[arg(value_parser = parse_key)]
        key: Key,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Remove values. Those that are there go, even if others are missing.
    Rm {
        /// The directory of the chest.
        chest: PathBuf,
        /// Text, or json: and JSON.
        #[arg(value_parser = parse_key, required = true, value_name = "KEY")]
        keys: Vec<Key>,
    },
    /// Show numbers about a chest.
    Stats {
        /// The directory of the chest.
        chest: PathBuf,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Verify every checksum, and repair what is damaged.
    ///
    /// Exits with 3 when there was damage, also when it was repaired. Others may use the chest meanwhile; only a repair
    /// of the catalog asks to end them first.
    Check {
        /// The directory of the chest.
        chest: PathBuf,
        /// Move damaged files to quarantine/, make a lost catalog again from the value files, and remove what processes
        /// left that died.
        #[arg(long)]
        repair: bool,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Run a command once for each distinct command line, parameters and content of its inputs.
    ///
    /// The files that it makes, what it prints and its exit code are kept in the chest; when the same is asked for again they
    /// are restored, beside what else there is, and the command does not run. Of processes that ask for the same at the same
    /// time one runs it. A command that fails is run again the next time. What it prints is held in memory until it ends.
    /// The working directory, the environment, the time, standard input and files that are not named play no part: name what
    /// the command depends on, `--param dir=$PWD` for one. Files below an output that were there before, and that the command
    /// left as they were, are restored where they are missing; where somebody has changed them the command runs again. The
    /// chest's own directory in an input does not count.
    #[command(after_help = "Example: icechest run cache --in data.csv --out model.bin -- python train.py data.csv 5")]
    Run {
        /// The directory of the chest; it is made if it does not exist.
        chest: PathBuf,
        /// A file or a folder that the command reads: its content counts. It is read again when its size, its inode or its
        /// times have changed, which a program that writes to it through a mapping may not do at once.
        #[arg(long = "in", value_name = "PATH")]
        inputs: Vec<PathBuf>,
        /// A parameter that counts although the command line does not show it.
        #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parse_param)]
        params: Vec<(String, String)>,
        /// A file or a folder that the command makes.
        #[arg(long = "out", value_name = "PATH")]
        outputs: Vec<String>,
        /// Keep failures too: their exit code, and what was made.
        #[arg(long)]
        keep_failures: bool,
        /// Run the command even if its result is there.
        #[arg(long)]
        force: bool,
        /// Tell on standard error whether the command ran.
        #[arg(long)]
        status: bool,
        /// The command and its arguments.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Grow a chest of real data past its memory budget, reopen it and verify it.
    Demo {
        /// The folder of the real data [default: data].
        #[arg(long)]
        data: Option<PathBuf>,
        /// Where to make the chest and keep it [default: a temporary directory].
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// The second process of the demo.
    #[command(hide = true)]
    DemoVerify {
        dir: PathBuf,
        /// How many values must have the right digest.
        values: usize,
    },
}

/// The part of a frame or an array that is wanted.
#[derive(Args, Clone, Default)]
pub(crate) struct Part {
    /// These rows alone, counted from 0, B left out (of a frame or an array): 100..200, ..10, 100..
    #[arg(long, value_name = "A..B", value_parser = parse_rows)]
    pub(crate) rows: Option<Range<usize>>,
    /// These columns of a frame alone, in this order.
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    pub(crate) columns: Option<Vec<String>>,
}

impl Part {
    pub(crate) fn is_all(&self) -> bool {
        self.rows.is_none() && self.columns.is_none()
    }
}

fn parse_param(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a parameter is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn parse_rows(text: &str) -> Result<Range<usize>, String> {
    let end = |text: &str, default| if text.is_empty() { Ok(default) } else { text.parse().map_err(|_| ()) };
    let range = text.split_once("..").and_then(|(a, b)| Some(end(a, 0).ok()?..end(b, usize::MAX).ok()?));
    range.filter(|range| range.start <= range.end).ok_or_else(|| "rows are a range such as 100..200".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn rows_are_a_range() {
        assert_eq!(parse_rows("3..7"), Ok(3..7));
        assert_eq!(parse_rows("..7"), Ok(0..7));
        assert_eq!(parse_rows("3.."), Ok(3..usize::MAX));
        for wrong in ["", "3", "7..3", "-1..3", "a..b", "1...3"] {
            assert!(parse_rows(wrong).is_err(), "{wrong}");
        }
    }
}
