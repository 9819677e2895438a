//! Any serde value to the canonical text of a key.

use std::fmt;
use std::path::Path;

use serde::ser::{self, Serialize};

use crate::error::{Error, Result};

/// Deeper keys are refused: the reader's recursion is bounded too.
pub(super) const MAX_DEPTH: usize = 64;
/// Begins a value in an `Option` that would be taken for the absence of one.
const SOME: &str = "{\"$some\":";
/// What a [`Digest`](super::Digest) calls itself to be told from its text.
pub(super) const DIGEST: &str = "$icechest::Digest";
/// Tags add levels of their own. `serde_json` reads 127 in all, of which two are left for the tag of an innermost value.
const MAX_JSON_DEPTH: usize = 125;

/// How deep a part of a key is: in the value, and in its canonical text.
#[derive(Clone, Copy, Default)]
struct Depth {
    value: usize,
    json: usize,
}

pub(super) fn canonical<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    let mut out = String::new();
    value
        .serialize(Writer { out: &mut out, depth: Depth::default() })
        .map_err(|error| Error::invalid("the key cannot be serialised").with_source(error.to_string()))?;
    Ok(out)
}

/// A JSON string: `"` and `\` escaped, control characters as serde_json escapes them, all else as it is.
pub(super) fn text(out: &mut impl fmt::Write, text: &str) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    put(out, "\"");
    // All bytes, for that takes fewer instructions than to stop at the first that is not plain.
    if text.bytes().fold(true, |all, byte| all & plain(byte)) {
        put(out, text);
    } else {
        for c in text.chars() {
            match c {
                '"' => put(out, "\\\""),
                '\\' => put(out, "\\\\"),
                '\n' => put(out, "\\n"),
                '\r' => put(out, "\\r"),
                '\t' => put(out, "\\t"),
                c if (c as u32) < 0x20 => push(out, format_args!("\\u{:04x}", c as u32)),
                c => put(out, c.encode_utf8(&mut [0; 4])),
            }
        }
    }
    put(out, "\"");
}

pub(super) fn tagged(tag: &str, content: &str) -> String {
    let mut out = String::with_capacity(tag.len() + content.len() + 8);
    out.push_str("{\"");
    out.push_str(tag);
    out.push_str("\":");
    text(&mut out, content);
    out.push('}');
    out
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        push(&mut out, format_args!("{byte:02x}"));
    }
    out
}

/// A list of what is already canonical.
pub(super) fn list<'a>(parts: impl Iterator<Item = &'a str> + Clone) -> String {
    let mut out = String::with_capacity(parts.clone().map(|part| part.len() + 1).sum::<usize>() + 1);
    out.push('[');
    for (i, part) in parts.enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(part);
    }
    out.push(']');
    out
}

/// Whether an integer is written as its digits alone. Those beyond 64 bits are tagged, for JSON readers that would round them.
pub(super) fn is_plain<T: TryInto<i64> + TryInto<u64> + Copy>(number: T) -> bool {
    TryInto::<i64>::try_into(number).is_ok() || TryInto::<u64>::try_into(number).is_ok()
}

/// Writes an integer of any size, given by its digits.
pub(super) fn integer(out: &mut String, digits: &str) {
    if digits.parse::<i64>().is_ok() || digits.parse::<u64>().is_ok() {
        out.push_str(digits);
    } else {
        out.push_str(&tagged("$int", digits));
    }
}

/// Finite floats always have a point or an exponent, which tells them from integers. NaNs are one key.
pub(super) fn float(out: &mut String, number: f64) {
    if number.is_finite() {
        push(out, format_args!("{number:?}"));
    } else {
        out.push_str(&tagged("$float", &format!("{number:?}")));
    }
}

pub(super) fn path(path: &Path) -> String {
    match path.to_str() {
        Some(text) => tagged("$path", text),
        None => tagged("$path_bytes", &hex(path.as_os_str().as_encoded_bytes())),
    }
}

