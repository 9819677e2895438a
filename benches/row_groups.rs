//! Parquet in several shapes: `cargo bench --bench row_groups`. Rows of a group, codec and dictionary, on two kinds of
//! frames of a million rows; the median of `RUNS`, which take turns. The page cache is warm.

use std::fs::{self, File};
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use arrow_array::RecordBatch;
use icechest::Chest;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use polars_core::prelude::*;
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use polars_io::parquet::write::{ParquetCompression, ParquetWriter};
use polars_parquet::write::ZstdLevel as Level;

const ROWS: usize = 1_000_000;
const RUNS: usize = 5;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Bits without any pattern: SplitMix64.
fn bits(i: usize) -> u64 {
    let bits = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Small numbers, few names, times in order: what flights look like.
fn flights() -> Result<DataFrame> {
    let name = |salt: usize, many: u64, len: usize| {
        let name = move |i| format!("{:016x}", bits(bits(i + salt) as usize % many as usize))[..len].to_owned();
        (0..ROWS).map(name).collect::<Vec<_>>()
    };
    let delay = |i: usize| (bits(i) % 40 * (bits(i + 1) % 40) / 20) as i32 - 20;
    Ok(df!(
        "day" => (0..ROWS).map(|i| (i / 2740) as i32).collect::<Vec<_>>(),
        "departed" => (0..ROWS).map(|i| i as i64 * 31_000 + (bits(i) % 3_600_000) as i64).collect::<Vec<_>>(),
        "delay" => (0..ROWS).map(delay).collect::<Vec<_>>(),
        "distance" => (0..ROWS).map(|i| (bits(bits(i) as usize % 4000) % 2500) as i32).collect::<Vec<_>>(),
        "carrier" => name(1, 16, 2),
        "tail" => name(2, 4000, 6),
        "from" => name(3, 300, 3),
        "cancelled" => (0..ROWS).map(|i| bits(i).is_multiple_of(64)).collect::<Vec<_>>()
    )?)
}

/// Eight measured columns: slow walks with four decimals.
fn numbers() -> Result<DataFrame> {
    let column = |number: usize| {
        let mut at = 0.0;
        let walk = |i| {
            at += (bits(i * 8 + number) % 2001) as f64 / 1e4 - 0.1;
            (at * 1e4_f64).round() / 1e4
        };
        Column::new(format!("c{number}").into(), (0..ROWS).map(walk).collect::<Vec<_>>())
    };
    Ok(DataFrame::new(ROWS, (0..8).map(column).collect())?)
}

#[derive(Clone, Copy)]
enum Codec {
    Lz4,
    Zstd(i32),
}

/// How a file is written: by polars, or by Arrow with dictionaries of so many bytes at most.
struct Shape {
    rows: usize,
    codec: Codec,
    arrow: Option<usize>,
}

impl Shape {
    fn name(&self) -> String {
        let codec = match self.codec {
            Codec::Lz4 => "LZ4".to_owned(),
            Codec::Zstd(level) => format!("zstd {level}"),
        };
        let by = match self.arrow {
            None => "polars".to_owned(),
            Some(bytes) => format!("Arrow, dictionaries of {} KiB", bytes >> 10),
        };
        format!("{by} | {} | {codec}", self.rows >> 10)
    }

    fn write(&self, path: &Path, frame: &DataFrame, batches: &[RecordBatch]) -> Result<()> {
        let file = File::create(path)?;
        let Some(dictionary) = self.arrow else {
            let codec = match self.codec {
                Codec::Lz4 => ParquetCompression::Lz4Raw,
                Codec::Zstd(level) => ParquetCompression::Zstd(Some(Level::try_new(level)?)),
            };
            let writer = ParquetWriter::new(file).with_compression(codec).with_row_group_size(Some(self.rows));
            writer.finish(&mut frame.clone())?;
            return Ok(());
        };
        let codec = match self.codec {
            Codec::Lz4 => Compression::LZ4_RAW,
            Codec::Zstd(level) => Compression::ZSTD(ZstdLevel::try_new(level)?),
        };
        let properties = WriterProperties::builder().set_compression(codec).set_dictionary_enabled(dictionary > 0);
        let properties = properties
            .set_dictionary_page_size_limit(dictionary.max(1))
            .set_max_row_group_row_count(Some(self.rows))
            .build();
        let mut writer = ArrowWriter::try_new(file, batches[0].schema(), Some(properties))?;
        batches.iter().try_for_each(|batch| writer.write(batch))?;
        writer.close()?;
        Ok(())
    }

    /// Reads all columns, or two of them.
    fn read(&self, path: &Path, columns: Option<Vec<usize>>) -> Result<usize> {
        let file = File::open(path)?;
        if self.arrow.is_none() {
            return Ok(black_box(ParquetReader::new(file).with_projection(columns).finish()?).height());
        }
        let mut builder = ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(64 << 10);
        if let Some(columns) = columns {
            let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
            builder = builder.with_projection(mask);
        }
        let mut rows = 0;
        for batch in builder.build()? {
            rows += black_box(batch?).num_rows();
        }
        Ok(rows)
    }
}

fn milliseconds<T>(run: impl FnOnce() -> Result<T>) -> Result<f64> {
    let began = Instant::now();
    run()?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> Result<()> {
    // `cargo test` runs benchmarks, too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let dir = tempfile::tempdir_in(std::env::var_os("ICECHEST_BENCH_DIR").unwrap_or_else(|| "/var/tmp".into()))?;
    let mut shapes = Vec::new();
    for rows in [32 << 10, 64 << 10, 128 << 10, 256 << 10] {
        shapes.push(Shape { rows, codec: Codec::Zstd(1), arrow: None });
    }
    for codec in [Codec::Lz4, Codec::Zstd(2), Codec::Zstd(3), Codec::Zstd(6)] {
        shapes.push(Shape { rows: 128 << 10, codec, arrow: None });
    }
    for dictionary in [1 << 20, 128 << 10, 32 << 10, 0] {
        shapes.push(Shape { rows: 128 << 10, codec: Codec::Zstd(1), arrow: Some(dictionary) });
    }
    for (name, frame) in [("flights", flights()?), ("numbers", numbers()?)] {
        let chest = Chest::temporary()?;
        chest.insert(0, frame.clone())?;
        chest.flush()?;
        let batches = chest.get::<Vec<RecordBatch>>(0)?;
        let mut times: Vec<[Vec<f64>; 3]> = shapes.iter().map(|_| Default::default()).collect();
        let path = |shape: usize| dir.path().join(format!("{name}-{shape}.parquet"));
        for _ in 0..RUNS {
            for (number, (shape, times)) in shapes.iter().zip(&mut times).enumerate() {
                let path = path(number);
                times[0].push(milliseconds(|| shape.write(&path, &frame, &batches))?);
                times[1].push(milliseconds(|| shape.read(&path, None))?);
                times[2].push(milliseconds(|| shape.read(&path, Some(vec![1, 2])))?);
            }
        }
        println!("| {name}: writer | thousand rows | codec | MB | write, ms | read | two columns |");
        println!("| --- | ---: | --- | ---: | ---: | ---: | ---: |");
        for (number, (shape, [write, read, part])) in shapes.iter().zip(times).enumerate() {
            let mb = fs::metadata(path(number))?.len() as f64 / 1e6;
            let (write, read, part) = (median(write), median(read), median(part));
            println!("| {} | {mb:.2} | {write:.0} | {read:.1} | {part:.2} |", shape.name());
        }
    }
    Ok(())
}
