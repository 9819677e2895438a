//! What a call of a stage is known by: the function's identity and its arguments.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::round::Round;
use super::{Digest, Key, read, write};
use crate::error::{Error, Result};

/// What a call of a [stage](crate::Stage) is known by: the function's identity and its arguments, bound to names.
///
/// A [`Keymap`] makes a key of it. Two calls are the same when all of this is the same; the order in which arguments were
/// given plays no part.
///
/// ```
/// # let chest = icechest::Chest::temporary()?;
/// let stage = chest.stage("train").version("2");
/// let one = stage.arg("rate", 0.5).arg("epochs", 10).signature::<f64>()?;
/// let other = stage.arg("epochs", 10).arg("rate", 0.5).signature::<f64>()?;
/// assert_eq!(one, other);
/// assert_eq!(one.to_string(), "train 2 (epochs=10, rate=0.5) -> f64");
/// # Ok::<(), icechest::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub(crate) name: String,
    pub(crate) module: String,
    pub(crate) version: String,
    /// What stands for the function's source, where that is checked.
    pub(crate) source: String,
    /// The name of the result's type.
    pub(crate) result: String,
    pub(crate) arguments: Arc<BTreeMap<String, Argument>>,
}

/// One argument: its value as a key, and the name of its type where that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) value: Key,
    pub(crate) type_name: Option<&'static str>,
}

/// How floats are told apart in arguments, and whether types count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) round: Option<Round>,
    pub(crate) one_zero: bool,
    pub(crate) typed: bool,
}

/// The type of an argument: a reference is the same argument.
pub(crate) fn type_name<T: ?Sized>() -> &'static str {
    std::any::type_name::<T>().trim_start_matches('&')
}

impl Reading {
    /// An argument as a part of a call's key.
    ///
    /// # Errors
    /// `Invalid` when it cannot be serialised, or nests too deeply.
    pub(crate) fn read<T: Serialize + ?Sized>(self, value: &T) -> Result<Argument> {
        self.argument(Key::of(value)?, type_name::<T>())
    }

    /// As [`read`](Self::read), of what was serialised before.
    pub(crate) fn argument(self, value: Key, type_name: &'static str) -> Result<Argument> {
        Ok(Argument { value: self.change(value)?, type_name: self.typed.then_some(type_name) })
    }

    fn change(self, key: Key) -> Result<Key> {
        if self.round.is_none() && !self.one_zero {
            return Ok(key);
        }
        let mut part = read::parse(key.canonical())
            .map_err(|error| Error::invalid("an argument cannot be read").with_source(error))?;
        super::round::change(&mut part, self.round, self.one_zero);
        Ok(Key(part.canonical().into()))
    }
}

impl Signature {
    /// The stage's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The stage's version; empty if it has none.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The arguments by name, each as a key: [`Key::to`] reads it.
    pub fn arguments(&self) -> impl Iterator<Item = (&str, &Key)> {
        self.arguments.iter().map(|(name, argument)| (name.as_str(), &argument.value))
    }

    /// 128 bits that stand for all of it.
    pub fn digest(&self) -> Digest {
        Digest::of_bytes(&self.bytes())
    }

    /// All of it, each piece with its length before it, so that no two signatures have the same bytes.
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let mut put = |text: &str| {
            out.extend_from_slice(&(text.len() as u64).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        for text in ["icechest call 1", &self.name, &self.module, &self.version, &self.source, &self.result] {
            put(text);
        }
        for (name, argument) in &*self.arguments {
            put(name);
            put(argument.value.canonical());
            put(argument.type_name.unwrap_or_default());
        }
        out
    }

    /// All of it as a readable key.
    fn raw(&self) -> Key {
        let mut entries = Vec::with_capacity(self.arguments.len());
        for (name, argument) in &*self.arguments {
            let value = match argument.type_name {
                Some(name) => Key::from((argument.value.clone(), name)),
                None => argument.value.clone(),
            };
            entries.push(Key::from((name.as_str(), value)));
        }
        let arguments = Key(write::list(entries.iter().map(Key::canonical)).into());
        let text = |text: &str| Key::from(text);
        Key::from((
            text(&self.name),
            text(&self.module),
            text(&self.version),
            text(&self.source),
            text(&self.result),
            arguments,
        ))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.module.is_empty() {
            write!(f, "{}::", self.module)?;
        }
        f.write_str(&self.name)?;
        for part in [&self.version, &self.source] {
            if !part.is_empty() {
                write!(f, " {part}")?;
            }
        }
        f.write_str(" (")?;
        for (i, (name, argument)) in self.arguments.iter().enumerate() {
            write!(f, "{}{name}={}", if i > 0 { ", " } else { "" }, argument.value.canonical())?;
            if let Some(name) = argument.type_name {
                write!(f, ": {name}")?;
            }
        }
        write!(f, ") -> {}", self.result)
    }
}

/// Makes a key of a signature.
type MakeKey = Arc<dyn Fn(&Signature) -> Result<Key> + Send + Sync>;

/// How the key of a call is made of its [`Signature`].
///
/// The first suits nearly always. The others are for keys that people or other programs read; they grow with the arguments.
#[non_exhaustive]
#[derive(Clone, Default)]
pub enum Keymap {
    /// The stage's name and 128 bits of the whole signature: `["train",{"$digest":"…"}]`.
    #[default]
    Hashed,
    /// All of the signature, as a list of its pieces.
    Raw,
    /// The signature as a text, as it is displayed. Two calls whose texts are the same are one.
    Text,
    /// The bytes that `Hashed` makes its digest of.
    Serialized,
    /// What a function makes of it. Calls of several stages that give the same key answer for each other.
    Custom(MakeKey),
}

impl Keymap {
    /// A keymap of your own.
    pub fn custom(make: impl Fn(&Signature) -> Result<Key> + Send + Sync + 'static) -> Self {
        Self::Custom(Arc::new(make))
    }

    pub(crate) fn key(&self, signature: &Signature) -> Result<Key> {
        Ok(match self {
            Self::Hashed => Key::from((signature.name.as_str(), signature.digest())),
            Self::Raw => signature.raw(),
            Self::Text => signature.to_string().into(),
            Self::Serialized => signature.bytes().into(),
            Self::Custom(make) => make(signature)?,
        })
    }
}

impl fmt::Debug for Keymap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hashed => "Hashed",
            Self::Raw => "Raw",
            Self::Text => "Text",
            Self::Serialized => "Serialized",
            Self::Custom(_) => "Custom",
        })
    }
}
