//! Values that the tiers of this process keep.
//!
//! A value may be in several tiers, or under several keys of one: those who insert an `Arc` share it. So a tier that wants to
//! know whether a user holds a value counts how many tiers do.

use std::array;
use std::mem;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

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
        each_allocation(&value, |address, _| *counts(address).entry(address).or_default() += 1);
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
            // Nobody else where the tier alone has it; most are not looked up for that.
            is_held |= count > 1 && count > counts(address).get(&address).map_or(0, |&kept| kept as usize);
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
        each_allocation(&value, |address, _| {
            if let Entry::Occupied(mut kept) = counts(address).entry(address) {
                *kept.get_mut() -= 1;
                if *kept.get() == 0 {
                    kept.remove();
                }
            }
        });
        Some(value)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.count_out();
    }
}

/// Visits what a value consists of that somebody else may hold too: where it is, and how many hold it.
fn each_allocation(value: &Arc<dyn AnyValue>, mut visit: impl FnMut(usize, usize)) {
    visit(Arc::as_ptr(value).cast::<()>().addr(), Arc::strong_count(value));
    value.each_shared(&mut visit);
}
