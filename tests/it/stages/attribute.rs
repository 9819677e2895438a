//! The attribute `#[stage]`.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use futures_lite::future::block_on;
use icechest::{Chest, Error, Result, Stored, stage};

static CHEST: LazyLock<Chest> = LazyLock::new(|| Chest::temporary().unwrap());

/// Counts the runs of one test's functions.
macro_rules! runs {
    ($name:ident) => {
        static $name: AtomicU32 = AtomicU32::new(0);
    };
}

fn ran(runs: &AtomicU32) -> u32 {
    runs.swap(0, Ordering::Relaxed)
}

fn count(runs: &AtomicU32) {
    runs.fetch_add(1, Ordering::Relaxed);
}

runs!(PLAIN);

#[stage(chest = CHEST)]
fn square(x: u64) -> u64 {
    count(&PLAIN);
    x * x
}

#[test]
fn a_function_runs_once_for_each_call() {
    assert_eq!([square(3), square(3), square(4)], [9, 9, 16]);
    assert_eq!(ran(&PLAIN), 2);
    let stats = &CHEST.stage_stats().unwrap()["square"];
    assert_eq!((stats.computed, stats.memory), (2, 1));
}

runs!(SHARED);

#[stage(chest = CHEST)]
fn shared(len: usize) -> Arc<Vec<f64>> {
    count(&SHARED);
    Arc::new(vec![0.5; len])
}

#[test]
fn an_arc_is_shared() {
    let (one, other) = (shared(10), shared(10));
    assert!(Arc::ptr_eq(&one, &other));
    assert_eq!(ran(&SHARED), 1);
}

runs!(FALLIBLE);

#[stage(chest = CHEST)]
fn parse(text: &str) -> Result<f64, Box<dyn std::error::Error>> {
    count(&FALLIBLE);
    if text.is_empty() {
        return Err("empty".into());
    }
    Ok(text.parse()?)
}

#[test]
fn errors_are_not_stored() {
    for _ in 0..2 {
        assert_eq!(parse("2.5").unwrap(), 2.5);
        assert_eq!(parse("").unwrap_err().to_string(), "empty");
        assert!(parse("many").is_err());
    }
    assert_eq!(ran(&FALLIBLE), 5);
}

runs!(ERRORS);

#[stage(chest = CHEST, cache_errors)]
fn checked(text: String) -> Result<u8, String> {
    count(&ERRORS);
    text.parse::<u8>().map_err(|error| error.to_string())
}

#[test]
fn errors_are_stored_if_asked() {
    for _ in 0..2 {
        assert!(checked("300".into()).is_err());
        assert_eq!(checked("200".into()), Ok(200));
    }
    assert_eq!(ran(&ERRORS), 2);
}

runs!(ASYNC);

#[stage(chest = CHEST, version = 3)]
async fn fetch(name: String, size: usize) -> Vec<u8> {
    count(&ASYNC);
    futures_lite::future::yield_now().await;
    name.bytes().cycle().take(size).collect()
}

#[stage(chest = CHEST)]
async fn fetch_or_fail(name: &str) -> Result<String> {
    count(&ASYNC);
    futures_lite::future::yield_now().await;
    if name.is_empty() { Err(Error::new(icechest::ErrorKind::Invalid, "no name")) } else { Ok(name.repeat(2)) }
}

/// The type of what `?` and `into` give is known from the signature alone.
#[stage(chest = CHEST)]
async fn parsed(text: &str) -> std::result::Result<i64, Box<dyn std::error::Error + Send + Sync>> {
    futures_lite::future::yield_now().await;
    if text.is_empty() {
        return Err("no number".into());
    }
    let number: i32 = text.parse()?;
    Ok(number.into())
}

#[stage(chest = CHEST)]
async fn widened(number: u8) -> u64 {
    number.into()
}

#[test]
fn async_bodies_know_their_types() {
    /// What an executor with several threads asks for.
    fn sent<T: Send>(task: T) -> T {
        task
    }
    let text = "17".to_owned();
    block_on(async {
        assert_eq!(sent(parsed(&text)).await.unwrap(), 17);
        assert_eq!(parsed("").await.unwrap_err().to_string(), "no number");
        assert!(parsed("x").await.unwrap_err().is::<std::num::ParseIntError>());
        assert_eq!(sent(widened(5)).await, 5);
        assert_eq!(sent(fetch("ab".into(), 3)).await, b"aba");
    });
}

