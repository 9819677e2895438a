//! What a Parquet file claims, checked against its bytes: the libraries set memory aside as it says.

use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::sync::OnceLock;

use super::super::ReadAt;
use super::footer::{Chunk, Footer, Leaf, STATISTICS, read_footer};
use super::thrift::Shape::{self, Any, Bool, I32, Struct};
use super::thrift::{Event, invalid, read};
use crate::error::{Error, Result};
use crate::memory::usable_memory;
use crate::value::Selection;

/// The most that a compression makes of a byte; zstd comes close with a constant.
pub(crate) const RATIO: u64 = 1 << 15;

/// What values take in polars, in units of what they took as they were inserted: text of 4-byte offsets becomes views.
const GROWTH: u64 = 4;

/// So much memory is there.
const LITTLE: u64 = 16 << 20;

/// Rows of so many bytes are few to a batch.
const LONG: u64 = 16 << 10;

const PAGE_HEADER: &[Shape] = &[
    I32,
    I32,
    I32,
    I32,
    Struct(&[I32, I32, I32, I32, STATISTICS]),
    Any,
    Struct(&[I32, I32, Bool]),
    Struct(&[I32, I32, I32, I32, I32, I32, Bool, STATISTICS]),
];

/// What reading a file, or a part of it, may take, and where the part is.
#[derive(Clone, Debug)]
pub(crate) struct Justified {
    /// Memory that the bytes of the file account for.
    by_bytes: u64,
    /// What somebody says that the value took in memory.
    size: u64,
    /// The memory that there is, once it was asked for: that takes as long as reading a small frame.
    usable: OnceLock<u64>,
    /// Rows of which each may be as large as one can be.
    #[cfg_attr(not(feature = "arrow"), expect(dead_code, reason = "polars reads everything at once"))]
    pub(crate) rows: u64,
    pub(crate) part: Part,
}

/// The part of a file that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The columns in the order that they were asked for; none for all.
    pub(crate) columns: Option<Vec<usize>>,
    /// The row groups that have rows of it.
    pub(crate) groups: Vec<usize>,
    /// The rows, counted from the first row of these groups.
    pub(crate) rows: Range<usize>,
    /// Where in the file its columns are.
    pub(crate) ranges: Vec<Range<u64>>,
}

impl Justified {
    /// Whether reading may take so much memory: what the bytes account for, if the value is said to take it or if there is so
    /// much; or what it is said to take, as far as there is so much. Who reads a frame in batches never has all of it.
    pub(crate) fn allows(&self, memory: u64) -> bool {
        let is_there = |memory| memory <= LITTLE || memory <= self.usable();
        let is_told = memory <= self.size.saturating_mul(GROWTH);
        memory <= self.by_bytes && (is_told || is_there(memory)) || is_told && is_there(memory / GROWTH)
    }

    fn usable(&self) -> u64 {
        *self.usable.get_or_init(usable_memory)
    }
}

/// Refuses a file that is not as a library expects it, whose pages do not add up to its columns, or that claims more than
/// its bytes, or the size that the value had in memory, can account for; looked at as far as it is wanted.
pub(crate) fn check(source: &dyn ReadAt, size: u64, wanted: &Selection) -> Result<Justified> {
    let unsound = |error| Error::io("the bytes are no sound Parquet", error);
    let footer = read_footer(source).map_err(unsound)?;
    let names: Vec<&str> = footer.columns.iter().map(String::as_str).collect();
    let columns = wanted.columns_of(&names)?;
    weigh(source, size, &footer, columns, wanted).map_err(unsound)
}

fn weigh(
    source: &dyn ReadAt,
    size: u64,
    footer: &Footer,
    columns: Option<Vec<usize>>,
    wanted: &Selection,
) -> io::Result<Justified> {
    let mut part = find_groups(footer, wanted)?;
    part.columns = columns;
    let claims = add_up(source, footer, &mut part)?;
    let by_bytes = source.len().saturating_mul(RATIO);
    let usable = OnceLock::new();
    let most = if claims.row > LONG { by_bytes.min(*usable.get_or_init(usable_memory)) } else { by_bytes };
    let justified = Justified { by_bytes, size, usable, rows: most / claims.row.max(1), part };
    // How many elements are null, and of full width, shows only as they are read.
    let usable = || justified.usable().saturating_mul(GROWTH);
    match justified.allows(claims.bytes) && (justified.allows(claims.elements) || claims.elements <= usable()) {
        true => Ok(justified),
        false => Err(invalid("it claims more values than its bytes can hold")),
    }
}