/// Whether a canonical text nests no deeper than can be read. Tuples of keys can grow to any depth without a check.
pub(super) fn is_readable(canonical: &str) -> bool {
    // Each level takes a character at either end.
    if canonical.len() <= 2 * MAX_JSON_DEPTH {
        return true;
    }
    let (mut depth, mut in_text, mut escaped) = (0, false, false);
    for byte in canonical.bytes() {
        match byte {
            _ if std::mem::take(&mut escaped) => {}
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth -= 1,
            _ => {}
        }
        if depth > MAX_JSON_DEPTH + 2 {
            return false;
        }
    }
    true
}

/// Entries of a map, each already canonical, in canonical order.
pub(super) fn map(out: &mut String, mut entries: Vec<(String, String)>) {
    entries.sort();
    out.push_str("{\"$map\":[");
    for (i, (key, value)) in entries.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        push(out, format_args!("{comma}[{key},{value}]"));
    }
    out.push_str("]}");
}

/// Strings, and those of `smol_str`, take whatever is written.
fn push(out: &mut impl fmt::Write, args: fmt::Arguments<'_>) {
    let _ = out.write_fmt(args);
}

fn put(out: &mut impl fmt::Write, text: &str) {
    let _ = out.write_str(text);
}

type WriteResult<T = ()> = std::result::Result<T, serde::de::value::Error>;

struct Writer<'a> {
    out: &'a mut String,
    depth: Depth,
}

impl<'a> Writer<'a> {
    /// Goes one level deeper in the value, and some in the text.
    fn deeper(self, json: usize) -> WriteResult<Self> {
        let depth = Depth { value: self.depth.value + 1, json: self.depth.json + json };
        if depth.value > MAX_DEPTH || depth.json > MAX_JSON_DEPTH {
            return Err(ser::Error::custom("nested too deeply"));
        }
        Ok(Self { depth, ..self })
    }

    fn list(self, close: &'static str) -> WriteResult<List<'a>> {
        let Writer { out, depth } = self.deeper(1)?;
        out.push('[');
        Ok(List { out, depth, empty: true, close })
    }

    fn entries(self, close: &'static str) -> WriteResult<Entries<'a>> {
        let Writer { out, depth } = self.deeper(3)?;
        Ok(Entries { out, depth, entries: Vec::new(), key: None, close })
    }

    /// Opens `{"$variant":["Name",` for the content of an enum's variant.
    fn variant(self, name: &str) -> WriteResult<Self> {
        let writer = self.deeper(2)?;
        writer.out.push_str("{\"$variant\":[");
        text(writer.out, name);
        writer.out.push(',');
        Ok(writer)
    }
}

macro_rules! integers {
    ($($method:ident: $int:ty),*) => {$(
        fn $method(self, number: $int) -> WriteResult {
            match is_plain(number) {
                true => push(self.out, format_args!("{number}")),
                false => self.out.push_str(&tagged("$int", &number.to_string())),
            }
            Ok(())
        }
    )*};
}

impl<'a> ser::Serializer for Writer<'a> {
    type Ok = ();
    type Error = serde::de::value::Error;
    type SerializeSeq = List<'a>;
    type SerializeTuple = List<'a>;
    type SerializeTupleStruct = List<'a>;
    type SerializeTupleVariant = List<'a>;
    type SerializeMap = Entries<'a>;
    type SerializeStruct = Entries<'a>;
    type SerializeStructVariant = Entries<'a>;

    integers!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128);
    integers!(serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128);

    fn serialize_bool(self, flag: bool) -> WriteResult {
        self.out.push_str(if flag { "true" } else { "false" });
        Ok(())
    }

    fn serialize_f32(self, number: f32) -> WriteResult {
        self.serialize_f64(number.into())
    }

    fn serialize_f64(self, number: f64) -> WriteResult {
        float(self.out, number);
        Ok(())
    }

    fn serialize_char(self, c: char) -> WriteResult {
        text(self.out, c.encode_utf8(&mut [0; 4]));
        Ok(())
    }

    fn serialize_str(self, string: &str) -> WriteResult {
        text(self.out, string);
        Ok(())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> WriteResult {
        self.out.push_str(&tagged("$bytes", &hex(bytes)));
        Ok(())
    }

    fn serialize_none(self) -> WriteResult {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> WriteResult {
        let start = self.out.len();
        let Writer { out, depth } = self;
        value.serialize(Writer { out: &mut *out, depth })?;
        // `Some(None)` and `Some(())` are not `None`.
        if &out[start..] == "null" || out[start..].starts_with(SOME) {
            Writer { out: &mut *out, depth }.deeper(1)?;
            out.insert_str(start, SOME);
            out.push('}');
        }
        Ok(())
    }

    fn serialize_unit(self) -> WriteResult {
        self.out.push_str("null");
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> WriteResult {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _name: &'static str, _index: u32, variant: &'static str) -> WriteResult {
        self.out.push_str("{\"$variant\":[");
        text(self.out, variant);
        self.out.push_str("]}");
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> WriteResult {
        if name != DIGEST {
            return value.serialize(self);
        }
        let writer = self.deeper(1)?;
        writer.out.push_str("{\"$digest\":");
        value.serialize(Writer { out: writer.out, depth: writer.depth })?;
        writer.out.push('}');
        Ok(())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> WriteResult {
        let writer = self.variant(variant)?;
        value.serialize(Writer { out: writer.out, depth: writer.depth })?;
        writer.out.push_str("]}");
        Ok(())
    }

    fn serialize_seq(self, _len: Option<usize>) -> WriteResult<List<'a>> {
        self.list("]")
    }

    fn serialize_tuple(self, _len: usize) -> WriteResult<List<'a>> {
        self.list("]")
    }

    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> WriteResult<List<'a>> {
        self.list("]")
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> WriteResult<List<'a>> {
        self.variant(variant)?.list("]]}")
    }

    fn serialize_map(self, _len: Option<usize>) -> WriteResult<Entries<'a>> {
        self.entries("")
    }

    fn serialize_struct(self, _name: &'static str, _len: usize) -> WriteResult<Entries<'a>> {
        self.entries("")
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> WriteResult<Entries<'a>> {
        self.variant(variant)?.entries("]}")
    }
}

struct List<'a> {
    out: &'a mut String,
    depth: Depth,
    empty: bool,
    close: &'static str,
}

impl List<'_> {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> WriteResult {
        if !std::mem::take(&mut self.empty) {
            self.out.push(',');
        }
        value.serialize(Writer { out: self.out, depth: self.depth })
    }