#[test]
fn async_functions() {
    block_on(async {
        for _ in 0..2 {
            assert_eq!(fetch("ab".into(), 3).await, b"aba");
            assert_eq!(fetch_or_fail("xy").await.unwrap(), "xyxy");
            assert!(fetch_or_fail("").await.is_err());
        }
    });
    assert_eq!(ran(&ASYNC), 4);
}

runs!(METHOD);

#[derive(serde::Serialize)]
struct Model {
    weight: f64,
    #[serde(skip)]
    chest: Option<Chest>,
}

impl Model {
    fn chest(&self) -> &Chest {
        self.chest.as_ref().unwrap()
    }

    #[stage(chest = self.chest(), name = "predict")]
    fn predict(&self, x: f64) -> f64 {
        count(&METHOD);
        self.weight * x
    }

    #[stage(chest = self.chest(), ignore(self))]
    fn double(&self, x: f64) -> f64 {
        count(&METHOD);
        2.0 * x
    }
}

#[test]
fn methods_know_their_object_unless_it_is_ignored() {
    let chest = Chest::temporary().unwrap();
    let model = |weight| Model { weight, chest: Some(chest.clone()) };
    assert_eq!([model(2.0).predict(3.0), model(2.0).predict(3.0), model(4.0).predict(3.0)], [6.0, 6.0, 12.0]);
    assert_eq!(ran(&METHOD), 2);
    assert_eq!([model(2.0).double(3.0), model(4.0).double(3.0)], [6.0, 6.0]);
    assert_eq!(ran(&METHOD), 1);
}

runs!(PATHS);

#[stage(chest = CHEST, path(data), ignore(verbose))]
fn lines(data: &Path, verbose: bool) -> std::io::Result<usize> {
    count(&PATHS);
    if verbose {
        eprintln!("counting");
    }
    Ok(std::fs::read_to_string(data)?.lines().count())
}

#[test]
fn paths_stand_for_their_content() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    std::fs::write(&one, "1\n2\n").unwrap();
    std::fs::write(&other, "1\n2\n").unwrap();
    assert_eq!([lines(&one, false).unwrap(), lines(&other, true).unwrap()], [2, 2]);
    assert_eq!(ran(&PATHS), 1);
    std::fs::write(&one, "1\n2\n3\n").unwrap();
    assert_eq!(lines(&one, false).unwrap(), 3);
    let error = lines(&dir.path().join("missing"), false).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

runs!(OPTIONS);

#[stage(chest = CHEST, round(0.1, deep), typed, tag = "t", expire = std::time::Duration::from_secs(60), check_source)]
fn rounded<T: serde::Serialize + Copy>(x: T, points: Vec<f64>) -> f64 {
    count(&OPTIONS);
    let _ = x;
    points.iter().sum()
}

#[stage(chest = CHEST, key = (user.len(), day), keep_memory = false)]
fn keyed(user: &str, day: u32) -> String {
    count(&OPTIONS);
    format!("{user} {day}")
}

#[stage(chest = CHEST, disable = x > 10)]
fn sometimes(x: u32) -> u32 {
    count(&OPTIONS);
    x
}

#[test]
fn options() {
    rounded(1u8, vec![0.31]);
    rounded(1u8, vec![0.29]);
    assert_eq!(ran(&OPTIONS), 1);
    rounded(1u16, vec![0.29]);
    assert_eq!(ran(&OPTIONS), 1);
    assert_eq!([keyed("ann", 1), keyed("bob", 1), keyed("anna", 1)], ["ann 1", "ann 1", "anna 1"]);
    assert_eq!(ran(&OPTIONS), 2);
    for _ in 0..2 {
        sometimes(1);
        sometimes(11);
    }
    assert_eq!(ran(&OPTIONS), 3);
}

runs!(HANDLES);

#[stage(chest = chest, ignore(chest))]
fn load(chest: &Chest, len: usize) -> Result<Stored<Vec<f64>>> {
    count(&HANDLES);
    Ok(vec![1.5; len].into())
}

#[stage(chest = chest, ignore(chest))]
fn total(chest: &Chest, data: &Stored<Vec<f64>>) -> Result<f64> {
    count(&HANDLES);
    Ok(data.get()?.iter().sum())
}

