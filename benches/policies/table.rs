//! The table of results, as Markdown.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// Seconds of reloads, a row for each workload; the first column is the measure of the others, the last a bound.
pub(crate) struct Table<const N: usize> {
    names: [&'static str; N],
    rows: Vec<(String, [f64; N])>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(names: [&'static str; N]) -> Self {
        Self { names, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, name: &str, seconds: [f64; N]) {
        self.rows.push((name.to_owned(), seconds));
    }

    /// A column relative to the first.
    fn ratios(&self, column: usize) -> impl Iterator<Item = f64> {
        self.rows.iter().map(move |(_, seconds)| if seconds[0] > 0.0 { seconds[column] / seconds[0] } else { 1.0 })
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| workload | LRU, s | {} |", self.names[1..].join(" | "))?;
        writeln!(f, "| --- | {}", "---: | ".repeat(N).trim_end())?;
        for (row, (name, seconds)) in self.rows.iter().enumerate() {
            write!(f, "| {name} | {:.3} |", seconds[0])?;
            for column in 1..N {
                write!(f, " {:.2} |", self.ratios(column).nth(row).unwrap_or(1.0))?;
            }
            writeln!(f)?;
        }
        write!(f, "| **mean** | |")?;
        for column in 1..N {
            write!(f, " {:.2} |", self.ratios(column).sum::<f64>() / self.rows.len() as f64)?;
        }
        write!(f, "\n| **worst** | |")?;
        for column in 1..N {
            write!(f, " {:.2} |", self.ratios(column).fold(0.0, f64::max))?;
        }
        writeln!(f)
    }
}

const BEGIN: &str = "<!-- the table of benches/policies begins -->\n";
const END: &str = "<!-- the table of benches/policies ends -->\n";

/// Puts a text in place of what stands between the marks of a file.
pub(crate) fn publish(file: &Path, text: &str) -> io::Result<()> {
    let page = fs::read_to_string(file)?;
    let no_marks = || io::Error::new(io::ErrorKind::InvalidData, "the page has no marks for the table");
    let (head, rest) = page.split_once(BEGIN).ok_or_else(no_marks)?;
    let (_, tail) = rest.split_once(END).ok_or_else(no_marks)?;
    fs::write(file, format!("{head}{BEGIN}\n{text}\n{END}{tail}"))
}
