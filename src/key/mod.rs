//! Keys: what the user gave, in one canonical text.
//!
//! A key is kept as canonical JSON, so that equality, order and hashing are those of a string, and so that any tool can
//! read the keys of a chest. What JSON cannot tell apart carries a tag, an object with one name that starts with `$`:
//! bytes are `{"$bytes":"00ff"}`, paths `{"$path":"a/b"}`, digests `{"$digest":"…"}`, maps and structs
//! `{"$map":[[key,value],…]}` sorted by key. An untagged object never occurs.

mod content;
mod digest;
mod file_name;
pub(crate) mod outline;
pub(crate) mod path;
mod read;
mod round;
pub(crate) mod signature;
mod stream;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use smol_str::{SmolStr, SmolStrBuilder, ToSmolStr};
use twox_hash::XxHash3_64;

pub use self::content::Content;
pub use self::digest::Digest;
pub(crate) use self::outline::Outline;
pub use self::path::{FolderOptions, paths_matching};
pub use self::round::Round;
pub use self::signature::{Keymap, Signature};
use crate::error::Result;

/// The name of a value in a chest.
///
/// Strings, integers, booleans, bytes, tuples, paths and [`Digest`]s convert with `into()`, which every method of
/// [`Chest`](crate::Chest) does by itself; any other serde type goes through [`Key::of`]. Two keys are the same when
/// type and value are the same: `1`, `"1"` and `("1",)` are three keys. The width of an integer is no part of its
/// type: `1u8` and `1i64` are one key.
///
/// ```
/// use icechest::Key;
/// assert_ne!(Key::from(1), Key::from("1"));
/// assert_ne!(Key::from("1"), Key::from(("1",)));
/// assert_eq!(Key::from(1u8), Key::from(1i64));
/// let key = Key::from(("station", 7, true));
/// assert_eq!(key.to_string(), r#"["station",7,true]"#);
/// assert_eq!(key.to::<(String, u32, bool)>()?, ("station".to_owned(), 7, true));
/// # Ok::<(), icechest::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(SmolStr);

/// A map whose hasher is several times faster than the standard library's, and random all the same.
pub(crate) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

impl Key {
    /// The key that stands for any serde value: structs, enums, maps, options, floats.
    ///
    /// Maps and structs are sorted by key, so the order of insertion or declaration plays no part.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when the value's `Serialize` fails, or when it nests too deeply: lists 64
    /// levels, structs and maps 41, variants of enums 25.
    ///
    /// ```
    /// use icechest::Key;
    /// use serde::{Deserialize, Serialize};
    /// #[derive(Serialize, Deserialize, PartialEq, Debug)]
    /// struct Run { seed: u64, rate: f64 }
    /// let key = Key::of(&Run { seed: 3, rate: 0.5 })?;
    /// assert_eq!(key.to::<Run>()?, Run { seed: 3, rate: 0.5 });
    /// # Ok::<(), icechest::Error>(())
    /// ```
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        write::canonical(value).map(|text| Self(text.into()))
    }

    /// Reads the key back as what it was made from, or as any type of the same form.
    ///
    /// # Errors
    /// [`WrongType`](crate::ErrorKind::WrongType) when the key has another form.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T> {
        read::parse(&self.0).and_then(|part| T::deserialize(part)).map_err(|error| {
            let wanted = std::any::type_name::<T>();
            crate::Error::new(crate::ErrorKind::WrongType, format!("the key cannot be read as {wanted}"))
                .with_key(self)
                .with_source(error)
        })
    }

    /// The text of a key that is a string.
    ///
    /// ```
    /// # use icechest::Key;
    /// assert_eq!(Key::from("a\nb").as_text().as_deref(), Some("a\nb"));
    /// assert_eq!(Key::from(1).as_text(), None);
    /// ```
    pub fn as_text(&self) -> Option<String> {
        if self.0.starts_with('"') { serde_json::from_str(&self.0).ok() } else { None }
    }

    /// The path of a key that is a path, also where it is no Unicode text.
    ///
    /// ```
    /// # use icechest::Key;
    /// use std::path::Path;
    /// assert_eq!(Key::from(Path::new("a/b")).as_path().as_deref(), Some(Path::new("a/b")));
    /// assert_eq!(Key::from("a/b").as_path(), None);
    /// ```
    pub fn as_path(&self) -> Option<PathBuf> {
        match read::parse(&self.0) {
            Ok(read::Part::Path(path)) => Some(path),
            _ => None,
        }
    }

    /// The canonical JSON, as stored in the catalog.
    pub fn canonical(&self) -> &str {
        &self.0
    }

    /// The key with this canonical JSON, as [`canonical`](Self::canonical) gave it.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when `text` is not exactly the canonical form of a key.
    pub fn from_canonical(text: &str) -> Result<Self> {
        let part = read::parse(text).map_err(|error| {
            crate::Error::invalid(format!("{text:.80} is not the canonical JSON of a key")).with_source(error)
        })?;
        let canonical = part.canonical();
        if canonical == text {
            return Ok(Self(canonical.into()));
        }
        Err(crate::Error::invalid(format!("{text:.80} is not a key in canonical form; that would be {canonical:.80}")))
    }

    /// Refuses a key that could not be read back, as a tuple of tuples of keys without end.
    pub(crate) fn check(&self) -> Result<()> {
        if write::is_readable(&self.0) {
            return Ok(());
        }
        Err(crate::Error::invalid("the key nests too deeply").with_key(self))
    }

    /// A number without a pattern, the same for equal keys.
    pub(crate) fn hash64(&self) -> u64 {
        XxHash3_64::oneshot(self.0.as_bytes())
    }

    /// A short readable form that is safe as the beginning of a file name.
    pub(crate) fn file_stem(&self) -> String {
        file_name::stem(&self.0)
    }
}

