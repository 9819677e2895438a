//! Arrays that are looked at where they are: in memory, or in their file.

use std::sync::Arc;

use ndarray::{Array, Dimension};

use crate::chest::{Chest, not_found};
use crate::error::Result;
use crate::key::Key;
use crate::value::{Element, StoredArray};

impl Chest {
    /// An array without a copy of it: the one in memory, if it is there; otherwise its file, mapped into memory, if it is
    /// stored raw (NPY) in one file. One that is compressed, or small and in the catalog, or in
    /// [parts](Self::append), or of truth values, is loaded as
    /// [`get`](Self::get) does.
    ///
    /// The pages of a mapped file belong to the system, which takes them back when it needs them: they do not count
    /// against the budget and are no residents, although the system's tools count those that were looked at as memory of
    /// this process. The view stays as it is when the value is replaced or removed.
    ///
    /// The whole file is verified when this process maps a version for the first time, unless this process wrote it:
    /// once through it, at some GB/s. What changes on the medium after that is not noticed. As with every mapped file, a
    /// program that shortens it in place (this crate never does) ends the process that reads beyond the new end.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    ///
    /// ```
    /// use ndarray::{Array1, Ix1};
    /// # let chest = icechest::Chest::builder().compression(icechest::Compression::Never).temporary()?;
    /// chest.insert("noise", Array1::from_iter((0..100_000u32).map(|i| i.wrapping_mul(2654435761))))?;
    /// chest.set_budget(0)?; // to the disk with it
    /// let noise = chest.view::<u32, Ix1>("noise")?;
    /// chest.remove("noise")?;
    /// assert_eq!(noise.view()[2], 1013904226);
    /// assert_eq!(chest.stats()?.resident_bytes, 0);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn view<A, D>(&self, key: impl Into<Key>) -> Result<StoredArray<A, D>>
    where
        A: Element,
        D: Dimension + Send + Sync + 'static,
    {
        let (key, store) = (key.into(), self.store()?);
        if let Some(array) = store.hit::<Array<A, D>>(&key)? {
            return Ok(StoredArray::from(array));
        }
        if let Some(array) = store.hit::<StoredArray<A, D>>(&key)? {
            return Ok(Arc::unwrap_or_clone(array));
        }
        let opened = store.open_published::<Array<A, D>>(&key)?.ok_or_else(|| not_found(&key))?;
        match opened.read(StoredArray::map)? {
            Some(array) => Ok(array),
            None => self.get(key).map(|array: Arc<Array<A, D>>| StoredArray::from(array)),
        }
    }
}
