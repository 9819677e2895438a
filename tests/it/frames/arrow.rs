use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::types::*;
use arrow_array::*;
use arrow_data::ArrayData;
use arrow_schema::{DataType, Field, Fields, IntervalUnit, Schema, TimeUnit, UnionFields, UnionMode};
use icechest::{Chest, ErrorKind, FrameFormat};
use polars_core::df;
use polars_core::frame::DataFrame;

use super::{read_as, read_each_as};

fn same(a: &RecordBatch, b: &RecordBatch) -> Result<(), String> {
    if a.schema() != b.schema() {
        return Err(format!("the schemas differ: {:?} and {:?}", a.schema(), b.schema()));
    }
    if a == b { Ok(()) } else { Err("the values differ".to_owned()) }
}

#[allow(clippy::ptr_arg, reason = "the type of the value is a vector")]
fn same_batches(a: &Vec<RecordBatch>, b: &Vec<RecordBatch>) -> Result<(), String> {
    let concat = |batches: &[RecordBatch]| arrow_select::concat::concat_batches(&batches[0].schema(), batches).unwrap();
    same(&concat(a), &concat(b))
}

fn keep(batch: RecordBatch) {
    super::kept(&batch, same).unwrap();
}

fn keep_each(batches: &[RecordBatch]) {
    super::kept_each(batches, same).into_iter().for_each(Result::unwrap);
}

/// The bytes of a primitive or boolean array.
fn buffer_of<A: Array + 'static>(array: A) -> ArrayData {
    array.to_data()
}

