//! All values of a type, one after the other; the next ones are loaded while the caller works with the current one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::vec;

use crate::chest::Chest;
use crate::error::{ErrorKind, Result};
use crate::key::Key;
use crate::store::Ahead;
use crate::value::Value;

/// Behind smaller values nothing is loaded ahead: telling another thread takes as long as loading them.
const SMALLEST: u64 = if cfg!(feature = "model") { 1 } else { 64 << 10 };

/// What is loaded ahead may take so much of the budget: one value a quarter, or two an eighth each.
const SHARE: u64 = 4;

pub(crate) struct Iter<V: Value> {
    chest: Chest,
    keys: vec::IntoIter<Key>,
    /// The values of the next keys, as far as they are loaded ahead.
    ahead: VecDeque<Option<Arc<Ahead<V>>>>,
}

impl<V: Value> Iter<V> {
    pub(crate) fn new(chest: Chest, keys: Vec<Key>) -> Self {
        Self { chest, keys: keys.into_iter(), ahead: VecDeque::new() }
    }

    /// Begins to load what comes next, behind a value of this size.
    fn load_ahead(&mut self, size: u64) {
        let Ok(store) = self.chest.shared_store() else { return };
        let share = store.budget() / SHARE;
        let (count, limit) = if size <= share / 2 { (2, share / 2) } else { (1, share) };
        while self.ahead.len() < count {
            let Some(key) = self.keys.as_slice().get(self.ahead.len()) else { return };
            let is_cold = store.size_in_memory(key).is_none();
            self.ahead.push_back(is_cold.then(|| Ahead::start(store, key.clone(), limit)));
        }
    }

    fn find(&mut self, key: &Key) -> Result<Option<Arc<V>>> {
        let ahead = self.ahead.pop_front().flatten();
        if let Some(ahead) = &ahead {
            ahead.stop();
        }
        let found = self.chest.find(key);
        let store = self.chest.shared_store()?;
        if let Some(ahead) = &ahead {
            ahead.close(store);
        }
        if let Some(size) = store.size_in_memory(key).filter(|&size| size >= SMALLEST) {
            self.load_ahead(size);
        }
        found
    }
}

impl<V: Value> Iterator for Iter<V> {
    type Item = Result<(Key, Arc<V>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let key = self.keys.next()?;
            match self.find(&key) {
                Ok(Some(value)) => return Some(Ok((key, value))),
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::WrongType => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl<V: Value> Drop for Iter<V> {
    fn drop(&mut self) {
        // Where the chest cannot be used, the places are dropped with what they hold.
        let Ok(store) = self.chest.shared_store() else { return };
        self.ahead.iter().flatten().for_each(|ahead| ahead.close(store));
    }
}
