//! Values that tell who they are: whoever reads one can say whether every bit of it is what was stored.

use std::sync::Arc;

use icechest::{Chest, Key, Result, Value};

const MAGIC: u64 = 0x1ce_c4e5;

/// What a value tells of itself. All its content follows from this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Story {
    pub(super) key: u64,
    pub(super) writer: u64,
    pub(super) counter: u64,
    /// The number of words that it fills.
    pub(super) len: u64,
}

impl Story {
    fn words(&self) -> Vec<u64> {
        let head = [MAGIC, self.key, self.writer, self.counter, self.len];
        let seed = head.iter().fold(0, |seed, word| mix(seed ^ word));
        // Some are to be compressed, most cannot be.
        let step = u64::from(!self.counter.is_multiple_of(4));
        let filling = (0..self.len).map(|i| mix(seed.wrapping_add(i * step)));
        head.into_iter().chain(filling).collect()
    }

    /// What these words tell, if every one of them is right.
    fn of(words: &[u64]) -> Option<Self> {
        let &[_, key, writer, counter, len, ..] = words else { return None };
        let story = Self { key, writer, counter, len };
        (len + 5 == words.len() as u64 && story.words() == words).then_some(story)
    }
}

/// The finaliser of SplitMix64.
fn mix(word: u64) -> u64 {
    let word = (word.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A type that words can be stored as.
trait Form: Value + Clone {
    fn of(words: Vec<u64>) -> Self;
    fn words(&self) -> Option<Vec<u64>>;
}

impl Form for Vec<u64> {
    fn of(words: Vec<u64>) -> Self {
        words
    }

    fn words(&self) -> Option<Vec<u64>> {
        Some(self.clone())
    }
}

impl Form for Vec<u8> {
    fn of(words: Vec<u64>) -> Self {
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    fn words(&self) -> Option<Vec<u64>> {
        let (chunks, rest) = self.as_chunks();
        rest.is_empty().then(|| chunks.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect())
    }
}

impl Form for String {
    fn of(words: Vec<u64>) -> Self {
        let bytes = words.into_iter().flat_map(u64::to_le_bytes);
        bytes.flat_map(|byte| [b'a' + (byte >> 4), b'a' + (byte & 15)]).map(char::from).collect()
    }

    fn words(&self) -> Option<Vec<u64>> {
        let (pairs, rest) = self.as_bytes().as_chunks::<2>();
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| (high - b'a') << 4 | (low - b'a')).collect();
        rest.is_empty().then(|| Form::words(&bytes)).flatten()
    }
}

/// A value that a reader holds.
#[derive(Clone)]
pub(super) enum Held {
    Words(Arc<Vec<u64>>),
    Bytes(Arc<Vec<u8>>),
    Text(Arc<String>),
}

impl Held {
    /// The story of a value that must be whole.
    pub(super) fn story(&self) -> Story {
        let words = match self {
            Self::Words(words) => Form::words(&**words),
            Self::Bytes(bytes) => Form::words(&**bytes),
            Self::Text(text) => Form::words(&**text),
        };
        let head = words.as_ref().map(|words| words[..words.len().min(5)].to_vec());
        words.and_then(|words| Story::of(&words)).unwrap_or_else(|| panic!("a torn value that begins with {head:?}"))
    }
}

/// The key of a number. What type its value has follows from the number.
pub(super) fn key(number: u64) -> Key {
    Key::from(("key", number))
}

/// The number of a key.
pub(super) fn number(key: &Key) -> u64 {
    key.to::<(String, u64)>().unwrap().1
}

pub(super) fn insert(chest: &Chest, story: Story) -> Result<()> {
    let (key, words) = (key(story.key), story.words());
    match story.key % 3 {
        0 => chest.insert(key, words),
        1 => chest.insert(key, <Vec<u8> as Form>::of(words)),
        _ => chest.insert(key, <String as Form>::of(words)),
    }
}

/// Changes a value in place. Tells whether there was one.
pub(super) fn update(chest: &Chest, story: Story) -> Result<bool> {
    fn to<V: Form>(chest: &Chest, story: Story) -> Result<()> {
        chest.update(key(story.key), |value: &mut V| *value = V::of(story.words()))
    }
    let updated = match story.key % 3 {
        0 => to::<Vec<u64>>(chest, story),
        1 => to::<Vec<u8>>(chest, story),
        _ => to::<String>(chest, story),
    };
    match updated {
        Err(error) if error.kind() == icechest::ErrorKind::NotFound => Ok(false),
        updated => updated.map(|()| true),
    }
}

pub(super) fn find(chest: &Chest, number: u64) -> Result<Option<Held>> {
    let key = key(number);
    Ok(match number % 3 {
        0 => chest.find(key)?.map(Held::Words),
        1 => chest.find(key)?.map(Held::Bytes),
        _ => chest.find(key)?.map(Held::Text),
    })
}

/// As [`find`]; the value must be whole and the key's.
pub(super) fn read(chest: &Chest, number: u64) -> Result<Option<Story>> {
    let story = find(chest, number)?.map(|held| held.story());
    assert!(story.is_none_or(|story| story.key == number), "key {number} has the value of another: {story:?}");
    Ok(story)
}

/// Half of the values are small enough for the catalog, a few larger than the budget of a torture.
pub(super) fn random_len(random: &mut fastrand::Rng) -> u64 {
    match random.u32(0..100) {
        0..50 => random.u64(0..1500),
        50..98 => random.u64(1500..37_000),
        _ => 390_000,
    }
}
