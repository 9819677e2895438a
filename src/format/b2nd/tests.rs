use std::io::{BufReader, ErrorKind, Write};

use super::super::blank::Blank;
use super::super::blosc::{Compressor, Recipe};
use super::write::*;
use super::*;

impl PatchWrite for Vec<u8> {
    fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

fn frame(typesize: usize, shape: &[usize], data: &[u8]) -> Vec<u8> {
    frame_as(Recipe::BYTES, typesize, shape, data)
}

fn frame_as(recipe: Recipe, typesize: usize, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, recipe, "<f8", typesize, shape, &mut &data[..]).unwrap();
    out
}

fn read(source: &Vec<u8>) -> Result<Vec<u8>> {
    let header = read_header(source)?;
    let mut array = zeroed(header.bytes())?;
    header.read_into(source, Blank::over(&mut array))?;
    let mut streamed = Vec::new();
    header.for_each_run(source, &mut |offset, run| {
        assert_eq!(offset, streamed.len());
        streamed.extend_from_slice(run);
        Ok(())
    })?;
    assert!(streamed == array);
    Ok(array)
}

/// Bytes that neither repeat nor compress to nothing.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|i| if i % 3 == 0 { (i / 100) as u8 } else { next() }).collect()
}

fn round_trip(typesize: usize, shape: &[usize]) {
    let data = noise(typesize * shape.iter().product::<usize>());
    let mut file = frame(typesize, shape, &data);
    let header = read_header(&file).unwrap();
    assert_eq!((header.dtype.as_str(), header.typesize, &header.shape[..]), ("<f8", typesize, shape));
    assert!(header.layout.split.is_some() || header.layout.bytes == 0);
    assert!(read(&file).unwrap() == data, "{typesize} {shape:?}");
    let (mut piecewise, mut pieces) = (Vec::new(), BufReader::with_capacity(999, &data[..]));
    write(&mut piecewise, Recipe::BYTES, "<f8", typesize, shape, &mut pieces).unwrap();
    assert!(piecewise == file);
    file.extend(b"what others append");
    assert!(read(&file).unwrap() == data);
    // By bits: noise, and what has planes of all zeros, all ones and runs.
    for data in [data.clone(), (0..data.len()).map(|i| (i / 640) as u8 | 0x80).collect()] {
        assert!(read(&frame_as(Recipe::BITS, typesize, shape, &data)).unwrap() == data, "{typesize} {shape:?}");
    }
}

#[test]
fn spoiled_blocks_give_an_error_or_anything() {
    let data: Vec<u8> = (0..300_000).map(|i| (i / 640) as u8).collect();
    let file = frame_as(Recipe::BITS, 8, &[37_500], &data);
    let header = read_header(&file).unwrap().start as usize;
    let mut random = fastrand::Rng::with_seed(3);
    let (mut errors, tries) = (0, 2000);
    for _ in 0..tries {
        let mut spoiled = file.clone();
        // The blocks' places, their lengths, and what is in them.
        let at = header + blosc::HEADER + random.usize(..400);
        spoiled[at] = random.u8(..);
        spoiled[at + 1] = [0, 1, 0x7f, 0x80, 0xff][random.usize(..5)];
        errors += usize::from(read(&spoiled).is_err());
    }
    assert!(errors > tries / 10, "{errors}");
}

#[test]
fn arrays_round_trip() {
    for typesize in [1, 2, 3, 4, 8, 16, 255] {
        for shape in [
            &[][..],
            &[0],
            &[1],
            &[3],
            &[7, 0, 2],
            &[1, 1, 1],
            &[31, 1],
            &[2, 3, 5, 7],
            &[17, 1000],
            &[1000, 3],
            &[1, 40_000],
            &[2, 2, 2, 2, 2, 2, 2, 3],
        ] {
            round_trip(typesize, shape);
        }
    }
    for shape in
        [&[1_000_003][..], &[3, 600_001], &[2, 5, 70_000], &[9, 25_000, 2], &[7, 3, 11, 5003], &[1 << 20], &[70_000, 9]]
    {
        round_trip(8, shape);
    }
    round_trip(1, &[CHUNK + 1]);
    round_trip(16, &[3, CHUNK / 16 + 1]);
}

