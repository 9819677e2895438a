//! What the page headers of a Parquet file claim, checked against its bytes: polars sets memory aside as they say.

use std::io::Cursor;

use polars_parquet::parquet::metadata::ColumnChunkMetadata;
use polars_parquet::parquet::page::{PageType, ParquetPageHeader};
use polars_parquet::parquet::read::read_metadata;
use polars_parquet::parquet::schema::types::{PhysicalType, PrimitiveLogicalType};
use polars_parquet_format::thrift::protocol::TCompactInputProtocol;

use crate::error::{Error, Result};
use crate::memory::usable_memory;

/// The most that a compression makes of a byte; zstd comes close with a constant.
const RATIO: u64 = 1 << 15;

/// A page header with long statistics.
const HEADER_LIMIT: usize = 64 << 20;

/// What values take in polars, in units of what they took as they were inserted: text of 4-byte offsets becomes views.
const GROWTH: u64 = 4;

/// Refuses a file whose pages do not add up to its columns, or claim more than its bytes, or the size that the value had
/// in memory, can account for.
pub(crate) fn check(bytes: &[u8], size: u64) -> Result<()> {
    let damaged =
        |error: &dyn std::fmt::Display| Error::damaged("the bytes are no Parquet").with_source(error.to_string());
    let file = read_metadata(&mut Cursor::new(bytes)).map_err(|error| damaged(&error))?;
    let (mut rows, mut claimed) = (0_u64, 0_u64);
    for group in &file.row_groups {
        let height = group.num_rows() as u64;
        rows = rows.saturating_add(height);
        for column in group.parquet_columns() {
            let pages = walk(bytes, column)?;
            let is_flat = column.descriptor().descriptor.max_rep_level == 0;
            if is_flat && pages.values != height || pages.values < height {
                return Err(damaged(&"a column has not the values that its row group needs"));
            }
            claimed = claimed.saturating_add(pages.bytes);
        }
    }
    if file.num_rows as u64 != rows {
        return Err(damaged(&"the row groups do not add up to the file"));
    }
    // What somebody says that the value took counts as far as there is such memory.
    let is_justified =
        claimed <= bytes.len() as u64 * RATIO || claimed <= size.min(usable_memory()).saturating_mul(GROWTH);
    if !is_justified {
        return Err(damaged(&"the pages claim more values than their bytes can hold"));
    }
    Ok(())
}

/// The pages of a column in one row group.
#[derive(Default)]
struct Pages {
    values: u64,
    /// What the values take in memory.
    bytes: u64,
}

fn walk(bytes: &[u8], column: &ColumnChunkMetadata) -> Result<Pages> {
    let wrong = |what: &str| Error::damaged("a column of the frame makes no sense").with_source(what.to_owned());
    let range = column.byte_range();
    let mut rest = usize::try_from(range.start)
        .ok()
        .zip(usize::try_from(range.end).ok())
        .and_then(|(start, end)| bytes.get(start..end))
        .ok_or_else(|| wrong("it lies outside of the file"))?;
    let bits = bits(column);
    let mut pages = Pages::default();
    while !rest.is_empty() {
        let mut cursor = Cursor::new(rest);
        let header =
            ParquetPageHeader::read_from_in_protocol(&mut TCompactInputProtocol::new(&mut cursor, HEADER_LIMIT))
                .map_err(|error| wrong(&error.to_string()))?;
        let at = cursor.position() as usize;
        let stored = usize::try_from(header.compressed_page_size).ok().filter(|&stored| stored <= rest.len() - at);
        let stored = stored.ok_or_else(|| wrong("a page is longer than its column"))?;
        let expanded = u64::try_from(header.uncompressed_page_size).map_err(|_| wrong("a page of negative length"))?;
        if expanded > (stored as u64 + 1) * RATIO {
            return Err(wrong("a page cannot be as long as it says"));
        }
        let values = values(&header).ok_or_else(|| wrong("a page has no sensible number of values"))?;
        if header.type_.try_into().ok() != Some(PageType::DictionaryPage) {
            pages.values += values;
        }
        pages.bytes = pages.bytes.saturating_add(expanded).saturating_add(values.saturating_mul(bits).div_ceil(8));
        rest = &rest[at + stored..];
    }
    match u64::try_from(column.num_values()) {
        Ok(values) if values == pages.values => Ok(pages),
        _ => Err(wrong("its pages do not add up to it")),
    }
}

/// The number of values in a page; none if it is negative, or if the page has not the header of its type.
fn values(header: &ParquetPageHeader) -> Option<u64> {
    let values = match header.type_.try_into().ok()? {
        PageType::DataPage => header.data_page_header.as_ref()?.num_values,
        PageType::DataPageV2 => header.data_page_header_v2.as_ref()?.num_values,
        PageType::DictionaryPage => header.dictionary_page_header.as_ref()?.num_values,
    };
    u64::try_from(values).ok()
}

/// What one value of the column takes in memory.
fn bits(column: &ColumnChunkMetadata) -> u64 {
    let leaf = &column.descriptor().descriptor;
    let is_null = leaf.primitive_type.logical_type == Some(PrimitiveLogicalType::Unknown);
    match leaf.primitive_type.physical_type {
        _ if is_null => 1,
        PhysicalType::Boolean => 1,
        PhysicalType::Int32 | PhysicalType::Float => 32,
        PhysicalType::Int64 | PhysicalType::Int96 | PhysicalType::Double => 64,
        PhysicalType::ByteArray => 128,
        PhysicalType::FixedLenByteArray(bytes) => (bytes as u64).saturating_mul(8),
    }
}
