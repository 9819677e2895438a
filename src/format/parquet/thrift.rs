//! Thrift's compact protocol, read against the shape that is expected: the libraries take the type of a field for granted,
//! set memory aside for any number of elements, and step through two billion that have no bytes.

use std::io::{self, BufRead, ErrorKind, Read};

/// What a field, or an element of a list, has to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Bool,
    Byte,
    I16,
    I32,
    I64,
    Double,
    Bytes,
    List(&'static Shape),
    /// The fields in the order of their numbers, from 1 on; those beyond may be anything.
    Struct(&'static [Shape]),
    /// A field that nobody reads.
    Any,
}

/// What is met on the way.
pub(super) enum Event<'a> {
    /// A struct begins.
    Struct,
    Int(i64),
    Bytes(&'a [u8]),
}

/// How deep fields that nobody reads may nest; the libraries stop there, too.
const MAX_DEPTH: usize = 64;

/// Reads a struct that ends within `limit` bytes; tells the length of it. `on` learns of each value of a shape that is
/// known, by the numbers of the fields that lead to it.
///
/// # Errors
/// `InvalidData` for what is not of the shape, has its fields out of order, or has lists of more elements than bytes
/// follow, and those of reading.
pub(super) fn read(
    input: impl BufRead,
    limit: u64,
    shape: &'static [Shape],
    on: &mut dyn FnMut(&[i16], Event<'_>),
) -> io::Result<u64> {
    let mut walk = Walk { input, left: limit, path: Vec::new(), on };
    walk.fields(shape, 0)?;
    Ok(limit - walk.left)
}

struct Walk<'a, R> {
    input: R,
    /// Bytes that may still be read.
    left: u64,
    /// The numbers of the fields that lead here.
    path: Vec<i16>,
    on: &'a mut dyn FnMut(&[i16], Event<'_>),
}

pub(super) fn invalid(message: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message)
}

impl<R: BufRead> Walk<'_, R> {
    fn fields(&mut self, shapes: &'static [Shape], depth: usize) -> io::Result<()> {
        let mut last = 0_i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            let id = match head >> 4 {
                0 => i16::try_from(self.int()?).ok(),
                step => last.checked_add(step.into()),
            };
            let id = id.filter(|&id| id > last).ok_or_else(|| invalid("the fields of a struct are out of order"))?;
            let shape = shapes.get(id as usize - 1).unwrap_or(&Shape::Any);
            self.path.push(id);
            match head & 15 {
                // A field that is true or false has no more bytes.
                1 | 2 if matches!(shape, Shape::Bool | Shape::Any) => {}
                wire => self.value(wire, shape, depth)?,
            }
            self.path.pop();
            last = id;
        }
    }

    fn value(&mut self, wire: u8, shape: &'static Shape, depth: usize) -> io::Result<()> {
        match (shape, wire) {
            (Shape::Byte | Shape::Any, 3) => self.skip(1),
            (Shape::I16, 4) => self.number(i16::MIN.into(), i16::MAX.into()),
            (Shape::I32, 5) => self.number(i32::MIN.into(), i32::MAX.into()),
            (Shape::I64, 6) => self.number(i64::MIN, i64::MAX),
            (Shape::Any, 4..=6) => self.int().map(|_| ()),
            (Shape::Double | Shape::Any, 7) => self.skip(8),
            (Shape::Bytes, 8) => self.bytes(),
            (Shape::Any, 8) => {
                let len = self.varint()?;
                self.skip(len)
            }
            (Shape::List(element), 9) => self.list(element, depth),
            (Shape::Struct(fields), 12) => {
                (self.on)(&self.path, Event::Struct);
                self.fields(fields, depth)
            }
            (Shape::Any, _) if depth == MAX_DEPTH => Err(invalid("a struct nests too deep")),
            (Shape::Any, 9 | 10) => self.list(&Shape::Any, depth + 1),
            (Shape::Any, 11) => self.map(depth + 1),
            (Shape::Any, 12) => self.fields(&[], depth + 1),
            (Shape::Any, 13) => self.skip(16),
            _ => Err(invalid("a field of a struct has another type than it should")),
        }
    }

    fn list(&mut self, element: &'static Shape, depth: usize) -> io::Result<()> {
        let head = self.byte()?;
        let len = match head >> 4 {
            15 => self.varint()?,
            len => len.into(),
        };
        for _ in 0..self.count(len, &[head & 15])? {
            self.value(head & 15, element, depth)?;
        }
        Ok(())
    }

    fn map(&mut self, depth: usize) -> io::Result<()> {
        let len = self.varint()?;
        if len == 0 {
            return Ok(());
        }
        let types = self.byte()?;
        let types = [types >> 4, types & 15];
        for _ in 0..self.count(len, &types)? {
            for wire in types {
                self.value(wire, &Shape::Any, depth)?;
            }
        }
        Ok(())
    }

    /// A number of elements, each of which has a byte at least. The libraries do not agree on those of a truth value.
    fn count(&self, len: u64, types: &[u8]) -> io::Result<u64> {
        let is_bool = |wire: &u8| matches!(wire, 1 | 2);
        match len <= self.left && (len == 0 || !types.iter().any(is_bool)) {
            true => Ok(len),
            false => Err(invalid("a list has more elements than there are bytes")),
        }
    }

    fn number(&mut self, min: i64, max: i64) -> io::Result<()> {
        let int = self.int()?;
        if int < min || int > max {
            return Err(invalid("a number is out of the range of its field"));
        }
        (self.on)(&self.path, Event::Int(int));
        Ok(())
    }

    fn bytes(&mut self) -> io::Result<()> {
        let len = self.varint()?;
        self.consume(len)?;
        let mut bytes = Vec::new();
        self.input.by_ref().take(len).read_to_end(&mut bytes)?;
        (self.on)(&self.path, Event::Bytes(&bytes));
        Ok(())
    }

    fn int(&mut self) -> io::Result<i64> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(invalid("a number has no end"))
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.consume(1)?;
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn skip(&mut self, len: u64) -> io::Result<()> {
        self.consume(len)?;
        io::copy(&mut self.input.by_ref().take(len), &mut io::sink()).map(|_| ())
    }

    fn consume(&mut self, len: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(len).ok_or_else(|| invalid("a struct goes on beyond its end"))?;
        Ok(())
    }
}
