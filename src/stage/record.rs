//! What is told of a call, stored together with its result.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::settings::Settings;
use crate::chest::Chest;
use crate::error::Result;
use crate::info::Info;
use crate::key::{Key, Signature};

/// The fact about a value that tells of its call.
const FACT: &str = "$call";

/// Arguments whose texts are longer together are not stored.
const MOST: usize = 64 << 10;

/// What is known of a call whose result is stored.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct CallInfo {
    /// The key of the result: [`Chest::get`] gives it.
    pub key: Key,
    /// The stage's name.
    pub stage: String,
    /// The module that it is in, if it said so.
    pub module: String,
    /// Its version.
    pub version: String,
    /// Its [source](crate::Stage::source), if that counts.
    pub source: String,
    /// The arguments by name, [readable](Key::to), after rounding and without those that are ignored.
    pub arguments: BTreeMap<String, Key>,
    /// Whether the call is not known in full: arguments and source take more than 64 KiB, or nobody has called for the value.
    pub is_cut: bool,
    /// How long computing the result took.
    pub took: Duration,
    /// The stage's tag at that time.
    pub tag: Option<String>,
    /// When it was computed.
    pub computed: SystemTime,
    /// The name of the result's type.
    pub type_name: String,
    /// The bytes that it takes in memory.
    pub bytes: u64,
    /// The bytes that it takes on disk; 0 as long as it is only in memory.
    pub stored_bytes: u64,
}

impl fmt::Display for CallInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.stage)?;
        for (i, (name, argument)) in self.arguments.iter().enumerate() {
            write!(f, "{}{name}={argument}", if i > 0 { ", " } else { "" })?;
        }
        write!(f, ") -> {}, {} bytes, took {:.3?}", self.type_name, self.bytes, self.took)
    }
}

/// As it is stored.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    stage: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    module: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    source: String,
    /// The canonical texts of the arguments; none if these and the source took too much room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arguments: Option<BTreeMap<String, String>>,
    /// Seconds.
    took: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    /// Nanoseconds since 1970.
    at: u64,
    /// Tells a result from the one before it where that was not good enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    edition: Option<u64>,
}

impl Record {
    /// Of a call that was computed now; `again` where a result was there that was not good enough.
    pub(super) fn new(signature: &Signature, took: Duration, tag: Option<String>, again: bool) -> Self {
        let text = |(name, key): (&str, &Key)| (name.to_owned(), key.canonical().to_owned());
        let arguments: BTreeMap<String, String> = signature.arguments().map(text).collect();
        let len = arguments.iter().map(|(name, text)| name.len() + text.len()).sum::<usize>() + signature.source.len();
        let is_short = len <= MOST;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        Self {
            stage: signature.name.clone(),
            module: signature.module.clone(),
            version: signature.version.clone(),
            source: if is_short { signature.source.clone() } else { String::new() },
            arguments: is_short.then_some(arguments),
            took: took.as_secs_f64(),
            tag,
            at,
            edition: again.then_some(at),
        }
    }

    /// Of a value that nobody called for.
    pub(super) fn of_stage(settings: &Settings) -> Self {
        Self {
            stage: settings.name.clone(),
            module: settings.module.clone(),
            version: settings.version.clone(),
            source: settings.source.clone(),
            arguments: None,
            took: 0.0,
            tag: None,
            at: 0,
            edition: None,
        }
    }

    /// Of a call whose result is known as that of another call now: what was made of the results of that one was made of
    /// others.
    pub(super) fn moved(signature: &Signature, call: &CallInfo) -> Self {
        let since = call.computed.duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        Self { at, ..Self::new(signature, call.took, call.tag.clone(), true) }
    }

    /// Of what is told of a value, if it is the result of a call.
    pub(super) fn of(about: &Json) -> Option<Self> {
        Self::deserialize(about.get(FACT)?).ok()
    }

    /// As [`of`](Self::of), of a row's text.
    pub(super) fn parse(about: &str) -> Option<Self> {
        Self::of(&serde_json::from_str(about).ok()?)
    }

    pub(super) fn facts(&self) -> Map<String, Json> {
        let mut facts = Map::new();
        // Texts and numbers are always JSON; a time that is no number is none.
        facts.insert(FACT.to_owned(), serde_json::to_value(self).unwrap_or_default());
        facts
    }

    /// How long computing the result took. It was written by anybody.
    pub(super) fn took(&self) -> Duration {
        Duration::try_from_secs_f64(self.took).unwrap_or_default()
    }

    pub(super) fn edition(&self) -> Option<u64> {
        self.edition
    }

    fn computed(&self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_nanos(self.at)).unwrap_or(UNIX_EPOCH)
    }

    /// Whether the result is older than that. One from the future is not.
    pub(super) fn is_older(&self, than: Duration) -> bool {
        self.computed().elapsed().is_ok_and(|age| age > than)
    }

    pub(super) fn info(&self, key: &Key, type_name: String, bytes: u64, stored_bytes: u64) -> CallInfo {
        let argument = |(name, text): (&String, &String)| Some((name.clone(), Key::from_canonical(text).ok()?));
        let arguments = self.arguments.as_ref().and_then(|all| all.iter().map(argument).collect::<Option<_>>());
        CallInfo {
            is_cut: arguments.is_none(),
            arguments: arguments.unwrap_or_default(),
            key: key.clone(),
            stage: self.stage.clone(),
            module: self.module.clone(),
            version: self.version.clone(),
            source: self.source.clone(),
            took: self.took(),
            tag: self.tag.clone(),
            computed: self.computed(),
            type_name,
            bytes,
            stored_bytes,
        }
    }
}

/// The calls of all stages, the oldest first.
pub(super) fn calls(chest: &Chest) -> Result<Vec<CallInfo>> {
    let call =
        |info: Info| Some(Record::of(&info.about)?.info(&info.key, info.type_name, info.bytes, info.stored_bytes));
    Ok(chest.infos()?.into_iter().filter_map(call).collect())
}