/// The row groups that have rows of what is wanted.
fn find_groups(footer: &Footer, wanted: &Selection) -> io::Result<Part> {
    let mut starts = vec![0_usize];
    for group in &footer.groups {
        let end = usize::try_from(group.rows).ok().and_then(|rows| rows.checked_add(starts[starts.len() - 1]));
        starts.push(end.ok_or_else(|| invalid("a row group has no sensible number of rows"))?);
    }
    let height = starts[starts.len() - 1];
    if usize::try_from(footer.rows) != Ok(height) {
        return Err(invalid("the row groups do not add up to the file"));
    }
    let rows = wanted.rows_of(height);
    let has_rows = |&group: &usize| wanted.rows.is_none() || starts[group] < rows.end && rows.start < starts[group + 1];
    let groups: Vec<usize> = (0..footer.groups.len()).filter(has_rows).collect();
    let first = groups.first().map_or(rows.start, |&group| starts[group]);
    let rows = rows.start.saturating_sub(first)..rows.end.saturating_sub(first);
    Ok(Part { columns: None, groups, rows, ranges: Vec::new() })
}

/// What is claimed, in bytes of memory.
#[derive(Default)]
struct Claims {
    /// All values, with a null as large as any other.
    bytes: u64,
    /// The elements of lists, if all were null and as wide as the widest.
    elements: u64,
    /// The largest row that there can be.
    row: u64,
}

fn add_up(source: &dyn ReadAt, footer: &Footer, part: &mut Part) -> io::Result<Claims> {
    let mut claims = Claims::default();
    let mut dictionaries = vec![0; footer.leaves.len()];
    let (mut rows, mut values, mut stored) = (0_u64, 0_u64, 0_u64);
    for group in part.groups.iter().map(|&group| &footer.groups[group]) {
        // Looked at before: it is not negative.
        let height = group.rows as u64;
        rows += height;
        if group.chunks.len() != footer.leaves.len() {
            return Err(invalid("a row group has not the columns of the schema"));
        }
        for ((chunk, leaf), dictionary) in group.chunks.iter().zip(&footer.leaves).zip(&mut dictionaries) {
            if part.columns.as_ref().is_some_and(|columns| !columns.contains(&leaf.column)) {
                continue;
            }
            let range = range(source, chunk)?;
            stored += range.end - range.start;
            // Otherwise pages would be read again and again.
            if stored > source.len() {
                return Err(invalid("its columns overlap"));
            }
            let pages = walk(source, range.clone(), chunk, leaf)?;
            if leaf.is_flat && pages.values != height || pages.values < height {
                return Err(invalid("a column has not the values that its row group needs"));
            }
            part.ranges.push(range);
            values = values.max(pages.values);
            claims.bytes = claims.bytes.saturating_add(pages.bytes);
            *dictionary = pages.dictionary.max(*dictionary);
        }
    }
    claims.bytes = claims.bytes.max(footer.widths.row.saturating_mul(rows) / 8);
    claims.elements = footer.widths.element.saturating_mul(values) / 8;
    let widths = footer.leaves.iter().map(|leaf| leaf.bits).chain([footer.widths.row]);
    claims.row = widths.map(|bits| bits.div_ceil(8)).chain(dictionaries).fold(0, u64::saturating_add);
    Ok(claims)
}

/// Where in the file the pages are.
fn range(source: &dyn ReadAt, chunk: &Chunk) -> io::Result<Range<u64>> {
    let range = u64::try_from(chunk.start()).ok().zip(u64::try_from(chunk.len).ok());
    let range = range.and_then(|(start, len)| Some(start..start.checked_add(len)?));
    range.filter(|range| range.end <= source.len()).ok_or_else(|| invalid("a column lies outside of the file"))
}

