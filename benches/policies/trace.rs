//! What a program did with its values.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Insert,
    Read,
    Remove,
}

#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub(crate) name: String,
    /// Bytes.
    pub(crate) budget: u64,
    /// The size of each value.
    pub(crate) sizes: Vec<u64>,
    /// What is done, and to which value.
    pub(crate) acts: Vec<(Act, usize)>,
}

/// The traces in `traces/`, which programs of this repository left; see `Builder::trace`.
pub(crate) fn recorded() -> Result<Vec<Trace>, Box<dyn Error>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/policies/traces");
    let mut files: Vec<_> =
        std::fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "trace"));
    files.sort();
    let read = |file: &Path| {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        parse(&format!("`{name}`"), &std::fs::read_to_string(file)?)
            .ok_or_else(|| format!("{} is no trace", file.display()).into())
    };
    files.iter().map(|file| read(file)).collect()
}

/// Reads a trace. What was spilled says nothing here: that is for each policy to decide.
pub(crate) fn parse(name: &str, text: &str) -> Option<Trace> {
    let mut trace = Trace { name: name.to_owned(), budget: 0, sizes: Vec::new(), acts: Vec::new() };
    // A value of another size under the same key is another value.
    let mut values: HashMap<u64, usize> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let what = words.next()?;
        let number: u64 = words.next()?.parse().ok()?;
        let size = words.next().map(str::parse::<u64>).transpose().ok()?;
        match what {
            "budget" => trace.budget = number,
            "insert" | "hit" | "load" => {
                let known = values.get(&number).copied();
                let is_new = known.is_none_or(|value| size.is_some_and(|size| size != trace.sizes[value]));
                let value = if is_new { trace.sizes.len() } else { known? };
                if is_new {
                    trace.sizes.push(size?);
                    values.insert(number, value);
                    trace.acts.extend(known.map(|old| (Act::Remove, old)));
                }
                trace.acts.push((if what == "insert" { Act::Insert } else { Act::Read }, value));
            }
            "remove" => trace.acts.extend(values.get(&number).map(|&value| (Act::Remove, value))),
            "spill" => {}
            // An unknown word, or one that says that something is missing.
            _ => return None,
        }
    }
    Some(trace)
}
