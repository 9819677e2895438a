//! An array that comes in blocks of rows, nobody knows how many: NPY, or a Blosc2 frame where its beginning shows that
//! compression pays.

#[cfg(feature = "blosc")]
use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::mem;

use ndarray::ArrayViewD;
use serde_json::json;

#[cfg(feature = "blosc")]
use super::super::b2nd::Stream;
use super::super::{Encoder, Format};
use super::header::header;
#[cfg(feature = "blosc")]
use super::write::choose_by;
use super::write::{Elements, encode_bytes};
use crate::value::Element;

/// An array that is shorter is written whole, as any other. It is longer than a chunk of a frame.
const BEGINNING: usize = 8 << 20;

/// The rows so far, in the file or on their way to it.
pub(crate) struct Rows<A> {
    out: Encoder,
    /// The number of rows, and the shape of each.
    shape: Vec<usize>,
    sink: Sink,
    elements: PhantomData<A>,
}

enum Sink {
    /// All bytes so far.
    Beginning(Vec<u8>),
    /// Behind a header of this length.
    Npy(usize),
    #[cfg(feature = "blosc")]
    Blosc(Box<Stream>),
}

impl<A: Element> Rows<A> {
    pub(crate) fn new(out: Encoder, row: &[usize]) -> Self {
        Self { out, shape: [&[0], row].concat(), sink: Sink::Beginning(Vec::new()), elements: PhantomData }
    }

    /// The number of rows, and the shape of each.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Adds rows, which have the shape of those before.
    pub(crate) fn write(&mut self, rows: ArrayViewD<'_, A>) -> io::Result<()> {
        let rows_then = self.shape[0].checked_add(rows.len_of(ndarray::Axis(0))).ok_or(io::ErrorKind::InvalidInput)?;
        let mut elements = Elements::new(rows, false);
        if let Sink::Beginning(bytes) = &mut self.sink {
            elements.by_ref().take((BEGINNING - bytes.len()) as u64).read_to_end(bytes)?;
            if bytes.len() == BEGINNING {
                let bytes = mem::take(bytes);
                self.decide(&bytes)?;
                self.put(&bytes)?;
            }
        }
        match elements.rest() {
            Some(bytes) => self.put(bytes)?,
            None => io::copy(&mut elements, self).map(|_| ())?,
        }
        self.shape[0] = rows_then;
        Ok(())
    }

    /// Ends the array.
    pub(crate) fn finish(mut self) -> io::Result<(Encoder, Format)> {
        let format = match self.sink {
            Sink::Beginning(bytes) => encode_bytes::<A>(&bytes, &self.shape, &mut self.out)?,
            Sink::Npy(len) => {
                self.out.patch(0, &header(A::DTYPE, false, &self.shape, len))?;
                Format::new("npy", "npy")
            }
            #[cfg(feature = "blosc")]
            Sink::Blosc(stream) => {
                stream.finish(&mut self.out, self.shape[0])?;
                Format::new("b2nd", "b2nd")
            }
        };
        self.out.describe("dtype", A::DTYPE);
        self.out.describe("shape", json!(self.shape));
        self.out.describe("order", "C");
        Ok((self.out, format))
    }

    /// Begins the file as the beginning of the array suggests.
    fn decide(
        &mut self,
        #[cfg_attr(not(feature = "blosc"), expect(unused_variables, reason = "a sample tells how to compress"))]
        beginning: &[u8],
    ) -> io::Result<()> {
        let row = &self.shape[1..];
        #[cfg(feature = "blosc")]
        {
            let piece = |start, end| Ok(Cow::Borrowed(&beginning[start..end]));
            let recipe = choose_by(&mut self.out, self.shape.len(), beginning.len(), size_of::<A>(), piece)?;
            if let Some(recipe) = recipe {
                let stream = Stream::of_rows(&mut self.out, recipe, A::DTYPE, size_of::<A>(), row)?;
                self.sink = Sink::Blosc(Box::new(stream));
                return Ok(());
            }
        }
        // Long enough for any number of rows; the real one is known at the end.
        let header = header(A::DTYPE, false, &[&[usize::MAX], row].concat(), 0);
        self.out.write_all(&header)?;
        self.sink = Sink::Npy(header.len());
        Ok(())
    }

    /// Writes behind what is there.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.sink {
            Sink::Beginning(before) => before.extend_from_slice(bytes),
            Sink::Npy(_) => self.out.write_all(bytes)?,
            #[cfg(feature = "blosc")]
            Sink::Blosc(stream) => stream.write(&mut self.out, bytes)?,
        }
        Ok(())
    }
}

impl<A: Element> Write for Rows<A> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
