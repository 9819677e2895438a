//! What can be stored: values, their kinds and their exact sizes.

#[cfg(feature = "ndarray")]
pub(crate) mod array;
#[cfg(feature = "arrow")]
mod batches;
#[cfg(feature = "polars")]
mod exchange;
mod files;
#[cfg(feature = "polars")]
pub(crate) mod frame;
mod json;
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
mod part;
mod plain;
mod recorded;
#[cfg(feature = "ndarray")]
mod stored_array;

use std::any::Any;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

#[cfg(feature = "ndarray")]
pub use self::array::{AnyArray, Element};
pub use self::files::{FileEntry, Files};
pub(crate) use self::files::{Scratch, restore};
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
pub use self::part::Partial;
#[cfg(any(feature = "arrow", feature = "polars"))]
pub(crate) use self::part::read_pieces;
#[cfg(any(feature = "arrow", feature = "ndarray", feature = "polars"))]
pub(crate) use self::part::{Selection, private::Parts};
pub use self::plain::Plain;
pub(crate) use self::recorded::Recorded;
#[cfg(feature = "ndarray")]
pub use self::stored_array::StoredArray;
use crate::error::{Error, Result};
use crate::format::{Decoder, Encoder, Format};

/// The three kinds of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An n-dimensional array.
    Array,
    /// A table: a polars `DataFrame` or Arrow `RecordBatch`es.
    Frame,
    /// Everything else.
    Plain,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Kind {
    /// As the catalog has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Frame => "frame",
            Self::Plain => "plain",
        }
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "array" => Ok(Self::Array),
            "frame" => Ok(Self::Frame),
            "plain" => Ok(Self::Plain),
            _ => Err(Error::damaged(format!("{text:?} is no kind of value"))),
        }
    }
}

/// A type that a chest can hold.
///
/// Arrays, frames and [`Plain`] values have it already. Implement it for a type with a file format of its own: say how
/// large a value is in memory, write it to a [`Encoder`] (a [`Write`](std::io::Write)) and read it from a [`Decoder`] (a
/// [`Read`](std::io::Read) and [`Seek`](std::io::Seek)). The chest does the rest: budget, files, checksums, crashes.
///
/// ```
/// use std::io::{Read, Write};
/// use icechest::{Chest, Decoder, Encoder, Format, Kind, Result, Value};
///
/// /// A grey image, stored as a PGM file that every image viewer opens.
/// struct Grey { width: usize, pixels: Vec<u8> }
///
/// impl Value for Grey {
///     const KIND: Kind = Kind::Plain;
///     fn type_name() -> String { "Grey".into() }
///     fn size(&self) -> usize { size_of::<Self>() + self.pixels.capacity() }
///     fn encode(&self, out: &mut Encoder) -> Result<Format> {
///         write!(out, "P5 {} {} 255\n", self.width, self.pixels.len() / self.width.max(1))?;
///         out.write_all(&self.pixels)?;
///         Ok(Format::new("pgm", "pgm"))
///     }
///     fn decode(input: &mut Decoder) -> Result<Self> {
///         let mut bytes = Vec::new();
///         input.read_to_end(&mut bytes)?;
///         let mut fields = bytes.splitn(5, |b| b.is_ascii_whitespace());
///         let width = fields.nth(1).and_then(|w| std::str::from_utf8(w).ok()?.parse().ok()).unwrap_or(0);
///         let pixels = fields.last().unwrap_or_default().to_vec();
///         Ok(Grey { width, pixels })
///     }
/// }
///
/// let chest = Chest::temporary()?;
/// chest.insert("gradient", Grey { width: 16, pixels: (0..=255).collect() })?;
/// assert_eq!(chest.get::<Grey>("gradient")?.pixels[17], 17);
/// # Ok::<(), icechest::Error>(())
/// ```
pub trait Value: Sized + Send + Sync + 'static {
    /// The kind of this type's values.
    const KIND: Kind;

    /// The name of this type in the catalog and in error messages. Keep it: a stored value of another name is not read.
    fn type_name() -> String;

    /// The name that this value is stored under: [`type_name`](Self::type_name), unless the type is one of a family that
    /// can be read as each other.
    fn stored_name(&self) -> String {
        Self::type_name()
    }

    /// Whether a value of this kind that was stored under `stored_name` can be read as this type.
    fn reads(stored_name: &str) -> bool {
        stored_name == Self::type_name()
    }

    /// The bytes that this value takes in memory, its heap included. The budget counts them.
    fn size(&self) -> usize;

    /// Whether this value can be stored; asked at [`insert`](crate::Chest::insert).
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) says what cannot be stored, and what can.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Writes the value to its file and says in which format. Memory for buffers should be small and bounded.
    ///
    /// # Errors
    /// Those of writing, which `?` converts.
    fn encode(&self, out: &mut Encoder) -> Result<Format>;

    /// Reads a value back. The bytes were verified by their checksum, but may have been written by anybody.
    ///
    /// # Errors
    /// [`Damaged`](crate::ErrorKind::Damaged) when the bytes make no sense, and those of reading.
    fn decode(input: &mut Decoder) -> Result<Self>;

    /// What clones of the value share with it, if they do: where that is, and how many have it.
    #[doc(hidden)]
    fn shared(&self) -> Option<(usize, usize)> {
        None
    }

    /// Ends a value that the chest held alone. Nothing to be done, unless its memory is of use to those to come.
    fn recycle(self) {}
}

