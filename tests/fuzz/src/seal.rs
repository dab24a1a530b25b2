//! Making lengths and checksums fit what is there, so that what is behind them is reached.
//!
//! Written from the byte tables of the formats, not with the code that is tested.

use carillon_protocol::shape::Shape;

use crate::input::Input;

/// Bytes of a frame's header.
const FRAME_HEADER_BYTES: usize = 8;

/// Units that a part of a sealed frame has at most: long enough for every limit but those of whole frames.
const UNITS_MAX: u32 = 2_048;

/// Cuts bytes into good frames of these shapes: each keeps its kind if it has one, its fields, and as much of its tail as
/// its lengths say and there is. One after the other: eight bytes can make a frame of hundreds, and of all of them at once more
/// would be kept than what is tested allocates.
pub fn frames(bytes: &[u8], shapes: &[Shape]) -> impl Iterator<Item = Vec<u8>> {
    let mut input = Input::new(bytes);
    std::iter::from_fn(move || (!input.is_empty()).then(|| frame(&mut input, shapes)))
}

fn frame(input: &mut Input<'_>, shapes: &[Shape]) -> Vec<u8> {
    let header: [u8; FRAME_HEADER_BYTES] = input.array();
    let known = shapes.iter().find(|shape| shape.kind == header[4]);
    let shape = known.unwrap_or(&shapes[usize::from(header[4]) % shapes.len()]);
    let mut body: Vec<u8> = Vec::new();
    for field in shape.fields {
        let mut bytes = input.take(field.bytes).to_vec();
        bytes.resize(field.bytes, 0);
        body.extend(bytes);
    }
    let lengths: Vec<u32> = shape.tail.iter().map(|_| input.u32() % UNITS_MAX).collect();
    let mut tail = Vec::new();
    for (part, length) in shape.tail.iter().zip(lengths) {
        let taken = input.take(length as usize * part.unit_bytes);
        let units = taken.len() / part.unit_bytes;
        // Growing takes twice as much, for a moment.
        tail.reserve_exact(taken.len());
        body.extend(u32::try_from(units).unwrap().to_le_bytes());
        // ASCII, so that every text is one.
        let mask = if part.type_name == "Text" { 0x7f } else { 0xff };
        tail.extend(taken[..units * part.unit_bytes].iter().map(|byte| byte & mask));
    }
    let mut frame = u32::try_from(body.len() + tail.len()).unwrap().to_le_bytes().to_vec();
    frame.extend([shape.kind, 0]);
    frame.extend(u16::try_from(body.len()).unwrap().to_le_bytes());
    frame.extend(body);
    frame.extend(tail);
    frame
}

/// Puts the CRC32C of `covered` and what follows it to the four bytes at `at`, of bytes up to `end`.
pub fn put_crc(bytes: &mut [u8], at: usize, end: usize) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..at]), &bytes[at + 4..end]);
    put(bytes, at, &crc.to_le_bytes());
}

/// Writes over bytes, where there are any.
pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(to) = bytes.get_mut(at..at + value.len()) {
        to.copy_from_slice(value);
    }
}

/// Four bytes, little-endian.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Eight bytes, little-endian.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
