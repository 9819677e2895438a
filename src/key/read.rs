//! The canonical text of a key back to a serde value.

use std::path::PathBuf;

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, VariantAccess, Visitor};
use serde_json::Value as Json;

use super::write::{self, MAX_DEPTH};

type ReadResult<T> = std::result::Result<T, Error>;

/// A parsed key.
pub(super) enum Part {
    Null,
    Bool(bool),
    /// Any integer, as its decimal digits: no machine integer holds both `i128` and `u128`.
    Int(String),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Path(PathBuf),
    Digest(String),
    List(Vec<Part>),
    Map(Vec<(Part, Part)>),
    Variant(String, Option<Box<Part>>),
    /// A value in an `Option` that looks like the absence of one.
    Some(Box<Part>),
}

pub(super) fn parse(text: &str) -> ReadResult<Part> {
    let json: Json = serde_json::from_str(text).map_err(de::Error::custom)?;
    part(json, 0)
}

fn part(json: Json, depth: usize) -> ReadResult<Part> {
    // A tag's object and list add levels of their own to each level of the key.
    if depth > 3 * MAX_DEPTH {
        return Err(de::Error::custom("nested too deeply"));
    }
    Ok(match json {
        Json::Null => Part::Null,
        Json::Bool(flag) => Part::Bool(flag),
        Json::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => Part::Float(float),
            None => Part::Int(number.to_string()),
        },
        Json::String(text) => Part::Text(text),
        Json::Array(items) => Part::List(parts(items, depth)?),
        Json::Object(object) => {
            let mut fields = object.into_iter();
            match (fields.next(), fields.next()) {
                (Some((tag, content)), None) => tagged(&tag, content, depth)?,
                _ => return Err(de::Error::custom("a tag is an object with one name")),
            }
        }
    })
}

fn parts(items: Vec<Json>, depth: usize) -> ReadResult<Vec<Part>> {
    items.into_iter().map(|item| part(item, depth + 1)).collect()
}

fn tagged(tag: &str, content: Json, depth: usize) -> ReadResult<Part> {
    let unknown = || de::Error::custom(format!("unknown tag {tag:.40}"));
    Ok(match (tag, content) {
        ("$int", Json::String(digits)) => match (digits.parse::<i128>(), digits.parse::<u128>()) {
            (Ok(number), _) => Part::Int(number.to_string()),
            (_, Ok(number)) => Part::Int(number.to_string()),
            _ => return Err(unknown()),
        },
        ("$float", Json::String(text)) => Part::Float(text.parse().map_err(|_| unknown())?),
        ("$bytes", Json::String(hex)) => Part::Bytes(unhex(&hex)?),
        ("$path", Json::String(path)) => Part::Path(path.into()),
        ("$path_bytes", Json::String(hex)) => Part::Path(path_of(unhex(&hex)?)?),
        ("$digest", Json::String(digits)) => Part::Digest(write::hex(&unhex(&digits)?)),
        ("$map", Json::Array(entries)) => {
            let entries = entries.into_iter().map(|entry| match entry {
                Json::Array(pair) => <[Part; 2]>::try_from(parts(pair, depth)?)
                    .map(|[key, value]| (key, value))
                    .map_err(|_| de::Error::custom("an entry of a map is a pair")),
                _ => Err(de::Error::custom("an entry of a map is a pair")),
            });
            Part::Map(entries.collect::<ReadResult<_>>()?)
        }
        ("$some", content) => match self::part(content, depth + 1)? {
            part @ (Part::Null | Part::Some(_)) => Part::Some(Box::new(part)),
            _ => return Err(unknown()),
        },
        ("$variant", Json::Array(items)) => {
            let mut items = parts(items, depth)?.into_iter();
            match (items.next(), items.next(), items.next()) {
                (Some(Part::Text(name)), content, None) => Part::Variant(name, content.map(Box::new)),
                _ => return Err(unknown()),
            }
        }
        _ => return Err(unknown()),
    })
}

