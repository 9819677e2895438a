//! A pipeline of stages on real data: load, clean, features, matrix, model, evaluation. Run it twice: the second run computes
//! nothing. Change the file, or a parameter, and what depends on it is computed again, and nothing else.
//!
//! `cargo run --workspace --example pipeline -- [--input data/flights.csv] [--dir DIR] [--alpha 1.0] [--hours 4]`
//!
//! The question: how late does a flight arrive? `--hours` is the width of the parts of the day that tell it, `--alpha` how
//! strongly the regression is kept from large weights. One line of JSON for each stage ends the run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_csv::ReaderBuilder;
use arrow_csv::reader::Format;
use icechest::polars::frame::DataFrame;
use icechest::polars::prelude::DataType;
use icechest::{Chest, FileContent, Plain, Stored, stage};
use ndarray::{Array2, Axis, s};
use polars_lazy::prelude::{Expr, LazyFrame, col, lit};
use serde::{Deserialize, Serialize};
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linear::ridge_regression::{RidgeRegression, RidgeRegressionParameters};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// What tells how late a flight arrives; the last column is what is to be told.
const COLUMNS: [&str; 5] = ["dep_delay", "distance", "month", "part_of_day", "arr_delay"];

/// The weights of the columns, which are brought to one scale before.
#[derive(Serialize, Deserialize, Plain)]
struct Model {
    mean: Vec<f64>,
    deviation: Vec<f64>,
    weights: Vec<f64>,
    intercept: f64,
}

/// How far the predictions are off for flights that the model has not seen, in minutes; and a guess of the mean.
#[derive(Serialize, Deserialize, Plain, Clone)]
struct Evaluation {
    flights: usize,
    error: f64,
    error_of_mean: f64,
}

#[stage(chest = chest, ignore(chest))]
fn load(chest: &Chest, input: FileContent) -> Result<Stored<Vec<RecordBatch>>> {
    let format = Format::default().with_header(true);
    let (schema, _) = format.infer_schema(File::open(&input)?, None)?;
    let reader = ReaderBuilder::new(Arc::new(schema)).with_format(format).build(File::open(&input)?)?;
    Ok(reader.collect::<std::result::Result<Vec<_>, _>>()?.into())
}

/// Flights that took place, as a query over the stored file: only the columns that are asked for are read.
#[stage(chest = chest, ignore(chest))]
fn clean(chest: &Chest, raw: &Stored<Vec<RecordBatch>>) -> Result<Stored<DataFrame>> {
    let took_place = col("arr_delay").is_not_null().and(col("dep_delay").is_not_null());
    let columns = ["dep_delay", "distance", "month", "hour", "arr_delay"].map(col);
    Ok(scan(chest, raw)?.filter(took_place).select(columns).collect()?.into())
}

#[stage(chest = chest, ignore(chest))]
fn features(chest: &Chest, flights: &Stored<DataFrame>, hours: i64) -> Result<Stored<DataFrame>> {
    let part = (col("hour") / lit(hours)).cast(DataType::Int64).alias("part_of_day");
    let columns: Vec<Expr> = COLUMNS.iter().map(|&name| col(name).cast(DataType::Float64)).collect();
    Ok(scan(chest, flights)?.with_column(part).select(columns).collect()?.into())
}

#[stage(chest = chest, ignore(chest))]
fn matrix(chest: &Chest, features: &Stored<DataFrame>) -> Result<Stored<Array2<f64>>> {
    let frame = features.get()?;
    let mut matrix = Array2::zeros((frame.height(), COLUMNS.len()));
    for (name, mut to) in COLUMNS.iter().zip(matrix.axis_iter_mut(Axis(1))) {
        let from = frame.column(name)?.f64()?;
        to.iter_mut().zip(from.iter()).for_each(|(to, from)| *to = from.unwrap_or(f64::NAN));
    }
    Ok(matrix.into())
}

/// Every fourth flight is kept for the evaluation.
const TEST: usize = 4;