/// An array of any type; of nullable ones every fourth value is null.
fn array(dtype: &DataType, len: usize, nullable: bool) -> ArrayRef {
    let valid = |i: usize| !nullable || i % 4 != 1;
    let number = |i: usize| (i * 7919 % 100) as i64;
    macro_rules! primitive {
        ($type:ident, $number:expr) => {
            Arc::new(
                PrimitiveArray::<$type>::from_iter((0..len).map(|i| valid(i).then(|| $number(i))))
                    .with_data_type(dtype.clone()),
            ) as ArrayRef
        };
        ($type:ident) => {
            primitive!($type, |i| number(i) as <$type as ArrowPrimitiveType>::Native)
        };
    }
    macro_rules! texts {
        ($array:ident) => {{
            let text = |i: usize| if i % 3 == 0 { "ß".repeat(i % 30) } else { format!("text {i}") };
            Arc::new($array::from_iter((0..len).map(|i| valid(i).then(|| text(i))))) as ArrayRef
        }};
    }
    let widths: Vec<usize> = (0..len).map(|i| if valid(i) { i % 3 } else { 0 }).collect();
    let total: usize = widths.iter().sum();
    let starts = || widths.iter().scan(0, |end, width| Some(std::mem::replace(end, *end + width)));
    let offsets = || starts().chain([total]);
    let mut data = ArrayData::builder(dtype.clone()).len(len);
    if nullable {
        let bits = BooleanArray::from_iter((0..len).map(|i| Some(valid(i))));
        data = data.null_bit_buffer(Some(buffer_of(bits).buffers()[0].clone()));
    }
    let small = |numbers: Vec<usize>| {
        let array: Int32Array = numbers.into_iter().map(|n| n as i32).collect();
        buffer_of(array).buffers()[0].clone()
    };
    let large = |numbers: Vec<usize>| {
        let array: Int64Array = numbers.into_iter().map(|n| n as i64).collect();
        buffer_of(array).buffers()[0].clone()
    };
    let child = |field: &Field, len| array(field.data_type(), len, field.is_nullable()).to_data();
    match dtype {
        DataType::Null => Arc::new(NullArray::new(len)),
        DataType::Boolean => Arc::new(BooleanArray::from_iter((0..len).map(|i| valid(i).then_some(i % 3 == 0)))),
        DataType::Int8 => primitive!(Int8Type),
        DataType::Int16 => primitive!(Int16Type),
        DataType::Int32 => primitive!(Int32Type),
        DataType::Int64 => primitive!(Int64Type),
        DataType::UInt8 => primitive!(UInt8Type),
        DataType::UInt16 => primitive!(UInt16Type),
        DataType::UInt32 => primitive!(UInt32Type, |i| u32::MAX - number(i) as u32),
        DataType::UInt64 => primitive!(UInt64Type, |i| u64::MAX - number(i) as u64),
        DataType::Float16 => primitive!(Float16Type, |i| half::f16::from_f32(number(i) as f32)),
        DataType::Float32 => primitive!(Float32Type),
        DataType::Float64 => primitive!(Float64Type),
        DataType::Date32 => primitive!(Date32Type),
        // Whole days.
        DataType::Date64 => primitive!(Date64Type, |i| number(i) * 86_400_000),
        DataType::Time32(TimeUnit::Second) => primitive!(Time32SecondType),
        DataType::Time32(_) => primitive!(Time32MillisecondType),
        DataType::Time64(TimeUnit::Microsecond) => primitive!(Time64MicrosecondType),
        DataType::Time64(_) => primitive!(Time64NanosecondType),
        DataType::Timestamp(TimeUnit::Second, _) => primitive!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => primitive!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => primitive!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => primitive!(TimestampNanosecondType),
        DataType::Duration(TimeUnit::Second) => primitive!(DurationSecondType),
        DataType::Duration(TimeUnit::Millisecond) => primitive!(DurationMillisecondType),
        DataType::Duration(TimeUnit::Microsecond) => primitive!(DurationMicrosecondType),
        DataType::Duration(TimeUnit::Nanosecond) => primitive!(DurationNanosecondType),
        DataType::Interval(IntervalUnit::YearMonth) => primitive!(IntervalYearMonthType),
        DataType::Interval(IntervalUnit::DayTime) => {
            primitive!(IntervalDayTimeType, |i| IntervalDayTimeType::make_value(number(i) as i32, 9))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            primitive!(IntervalMonthDayNanoType, |i| IntervalMonthDayNanoType::make_value(number(i) as i32, 5, 9))
        }
        DataType::Decimal32(..) => primitive!(Decimal32Type, |i| number(i) as i32 % 10),
        DataType::Decimal64(..) => primitive!(Decimal64Type, |i| number(i) - 50),
        DataType::Decimal128(..) => primitive!(Decimal128Type, |i| i128::from(number(i)) - 50),
        DataType::Decimal256(..) => {
            type Wide = <Decimal256Type as ArrowPrimitiveType>::Native;
            primitive!(Decimal256Type, |i| Wide::from_i128(i128::from(number(i)) - 50))
        }
        DataType::Utf8 => texts!(StringArray),
        DataType::LargeUtf8 => texts!(LargeStringArray),
        DataType::Utf8View => texts!(StringViewArray),
        DataType::Binary => texts!(BinaryArray),
        DataType::LargeBinary => texts!(LargeBinaryArray),
        DataType::BinaryView => texts!(BinaryViewArray),
        DataType::FixedSizeBinary(width) => {
            let values = (0..len).map(|i| valid(i).then(|| vec![number(i) as u8; *width as usize]));
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, *width).unwrap())
        }
        DataType::List(field) | DataType::Map(field, _) => {
            let data = data.add_buffer(small(offsets().collect())).add_child_data(child(field, total));
            make_array(data.build().unwrap())
        }
        DataType::LargeList(field) => {
            let data = data.add_buffer(large(offsets().collect())).add_child_data(child(field, total));
            make_array(data.build().unwrap())
        }
        DataType::ListView(field) => {
            let data = data.add_buffer(small(starts().collect())).add_buffer(small(widths.clone()));
            make_array(data.add_child_data(child(field, total)).build().unwrap())
        }
        DataType::LargeListView(field) => {
            let data = data.add_buffer(large(starts().collect())).add_buffer(large(widths.clone()));
            make_array(data.add_child_data(child(field, total)).build().unwrap())
        }
        DataType::FixedSizeList(field, width) => {
            make_array(data.add_child_data(child(field, len * *width as usize)).build().unwrap())
        }
        DataType::Struct(fields) => {
            let children = fields.iter().map(|field| child(field, len)).collect();
            make_array(data.child_data(children).build().unwrap())
        }
        DataType::Dictionary(key, of) => {
            let signed = match **key {
                DataType::UInt8 => DataType::Int8,
                DataType::UInt16 => DataType::Int16,
                DataType::UInt32 => DataType::Int32,
                DataType::UInt64 => DataType::Int64,
                ref signed => signed.clone(),
            };
            let keys = array(&signed, len, nullable).to_data();
            let data = data.add_buffer(keys.buffers()[0].clone());
            // As many values as keys can name.
            make_array(data.add_child_data(array(of, 100, false).to_data()).build().unwrap())
        }
        DataType::RunEndEncoded(_, values) => {
            let runs = len.div_ceil(3);
            let ends: Int32Array = (0..runs).map(|run| ((run + 1) * 3).min(len) as i32).collect();
            let data = ArrayData::builder(dtype.clone()).len(len);
            make_array(data.add_child_data(ends.to_data()).add_child_data(child(values, runs)).build().unwrap())
        }
        DataType::Union(fields, mode) => {
            let ids: Int8Array = (0..len).map(|i| (i % fields.len()) as i8).collect();
            let mut data = ArrayData::builder(dtype.clone()).len(len).add_buffer(buffer_of(ids).buffers()[0].clone());
            if *mode == UnionMode::Dense {
                data = data.add_buffer(small((0..len).map(|i| i / fields.len()).collect()));
            }
            let children = fields.iter().map(|(_, field)| child(field, len)).collect();
            make_array(data.child_data(children).build().unwrap())
        }
    }
}