fn unhex(hex: &str) -> ReadResult<Vec<u8>> {
    let byte = |pair: &[u8]| {
        let digits = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(digits, 16).ok().filter(|_| pair.len() == 2)
    };
    hex.as_bytes().chunks(2).map(|pair| byte(pair).ok_or_else(|| de::Error::custom("not hexadecimal"))).collect()
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> ReadResult<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    Ok(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn path_of(_bytes: Vec<u8>) -> ReadResult<PathBuf> {
    Err(de::Error::custom("this path was made on a system whose paths this one cannot express"))
}

impl Part {
    pub(super) fn canonical(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Self::Int(digits) => write::integer(out, digits),
            Self::Float(number) => write::float(out, *number),
            Self::Text(text) => write::text(out, text),
            Self::Bytes(bytes) => out.push_str(&write::tagged("$bytes", &write::hex(bytes))),
            Self::Path(path) => out.push_str(&write::path(path)),
            Self::Digest(hex) => out.push_str(&write::tagged("$digest", hex)),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(Self::canonical).collect();
                out.push_str(&write::list(items.iter().map(String::as_str)));
            }
            Self::Map(entries) => {
                write::map(out, entries.iter().map(|(k, v)| (k.canonical(), v.canonical())).collect())
            }
            Self::Some(content) => {
                out.push_str("{\"$some\":");
                content.write(out);
                out.push('}');
            }
            Self::Variant(name, content) => {
                out.push_str("{\"$variant\":[");
                write::text(out, name);
                if let Some(content) = content {
                    out.push_str(&format!(",{}", content.canonical()));
                }
                out.push_str("]}");
            }
        }
    }
}

impl<'de> IntoDeserializer<'de> for Part {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Part {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> ReadResult<V::Value> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Some(content) => visitor.visit_some(*content),
            Self::Bool(flag) => visitor.visit_bool(flag),
            Self::Int(digits) => integer(&digits, visitor),
            Self::Float(number) => visitor.visit_f64(number),
            Self::Text(text) | Self::Digest(text) => visitor.visit_string(text),
            Self::Bytes(bytes) => visitor.visit_byte_buf(bytes),
            Self::Path(path) => match path.into_os_string().into_string() {
                Ok(text) => visitor.visit_string(text),
                Err(raw) => visitor.visit_byte_buf(raw.into_encoded_bytes()),
            },
            Self::List(items) => {
                let mut items = SeqDeserializer::new(items.into_iter());
                let value = visitor.visit_seq(&mut items)?;
                items.end().map(|()| value)
            }
            Self::Map(entries) => visitor.visit_map(MapDeserializer::new(entries.into_iter())),
            Self::Variant(..) => visitor.visit_enum(self),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> ReadResult<V::Value> {
        match self {
            Self::Null => visitor.visit_none(),
            Self::Some(content) => visitor.visit_some(*content),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> ReadResult<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    /// A sequence of small integers may ask for bytes, and bytes for a sequence (`Vec<u8>` does).
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> ReadResult<V::Value> {
        match self {
            Self::Bytes(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.into_iter())),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> ReadResult<V::Value> {
        visitor.visit_enum(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map struct identifier ignored_any
    }
}

fn integer<'de, V: Visitor<'de>>(digits: &str, visitor: V) -> ReadResult<V::Value> {
    if let Ok(number) = digits.parse() {
        visitor.visit_i64(number)
    } else if let Ok(number) = digits.parse() {
        visitor.visit_u64(number)
    } else if let Ok(number) = digits.parse() {
        visitor.visit_i128(number)
    } else {
        visitor.visit_u128(digits.parse().map_err(|_| de::Error::custom("not an integer of 128 bits"))?)
    }
}

impl<'de> EnumAccess<'de> for Part {
    type Error = Error;
    type Variant = Content;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> ReadResult<(S::Value, Content)> {
        match self {
            Self::Variant(name, content) => Ok((seed.deserialize(name.into_deserializer())?, Content(content))),
            _ => Err(de::Error::custom("not a variant of an enum")),
        }
    }
}

/// What follows the name of an enum's variant.
pub(super) struct Content(Option<Box<Part>>);

impl Content {
    fn part(self) -> ReadResult<Part> {
        self.0.map(|part| *part).ok_or_else(|| de::Error::custom("the variant has no content"))
    }
}

impl<'de> VariantAccess<'de> for Content {
    type Error = Error;

    fn unit_variant(self) -> ReadResult<()> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> ReadResult<S::Value> {
        seed.deserialize(self.part()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> ReadResult<V::Value> {
        self.part()?.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _fields: &'static [&'static str], visitor: V) -> ReadResult<V::Value> {
        self.part()?.deserialize_any(visitor)
    }
}
