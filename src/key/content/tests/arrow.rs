use std::collections::HashMap;

use arrow_array::builder::{
    FixedSizeListBuilder, Int32Builder, ListBuilder, ListViewBuilder, MapBuilder, StringBuilder,
};
use arrow_array::types::Int8Type;
use arrow_array::*;
use arrow_buffer::{IntervalMonthDayNano, NullBuffer, OffsetBuffer, i256};
use arrow_schema::{DataType, Field, Fields, Schema, UnionFields};
use proptest::prelude::*;

use super::*;

pub(super) fn batch(columns: impl IntoIterator<Item = ArrayRef>) -> RecordBatch {
    let columns = columns.into_iter().enumerate();
    RecordBatch::try_from_iter_with_nullable(columns.map(|(index, array)| (format!("c{index}"), array, true))).unwrap()
}

fn of(array: impl Array + 'static) -> Digest {
    batch([Arc::new(array) as ArrayRef]).digest()
}

fn int_field(name: &str) -> Arc<Field> {
    Arc::new(Field::new(name, DataType::Int32, true))
}

fn structs(nulls: Option<NullBuffer>, numbers: Vec<Option<i32>>) -> StructArray {
    let text = StringArray::from_iter(numbers.iter().map(|number| number.map(|number| number.to_string())));
    let fields = Fields::from(vec![int_field("x"), Arc::new(Field::new("y", DataType::Utf8, true))]);
    StructArray::new(fields, vec![Arc::new(Int32Array::from(numbers)), Arc::new(text)], nulls)
}

fn unions(rows: usize) -> UnionArray {
    let fields = [(0, int_field("a")), (5, Arc::new(Field::new("b", DataType::Utf8, true)))];
    let fields: UnionFields = fields.into_iter().collect();
    let numbers = Int32Array::from_iter((0..rows).map(|row| (row % 3 > 0).then_some(row as i32)));
    let text = StringArray::from_iter((0..rows).map(|row| Some(row.to_string())));
    let ids: Vec<i8> = (0..rows).map(|row| if row % 2 == 0 { 0 } else { 5 }).collect();
    let offsets: Vec<i32> = (0..rows as i32).collect();
    UnionArray::try_new(fields, ids.into(), Some(offsets.into()), vec![Arc::new(numbers), Arc::new(text)]).unwrap()
}

fn lists(rows: usize) -> ListArray {
    let mut lists = ListBuilder::new(Int32Builder::new());
    (0..rows).for_each(|row| lists.append_option(items(row)));
    lists.finish()
}

/// The items of a list, or null.
fn items(row: usize) -> Option<impl Iterator<Item = Option<i32>>> {
    (row % 7 != 3).then(|| (0..row % 4).map(move |item| (item != 2).then_some((row + item) as i32)))
}

