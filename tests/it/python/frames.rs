//! Frames that we write.

use std::sync::Arc;

use arrow_array::builder::{Int32Builder, MapBuilder, StringBuilder};
use arrow_array::types::{Int8Type, Int16Type, Int64Type};
use arrow_array::*;
use arrow_schema::{DataType as ArrowType, Field};
use half::f16;
use icechest::{Chest, Compression, FrameFormat, IntoValue};
use polars_core::df;
use polars_core::prelude::{
    CategoricalPhysical, Categories, DataFrame, DataType, FrozenCategories, IntoColumn, IntoSeries, NamedFrom, Series,
    TimeUnit, TimeZone,
};
use serde_json::{Value as Json, json};

use super::{COMPRESSIONS, Cases};

/// What Arrow and polars call a column's type in Python, and its values there. Without a name they cannot read it.
#[derive(Clone)]
struct Outside(&'static str, &'static str, Json);

impl Cases {
    fn add_frame(&mut self, name: &str, frame: impl IntoValue, columns: &[(String, Outside)]) {
        let columns: Vec<_> = columns
            .iter()
            .map(|(name, Outside(arrow, polars, values))| {
                let named = |name: &'static str| Some(name).filter(|name| !name.is_empty());
                json!({"name": name, "arrow": named(arrow), "polars": named(polars), "values": values})
            })
            .collect();
        self.add(format!("{}: {name}", self.cases.len()), frame, json!({"columns": columns}));
    }
}

fn series<T, A: ?Sized>(values: T) -> Series
where
    Series: NamedFrom<T, A>,
{
    Series::new("".into(), values)
}

fn numbers() -> Vec<(Series, Outside)> {
    macro_rules! integers {
        ($($type:ident $arrow:literal $polars:literal),*) => {
            [$((
                series([Some($type::MIN), None, Some(7), Some($type::MAX)]),
                Outside($arrow, $polars, json!([$type::MIN, null, 7, $type::MAX])),
            )),*]
        };
    }
    let floats = json!([1.5, null, "nan", "-inf"]);
    let extremes = [0.1, f64::MAX, f64::MIN_POSITIVE, 5e-324];
    let mut all = Vec::from(integers!(
        i8 "int8" "Int8", i16 "int16" "Int16", i32 "int32" "Int32", i64 "int64" "Int64",
        u8 "uint8" "UInt8", u16 "uint16" "UInt16", u32 "uint32" "UInt32", u64 "uint64" "UInt64"
    ));
    all.extend([
        (
            series([Some(true), None, Some(false), Some(true)]),
            Outside("bool", "Boolean", json!([true, null, false, true])),
        ),
        (
            series([Some(1.5f32), None, Some(f32::NAN), Some(f32::NEG_INFINITY)]),
            Outside("float", "Float32", floats.clone()),
        ),
        (series([Some(1.5f64), None, Some(f64::NAN), Some(f64::NEG_INFINITY)]), Outside("double", "Float64", floats)),
        (series(extremes), Outside("double", "Float64", json!(extremes))),
    ]);
    let decimal = series([Some(-12345i128), None, Some(0), Some(99)]);
    let decimal = decimal.i128().unwrap().clone().into_decimal_unchecked(20, 3);
    let outside =
        Outside("decimal128(20, 3)", "Decimal(precision=20, scale=3)", json!(["-12.345", null, "0.000", "0.099"]));
    all.push((decimal.into_series(), outside));
    all
}

fn texts() -> Vec<(Series, Outside)> {
    let long = "a text that is longer than a view holds";
    let words = series([Some("a"), None, Some(""), Some(long)]);
    let values = json!(["a", null, "", long]);
    let some = DataType::from_categories(Categories::new("some".into(), "".into(), CategoricalPhysical::U32));
    let fixed = DataType::from_frozen_categories(FrozenCategories::new([long, "unused", "", "a"]).unwrap());
    let bytes = series([Some(&b"\x00\xff"[..]), None, Some(b""), Some(b"abc")]);
    vec![
        (words.clone(), Outside("string", "String", values.clone())),
        (series(["ß ☃", "\0", "\"", "\n"]), Outside("string", "String", json!(["ß ☃", "\0", "\"", "\n"]))),
        (
            words.cast(&some).unwrap(),
            Outside(
                "dictionary<values=string, indices=uint32, ordered=0>",
                r#"Categorical(Categories("some"))"#,
                values.clone(),
            ),
        ),
        (
            words.cast(&fixed).unwrap(),
            Outside(
                "dictionary<values=string, indices=uint8, ordered=1>",
                "Enum(categories=['a text that is longer than a view holds', 'unused', '', 'a'])",
                values,
            ),
        ),
        (bytes, Outside("binary", "Binary", json!(["00ff", null, "", "616263"]))),
    ]
}

