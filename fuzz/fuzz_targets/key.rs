#![no_main]

use std::collections::BTreeMap;

use icechest::Key;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let made = Key::from(text);
    assert_eq!(made.as_text().as_deref(), Some(text));
    assert_eq!(Key::from_canonical(made.canonical()).as_ref().ok(), Some(&made));
    let Ok(key) = Key::from_canonical(text) else { return };
    assert_eq!(key.canonical(), text);
    assert_eq!(key.as_text().map(Key::from).unwrap_or_else(|| key.clone()), key);
    assert_eq!(key.as_path().map(Key::from).unwrap_or_else(|| key.clone()), key);
    // The same key from what it reads as, where a type keeps all there is to know.
    let again = [
        key.to::<i128>().ok().map(Key::from),
        key.to::<u128>().ok().map(Key::from),
        key.to::<bool>().ok().map(Key::from),
        key.to::<Vec<i64>>().ok().filter(|_| text.starts_with('[')).and_then(|list| Key::of(&list).ok()),
        key.to::<BTreeMap<u64, String>>().ok().and_then(|map| Key::of(&map).ok()).filter(|_| !text.contains("$digest")),
    ];
    for again in again.into_iter().flatten() {
        assert_eq!(again, key);
    }
    let _ = (key.to::<f64>(), key.to::<Vec<u8>>(), key.to::<(String, Option<char>)>(), key.to_string());
});
