//! What the fuzz targets share.

use icechest::{Decoder, Value};
use serde_json::Value as Json;

/// Decodes bytes as a value of this type. What the decoder says does not matter here, only that it says it.
pub fn decode<V: Value>(bytes: &[u8], format: &str, facts: Json) -> Option<V> {
    V::decode(&mut Decoder::from_bytes(bytes.to_vec(), format, facts)).ok()
}

/// Values that were read must be of a size that can be told: none may be larger than its input allows.
pub fn decode_within<V: Value>(bytes: &[u8], format: &str, facts: Json, limit: usize) {
    if let Some(value) = decode::<V>(bytes, format, facts) {
        assert!(value.size() <= limit, "{} bytes became a value of {}", bytes.len(), value.size());
    }
}