fn batch(dtype: &DataType, len: usize, nullable: bool) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("column", dtype.clone(), nullable)]);
    RecordBatch::try_new(Arc::new(schema), vec![array(dtype, len, nullable)]).unwrap()
}

fn field(dtype: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", dtype, true))
}

fn record(fields: &[(&str, DataType, bool)]) -> DataType {
    DataType::Struct(fields.iter().map(|(name, dtype, null)| Field::new(*name, dtype.clone(), *null)).collect())
}

fn map(value: DataType) -> DataType {
    let entries = record(&[("keys", DataType::Utf8, false), ("values", value, true)]);
    DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
}

fn dictionary(key: DataType, value: DataType) -> DataType {
    DataType::Dictionary(Box::new(key), Box::new(value))
}

/// Types that Parquet carries.
fn simple_types() -> Vec<DataType> {
    use DataType::*;
    let mut all = vec![Null, Boolean, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64];
    all.extend([Float16, Float32, Float64, Date32, Date64]);
    all.extend([Utf8, LargeUtf8, Utf8View, Binary, LargeBinary, BinaryView, FixedSizeBinary(1), FixedSizeBinary(17)]);
    let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
    all.extend([Time32(units[0]), Time32(units[1]), Time64(units[2]), Time64(units[3])]);
    for unit in units {
        all.push(Duration(unit));
        all.extend(
            [None, Some("UTC"), Some("+05:45"), Some("Europe/Berlin")].map(|z| Timestamp(unit, z.map(Into::into))),
        );
    }
    all.extend([Decimal32(9, 2), Decimal64(18, 4), Decimal128(5, 2), Decimal128(18, 0), Decimal128(38, 38)]);
    all.extend([Decimal256(39, 5), Decimal256(76, 76), Decimal128(10, 0)]);
    all
}

fn nested_types(inner: &DataType) -> Vec<DataType> {
    use DataType::*;
    vec![
        List(field(inner.clone())),
        LargeList(field(inner.clone())),
        FixedSizeList(field(inner.clone()), 3),
        List(field(List(field(inner.clone())))),
        record(&[("x", inner.clone(), true), ("y", Utf8, false)]),
        List(field(record(&[("x", List(field(inner.clone())), true), ("y", inner.clone(), true)]))),
        map(inner.clone()),
    ]
}

#[test]
fn every_simple_type_comes_back() {
    let mut all = Vec::new();
    for dtype in simple_types() {
        all.extend([0, 1, 2, 100].map(|len| batch(&dtype, len, true)));
        if dtype != DataType::Null {
            all.push(batch(&dtype, 100, false));
        }
    }
    keep_each(&all);
}

#[test]
fn nested_types_come_back() {
    use DataType::*;
    let mut all = Vec::new();
    let decimal = Decimal128(20, 3);
    for inner in
        [Boolean, Int32, Float64, Utf8, LargeUtf8, Binary, Date64, Timestamp(TimeUnit::Nanosecond, None), decimal]
    {
        for dtype in nested_types(&inner) {
            all.extend([0, 50].map(|len| batch(&dtype, len, true)));
        }
    }
    keep_each(&all);
}

#[test]
fn dictionaries_come_back() {
    use DataType::*;
    let mut all = Vec::new();
    for key in [Int8, Int16, Int32, Int64, UInt8, UInt16] {
        let values = [Utf8, LargeUtf8, Binary, Int32, Float64, Date32];
        all.extend(values.map(|value| batch(&dictionary(key.clone(), value), 100, true)));
        all.push(batch(&List(field(dictionary(key, Utf8))), 30, true));
    }
    keep_each(&all);
}