#[test]
fn chunks_are_near_their_targets_and_hardly_padded() {
    for typesize in [1, 2, 4, 8, 16] {
        for shape in [
            &[64 << 20][..],
            &[5_000_011],
            &[1000, 1000],
            &[10_007, 997],
            &[100, 100, 1009],
            &[3, 400_000],
            &[1_000_000, 3],
            &[7, 25_000],
            &[150, 58_245],
            &[2, 2, 2, 70_000],
            &[100_000, 1, 2],
            &[300, 524_288],
            &[11, 65_537],
        ] {
            let layout = Layout::plan(typesize, shape).unwrap();
            let what = format!("{typesize} {shape:?} {:?} {:?}", layout.chunk, layout.block);
            let stored = layout.chunk_bytes * layout.chunks;
            assert!(layout.split.is_some(), "{what}");
            assert!(stored - layout.bytes <= layout.bytes / 10, "{what}: {stored} for {}", layout.bytes);
            assert!(layout.chunk_bytes <= CHUNK + CHUNK / 4, "{what}");
            assert!(2 * (layout.chunk_bytes + blosc::HEADER) + 4 * layout.block_bytes <= WRITE_SCRATCH, "{what}");
            assert!(layout.chunk_bytes >= BLOCK.min(layout.bytes), "{what}");
            let rows = layout.split.map(|axis| layout.block[axis]);
            assert!(layout.block_bytes <= BLOCK * 3 / 2 || rows == Some(1), "{what}");
            assert!(layout.block_bytes >= (BLOCK / 4).min(layout.bytes), "{what}");
        }
    }
}

#[test]
fn zeros_take_no_room() {
    let zeros = vec![0; 16 << 20];
    let file = frame(8, &[2 << 20], &zeros);
    assert!(file.len() < 400);
    assert!(read(&file).unwrap() == zeros);
    let mut mixed = zeros;
    mixed[9 << 20] = 1;
    assert!(read(&frame(8, &[2 << 20], &mixed)).unwrap() == mixed);
}

#[test]
fn every_nan_keeps_its_bits() {
    for nan in [f64::NAN.to_bits(), 0xfff8_0000_0000_0001, 0x7ff0_0000_dead_beef] {
        let data = nan.to_le_bytes().repeat(700_000);
        assert!(read(&frame(8, &[700, 1000], &data)).unwrap() == data);
    }
}