/// What [`insert`](crate::Chest::insert) takes: a [`Value`], an `Arc` of one (shared, not copied), a `&str` or a list
/// of them, a byte slice, or a view of an array.
pub trait IntoValue {
    /// The type that is stored.
    type Value: Value;
    /// The value, shared.
    fn into_value(self) -> Arc<Self::Value>;
}

impl<V: Value> IntoValue for V {
    type Value = V;
    fn into_value(self) -> Arc<V> {
        Arc::new(self)
    }
}

impl<V: Value> IntoValue for Arc<V> {
    type Value = V;
    fn into_value(self) -> Self {
        self
    }
}

impl IntoValue for &str {
    type Value = String;
    fn into_value(self) -> Arc<String> {
        Arc::new(self.to_owned())
    }
}

/// A list of literals, as `vec!["cat", "dog"]`.
impl IntoValue for Vec<&str> {
    type Value = Vec<String>;
    fn into_value(self) -> Arc<Vec<String>> {
        Arc::new(self.into_iter().map(str::to_owned).collect())
    }
}

impl IntoValue for &[u8] {
    type Value = Vec<u8>;
    fn into_value(self) -> Arc<Vec<u8>> {
        Arc::new(self.to_vec())
    }
}

/// A [`Value`] of any type, as the tiers hold it.
pub(crate) trait AnyValue: Any + Send + Sync {
    fn kind(&self) -> Kind;
    fn stored_name(&self) -> String;
    fn size(&self) -> u64;
    fn check(&self) -> Result<()>;
    fn encode(&self, out: &mut Encoder) -> Result<Format>;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    /// The value itself, without what is told of it.
    fn inner(self: Arc<Self>) -> Arc<dyn AnyValue>;
    fn recycle(self: Arc<Self>);
    /// What is to be told of the value besides what its encoder tells, as JSON.
    fn facts(&self) -> Option<&serde_json::Map<String, serde_json::Value>> {
        None
    }
    /// Visits what is inside that somebody may share: where it is, and how many have it. Goes on as long as `visit` says so.
    fn each_shared(&self, visit: &mut dyn FnMut(usize, usize) -> bool);
}

impl<V: Value> AnyValue for V {
    fn kind(&self) -> Kind {
        V::KIND
    }
    fn stored_name(&self) -> String {
        Value::stored_name(self)
    }
    fn size(&self) -> u64 {
        Value::size(self) as u64
    }
    fn check(&self) -> Result<()> {
        Value::check(self)
    }
    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        Value::encode(self, out)
    }
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
    fn inner(self: Arc<Self>) -> Arc<dyn AnyValue> {
        self
    }
    fn each_shared(&self, visit: &mut dyn FnMut(usize, usize) -> bool) {
        if let Some((address, count)) = Value::shared(self) {
            visit(address, count);
        }
    }
    fn recycle(self: Arc<Self>) {
        // A large one would not fit on the stack.
        const LARGEST: usize = 4 << 10;
        if size_of::<V>() <= LARGEST
            && let Ok(value) = Arc::try_unwrap(self)
        {
            Value::recycle(value);
        }
    }
}