#[test]
fn handles_go_from_stage_to_stage() {
    let dir = crate::helpers::dir();
    for expected in [2, 0] {
        let chest = Chest::open(dir.path()).unwrap();
        assert_eq!(total(&chest, &load(&chest, 1000).unwrap()).unwrap(), 1500.0);
        assert_eq!(ran(&HANDLES), expected);
    }
}

runs!(BROKEN);

#[stage(chest = CHEST, path(data))]
fn len(data: &Path) -> usize {
    count(&BROKEN);
    data.as_os_str().len()
}

#[test]
fn a_function_without_a_result_runs_where_the_cache_cannot_be_used() {
    let missing = Path::new("/there/is/no/such/file");
    assert_eq!([len(missing), len(missing)], [22, 22]);
    assert_eq!(ran(&BROKEN), 2);
}

#[cfg(feature = "ndarray")]
runs!(CONTENT);

#[cfg(feature = "ndarray")]
#[stage(chest = CHEST)]
fn mean(data: &ndarray::Array2<f64>, weights: Vec<f64>, name: &str) -> Option<f64> {
    count(&CONTENT);
    assert!(!name.is_empty() && !weights.is_empty());
    data.mean()
}

#[cfg(feature = "ndarray")]
#[test]
fn arrays_are_known_by_their_content() {
    let data = ndarray::Array2::from_shape_fn((30, 40), |(i, j)| (i * j) as f64);
    let columns = data.t().to_owned();
    for data in [data.clone(), columns.reversed_axes()] {
        assert_eq!(mean(&data, vec![1.0], "a"), data.mean());
    }
    assert_eq!(ran(&CONTENT), 1);
    let mut other = data;
    other[(3, 4)] += 1e-9;
    mean(&other, vec![1.0], "a");
    mean(&other, vec![2.0], "a");
    mean(&other, vec![2.0], "b");
    assert_eq!(ran(&CONTENT), 3);
    let calls = CHEST.stage("mean").calls().unwrap();
    assert_eq!(calls[0].arguments["name"].to::<String>().unwrap(), "a");
}

/// Functions of one name, in types and traits of one module.
trait Estimate {
    fn fit(&self, x: f64) -> f64;
}

struct Mean;
struct Median;

impl Estimate for Mean {
    #[stage(chest = CHEST, ignore(self))]
    fn fit(&self, x: f64) -> f64 {
        x
    }
}

impl Estimate for Median {
    #[stage(chest = CHEST, ignore(self))]
    fn fit(&self, x: f64) -> f64 {
        -x
    }
}

impl Mean {
    #[stage(chest = CHEST)]
    fn new(x: u32) -> u32 {
        x
    }
}

impl Median {
    #[stage(chest = CHEST)]
    fn new(x: u32) -> u32 {
        x + 1
    }
}

#[stage(chest = CHEST)]
fn size<T: 'static, const N: usize>(x: u32) -> usize {
    size_of::<T>() * N + x as usize
}

#[test]
fn functions_of_one_name_are_not_one() {
    assert_eq!([Mean.fit(1.0), Median.fit(1.0), Mean.fit(1.0)], [1.0, -1.0, 1.0]);
    assert_eq!([Mean::new(1), Median::new(1)], [1, 2]);
    assert_eq!([size::<u8, 2>(1), size::<u16, 2>(1), size::<u8, 3>(1)], [3, 5, 4]);
    fn one() -> u8 {
        #[stage(chest = CHEST)]
        fn inner() -> u8 {
            1
        }
        inner()
    }
    fn two() -> u8 {
        #[stage(chest = CHEST)]
        fn inner() -> u8 {
            2
        }
        inner()
    }
    assert_eq!([one(), two()], [1, 2]);
}

#[test]
fn futures_can_go_from_thread_to_thread() {
    fn is_send<T: Send>(_: T) {}
    is_send(fetch("a".into(), 1));
    is_send(CHEST.stage("f").call().run_async(async { 1u8 }));
}

trait Factor {
    const FACTOR: u32;

    #[stage(chest = CHEST)]
    fn scaled(number: u32) -> u32 {
        Self::FACTOR * number
    }

    #[stage(chest = CHEST)]
    async fn scaled_later(number: u32) -> u32 {
        Self::FACTOR * number
    }
}

struct Two;
struct Three;

impl Factor for Two {
    const FACTOR: u32 = 2;
}

impl Factor for Three {
    const FACTOR: u32 = 3;
}

struct Scale<F>(F);

impl<F: Factor> Scale<F> {
    #[stage(chest = CHEST)]
    fn of(number: u32) -> u32 {
        F::FACTOR * number
    }
}

