//! The product of two matrices that do not fit into the budget, block by block, and its proof.
//!
//! `cargo run --release --example blocked_product -- [TRACE]`
//!
//! Each row of blocks of the first matrix is used again and again while the second comes round in turn: with the least
//! recently used blocks gone first, none of the second would ever be found in memory.

use std::error::Error;
use std::time::Instant;

use icechest::Chest;
use ndarray::{Array1, Array2};

/// Blocks in a row and in a column, and numbers in a row of a block.
const GRID: usize = 12;
const SIDE: usize = 128;
const BUDGET: &str = "8MiB";

fn main() -> Result<(), Box<dyn Error>> {
    let mut builder = Chest::builder().budget(BUDGET);
    if let Some(file) = std::env::args_os().nth(1) {
        builder = builder.trace(file);
    }
    let dir = tempfile::tempdir()?;
    let chest = builder.open(dir.path())?;
    for row in 0..GRID {
        for column in 0..GRID {
            chest.insert(("a", row, column), block(row, column, 3))?;
            chest.insert(("b", row, column), block(row, column, 7))?;
        }
    }
    let mib = (3 * GRID * GRID * SIDE * SIDE * 8) >> 20;
    println!("two matrices and their product, {mib} MiB in all, with a budget of {BUDGET}");

    let began = Instant::now();
    for row in 0..GRID {
        for column in 0..GRID {
            let mut product = Array2::zeros((SIDE, SIDE));
            for inner in 0..GRID {
                let a = chest.get::<Array2<f64>>(("a", row, inner))?;
                let b = chest.get::<Array2<f64>>(("b", inner, column))?;
                product += &a.dot(&**b);
            }
            chest.insert(("product", row, column), product)?;
        }
    }
    println!("{:.1} s\n{}", began.elapsed().as_secs_f64(), chest.stats()?);

    // Freivalds' check: the product times a vector is the first times the second times that vector.
    let vector: Array1<f64> = (0..GRID * SIDE).map(|i| ((i * 31) % 17) as f64 - 8.0).collect();
    let expected = times(&chest, "a", &times(&chest, "b", &vector)?)?;
    let found = times(&chest, "product", &vector)?;
    let error = (&expected - &found).mapv(f64::abs).sum() / expected.mapv(f64::abs).sum();
    println!("relative error {error:.1e}");
    if error < 1e-9 { Ok(()) } else { Err("the product is wrong".into()) }
}

/// A block of a matrix of small numbers.
fn block(row: usize, column: usize, seed: usize) -> Array2<f64> {
    let at = |(y, x)| ((row * SIDE + y) * seed + (column * SIDE + x) * (seed + 4)) % 101;
    Array2::from_shape_fn((SIDE, SIDE), |place| at(place) as f64 / 101.0 - 0.5)
}

/// A matrix in blocks, times a vector.
fn times(chest: &Chest, name: &str, vector: &Array1<f64>) -> icechest::Result<Array1<f64>> {
    let mut product = Array1::zeros(GRID * SIDE);
    for row in 0..GRID {
        for column in 0..GRID {
            let block = chest.get::<Array2<f64>>((name, row, column))?;
            let part = vector.slice(ndarray::s![column * SIDE..(column + 1) * SIDE]);
            product.slice_mut(ndarray::s![row * SIDE..(row + 1) * SIDE]).scaled_add(1.0, &block.dot(&part));
        }
    }
    Ok(product)
}