/// Types that Parquet does not carry, or not always.
fn rare_types() -> Vec<DataType> {
    use DataType::*;
    let mut all =
        vec![FixedSizeBinary(0), Struct(Fields::empty()), Decimal128(5, -2), Decimal256(50, -3), Decimal32(1, 0)];
    all.extend([IntervalUnit::YearMonth, IntervalUnit::DayTime, IntervalUnit::MonthDayNano].map(Interval));
    all.extend([ListView(field(Int32)), LargeListView(field(Utf8)), FixedSizeList(field(Int32), 0)]);
    all.extend([UInt32, UInt64].map(|key| dictionary(key, Utf8)));
    all.extend([Boolean, Null, Utf8View, FixedSizeBinary(3), Decimal128(9, 1)].map(|value| dictionary(Int32, value)));
    all.push(dictionary(Int32, List(field(Int32))));
    all.push(dictionary(Int32, dictionary(Int8, Utf8)));
    for value in [Utf8, Int32, List(field(Int32))] {
        let ends = Arc::new(Field::new("run_ends", Int32, false));
        all.push(RunEndEncoded(ends, Arc::new(Field::new("values", value, true))));
    }
    let sorted = match map(Int32) {
        Map(entries, _) => Map(entries, true),
        _ => unreachable!(),
    };
    all.push(sorted);
    all
}

/// What is taken in must come back, the rest must be refused.
#[test]
fn rare_types_are_kept_or_refused() {
    use DataType::*;
    let all = rare_types();
    let mut refused = Vec::new();
    let outer: Vec<_> = all.iter().flat_map(nested_types).collect();
    let types: Vec<_> = all.iter().chain(&outer).flat_map(|dtype| [0, 1, 40].map(|len| (dtype, len))).collect();
    let frame = |(dtype, len): &(&DataType, usize)| batch(dtype, *len, !matches!(dtype, RunEndEncoded(..)));
    let frames: Vec<_> = types.iter().map(frame).collect();
    for ((dtype, _), answer) in types.into_iter().zip(super::kept_each(&frames, same)) {
        if let Err(text) = answer {
            assert!(text.contains("Parquet"), "{dtype}: {text}");
            refused.push(dtype.clone());
        }
    }
    refused.retain(|dtype| !dtype.is_nested());
    refused.dedup();
    assert!(refused.iter().all(|dtype| {
        let unsound = matches!(dtype, FixedSizeBinary(0) | Decimal128(_, ..0) | Decimal256(_, ..0));
        unsound || matches!(dtype, Interval(IntervalUnit::MonthDayNano) | RunEndEncoded(..) | Dictionary(..))
    }));
    assert_eq!(refused.len(), 9, "{refused:?}");
}

/// Arrow does not check a decimal's digits; Parquet keeps as many bytes as the precision needs.
#[test]
fn decimals_beyond_their_precision_are_refused() {
    for value in [100_000, -100_000, 1 << 40, i128::MAX, i128::MIN] {
        let decimals = Decimal128Array::from(vec![Some(1), None, Some(value)]);
        let decimals = decimals.with_precision_and_scale(5, 2).unwrap();
        let list = Arc::new(decimals) as ArrayRef;
        let record = StructArray::from(vec![(Arc::new(Field::new("x", list.data_type().clone(), true)), list.clone())]);
        for column in [list, Arc::new(record)] {
            let batch = RecordBatch::try_from_iter([("d", column)]).unwrap();
            let error = super::kept(&batch, same).unwrap_err();
            assert!(error.contains("more digits"), "{error}");
        }
    }
}

/// Whatever Arrow stores, polars reads or says that it cannot.
#[test]
fn a_type_that_polars_lacks_is_an_error_and_no_damage() {
    let dir = crate::helpers::dir();
    let chest = Chest::open(dir.path()).unwrap();
    let types: Vec<_> = simple_types().into_iter().chain(rare_types()).collect();
    let nested: Vec<_> = types.iter().flat_map(nested_types).collect();
    let mut refused = 0;
    for dtype in types.iter().chain(&nested) {
        let frame = batch(dtype, 20, !matches!(dtype, DataType::RunEndEncoded(..)));
        if chest.insert("k", frame.clone()).is_err() {
            continue;
        }
        if let Err(error) = chest.get::<DataFrame>("k") {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{dtype}: {error}");
            refused += 1;
        }
        same(&chest.get::<RecordBatch>("k").unwrap(), &frame).unwrap();
    }
    assert!(refused > 0);
}