/// Whole microseconds in times of the day: pandas has no finer ones.
fn times() -> Vec<(Series, Outside)> {
    use TimeUnit::{Microseconds, Milliseconds, Nanoseconds};
    let zone = |name| TimeZone::opt_try_new(Some(name)).unwrap();
    let cast = |dtype: DataType| series([Some(-1_000_000_001i64), None, Some(0), Some(1_700_000_000_123)]).cast(&dtype);
    let values = json!([-1_000_000_001i64, null, 0, 1_700_000_000_123i64]);
    let of = |dtype, arrow, polars| (cast(dtype).unwrap(), Outside(arrow, polars, values.clone()));
    let days = series([Some(-1i32), None, Some(0), Some(20_000)]).cast(&DataType::Date).unwrap();
    let clock = series([Some(0i64), None, Some(1000), Some(86_399_999_999_000)]).cast(&DataType::Time).unwrap();
    vec![
        of(DataType::Datetime(Milliseconds, None), "timestamp[ms]", "Datetime(time_unit='ms', time_zone=None)"),
        of(DataType::Datetime(Microseconds, None), "timestamp[us]", "Datetime(time_unit='us', time_zone=None)"),
        of(DataType::Datetime(Nanoseconds, None), "timestamp[ns]", "Datetime(time_unit='ns', time_zone=None)"),
        of(
            DataType::Datetime(Microseconds, zone("UTC")),
            "timestamp[us, tz=UTC]",
            "Datetime(time_unit='us', time_zone='UTC')",
        ),
        of(
            DataType::Datetime(Nanoseconds, zone("Europe/Berlin")),
            "timestamp[ns, tz=Europe/Berlin]",
            "Datetime(time_unit='ns', time_zone='Europe/Berlin')",
        ),
        of(DataType::Duration(Milliseconds), "duration[ms]", "Duration(time_unit='ms')"),
        of(DataType::Duration(Microseconds), "duration[us]", "Duration(time_unit='us')"),
        of(DataType::Duration(Nanoseconds), "duration[ns]", "Duration(time_unit='ns')"),
        (days, Outside("date32[day]", "Date", json!([-1, null, 0, 20_000]))),
        (clock, Outside("time64[ns]", "Time", json!([0, null, 1000, 86_399_999_999_000i64]))),
    ]
}

fn nested() -> Vec<(Series, Outside)> {
    let lists = series([Some(series([1i64, 2])), None, Some(series([0i64; 0])), Some(series([3i64]))]);
    let pairs = series([series([1i32, 2]), series([3i32, 4]), series([5i32, 6]), series([7i32, 8])]);
    let pairs = pairs.cast(&DataType::Array(Box::new(DataType::Int32), 2)).unwrap();
    let records =
        df!("x" => [Some(1i16), None, Some(3), Some(4)], "when" => [1i32, 2, 3, 4], "s" => ["a", "b", "c", "d"]);
    let mut records = records.unwrap();
    records.apply("when", |when| when.cast(&DataType::Date).unwrap()).unwrap();
    let records = records.into_struct("".into()).into_series();
    let record = |x: Json, when: i32, s: &str| json!({"x": x, "when": when, "s": s});
    let records_outside = json!([
        record(json!(1), 1, "a"),
        record(Json::Null, 2, "b"),
        record(json!(3), 3, "c"),
        record(json!(4), 4, "d")
    ]);
    vec![
        (lists, Outside("large_list<element: int64>", "List(Int64)", json!([[1, 2], null, [], [3]]))),
        (
            pairs,
            Outside(
                "fixed_size_list<element: int32>[2]",
                "Array(Int32, shape=(2,))",
                json!([[1, 2], [3, 4], [5, 6], [7, 8]]),
            ),
        ),
        (
            records,
            Outside(
                "struct<x: int16, when: date32[day], s: string>",
                "Struct({'x': Int16, 'when': Date, 's': String})",
                records_outside,
            ),
        ),
        (Series::new_null("".into(), 4), Outside("null", "Null", json!([null, null, null, null]))),
    ]
}

/// The first rows of columns, each with its number for a name.
fn first_rows<C>(columns: &[(C, Outside)], rows: usize) -> Vec<(String, Outside)> {
    let first = |values: &Json| values.as_array().unwrap()[..rows].to_vec().into();
    let columns = columns.iter().enumerate();
    columns
        .map(|(i, (_, Outside(arrow, polars, values)))| (i.to_string(), Outside(arrow, polars, first(values))))
        .collect()
}