#[test]
fn a_function_without_a_receiver_belongs_to_its_type() {
    for _ in 0..2 {
        assert_eq!((Two::scaled(5), Three::scaled(5)), (10, 15));
        assert_eq!((Scale::<Two>::of(7), Scale::<Three>::of(7)), (14, 21));
        assert_eq!(block_on(async { (Two::scaled_later(5).await, Three::scaled_later(5).await) }), (10, 15));
    }
    assert_eq!(CHEST.stage_stats().unwrap()["of"].computed, 2);
}

#[derive(serde::Serialize)]
struct Square {
    size: f64,
}

#[derive(serde::Serialize)]
struct Circle {
    size: f64,
}

trait Area {
    fn area(&self) -> f64;
}

impl Area for Square {
    fn area(&self) -> f64 {
        self.size * self.size
    }
}

impl Area for Circle {
    fn area(&self) -> f64 {
        3.0 * self.size * self.size
    }
}

#[stage(chest = CHEST)]
fn area(shape: &(impl Area + serde::Serialize)) -> f64 {
    shape.area()
}

trait Named {
    const NAME: &str;
}

impl Named for Square {
    const NAME: &str = "square";
}

impl Named for Circle {
    const NAME: &str = "circle";
}

trait Describe<T> {
    fn describe(&self) -> String;

    #[stage(chest = CHEST, ignore(self))]
    fn by_default(&self) -> String
    where
        T: Named,
    {
        T::NAME.to_owned()
    }
}

impl<T: Named> Describe<T> for Mean {
    #[stage(chest = CHEST, ignore(self))]
    fn describe(&self) -> String {
        T::NAME.to_owned()
    }
}

#[test]
fn types_without_a_name_in_the_function_are_told_apart() {
    for _ in 0..2 {
        assert_eq!((area(&Square { size: 2.0 }), area(&Circle { size: 2.0 })), (4.0, 12.0));
        let described = (Describe::<Square>::describe(&Mean), Describe::<Circle>::describe(&Mean));
        assert_eq!((described.0.as_str(), described.1.as_str()), ("square", "circle"));
        let described = (Describe::<Square>::by_default(&Mean), Describe::<Circle>::by_default(&Mean));
        assert_eq!((described.0.as_str(), described.1.as_str()), ("square", "circle"));
    }
    assert_eq!(CHEST.stage_stats().unwrap()["area"].computed, 2);
}

runs!(APPLIED);

#[stage(chest = CHEST, ignore(f))]
fn apply<F: Fn(u32) -> u32>(f: F, x: u32) -> u32 {
    count(&APPLIED);
    f(x)
}

#[stage(chest = CHEST, ignore(f))]
fn try_to_apply(f: impl Fn(u32) -> u32, x: u32) -> Result<u32> {
    Ok(f(x))
}

#[stage(chest = CHEST, ignore(f))]
async fn apply_later(f: impl AsyncFn(u32) -> u32, x: u32) -> u32 {
    count(&APPLIED);
    f(x).await
}

#[stage(chest = CHEST, key = (name, x))]
fn apply_by_name<F: Fn(u32) -> u32>(name: &str, f: F, x: u32) -> u32 {
    count(&APPLIED);
    f(x)
}

fn double(x: u32) -> u32 {
    2 * x
}

async fn half(x: u32) -> u32 {
    x / 2
}

#[test]
fn closures_of_one_name_do_not_answer_for_each_other() {
    assert_eq!([apply(|x| x + 1, 3), apply(|x| x * 2, 3)], [4, 6]);
    assert_eq!(ran(&APPLIED), 2);
    let error = try_to_apply(|x| x + 1, 3).unwrap_err();
    assert!(error.to_string().contains("try_to_apply is called with a closure"), "{error}");
    // Functions have names, and keys tell what they are to tell.
    assert_eq!([apply(double, 3), apply(double, 3)], [6, 6]);
    assert_eq!(try_to_apply(double, 3).unwrap(), 6);
    assert_eq!([block_on(apply_later(half, 6)), block_on(apply_later(half, 6))], [3, 3]);
    let one_more = |x| x + 1;
    assert_eq!([apply_by_name("one more", one_more, 3), apply_by_name("one more", one_more, 3)], [4, 4]);
    assert_eq!(apply_by_name("thrice", |x| x * 3, 3), 9);
    assert_eq!(ran(&APPLIED), 4);
}
