//! The footer of a Parquet file, as far as it says how much there is; the rest of it has to have the right shape.
//!
//! The shapes are those of `parquet.thrift` (Apache Parquet format 2.12).

use std::io;
use std::ops::Range;

use arrow_ipc::{Field, KeyValue, Precision, Schema, Type};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::super::ReadAt;
use super::thrift::Shape::{Any, Bool, Byte, Bytes, Double, I16, I32, I64, List, Struct};
use super::thrift::{Event, Shape, invalid, read};

const MAGIC: &[u8] = b"PAR1";

/// The length of the footer, and the magic, which end the file.
const TAIL: usize = 8;

/// How deep columns may nest; a list takes two levels or three. The libraries go down by calling themselves.
const MAX_DEPTH: usize = 100;

const EMPTY: Shape = Struct(&[]);
const TIME_UNIT: Shape = Struct(&[EMPTY, EMPTY, EMPTY]);
const TIME: Shape = Struct(&[Bool, TIME_UNIT]);
const LOGICAL_TYPE: Shape = Struct(&[
    EMPTY,
    EMPTY,
    EMPTY,
    EMPTY,
    Struct(&[I32, I32]),
    EMPTY,
    TIME,
    TIME,
    Any,
    Struct(&[Byte, Bool]),
    EMPTY,
    EMPTY,
    EMPTY,
    EMPTY,
    EMPTY,
    Struct(&[Byte]),
    Struct(&[Bytes]),
    Struct(&[Bytes, I32]),
]);
const SCHEMA_ELEMENT: Shape = Struct(&[I32, I32, I32, Bytes, I32, I32, I32, I32, I32, LOGICAL_TYPE]);
pub(super) const STATISTICS: Shape = Struct(&[Bytes, Bytes, I64, I64, Bytes, Bytes, Bool, Bool, I64]);
const KEY_VALUE: Shape = Struct(&[Bytes, Bytes]);
const BOX: Shape = Struct(&[Double, Double, Double, Double, Double, Double, Double, Double]);
const COLUMN_META_DATA: Shape = Struct(&[
    I32,
    List(&I32),
    List(&Bytes),
    I32,
    I64,
    I64,
    I64,
    List(&KEY_VALUE),
    I64,
    I64,
    I64,
    STATISTICS,
    List(&Struct(&[I32, I32, I32])),
    I64,
    I32,
    Struct(&[I64, List(&I64), List(&I64)]),
    Struct(&[BOX, List(&I32)]),
]);
const CRYPTO: Shape = Struct(&[EMPTY, Struct(&[List(&Bytes), Bytes])]);
const COLUMN_CHUNK: Shape = Struct(&[Bytes, I64, COLUMN_META_DATA, I64, I32, I64, I32, CRYPTO, Bytes]);
const SORTING_COLUMN: Shape = Struct(&[I32, Bool, Bool]);
const ROW_GROUP: Shape = Struct(&[List(&COLUMN_CHUNK), I64, I64, List(&SORTING_COLUMN), I64, I64, I16]);
const AES: Shape = Struct(&[Bytes, Bytes, Bool]);
const FILE_META_DATA: &[Shape] = &[
    I32,
    List(&SCHEMA_ELEMENT),
    I64,
    List(&ROW_GROUP),
    List(&KEY_VALUE),
    Bytes,
    List(&Struct(&[EMPTY, EMPTY])),
    Struct(&[AES, AES]),
    Bytes,
];

/// How much there is in a file.
#[derive(Debug, Default)]
pub(super) struct Footer {
    pub(super) rows: i64,
    /// The names of the columns.
    pub(super) columns: Vec<String>,
    pub(super) leaves: Vec<Leaf>,
    pub(super) groups: Vec<Group>,
    pub(super) widths: Widths,
}

/// A column of plain values, be it within others.
#[derive(Debug)]
pub(super) struct Leaf {
    /// What a value takes in memory.
    pub(super) bits: u64,
    /// Whether there is a value, or a null, for each row.
    pub(super) is_flat: bool,
    /// The column that this is, or is part of.
    pub(super) column: usize,
}

/// A row group.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) rows: i64,
    pub(super) chunks: Vec<Chunk>,
}

/// The values of a leaf in a row group.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) values: i64,
    pub(super) len: i64,
    pages_at: i64,
    dictionary_at: Option<i64>,
}

impl Chunk {
    pub(super) fn start(&self) -> i64 {
        self.dictionary_at.unwrap_or(self.pages_at)
    }
}

/// An element of the schema, in depth-first order.
#[derive(Default)]
struct Element {
    name: String,
    physical: Option<i64>,
    type_len: i64,
    is_repeated: bool,
    is_null: bool,
    children: i64,
}

