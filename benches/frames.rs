//! Frames against the files that a person would write by hand: `cargo bench --bench frames`.
//!
//! 64 frames of 200,000 rows and 8 columns: inserted until they are published, read whole by somebody
//! who did not write them, read again, and two columns of them with a
//! filter; as Parquet against polars' own writer, reader and `scan_parquet`, as Arrow IPC against mapped files. The page
//! cache is warm. Subjects take turns; the figures are medians of `RUNS`, in milliseconds a frame. Words after `--` choose
//! the subjects whose names contain one of them.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::FileDecoder;
use arrow_ipc::root_as_footer;
use arrow_ipc::writer::FileWriter;
use icechest::{Chest, Compression, FrameFormat};
use polars_core::prelude::*;
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use polars_io::parquet::write::{ParquetCompression, ParquetWriter};
use polars_lazy::prelude::{LazyFrame, ScanArgsParquet, col, lit};
use polars_parquet::write::ZstdLevel;
use polars_utils::pl_path::PlRefPath;

const FRAMES: usize = 64;
const ROWS: usize = 200_000;
const RUNS: usize = 5;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Bits without any pattern: SplitMix64.
fn bits(i: u64) -> u64 {
    let bits = i.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0xd134_2543_de82_ef95);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// What a day of trades looks like.
fn frame(number: usize) -> Result<DataFrame> {
    let row = |i: usize| bits((number * ROWS + i) as u64);
    let rows = || (0..ROWS).map(row);
    let mut price = 100.0;
    let prices = rows().map(|bits| {
        price += ((bits % 21) as f64 - 10.0) / 100.0;
        price
    });
    let mut time = 1_700_000_000_000_i64;
    let times = rows().map(|bits| {
        time += (bits >> 8) as i64 % 500;
        time
    });
    let venues = ["NYSE", "NASDAQ", "LSE", "TSE", "HKEX", "FWB", "SIX"];
    let mut frame = df!(
        "id" => (0..ROWS as i64).map(|i| i + (number * ROWS) as i64).collect::<Vec<_>>(),
        "price" => prices.collect::<Vec<_>>(),
        "noise" => rows().map(|bits| (bits >> 11) as f64 / (1_u64 << 53) as f64).collect::<Vec<_>>(),
        "size" => rows().map(|bits| (bits >> 20) as i32 % 1000).collect::<Vec<_>>(),
        "venue" => rows().map(|bits| venues[(bits >> 5) as usize % 7]).collect::<Vec<_>>(),
        "order" => rows().map(|bits| format!("order-{:012x}", bits >> 16)).collect::<Vec<_>>(),
        "time" => times.collect::<Vec<_>>(),
        "buys" => rows().map(|bits| bits & 1 == 1).collect::<Vec<_>>()
    )?;
    let time = frame.column("time")?.cast(&DataType::Datetime(TimeUnit::Milliseconds, None))?;
    frame.with_column(time)?;
    Ok(frame)
}

/// Somebody who stores frames.
trait Subject {
    fn name(&self) -> String;
    fn put(&mut self, number: usize, frame: &DataFrame) -> Result<()>;
    fn publish(&mut self) -> Result<()> {
        Ok(())
    }
    /// Begins anew, as somebody who did not write the files.
    fn reopen(&mut self) -> Result<()> {
        Ok(())
    }
    /// The rows, after a look at every column.
    fn read(&self, number: usize) -> Result<usize>;
    /// The rows with a large `size`, of which `price` is wanted.
    fn part(&self, number: usize) -> Result<usize>;
}

