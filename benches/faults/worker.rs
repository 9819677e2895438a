//! A chest behind the line protocol of `faults.py`, see `stores.py`: `faults_worker DIRECTORY`.

use std::io::Write;

use icechest::{Chest, Error, Result};
use ndarray::Array1;

fn main() -> std::io::Result<()> {
    let dir = std::env::args().nth(1).expect("the directory of a chest");
    // A chest that does not open answers every command with the reason.
    let chest = Chest::open(&dir);
    let mut output = std::io::stdout();
    writeln!(output, "ready")?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let reply = match &chest {
            // A check works on a chest that does not open, too.
            _ if words == ["check"] => check(&dir).unwrap_or_else(|error| describe(&error)),
            Ok(chest) => answer(chest, &words).unwrap_or_else(|error| describe(&error)),
            Err(error) => describe(error),
        };
        writeln!(output, "{}", reply.replace('\n', " "))?;
    }
    Ok(())
}

fn describe(error: &Error) -> String {
    format!("error {:?}: {error}", error.kind())
}

fn check(dir: &str) -> Result<String> {
    let report = Chest::check(dir).run()?;
    Ok(if report.is_healthy() { "clean".to_owned() } else { format!("damage {report}") })
}

fn answer(chest: &Chest, words: &[&str]) -> Result<String> {
    match words {
        ["put", key, generation] => put(chest, number(key), number(generation)),
        ["get", key] => get(chest, number(key)),
        ["sync"] => chest.sync().map(|()| "ok".to_owned()),
        _ => Ok("none".to_owned()),
    }
}

fn number(word: &str) -> u64 {
    word.parse().expect("a number")
}

fn put(chest: &Chest, key: u64, generation: u64) -> Result<String> {
    let name = format!("value-{key}");
    if is_array(key) {
        chest.insert(name, array_of(key, generation))?;
    } else {
        chest.insert(name, bytes_of(key, generation))?;
    }
    // An answer promises what the other stores promise: that another process sees the value.
    chest.flush()?;
    Ok("ok".to_owned())
}

fn get(chest: &Chest, key: u64) -> Result<String> {
    let name = format!("value-{key}");
    let found = if is_array(key) {
        chest.find::<Array1<f64>>(name)?.map(|value| {
            let generation = value.first().map_or(0, |&first| first as u64);
            // Compared as bits, because a flipped bit can make a value that is not equal to itself.
            let same = value.iter().map(|x| x.to_bits()).eq(array_of(key, generation).iter().map(|x| x.to_bits()));
            (generation, same)
        })
    } else {
        chest.find::<Vec<u8>>(name)?.map(|value| {
            let generation = value.first_chunk().map_or(0, |&first| u64::from_le_bytes(first));
            (generation, *value == bytes_of(key, generation))
        })
    };
    Ok(match found {
        Some((generation, true)) => format!("is {generation}"),
        Some((_, false)) => "wrong".to_owned(),
        None => "absent".to_owned(),
    })
}

fn is_array(key: u64) -> bool {
    key.is_multiple_of(4)
}

fn count_of(key: u64) -> u64 {
    25_000 + key / 16 * 10_000
}

/// SplitMix64, whose stream is another for each key and generation.
fn noise(key: u64, generation: u64) -> impl Iterator<Item = u64> {
    let seed = (key << 40 | generation).wrapping_mul(0xd134_2543_de82_ef95);
    (0u64..).map(move |i| {
        let bits = i.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed);
        let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    })
}

fn array_of(key: u64, generation: u64) -> Array1<f64> {
    let mut array: Array1<f64> = if key.is_multiple_of(8) {
        noise(key, generation).take(count_of(key) as usize).map(|bits| (bits >> 11) as f64).collect()
    } else {
        // Wrapping, because the generation of a damaged value can be any number.
        let base = generation.wrapping_mul(64).wrapping_add(key);
        (0..count_of(key)).map(|i| base.wrapping_add(i / 64) as f64).collect()
    };
    array[0] = generation as f64;
    array
}

fn bytes_of(key: u64, generation: u64) -> Vec<u8> {
    let (count, len) = if key % 2 == 1 { (50, 92 + key * 37 % 300) } else { (count_of(key), count_of(key) * 8) };
    let mut bytes = generation.to_le_bytes().to_vec();
    bytes.extend(noise(key, generation).take(count as usize).flat_map(u64::to_le_bytes).take(len as usize));
    bytes
}