    fn close(self) -> WriteResult {
        self.out.push_str(self.close);
        Ok(())
    }
}

struct Entries<'a> {
    out: &'a mut String,
    depth: Depth,
    entries: Vec<(String, String)>,
    key: Option<String>,
    close: &'static str,
}

impl Entries<'_> {
    fn part<T: Serialize + ?Sized>(&self, value: &T) -> WriteResult<String> {
        let mut out = String::new();
        value.serialize(Writer { out: &mut out, depth: self.depth })?;
        Ok(out)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> WriteResult {
        let entry = (self.part(name)?, self.part(value)?);
        self.entries.push(entry);
        Ok(())
    }

    fn close(self) -> WriteResult {
        map(self.out, self.entries);
        self.out.push_str(self.close);
        Ok(())
    }
}

macro_rules! list_traits {
    ($($trait:ident::$method:ident),*) => {$(
        impl ser::$trait for List<'_> {
            type Ok = ();
            type Error = serde::de::value::Error;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> WriteResult {
                self.push(value)
            }
            fn end(self) -> WriteResult {
                self.close()
            }
        }
    )*};
}
list_traits!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

impl ser::SerializeMap for Entries<'_> {
    type Ok = ();
    type Error = serde::de::value::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> WriteResult {
        self.key = Some(self.part(key)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> WriteResult {
        let key = self.key.take().ok_or_else(|| ser::Error::custom("a map's value came before its key"))?;
        let entry = (key, self.part(value)?);
        self.entries.push(entry);
        Ok(())
    }

    fn end(self) -> WriteResult {
        self.close()
    }
}

macro_rules! struct_traits {
    ($($trait:ident),*) => {$(
        impl ser::$trait for Entries<'_> {
            type Ok = ();
            type Error = serde::de::value::Error;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> WriteResult {
                self.field(name, value)
            }
            fn end(self) -> WriteResult {
                self.close()
            }
        }
    )*};
}
struct_traits!(SerializeStruct, SerializeStructVariant);
