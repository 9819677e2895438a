//! Sound bytes: what a chest stores of a value.

use icechest::{Builder, Chest, Compression, Decoder, Encoder, Format, IntoValue, Kind, Value};
use serde_json::Value as Json;

/// The bytes of a stored value, and what its decoder is told of them.
pub(super) struct Seed {
    pub(super) bytes: Vec<u8>,
    pub(super) format: String,
    pub(super) facts: Json,
}

const ARRAY: u8 = 0;
const FRAME: u8 = 1;
const PLAIN: u8 = 2;

/// Reads a value of this kind, whatever it is, as its bytes.
struct Bytes<const KIND: u8>(Vec<u8>, String);

impl<const KIND: u8> Value for Bytes<KIND> {
    const KIND: Kind = match KIND {
        ARRAY => Kind::Array,
        FRAME => Kind::Frame,
        _ => Kind::Plain,
    };

    fn type_name() -> String {
        "Bytes".to_owned()
    }

    fn reads(_stored_name: &str) -> bool {
        true
    }

    fn size(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, _out: &mut Encoder) -> icechest::Result<Format> {
        unreachable!("these bytes are only read")
    }

    fn decode(input: &mut Decoder) -> icechest::Result<Self> {
        Ok(Self(input.read_to_vec()?, input.format().to_owned()))
    }
}

/// How a value is stored.
pub(super) fn stored<I: IntoValue>(value: I, compression: Compression) -> Seed {
    stored_by(value, Chest::builder().compression(compression))
}

/// What a chest with these settings makes of a value.
pub(super) fn stored_by<I: IntoValue>(value: I, builder: Builder) -> Seed {
    let dir = crate::helpers::dir();
    let chest = builder.open(dir.path()).unwrap();
    chest.insert("value", value).unwrap();
    chest.flush().unwrap();
    drop(chest);
    let chest = Chest::open(dir.path()).unwrap();
    let (bytes, format) = match <I::Value as Value>::KIND {
        Kind::Array => read::<ARRAY>(&chest),
        Kind::Frame => read::<FRAME>(&chest),
        Kind::Plain => read::<PLAIN>(&chest),
    };
    Seed { bytes, format, facts: chest.info("value").unwrap().about }
}

fn read<const KIND: u8>(chest: &Chest) -> (Vec<u8>, String) {
    let bytes = chest.get::<Bytes<KIND>>("value").unwrap();
    (bytes.0.clone(), bytes.1.clone())
}
