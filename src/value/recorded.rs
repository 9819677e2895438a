//! Values with facts of their own.

use std::any::Any;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{AnyValue, Kind, Value};
use crate::error::Result;
use crate::format::{Encoder, Format};

/// A value that is stored together with facts that its encoder does not know. To all others it is the value.
pub(crate) struct Recorded<V> {
    pub(crate) value: Arc<V>,
    pub(crate) facts: Map<String, Json>,
    /// What the facts take, about.
    facts_len: usize,
}

impl<V> Recorded<V> {
    pub(crate) fn new(value: Arc<V>, facts: Map<String, Json>) -> Self {
        // Twice the text: each piece has a length, a capacity and a place of its own.
        let facts_len = 2 * facts.iter().map(|(name, fact)| name.len() + fact.to_string().len()).sum::<usize>();
        Self { value, facts, facts_len }
    }
}

impl<V: Value> AnyValue for Recorded<V> {
    fn kind(&self) -> Kind {
        V::KIND
    }

    fn stored_name(&self) -> String {
        self.value.stored_name()
    }

    fn size(&self) -> u64 {
        (Value::size(&*self.value) + self.facts_len) as u64
    }

    fn check(&self) -> Result<()> {
        self.value.check()
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        let format = self.value.encode(out)?;
        for (name, fact) in &self.facts {
            out.describe(name, fact.clone());
        }
        Ok(format)
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self.value.clone()
    }

    fn inner(self: Arc<Self>) -> Arc<dyn AnyValue> {
        self.value.clone()
    }

    fn recycle(self: Arc<Self>) {
        if let Ok(recorded) = Arc::try_unwrap(self) {
            AnyValue::recycle(recorded.value);
        }
    }

    fn facts(&self) -> Option<&Map<String, Json>> {
        Some(&self.facts)
    }

    fn each_shared(&self, visit: &mut dyn FnMut(usize, usize) -> bool) {
        if visit(Arc::as_ptr(&self.value).addr(), Arc::strong_count(&self.value)) {
            AnyValue::each_shared(&*self.value, visit);
        }
    }
}
