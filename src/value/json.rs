//! JSON documents: plain values in a text that everybody reads.

use std::io::Write;

use serde_json::Value as Json;

use super::{Kind, Value};
use crate::error::{Error, Result};
use crate::format::{Decoder, Encoder, Format};

impl Value for Json {
    const KIND: Kind = Kind::Plain;

    fn type_name() -> String {
        "Json".to_owned()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + heap(self)
    }

    fn check(&self) -> Result<()> {
        if is_deeper(self, DEEPEST) {
            let message = format!("JSON that is nested more than {DEEPEST} deep could not be read again");
            return Err(Error::unsupported(message));
        }
        Ok(())
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        serde_json::to_writer(&mut *out, self).map_err(|error| Error::io("cannot write JSON", error.into()))?;
        out.flush()?;
        Ok(Format::new("json", "json"))
    }

    fn decode(input: &mut Decoder) -> Result<Self> {
        let bytes = input.read_to_vec()?;
        serde_json::from_slice(&bytes).map_err(|error| Error::damaged("the value is not JSON").with_source(error))
    }
}

/// How deep documents may be nested: the parser refuses what is deeper, or the stack could end.
const DEEPEST: usize = 127;

fn is_deeper(json: &Json, depth: usize) -> bool {
    let Some(inside) = depth.checked_sub(1) else { return json.is_array() || json.is_object() };
    match json {
        Json::Array(items) => items.iter().any(|item| is_deeper(item, inside)),
        Json::Object(fields) => fields.values().any(|field| is_deeper(field, inside)),
        _ => false,
    }
}

/// The bytes behind a document's node; a map's nodes are counted as their keys and values.
fn heap(json: &Json) -> usize {
    match json {
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
        Json::String(text) => text.capacity(),
        Json::Array(items) => items.capacity() * size_of::<Json>() + items.iter().map(heap).sum::<usize>(),
        Json::Object(fields) => {
            let entry = size_of::<(String, Json)>();
            fields.iter().map(|(name, value)| entry + name.capacity() + heap(value)).sum()
        }
    }
}