struct Polars(PathBuf, ParquetCompression, &'static str);

impl Polars {
    fn path(&self, number: usize) -> PathBuf {
        self.0.join(format!("{number}.parquet"))
    }
}

impl Subject for Polars {
    fn name(&self) -> String {
        format!("polars, Parquet {}", self.2)
    }
    fn put(&mut self, number: usize, frame: &DataFrame) -> Result<()> {
        let file = File::create(self.path(number))?;
        ParquetWriter::new(BufWriter::new(file)).with_compression(self.1).finish(&mut frame.clone())?;
        Ok(())
    }
    fn read(&self, number: usize) -> Result<usize> {
        Ok(looked_at(&ParquetReader::new(File::open(self.path(number))?).finish()?))
    }
    fn part(&self, number: usize) -> Result<usize> {
        let path = self.path(number);
        let query =
            LazyFrame::scan_parquet(PlRefPath::new(path.to_str().ok_or("a path")?), ScanArgsParquet::default())?;
        Ok(filtered(query)?)
    }
}

fn looked_at(frame: &DataFrame) -> usize {
    black_box(frame.estimated_size());
    frame.height()
}

fn filtered(query: LazyFrame) -> PolarsResult<usize> {
    Ok(query.filter(col("size").gt(lit(900))).select([col("size"), col("price")]).collect()?.height())
}

struct Icechest {
    chest: Chest,
    dir: PathBuf,
    settings: (Compression, FrameFormat),
}

impl Icechest {
    fn open(dir: &Path, compression: Compression, format: FrameFormat) -> Result<Self> {
        // Nothing stays in memory.
        let builder = Chest::builder().budget(0).compression(compression).frame_format(format);
        Ok(Self { chest: builder.open(dir)?, dir: dir.to_owned(), settings: (compression, format) })
    }
}

impl Subject for Icechest {
    fn name(&self) -> String {
        format!("icechest, {:?} {}", self.settings.1, self.settings.0)
    }
    fn put(&mut self, number: usize, frame: &DataFrame) -> Result<()> {
        Ok(self.chest.insert(number, frame.clone())?)
    }
    fn publish(&mut self) -> Result<()> {
        Ok(self.chest.flush()?)
    }
    fn reopen(&mut self) -> Result<()> {
        *self = Self::open(&self.dir, self.settings.0, self.settings.1)?;
        Ok(())
    }
    fn read(&self, number: usize) -> Result<usize> {
        Ok(looked_at(&*self.chest.get::<DataFrame>(number)?))
    }
    fn part(&self, number: usize) -> Result<usize> {
        let frame: DataFrame = self.chest.select(number).columns(["size", "price"]).get()?;
        let wanted = frame.column("size")?.i32()?.gt(900);
        Ok(frame.filter(&wanted)?.height())
    }
}

/// A chest asked with polars' queries.
struct Scanned(Icechest);

impl Subject for Scanned {
    fn name(&self) -> String {
        format!("{}, scan", self.0.name())
    }
    fn put(&mut self, number: usize, frame: &DataFrame) -> Result<()> {
        self.0.put(number, frame)
    }
    fn publish(&mut self) -> Result<()> {
        self.0.publish()
    }
    fn reopen(&mut self) -> Result<()> {
        self.0.reopen()
    }
    fn read(&self, number: usize) -> Result<usize> {
        Ok(looked_at(&self.0.chest.scan(number)?.collect()?))
    }
    fn part(&self, number: usize) -> Result<usize> {
        Ok(filtered(self.0.chest.scan(number)?)?)
    }
}

/// Record batches in a chest.
struct Batches(Icechest);

impl Subject for Batches {
    fn name(&self) -> String {
        format!("{}, record batches", self.0.name())
    }
    fn put(&mut self, number: usize, frame: &DataFrame) -> Result<()> {
        self.0.put(number, frame)
    }
    fn publish(&mut self) -> Result<()> {
        self.0.publish()
    }
    fn reopen(&mut self) -> Result<()> {
        self.0.reopen()
    }
    fn read(&self, number: usize) -> Result<usize> {
        let batches = self.0.chest.get::<Vec<RecordBatch>>(number)?;
        Ok(batches.iter().map(RecordBatch::num_rows).sum())
    }
    fn part(&self, number: usize) -> Result<usize> {
        let batches: Vec<RecordBatch> = self.0.chest.select(number).columns(["size", "price"]).get()?;
        Ok(large(&batches))
    }
}

fn large(batches: &[RecordBatch]) -> usize {
    use arrow_array::cast::AsArray;
    let column = |batch: &RecordBatch| {
        batch.column_by_name("size").map(|column| {
            column.as_primitive::<arrow_array::types::Int32Type>().values().iter().filter(|size| **size > 900).count()
        })
    };
    batches.iter().filter_map(column).sum()
}

/// Arrow's own files, mapped.
struct Mapped {
    dir: PathBuf,
    /// Where the record batches come from: a frame has no other way to them here.
    source: Chest,
    made: Vec<RecordBatch>,
}

impl Mapped {
    fn batches(&self, number: usize) -> Result<Vec<RecordBatch>> {
        let file = File::open(self.dir.join(format!("{number}.arrow")))?;
        // SAFETY: nobody writes to the files of this benchmark while they are read.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        let buffer = Buffer::from(bytes::Bytes::from_owner(map));
        let len = i32::from_le_bytes(buffer[buffer.len() - 10..buffer.len() - 6].try_into()?) as usize;
        let footer = root_as_footer(&buffer[buffer.len() - 10 - len..buffer.len() - 10]).map_err(|e| e.to_string())?;
        let schema = try_fb_to_schema(footer.schema().ok_or("no schema")?)?;
        let decoder = FileDecoder::new(schema.into(), footer.version());
        let mut batches = Vec::new();
        for block in footer.recordBatches().iter().flatten() {
            let len = block.metaDataLength() as usize + block.bodyLength() as usize;
            let bytes = buffer.slice_with_length(block.offset() as usize, len);
            batches.extend(decoder.read_record_batch(block, &bytes)?);
        }
        Ok(batches)
    }
}

impl Subject for Mapped {
    fn name(&self) -> String {
        "Arrow IPC by hand, mapped".to_owned()
    }
    fn put(&mut self, number: usize, frame: &DataFrame) -> Result<()> {
        // All frames are the same.
        if self.made.is_empty() {
            self.source.insert(0, frame.clone())?;
            self.source.flush()?;
            self.source.set_budget(0)?;
            self.made = self.source.get::<Vec<RecordBatch>>(0)?.to_vec();
        }
        let batches = &self.made;
        let file = BufWriter::new(File::create(self.dir.join(format!("{number}.arrow")))?);
        let mut writer = FileWriter::try_new(file, &batches[0].schema())?;
        batches.iter().try_for_each(|batch| writer.write(batch))?;
        writer.finish()?;
        Ok(())
    }
    fn read(&self, number: usize) -> Result<usize> {
        Ok(self.batches(number)?.iter().map(RecordBatch::num_rows).sum())
    }
    fn part(&self, number: usize) -> Result<usize> {
        Ok(large(&self.batches(number)?))
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn milliseconds(run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    run()?;
    Ok(began.elapsed().as_secs_f64() * 1e3 / FRAMES as f64)
}

fn disk(dir: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        total += if entry.file_type()?.is_dir() { disk(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(total)
}

fn main() -> Result<()> {
    // `cargo test` runs benchmarks, too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    // One frame, again and again: making them takes longer than all the rest.
    let frame = frame(1)?;
    let expected = frame.column("size")?.i32()?.gt(900).sum().unwrap_or(0) as usize;
    let parent = tempfile::tempdir_in(std::env::var_os("ICECHEST_BENCH_DIR").unwrap_or_else(|| "/var/tmp".into()))?;
    let mut results: Vec<(String, [Vec<f64>; 4], f64)> = Vec::new();
    for run in 0..RUNS {
        for subject in 0..9 {
            let dir = tempfile::tempdir_in(parent.path())?;
            let path = dir.path().to_owned();
            let parquet = |compression| Icechest::open(&path.join("chest"), compression, FrameFormat::Parquet);
            let arrow = || Icechest::open(&path.join("chest"), Compression::Auto, FrameFormat::Arrow);
            let mut subject: Box<dyn Subject> = match subject {
                0 => Box::new(Polars(path.clone(), ParquetCompression::Zstd(None), "zstd 3")),
                1 => Box::new(parquet(Compression::Auto)?),
                2 => Box::new(Scanned(parquet(Compression::Auto)?)),
                3 => Box::new(Polars(path.clone(), ParquetCompression::Lz4Raw, "LZ4")),
                4 => Box::new(parquet(Compression::Fast)?),
                5 => Box::new(Polars(path.clone(), ParquetCompression::Zstd(Some(ZstdLevel::try_new(1)?)), "zstd 1")),
                6 => Box::new(Mapped { dir: path.clone(), source: Chest::temporary()?, made: Vec::new() }),
                7 => Box::new(arrow()?),
                _ => Box::new(Batches(arrow()?)),
            };
            if !words.is_empty() && !words.iter().any(|word| subject.name().contains(word)) {
                continue;
            }
            let insert = milliseconds(|| {
                (0..FRAMES).try_for_each(|number| subject.put(number, &frame))?;
                subject.publish()
            })?;
            rustix::fs::sync();
            let check = |found: usize, wanted: usize| if found == wanted { Ok(()) } else { Err("read wrong".into()) };
            subject.reopen()?;
            let first = milliseconds(|| (0..FRAMES).try_for_each(|number| check(subject.read(number)?, ROWS)))?;
            let whole = milliseconds(|| (0..FRAMES).try_for_each(|number| check(subject.read(number)?, ROWS)))?;
            let part = milliseconds(|| (0..FRAMES).try_for_each(|number| check(subject.part(number)?, expected)))?;
            let place = results.iter().position(|(name, ..)| *name == subject.name()).unwrap_or_else(|| {
                results.push((subject.name(), Default::default(), 0.0));
                results.len() - 1
            });
            let (_, times, mib) = &mut results[place];
            times.iter_mut().zip([insert, first, whole, part]).for_each(|(times, time)| times.push(time));
            *mib = disk(dir.path())? as f64 / 1048576.0;
        }
        eprintln!("run {} of {RUNS}", run + 1);
    }
    println!(
        "| 64 frames of 200k x 8, ms a frame | insert | read whole | again | two columns, filtered | MiB on disk |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (name, [insert, first, whole, part], mib) in results {
        println!(
            "| {name} | {:.1} | {:.2} | {:.2} | {:.2} | {mib:.0} |",
            median(insert),
            median(first),
            median(whole),
            median(part)
        );
    }
    Ok(())
}
