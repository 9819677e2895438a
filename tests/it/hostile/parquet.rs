//! Parquet files that claim what they have not, written by hand.

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flatbuffers::{FlatBufferBuilder, WIPOffset};
use icechest::ErrorKind;
use parquet::arrow::encode_arrow_schema;
use polars_core::frame::DataFrame;

use super::found::decode_in_time;

/// A value of Thrift's compact protocol.
enum Thrift {
    I32(i64),
    I64(i64),
    Text(String),
    List(Vec<Thrift>),
    /// Fields by their numbers.
    Struct(Vec<(u8, Thrift)>),
    /// The bytes of a value of this type.
    Raw(u8, Vec<u8>),
}

use Thrift::{I32, I64, List, Raw, Struct, Text};

impl Thrift {
    fn wire(&self) -> u8 {
        match self {
            I32(_) => 5,
            I64(_) => 6,
            Text(_) => 8,
            List(_) => 9,
            Struct(_) => 12,
            Raw(wire, _) => *wire,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            I32(int) | I64(int) => put_varint((int << 1 ^ int >> 63) as u64, out),
            Text(text) => {
                put_varint(text.len() as u64, out);
                out.extend_from_slice(text.as_bytes());
            }
            List(elements) => {
                out.push(0xf0 | elements.first().map_or(12, Thrift::wire));
                put_varint(elements.len() as u64, out);
                elements.iter().for_each(|element| element.put(out));
            }
            Struct(fields) => {
                let mut last = 0;
                for (id, value) in fields {
                    out.push((id - last) << 4 | value.wire());
                    value.put(out);
                    last = *id;
                }
                out.push(0);
            }
            Raw(_, bytes) => out.extend_from_slice(bytes),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }
}

fn put_varint(mut int: u64, out: &mut Vec<u8>) {
    while int >= 0x80 {
        out.push(int as u8 | 0x80);
        int >>= 7;
    }
    out.push(int as u8);
}

/// A list of as many truth values as there can be, which the libraries take for no bytes at all.
fn booleans() -> Thrift {
    Raw(9, vec![0xf1, 0xff, 0xff, 0xff, 0xff, 0x07])
}

fn group(name: &str, children: i64) -> Thrift {
    Struct(vec![(3, I32(1)), (4, Text(name.to_owned())), (5, I32(children))])
}

fn leaf(name: &str) -> Thrift {
    Struct(vec![(1, I32(2)), (3, I32(1)), (4, Text(name.to_owned()))])
}

/// A file of one column of 64-bit numbers, all null.
struct File {
    schema: Vec<Thrift>,
    rows: i64,
    /// The bytes of the one page: definition levels.
    page: Vec<u8>,
    header: Vec<(u8, Thrift)>,
    arrow_schema: Option<String>,
    encoding: i64,
    /// Row groups, which all name the same page.
    groups: i64,
    /// Fields of the footer that nobody knows.
    footer: Vec<(u8, Thrift)>,
}

impl File {
    fn new(rows: i64) -> Self {
        let mut run = Vec::new();
        put_varint(rows as u64 * 2, &mut run);
        run.push(0);
        let mut page = (run.len() as u32).to_le_bytes().to_vec();
        page.extend(run);
        let schema = vec![group("root", 1), leaf("a")];
        Self { schema, rows, page, header: Vec::new(), arrow_schema: None, encoding: 0, groups: 1, footer: Vec::new() }
    }

