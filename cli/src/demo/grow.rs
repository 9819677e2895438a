//! More data from the real data: what people make of such data, and the same in every run.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{RecordBatch, UInt32Array};
use arrow_select::concat::concat_batches;
use arrow_select::take::take_record_batch;
use icechest::{AnyArray, Chest, Element, Key};
use ndarray::{Array2, Array3, ArrayD, Axis, Ix1, Ix2, Ix3, s};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{content, digest_key};
use crate::failure::{Failure, Result};
use crate::get::Got;
use crate::load::{Loaded, load};
use crate::{human, progress};

const YEAR: i32 = 2013;
/// Bootstrap samples of each month of flights.
const SAMPLES: usize = 20;
/// The photo is cut into so many tiles in each direction.
const TILES: usize = 4;

/// Fills the chest. Gives how many values have a digest.
pub(super) fn grow(chest: &Chest, data: &Path, out: &mut dyn Write) -> Result<usize> {
    let mut grower = Grower { chest, data, out, group: "", values: 0, bytes: 0, total: 0, started: Instant::now() };
    writeln!(grower.out, "{:<30}{:>9}  {:>9}  {:>6}  memory of the chest", "Inserted", "in memory", "values", "time")?;
    grower.flights()?;
    grower.samples()?;
    grower.airports_and_airlines()?;
    grower.photo()?;
    grower.sea_temperature()?;
    grower.co2()?;
    grower.digits()?;
    chest.flush()?;
    Ok(grower.total)
}

struct Grower<'a> {
    chest: &'a Chest,
    data: &'a Path,
    out: &'a mut dyn Write,
    group: &'static str,
    values: usize,
    bytes: u64,
    total: usize,
    started: Instant,
}