impl fmt::Display for Key {
    /// The canonical JSON, cut after 200 characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(200) {
            Some((end, _)) => write!(f, "{}…", &self.0[..end]),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        // Short ones take no memory of their own.
        let mut out = SmolStrBuilder::new();
        write::text(&mut out, text);
        Self(out.finish())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&String> for Key {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&Key> for Key {
    fn from(key: &Key) -> Self {
        key.clone()
    }
}

impl From<bool> for Key {
    fn from(flag: bool) -> Self {
        Self(SmolStr::new_static(if flag { "true" } else { "false" }))
    }
}

impl From<char> for Key {
    /// A character is a key of one character of text.
    fn from(c: char) -> Self {
        Self::from(&*c.encode_utf8(&mut [0; 4]))
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self(write::tagged("$bytes", &write::hex(bytes)).into())
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl<const N: usize> From<&[u8; N]> for Key {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl From<&Path> for Key {
    /// The path itself, not what it leads to; for the content see [`Digest::of_path`].
    fn from(path: &Path) -> Self {
        Self(write::path(path).into())
    }
}

impl From<PathBuf> for Key {
    fn from(path: PathBuf) -> Self {
        path.as_path().into()
    }
}

impl From<&PathBuf> for Key {
    fn from(path: &PathBuf) -> Self {
        path.as_path().into()
    }
}

/// A digest in a key, or in a part of one, is told from its text.
impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(write::DIGEST, &self.to_string())
    }
}

impl From<Digest> for Key {
    fn from(digest: Digest) -> Self {
        Self(write::tagged("$digest", &digest.to_string()).into())
    }
}

macro_rules! integer_keys {
    ($($int:ty)*) => {$(
        impl From<$int> for Key {
            fn from(number: $int) -> Self {
                if write::is_plain(number) {
                    return Self(number.to_smolstr());
                }
                Self(write::tagged("$int", &number.to_string()).into())
            }
        }
    )*};
}
integer_keys!(i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize);

macro_rules! tuple_keys {
    ($($part:ident)*) => {
        impl<$($part: Into<Key>),*> From<($($part,)*)> for Key {
            #[allow(non_snake_case)]
            fn from(($($part,)*): ($($part,)*)) -> Self {
                let parts: &[Key] = &[$($part.into()),*];
                Self(write::list(parts.iter().map(Key::canonical)).into())
            }
        }
    };
}
tuple_keys!(A);
tuple_keys!(A B);
tuple_keys!(A B C);
tuple_keys!(A B C D);
tuple_keys!(A B C D E);
tuple_keys!(A B C D E F);
tuple_keys!(A B C D E F G);
tuple_keys!(A B C D E F G H);

#[cfg(test)]
mod tests;
