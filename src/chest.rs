//! The dictionary: a thin façade over the tiers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::builder::Builder;
use crate::disk::check::Check;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::info::{Info, Stats};
use crate::iter::Iter;
use crate::key::Key;
use crate::memory::{Budget, Hint, Reading, is_ranking};
use crate::stage::Stages;
use crate::store::{Prefetch, Store};
use crate::value::{IntoValue, Value};

/// A dictionary that keeps what fits in memory and spills the rest to a directory.
///
/// It is used through `&self`, from any number of threads; clones are cheap and share everything. Any type that
/// converts into a [`Key`] names a value; any [`Value`] is stored: arrays, frames, serde types, types of your own.
///
/// ```
/// use icechest::Chest;
/// # let parent = tempfile::tempdir()?;
/// # let dir = parent.path().join("my-chest");
/// let chest = Chest::open(&dir)?;
/// chest.insert("labels", vec!["cat".to_owned(), "dog".to_owned()])?;
/// chest.insert(("fold", 3), 0.97)?;
/// assert_eq!(*chest.get::<f64>(("fold", 3))?, 0.97);
/// drop(chest);
///
/// let later = Chest::open(&dir)?;
/// assert_eq!(later.get::<Vec<String>>("labels")?[1], "dog");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # When a value is where
///
/// [`insert`](Self::insert) puts a value into memory. In a chest opened by [`open`](Self::open) a background thread then
/// publishes it: once that is done every process sees it and it survives the death of this one. [`flush`](Self::flush)
/// waits for that, and dropping the last clone of the chest does too. A [`temporary`](Self::temporary) chest writes a
/// value only when its room is needed. A value larger than the budget is published before `insert` returns.
///
/// # Errors
///
/// Every method that reads or writes may fail as the disk may: with [`Io`](ErrorKind::Io), with
/// [`Full`](ErrorKind::Full) when there is no room, with [`Busy`](ErrorKind::Busy) when another process holds the
/// catalog for longer than 30 seconds (the message names it), with [`Damaged`](ErrorKind::Damaged) when stored bytes fail their check. The
/// methods list what else can happen.
#[derive(Clone)]
pub struct Chest {
    store: Arc<Store>,
    _closer: Arc<Closer>,
}

/// A panic in a user's closure or encoder leaves the chest as it was, so it may be used after one.
impl std::panic::UnwindSafe for Chest {}
impl std::panic::RefUnwindSafe for Chest {}

/// Ends the background threads and publishes what is left when the last clone of a chest goes.
struct Closer(Arc<Store>);

impl Drop for Closer {
    fn drop(&mut self) {
        let Self(store) = self;
        if store.disk.is_forked() {
            // Locks, files and threads are the parent's: nothing of them may be closed here.
            std::mem::forget(store.clone());
            return;
        }
        store.close();
        if store.disk.is_temporary() {
            return;
        }
        let dir = store.disk.root().display();
        // `drop` cannot return an error, and a value that is lost silently is worse than a line on the terminal.
        if let Err(error) = store.flush() {
            eprintln!("icechest: values of {dir} are lost: {error}");
        }
        store.disk.write_uses();
        if let Err(error) = store.sync_at_close() {
            eprintln!("icechest: values of {dir} may not survive a power cut: {error}");
        }
    }
}

