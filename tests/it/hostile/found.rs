//! Bytes that once did harm.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::mpsc;
use std::time::Duration;

use icechest::{Decoder, Value};
use serde_json::Value as Json;

/// Decodes bytes within seconds. A loop that does not end goes on in its thread.
pub(super) fn decode_in_time<V: Value>(bytes: Vec<u8>, format: &'static str) -> icechest::Result<V> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(V::decode(&mut Decoder::from_bytes(bytes, format, Json::Null))));
    let decoded = receive.recv_timeout(Duration::from_secs(5));
    decoded.unwrap_or_else(|_| panic!("{} takes as long as its length says", V::type_name()))
}

/// A length costs eight bytes, and elements without a size nothing at all.
#[test]
fn a_length_of_elements_without_a_size_is_no_work() {
    for len in [1_u64 << 40, u64::MAX] {
        let bytes = len.to_le_bytes().to_vec();
        let _ = decode_in_time::<Vec<()>>(bytes.clone(), "bincode");
        let _ = decode_in_time::<Vec<[(); 4]>>(bytes.clone(), "bincode");
        let _ = decode_in_time::<HashSet<()>>(bytes.clone(), "bincode");
        let _ = decode_in_time::<BTreeSet<()>>(bytes.clone(), "bincode");
        let _ = decode_in_time::<HashMap<(), ()>>(bytes, "bincode");
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

/// A list of boxes, a byte each, that ends after ten million: reading it took more stack than there is.
#[test]
fn a_value_that_nests_too_deep_is_an_error() {
    use icechest::{Chest, ErrorKind, Plain};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, Plain)]
    struct Link(Option<Box<Link>>);

    #[derive(Serialize, Deserialize, Plain)]
    enum Tree {
        Leaf,
        Branches(Vec<Tree>),
    }

    let links = vec![1; 10_000_000];
    let read = |bytes: Vec<u8>| Link::decode(&mut Decoder::from_bytes(bytes, "bincode", Json::Null));
    assert_eq!(read(links.clone()).err().map(|error| error.kind()), Some(ErrorKind::Damaged));
    let mut branches = Vec::new();
    for _ in 0..1_000_000 {
        branches.extend(1_u32.to_le_bytes());
        branches.extend(1_u64.to_le_bytes());
    }
    let tree = Tree::decode(&mut Decoder::from_bytes(branches, "bincode", Json::Null));
    assert_eq!(tree.err().map(|error| error.kind()), Some(ErrorKind::Damaged));

    // One that is as deep as a stack can be expected to bear comes back.
    let chest = Chest::temporary().unwrap();
    let deep = (0..300).fold(Link(None), |link, _| Link(Some(Box::new(link))));
    let tree = (0..300).fold(Tree::Leaf, |tree, _| Tree::Branches(vec![tree]));
    chest.set_budget(0).unwrap();
    chest.insert("link", deep).unwrap();
    chest.insert("tree", tree).unwrap();
    let mut depth = 0;
    let link = chest.get::<Link>("link").unwrap();
    let mut link = &*link;
    while let Some(next) = &link.0 {
        (link, depth) = (next, depth + 1);
    }
    assert_eq!(depth, 300);
    assert!(matches!(&*chest.get::<Tree>("tree").unwrap(), Tree::Branches(branches) if branches.len() == 1));
}

/// A page header with lists of numbers that go on beyond the end of the file.
#[cfg(feature = "arrow")]
#[test]
fn a_page_header_that_goes_on_beyond_the_file_is_an_error() {
    let bytes = include_bytes!("found/page-header.parquet").to_vec();
    assert!(decode_in_time::<Vec<arrow_array::RecordBatch>>(bytes, "parquet").is_err());
}