/// Columns of all sorts with this many rows, nulls here and there.
pub(super) fn columns(rows: usize) -> Vec<ArrayRef> {
    let numbers = || (0..rows).map(|row| (row % 7 != 3).then_some(row as i32 * 31 % 1000));
    let text = || numbers().map(|number| number.map(|number| "text that is long".repeat(number as usize % 3)));
    let bytes = || numbers().map(|number| number.map(i32::to_be_bytes));
    let longs = || numbers().map(|number| number.map(i64::from));
    let words: Vec<_> = numbers().map(|number| number.map(|number| format!("word {}", number % 5))).collect();

    let mut views = ListViewBuilder::new(Int32Builder::new());
    let mut arrays = FixedSizeListBuilder::new(Int32Builder::new(), 2);
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for (row, number) in numbers().enumerate() {
        views.append_option(items(row));
        arrays.values().append_value(row as i32);
        arrays.values().append_option(number);
        arrays.append(number.is_some());
        maps.keys().append_value(row.to_string());
        maps.values().append_option(number);
        maps.append(number.is_some()).unwrap();
    }
    let of_lists = LargeListArray::new(
        Arc::new(Field::new("item", lists(0).data_type().clone(), true)),
        OffsetBuffer::from_lengths((0..rows).map(|row| row % 3)),
        Arc::new(lists(3 * rows)),
        Some(NullBuffer::from_iter((0..rows).map(|row| row % 5 != 1))),
    );
    let ends: Vec<i32> = (1..=rows as i32).filter(|end| end % 3 == 0 || *end == rows as i32).collect();
    let values = StringArray::from_iter(ends.iter().map(|end| (end % 2 == 0).then(|| end.to_string())));
    vec![
        Arc::new(NullArray::new(rows)),
        Arc::new(BooleanArray::from_iter(numbers().map(|number| number.map(|number| number % 3 == 0)))),
        Arc::new(Int8Array::from_iter(numbers().map(|number| number.map(|number| number as i8)))),
        Arc::new(Int32Array::from_iter(numbers())),
        Arc::new(UInt64Array::from_iter_values((0..rows).map(|row| row as u64))),
        Arc::new(Float64Array::from_iter(numbers().map(|number| number.map(f64::from)))),
        Arc::new(TimestampNanosecondArray::from_iter(longs()).with_timezone("UTC")),
        Arc::new(Decimal128Array::from_iter(longs().map(|number| number.map(i128::from)))),
        Arc::new(Decimal256Array::from_iter(longs().map(|number| number.map(i256::from)))),
        Arc::new(IntervalMonthDayNanoArray::from_iter(
            numbers().map(|number| number.map(|number| IntervalMonthDayNano::new(number, 1, 2))),
        )),
        Arc::new(StringArray::from_iter(text())),
        Arc::new(LargeStringArray::from_iter(text())),
        Arc::new(StringViewArray::from_iter(text())),
        Arc::new(BinaryArray::from_iter(bytes())),
        Arc::new(BinaryViewArray::from_iter(bytes())),
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes(), 4).unwrap()),
        Arc::new(words.iter().map(Option::as_deref).collect::<DictionaryArray<Int8Type>>()),
        Arc::new(lists(rows)),
        Arc::new(views.finish()),
        Arc::new(arrays.finish()),
        Arc::new(maps.finish()),
        Arc::new(structs(Some(NullBuffer::from_iter((0..rows).map(|row| row % 5 != 1))), numbers().collect())),
        Arc::new(of_lists),
        Arc::new(RunArray::try_new(&Int32Array::from(ends), &values).unwrap()),
        Arc::new(unions(rows)),
    ]
}

#[test]
fn long_columns_can_be_cut_anywhere() {
    let null = 1_200_003;
    let truths: BooleanArray = (0..null + 600_001).map(|row| (row != null).then_some(row % 3 == 0)).collect();
    let whole = batch([Arc::new(truths) as ArrayRef]);
    let rows = whole.num_rows();
    for cuts in [&[0, 1, rows][..], &[0, 700_001, rows], &[0, null, null + 1, rows], &[0, 64, null - 5, rows - 7, rows]]
    {
        let slices: Vec<_> = cuts.windows(2).map(|ends| whole.slice(ends[0], ends[1] - ends[0])).collect();
        assert_eq!(slices.digest(), whole.digest(), "{cuts:?}");
    }
}

#[test]
fn how_rows_are_cut_plays_no_part() {
    for column in columns(300) {
        let whole = batch([column.clone()]);
        let digest = whole.digest();
        for cuts in [&[0, 300][..], &[0, 1, 300], &[0, 64, 128, 300], &[0, 3, 3, 71, 299, 300]] {
            let slices: Vec<_> = cuts.windows(2).map(|ends| whole.slice(ends[0], ends[1] - ends[0])).collect();
            assert_eq!(slices.digest(), digest, "{} {cuts:?}", column.data_type());
            assert_eq!(slices.as_slice().digest(), digest);
        }
        // Rows in other memory, as if they had been made alone.
        let padded = arrow_select::concat::concat(&[&column.slice(7, 90), &column, &column.slice(11, 5)]).unwrap();
        assert_eq!(batch([padded.slice(90, 300)]).digest(), digest, "{}", column.data_type());
        let part = whole.slice(90, 100);
        let alone = arrow_select::concat::concat(&[&column.slice(90, 40), &column.slice(130, 60)]).unwrap();
        assert_eq!(part.digest(), batch([alone]).digest(), "{}", column.data_type());
        let same = column.data_type() == &DataType::Null;
        assert_eq!(part.digest() == whole.slice(91, 100).digest(), same, "{}", column.data_type());
    }
}

