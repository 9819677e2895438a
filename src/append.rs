//! Rows that are appended to stored frames and arrays.

use crate::chest::{Chest, not_found};
use crate::error::{Error, Result};
use crate::format::{self, Decoder, Encoder, Format};
use crate::key::Key;
use crate::value::{IntoValue, Kind, Partial};

/// A value that gets so many parts more is made whole: all its files are open while it is read, and many systems let a
/// process have a thousand.
const MOST_PARTS: usize = if cfg!(test) { 4 } else { 500 };

impl Chest {
    /// Adds rows to a frame or an array (along its first axis), without writing again what is there: they go into a file of
    /// their own, a part of the value. If there is no such value, the rows are one.
    ///
    /// Reading, slicing and scanning take all parts for one value. It is published when this returns; who holds the value
    /// keeps it as it was, and in memory it is no more. Two processes may append at the same time.
    ///
    /// Costs the writing of the rows and some work in the catalog for each part that there is. A part that is not larger than
    /// the new rows is written again together with them, up to 64 MiB: so a thousand small additions become some ten files.
    /// A value of less than the [inline limit](crate::Builder::inline_limit) is written again as a whole, in memory, and so is,
    /// once, an array in Fortran order, or a frame that another library wrote (polars or Arrow). [`compact`](Self::compact) makes one file of all parts; so does this, which takes as long as reading
    /// and writing the whole value, with every five hundredth part, of which a value has so many only beyond some 16 GiB.
    ///
    /// # Errors
    /// [`WrongType`](crate::ErrorKind::WrongType) when the value is of another type, [`Invalid`](crate::ErrorKind::Invalid)
    /// when the rows have another shape or other columns, [`Unsupported`](crate::ErrorKind::Unsupported) for an array without
    /// axes, and those of every method that writes. Then the value is as it was; but rows that were published, and could not be
    /// made durable at once where that [is wanted](crate::Durability::Immediate), stay.
    ///
    /// ```
    /// # #[cfg(feature = "ndarray")] {
    /// use ndarray::{Array2, s};
    /// # let chest = icechest::Chest::temporary()?;
    /// for day in 0..7 {
    ///     chest.append("measured", Array2::from_elem((1440, 8), f64::from(day)))?;
    /// }
    /// assert_eq!(chest.get::<Array2<f64>>("measured")?.dim(), (7 * 1440, 8));
    /// assert_eq!(chest.slice::<f64, _, _, _>("measured", s![-1, 0])?[[]], 6.0);
    /// # }
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn append<I: IntoValue>(&self, key: impl Into<Key>, rows: I) -> Result<()>
    where
        I::Value: Partial,
    {
        let (store, key) = (self.store()?, key.into());
        let parts = store.append(&key, rows.into_value())?;
        // The rows are published. Parts that cannot be made one now, for want of room, stay what they are for a while.
        if parts > 0 && parts.is_multiple_of(MOST_PARTS) && store.compact(&key, rewrite).is_err() {
            store.sync_if_wanted()?;
        }
        Ok(())
    }

    /// Writes a value that consists of parts as one file, as it was before [`append`](Self::append). Tells whether it had
    /// parts. The value need not fit into memory.
    ///
    /// Costs reading and writing the value once; until that is done both forms take room on disk.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when no value has this key, and those of reading and writing; then the value is
    /// as it was.
    ///
    /// ```
    /// # #[cfg(feature = "ndarray")] {
    /// # let chest = icechest::Chest::builder().compression(icechest::Compression::Never).temporary()?;
    /// chest.insert("measured", ndarray::Array1::from_elem(10_000, 1.5))?;
    /// chest.append("measured", ndarray::Array1::from_elem(5_000, 2.5))?;
    /// assert_eq!(chest.info("measured")?.parts, 2);
    /// assert!(chest.compact("measured")?);
    /// assert_eq!(chest.info("measured")?.parts, 1);
    /// # }
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn compact(&self, key: impl Into<Key>) -> Result<bool> {
        let key = key.into();
        self.store()?.compact(&key, rewrite)?.ok_or_else(|| not_found(&key))
    }
}

/// Writes what is read, as one. Gives the bytes that it takes in memory too.
fn rewrite(kind: Kind, input: &mut Decoder, out: Encoder) -> Result<(Encoder, Format, u64)> {
    match kind {
        #[cfg(feature = "ndarray")]
        Kind::Array => format::npy::rewrite(input, out),
        #[cfg(any(feature = "arrow", feature = "polars"))]
        Kind::Frame => format::parquet::rewrite(input, out),
        _ => Err(Error::unsupported(format!("this build cannot write a value of the kind {kind}"))),
    }
}

#[cfg(all(test, feature = "ndarray"))]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use ndarray::Array1;

    use super::*;

    #[test]
    fn many_parts_are_made_one() {
        let chest = Chest::builder().inline_limit(0).temporary().unwrap();
        let mut parts = Vec::new();
        let mut expected = Vec::new();
        for i in 0..10 {
            // Each shorter than the one before, so that none is merged.
            let rows = Array1::from_elem(1000 - 50 * i, i as u64);
            expected.extend(rows.iter().copied());
            chest.append("a", rows).unwrap();
            parts.push(chest.info("a").unwrap().parts);
        }
        assert_eq!(parts, [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]);
        assert_eq!(chest.get::<Array1<u64>>("a").unwrap().to_vec(), expected);
    }
}