#[stage(chest = chest, ignore(chest))]
fn train(chest: &Chest, data: &Stored<Array2<f64>>, alpha: f64) -> Result<Stored<Model>> {
    let data = data.get()?;
    let rows: Vec<usize> = (0..data.nrows()).filter(|row| row % TEST != 0).collect();
    let data = data.select(Axis(0), &rows);
    let inputs = data.slice(s![.., ..-1]);
    let (Some(mean), deviation) = (inputs.mean_axis(Axis(0)), inputs.std_axis(Axis(0), 0.0)) else {
        return Err("there are no flights".into());
    };
    let scaled = (&inputs - &mean) / &deviation.mapv(|deviation| deviation.max(1e-9));
    let x = DenseMatrix::new(scaled.nrows(), scaled.ncols(), scaled.iter().copied().collect(), false)?;
    let y = data.column(data.ncols() - 1).to_vec();
    let settings = RidgeRegressionParameters::default().with_alpha(alpha);
    let fitted = RidgeRegression::fit(&x, &y, settings)?;
    let weights = fitted.coefficients();
    let weights = (0..inputs.ncols()).map(|i| *smartcore::linalg::basic::arrays::Array::get(weights, (i, 0))).collect();
    let (mean, deviation) = (mean.to_vec(), deviation.mapv(|deviation| deviation.max(1e-9)).to_vec());
    Ok(Model { mean, deviation, weights, intercept: *fitted.intercept() }.into())
}

impl Model {
    fn predict(&self, row: ndarray::ArrayView1<'_, f64>) -> f64 {
        let scaled =
            row.iter().zip(&self.mean).zip(&self.deviation).map(|((x, mean), deviation)| (x - mean) / deviation);
        scaled.zip(&self.weights).map(|(x, weight)| x * weight).sum::<f64>() + self.intercept
    }
}

#[stage(chest = chest, ignore(chest))]
fn evaluate(chest: &Chest, data: &Stored<Array2<f64>>, model: &Stored<Model>) -> Result<Stored<Evaluation>> {
    let (data, model) = (data.get()?, model.get()?);
    let last = data.ncols() - 1;
    let mean = data.column(last).mean().unwrap_or(0.0);
    let (mut flights, mut error, mut error_of_mean) = (0, 0.0, 0.0);
    for row in data.axis_iter(Axis(0)).step_by(TEST) {
        flights += 1;
        error += (model.predict(row.slice(s![..last])) - row[last]).powi(2);
        error_of_mean += (mean - row[last]).powi(2);
    }
    let root = |sum: f64| (sum / f64::from(flights)).sqrt();
    let evaluation = Evaluation { flights: flights as usize, error: root(error), error_of_mean: root(error_of_mean) };
    Ok(evaluation.into())
}

/// A query over a stored frame.
fn scan<V>(chest: &Chest, frame: &Stored<V>) -> Result<LazyFrame> {
    let key = frame.key().ok_or("the frame could not be stored")?;
    Ok(chest.scan(key)?)
}

struct Settings {
    input: PathBuf,
    dir: PathBuf,
    alpha: f64,
    hours: i64,
}

fn settings(mut args: impl Iterator<Item = String>) -> Result<Settings> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/flights.csv");
    let dir = std::env::temp_dir().join("icechest-pipeline");
    let mut settings = Settings { input: data, dir, alpha: 1.0, hours: 4 };
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--input" => settings.input = value.into(),
            "--dir" => settings.dir = value.into(),
            "--alpha" => settings.alpha = value.parse()?,
            "--hours" => settings.hours = value.parse()?,
            _ => return Err(format!("{arg} is none of --input, --dir, --alpha, --hours").into()),
        }
    }
    if settings.hours < 1 {
        return Err("--hours is at least 1".into());
    }
    Ok(settings)
}

fn main() -> Result<()> {
    let Settings { input, dir, alpha, hours } = settings(std::env::args().skip(1))?;
    let chest = Chest::open(&dir)?;
    let raw = load(&chest, input.into())?;
    let flights = clean(&chest, &raw)?;
    let features = features(&chest, &flights, hours)?;
    let data = matrix(&chest, &features)?;
    let model = train(&chest, &data, alpha)?;
    let evaluation = evaluate(&chest, &data, &model)?;

    let Evaluation { flights: count, error, error_of_mean } = &*evaluation.get()?;
    println!("{count} flights: predictions are {error:.1} minutes off, the mean {error_of_mean:.1}");
    tell("load", &raw);
    tell("clean", &flights);
    tell("features", &features);
    tell("matrix", &data);
    tell("train", &model);
    tell("evaluate", &evaluation);
    Ok(())
}

fn tell<V>(stage: &str, result: &Stored<V>) {
    let status = result.status().map_or_else(|| "unknown".to_owned(), |status| status.to_string());
    let line = serde_json::json!({
        "stage": stage, "status": status, "seconds": result.took().as_secs_f64(), "bytes": result.bytes(),
    });
    println!("{line}");
}
