//! Queries of polars: over a stored frame, and into one.

use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};

use polars_buffer::Buffer;
use polars_core::frame::DataFrame;
use polars_core::prelude::{PolarsError, PolarsResult};
use polars_io::HiveOptions;
use polars_io::prelude::ParquetOptions;
use polars_lazy::frame::{IntoLazy, LazyFrame};
use polars_lazy::prelude::{Engine, PlanCallback};
use polars_plan::dsl::{DslBuilder, ScanSources, UnifiedScanArgs};

use crate::chest::{Chest, not_found};
use crate::disk::About;
use crate::error::{Error, Result};
use crate::format::{Decoder, FRAME, ROW_GROUP_BYTES, ipc, parquet};
use crate::key::Key;
use crate::value::{Kind, Selection, Value, frame, read_pieces};
use crate::writer::Target;

/// Rows that the engine hands over at a time; groups are put together of them. The compiler unwraps this constant.
const BATCH_ROWS: NonZeroUsize = NonZeroUsize::new(32 << 10).unwrap();

impl Chest {
    /// A stored frame as a query of polars: only the columns, row groups and pages that the query needs are read and
    /// decoded.
    ///
    /// The frame's file is mapped into memory; its pages belong to the system and do not count against the budget, nor does
    /// what polars takes to run the query. The query stays one of the frame as it is now, even if that is replaced or
    /// removed. The whole file is verified when this process maps a version for the first time, unless this process wrote
    /// it, as for [`view`](Self::view). A small frame that lives in the catalog is loaded.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) and [`WrongType`](crate::ErrorKind::WrongType), as for
    /// [`get`](Self::get). That polars lacks a type of a column shows when the query is run.
    ///
    /// ```
    /// use polars_core::df;
    /// use polars_lazy::prelude::{col, lit};
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.insert("flights", df!("delay" => [3, 45, 12], "to" => ["ATL", "JFK", "ATL"])?)?;
    /// let late = chest.scan("flights")?.filter(col("delay").gt(lit(10))).select([col("to")]).collect()?;
    /// assert_eq!(late, df!("to" => ["JFK", "ATL"])?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scan(&self, key: impl Into<Key>) -> Result<LazyFrame> {
        let (key, store) = (key.into(), self.store()?);
        let opened = store.open_published::<DataFrame>(&key)?.ok_or_else(|| not_found(&key))?;
        let version = opened.version;
        let is_verified = store.disk.is_verified(version);
        let frame = opened.read(|input| scan(input, is_verified))?;
        store.disk.note_verified(version);
        Ok(frame)
    }

    /// Runs a query with polars' streaming engine and stores its result, which may be larger than memory.
    ///
    /// Memory: what the engine takes to run the query, and a row group (16 MiB) and 4 MiB to write it. Nobody sees the frame
    /// before this returns; after an error, nothing is left behind, and the key keeps what it has. The query may be over
    /// the very frame that the key has.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when the query fails, [`Unsupported`](crate::ErrorKind::Unsupported) when
    /// Parquet cannot carry a column, and those of every method that writes.
    ///
    /// ```
    /// use polars_core::df;
    /// use polars_lazy::prelude::{col, lit};
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.insert("flights", df!("delay" => [3, 45, 12])?)?;
    /// chest.sink("late", chest.scan("flights")?.filter(col("delay").gt(lit(10))))?;
    /// assert_eq!(chest.scan("late")?.collect()?.height(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sink(&self, key: impl Into<Key>, query: LazyFrame) -> Result<()> {
        let key = key.into();
        run(self, &key, query).map_err(|error| error.with_key(&key))
    }
}

