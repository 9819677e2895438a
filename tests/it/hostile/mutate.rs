//! Mutations of bytes, the same ones in each run.

/// Calls `each` with `count` mutants of `seed`.
pub(super) fn mutants(seed: &[u8], count: usize, mut each: impl FnMut(&[u8])) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed.len() as u64);
    for _ in 0..count {
        let mut bytes = seed.to_vec();
        for _ in 0..=random.below(3) {
            mutate(&mut bytes, &mut random);
        }
        each(&bytes);
    }
}

/// Numbers that are not random, but look so.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }

    /// A place, more often in the first and last bytes: there are the headers.
    fn place(&mut self, len: usize) -> usize {
        match self.below(4) {
            0 => self.below(len.min(160)),
            1 => len.saturating_sub(1 + self.below(len.min(160))),
            _ => self.below(len),
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        return bytes.push(random.next() as u8);
    }
    let at = random.place(bytes.len());
    match random.below(7) {
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'9', b'-'][random.below(7)],
        3 => bytes.truncate(at),
        4 => put_number(bytes, at, random),
        5 => bytes.insert(at, random.next() as u8),
        _ => {
            let end = bytes.len().min(at + 1 + random.below(16));
            bytes.drain(at..end);
        }
    }
}

/// Writes one of the numbers at which code goes wrong, of four or eight bytes, of either order.
fn put_number(bytes: &mut [u8], at: usize, random: &mut Random) {
    let near = bytes.len() as u64;
    let numbers = [0, 1, near, near + 1, 1 << 20, 1 << 31, 1 << 32, 1 << 40, 1 << 63, u64::MAX, i64::MAX as u64];
    let number = numbers[random.below(numbers.len())];
    let number = match random.below(4) {
        0 => number.to_le_bytes().to_vec(),
        1 => number.to_be_bytes().to_vec(),
        2 => (number as u32).to_le_bytes().to_vec(),
        _ => (number as u32).to_be_bytes().to_vec(),
    };
    let end = bytes.len().min(at + number.len());
    bytes[at..end].copy_from_slice(&number[..end - at]);
}
