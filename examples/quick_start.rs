//! A dataset four times as large as its budget: put in, reopened, read.
//!
//! `cargo run --workspace --example quick_start`

use icechest::polars::prelude::*;
use icechest::{Chest, Result};
use ndarray::Array2;

fn main() -> Result<()> {
    let dir = std::env::temp_dir().join("icechest-quick-start");
    let chest = Chest::builder().budget("8MiB").open(&dir)?;

    // Thirty-two megabytes of images, as arrays.
    for i in 0..32 {
        let image = Array2::from_shape_fn((1024, 1024), |(y, x)| ((x * y + i * 1000) % 251) as u8);
        chest.insert(("image", i), image)?;
    }
    chest.insert("labels", (0..32).map(|i| format!("pattern {i}")).collect::<Vec<_>>())?;
    let table = DataFrame::new_infer_height(vec![Column::new("image".into(), (0..32i32).collect::<Vec<_>>())]);
    chest.insert("table", table.expect("one column has the height of itself"))?;
    println!("{}\n", chest.stats()?);
    drop(chest); // publishes what is only in memory

    // A later run: nothing is read until it is asked for.
    let chest = Chest::builder().budget("8MiB").open(&dir)?;
    let image = chest.get::<Array2<u8>>(("image", 7))?;
    let labels = chest.get::<Vec<String>>("labels")?;
    println!(
        "{} values; {:?} has the mean {:.2}",
        chest.len()?,
        labels[7],
        image.mapv(f64::from).mean().unwrap_or(0.0)
    );
    println!("its file: {}", chest.file(("image", 7))?.map_or("none".into(), |path| path.display().to_string()));

    drop(chest);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