#[test]
fn unions_are_refused_and_nothing_is_lost() {
    let fields: UnionFields = [(0, field(DataType::Int32)), (1, field(DataType::Utf8))].into_iter().collect();
    for mode in [UnionMode::Dense, UnionMode::Sparse] {
        let union = DataType::Union(fields.clone(), mode);
        let nested = [
            record(&[("x", union.clone(), false)]),
            DataType::List(Arc::new(Field::new("item", union.clone(), false))),
        ];
        for dtype in [union].iter().chain(&nested) {
            let error = super::kept(&batch(dtype, 6, false), same).unwrap_err();
            assert!(error.contains("union"), "{error}");
        }
    }
}

#[test]
fn metadata_of_schema_and_fields_comes_back() {
    let metadata = |text: &str| HashMap::from([("unit".to_owned(), text.to_owned()), (String::new(), "ß".to_owned())]);
    let inner = Field::new("inner", DataType::Int32, true).with_metadata(metadata("nested"));
    let fields = vec![
        Field::new("a", DataType::Int32, true).with_metadata(metadata("metres")),
        Field::new("s", DataType::Struct(vec![inner].into()), true),
    ];
    let columns = fields.iter().map(|field| array(field.data_type(), 5, true)).collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata("whole")));
    let whole = RecordBatch::try_new(schema, columns).unwrap();
    keep(whole.clone());
    keep(whole.slice(0, 0));
    super::kept(&vec![whole.clone(), whole.slice(1, 2)], same_batches).unwrap();
}

#[test]
fn batches_without_rows_or_columns_come_back() {
    let none = Arc::new(Schema::empty());
    for rows in [0, 1, 7] {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(none.clone(), vec![], &options).unwrap();
        let kept = super::kept(&batch, same);
        assert_eq!(kept, Ok(()), "{rows} rows");
    }
    keep(RecordBatch::new_empty(none));
    super::kept(&vec![batch(&DataType::Utf8, 0, true)], same_batches).unwrap();
}

#[test]
fn odd_and_repeated_column_names_come_back() {
    let long = "x".repeat(1000);
    let names = ["", "a", "a", "A", "a.b", "\0", "☃", "é", "e\u{301}", "ARROW:schema", &long, "\n"];
    let fields: Vec<_> = names.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect();
    let columns = (0..names.len()).map(|i| Arc::new(Int64Array::from(vec![i as i64])) as ArrayRef).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema, columns).unwrap();
    keep(batch);
}

#[test]
fn sliced_batches_come_back() {
    let (mut one, mut several) = (Vec::new(), Vec::new());
    for dtype in nested_types(&DataType::Utf8).into_iter().chain(simple_types()) {
        let whole = batch(&dtype, 40, true);
        one.push(whole.slice(3, 11));
        several.push(vec![whole.slice(1, 5), whole.slice(0, 0), whole.slice(20, 20)]);
    }
    keep_each(&one);
    super::kept_each(&several, same_batches).into_iter().for_each(Result::unwrap);
}

#[test]
fn batches_of_several_row_groups_come_back() {
    let len = 3 << 20;
    let numbers: Int64Array = (0..len).map(|i: i64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15u64 as i64)).collect();
    let texts: StringArray = (0..len).map(|i| Some(format!("{i}"))).collect();
    let batch = RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef), ("t", Arc::new(texts))]).unwrap();
    keep(batch);
}

/// Values that take almost no room in a file and much in memory: what such a file claims is believed.
#[test]
fn many_equal_values_come_back() {
    use DataType::*;
    let nested = nested_types(&Int8).into_iter().chain([
        FixedSizeList(field(Float64), 64),
        List(field(FixedSizeList(field(Int8), 16))),
        FixedSizeBinary(200),
        dictionary(Int8, Utf8),
    ]);
    let mut frames = Vec::new();
    for dtype in simple_types().into_iter().chain(nested) {
        let len = 300_000;
        let zeros = UInt32Array::from(vec![0; len]);
        let values = arrow_select::take::take(&array(&dtype, 1, false), &zeros, None).unwrap();
        for column in [values, new_null_array(&dtype, len)] {
            let schema = Schema::new(vec![Field::new("column", dtype.clone(), true)]);
            frames.push(RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap());
        }
    }
    let dir = super::dir();
    let chest = Chest::builder().budget(0).inline_limit(0).open(dir.path()).unwrap();
    for frame in frames {
        let dtype = frame.schema().field(0).data_type().clone();
        chest.insert("k", frame.clone()).unwrap();
        let found = chest.get::<RecordBatch>("k").unwrap_or_else(|error| panic!("{dtype}: {error}"));
        same(&found, &frame).unwrap_or_else(|error| panic!("{dtype}: {error}"));
        if let Err(error) = chest.get::<DataFrame>("k") {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{dtype}: {error}");
        }
    }
}

