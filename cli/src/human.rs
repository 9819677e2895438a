//! Numbers and texts for people.

use std::fmt::Write as _;
use std::time::Duration;

use unicode_width::UnicodeWidthChar;

/// A number of bytes: three digits and a unit.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut number = bytes as f64 / 1024.0;
    let mut unit = 0;
    while number >= 1000.0 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    let decimals = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.decimals$} {}", UNITS[unit])
}

/// A number with its thousands apart.
pub(crate) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something, whose plural ends with an s.
pub(crate) fn many(number: usize, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A time of some seconds.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// A part of a whole, as a bar.
pub(crate) fn bar(part: u64, whole: u64, width: usize) -> String {
    let filled = (part as f64 / whole.max(1) as f64 * width as f64).round() as usize;
    let filled = filled.min(width);
    format!("{}{}", "█".repeat(filled), "░".repeat(width - filled))
}

/// Text on one line that cannot command a terminal: control and direction characters are shown as their codes.
pub(crate) fn printable(text: &str) -> String {
    escape(text, |_| false)
}

/// As [`printable`], but with its lines and tabs.
pub(crate) fn printable_lines(text: &str) -> String {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if keep(c) || !(c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')) {
            shown.push(c);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(shown, "{}", c.escape_default());
        }
    }
    shown
}

/// The columns that text takes in a terminal.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Text of at most `max` columns; what was cut is told by an ellipsis.
pub(crate) fn cut(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let mut room = max.saturating_sub(1);
    let fits = |c: &char| {
        let wide = c.width().unwrap_or(0);
        let fits = wide <= room;
        room = room.saturating_sub(wide);
        fits
    };
    let mut shown: String = text.chars().take_while(fits).collect();
    shown.push('…');
    shown
}

/// The columns that there are: of the terminal, or as many as everybody has.
pub(crate) fn columns() -> usize {
    let told = || std::env::var("COLUMNS").ok()?.parse().ok();
    let terminal = console::Term::stdout().size_checked().map(|(_rows, columns)| usize::from(columns));
    terminal.or_else(told).filter(|&columns| columns >= 20).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!([0, 1023, 1024, 64 << 20].map(bytes), ["0 B", "1023 B", "1.00 KiB", "64.0 MiB"]);
        assert_eq!(bytes(u64::MAX), "16384 PiB");
        assert_eq!([0, 999, 1000, 1234567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((bar(1, 2, 4), bar(9, 2, 2), bar(1, 0, 1)), ("██░░".into(), "██".into(), "█".into()));
    }

    #[test]
    fn nothing_commands_the_terminal() {
        assert_eq!(printable("a\u{1b}[31m\n\u{9b}\u{202e}é"), r"a\u{1b}[31m\n\u{9b}\u{202e}é");
        assert_eq!(printable_lines("a\n\tb\r"), "a\n\tb\\r");
    }

    #[test]
    fn cutting_counts_columns() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(cut("氷氷氷", 5), "氷氷…");
        assert_eq!(cut("氷氷氷", 4), "氷…");
    }
}
