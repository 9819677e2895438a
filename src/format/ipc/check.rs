//! What an Arrow file claims, checked against its bytes before the library believes it.
//!
//! The library verifies that the metadata are sound flatbuffers, that buffers lie within their body and that arrays are
//! valid, text and offsets included. It copies nothing that is not compressed. What is left to look at here: that
//! nothing is compressed, which would let a file say how much memory is set aside; that the schema is no tree of shared
//! parts or of any depth; that no batch is read many times over; and that rows without bytes are not too many.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::{Block, Message, MetadataVersion, RecordBatch, root_as_footer, root_as_message};
use arrow_schema::SchemaRef;

use super::super::parquet::{RATIO, check_schema};
use super::Source;
use crate::memory::usable_memory;

const MAGIC: &[u8] = b"ARROW1";

/// The length of the footer, and the magic, which end the file.
const TAIL: usize = 4 + MAGIC.len();

/// What precedes the metadata of a message: a mark, and their length.
const PREFIX: usize = 8;

/// What is in a file.
pub(super) struct Contents {
    pub(super) schema: SchemaRef,
    pub(super) dictionaries: Vec<Block>,
    /// With their rows.
    pub(super) batches: Vec<(Block, usize)>,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Contents {
    /// Reads and checks all metadata. `size` is what the frame took in memory, as somebody says.
    pub(super) fn read(source: &Source, size: u64) -> io::Result<Self> {
        let (end, bytes) = footer(source)?;
        let footer = root_as_footer(bytes).map_err(|_| invalid("the footer is none"))?;
        if footer.version() != MetadataVersion::V5 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "an Arrow file of another version than 5"));
        }
        let schema = footer.schema().ok_or_else(|| invalid("the footer has no schema"))?;
        check_schema(&schema, bytes.len())?;
        let schema = try_fb_to_schema(schema).map_err(|_| invalid("the schema makes no sense"))?;
        let dictionaries: Vec<Block> = footer.dictionaries().iter().flatten().copied().collect();
        let blocks: Vec<Block> = footer.recordBatches().iter().flatten().copied().collect();
        check_places(dictionaries.iter().chain(&blocks), end)?;
        // Not null alone: every row takes a bit, as far as anybody counts it.
        let most = (source.buffer.len() as u64).saturating_mul(RATIO).max(size.min(usable_memory()).saturating_mul(8));
        for block in &dictionaries {
            let message = message(source, block)?;
            let batch = message.header_as_dictionary_batch().ok_or_else(|| invalid("a dictionary is none"))?;
            if batch.isDelta() {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "an Arrow file with dictionaries in pieces"));
            }
            check_batch(batch.data().ok_or_else(|| invalid("a dictionary is empty"))?, block, most)?;
        }
        let mut all = 0_u64;
        let mut batches = Vec::with_capacity(blocks.len());
        for block in blocks {
            let message = message(source, &block)?;
            let batch = message.header_as_record_batch().ok_or_else(|| invalid("a batch is none"))?;
            let rows = check_batch(batch, &block, most)?;
            all = all.saturating_add(rows);
            batches.push((block, usize::try_from(rows).map_err(|_| invalid("a batch has too many rows"))?));
        }
        if all > most {
            return Err(invalid("it claims more rows than its bytes can hold"));
        }
        Ok(Self { schema: Arc::new(schema), dictionaries, batches })
    }
}

/// Where in the file it begins, and the footer.
fn footer(source: &Source) -> io::Result<(usize, &[u8])> {
    let no_arrow = || invalid("the file does not end as Arrow's do");
    let file = &source.buffer[..];
    let (front, tail) = file.split_at_checked(file.len().wrapping_sub(TAIL)).ok_or_else(no_arrow)?;
    let (len, magic) = tail.split_first_chunk::<4>().ok_or_else(no_arrow)?;
    let len = usize::try_from(i32::from_le_bytes(*len)).map_err(|_| no_arrow())?;
    let start =
        front.len().checked_sub(len).filter(|_| magic == MAGIC && file.starts_with(MAGIC)).ok_or_else(no_arrow)?;
    // Batches come before the label, and the footer behind it.
    let end = if source.label.is_empty() { start } else { source.label.start };
    if end > start {
        return Err(no_arrow());
    }
    Ok((end, &front[start..]))
}

/// Messages lie within the file, and none within another.
fn check_places<'a>(blocks: impl Iterator<Item = &'a Block>, end: usize) -> io::Result<()> {
    let mut places = Vec::new();
    for block in blocks {
        let place = place(block).filter(|place| place.end <= end);
        let place = place.ok_or_else(|| invalid("a batch lies outside of the file"))?;
        if block.metaDataLength() < PREFIX as i32 {
            return Err(invalid("a batch has no metadata"));
        }
        places.push(place);
    }
    places.sort_unstable_by_key(|place| place.start);
    if places.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Err(invalid("its batches overlap"));
    }
    Ok(())
}

fn place(block: &Block) -> Option<Range<usize>> {
    let number = |number: i64| usize::try_from(number).ok();
    let start = number(block.offset())?;
    let metadata = start.checked_add(number(block.metaDataLength().into())?)?;
    Some(start..metadata.checked_add(number(block.bodyLength())?)?)
}

/// The metadata of a message that lies within the file.
fn message<'a>(source: &'a Source, block: &Block) -> io::Result<Message<'a>> {
    let start = block.offset() as usize;
    let bytes = &source.buffer[start..start + block.metaDataLength() as usize];
    let metadata = bytes.strip_prefix(&[0xff; 4]).and_then(|rest| rest.get(4..));
    let message = metadata.and_then(|metadata| root_as_message(metadata).ok());
    message.ok_or_else(|| invalid("the metadata of a batch make no sense"))
}

/// The number of rows. A value takes a bit at least, if anybody counts it.
fn check_batch(batch: RecordBatch<'_>, block: &Block, most: u64) -> io::Result<u64> {
    if batch.compression().is_some() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "compressed Arrow files are not read"));
    }
    let count = |len: i64| u64::try_from(len).ok().filter(|&len| len <= most);
    let too_many = || invalid("it claims more values than its bytes can hold");
    for node in batch.nodes().iter().flatten() {
        count(node.length()).zip(count(node.null_count())).ok_or_else(too_many)?;
    }
    let buffers = batch.buffers().map_or(0, |buffers| buffers.len());
    for buffer in batch.buffers().iter().flatten() {
        let end = buffer.offset().checked_add(buffer.length()).filter(|_| buffer.offset() >= 0 && buffer.length() >= 0);
        if end.is_none_or(|end| end > block.bodyLength()) {
            return Err(invalid("a buffer lies outside of its batch"));
        }
    }
    if batch.variadicBufferCounts().iter().flatten().any(|count| count < 0 || count as u64 > buffers as u64) {
        return Err(invalid("a column claims more buffers than there are"));
    }
    count(batch.length()).ok_or_else(too_many)
}
