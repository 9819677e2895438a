use polars_core::df;
use polars_core::frame::column::Column;
use polars_core::prelude::*;
use proptest::prelude::*;

use super::*;

fn frame(column: Series) -> DataFrame {
    DataFrame::new(column.len(), vec![column.into()]).unwrap()
}

fn of(column: Series) -> Digest {
    frame(column).digest()
}

/// Columns of all sorts with this many rows, nulls here and there.
pub(super) fn columns(rows: usize) -> Vec<Series> {
    let numbers: Vec<Option<i64>> = (0..rows).map(|row| (row % 7 != 3).then_some(row as i64 * 31 % 100)).collect();
    let text: Vec<Option<String>> =
        numbers.iter().map(|number| number.map(|number| "text that is long".repeat(number as usize % 3))).collect();
    let numbers = Series::new("x".into(), numbers);
    let text = Series::new("x".into(), text);
    let cast = |dtype: &DataType| numbers.cast(dtype).unwrap();
    let lists: ListChunked = (0..rows).map(|row| (row % 5 != 2).then(|| numbers.slice(row as i64, row % 3))).collect();
    let lists = lists.into_series().with_name("x".into());
    let fields = [numbers.clone().with_name("a".into()), text.clone().with_name("b".into())];
    let structs = StructChunked::from_series("x".into(), rows, fields.iter()).unwrap();
    let validity = (0..rows).map(|row| row % 4 != 1).collect();
    let structs = structs.with_outer_validity(Some(validity)).into_series();
    let words: Vec<Option<String>> = (0..rows).map(|row| (row % 6 != 1).then(|| format!("word {}", row % 4))).collect();
    let words = Series::new("x".into(), words);
    let categories = FrozenCategories::new((0..4).map(|i| ["word 0", "word 1", "word 2", "word 3"][i])).unwrap();
    let categorical = words.cast(&DataType::from_categories(Categories::global())).unwrap();
    let twice: Vec<i64> = (0..2 * rows as i64).collect();
    let arrays =
        Series::new("x".into(), twice).reshape_array(&[ReshapeDimension::Infer, ReshapeDimension::new_dimension(2)]);
    vec![
        Series::new_null("x".into(), rows),
        cast(&DataType::Boolean),
        cast(&DataType::Int8),
        cast(&DataType::UInt32),
        numbers.clone(),
        cast(&DataType::Int128),
        cast(&DataType::Float32),
        cast(&DataType::Float64),
        cast(&DataType::Decimal(20, 2)),
        cast(&DataType::Date),
        cast(&DataType::Time),
        cast(&DataType::Datetime(TimeUnit::Milliseconds, None)),
        cast(&DataType::Datetime(TimeUnit::Nanoseconds, None)),
        cast(&DataType::Datetime(TimeUnit::Milliseconds, Some(TimeZone::UTC))),
        cast(&DataType::Duration(TimeUnit::Microseconds)),
        text.clone(),
        text.cast(&DataType::Binary).unwrap(),
        words.cast(&DataType::from_frozen_categories(categories)).unwrap(),
        categorical.clone(),
        lists.clone(),
        lists.cast(&DataType::List(Box::new(DataType::Float64))).unwrap(),
        arrays.unwrap(),
        structs,
        StructChunked::from_series("x".into(), rows, [categorical, lists.with_name("y".into())].iter())
            .unwrap()
            .into_series(),
    ]
}

/// Rows one behind the other, in pieces of so many.
fn cut(whole: &DataFrame, piece: usize) -> DataFrame {
    let mut parts = (0..whole.height()).step_by(piece).map(|start| whole.slice(start as i64, piece));
    let mut all = parts.next().unwrap();
    parts.for_each(|part| _ = all.vstack_mut(&part).unwrap());
    all
}

