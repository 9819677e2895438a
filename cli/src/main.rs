//! The `icechest` command: puts files into a chest, gets them out, shows what is there, and whether it is sound.

mod args;
mod check;
mod chests;
mod demo;
mod failure;
mod get;
mod human;
mod list;
mod load;
mod outputs;
mod preview;
mod progress;
mod put;
mod restore;
mod run;
mod save;
mod std_types;
mod table;

use std::io::{self, BufWriter, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::failure::{Failure, Result};

fn main() -> ExitCode {
    let args = Cli::parse();
    let mut out = BufWriter::new(io::stdout());
    // A library may panic on a file that nobody thought of; the exit code says so even then.
    let run = AssertUnwindSafe(|| run(args.command, &mut out).and_then(|()| Ok(out.flush()?)));
    let result = panic::catch_unwind(run).unwrap_or_else(|_| Err(Failure::broken("this is a bug in icechest")));
    // What was shown before a failure comes out before its message; whether it does changes nothing any more.
    let _ = out.flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                // Nobody to tell if that fails too.
                let _ = writeln!(io::stderr(), "icechest: {}", human::printable(&failure.to_string()));
            }
            failure.exit_code()
        }
    }
}

fn run(command: Command, out: &mut dyn Write) -> Result<()> {
    match command {
        Command::Put { chest, key, file } => put::put(&chest, &key, &file, out),
        Command::Get { chest, key, output, part } => get::get(&chest, &key, &part, output.as_deref(), out),
        Command::Ls { chest, json } => list::ls(&chest, json, out),
        Command::Info { chest, key, json } => list::info(&chest, &key, json, out),
        Command::Rm { chest, keys } => list::rm(&chest, &keys),
        Command::Stats { chest, json } => list::stats(&chest, json, out),
        Command::Check { chest, repair, json } => check::check(&chest, repair, json, out),
        Command::Run { chest, inputs, params, outputs, keep_failures, force, status, command } => {
            run::Request { inputs, params, outputs, keep_failures, force, command }.run(&chest, status, out)
        }
        Command::Demo { data, dir } => demo::demo(data.as_deref(), dir.as_deref(), out),
        Command::DemoVerify { dir, values } => demo::verify(&dir, values, out),
    }
}
