//! A type of your own in a file format of its own: a photograph as a PPM file, which image viewers open.
//!
//! `cargo run --workspace --example own_format`

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use icechest::{AnyArray, Chest, Decoder, Encoder, Error, ErrorKind, Format, Kind, Result, Value};

/// A colour image: three bytes a pixel, row by row.
struct Photo {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Value for Photo {
    const KIND: Kind = Kind::Plain;

    fn type_name() -> String {
        "Photo".to_owned()
    }

    /// Exact, because the budget is.
    fn size(&self) -> usize {
        size_of::<Self>() + self.pixels.capacity()
    }

    fn encode(&self, out: &mut Encoder) -> Result<Format> {
        out.describe("width", self.width); // shown by `icechest info`
        out.describe("height", self.height);
        write!(out, "P6\n{} {}\n255\n", self.width, self.height)?;
        out.write_all(&self.pixels)?;
        Ok(Format::new("ppm", "ppm"))
    }

    fn decode(input: &mut Decoder) -> Result<Self> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes)?;
        parse(&bytes).ok_or_else(|| Error::new(ErrorKind::Damaged, "the file is no PPM image"))
    }
}

fn parse(bytes: &[u8]) -> Option<Photo> {
    let mut lines = bytes.splitn(4, |&byte| byte == b'\n');
    let (magic, size, depth, pixels) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
    let (width, height) = std::str::from_utf8(size).ok()?.split_once(' ')?;
    let (width, height): (usize, usize) = (width.parse().ok()?, height.parse().ok()?);
    let is_whole = width.checked_mul(height)?.checked_mul(3)? == pixels.len();
    (magic == b"P6" && depth == b"255" && is_whole).then(|| Photo { width, height, pixels: pixels.to_vec() })
}

fn main() -> Result<()> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/photo.npy");
    let array = AnyArray::from_npy(File::open(data)?)?;
    let array = array.downcast_ref::<u8>().ok_or_else(|| Error::new(ErrorKind::WrongType, "the photo is no bytes"))?;
    let (height, width) = (array.shape()[0], array.shape()[1]);

    let dir = std::env::temp_dir().join("icechest-own-format");
    let chest = Chest::builder().budget("1MiB").open(&dir)?;
    for brightness in [60, 80, 100] {
        let pixels = array.iter().map(|&p| (u32::from(p) * brightness / 100) as u8).collect();
        chest.insert(("chelsea", brightness), Photo { width, height, pixels })?;
    }
    chest.flush()?;
    drop(chest);

    let chest = Chest::open(&dir)?;
    for key in chest.keys()? {
        let photo = chest.get::<Photo>(&key)?;
        let mean = photo.pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / photo.pixels.len() as f64;
        let file = chest.file(&key)?.unwrap_or_default();
        println!("{key}: {} x {}, mean {mean:.1}, {}", photo.width, photo.height, file.display());
    }
    println!("any image viewer opens these files; they go away now");
    drop(chest);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