#[test]
fn what_several_threads_hash_counts_as_small_pieces_do() {
    let rows = 600_000;
    let number = |row: usize| (row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let numbers: Vec<Option<u64>> = (0..rows).map(|row| (row % 10 != 3).then(|| number(row))).collect();
    // Up to 23 bytes, and a few that fill more than a thread takes at a time.
    let text: Vec<Option<String>> = (0..rows)
        .map(|row| match number(row) % 25 {
            0 => None,
            _ if row % 250_000 == 249_999 => Some("long ".repeat(600_000)),
            len => Some("a text that may be cut off"[..len as usize - 1].to_owned()),
        })
        .collect();
    let whole = df!("numbers" => numbers, "text" => text).unwrap();
    assert_eq!(cut(&whole, 7001).digest(), whole.digest());

    let truths: Vec<Option<bool>> = (0..20_000_000).map(|row| (row % 7 > 0).then_some(number(row) % 2 > 0)).collect();
    let whole = df!("truths" => truths).unwrap();
    assert_eq!(cut(&whole, 700_001).digest(), whole.digest());
}

#[test]
fn how_rows_are_cut_plays_no_part() {
    for column in columns(300) {
        let (whole, name) = (frame(column.clone()), column.dtype().to_string());
        for cuts in [&[0, 300][..], &[0, 1, 300], &[0, 64, 128, 300], &[0, 3, 71, 299, 300]] {
            let mut parts = cuts.windows(2).map(|ends| whole.slice(ends[0], (ends[1] - ends[0]) as usize));
            let mut all = parts.next().unwrap();
            parts.for_each(|part| _ = all.vstack_mut(&part).unwrap());
            assert_eq!(all.digest(), whole.digest(), "{name} {cuts:?}");
            all.rechunk_mut_par();
            assert_eq!(all.digest(), whole.digest(), "{name} {cuts:?}");
        }
        let part = whole.slice(90, 100);
        let taken = whole.take(&IdxCa::from_vec("i".into(), (90..190).collect())).unwrap();
        assert_eq!(part.digest(), taken.digest(), "{name}");
        let same = column.dtype() == &DataType::Null;
        assert_eq!(part.digest() == whole.slice(91, 100).digest(), same, "{name}");
    }
}

#[test]
fn rows_and_types_count() {
    let mut digests = Vec::new();
    for column in columns(300) {
        digests.push(of(column.clone()));
        digests.push(of(column.slice(0, 299)));
        digests.push(of(column.clear()));
        digests.push(of(Series::full_null("x".into(), 300, column.dtype())));
    }
    // A column of nulls is the one that has nothing else.
    assert_eq!(digests.remove(3), digests[0]);
    digests.push(DataFrame::empty().digest());
    digests.push(DataFrame::new(3, vec![]).unwrap().digest());
    assert_distinct(&digests);
}

#[test]
fn names_and_order_count() {
    assert_distinct(&[
        df!("a" => [1, 2], "b" => [3, 4]).unwrap().digest(),
        df!("b" => [3, 4], "a" => [1, 2]).unwrap().digest(),
        df!("b" => [1, 2], "a" => [3, 4]).unwrap().digest(),
        df!("a" => [2, 1], "b" => [4, 3]).unwrap().digest(),
        df!("a" => [1, 2]).unwrap().digest(),
    ]);
}

#[test]
fn a_column_is_its_series() {
    let series = Series::new("x".into(), [1, 2]);
    assert_eq!(series.digest(), Column::from(series.clone()).digest());
    assert_ne!(series.digest(), series.clone().with_name("y".into()).digest());
    assert_ne!(series.digest(), of(series));
}

#[test]
fn one_value_for_a_column_is_so_many_values() {
    for rows in [0, 1, 3, super::super::polars::REPEATED, 2 * super::super::polars::REPEATED + 5] {
        for value in [Scalar::from(7i64), Scalar::null(DataType::Int64)] {
            let scalar = Column::new_scalar("x".into(), value, rows);
            let series = scalar.as_materialized_series().rechunk();
            let alike = DataFrame::new(rows, vec![scalar]).unwrap();
            assert_eq!(alike.digest(), of(series), "{rows}");
        }
    }
}

#[test]
fn what_a_null_hides_does_not_count() {
    let make = |hidden: i64| {
        let numbers = Int64Chunked::from_vec("x".into(), vec![1, hidden, 3]);
        let validity: polars_arrow::bitmap::Bitmap = [true, false, true].into_iter().collect();
        let array = numbers.downcast_iter().next().unwrap().clone().with_validity(Some(validity));
        of(Int64Chunked::with_chunk("x".into(), array).into_series())
    };
    assert_eq!(make(2), make(5));
    assert_eq!(make(2), of(Series::new("x".into(), [Some(1i64), None, Some(3)])));
}

#[test]
fn categories_count_by_their_text() {
    let text = |words: &[&str]| Series::new("x".into(), words);
    let own = |name: &str| Categories::new(name.into(), "test".into(), CategoricalPhysical::U8);
    let make = |before: &[&str], words: &[&str]| {
        // Those that come first get other codes.
        let categories = Categories::random("test".into(), CategoricalPhysical::U32);
        let dtype = DataType::from_categories(categories.clone());
        let before = text(before).cast(&dtype).unwrap();
        let column = text(words).cast(&dtype).unwrap();
        drop(before);
        let mut outline = Outline::new("");
        super::super::polars::of_values(&column, &mut outline);
        outline.finish()
    };
    assert_eq!(make(&[], &["a", "b"]), make(&["x", "b"], &["a", "b"]));
    assert_ne!(make(&[], &["a", "b"]), make(&[], &["b", "a"]));

    let cast = |categories| of(text(&["a"]).cast(&DataType::from_categories(categories)).unwrap());
    let of_enum = |categories: &[&str]| {
        let categories = FrozenCategories::new(categories.iter().copied()).unwrap();
        of(text(&["a"]).cast(&DataType::from_frozen_categories(categories)).unwrap())
    };
    assert_distinct(&[
        cast(own("one")),
        cast(own("two")),
        cast(Categories::global()),
        of_enum(&["a", "b"]),
        of_enum(&["b", "a"]),
        of_enum(&["a"]),
        of(text(&["a"])),
    ]);
}

proptest! {
    #[test]
    fn neighbours_differ(
        cells in proptest::collection::vec(proptest::option::of("[ab]{0,3}"), 1..100),
        at in any::<prop::sample::Index>(),
        cell in proptest::option::of("[ab]{0,3}"),
    ) {
        let make = |cells: &[Option<String>]| {
            let lengths: Vec<_> = cells.iter().map(|cell| cell.as_ref().map(|cell| cell.len() as u32)).collect();
            let truths: Vec<_> = cells.iter().map(|cell| cell.as_ref().map(|cell| cell.starts_with('a'))).collect();
            df!("lengths" => lengths, "truths" => truths, "text" => cells).unwrap().digest()
        };
        let mut other = cells.clone();
        other[at.index(cells.len())] = cell;
        prop_assert_eq!(make(&cells) == make(&other), cells == other);
        prop_assert_ne!(make(&cells), make(&cells[1..]));
    }
}