/// Frames of these columns, with and without rows, in files of every compression.
fn check_polars(columns: &[(Series, Outside)]) {
    for compression in COMPRESSIONS {
        let mut cases = Cases::new(compression);
        for rows in [4, 2, 0] {
            let parts = columns.iter().enumerate();
            let parts =
                parts.map(|(i, (series, _))| series.slice(0, rows).with_name(i.to_string().into()).into_column());
            let frame = DataFrame::new(rows, parts.collect()).unwrap();
            cases.add_frame(&format!("polars, {rows} rows"), frame, &first_rows(columns, rows));
        }
        assert_eq!(cases.check(), ["parquet"; 3]);
    }
}

fn check_arrow(columns: &[(ArrayRef, Outside)]) {
    for compression in COMPRESSIONS {
        let mut cases = Cases::new(compression);
        for rows in [4, 2, 0] {
            let parts = columns.iter().enumerate().map(|(i, (array, _))| (i.to_string(), array.slice(0, rows), true));
            let batch = RecordBatch::try_from_iter_with_nullable(parts).unwrap();
            cases.add_frame(&format!("Arrow, {rows} rows"), batch.clone(), &first_rows(columns, rows));
            let halves = vec![batch.slice(0, rows / 2), batch.slice(rows / 2, rows - rows / 2)];
            cases.add_frame(&format!("Arrow in batches, {rows} rows"), halves, &first_rows(columns, rows));
        }
        assert_eq!(cases.check(), ["parquet"; 6]);
    }
}

#[test]
fn python_reads_polars_frames_of_every_type() {
    check_polars(&[numbers(), texts(), times(), nested()].into_iter().flatten().collect::<Vec<_>>());
}

#[test]
fn python_reads_and_maps_arrow_files() {
    let mut cases = Cases::with(Chest::builder().frame_format(FrameFormat::Arrow));
    let columns: Vec<_> = [numbers(), times()].into_iter().flatten().collect();
    let (arrow, polars) = (flat(), Outside("string", "String", json!(["a", "", null, "not short enough for a view"])));
    let text = series([Some("a"), Some(""), None, Some("not short enough for a view")]);
    let columns = [columns, vec![(text, polars)]].concat();
    for rows in [4, 2, 0] {
        let parts = columns.iter().enumerate();
        let parts = parts.map(|(i, (series, _))| series.slice(0, rows).with_name(i.to_string().into()).into_column());
        let frame = DataFrame::new(rows, parts.collect()).unwrap();
        cases.add_frame(&format!("polars, {rows} rows"), frame, &first_rows(&columns, rows));
        let parts = arrow.iter().enumerate().map(|(i, (array, _))| (i.to_string(), array.slice(0, rows), true));
        let batch = RecordBatch::try_from_iter_with_nullable(parts).unwrap();
        cases.add_frame(&format!("Arrow, {rows} rows"), batch.clone(), &first_rows(&arrow, rows));
        let halves = vec![batch.slice(0, rows / 2), batch.slice(rows / 2, rows - rows / 2)];
        cases.add_frame(&format!("Arrow in batches, {rows} rows"), halves, &first_rows(&arrow, rows));
    }
    assert_eq!(cases.check(), ["arrow"; 9]);
}

#[test]
fn python_reads_polars_lists_of_text() {
    let lists = series([series([Some("x"), None]), series(["y"]), series([""; 0]), series([""])]);
    let values = json!([["x", null], ["y"], [], [""]]);
    check_polars(&[(lists, Outside("large_list<element: string>", "List(String)", values))]);
}

#[test]
fn only_polars_reads_integers_of_128_bits() {
    let values = [Some(-1i128), None, Some(7), Some(i64::MAX.into())];
    check_polars(&[(series(values), Outside("", "Int128", json!([-1, null, 7, i64::MAX])))]);
}

