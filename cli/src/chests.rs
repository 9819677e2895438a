//! Chests and keys as the command line names them.

use std::path::Path;

use icechest::{Chest, Key};

use crate::failure::{Failure, Result};

/// Opens a chest that must exist: looking for one makes none.
pub(crate) fn open(dir: &Path) -> Result<Chest> {
    // Either file tells a chest; if one of them is missing, the library says what is wrong.
    must_hold(dir, &["icechest.json", "catalog.sqlite"])?;
    Ok(Chest::open(dir)?)
}

/// Something of a chest must be left in the directory, if only its values.
pub(crate) fn must_be_left(dir: &Path) -> Result<()> {
    must_hold(dir, &["icechest.json", "catalog.sqlite", "values"])
}

fn must_hold(dir: &Path, any_of: &[&str]) -> Result<()> {
    if any_of.iter().any(|name| dir.join(name).exists()) {
        return Ok(());
    }
    let problem = if dir.exists() { "is not a chest" } else { "does not exist" };
    Err(Failure::usage(format!("{} {problem}; icechest put makes one", dir.display())))
}

/// A key as text, or as `json:` and its canonical JSON.
pub(crate) fn parse_key(text: &str) -> std::result::Result<Key, icechest::Error> {
    match text.strip_prefix("json:") {
        Some(json) => Key::from_canonical(json),
        None => Ok(Key::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_text_unless_they_say_json() {
        let key = |text| parse_key(text).map(|key| key.to_string()).ok();
        assert_eq!(key("1").as_deref(), Some(r#""1""#));
        assert_eq!(key("json:1").as_deref(), Some("1"));
        assert_eq!(key(r#"json:["a",1]"#).as_deref(), Some(r#"["a",1]"#));
        assert_eq!(key(r#"json:"json:1""#).as_deref(), Some(r#""json:1""#));
        assert_eq!(key(r#"json:["a", 1]"#), None);
        assert_eq!(key("json:"), None);
    }
}