#[test]
fn what_cannot_be_written_is_unsupported() {
    for (typesize, shape) in [(8, &[1; 9][..]), (256, &[2]), (0, &[2])] {
        let result = write(&mut Vec::new(), Recipe::BYTES, "<f8", typesize, shape, &mut &[1; 99][..]);
        assert!(result.is_err(), "{typesize} {shape:?}");
    }
    let short = write(&mut Vec::new(), Recipe::BYTES, "<f8", 8, &[3], &mut &[0; 23][..]);
    assert_eq!(short.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

/// A frame with chunks and blocks that are boxes, as other writers make them: the reverse of `scatter`.
fn boxes(typesize: usize, shape: &[usize], chunk: &[usize], block: &[usize], data: &[u8]) -> Vec<u8> {
    let layout = Layout::new(typesize, shape.to_vec(), chunk.to_vec(), block.to_vec()).unwrap();
    let start = encode_header(&layout, Recipe::BYTES, "<i4", shape, 0, 0).unwrap();
    let mut out = start;
    let mut codec = Compressor::new(Recipe::BYTES, typesize, layout.block_bytes).unwrap();
    let (mut offsets, mut packed, mut compressed) = (vec![], 0u64, vec![]);
    for n in 0..layout.chunks {
        let mut bytes = vec![0; layout.chunk_bytes];
        for element in 0..layout.chunk_bytes / typesize {
            let blocks: Vec<usize> = layout.padded.iter().zip(block).map(|(p, b)| p / b).collect();
            let items = layout.block_bytes / typesize;
            let (outer, inner) = (unravel(element / items, &blocks), unravel(element % items, block));
            let at = unravel(n, &layout.counts());
            let local: Vec<usize> = (0..shape.len()).map(|i| outer[i] * block[i] + inner[i]).collect();
            let global: Vec<usize> = (0..shape.len()).map(|i| at[i] * chunk[i] + local[i]).collect();
            if (0..shape.len()).all(|i| local[i] < chunk[i] && global[i] < shape[i]) {
                let from = (0..shape.len()).fold(0, |from, i| from * shape[i] + global[i]) * typesize;
                bytes[element * typesize..][..typesize].copy_from_slice(&data[from..from + typesize]);
            }
        }
        codec.compress(&bytes, &mut compressed).unwrap();
        offsets.extend(packed.to_le_bytes());
        packed += compressed.len() as u64;
        out.write_all(&compressed).unwrap();
    }
    Compressor::new(Recipe::BYTES, 8, 1024).unwrap().compress(&offsets, &mut compressed).unwrap();
    out.write_all(&compressed).unwrap();
    out.write_all(&TRAILER).unwrap();
    let len = out.len() as u64;
    out.patch(0, &encode_header(&layout, Recipe::BYTES, "<i4", shape, len, packed).unwrap()).unwrap();
    out
}

#[test]
fn foreign_boxes_are_read() {
    for (shape, chunk, block) in [
        (&[10, 12][..], &[4, 5][..], &[2, 3][..]),
        (&[7], &[4], &[3]),
        (&[5, 6, 7], &[5, 6, 7], &[2, 6, 7]),
        (&[5, 6, 7], &[2, 3, 7], &[1, 2, 4]),
        (&[3, 4, 5, 6], &[2, 2, 2, 2], &[2, 1, 2, 1]),
        (&[9, 3], &[2, 3], &[1, 2]),
        (&[9, 3], &[1, 1], &[1, 1]),
        (&[2, 3], &[4, 4], &[3, 3]),
    ] {
        for typesize in [1, 4, 12] {
            let data = noise(typesize * shape.iter().product::<usize>());
            let file = boxes(typesize, shape, chunk, block, &data);
            assert!(read(&file).unwrap() == data, "{shape:?} {chunk:?} {block:?}");
        }
    }
}

/// Small frames of each kind that the mutations below work on.
fn samples() -> Vec<Vec<u8>> {
    let data = noise(8 * 600);
    let smooth: Vec<u8> = (0..600u64).flat_map(|i| (i * i).to_le_bytes()).collect();
    let mut half = smooth.clone();
    half[..2400].fill(0);
    vec![
        frame(8, &[600], &data),
        frame(8, &[20, 30], &smooth),
        frame(8, &[], &data[..8]),
        boxes(8, &[20, 30], &[8, 16], &[4, 5], &smooth),
        boxes(8, &[20, 30], &[5, 30], &[1, 30], &half),
    ]
}

#[test]
fn no_flipped_bits_panic() {
    for mut file in samples() {
        for i in 0..file.len() {
            for flip in [0x01, 0x80, 0xff, 0x10, 0x3c] {
                file[i] ^= flip;
                let _ = read(&file);
                file[i] ^= flip;
            }
        }
        read(&file).unwrap();
    }
}

#[test]
fn no_extreme_number_panics() {
    for mut file in samples() {
        for i in 0..file.len() - 8 {
            for value in [0u64, 1 << 31, u64::MAX, i64::MAX as u64, 1 << 62, 0x7fff_ffff_7fff_ffff] {
                let before: [u8; 8] = file[i..i + 8].try_into().unwrap();
                for bytes in [value.to_be_bytes(), value.to_le_bytes()] {
                    file[i..i + 8].copy_from_slice(&bytes);
                    let _ = read(&file);
                }
                file[i..i + 8].copy_from_slice(&before);
            }
        }
    }
}

#[test]
fn every_cut_is_an_error() {
    for file in samples() {
        for len in 0..file.len() {
            assert!(read(&file[..len].to_vec()).is_err());
        }
    }
}