impl Chest {
    /// Opens the chest in `dir`, or makes one there if the directory is empty or does not exist.
    ///
    /// Opening reads no values, so it takes milliseconds, however many there are; except after a restart of the machine,
    /// when it verifies those that were not durable before.
    ///
    /// A chest whose directory cannot be written to can be read. If nobody who may write has it open at this moment it is taken
    /// to stay as it is: what is published later is not seen until it is opened again.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when the directory holds something else, [`Unsupported`](ErrorKind::Unsupported)
    /// when a newer version made it or when it is on a network file system, [`Damaged`](ErrorKind::Damaged) when its
    /// catalog is missing or destroyed: then [`check`](Self::check) can make it again.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(dir)
    }

    /// Makes a chest in a directory of its own, which is removed when the last clone is dropped. What a killed process
    /// leaves is removed by the next temporary chest.
    ///
    /// ```
    /// let chest = icechest::Chest::temporary()?;
    /// let dir = chest.path().to_owned();
    /// chest.insert("x", 1)?;
    /// drop(chest);
    /// assert!(!dir.exists());
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn temporary() -> Result<Self> {
        Self::builder().temporary()
    }

    /// Settings: budget, policy, compression.
    ///
    /// ```
    /// let chest = icechest::Chest::builder().budget("100MiB").temporary()?;
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Prepares a check of the chest in `dir`: are all values what was published? It can also repair.
    ///
    /// ```
    /// # use icechest::Chest;
    /// # let dir = tempfile::tempdir()?;
    /// # drop(Chest::open(dir.path())?);
    /// let report = Chest::check(dir.path()).run()?;
    /// assert!(report.is_healthy(), "{report}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check<'a>(dir: impl AsRef<Path>) -> Check<'a> {
        Check::new(dir.as_ref())
    }

    pub(crate) fn start(store: Arc<Store>) -> Self {
        Self { _closer: Arc::new(Closer(store.clone())), store }
    }

    /// Lowers the budget while `read` tells that the system is short of memory.
    pub(crate) fn watch_memory(&self, read: impl FnMut() -> Reading + Send + 'static) -> Result<()> {
        self.store.start_thread("icechest-watch", |store| store.watch_memory(read))
    }

    pub(crate) fn stages(&self) -> &Stages {
        &self.store.stages
    }

    /// The tiers, for whoever may use them.
    pub(crate) fn store(&self) -> Result<&Store> {
        self.shared_store().map(|store| &**store)
    }

    /// As [`store`](Self::store), for work in the background.
    pub(crate) fn shared_store(&self) -> Result<&Arc<Store>> {
        if self.store.disk.is_forked() {
            let message = "the chest was opened before this process was forked; open it again in the child";
            return Err(Error::new(ErrorKind::Unsupported, message).with_path(self.path()));
        }
        if is_ranking() {
            return Err(Error::new(ErrorKind::Busy, "a policy cannot use a chest: the one that asks it is locked"));
        }
        Ok(&self.store)
    }

    /// Stores a value, in place of an older one with this key.
    ///
    /// Takes a value, an [`Arc`] of one (which is shared, not copied), a `&str`, a byte slice or a view of an array. The
    /// value counts against the budget at once; room is made by spilling others.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) when the value cannot be stored, [`Full`](ErrorKind::Full) when a
    /// [limit](crate::Builder::max_disk) refuses it and [`Busy`](ErrorKind::Busy) in a closure that works for the very key;
    /// then the older value stays, and [`Error::into_value`] gives the new one back. After any other error the value **is**
    /// in the chest, in memory, perhaps over the budget: making room failed, and nothing was lost. When the disk works
    /// again, [`flush`](Self::flush) publishes it.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.insert("greeting", "hello")?;
    /// chest.insert("greeting", "good evening")?;
    /// assert_eq!(*chest.get::<String>("greeting")?, "good evening");
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn insert(&self, key: impl Into<Key>, value: impl IntoValue) -> Result<()> {
        self.store()?.insert(key.into(), value.into_value())
    }

    /// The value of a key, shared: while you hold it, it stays in memory and is not loaded a second time.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) when no value has this key, [`WrongType`](ErrorKind::WrongType) when it is of
    /// another type.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.insert("sizes", vec![3u64, 5])?;
    /// assert_eq!(chest.get::<Vec<u64>>("sizes")?.len(), 2);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn get<V: Value>(&self, key: impl Into<Key>) -> Result<Arc<V>> {
        let key = key.into();
        self.store()?.get(&key)?.ok_or_else(|| not_found(&key))
    }

    /// As [`get`](Self::get), where it is normal that there is no value.
    ///
    /// # Errors
    /// [`WrongType`](ErrorKind::WrongType) when the value is of another type.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// assert!(chest.find::<String>("nobody")?.is_none());
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn find<V: Value>(&self, key: impl Into<Key>) -> Result<Option<Arc<V>>> {
        self.store()?.get(&key.into())
    }

    /// Removes a value. Tells whether there was one; whoever holds it keeps it.
    ///
    /// # Errors
    /// Those of every method; then the value is still there, unless the sync that
    /// [`Durability::Immediate`](crate::Durability::Immediate) asks for failed after it was removed.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.insert("x", 1)?;
    /// assert!(chest.remove("x")?);
    /// assert!(!chest.remove("x")?);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn remove(&self, key: impl Into<Key>) -> Result<bool> {
        Ok(self.store()?.remove(&[key.into()])? > 0)
    }

    /// Removes several values together. Gives how many there were.
    ///
    /// # Errors
    /// Those of every method; then some of the values may still be there.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.extend([("a", 1), ("b", 2)])?;
    /// assert_eq!(chest.remove_many(["a", "b", "c"])?, 2);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn remove_many<K: Into<Key>>(&self, keys: impl IntoIterator<Item = K>) -> Result<usize> {
        let keys: Vec<Key> = keys.into_iter().map(Into::into).collect();
        self.store()?.remove(&keys)
    }

    /// Removes a value and gives it back. Of threads and processes that do so at the same time one gets it.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) and [`WrongType`](ErrorKind::WrongType), as for [`get`](Self::get). As for
    /// [`remove`](Self::remove) the value may be gone where the sync failed; then [`Error::into_value`] gives it back.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.insert("x", 1)?;
    /// assert_eq!(*chest.take::<i32>("x")?, 1);
    /// assert!(chest.is_empty()?);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn take<V: Value>(&self, key: impl Into<Key>) -> Result<Arc<V>> {
        let key = key.into();
        self.store()?.take(&key)?.ok_or_else(|| not_found(&key))
    }

    /// Whether a value has this key, of whatever type. Loads nothing.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// assert!(!chest.contains_key("x")?);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn contains_key(&self, key: impl Into<Key>) -> Result<bool> {
        self.store()?.contains(&key.into())
    }

    /// How many values there are, in memory and on disk. Takes time in proportion to those that are not published yet.
    pub fn len(&self) -> Result<u64> {
        self.store()?.len()
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// All keys, as they were given, the oldest values first. Loads no values.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.extend([("a", 1), ("b", 2)])?;
    /// chest.insert(7, "seven")?;
    /// let mut keys = chest.keys()?;
    /// keys.sort();
    /// assert_eq!(keys, ["a".into(), "b".into(), 7.into()]);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn keys(&self) -> Result<Vec<Key>> {
        self.store()?.keys()
    }

    /// The values that can be read as `V`, with their keys, one after the other: they need not fit into memory together.
    ///
    /// The keys are those at the time of this call. Values of other types are stepped over, and so are values that were
    /// removed meanwhile. While you work with a value of 64 KiB or more, a background thread loads what comes next: two
    /// values of an eighth of the budget at most, or one of a quarter. They count as pinned until it is their turn or the
    /// iterator is dropped.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.extend([("a", 1.5), ("b", 2.5)])?;
    /// chest.insert("note", "not a number")?;
    /// let mut sum = 0.0;
    /// for entry in chest.iter::<f64>()? {
    ///     let (_key, value) = entry?;
    ///     sum += *value;
    /// }
    /// assert_eq!(sum, 4.0);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn iter<V: Value>(&self) -> Result<impl Iterator<Item = Result<(Key, Arc<V>)>> + use<V>> {
        Ok(Iter::new(self.clone(), self.keys()?))
    }

    /// Stores many values.
    ///
    /// # Errors
    /// As for [`insert`](Self::insert); ends at the first.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.extend((0..100).map(|i| (i, i * i)))?;
    /// assert_eq!(*chest.get::<i32>(12)?, 144);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn extend<K: Into<Key>, V: IntoValue>(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<()> {
        entries.into_iter().try_for_each(|(key, value)| self.insert(key, value))
    }

    /// Removes everything.
    pub fn clear(&self) -> Result<()> {
        self.store()?.remove(&self.keys()?).map(|_| ())
    }

    /// The place of a key, to be filled if it is empty.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// let words = chest.entry("words").or_insert_with(|| vec!["ice".to_owned()])?;
    /// assert_eq!(words.len(), 1);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn entry(&self, key: impl Into<Key>) -> Entry<'_> {
        Entry::new(self, key.into())
    }

    /// The value of a key; if there is none, `make` makes it. Of threads that ask for a key at the same time, one makes
    /// it and the others wait.
    ///
    /// `make` may use the chest, except for this key, which gives [`Busy`](ErrorKind::Busy).
    ///
    /// # Errors
    /// [`WrongType`](ErrorKind::WrongType) when there is a value of another type, and those of [`insert`](Self::insert).
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// let slow = || (1..=20u64).product::<u64>();
    /// assert_eq!(*chest.get_or_insert_with("20!", slow)?, 2432902008176640000);
    /// assert_eq!(*chest.get_or_insert_with("20!", || -> u64 { unreachable!() })?, 2432902008176640000);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn get_or_insert_with<I: IntoValue>(
        &self,
        key: impl Into<Key>,
        make: impl FnOnce() -> I,
    ) -> Result<Arc<I::Value>> {
        self.entry(key).or_insert_with(make)
    }

    /// Changes a stored value in place and keeps the change. Gives what `change` returns.
    ///
    /// Nobody sees the value half changed: who holds the old one keeps it, and if `change` panics the old one stays.
    /// The value is copied only if somebody holds it or if it is not published yet. Of threads that change one value one
    /// comes after the other; of processes the last one wins.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) and [`WrongType`](ErrorKind::WrongType), as for [`get`](Self::get), and those of
    /// [`insert`](Self::insert).
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.insert("scores", vec![1, 2])?;
    /// let len = chest.update("scores", |scores: &mut Vec<i32>| { scores.push(3); scores.len() })?;
    /// assert_eq!((len, &**chest.get::<Vec<i32>>("scores")?), (3, &[1, 2, 3][..]));
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn update<V: Value + Clone, R>(&self, key: impl Into<Key>, change: impl FnOnce(&mut V) -> R) -> Result<R> {
        let key = key.into();
        self.store()?.update(&key, change)?.ok_or_else(|| not_found(&key))
    }

    /// Loads values into memory in the background, those that fit without spilling others. Returns at once; what it
    /// returns can be waited for, or dropped. A `get` of a value that is being loaded waits for that alone.
    ///
    /// # Errors
    /// When no thread can be started. What is wrong with a value is told by [`Prefetch::wait`].
    ///
    /// ```
    /// # use icechest::Chest;
    /// # let dir = tempfile::tempdir()?;
    /// # Chest::open(dir.path())?.extend((0..10).map(|i| (i, vec![i; 1000])))?;
    /// let chest = Chest::open(dir.path())?;
    /// let prefetch = chest.prefetch::<Vec<i32>, _>(0..10)?;
    /// // … something else meanwhile …
    /// assert_eq!(prefetch.wait()?, 10);
    /// assert!(chest.info(3)?.is_resident);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prefetch<V: Value, K: Into<Key>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Prefetch> {
        Prefetch::start::<V>(self.shared_store()?, keys.into_iter().map(Into::into).collect())
    }

    /// Asks that the value of a key stay in memory, this one and those that replace it: it is spilled after all others,
    /// that is, when nothing else is left and the budget is still exceeded. One that is on disk comes with the next
    /// [`get`](Self::get) or [`prefetch`](Self::prefetch).
    ///
    /// A hint is about a key, whether it has a value or not. It holds for this opening of the chest, until
    /// [`clear_hint`](Self::clear_hint) or another hint. Pin less than the budget, or pinned values displace each other.
    ///
    /// # Errors
    /// In a forked child, and in a policy.
    ///
    /// ```
    /// # let chest = icechest::Chest::builder().budget("1MiB").temporary()?;
    /// chest.insert("model", vec![0.5; 1000])?;
    /// chest.pin("model")?;
    /// chest.extend((0..50).map(|i| (i, vec![i; 10_000])))?; // twice the budget
    /// assert!(chest.info("model")?.is_resident);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn pin(&self, key: impl Into<Key>) -> Result<()> {
        self.store()?.hint(&key.into(), Some(Hint::Pin))
    }

    /// Asks that the value of a key take no room in memory, this one and those that replace it: it is published when it is
    /// inserted, before `insert` returns, and read again by each [`get`](Self::get) unless somebody holds it. One that is
    /// in memory now is published and spilled.
    ///
    /// A hint is about a key, as with [`pin`](Self::pin).
    ///
    /// # Errors
    /// Those of writing; the hint is taken all the same.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.prefer_disk("raw")?;
    /// chest.insert("raw", vec![0u8; 1000])?;
    /// assert!(!chest.info("raw")?.is_resident);
    /// assert_eq!(chest.get::<Vec<u8>>("raw")?.len(), 1000);
    /// assert!(!chest.info("raw")?.is_resident);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn prefer_disk(&self, key: impl Into<Key>) -> Result<()> {
        self.store()?.hint(&key.into(), Some(Hint::PreferDisk))
    }

    /// Takes back what [`pin`](Self::pin) or [`prefer_disk`](Self::prefer_disk) said of a key.
    ///
    /// # Errors
    /// In a forked child, and in a policy.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.insert("k", 1)?;
    /// chest.pin("k")?;
    /// chest.clear_hint("k")?;
    /// assert!(chest.info("k")?.hint.is_none());
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn clear_hint(&self, key: impl Into<Key>) -> Result<()> {
        self.store()?.hint(&key.into(), None)
    }

    /// What is known of a value without loading it.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) when no value has this key.
    ///
    /// ```
    /// # use icechest::Kind;
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.insert("x", 1u8)?;
    /// let info = chest.info("x")?;
    /// assert_eq!((info.kind, info.type_name.as_str(), info.is_resident), (Kind::Plain, "u8", true));
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn info(&self, key: impl Into<Key>) -> Result<Info> {
        let key = key.into();
        Info::of(self.store()?, &key)?.ok_or_else(|| not_found(&key))
    }

    /// What is known of all values, the oldest first.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.extend([("a", 1), ("b", 2)])?;
    /// assert_eq!(chest.infos()?.len(), 2);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn infos(&self) -> Result<Vec<Info>> {
        Info::of_all(self.store()?)
    }

    /// Publishes everything that is only in memory. Afterwards every process sees it, and it survives the death of this
    /// one. A power cut it survives after [`sync`](Self::sync).
    ///
    /// # Errors
    /// The first error of writing; what could not be written stays in memory.
    pub fn flush(&self) -> Result<()> {
        self.store()?.flush()
    }

    /// Makes everything durable: what is only in memory is published, then all that any process has published is brought
    /// to the medium, file, folder and catalog. Afterwards it survives a power cut.
    ///
    /// Costs a few milliseconds for each file since the last time, as the medium has it. A [`temporary`](Self::temporary)
    /// chest is not meant to survive anything; there it is [`flush`](Self::flush).
    ///
    /// # Errors
    /// Those of [`flush`](Self::flush), and of the medium. A file that could not be synced is never synced again, which
    /// might succeed without having written anything: the next call writes its value again.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let chest = icechest::Chest::open(dir.path())?;
    /// chest.insert("result of three days", vec![0.5; 1000])?;
    /// chest.sync()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sync(&self) -> Result<()> {
        let store = self.store()?;
        store.flush()?;
        store.sync()
    }

    /// Numbers about this chest: what is where, and what happened since it was opened.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// println!("{}", chest.stats()?);
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn stats(&self) -> Result<Stats> {
        Stats::of(self.store()?)
    }

    /// Changes the budget and spills what is over it.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a budget that is no amount, and those of spilling; the new budget holds then.
    ///
    /// ```
    /// # let chest = icechest::Chest::temporary()?;
    /// chest.set_budget("1MiB")?;
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn set_budget(&self, budget: impl Into<Budget>) -> Result<()> {
        self.store()?.set_budget(budget.into().bytes()?)
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        self.store.disk.root()
    }

    /// The path of a value's file, where it has one: small values live in the catalog, and dirty ones have none yet.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) when no value has this key.
    pub fn file(&self, key: impl Into<Key>) -> Result<Option<PathBuf>> {
        Ok(self.info(key)?.file.map(|name| self.path().join(name)))
    }
}

pub(crate) fn not_found(key: &Key) -> Error {
    Error::new(ErrorKind::NotFound, "no value has this key").with_key(key)
}

impl fmt::Debug for Chest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(store) = self.store() else { return write!(f, "Chest({})", self.path().display()) };
        let residents = &mut store.state().residents;
        let (resident, used, budget) = (residents.len(), residents.used(), residents.budget());
        write!(f, "Chest({}, {resident} resident, {used} of {budget} bytes)", self.path().display())
    }
}