/// Reads the footer.
///
/// # Errors
/// `InvalidData` for what is no sound footer, and those of reading.
pub(super) fn read_footer(source: &dyn ReadAt) -> io::Result<Footer> {
    let Range { start, end } = footer_range(source)?;
    let mut bytes = vec![0; (end - start) as usize - TAIL];
    source.read_exact_at(&mut bytes, start)?;
    parse(&bytes)
}

/// Where the footer is, with the length that ends the file.
pub(crate) fn footer_range(source: &dyn ReadAt) -> io::Result<Range<u64>> {
    let no_parquet = || invalid("the file does not end as Parquet does");
    let mut tail = [0; TAIL];
    let end = source.len().checked_sub(TAIL as u64).ok_or_else(no_parquet)?;
    source.read_exact_at(&mut tail, end)?;
    let [l0, l1, l2, l3, ref magic @ ..] = tail;
    let len = u32::from_le_bytes([l0, l1, l2, l3]).into();
    let start = end.checked_sub(len).filter(|_| magic == MAGIC).ok_or_else(no_parquet)?;
    Ok(start..source.len())
}

fn parse(bytes: &[u8]) -> io::Result<Footer> {
    let mut footer = Footer::default();
    let mut elements: Vec<Element> = Vec::new();
    let mut schemas: Vec<Vec<u8>> = Vec::new();
    let mut key = Vec::new();
    read(bytes, bytes.len() as u64, FILE_META_DATA, &mut |path, event| {
        let element = elements.last_mut();
        let group = footer.groups.last_mut();
        match (path, event) {
            ([2], Event::Struct) => elements.push(Element::default()),
            ([2, field], Event::Int(int)) => {
                if let Some(element) = element {
                    match field {
                        1 => element.physical = Some(int),
                        2 => element.type_len = int,
                        3 => element.is_repeated = int == 2,
                        5 => element.children = int,
                        _ => {}
                    }
                }
            }
            ([2, 4], Event::Bytes(name)) => {
                if let Some(element) = element {
                    element.name = String::from_utf8_lossy(name).into_owned();
                }
            }
            ([2, 10, 11], Event::Struct) => {
                if let Some(element) = element {
                    element.is_null = true;
                }
            }
            ([3], Event::Int(int)) => footer.rows = int,
            ([4], Event::Struct) => footer.groups.push(Group::default()),
            ([4, 3], Event::Int(int)) => {
                if let Some(group) = group {
                    group.rows = int;
                }
            }
            ([4, 1], Event::Struct) => {
                if let Some(group) = group {
                    group.chunks.push(Chunk::default());
                }
            }
            ([4, 1, 3, field], Event::Int(int)) => {
                if let Some(chunk) = group.and_then(|group| group.chunks.last_mut()) {
                    match field {
                        5 => chunk.values = int,
                        7 => chunk.len = int,
                        9 => chunk.pages_at = int,
                        11 => chunk.dictionary_at = Some(int),
                        _ => {}
                    }
                }
            }
            ([5, 1], Event::Bytes(bytes)) => key = bytes.to_vec(),
            ([5, 2], Event::Bytes(bytes)) if key == b"ARROW:schema" => schemas.push(bytes.to_vec()),
            _ => {}
        }
    })?;
    (footer.columns, footer.leaves) = columns(elements)?;
    for schema in schemas {
        footer.widths.add(&schema)?;
    }
    Ok(footer)
}

/// The columns of the schema, which has to be one tree, and its leaves.
fn columns(elements: Vec<Element>) -> io::Result<(Vec<String>, Vec<Leaf>)> {
    let no_tree = || invalid("the columns of the schema do not make a tree");
    let (mut columns, mut leaves) = (Vec::new(), Vec::new());
    // The groups that lead to an element: how many children are to come, and whether there is one value for each row.
    let mut groups: Vec<(i64, bool)> = Vec::new();
    let count = elements.len();
    for (index, element) in elements.into_iter().enumerate() {
        while groups.last().is_some_and(|&(children, _)| children == 0) {
            groups.pop();
        }
        let depth = groups.len();
        let is_flat = match groups.last_mut() {
            Some((children, is_flat)) => {
                *children -= 1;
                *is_flat && !element.is_repeated
            }
            None if index == 0 => true,
            None => return Err(no_tree()),
        };
        if u64::try_from(element.children).map_or(true, |children| children > (count - index - 1) as u64) {
            return Err(no_tree());
        }
        if depth > MAX_DEPTH {
            return Err(invalid("the columns of the schema nest too deep"));
        }
        if depth == 1 {
            columns.push(element.name.clone());
        }
        match element.physical {
            Some(physical) if element.children == 0 && depth > 0 => {
                leaves.push(Leaf { bits: bits(physical, &element)?, is_flat, column: columns.len() - 1 });
            }
            _ => groups.push((element.children, is_flat)),
        }
    }
    match groups.iter().all(|&(children, _)| children == 0) {
        true => Ok((columns, leaves)),
        false => Err(no_tree()),
    }
}

