//! Progress on a terminal. Without one nothing is drawn.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::time::Duration;

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use parquet::file::reader::{ChunkReader, Length};

/// How often a line of progress moves by itself.
const TICK: Duration = Duration::from_millis(120);

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a wrong one would show the default style.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("█▓░")
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

/// A bar of bytes.
pub(crate) fn of_bytes(what: impl Into<Cow<'static, str>>, len: u64) -> ProgressBar {
    let style = style("{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left");
    ProgressBar::new(len).with_style(style).with_message(what)
}

/// A bar of things.
pub(crate) fn of_things(what: impl Into<Cow<'static, str>>, len: usize) -> ProgressBar {
    ProgressBar::new(len as u64).with_style(style("  {prefix} {bar:30} {pos}/{len}  {msg}")).with_prefix(what)
}

/// A line that shows that work goes on, until it is dropped.
pub(crate) fn of_work(what: impl Into<Cow<'static, str>>) -> Working {
    let bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg}, {elapsed}")).with_message(what);
    bar.enable_steady_tick(TICK);
    Working(bar)
}

pub(crate) struct Working(ProgressBar);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A file whose reading moves a bar.
pub(crate) struct Watched {
    file: File,
    len: u64,
    bar: ProgressBar,
}

impl Watched {
    pub(crate) fn new(file: File, len: u64, bar: ProgressBar) -> Self {
        Self { file, len, bar }
    }
}

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf)?;
        self.bar.inc(n as u64);
        Ok(n)
    }
}

impl Seek for Watched {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Length for Watched {
    fn len(&self) -> u64 {
        self.len
    }
}

/// The file's position is shared, as it is in the crate's own implementation for `File`: columns are read one after
/// the other.
impl ChunkReader for Watched {
    type T = BufReader<Self>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let mut part = Self::new(self.file.try_clone()?, self.len, self.bar.clone());
        part.seek(SeekFrom::Start(start))?;
        Ok(BufReader::new(part))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let mut bytes = Vec::new();
        let part = self.get_read(start)?;
        let read = part.take(length as u64).read_to_end(&mut bytes)?;
        if read != length {
            let message = format!("the file ends {} bytes too early", length - read);
            return Err(parquet::errors::ParquetError::EOF(message));
        }
        Ok(bytes.into())
    }
}
