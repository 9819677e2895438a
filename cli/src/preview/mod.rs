//! Values as a person reads them.

pub(crate) mod array;
mod frame;

use std::fmt::{self, Debug, Write as _};
use std::io::{self, IsTerminal, Write};

use icechest::{Chest, Files, Info, Plain};

use crate::failure::Result;
use crate::get::Got;
use crate::human;
use crate::std_types::{self, Visitor};
use crate::table::Table;

/// Characters of a plain value that are shown.
const PLAIN_CHARACTERS: usize = 4000;
/// Bytes that are shown, as lines of so many.
const HEX_BYTES: usize = 256;
const HEX_LINE: usize = 16;
/// Lines of a text file that are shown, and how much of each.
const TEXT_LINES: usize = 20;
const TEXT_COLUMNS: usize = 200;

/// Shows a value: the head of a frame, the corner of an array, documents and texts whole.
pub(crate) fn show(chest: &Chest, info: &Info, got: &Got, out: &mut dyn Write) -> Result<()> {
    match got {
        Got::Array(array) => array::show(array, out)?,
        Got::Frame(batches) => frame::show(batches, human::columns(), out)?,
        Got::Json(json) => {
            let text = serde_json::to_string_pretty(&**json).unwrap_or_default();
            lines(&text, out)?;
        }
        Got::Text(text) => lines(text, out)?,
        Got::Bytes(bytes) => show_bytes(bytes, out)?,
        Got::Files(files) => show_files(files, out)?,
        Got::Other => match std_types::visit(&info.type_name, Shown { chest, info }) {
            Some(shown) => {
                let (text, is_whole) = shown?;
                lines(&text, out)?;
                if !is_whole {
                    writeln!(out, "… for all of it: -o FILE.json")?;
                }
            }
            None => show_unknown(chest, info, out)?,
        },
    }
    Ok(())
}

/// Text as it is, except that it cannot command a terminal.
fn lines(text: &str, out: &mut dyn Write) -> io::Result<()> {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    if io::stdout().is_terminal() {
        write!(out, "{}{end}", human::printable_lines(text))
    } else {
        write!(out, "{text}{end}")
    }
}

fn show_files(files: &Files, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new([">bytes", "path"]);
    for entry in files.entries() {
        let path = entry.path.display();
        let bytes = if entry.is_folder { String::new() } else { human::count(entry.bytes as usize) };
        table.row([bytes, if entry.is_folder { format!("{path}/") } else { path.to_string() }]);
    }
    table.write(out, "", usize::MAX)?;
    writeln!(out, "… to have them: -o PATH")
}

fn show_bytes(bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let is_readable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    if let Ok(text) = std::str::from_utf8(bytes)
        && text.chars().all(is_readable)
        && !text.is_empty()
    {
        return show_text_file(text, out);
    }
    writeln!(out, "{}", human::many(bytes.len(), "byte"))?;
    for (i, line) in bytes[..bytes.len().min(HEX_BYTES)].chunks(HEX_LINE).enumerate() {
        let hex: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            line.iter().map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { byte.into() } else { '.' }).collect();
        writeln!(out, "{:08x}  {:<47}  {text}", i * HEX_LINE, hex.join(" "))?;
    }
    if bytes.len() > HEX_BYTES {
        writeln!(out, "… for all of them: -o FILE")?;
    }
    Ok(())
}

/// The first lines of a file that holds text.
fn show_text_file(text: &str, out: &mut dyn Write) -> io::Result<()> {
    let count = text.lines().count();
    writeln!(out, "{} of text, {}\n", human::many(text.len(), "byte"), human::many(count, "line"))?;
    for line in text.lines().take(TEXT_LINES) {
        lines(&human::cut(line, TEXT_COLUMNS), out)?;
    }
    if count > TEXT_LINES {
        writeln!(out, "… for all of them: -o FILE")?;
    }
    Ok(())
}

/// The value's `Debug`, up to a limit, and whether that is all.
struct Shown<'a> {
    chest: &'a Chest,
    info: &'a Info,
}

impl Visitor for Shown<'_> {
    type Output = icechest::Result<(String, bool)>;

    fn visit<T: Plain + Debug + PartialEq>(self) -> Self::Output {
        let value = self.chest.get::<T>(&self.info.key)?;
        let mut text = Limited(String::new());
        let is_whole = write!(text, "{value:?}").is_ok();
        Ok((text.0, is_whole))
    }
}

/// Text that refuses to grow beyond the limit, so that no more is formatted than is shown.
struct Limited(String);

impl fmt::Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = PLAIN_CHARACTERS.saturating_sub(self.0.len());
        match text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|&end| end <= room).last() {
            Some(end) if end < text.len() => self.0.push_str(&text[..end]),
            None if !text.is_empty() => {}
            _ => {
                self.0.push_str(text);
                return Ok(());
            }
        }
        Err(fmt::Error)
    }
}

fn show_unknown(chest: &Chest, info: &Info, out: &mut dyn Write) -> io::Result<()> {
    let format = info.format.as_deref().unwrap_or("unknown");
    let name = human::printable(&info.type_name);
    writeln!(
        out,
        "{name}, {} in memory, stored as {format} of {}",
        human::bytes(info.bytes),
        human::bytes(info.stored_bytes)
    )?;
    if let Some(file) = &info.file {
        writeln!(out, "its file: {}", chest.path().join(file).display())?;
    }
    writeln!(out, "to read it: chest.get::<{name}>(key) in a program that has this type")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_at_a_character() {
        let mut text = Limited(String::new());
        assert!(write!(text, "{:?}", vec![1; 10]).is_ok());
        assert_eq!(text.0, "[1, 1, 1, 1, 1, 1, 1, 1, 1, 1]");
        assert!(write!(text, "{}", "é".repeat(PLAIN_CHARACTERS)).is_err());
        assert_eq!(text.0.len(), PLAIN_CHARACTERS);
    }

    #[test]
    fn bytes_are_shown_in_lines() {
        let mut out = Vec::new();
        show_bytes(&[1; 17], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("17 bytes\n00000000  01 01 01 01 01"), "{text}");
        assert!(text.ends_with("  .\n"), "{text}");
    }
}