fn bits(physical: i64, element: &Element) -> io::Result<u64> {
    Ok(match physical {
        _ if element.is_null => 1,
        // BOOLEAN
        0 => 1,
        // INT32, FLOAT
        1 | 4 => 32,
        // INT64, INT96, DOUBLE
        2 | 3 | 5 => 64,
        // BYTE_ARRAY, as a view; the text itself is in the pages
        6 => 128,
        // FIXED_LEN_BYTE_ARRAY
        7 => u64::try_from(element.type_len).map_err(|_| invalid("a column of negative width"))?.max(1) * 8,
        _ => return Err(invalid("a column of no known type")),
    })
}

/// What the types of Arrow take in memory, in bits. A null takes as much as any other value, and if it is a list of fixed
/// length, that is more than the file tells elsewhere.
#[derive(Debug, Default)]
pub(super) struct Widths {
    /// A row, without what its lists of any length hold.
    pub(super) row: u64,
    /// The widest element of such a list.
    pub(super) element: u64,
}

impl Widths {
    /// Adds up those of an Arrow schema, as the footer carries it.
    fn add(&mut self, encoded: &[u8]) -> io::Result<()> {
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| invalid("the Arrow schema is not in base64"))?;
        let message = match bytes.strip_prefix(&[0xff; 4]) {
            Some(rest) => rest.get(4..).ok_or_else(|| invalid("the Arrow schema is cut off"))?,
            None => &bytes,
        };
        let schema = arrow_ipc::root_as_message(message).ok().and_then(|message| message.header_as_schema());
        let schema = schema.ok_or_else(|| invalid("the Arrow schema is none"))?;
        self.add_schema(&schema, message.len())
    }

    /// Adds up those of a schema that is kept in so many bytes.
    fn add_schema(&mut self, schema: &Schema<'_>, len: usize) -> io::Result<()> {
        // Flatbuffers can share their parts, so that few bytes would become a tree of any size.
        let mut room = len.saturating_mul(4);
        spend(&mut room, None, schema.custom_metadata().iter().flatten())?;
        for field in schema.fields().iter().flatten() {
            let bits = self.bits(&field, 0, &mut room)?;
            self.row = self.row.saturating_add(bits);
        }
        Ok(())
    }

    /// What a value takes in memory, without what its lists of any length hold.
    fn bits(&mut self, field: &Field<'_>, depth: usize, room: &mut usize) -> io::Result<u64> {
        spend(room, field.name(), field.custom_metadata().iter().flatten())?;
        if depth > MAX_DEPTH {
            return Err(invalid("the columns of the schema nest too deep"));
        }
        let mut children = 0_u64;
        for child in field.children().iter().flatten() {
            children = children.saturating_add(self.bits(&child, depth + 1, room)?);
        }
        let positive = |width: i32| u64::try_from(width).map_err(|_| invalid("a column of negative width"));
        let bits = match field.type_type() {
            Type::Null => 0,
            Type::Bool => 1,
            Type::Int => positive(field.type_as_int().map_or(64, |int| int.bitWidth()))?,
            Type::FloatingPoint => match field.type_as_floating_point().map(|float| float.precision()) {
                Some(Precision::HALF) => 16,
                Some(Precision::SINGLE) => 32,
                _ => 64,
            },
            Type::Decimal => positive(field.type_as_decimal().map_or(256, |decimal| decimal.bitWidth()))?,
            Type::FixedSizeBinary => positive(field.type_as_fixed_size_binary().map_or(0, |bin| bin.byteWidth()))? * 8,
            Type::FixedSizeList => {
                let len = positive(field.type_as_fixed_size_list().map_or(0, |list| list.listSize()))?;
                children.saturating_mul(len)
            }
            Type::Struct_ => children,
            _ => {
                self.element = self.element.max(children);
                64
            }
        };
        Ok(bits)
    }
}

/// Refuses an Arrow schema, kept in so many bytes, that would become much more in memory or nests too deep.
///
/// # Errors
/// `InvalidData`.
pub(crate) fn check_schema(schema: &Schema<'_>, len: usize) -> io::Result<()> {
    Widths::default().add_schema(schema, len)
}

/// Takes what a field says off the room that is left.
fn spend<'a>(room: &mut usize, name: Option<&str>, metadata: impl Iterator<Item = KeyValue<'a>>) -> io::Result<()> {
    let texts = metadata.flat_map(|pair| [pair.key(), pair.value()]).chain([name]);
    let size = 8 + texts.map(|text| text.map_or(0, str::len)).sum::<usize>();
    *room = room.checked_sub(size).ok_or_else(|| invalid("the Arrow schema says more than it has room for"))?;
    Ok(())
}
