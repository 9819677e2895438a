//! Values that the tiers of this process keep.
//!
//! A value may be in several tiers, or under several keys of one: those who insert an `Arc` share it. So a tier that wants to
//! know whether a user holds a value counts how many tiers do.

use std::array;
use std::mem;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::value::AnyValue;

const SHARDS: usize = 64;

/// How often tiers keep what is at an address.
type Counts = HashMap<usize, u32, foldhash::fast::FixedState>;

/// Of all tiers.
static KEPT: LazyLock<[Mutex<Counts>; SHARDS]> = LazyLock::new(|| array::from_fn(|_| Mutex::default()));

fn counts(address: usize) -> MutexGuard<'static, Counts> {
    // Allocations of one size follow each other.
    let shard = (address >> 6) % SHARDS;
    KEPT[shard].lock().unwrap_or_else(PoisonError::into_inner)
}

/// A value that a tier keeps.
pub(crate) struct Kept(Option<Arc<dyn AnyValue>>);

impl Kept {
    pub(crate) fn new(value: Arc<dyn AnyValue>) -> Self {
        // What is inside is kept once by what it is in, however many keep that.
        each_allocation(&value, |address, _| {
            let mut counts = counts(address);
            let count = counts.entry(address).or_default();
            *count += 1;
            *count == 1
        });
        Self(Some(value))
    }

    pub(crate) fn value(&self) -> &Arc<dyn AnyValue> {
        match &self.0 {
            Some(value) => value,
            None => unreachable!("only the end of this takes the value"),
        }
    }

    /// Whether somebody besides the tiers holds the value.
    pub(super) fn is_held(&self) -> bool {
        let mut is_held = false;
        each_allocation(self.value(), |address, count| {
            is_held |= has_more(address, count);
            !is_held
        });
        is_held
    }

    /// Ends the value, if no other tier and no user has it.
    pub(crate) fn recycle(mut self) {
        if let Some(value) = self.count_out() {
            value.recycle();
        }
    }

    fn count_out(&mut self) -> Option<Arc<dyn AnyValue>> {
        let value = mem::take(&mut self.0)?;
        each_allocation(&value, |address, _| match counts(address).entry(address) {
            Entry::Occupied(mut kept) if *kept.get() > 1 => {
                *kept.get_mut() -= 1;
                false
            }
            Entry::Occupied(kept) => {
                kept.remove();
                true
            }
            Entry::Vacant(_) => true,
        });
        Some(value)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.count_out();
    }
}

/// Whether somebody besides the tiers holds a value that this one does not keep.
pub(super) fn is_held_by_a_user(value: &Weak<dyn AnyValue>) -> bool {
    let count = value.strong_count();
    count > 0 && count > kept(value.as_ptr().cast::<()>().addr())
}

/// How often tiers keep what is at an address.
fn kept(address: usize) -> usize {
    counts(address).get(&address).map_or(0, |&kept| kept as usize)
}

/// Whether more than the tiers hold what is there. Of what one holds nothing has to be looked up.
fn has_more(address: usize, count: usize) -> bool {
    count > 1 && count > kept(address)
}

/// Visits what a value consists of that somebody else may hold too: where it is, and how many hold it. Goes inside as long as
/// `visit` says so.
fn each_allocation(value: &Arc<dyn AnyValue>, mut visit: impl FnMut(usize, usize) -> bool) {
    if visit(Arc::as_ptr(value).cast::<()>().addr(), Arc::strong_count(value)) {
        value.each_shared(&mut visit);
    }
}
