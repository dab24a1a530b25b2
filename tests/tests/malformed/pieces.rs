//! Frames in parts, so that one part can be wrong.

use carillon_protocol::shape::Shape;

/// A frame in its parts, not yet put together.
#[derive(Clone)]
pub(super) struct Pieces {
    pub(super) kind: u8,
    pub(super) fields: Vec<u8>,
    pub(super) lengths: Vec<u32>,
    pub(super) tail: Vec<Vec<u8>>,
}

impl Pieces {
    /// A good frame of this shape: every field is 1, every part has something in it.
    pub(super) fn of(shape: &Shape) -> Self {
        let mut pieces = Self { kind: shape.kind, fields: Vec::new(), lengths: Vec::new(), tail: Vec::new() };
        for field in shape.fields {
            pieces.fields.push(1);
            pieces.fields.resize(pieces.fields.len() + field.bytes - 1, 0);
        }
        for part in shape.tail {
            let bytes = if part.type_name == "Text" { "añb".into() } else { vec![1; 2 * part.unit_bytes] };
            pieces.lengths.push(u32::try_from(bytes.len() / part.unit_bytes).unwrap());
            pieces.tail.push(bytes);
        }
        pieces
    }

    pub(super) fn body(&self) -> Vec<u8> {
        self.fields.iter().copied().chain(self.lengths.iter().flat_map(|length| length.to_le_bytes())).collect()
    }

    pub(super) fn tail(&self) -> Vec<u8> {
        self.tail.concat()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        assemble(self.kind, &self.body(), &self.tail())
    }
}

pub(super) fn header(follow: usize, kind: u8, body: usize) -> Vec<u8> {
    let mut out = u32::try_from(follow).unwrap().to_le_bytes().to_vec();
    out.extend([kind, 0]);
    out.extend(u16::try_from(body).unwrap().to_le_bytes());
    out
}

pub(super) fn assemble(kind: u8, body: &[u8], tail: &[u8]) -> Vec<u8> {
    [&header(body.len() + tail.len(), kind, body.len()), body, tail].concat()
}
