//! Bytes that once did harm.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::mpsc;
use std::time::Duration;

use icechest::{Decoder, Value};
use serde_json::Value as Json;

/// Decodes plain bytes within seconds. A loop that does not end goes on in its thread.
fn decode_in_time<V: Value>(bytes: Vec<u8>) -> icechest::Result<V> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(V::decode(&mut Decoder::from_bytes(bytes, "bincode", Json::Null))));
    let decoded = receive.recv_timeout(Duration::from_secs(5));
    decoded.unwrap_or_else(|_| panic!("{} takes as long as its length says", V::type_name()))
}

/// A length costs eight bytes, and elements without a size nothing at all.
#[test]
fn a_length_of_elements_without_a_size_is_no_work() {
    for len in [1_u64 << 40, u64::MAX] {
        let bytes = len.to_le_bytes().to_vec();
        let _ = decode_in_time::<Vec<()>>(bytes.clone());
        let _ = decode_in_time::<Vec<[(); 4]>>(bytes.clone());
        let _ = decode_in_time::<HashSet<()>>(bytes.clone());
        let _ = decode_in_time::<BTreeSet<()>>(bytes.clone());
        let _ = decode_in_time::<HashMap<(), ()>>(bytes);
    }
}

/// A file of two dimensions in the place of one of one, and the other way round.
#[cfg(feature = "ndarray")]
#[test]
fn an_array_of_other_dimensions_is_damage() {
    use icechest::{Compression, ErrorKind};
    use ndarray::{Array1, Array2, Array3};

    let (square, row) = (Array2::<f64>::ones((90, 100)), Array1::<f64>::ones(9000));
    for compression in [Compression::Never, Compression::Small] {
        let (square, row) = (super::stored(square.clone(), compression), super::stored(row.clone(), compression));
        let decoder = |seed: &super::Seed| Decoder::from_bytes(seed.bytes.clone(), &seed.format, seed.facts.clone());
        let kinds = [
            Array1::<f64>::decode(&mut decoder(&square)).unwrap_err().kind(),
            Array3::<f64>::decode(&mut decoder(&square)).unwrap_err().kind(),
            Array2::<f64>::decode(&mut decoder(&row)).unwrap_err().kind(),
        ];
        assert_eq!(kinds, [ErrorKind::Damaged; 3]);
    }
}

/// A Parquet page whose header tells of a negative number of values, which polars took for its size in memory.
#[cfg(feature = "polars")]
#[test]
fn a_page_of_fewer_than_no_values_is_damage() {
    use icechest::{Compression, ErrorKind};
    use polars_core::df;
    use polars_core::prelude::DataFrame;

    let frame = df!("flags" => [Some(true), None, Some(false)]).unwrap();
    let seed = super::stored(frame, Compression::Never);
    // Thrift's compact form of field 5, the header of a data page, whose field 1 is the number 3.
    let at = seed.bytes.windows(3).position(|bytes| bytes == [0x2c, 0x15, 0x06]).expect("a data page");
    for claim in [0x05, 0x7f, 0x7e] {
        let mut bytes = seed.bytes.clone();
        bytes[at + 2] = claim;
        let decoded = DataFrame::decode(&mut Decoder::from_bytes(bytes, &seed.format, seed.facts.clone()));
        assert_eq!(decoded.unwrap_err().kind(), ErrorKind::Damaged);
    }
}