#[test]
fn rows_and_types_count() {
    let whole = batch(columns(300));
    let mut digests = Vec::new();
    for column in columns(300) {
        digests.push(batch([column.clone()]).digest());
        digests.push(batch([column.slice(0, 299)]).digest());
        digests.push(batch([column.slice(0, 0)]).digest());
        digests.push(batch([new_null_array(column.data_type(), 300)]).digest());
    }
    // A column of nulls is the one that has nothing else.
    assert_eq!(digests.remove(3), digests[0]);
    digests.extend([
        whole.digest(),
        whole.slice(0, 0).digest(),
        RecordBatch::new_empty(Schema::empty().into()).digest(),
    ]);
    assert_distinct(&digests);
}

#[test]
fn names_order_nullability_and_metadata_count() {
    let column: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let make = |fields: Vec<Field>, metadata: &[(&str, &str)]| {
        let metadata: HashMap<String, String> =
            metadata.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let columns = vec![column.clone(); fields.len()];
        RecordBatch::try_new(Schema::new_with_metadata(fields, metadata).into(), columns).unwrap().digest()
    };
    let field = |name: &str| Field::new(name, DataType::Int32, false);
    let about = |name: &str| HashMap::from([("about".to_owned(), name.to_owned())]);
    assert_distinct(&[
        make(vec![field("a")], &[]),
        make(vec![field("b")], &[]),
        make(vec![field("a").with_nullable(true)], &[]),
        make(vec![field("a").with_metadata(about("a"))], &[]),
        make(vec![field("a").with_metadata(about("b"))], &[]),
        make(vec![field("a")], &[("x", "y")]),
        make(vec![field("a")], &[("x", "z")]),
        make(vec![field("a"), field("b")], &[]),
        make(vec![field("b"), field("a")], &[]),
        make(vec![field("ab"), field("")], &[]),
    ]);
    let many: Vec<(String, String)> = (0..20).map(|i| (i.to_string(), "x".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let turned: Vec<_> = many.iter().rev().copied().collect();
    assert_eq!(make(vec![field("a")], &many), make(vec![field("a")], &turned));
}

#[test]
fn lists_of_batches() {
    let one = batch([Arc::new(Int32Array::from(vec![1])) as ArrayRef]);
    let other = batch([Arc::new(Int8Array::from(vec![1])) as ArrayRef]);
    let none = Vec::<RecordBatch>::new();
    assert_distinct(&[
        none.digest(),
        one.digest(),
        vec![one.clone(), one.clone()].digest(),
        vec![one.clone(), other.clone()].digest(),
        vec![other.clone(), one.clone()].digest(),
    ]);
    assert_eq!(vec![one.slice(0, 0), one.clone()].digest(), one.digest());
}

#[test]
fn what_a_null_hides_does_not_count() {
    let nulls = || Some(NullBuffer::from(vec![true, false, true]));
    let numbers = |hidden| of(Int32Array::new(vec![1, hidden, 3].into(), nulls()));
    assert_eq!(numbers(2), numbers(5));
    let truths = |hidden: bool| of(BooleanArray::new(vec![true, hidden, true].into(), nulls()));
    assert_eq!(truths(false), truths(true));
    let text = |offsets: Vec<i32>, bytes: &'static [u8]| {
        of(StringArray::new(OffsetBuffer::new(offsets.into()), bytes.into(), nulls()))
    };
    assert_eq!(text(vec![0, 1, 1, 2], b"ac"), text(vec![0, 1, 2, 3], b"abc"));
    assert_ne!(text(vec![0, 1, 1, 2], b"ac"), text(vec![0, 0, 0, 2], b"ac"));
    let list = |offsets: Vec<i32>, items: Vec<i32>| {
        let offsets = OffsetBuffer::new(offsets.into());
        of(ListArray::new(int_field("item"), offsets, Arc::new(Int32Array::from(items)), nulls()))
    };
    assert_eq!(list(vec![0, 1, 1, 2], vec![1, 3]), list(vec![0, 1, 3, 4], vec![1, 7, 8, 3]));
    let array = |hidden| {
        let items = Int32Array::from(vec![Some(1), Some(2), hidden, Some(4), Some(5), Some(6)]);
        of(FixedSizeListArray::new(int_field("item"), 2, Arc::new(items), nulls()))
    };
    assert_eq!(array(Some(3)), array(None));
    let nested = |hidden| of(structs(nulls(), vec![Some(1), hidden, Some(3)]));
    assert_eq!(nested(Some(2)), nested(None));
    assert_ne!(of(structs(None, vec![Some(1), None, Some(3)])), nested(None));
    // A mask that hides nothing.
    let valid = Int32Array::new(vec![1, 2, 3].into(), Some(NullBuffer::new_valid(3)));
    assert_eq!(of(valid), of(Int32Array::from(vec![1, 2, 3])));
}

#[test]
fn dictionaries_count_by_their_values() {
    let make = |keys: Vec<Option<i8>>, values: Vec<Option<&str>>| {
        of(DictionaryArray::new(Int8Array::from(keys), Arc::new(StringArray::from(values))))
    };
    let digest = make(vec![Some(0), Some(1), None, Some(0)], vec![Some("a"), Some("b")]);
    assert_eq!(digest, make(vec![Some(2), Some(0), None, Some(2)], vec![Some("b"), Some("x"), Some("a")]));
    assert_eq!(digest, make(vec![Some(0), Some(1), Some(2), Some(3)], vec![Some("a"), Some("b"), None, Some("a")]));
    assert_ne!(digest, make(vec![Some(1), Some(0), None, Some(1)], vec![Some("a"), Some("b")]));
    make(vec![None, None], vec![]);
    assert_ne!(digest, of(StringArray::from(vec![Some("a"), Some("b"), None, Some("a")])));
}

#[test]
fn text_cannot_flow_into_its_neighbour() {
    let text = |values: &[&str]| of(StringArray::from(values.to_vec()));
    assert_distinct(&[text(&["ab", ""]), text(&["a", "b"]), text(&["", "ab"]), text(&["ab"]), text(&["", "", "ab"])]);
    let lists = |lengths: [usize; 3]| {
        let items = Arc::new(Int32Array::from(vec![1, 2]));
        of(ListArray::new(int_field("item"), OffsetBuffer::from_lengths(lengths), items, None))
    };
    assert_distinct(&[lists([2, 0, 0]), lists([1, 1, 0]), lists([1, 0, 1]), lists([0, 0, 2])]);
}

proptest! {
    #[test]
    fn neighbours_differ(
        cells in proptest::collection::vec(proptest::option::of("[ab]{0,3}"), 1..150),
        at in any::<prop::sample::Index>(),
        cell in proptest::option::of("[ab]{0,3}"),
    ) {
        let make = |cells: &[Option<String>]| {
            let numbers = cells.iter().map(|cell| cell.as_ref().map(|cell| cell.len() as i64));
            let truths = cells.iter().map(|cell| cell.as_ref().map(|cell| cell.starts_with('a')));
            let text = cells.iter().map(Option::as_deref);
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from_iter(numbers)),
                Arc::new(BooleanArray::from_iter(truths)),
                Arc::new(StringArray::from_iter(text)),
            ];
            batch(columns).digest()
        };
        let mut other = cells.clone();
        other[at.index(cells.len())] = cell;
        prop_assert_eq!(make(&cells) == make(&other), cells == other);
        prop_assert_ne!(make(&cells), make(&cells[1..]));
    }
}