/// Every fourth value is null; what the others are hangs on the type.
fn flat() -> Vec<(ArrayRef, Outside)> {
    macro_rules! columns {
        ($($array:ident $values:tt $(.$change:ident($($argument:expr),*))? => $arrow:literal $polars:literal $json:tt;)*) => {
            vec![$((
                Arc::new($array::from(vec! $values) $(.$change($($argument),*))?) as ArrayRef,
                Outside($arrow, $polars, json!($json)),
            )),*]
        };
    }
    columns! {
        BooleanArray [Some(true), None, Some(false), Some(true)] => "bool" "Boolean" [true, null, false, true];
        Int8Array [Some(-128), None, Some(0), Some(127)] => "int8" "Int8" [-128, null, 0, 127];
        Int64Array [Some(i64::MIN), None, Some(0), Some(1)] => "int64" "Int64" [(i64::MIN), null, 0, 1];
        UInt64Array [Some(u64::MAX), None, Some(0), Some(1)] => "uint64" "UInt64" [(u64::MAX), null, 0, 1];
        Float32Array [Some(f32::NAN), None, Some(-0.5), Some(f32::INFINITY)] => "float" "Float32" ["nan", null, -0.5, "inf"];
        Float64Array [Some(f64::NAN), None, Some(0.1), Some(f64::INFINITY)] => "double" "Float64" ["nan", null, 0.1, "inf"];
        StringArray [Some("a"), None, Some(""), Some("ß ☃")] => "string" "String" ["a", null, "", "ß ☃"];
        LargeStringArray [Some("a"), None, Some(""), Some("b")] => "string" "String" ["a", null, "", "b"];
        StringViewArray [Some("a"), None, Some(""), Some("b")] => "string" "String" ["a", null, "", "b"];
        BinaryArray [Some(&b"\0\xff"[..]), None, Some(b""), Some(b"b")] => "binary" "Binary" ["00ff", null, "", "62"];
        Date32Array [Some(-1), None, Some(0), Some(20_000)] => "date32[day]" "Date" [-1, null, 0, 20_000];
        Time32MillisecondArray [Some(1), None, Some(0), Some(86_399_999)] => "time32[ms]" "Time" [1_000_000, null, 0, 86_399_999_000_000i64];
        Time64MicrosecondArray [Some(1), None, Some(0), Some(86)] => "time64[us]" "Time" [1000, null, 0, 86_000];
        Time64NanosecondArray [Some(1000), None, Some(0), Some(86_000)] => "time64[ns]" "Time" [1000, null, 0, 86_000];
        TimestampMillisecondArray [Some(-1), None, Some(0), Some(1_700_000_000_123)] =>
            "timestamp[ms]" "Datetime(time_unit='ms', time_zone=None)" [-1, null, 0, 1_700_000_000_123i64];
        TimestampMicrosecondArray [Some(-1), None, Some(0), Some(9)].with_timezone("Europe/Berlin") =>
            "timestamp[us, tz=Europe/Berlin]" "Datetime(time_unit='us', time_zone='Europe/Berlin')" [-1, null, 0, 9];
        TimestampNanosecondArray [Some(-1), None, Some(0), Some(9)].with_timezone("UTC") =>
            "timestamp[ns, tz=UTC]" "Datetime(time_unit='ns', time_zone='UTC')" [-1, null, 0, 9];
        DurationMicrosecondArray [Some(-1), None, Some(0), Some(9)] =>
            "duration[us]" "Duration(time_unit='us')" [-1, null, 0, 9];
    }
}

fn composed() -> Vec<(ArrayRef, Outside)> {
    let decimals = Decimal128Array::from(vec![Some(-12345), None, Some(0), Some(99)]);
    let decimals = decimals.with_precision_and_scale(20, 3).unwrap();
    let words: DictionaryArray<Int8Type> = [Some("b"), None, Some("a"), Some("b")].into_iter().collect();
    let numbers = [Some(vec![Some(1), None]), None, Some(vec![]), Some(vec![Some(3)])];
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(numbers.clone());
    let large = LargeListArray::from_iter_primitive::<Int64Type, _, _>(numbers);
    let pairs = [Some([1, 2]), None, Some([5, 6]), Some([7, 8])].map(|pair| pair.map(|pair| pair.map(Some)));
    let pairs = FixedSizeListArray::from_iter_primitive::<Int16Type, _, _>(pairs, 2);
    let field = |name: &str, dtype| Arc::new(Field::new(name, dtype, true));
    let records = StructArray::from(vec![
        (field("x", ArrowType::Int16), Arc::new(Int16Array::from(vec![Some(1), None, Some(3), Some(4)])) as ArrayRef),
        (field("s", ArrowType::Utf8), Arc::new(StringArray::from(vec!["a", "b", "c", "d"]))),
    ]);
    let numbers = json!([[1, null], null, [], [3]]);
    vec![
        (
            Arc::new(decimals),
            Outside("decimal128(20, 3)", "Decimal(precision=20, scale=3)", json!(["-12.345", null, "0.000", "0.099"])),
        ),
        (
            Arc::new(words),
            Outside("dictionary<values=string, indices=int8, ordered=0>", "Categorical", json!(["b", null, "a", "b"])),
        ),
        (Arc::new(lists), Outside("list<item: int64>", "List(Int64)", numbers.clone())),
        (Arc::new(large), Outside("large_list<item: int64>", "List(Int64)", numbers)),
        (
            Arc::new(pairs),
            Outside(
                "fixed_size_list<item: int16>[2]",
                "Array(Int16, shape=(2,))",
                json!([[1, 2], null, [5, 6], [7, 8]]),
            ),
        ),
        (
            Arc::new(records),
            Outside(
                "struct<x: int16, s: string>",
                "Struct({'x': Int16, 's': String})",
                json!([{"x": 1, "s": "a"}, {"x": null, "s": "b"}, {"x": 3, "s": "c"}, {"x": 4, "s": "d"}]),
            ),
        ),
        (Arc::new(NullArray::new(4)), Outside("null", "Null", json!([null, null, null, null]))),
    ]
}