    fn bytes(self) -> Vec<u8> {
        let len = self.page.len() as i64;
        let data = Struct(vec![(1, I32(self.rows)), (2, I32(self.encoding)), (3, I32(3)), (4, I32(3))]);
        let mut header = vec![(1, I32(0)), (2, I32(len)), (3, I32(len)), (5, data)];
        header.extend(self.header);
        let mut out = b"PAR1".to_vec();
        out.extend(Struct(header).bytes());
        out.extend(self.page);
        let end = out.len() as i64;
        let column = || {
            Struct(vec![
                (1, I32(2)),
                (2, List(vec![I32(0), I32(3)])),
                (3, List(vec![Text("a".to_owned())])),
                (4, I32(0)),
                (5, I64(self.rows)),
                (6, I64(end - 4)),
                (7, I64(end - 4)),
                (9, I64(4)),
            ])
        };
        let chunk = || Struct(vec![(2, I64(4)), (3, column())]);
        let group = || Struct(vec![(1, List(vec![chunk()])), (2, I64(len)), (3, I64(self.rows))]);
        let groups = (0..self.groups).map(|_| group()).collect();
        let rows = self.rows * self.groups;
        let mut footer = vec![(1, I32(1)), (2, List(self.schema)), (3, I64(rows)), (4, List(groups))];
        if let Some(schema) = self.arrow_schema {
            let pair = Struct(vec![(1, Text("ARROW:schema".to_owned())), (2, Text(schema))]);
            footer.push((5, List(vec![pair])));
        }
        footer.extend(self.footer);
        let footer = Struct(footer).bytes();
        out.extend(&footer);
        out.extend((footer.len() as u32).to_le_bytes());
        out.extend(b"PAR1");
        out
    }
}

/// Both libraries get the file, and neither reads it.
#[track_caller]
fn assert_refused(file: File) {
    let bytes = file.bytes();
    let error = decode_in_time::<Vec<RecordBatch>>(bytes.clone(), "parquet").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    let error = decode_in_time::<DataFrame>(bytes, "parquet").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}

#[test]
fn the_file_is_sound_as_long_as_nobody_lies() {
    let bytes = File::new(1000).bytes();
    let batches = decode_in_time::<Vec<RecordBatch>>(bytes.clone(), "parquet").unwrap();
    assert_eq!((batches[0].num_rows(), batches[0].column(0).null_count()), (1000, 1000));
    let frame = decode_in_time::<DataFrame>(bytes, "parquet").unwrap();
    assert_eq!((frame.height(), frame.columns()[0].null_count()), (1000, 1000));
}

#[test]
fn lists_of_nothing_are_no_work() {
    let many = || Struct((1..=15).map(|id| (id, booleans())).collect());
    assert_refused(File { footer: vec![(15, many())], ..File::new(1) });
    assert_refused(File { header: vec![(15, many())], ..File::new(1) });
    // In the place of the statistics, which are known but not read.
    assert_refused(File { header: vec![(8, Struct(vec![(8, booleans())]))], ..File::new(1) });
}

#[test]
fn a_schema_is_no_deeper_than_the_stack() {
    let mut schema: Vec<_> = (0..100_000).map(|_| group("g", 1)).collect();
    schema.push(leaf("a"));
    assert_refused(File { schema, ..File::new(1) });
}

#[test]
fn a_group_has_the_children_that_follow() {
    let schema = || (0..1000).map(|_| group("g", i32::MAX.into())).chain([leaf("a")]).collect();
    assert_refused(File { schema: schema(), ..File::new(1) });
    for children in [-1, 0, 2] {
        assert_refused(File { schema: vec![group("root", children), leaf("a")], ..File::new(1) });
    }
}

#[test]
fn nulls_are_claims_too() {
    assert_refused(File::new(i32::MAX.into()));
}

#[test]
fn columns_do_not_overlap() {
    let file = || {
        let mut file = File::new(1);
        file.page.resize(1 << 20, 0);
        file
    };
    assert!(decode_in_time::<Vec<RecordBatch>>(file().bytes(), "parquet").is_ok());
    assert_refused(File { groups: 50, ..file() });
}

/// Arrow sets memory aside for as many texts as the values of such pages say.
#[test]
fn encodings_that_frames_are_not_written_in_are_refused() {
    for encoding in [4, 5, 6, 7, 9, 99, -1] {
        let bytes = File { encoding, ..File::new(1) }.bytes();
        let error = decode_in_time::<Vec<RecordBatch>>(bytes.clone(), "parquet").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let error = decode_in_time::<DataFrame>(bytes, "parquet").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}

#[test]
fn what_a_header_says_of_another_kind_of_page_plays_no_part() {
    // Fields of a page of the newer form: values, nulls, rows, encoding, lengths of the levels.
    let newer = Struct((1..=6).map(|id| (id, I32(if id == 4 { 0 } else { 1 }))).collect());
    let bytes = File { encoding: 6, header: vec![(8, newer)], ..File::new(1) }.bytes();
    let error = decode_in_time::<Vec<RecordBatch>>(bytes.clone(), "parquet").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let error = decode_in_time::<DataFrame>(bytes, "parquet").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn a_null_list_of_fixed_length_is_as_long_as_any_other() {
    let dtype = DataType::new_fixed_size_list(DataType::Int64, i32::MAX, true);
    let arrow_schema = Some(encode_arrow_schema(&Schema::new(vec![Field::new("a", dtype, true)])));
    let list = Struct(vec![(3, I32(1)), (4, Text("a".to_owned())), (5, I32(1)), (6, I32(3))]);
    let repeated = Struct(vec![(3, I32(2)), (4, Text("list".to_owned())), (5, I32(1))]);
    let schema = vec![group("root", 1), list, repeated, leaf("item")];
    assert_refused(File { schema, arrow_schema, ..File::new(100) });
}

/// An Arrow schema of a struct with two fields, which are the same struct with two fields, and so on.
fn shared_fields(depth: usize) -> String {
    let mut out = FlatBufferBuilder::new();
    let of_type = arrow_ipc::Struct_Builder::new(&mut out).finish().as_union_value();
    let name = out.create_string("a");
    let mut children = out.create_vector::<WIPOffset<arrow_ipc::Field<'_>>>(&[]);
    for _ in 0..depth {
        let mut field = arrow_ipc::FieldBuilder::new(&mut out);
        field.add_name(name);
        field.add_nullable(true);
        field.add_type_type(arrow_ipc::Type::Struct_);
        field.add_type_(of_type);
        field.add_children(children);
        let field = field.finish();
        children = out.create_vector(&[field, field]);
    }
    let mut schema = arrow_ipc::SchemaBuilder::new(&mut out);
    schema.add_fields(children);
    let header = schema.finish().as_union_value();
    let mut message = arrow_ipc::MessageBuilder::new(&mut out);
    message.add_version(arrow_ipc::MetadataVersion::V5);
    message.add_header_type(arrow_ipc::MessageHeader::Schema);
    message.add_header(header);
    let message = message.finish();
    out.finish(message, None);
    BASE64_STANDARD.encode(out.finished_data())
}

#[test]
fn an_arrow_schema_is_no_larger_than_its_bytes() {
    for depth in [10, 18, 30] {
        assert_refused(File { arrow_schema: Some(shared_fields(depth)), ..File::new(1) });
    }
    for text in ["", "/////w==", "AAAA", "no base64"] {
        assert_refused(File { arrow_schema: Some(text.to_owned()), ..File::new(1) });
    }
}
