//! The header of an NPY file: the literal of a Python dictionary.

use std::io::{self, Read, Seek, SeekFrom};

use super::{Layout, Place};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// The data begins at a multiple of this.
const ALIGN: usize = 64;

/// Headers are some hundred bytes; a longer one is an attack or damage.
const MAX_HEADER: usize = 1 << 20;

/// The header of an NPY file; not shorter than `len`, if that is a header's length.
pub(crate) fn header(dtype: &str, fortran_order: bool, shape: &[usize], len: usize) -> Vec<u8> {
    let lens: Vec<String> = shape.iter().map(usize::to_string).collect();
    // A Python tuple of one needs its comma.
    let shape = if lens.len() == 1 { format!("{},", lens[0]) } else { lens.join(", ") };
    let order = if fortran_order { "True" } else { "False" };
    let text = format!("{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': ({shape}), }}");
    let (version, prefix) = if text.len() + 1 + ALIGN < 1 << 16 { (1, 10) } else { (2, 12) };
    let end = (prefix + text.len() + 1).next_multiple_of(ALIGN).max(len);
    let mut header = [MAGIC, &[version, 0][..]].concat();
    match version {
        1 => header.extend(((end - prefix) as u16).to_le_bytes()),
        _ => header.extend(((end - prefix) as u32).to_le_bytes()),
    }
    header.extend(text.as_bytes());
    header.resize(end - 1, b' ');
    header.push(b'\n');
    header
}

/// Reads the header of an NPY file of so many bytes.
pub(crate) fn read_header(input: &mut (impl Read + Seek), file_len: u64) -> io::Result<Layout> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut start = [0; 8];
    input.seek(SeekFrom::Start(0))?;
    input.read_exact(&mut start)?;
    if start[..6] != *MAGIC {
        return Err(wrong("it does not begin as an NPY file does"));
    }
    let len = match start[6] {
        1 => {
            let mut len = [0; 2];
            input.read_exact(&mut len)?;
            u16::from_le_bytes(len).into()
        }
        2 | 3 => {
            let mut len = [0; 4];
            input.read_exact(&mut len)?;
            u32::from_le_bytes(len) as usize
        }
        _ => return Err(wrong("its version is unknown")),
    };
    if len > MAX_HEADER {
        return Err(wrong("it is too long"));
    }
    let mut text = vec![0; len];
    input.read_exact(&mut text)?;
    // Names of fields may be in Latin 1; what matters here is ASCII.
    let text = String::from_utf8_lossy(&text);
    if is_structured(&text) {
        let records = "arrays of records cannot be read; store their fields as arrays, or the whole as a frame";
        return Err(io::Error::new(io::ErrorKind::Unsupported, records));
    }
    let (descr, fortran_order, shape) = parse_header(&text).ok_or_else(|| wrong("it is no description of an array"))?;
    let unknown = || io::Error::new(io::ErrorKind::Unsupported, format!("arrays of dtype {descr:?} cannot be read"));
    let swapped = descr.starts_with('>');
    let dtype = match (descr.get(..1), descr.get(1..)) {
        // The order of single bytes has several names.
        (Some("<" | "=" | "|" | ">"), Some(kind @ ("b1" | "i1" | "u1"))) => format!("|{kind}"),
        (Some("<" | "=" | ">"), Some(kind)) => format!("<{kind}"),
        _ => return Err(unknown()),
    };
    let offset = input.stream_position()?;
    let layout = Layout { dtype, shape, fortran_order, swapped, place: Place::Npy(offset) };
    let size = layout.itemsize().ok_or_else(unknown)?;
    let bytes = layout.elements().and_then(|count| size.checked_mul(count));
    // `np.load` steps over what follows the elements, and so does this.
    if bytes.zip(file_len.checked_sub(offset)).is_none_or(|(bytes, rest)| bytes as u64 > rest) {
        return Err(wrong("the file is too short for the array"));
    }
    Ok(layout)
}

/// Whether the elements are records: then their type is a list, where it is a string otherwise.
fn is_structured(text: &str) -> bool {
    let descr = text.split_once("descr").and_then(|(_, rest)| rest.split_once(':'));
    descr.is_some_and(|(_, value)| value.trim_start().starts_with('['))
}

/// Reads the literal of a Python dictionary, as far as NPY headers go.
fn parse_header(text: &str) -> Option<(String, bool, Vec<usize>)> {
    let (mut descr, mut order, mut shape) = (None, None, None);
    let mut rest = text.trim().strip_prefix('{')?.trim_start();
    while !rest.starts_with('}') {
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let (name, after) = rest[1..].split_once(quote)?;
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        rest = match name {
            "descr" => {
                let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
                let (text, after) = value[1..].split_once(quote)?;
                descr = Some(text.to_owned());
                after
            }
            "fortran_order" => {
                let (flag, after) = match value.strip_prefix("True") {
                    Some(after) => (true, after),
                    None => (false, value.strip_prefix("False")?),
                };
                order = Some(flag);
                after
            }
            "shape" => {
                let (lens, after) = value.strip_prefix('(')?.split_once(')')?;
                // Python 2 wrote long integers with an L.
                let lens = lens.split(',').map(|len| len.trim().trim_end_matches('L')).filter(|len| !len.is_empty());
                shape = Some(lens.map(str::parse).collect::<std::result::Result<_, _>>().ok()?);
                after
            }
            _ => return None,
        };
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    rest.strip_prefix('}')?.trim().is_empty().then_some(())?;
    Some((descr?, order?, shape?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_other_writers() {
        let parsed = parse_header;
        let numpy = parsed("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }   \n");
        assert_eq!(numpy, Some(("<f8".into(), false, vec![3, 4])));
        let dense = parsed("{\"shape\":(5L,),\"fortran_order\":True,\"descr\":\"|u1\"}");
        assert_eq!(dense, Some(("|u1".into(), true, vec![5])));
        assert_eq!(parsed("{'descr': '<f8', 'fortran_order': False, 'shape': ()}").unwrap().2, Vec::<usize>::new());
        for wrong in [
            "",
            "{",
            "{}",
            "{'descr': '<f8'}",
            "{'descr': '<f8', 'fortran_order': Maybe, 'shape': ()}",
            "{'descr': '<f8', 'fortran_order': True, 'shape': (-1,)}",
            "{'descr': '<f8', 'fortran_order': True, 'shape': (99999999999999999999999,)}",
            "{'descr': [('a', '<f8')], 'fortran_order': True, 'shape': (1,)}",
            "{'descr': '<f8', 'fortran_order': True, 'shape': (1,)} x",
            "{é",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