#[test]
fn a_dictionary_of_one_long_text_comes_back() {
    let text = "ice ".repeat(250_000);
    let values: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let column = DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0; 200_000]), values);
    let batch = RecordBatch::try_from_iter([("d", Arc::new(column) as ArrayRef)]).unwrap();
    let dir = super::dir();
    let chest = Chest::builder().budget(0).open(dir.path()).unwrap();
    chest.insert("k", batch.clone()).unwrap();
    let found = chest.get::<Vec<RecordBatch>>("k").unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 200_000);
    assert_eq!(found[0].slice(0, 10), batch.slice(0, 10));
}

#[test]
fn numbers_that_come_once_get_no_large_dictionary_and_long_text_does() {
    let dir = super::dir();
    let chest = Chest::builder().budget(0).open(dir.path()).unwrap();
    let stored = |key: &str, column: ArrayRef| {
        let batch = RecordBatch::try_from_iter([("c", column)]).unwrap();
        chest.insert(key, batch.clone()).unwrap();
        same(&chest.get::<RecordBatch>(key).unwrap(), &batch).unwrap();
        chest.info(key).unwrap().stored_bytes
    };
    let mut random = fastrand::Rng::with_seed(8);
    let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values((0..100_000).map(|_| random.u64(..))));
    // With all of them in a dictionary, 17 bits each come on top.
    assert!(stored("numbers", numbers) < 900_000);
    let text = "ice ".repeat(50_000);
    let texts: ArrayRef = Arc::new(StringArray::from(vec![text.as_str(); 300]));
    assert!(stored("text", texts) < 50_000);
}

/// What its own reader would take for an attack is not written: then it stays in memory.
#[test]
fn a_frame_that_could_not_be_read_back_stays_in_memory() {
    let width = 60_000;
    let mut random = fastrand::Rng::with_seed(3);
    let mut lists = builder::ListBuilder::new(builder::FixedSizeListBuilder::new(builder::UInt8Builder::new(), width));
    for images in [1, 39] {
        for _ in 0..images {
            (0..width).for_each(|_| lists.values().values().append_value(random.u8(..)));
            lists.values().append(true);
        }
        lists.append(true);
    }
    let batch = RecordBatch::try_from_iter([("images", Arc::new(lists.finish()) as ArrayRef)]).unwrap();
    let dir = super::dir();
    let chest = Chest::builder().open(dir.path()).unwrap();
    chest.insert("k", batch.clone()).unwrap();
    if let Err(error) = chest.flush() {
        assert_eq!((error.kind(), error.key()), (ErrorKind::Unsupported, Some(&"k".into())), "{error}");
        assert_eq!(*chest.get::<RecordBatch>("k").unwrap(), batch);
        chest.remove("k").unwrap();
        return;
    }
    // There is memory enough for what it claims.
    chest.set_budget(0).unwrap();
    assert_eq!(*chest.get::<RecordBatch>("k").unwrap(), batch);
}

#[test]
fn lists_that_are_no_frame_are_refused() {
    let chest = Chest::temporary().unwrap();
    let none = chest.insert("k", Vec::<RecordBatch>::new()).unwrap_err();
    let mixed = vec![batch(&DataType::Utf8, 3, true), batch(&DataType::Int8, 3, true)];
    let mixed = chest.insert("k", mixed).unwrap_err();
    assert_eq!((none.kind(), mixed.kind()), (ErrorKind::Unsupported, ErrorKind::Unsupported));
    assert_eq!(mixed.into_value::<Vec<RecordBatch>>().unwrap().len(), 2);
    assert!(!chest.contains_key("k").unwrap());
}

#[test]
fn record_batches_read_as_a_polars_frame() {
    let columns: [(&str, ArrayRef); 6] = [
        ("i", Arc::new(Int64Array::from(vec![Some(1), None, Some(-3)]))),
        ("s", Arc::new(StringArray::from(vec!["a", "ß", "a text that is longer than a view holds"]))),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        ("f", Arc::new(Float32Array::from(vec![1.5, f32::INFINITY, -0.0]))),
        ("u", Arc::new(UInt8Array::from(vec![0, 7, 255]))),
        ("y", Arc::new(BinaryArray::from_vec(vec![b"", b"\0\xff", b"x"]))),
    ];
    let expected = df!(
        "i" => [Some(1i64), None, Some(-3)],
        "s" => ["a", "ß", "a text that is longer than a view holds"],
        "b" => [Some(true), Some(false), None],
        "f" => [1.5f32, f32::INFINITY, -0.0],
        "u" => [0u8, 7, 255],
        "y" => [&b""[..], b"\0\xff", b"x"]
    )
    .unwrap();
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let check = |frame: &DataFrame| {
        assert_eq!(frame.schema(), expected.schema());
        assert!(frame.equals_missing(&expected), "{frame:?}");
    };
    read_as::<_, DataFrame>(batch.clone(), check);
    read_as::<_, DataFrame>(vec![batch], check);
}