fn scan(input: &mut Decoder, is_verified: bool) -> Result<LazyFrame> {
    if let Some(frame) = frame::without_columns(input)? {
        return Ok(frame.lazy());
    }
    let everything = Selection::default();
    // Polars cannot filter integers that are this wide while it reads them.
    let has_wide = |frame: &DataFrame| {
        frame.dtypes().iter().any(|dtype| ["i128", "u128"].iter().any(|wide| dtype.to_string().contains(wide)))
    };
    // Columns of Arrow's format are mapped as they are.
    if input.files().any(|file| file.format() == ipc::NAME) || has_wide(&frame::without_rows(input)?) {
        return Ok(DataFrame::decode(input)?.lazy());
    }
    let files = read_pieces(input, &everything, |input, _| {
        parquet::check(&**input.payload(), input.size(), &everything)?;
        let map = input.map_labelled(is_verified).map_err(|error| Error::io("cannot map the frame's file", error))?;
        Ok(match map {
            Some(map) => Buffer::from_owner(map),
            None => Buffer::from_vec(input.read_to_vec()?),
        })
    })?;
    let options = ParquetOptions { schema: None, use_statistics: true, ..ParquetOptions::default() };
    let arguments =
        UnifiedScanArgs { glob: false, hive_options: HiveOptions::new_disabled(), ..UnifiedScanArgs::default() };
    let plan = DslBuilder::scan_parquet(ScanSources::Buffers(files.into()), options, arguments);
    Ok(plan.map_err(|error| frame::polars_error("cannot read the frame", error))?.build().into())
}

/// A frame on its way to the disk.
struct Sink {
    target: Target,
    pieces: frame::Pieces,
    /// Rows that are not a group yet.
    rest: Option<DataFrame>,
    /// What ended the query, if polars did not.
    error: Option<Error>,
}

fn run(chest: &Chest, key: &Key, mut query: LazyFrame) -> Result<()> {
    let schema = query.collect_schema().map_err(query_error)?;
    Value::check(&DataFrame::empty_with_schema(&schema))?;
    let (target, out) = Target::new(chest, key.clone())?;
    let pieces = frame::Pieces::new(&schema, out).map_err(|error| target.place.name(error))?;
    let sink = Arc::new(Mutex::new(Some(Sink { target, pieces, rest: None, error: None })));
    let callback = {
        let sink = sink.clone();
        PlanCallback::new(move |batch: DataFrame| {
            let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(sink) = &mut *sink else { return Ok(true) };
            if let Err(error) = sink.add(batch) {
                sink.error = Some(error);
            }
            // Whether to stop.
            Ok(sink.error.is_some())
        })
    };
    let execute = || -> PolarsResult<()> {
        query.sink_batches(callback, true, Some(BATCH_ROWS))?.collect_with_engine(Engine::Streaming).map(|_| ())
    };
    let executed = panic::catch_unwind(AssertUnwindSafe(execute));
    let executed = executed.unwrap_or_else(|_| Err(PolarsError::ComputeError("polars panicked".into())));
    let sink = sink.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut sink) = sink else { unreachable!("only this function takes it") };
    if let Some(error) = sink.error.take() {
        return Err(error);
    }
    executed.map_err(query_error)?;
    sink.finish()
}

impl Sink {
    fn add(&mut self, batch: DataFrame) -> Result<()> {
        let rows = match self.rest.take() {
            Some(mut rest) => {
                rest.vstack_mut(&batch).map_err(|error| frame::polars_error("cannot join rows", error))?;
                rest
            }
            None => batch,
        };
        if rows.estimated_size() < ROW_GROUP_BYTES && rows.height() < frame::GROUP_ROWS {
            self.rest = Some(rows);
            return Ok(());
        }
        self.write(rows)
    }

    fn write(&mut self, rows: DataFrame) -> Result<()> {
        let pieces = &mut self.pieces;
        self.target.write(|| pieces.write(&rows))
    }

    fn finish(mut self) -> Result<()> {
        if let Some(rest) = self.rest.take() {
            self.write(rest)?;
        }
        let (out, format, bytes) = self.pieces.finish().map_err(|error| self.target.place.name(error))?;
        self.target.publish(out, About { kind: Kind::Frame, stored_name: FRAME.to_owned(), bytes, format })
    }
}

fn query_error(error: PolarsError) -> Error {
    match error {
        PolarsError::IO { .. } => frame::polars_error("the query failed", error),
        error => Error::invalid("the query failed").with_source(error.to_string()),
    }
}
