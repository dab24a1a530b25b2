//! The frame: an 8-byte header, a fixed-size body and a tail.
//!
//! ```text
//! offset  size  field
//! 0       4     u32 LE  bytes that follow the header: body + tail
//! 4       1     u8      kind
//! 5       1     u8      flags, 0 when sent, ignored when received
//! 6       2     u16 LE  bytes of the body
//! 8       n     body    an rkyv archive of a flat type: fields in order, little-endian, no padding
//! 8 + n   m     tail    lists, strings and payload, back to back; their lengths are the body's last fields
//! ```
//!
//! A body longer than the one known is accepted (a newer peer appended fields), a shorter one is refused.

use alloc::vec::Vec;
use bytes::{BufMut, Bytes, BytesMut};
use core::fmt;
use thiserror::Error;

use crate::error::ErrorCode;
use crate::limits::{BODY_BYTES_MAX, LIST_ENTRIES_MAX};
use crate::shape::{Field, Part};

/// Size of a frame's header.
pub const HEADER_BYTES: usize = 8;

/// Why bytes are not a frame. Each ends the connection they came from, or the reading of the batch they lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Fewer bytes than a header, or than its length says.
    #[error("frame cut short: {have} bytes of {need}")]
    Short {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        need: usize,
    },
    /// The header announces more than the limit of this stream.
    #[error("frame of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLarge {
        /// Announced size, header included.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The kind byte names no frame that is known here.
    #[error("unknown frame kind {0:#04x}")]
    UnknownKind(u8),
    /// The body is shorter than this kind's.
    #[error("body of frame kind {kind:#04x} has {have} bytes, needs {need}")]
    ShortBody {
        /// The frame's kind.
        kind: u8,
        /// Bytes there are.
        have: usize,
        /// Bytes this kind needs.
        need: usize,
    },
    /// The body is longer than any body may be, or than the frame.
    #[error("body of {bytes} bytes is longer than its frame or the limit")]
    LongBody {
        /// Announced size of the body.
        bytes: usize,
    },
    /// The tail's parts and its length do not agree.
    #[error("tail does not hold what the body says: {have} bytes, {need} needed")]
    Tail {
        /// Bytes of the tail that were left.
        have: usize,
        /// Bytes the next part needs; 0 when bytes are left over.
        need: usize,
    },
    /// A list announces more entries than any list may have.
    #[error("list of {entries} entries exceeds the limit of {LIST_ENTRIES_MAX}")]
    LongList {
        /// Announced entries.
        entries: usize,
    },
    /// A text is not UTF-8.
    #[error("text is not UTF-8")]
    NotText,
}

impl FrameError {
    /// What a connection is closed with when its peer sent this.
    pub const fn close_code(self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::FRAME_TOO_LARGE,
            Self::Short { .. }
            | Self::UnknownKind(_)
            | Self::ShortBody { .. }
            | Self::LongBody { .. }
            | Self::Tail { .. }
            | Self::LongList { .. }
            | Self::NotText => ErrorCode::MALFORMED,
        }
    }
}

/// A frame cut from a stream, its body not yet looked at. Made by [`RawFrame::new`] alone; `bytes` is not to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// Which frame this is.
    pub kind: u8,
    /// The whole frame, header included.
    pub bytes: Bytes,
    body_bytes: usize,
}

/// The length a header announces, header included.
///
/// # Errors
/// `Short` with fewer than [`HEADER_BYTES`]; `LongBody` if the body would not fit.
pub fn announced_bytes(header: &[u8]) -> Result<usize, FrameError> {
    let Some(h) = header.first_chunk::<HEADER_BYTES>() else {
        return Err(FrameError::Short { have: header.len(), need: HEADER_BYTES });
    };
    let follow = u32::from_le_bytes([h[0], h[1], h[2], h[3]]) as usize;
    let body = usize::from(u16::from_le_bytes([h[6], h[7]]));
    if body > follow || body > BODY_BYTES_MAX {
        return Err(FrameError::LongBody { bytes: body });
    }
    // Where a usize has 32 bits the sum may not fit; the largest one is above every limit and so refused.
    Ok(HEADER_BYTES.saturating_add(follow))
}

impl RawFrame {
    /// Takes `bytes` for one whole frame.
    ///
    /// # Errors
    /// `Short` or `Tail` if they are fewer or more than the header says, `LongBody` as [`announced_bytes`].
    pub fn new(bytes: Bytes) -> Result<Self, FrameError> {
        let need = announced_bytes(&bytes)?;
        if bytes.len() < need {
            return Err(FrameError::Short { have: bytes.len(), need });
        }
        if bytes.len() > need {
            return Err(FrameError::Tail { have: bytes.len() - need, need: 0 });
        }
        let body_bytes = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
        Ok(Self { kind: bytes[4], bytes, body_bytes })
    }

    /// The first `need` bytes of the body, what this version knows of it.
    ///
    /// # Errors
    /// `ShortBody` if there are fewer.
    pub fn body(&self, need: usize) -> Result<&[u8], FrameError> {
        if self.body_bytes < need {
            return Err(FrameError::ShortBody { kind: self.kind, have: self.body_bytes, need });
        }
        Ok(&self.bytes[HEADER_BYTES..HEADER_BYTES + need])
    }