/// Types that polars does not have.
fn without_polars() -> Vec<(ArrayRef, Outside)> {
    // The `parquet` crate stores seconds as integers, and only Arrow in Rust makes times of them again.
    let seconds = TimestampSecondArray::from(vec![Some(-1), None, Some(0), Some(9)]);
    let halves = Float16Array::from(vec![Some(f16::NAN), None, Some(f16::ONE), Some(f16::MAX)]);
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for pairs in [&[("a", 1), ("b", 2)][..], &[], &[("c", 3)], &[]] {
        pairs.iter().for_each(|&(key, value)| {
            map.keys().append_value(key);
            map.values().append_value(value);
        });
        map.append(true).unwrap();
    }
    vec![
        (Arc::new(seconds), Outside("int64", "", json!([-1, null, 0, 9]))),
        (Arc::new(halves), Outside("halffloat", "", json!(["nan", null, 1.0, 65504.0]))),
        (
            Arc::new(map.finish()),
            Outside("map<string, int32 ('2')>", "", json!([[["a", 1], ["b", 2]], [], [["c", 3]], []])),
        ),
    ]
}

#[test]
fn python_reads_arrow_frames_of_every_type() {
    check_arrow(&[flat(), composed()].into_iter().flatten().collect::<Vec<_>>());
}

#[test]
fn pyarrow_reads_arrow_frames_of_types_that_polars_lacks() {
    check_arrow(&without_polars());
}

#[test]
fn python_reads_frames_with_odd_column_names() {
    let mut cases = Cases::new(Compression::Auto);
    let names = ["", " ", "a.b", "select", "ß ☃", "\"", "'", "[0]", "a\nb"];
    let outside = Outside("int32", "Int32", json!([7]));
    let columns: Vec<_> = names.iter().map(|name| ((*name).to_owned(), outside.clone())).collect();
    let parts = names.iter().map(|name| Series::new((*name).into(), [7i32]).into_column());
    cases.add_frame("odd names", DataFrame::new(1, parts.collect()).unwrap(), &columns);
    cases.add_frame("no columns", DataFrame::empty(), &[]);
    cases.check();
}

/// Must be more than one row group, whoever writes: polars cuts a frame only when it has two.
const ROWS: usize = 600_000;

/// What `measurements` in `check.py` tells.
fn measurements() -> DataFrame {
    let ids = || 0..ROWS as i64;
    let mut frame = df!(
        "id" => ids().collect::<Vec<_>>(),
        "half" => ids().map(|i| i as f64 / 2.0).collect::<Vec<_>>(),
        "group" => ids().map(|i| format!("group {}", i % 7)).collect::<Vec<_>>(),
        "time" => ids().map(|i| i * 1_000_000).collect::<Vec<_>>(),
        "some" => ids().map(|i| (i % 3 != 0).then_some(i)).collect::<Vec<_>>()
    )
    .unwrap();
    frame.apply("time", |time| time.cast(&DataType::Datetime(TimeUnit::Microseconds, None)).unwrap()).unwrap();
    frame
}

#[test]
fn python_reads_parts_of_large_frames() {
    let mut cases = Cases::new(Compression::Auto);
    let facts = || json!({"rows": ROWS, "groups": 2});
    cases.add("polars".to_owned(), measurements(), facts());
    let batches = cases.chest.get::<Vec<RecordBatch>>("polars").unwrap();
    cases.add("Arrow".to_owned(), batches, facts());
    assert_eq!(cases.check(), ["parquet"; 2]);
}