/// The pages of a column in one row group.
#[derive(Default)]
struct Pages {
    values: u64,
    /// What the values take in memory.
    bytes: u64,
    /// The largest dictionary: a value of it may come any number of times.
    dictionary: u64,
}

fn walk(source: &dyn ReadAt, range: Range<u64>, chunk: &Chunk, leaf: &Leaf) -> io::Result<Pages> {
    let Range { start: mut at, end } = range;
    let mut pages = Pages::default();
    while at < end {
        let (header, len) = read_header(source, at, end)?;
        at += len;
        let stored = u64::try_from(header.stored).ok().filter(|&stored| stored <= end - at);
        let stored = stored.ok_or_else(|| invalid("a page is longer than its column"))?;
        let expanded = u64::try_from(header.expanded).map_err(|_| invalid("a page of negative length"))?;
        if expanded > (stored + 1) * RATIO {
            return Err(invalid("a page cannot be as long as it says"));
        }
        if !header.encoding().is_some_and(|encoding| ENCODINGS.contains(&encoding)) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a page of an encoding that frames are not written in",
            ));
        }
        let values = header.values().ok_or_else(|| invalid("a page has no sensible number of values"))?;
        match header.page {
            page if page == DICTIONARY as i64 => pages.dictionary = pages.dictionary.max(expanded),
            _ => pages.values += values,
        }
        pages.bytes = pages.bytes.saturating_add(expanded).saturating_add(values.saturating_mul(leaf.bits).div_ceil(8));
        at += stored;
    }
    match u64::try_from(chunk.values) {
        Ok(values) if values == pages.values => Ok(pages),
        _ => Err(invalid("the pages of a column do not add up to it")),
    }
}

/// Plain, in a dictionary (by its two names), and in runs: what frames are written in. With others a page could say how
/// much memory is to be set aside in its values, where nobody looks before.
const ENCODINGS: [i64; 4] = [0, 2, 3, 8];

/// Kinds of pages: values in the older form, the dictionary of their column, and values in the newer form.
const DATA: usize = 0;
const DICTIONARY: usize = 2;
const DATA_2: usize = 3;

/// What a page header says.
#[derive(Default)]
struct Header {
    page: i64,
    expanded: i64,
    stored: i64,
    /// How the values are encoded, as told for each kind of page: a header may tell of kinds that the page is not of.
    encodings: [Option<i64>; 4],
    /// The number of values, as told for each kind of page.
    counts: [Option<i64>; 4],
}

impl Header {
    /// The number of values; none if it is negative, or missing for this kind of page.
    fn values(&self) -> Option<u64> {
        self.of_this_kind(&self.counts)?.try_into().ok()
    }

    /// How the values are encoded; none if that is missing for this kind of page.
    fn encoding(&self) -> Option<i64> {
        self.of_this_kind(&self.encodings)
    }

    fn of_this_kind(&self, told: &[Option<i64>; 4]) -> Option<i64> {
        told.get(usize::try_from(self.page).ok()?).copied().flatten()
    }
}

/// Reads the header of a page, and its length.
fn read_header(source: &dyn ReadAt, at: u64, end: u64) -> io::Result<(Header, u64)> {
    let mut header = Header::default();
    let input = BufReader::with_capacity(256, Reader { source, at });
    let len = read(input, end - at, PAGE_HEADER, &mut |path, event| {
        let Event::Int(int) = event else { return };
        match path {
            [1] => header.page = int,
            [2] => header.expanded = int,
            [3] => header.stored = int,
            [5, 1] => header.counts[DATA] = Some(int),
            [5, 2] => header.encodings[DATA] = Some(int),
            [7, 1] => header.counts[DICTIONARY] = Some(int),
            [7, 2] => header.encodings[DICTIONARY] = Some(int),
            [8, 1] => header.counts[DATA_2] = Some(int),
            [8, 4] => header.encodings[DATA_2] = Some(int),
            _ => {}
        }
    })?;
    Ok((header, len))
}

/// Reads from an offset on.
struct Reader<'a> {
    source: &'a dyn ReadAt,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
