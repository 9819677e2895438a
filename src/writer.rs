//! Values that are written in pieces, so that they may be larger than memory.

#[cfg(any(feature = "arrow", feature = "ndarray"))]
use std::fmt;

#[cfg(feature = "arrow")]
use arrow_array::RecordBatch;
#[cfg(feature = "arrow")]
use arrow_schema::SchemaRef;
#[cfg(feature = "ndarray")]
use ndarray::{ArrayView, Dimension};

use crate::chest::Chest;
use crate::disk::{About, NewPlace};
use crate::error::{Error, Result};
use crate::format::Encoder;
use crate::key::Key;
#[cfg(any(feature = "arrow", feature = "ndarray"))]
use crate::value::Kind;
#[cfg(feature = "ndarray")]
use crate::{format::npy::Rows, value::Element};
#[cfg(feature = "arrow")]
use crate::{format::parquet::arrow::Pieces, value::Value};

/// A value on its way to the disk.
pub(crate) struct Target {
    chest: Chest,
    key: Key,
    pub(crate) place: NewPlace,
    /// A piece may have been written in part, so what there is cannot be published.
    is_broken: bool,
}

impl Target {
    pub(crate) fn new(chest: &Chest, key: Key) -> Result<(Self, Encoder)> {
        key.check().map_err(|error| error.with_key(&key))?;
        let (encoder, place) = chest.store()?.disk.begin(&key)?;
        Ok((Self { chest: chest.clone(), key, place, is_broken: false }, encoder))
    }

    /// Writes a piece, if all before it were written.
    pub(crate) fn write(&mut self, write: impl FnOnce() -> Result<()>) -> Result<()> {
        self.check()?;
        self.is_broken = true;
        write().map_err(|error| self.place.name(error))?;
        self.is_broken = false;
        Ok(())
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !self.is_broken {
            return Ok(());
        }
        Err(Error::invalid("a piece could not be written, so the value cannot be finished").with_key(&self.key))
    }

    pub(crate) fn publish(self, encoder: Encoder, about: About) -> Result<()> {
        let store = self.chest.store()?;
        store.publish_written(&self.key, store.disk.complete(self.place, encoder, about)?)
    }
}

impl Chest {
    /// Starts an array that is written in blocks of rows, each of the shape `row`. Its first 8 MiB decide whether it is
    /// compressed, as the chest's [`Compression`](crate::Compression) asks; it is stored in C order. An array that is larger than
    /// memory is read with [`slice`](Self::slice); for [`view`](Self::view) to map it, it must not be compressed
    /// ([`Compression::Never`](crate::Compression::Never)).
    ///
    /// Memory: 24 MiB at most. Nobody sees the array before [`finish`](ArrayWriter::finish); a writer that is dropped before
    /// leaves nothing behind, and until then the key keeps what it has.
    ///
    /// # Errors
    /// Those of every method that writes.
    ///
    /// ```
    /// use ndarray::{Array1, Array2, Axis};
    /// # let chest = icechest::Chest::temporary()?;
    /// let mut writer = chest.array_writer::<f32>("embeddings", &[16])?;
    /// for block in 0..10 {
    ///     writer.write(Array2::from_elem((100, 16), block as f32).view())?;
    /// }
    /// writer.finish()?;
    /// let means: Array1<f32> = chest.get::<Array2<f32>>("embeddings")?.mean_axis(Axis(1)).unwrap();
    /// assert_eq!((means.len(), means[999]), (1000, 9.0));
    /// # Ok::<(), icechest::Error>(())
    /// ```
    #[cfg(feature = "ndarray")]
    pub fn array_writer<A: Element>(&self, key: impl Into<Key>, row: &[usize]) -> Result<ArrayWriter<A>> {
        let (target, out) = Target::new(self, key.into())?;
        Ok(ArrayWriter { target, rows: Rows::new(out, row) })
    }

