//! How fast content is read for its digest, beside the floor of adding up the same bytes in the same run:
//! `cargo bench --workspace --bench digests`; batches with the feature `arrow`, frames with `polars`; `-- 10` for a file of
//! 10 GiB besides, in the folder for temporary files. Each figure is the median of five runs.

use std::fs;
use std::hint::black_box;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

#[cfg(feature = "polars")]
use icechest::polars::df;
use icechest::{Content, Digest};
use ndarray::{Array2, ShapeBuilder, s};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const RUNS: usize = 5;
/// Bytes of what is hashed.
const SIZE: usize = 512 << 20;
const FILES: usize = 10_000;

fn main() -> Result {
    let numbers: Vec<f64> = (0..SIZE / 8).map(|i| i as f64).collect();
    let floor = gb_a_second(SIZE, || numbers.iter().map(|number| number.to_bits()).fold(0, u64::wrapping_add));
    println!("{:<44}{:>8}{:>8}", "", "GB/s", "floor");
    let print = |name: &str, rate: f64| println!("{name:<44}{rate:>8.2}{:>8.2}", rate / floor);
    print("adding up the same bytes, one thread", floor);
    arrays(&numbers, &print)?;
    #[cfg(feature = "arrow")]
    batches(numbers.len() / 8, &print)?;
    #[cfg(feature = "polars")]
    frames(numbers, &print)?;
    files(&print)?;
    let gib = std::env::args().find_map(|argument| argument.parse().ok());
    gib.map_or(Ok(()), huge_file)
}

/// A file of so many GiB, beside reading it into a buffer.
fn huge_file(gib: usize) -> Result {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("huge");
    let mut block: Vec<u8> = (0..8 << 20).map(|i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let mut file = fs::File::create(&path)?;
    for _ in 0..gib * 128 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let mut read = || -> Result {
        let mut file = fs::File::open(&path)?;
        while file.read(&mut block)? > 0 {}
        Ok(())
    };
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        let began = Instant::now();
        read()?;
        times[0].push(began.elapsed());
        let began = Instant::now();
        black_box(Digest::of_path(&path)?);
        times[1].push(began.elapsed());
    }
    let [floor, ours] = times.map(|mut times| {
        times.sort();
        (gib << 30) as f64 / times[RUNS / 2].as_secs_f64() / 1e9
    });
    println!("{:<44}{ours:>8.2}{:>8.2}", format!("file of {gib} GiB, of reading it by one thread"), ours / floor);
    Ok(())
}

fn arrays(numbers: &[f64], print: &dyn Fn(&str, f64)) -> Result {
    let array = Array2::from_shape_vec((SIZE / 8 / 1024, 1024), numbers.to_vec())?;
    print("array", gb_a_second(SIZE, || array.digest()));
    print("array, every other column", gb_a_second(SIZE / 2, || array.slice(s![.., ..;2]).digest()));
    let fortran = Array2::from_shape_vec((1024, SIZE / 8 / 1024).f(), numbers.to_vec())?;
    print("array in Fortran order, 65,536 columns", gb_a_second(SIZE, || fortran.digest()));
    let fortran = Array2::from_shape_vec((SIZE / 8 / 1024, 1024).f(), numbers.to_vec())?;
    print("array in Fortran order, 1,024 columns", gb_a_second(SIZE, || fortran.digest()));
    let cube = fortran.into_shape_with_order(((SIZE / 8 / 1024, 32, 32), ndarray::Order::F))?;
    let part = cube.slice(s![.., ..31, ..]);
    print("part of three axes in Fortran order", gb_a_second(part.len() * 8, || part.digest()));
    Ok(())
}

/// Text of about 10 bytes, and of about 40.
#[cfg(any(feature = "arrow", feature = "polars"))]
fn short_text(rows: usize) -> impl Iterator<Item = String> {
    (0..rows).map(|i| format!("text {}", i * 7919 % 100_000))
}

#[cfg(any(feature = "arrow", feature = "polars"))]
fn long_text(rows: usize) -> impl Iterator<Item = String> {
    (0..rows).map(|i| format!("a text that is somewhat longer, {}", i * 7919))
}

#[cfg(feature = "arrow")]
fn batches(rows: usize, print: &dyn Fn(&str, f64)) -> Result {
    use std::sync::Arc;

    use arrow_array::{Array, ArrayRef, BooleanArray, LargeStringArray, RecordBatch, StringViewArray};
    let flags: BooleanArray = (0..rows * 8).map(|i| Some(i % 3 == 0)).collect();
    let columns: [(&str, ArrayRef); 5] = [
        ("batch of truth values", Arc::new(BooleanArray::new(flags.values().clone(), None))),
        ("batch of truth values, from the third on", Arc::new(flags.slice(3, flags.len() - 3))),
        ("batch of text of about 10 bytes, views", Arc::new(StringViewArray::from_iter_values(short_text(rows)))),
        ("batch of text of about 10 bytes, offsets", Arc::new(LargeStringArray::from_iter_values(short_text(rows)))),
        ("batch of text of about 40 bytes, views", Arc::new(StringViewArray::from_iter_values(long_text(rows / 4)))),
    ];
    for (name, column) in columns {
        let bytes = column.get_buffer_memory_size();
        let batch = RecordBatch::try_from_iter([("x", column)])?;
        print(name, gb_a_second(bytes, || batch.digest()));
    }
    Ok(())
}

#[cfg(feature = "polars")]
fn frames(numbers: Vec<f64>, print: &dyn Fn(&str, f64)) -> Result {
    let rows = numbers.len() / 8;
    let nulls: Vec<Option<f64>> = (0..rows).map(|i| (i % 10 > 0).then_some(i as f64)).collect();
    let (short, long): (Vec<_>, Vec<_>) = (short_text(rows).collect(), long_text(rows / 4).collect());
    let flags: Vec<bool> = (0..rows * 8).map(|i| i % 3 == 0).collect();
    for (name, frame) in [
        ("frame of numbers", df!("x" => numbers)?),
        ("frame of numbers, every tenth null", df!("x" => nulls)?),
        ("frame of text of about 10 bytes", df!("x" => short)?),
        ("frame of text of about 40 bytes", df!("x" => long)?),
        ("frame of truth values", df!("x" => flags)?),
    ] {
        print(name, gb_a_second(frame.estimated_size(), || frame.digest()));
    }
    Ok(())
}

fn files(print: &dyn Fn(&str, f64)) -> Result {
    let dir = tempfile::tempdir()?;
    let (large, many) = (dir.path().join("large"), dir.path().join("many"));
    fs::write(&large, vec![7; SIZE])?;
    print("file in the page cache", gb_a_second(SIZE, || Digest::of_path(&large)));
    fs::create_dir(&many)?;
    for index in 0..FILES {
        fs::write(many.join(index.to_string()), vec![7; 1024])?;
    }
    let took = median(|| Digest::of_path(&many));
    println!("{FILES} files of 1 KiB in a folder: {:.0} files a second", FILES as f64 / took.as_secs_f64());
    Ok(())
}

fn gb_a_second<T>(bytes: usize, work: impl Fn() -> T) -> f64 {
    bytes as f64 / median(work).as_secs_f64() / 1e9
}

fn median<T>(work: impl Fn() -> T) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let began = Instant::now();
            black_box(work());
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[RUNS / 2]
}