#[test]
fn common_types_of_arrow_read_as_a_polars_frame() {
    use DataType::*;
    let common = simple_types().into_iter().filter(|dtype| {
        // Types of Arrow that polars has none for.
        let zone = |zone: &str| zone.starts_with('+');
        !matches!(dtype, Timestamp(_, Some(name)) if zone(name))
            && !matches!(dtype, Float16 | FixedSizeBinary(_) | Decimal256(..) | Duration(TimeUnit::Second) | Time32(_))
    });
    let types: Vec<_> = common.chain(nested_types(&Int32)).filter(|dtype| !matches!(dtype, Map(..))).collect();
    let frames = types.iter().map(|dtype| batch(dtype, 9, true)).collect();
    read_each_as::<_, DataFrame>(frames, |i, frame| {
        assert_eq!(frame.shape(), (9, 1), "{}", types[i]);
        let nulls = if types[i] == Null { 9 } else { 2 };
        assert_eq!(frame.columns()[0].null_count(), nulls, "{}", types[i]);
    });
}

/// Rows with `count` different texts, of which the first is this one, in a dictionary with keys of 8 bits.
fn few_keys(first: u32, count: u32) -> RecordBatch {
    let texts: Vec<String> = (first..first + count).map(|i| format!("text {i}")).collect();
    let texts: DictionaryArray<Int8Type> = texts.iter().map(String::as_str).collect();
    RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).unwrap()
}

#[test]
fn dictionaries_whose_keys_cannot_tell_all_values_apart_are_refused() {
    let chest = Chest::builder().inline_limit(0).temporary().unwrap();
    keep(few_keys(0, 127));
    keep_each(&[few_keys(0, 100), few_keys(0, 100), few_keys(27, 100)]);
    let refused = |error: icechest::Error| {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("\"text\"") && error.to_string().contains("32 bits"), "{error}");
    };
    refused(chest.insert("k", few_keys(0, 128)).unwrap_err());
    refused(chest.insert("k", vec![few_keys(0, 100), few_keys(100, 100)]).unwrap_err());
    let mut writer = chest.frame_writer("k", few_keys(0, 1).schema()).unwrap();
    writer.write(&few_keys(0, 100)).unwrap();
    refused(writer.write(&few_keys(100, 100)).unwrap_err());
    drop(writer);
    assert!(chest.is_empty().unwrap());
    // Appended, they are in files of their own, and stay there.
    chest.insert("k", few_keys(0, 100)).unwrap();
    chest.append("k", few_keys(100, 30)).unwrap();
    let rows = || chest.get::<Vec<RecordBatch>>("k").unwrap().iter().map(RecordBatch::num_rows).sum::<usize>();
    assert_eq!(rows(), 130);
    refused(chest.compact("k").unwrap_err());
    assert_eq!(rows(), 130);
}

/// Joined they would have too many values for one dictionary.
#[test]
fn rows_that_cannot_be_joined_with_those_before_are_files_of_their_own() {
    let count =
        |chest: &Chest| chest.get::<Vec<RecordBatch>>("k").unwrap().iter().map(RecordBatch::num_rows).sum::<usize>();
    let chest = Chest::builder().inline_limit(0).temporary().unwrap();
    chest.insert("k", few_keys(0, 100)).unwrap();
    for i in 1..5 {
        chest.append("k", few_keys(i * 100, 100)).unwrap();
        chest.append("k", few_keys(i * 100, 100)).unwrap();
        assert_eq!(count(&chest), 100 + 200 * i as usize);
    }
    // A small value is written again as a whole.
    let chest = Chest::temporary().unwrap();
    chest.insert("k", few_keys(0, 100)).unwrap();
    assert_eq!(chest.append("k", few_keys(100, 100)).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(count(&chest), 100);
}

#[test]
fn a_large_dictionary_stays_one() {
    let dir = super::dir();
    let chest = Chest::builder().budget(0).open(dir.path()).unwrap();
    let texts = StringArray::from_iter_values((0..3000).map(|i| format!("{i:01000}")));
    let keys = Int32Array::from_iter_values((0..200_000).map(|i| i * 7 % 3000));
    let column: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::new(texts)));
    let field = Arc::new(Field::new("inner", column.data_type().clone(), false));
    let outer: ArrayRef = Arc::new(StructArray::from(vec![(field, column.clone())]));
    let batch = RecordBatch::try_from_iter([("d", column), ("s", outer)]).unwrap();
    chest.insert("k", batch.clone()).unwrap();
    let info = chest.info("k").unwrap();
    assert!(info.stored_bytes < 4 << 20, "{info}");
    let found = chest.get::<Vec<RecordBatch>>("k").unwrap();
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 200_000);
    let size = icechest::Value::size(&*found) as u64;
    assert!(size < 4 * info.bytes, "{size} bytes of {}", info.bytes);
}