    /// Starts a frame that is written in record batches.
    ///
    /// Memory: a row group (16 MiB), 4 MiB, and the batch written last. Nobody sees the frame before [`finish`](FrameWriter::finish); a writer that
    /// is dropped before leaves nothing behind, and until then the key keeps what it has.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when Parquet cannot carry a column, and those of every method that
    /// writes.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use arrow_array::{Array, Int64Array, RecordBatch};
    /// use arrow_schema::{DataType, Field, Schema};
    /// # let chest = icechest::Chest::temporary()?;
    /// let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    /// let mut writer = chest.frame_writer("numbers", schema.clone())?;
    /// for i in 0..10 {
    ///     let column = Arc::new(Int64Array::from_iter_values(i * 100..(i + 1) * 100));
    ///     writer.write(&RecordBatch::try_new(schema.clone(), vec![column]).unwrap())?;
    /// }
    /// writer.finish()?;
    /// let mut rows = 0;
    /// for batch in chest.select("numbers").batches()? {
    ///     rows += batch?.num_rows();
    /// }
    /// assert_eq!(rows, 1000);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    #[cfg(feature = "arrow")]
    pub fn frame_writer(&self, key: impl Into<Key>, schema: SchemaRef) -> Result<FrameWriter> {
        let key = key.into();
        RecordBatch::new_empty(schema.clone()).check().map_err(|error| error.with_key(&key))?;
        let (target, out) = Target::new(self, key)?;
        let pieces = Pieces::new(schema.clone(), out).map_err(|error| target.place.name(error))?;
        Ok(FrameWriter { target, schema, pieces })
    }
}

/// Writes an array in blocks of rows, made by [`Chest::array_writer`].
#[cfg(feature = "ndarray")]
#[must_use = "nothing is stored before `finish`"]
pub struct ArrayWriter<A> {
    target: Target,
    rows: Rows<A>,
}

#[cfg(feature = "ndarray")]
impl<A: Element> ArrayWriter<A> {
    /// Adds rows.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when the rows have another shape; nothing is written then. After an error of
    /// writing the array cannot be finished.
    pub fn write<D: Dimension>(&mut self, rows: ArrayView<'_, A, D>) -> Result<()> {
        let shape = self.rows.shape();
        if rows.ndim() != shape.len() || rows.shape()[1..] != shape[1..] {
            let (found, wanted) = (rows.shape(), &shape[1..]);
            let message = format!("a block of the shape {found:?} has not rows of the shape {wanted:?}");
            return Err(Error::invalid(message).with_key(&self.target.key));
        }
        let stored = &mut self.rows;
        self.target.write(|| stored.write(rows.into_dyn()).map_err(|error| Error::io("cannot write the array", error)))
    }

    /// Publishes the array, in place of what the key had.
    ///
    /// # Errors
    /// Those of writing and publishing; then the key keeps what it has. And those of making it durable, with
    /// [`Durability::Immediate`](crate::Durability): then the array is published.
    pub fn finish(self) -> Result<()> {
        self.target.check()?;
        let bytes = self.rows.shape().iter().fold(size_of::<A>(), |bytes, &len| bytes.saturating_mul(len)) as u64;
        let stored_name = format!("Array<{}, {}>", A::NAME, self.rows.shape().len());
        let finished = self.rows.finish();
        let (out, format) =
            finished.map_err(|error| self.target.place.name(Error::io("cannot write the array", error)))?;
        self.target.publish(out, About { kind: Kind::Array, stored_name, bytes, format })
    }
}

#[cfg(feature = "ndarray")]
impl<A: Element> fmt::Debug for ArrayWriter<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArrayWriter({}, {} of shape {:?} so far)", self.target.key, A::NAME, self.rows.shape())
    }
}

/// Writes a frame in record batches, made by [`Chest::frame_writer`].
#[cfg(feature = "arrow")]
#[must_use = "nothing is stored before `finish`"]
pub struct FrameWriter {
    target: Target,
    schema: SchemaRef,
    pieces: Pieces,
}

#[cfg(feature = "arrow")]
impl FrameWriter {
    /// Adds rows.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when the batch has another schema,
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when Parquet cannot carry it; nothing is written then. After an error
    /// of writing the frame cannot be finished.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.schema() != self.schema {
            return Err(Error::invalid("the batch has another schema than the frame").with_key(&self.target.key));
        }
        batch.check().map_err(|error| error.with_key(&self.target.key))?;
        let pieces = &mut self.pieces;
        self.target.write(|| pieces.write(batch))
    }

    /// Publishes the frame, in place of what the key had.
    ///
    /// # Errors
    /// Those of writing and publishing; then the key keeps what it has. And those of making it durable, with
    /// [`Durability::Immediate`](crate::Durability): then the frame is published.
    pub fn finish(self) -> Result<()> {
        self.target.check()?;
        let (out, format, bytes) = self.pieces.finish().map_err(|error| self.target.place.name(error))?;
        let stored_name = RecordBatch::new_empty(self.schema).stored_name();
        self.target.publish(out, About { kind: Kind::Frame, stored_name, bytes, format })
    }
}

#[cfg(feature = "arrow")]
impl fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameWriter({}, {} columns)", self.target.key, self.schema.fields().len())
    }
}