    /// What follows the body.
    pub fn tail(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES + self.body_bytes..)
    }
}

/// One kind of frame: a struct with an encoding.
pub trait Body: Sized {
    /// The kind byte.
    const KIND: u8;
    /// Size of the body in this version.
    const BODY_BYTES: usize;
    /// The body's fields in the order of their bytes, without the lengths of the tail's parts, which come last.
    const FIELDS: &'static [Field];
    /// The tail's parts in the order of their bytes.
    const TAIL: &'static [Part];

    /// Appends the whole frame to `out`.
    fn encode(&self, out: &mut BytesMut);

    /// Reads a frame whose kind is [`Body::KIND`]; slices its tail, copies no payload.
    ///
    /// # Errors
    /// As [`FrameError`] says; the value is not built.
    fn decode(raw: &RawFrame) -> Result<Self, FrameError>;

    /// The whole frame as bytes of its own.
    fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }
}

/// Appends a header with a length to be filled in by [`end_frame`]; returns where the frame starts.
#[doc(hidden)]
pub fn begin_frame(out: &mut BytesMut, kind: u8, body_bytes: usize) -> usize {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u8(kind);
    out.put_u8(0);
    out.put_u16_le(u16::try_from(body_bytes).expect("bodies are under BODY_BYTES_MAX"));
    start
}

/// Fills in the length of the frame that starts at `start` and ends where `out` ends.
#[doc(hidden)]
pub fn end_frame(out: &mut BytesMut, start: usize) {
    let follow = out.len() - start - HEADER_BYTES;
    let follow = u32::try_from(follow).expect("frames are under 4 GiB");
    out[start..start + 4].copy_from_slice(&follow.to_le_bytes());
}

/// What a frame's `Debug` shows of a part: a token is a credential and must not get into a log.
#[doc(hidden)]
pub fn loggable<'a>(name: &str, part: &'a dyn fmt::Debug) -> &'a dyn fmt::Debug {
    if name == "token" { &"(kept out of logs)" } else { part }
}

/// A part of a tail: its length travels as a u32 in the body.
pub trait TailPart: Sized {
    /// Bytes of one unit of the length: 1, or the size of a list's entry.
    const UNIT_BYTES: usize = 1;
    /// Bytes, or entries for a list.
    fn length(&self) -> u32;
    /// Appends the part.
    fn put(&self, out: &mut BytesMut);
    /// Cuts a part of this length from the front of `tail`.
    ///
    /// # Errors
    /// `Tail` if there is less, `LongList`, `NotText`.
    fn take(length: u32, tail: &mut Bytes) -> Result<Self, FrameError>;
}

fn cut(bytes: usize, tail: &mut Bytes) -> Result<Bytes, FrameError> {
    if tail.len() < bytes {
        return Err(FrameError::Tail { have: tail.len(), need: bytes });
    }
    Ok(tail.split_to(bytes))
}

fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("parts of a frame are under 4 GiB")
}

impl TailPart for Bytes {
    fn length(&self) -> u32 {
        length_u32(self.len())
    }
    fn put(&self, out: &mut BytesMut) {
        out.put_slice(self);
    }
    fn take(length: u32, tail: &mut Bytes) -> Result<Self, FrameError> {
        cut(length as usize, tail)
    }
}

/// UTF-8 text that shares the bytes it came in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text(Bytes);

impl Text {
    /// The text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).expect("checked when it was made")
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl TryFrom<Bytes> for Text {
    type Error = FrameError;
    fn try_from(bytes: Bytes) -> Result<Self, FrameError> {
        core::str::from_utf8(&bytes).map_err(|_| FrameError::NotText)?;
        Ok(Self(bytes))
    }
}

impl core::ops::Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl TailPart for Text {
    fn length(&self) -> u32 {
        self.0.length()
    }
    fn put(&self, out: &mut BytesMut) {
        self.0.put(out);
    }
    fn take(length: u32, tail: &mut Bytes) -> Result<Self, FrameError> {
        cut(length as usize, tail)?.try_into()
    }
}

/// An entry of a list: a flat type of fixed size.
pub trait Element: Sized {
    /// Size of one entry.
    const BYTES: usize;
    /// Appends the entry.
    fn put(&self, out: &mut BytesMut);
    /// Reads an entry from exactly [`Element::BYTES`] bytes.
    fn read(bytes: &[u8]) -> Self;
}

impl<T: Element> TailPart for Vec<T> {
    const UNIT_BYTES: usize = {
        assert!(T::BYTES > 0, "entries without bytes would make the length of a list mean nothing");
        T::BYTES
    };
    fn length(&self) -> u32 {
        length_u32(self.len())
    }
    fn put(&self, out: &mut BytesMut) {
        for entry in self {
            entry.put(out);
        }
    }
    fn take(length: u32, tail: &mut Bytes) -> Result<Self, FrameError> {
        let entries = length as usize;
        if entries > LIST_ENTRIES_MAX {
            return Err(FrameError::LongList { entries });
        }
        // The bytes are cut before room for the entries is made, so that what is allocated is bounded by what has come.
        let bytes = cut(entries * Self::UNIT_BYTES, tail)?;
        Ok(bytes.chunks_exact(Self::UNIT_BYTES).map(T::read).collect())
    }
}