#[test]
fn numbers_and_nested_values_are_counted_too() {
    let chest = Chest::temporary().unwrap();
    let numbers = |first: i64, count: i64| -> ArrayRef {
        let values = Int64Array::from_iter_values(first..first + count);
        let keys = UInt8Array::from_iter_values((0..count).map(|key| key as u8));
        Arc::new(DictionaryArray::new(keys, Arc::new(values)))
    };
    let inside = |array: ArrayRef| -> ArrayRef {
        let field = Arc::new(Field::new("number", array.data_type().clone(), true));
        Arc::new(StructArray::from(vec![(field, array)]))
    };
    for wrap in [|array| array, inside] {
        let batch = |first, count| RecordBatch::try_from_iter([("x", wrap(numbers(first, count)))]).unwrap();
        keep_each(&[batch(0, 200), batch(55, 200)]);
        let error = chest.insert("k", vec![batch(0, 200), batch(100, 200)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}

#[test]
fn batches_of_long_texts_are_short() {
    let chest = Chest::temporary().unwrap();
    let texts = |rows| StringArray::from_iter_values(std::iter::repeat_n("x".repeat(1 << 20), rows));
    let batch = |rows| RecordBatch::try_from_iter([("text", Arc::new(texts(rows)) as ArrayRef)]).unwrap();
    let mut writer = chest.frame_writer("k", batch(0).schema()).unwrap();
    (0..40).for_each(|_| writer.write(&batch(10)).unwrap());
    writer.finish().unwrap();
    let rows: Vec<usize> = chest.select("k").batches().unwrap().map(|batch| batch.unwrap().num_rows()).collect();
    assert!(rows.iter().sum::<usize>() == 400 && rows.iter().all(|&rows| rows <= 300), "{rows:?}");
}

/// The writer of IPC files writes all text that lies behind a view.
#[test]
fn of_views_only_the_text_that_they_show_is_stored() {
    let dir = crate::helpers::dir();
    let chest = Chest::builder().inline_limit(0).frame_format(FrameFormat::Arrow).open(dir.path()).unwrap();
    let texts = StringViewArray::from_iter_values((0..20_000).map(|i| format!("a text of more than twelve bytes {i}")));
    let field = Field::new("text", DataType::Utf8View, false);
    let schema = Arc::new(Schema::new(vec![field.clone()]));
    let batch = RecordBatch::try_new(schema, vec![Arc::new(texts.clone())]).unwrap();
    chest.insert("all", batch.clone()).unwrap();
    chest.insert("few", batch.slice(5000, 10)).unwrap();
    let inner = StructArray::new(Fields::from(vec![field]), vec![Arc::new(texts)], None);
    let outer = Arc::new(Schema::new(vec![Field::new("outer", inner.data_type().clone(), false)]));
    let nested = RecordBatch::try_new(outer, vec![Arc::new(inner)]).unwrap();
    chest.insert("nested", nested.slice(5000, 10)).unwrap();
    chest.flush().unwrap();
    let stored = |key: &str| {
        let info = chest.info(key).unwrap();
        (info.format.unwrap(), info.stored_bytes)
    };
    assert!(stored("all").0 == "arrow" && stored("all").1 > 600_000, "{:?}", stored("all"));
    assert!(stored("few").0 == "arrow" && stored("few").1 < 10_000, "{:?}", stored("few"));
    assert!(stored("nested").0 == "parquet" && stored("nested").1 < 10_000, "{:?}", stored("nested"));
    drop(chest);
    let chest = Chest::open(dir.path()).unwrap();
    assert_eq!(*chest.get::<RecordBatch>("few").unwrap(), batch.slice(5000, 10));
    assert_eq!(*chest.get::<RecordBatch>("nested").unwrap(), nested.slice(5000, 10));
}
