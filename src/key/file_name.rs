//! The readable part of a value's file name.

/// Bytes that the readable part may take: with the unique part and the ending it stays below every system's limit.
const MAX_LEN: usize = 80;

/// A key's canonical JSON made safe and short: what is not a letter, a digit or one of `-_.` becomes `_`.
///
/// Different keys may share a stem; the caller adds a part that is unique.
pub(super) fn stem(canonical: &str) -> String {
    let untagged = match canonical.strip_prefix("{\"$") {
        Some(tagged) => tagged.split_once(':').map_or(tagged, |(_, content)| content),
        None => canonical,
    };
    let mut out = String::new();
    for c in untagged.chars() {
        let safe = match c {
            '"' | '[' | ']' | '{' | '}' => continue,
            ',' => '-',
            c if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') => c,
            _ => '_',
        };
        if out.len() + safe.len_utf8() > MAX_LEN {
            break;
        }
        out.push(safe);
    }
    // A leading dot hides the file; a leading dash looks like an option; no name at all is confusing.
    let trimmed = out.trim_start_matches(['.', '-']);
    if trimmed.is_empty() {
        return "value".to_owned();
    }
    if is_reserved(trimmed) { format!("_{trimmed}") } else { trimmed.to_owned() }
}

/// Names that Windows keeps for devices, with any ending.
fn is_reserved(name: &str) -> bool {
    let base = name.split('.').next().unwrap_or(name).to_ascii_uppercase();
    let numbered = |prefix| base.strip_prefix(prefix).is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit());
    matches!(base.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn is_readable_and_safe() {
        let cases = [
            (r#""flights""#, "flights"),
            (r#"["station",7,true]"#, "station-7-true"),
            (r#""../../etc/passwd""#, "_.._etc_passwd"),
            (r#""""#, "value"),
            (r#"".""#, "value"),
            (r#""con.txt""#, "_con.txt"),
            (r#"{"$path":"/data/a.csv"}"#, "_data_a.csv"),
            (r#""Größe 東京""#, "Größe_東京"),
        ];
        for (canonical, expected) in cases {
            assert_eq!(stem(canonical), expected, "{canonical}");
        }
        assert!(stem(&format!("\"{}\"", "é".repeat(10_000))).len() <= super::MAX_LEN);
    }
}