impl Grower<'_> {
    /// Inserts the values of a group with their digests, and shows them as a line.
    fn insert_all(
        &mut self,
        name: &'static str,
        len: usize,
        values: impl IntoIterator<Item = Result<(Key, Loaded)>>,
    ) -> Result<()> {
        (self.group, self.values, self.bytes, self.started) = (name, 0, 0, Instant::now());
        let bar = progress::of_things(name, len);
        for value in values {
            let (key, value) = value?;
            let got = match value {
                Loaded::Array(array) => Got::Array(Arc::new(array)),
                Loaded::Frame(batches) => Got::Frame(Arc::new(batches)),
                Loaded::Json(json) => Got::Json(Arc::new(json)),
                Loaded::Bytes(bytes) => Got::Bytes(Arc::new(bytes)),
                Loaded::Folder(_) => Got::Other,
            };
            self.chest.insert(digest_key(&key), content::digest(&got)?)?;
            match got {
                Got::Array(array) => self.chest.insert(&key, array)?,
                Got::Frame(batches) => self.chest.insert(&key, batches)?,
                Got::Json(json) => self.chest.insert(&key, json)?,
                Got::Text(text) => self.chest.insert(&key, text)?,
                Got::Bytes(bytes) => self.chest.insert(&key, bytes)?,
                Got::Files(_) | Got::Other => {}
            }
            self.values += 1;
            self.bytes += self.chest.info(&key)?.bytes;
            let stats = self.chest.stats()?;
            bar.set_message(human::bytes(stats.resident_bytes));
            bar.inc(1);
        }
        bar.finish_and_clear();
        self.total += self.values;
        self.line()
    }

    fn line(&mut self) -> Result<()> {
        let stats = self.chest.stats()?;
        let bar = human::bar(stats.resident_bytes, stats.budget, 20);
        let (values, bytes) = (human::count(self.values), human::bytes(self.bytes));
        let (took, resident) = (human::seconds(self.started.elapsed()), human::bytes(stats.resident_bytes));
        writeln!(self.out, "  {:<28}{bytes:>9}  {values:>9}  {took:>6}  {bar} {resident}", self.group)?;
        Ok(self.out.flush()?)
    }

    /// The flights, a frame a month: the file has one row group for each.
    fn flights(&mut self) -> Result<()> {
        let path = self.data.join("flights.parquet");
        let months = months(&path)?;
        let frames = (0..months).map(|month| {
            let batches = read_month(&path, month)?;
            Ok((Key::from(("flights", YEAR, month + 1)), Loaded::Frame(batches)))
        });
        self.insert_all("flights of a month", months, frames)
    }

    /// Samples with replacement of each month, as for the uncertainty of a mean delay.
    fn samples(&mut self) -> Result<()> {
        let months = months(&self.data.join("flights.parquet"))?;
        let chest = self.chest;
        let frames = (0..months * SAMPLES).map(|i| {
            let (month, sample) = (i / SAMPLES + 1, i % SAMPLES);
            // By now it may have been spilled; then it comes back from disk.
            let frame = chest.get::<Vec<RecordBatch>>(("flights", YEAR, month))?;
            let schema = frame[0].schema();
            let fail = |error| Failure::broken(format!("cannot sample the flights: {error}"));
            let whole = concat_batches(&schema, frame.iter()).map_err(fail)?;
            let sampled = take_record_batch(&whole, &sample_rows(whole.num_rows(), i as u64)).map_err(fail)?;
            Ok((Key::from(("flights", YEAR, month, "sample", sample)), Loaded::Frame(vec![sampled])))
        });
        self.insert_all("bootstrap samples of them", months * SAMPLES, frames)
    }

    fn airports_and_airlines(&mut self) -> Result<()> {
        let files = [("airports", "airports.arrow"), ("airlines", "airlines.json")];
        let mut values = Vec::new();
        for (key, file) in files {
            let value = load(&self.data.join(file))?;
            if let Loaded::Json(serde_json::Value::Array(airlines)) = &value {
                values.extend(airlines.iter().enumerate().map(|(i, json)| {
                    let carrier = json.get("carrier").and_then(|carrier| carrier.as_str()).map(str::to_owned);
                    let key = Key::from(("airline", carrier.unwrap_or_else(|| i.to_string())));
                    (key, Loaded::Json(json.clone()))
                }));
            }
            values.push((Key::from(key), value));
        }
        self.insert_all("airports and airlines", values.len(), values.into_iter().map(Ok))
    }

    /// The photo, tiles of it, and the photo in many lights as a model would be trained with.
    fn photo(&mut self) -> Result<()> {
        let photo = self.array::<u8, Ix3>("photo.npy")?;
        let (height, width, _) = photo.dim();
        let whole = std::iter::once(Ok((Key::from("photo"), array(photo.clone()))));
        let tiles = (0..TILES * TILES).map(|i| {
            let (row, column) = (i / TILES, i % TILES);
            let part = |at: usize, len: usize| at * len / TILES..(at + 1) * len / TILES;
            let tile = photo.slice(s![part(row, height), part(column, width), ..]).to_owned();
            Ok((Key::from(("photo", "tile", row, column)), array(tile)))
        });
        self.insert_all("a photo and its tiles", 1 + TILES * TILES, whole.chain(tiles))?;
        let percents = (50u32..=200).step_by(5);
        let lights = percents.clone().map(|percent| {
            let light = percent as f32 / 100.0;
            let lit = photo.mapv(|x| (f32::from(x) / 255.0 * light).min(1.0));
            Ok((Key::from(("photo", "light", percent)), array(lit)))
        });
        self.insert_all("the photo in other lights", percents.clone().count(), lights)
    }

    /// All windows of so many months, as a forecast would be trained with.
    fn sea_temperature(&mut self) -> Result<()> {
        let sea = self.array::<f64, Ix2>("sea_temperature.npy")?;
        let (months, regions) = sea.dim();
        let lengths = (12..=240usize).step_by(12).filter(|&length| length <= months);
        let windows = lengths.clone().map(|length| {
            let count = months - length + 1;
            let windows =
                Array3::from_shape_fn((count, length, regions), |(start, i, region)| sea[[start + i, region]]);
            Ok((Key::from(("sea temperature", "windows", length)), array(windows)))
        });
        self.insert_all("windows of sea temperature", lengths.clone().count(), windows)
    }

    /// The difference of each pair of weeks: one array of more than half of the budget.
    fn co2(&mut self) -> Result<()> {
        let co2 = self.array::<f64, Ix1>("co2_mauna_loa.npy")?;
        let pairs = Array2::from_shape_fn((co2.len(), co2.len()), |(a, b)| co2[a] - co2[b]);
        self.insert_all("CO2 of all pairs of weeks", 1, [Ok((Key::from(("co2", "differences")), array(pairs)))])
    }

    /// The distance of each pair of digits, as for a search of the nearest.
    fn digits(&mut self) -> Result<()> {
        let digits = self.array::<u8, Ix3>("digits.npy")?;
        let count = digits.len_of(Axis(0));
        let fail = |error| Failure::broken(format!("digits.npy: {error}"));
        let pixels =
            digits.mapv(f32::from).into_shape_with_order((count, digits.len() / count.max(1))).map_err(fail)?;
        let products = pixels.dot(&pixels.t());
        let squares = products.diag().to_owned();
        let distance = |(a, b)| (squares[a] + squares[b] - 2.0 * products[[a, b]]).max(0.0).sqrt();
        let distances = Array2::from_shape_fn((count, count), distance);
        let values = [(Key::from("digits"), array(digits)), (Key::from(("digits", "distances")), array(distances))];
        self.insert_all("digits and their distances", values.len(), values.map(Ok))
    }

    /// An array of the data folder, which must be of the type that the demo works with.
    fn array<A: Element, D: ndarray::Dimension>(&self, name: &str) -> Result<ndarray::Array<A, D>> {
        let path = self.data.join(name);
        let array = match load(&path)? {
            Loaded::Array(array) => {
                array.downcast_ref::<A>().and_then(|array| array.clone().into_dimensionality().ok())
            }
            _ => None,
        };
        array.ok_or_else(|| Failure::broken(format!("{} is not the array that the demo needs", path.display())))
    }
}

fn array<A, D: ndarray::Dimension>(array: ndarray::Array<A, D>) -> Loaded
where
    AnyArray: From<ArrayD<A>>,
{
    Loaded::Array(array.into_dyn().into())
}

fn months(path: &Path) -> Result<usize> {
    let file = File::open(path).map_err(Failure::at("open", path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(Failure::at("read", path))?;
    Ok(builder.metadata().num_row_groups())
}

fn read_month(path: &Path, month: usize) -> Result<Vec<RecordBatch>> {
    let file = File::open(path).map_err(Failure::at("open", path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(Failure::at("read", path))?;
    let reader = builder.with_row_groups(vec![month]).build().map_err(Failure::at("read", path))?;
    reader.collect::<std::result::Result<_, _>>().map_err(Failure::at("read", path))
}

/// As many rows as there are, drawn with replacement, in order.
fn sample_rows(rows: usize, seed: u64) -> UInt32Array {
    let mut state = seed;
    let mut next = || {
        // SplitMix64: small, and the same everywhere.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let mut picked: Vec<u32> = (0..rows).map(|_| (next() % rows.max(1) as u64) as u32).collect();
    picked.sort_unstable();
    picked.into()
}
