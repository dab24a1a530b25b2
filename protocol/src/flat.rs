//! Flat types: the fixed-size bodies and list entries, as rkyv archives.
//!
//! With rkyv's features `little_endian`, `unaligned` and `pointer_width_32` an archived struct of integers has alignment 1
//! and is its fields in order, without padding, so the root of the archive is the archive.

use bytes::{BufMut, BytesMut};
use rkyv::api::low::LowSerializer;
use rkyv::rancor::{Failure, Strategy};
use rkyv::ser::allocator::SubAllocator;
use rkyv::ser::writer::Buffer;
use rkyv::{Archive, Deserialize, Portable, Serialize};

/// What a flat type has in common: checked access from bytes, archive to bytes.
pub trait Flat:
    Archive<Archived: Portable + for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::low::LowValidator<'a, Failure>>>
    + for<'a> Serialize<LowSerializer<Buffer<'a>, SubAllocator<'a>, Failure>>
{
    /// Size of the archive.
    const BYTES: usize = size_of::<Self::Archived>();
}

impl<T> Flat for T where
    T: Archive<Archived: Portable + for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::low::LowValidator<'a, Failure>>>
        + for<'a> Serialize<LowSerializer<Buffer<'a>, SubAllocator<'a>, Failure>>
{
}

/// A field of a flat type: an unsigned integer or a newtype of one, for which every bit pattern is a value.
///
/// The promise that [`read`] rests on. Implement it for nothing that has an invalid pattern (a `bool`, a `char`, an enum): a
/// peer's byte would then be a panic.
pub trait Plain: Flat {}

impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}

/// Room for the largest flat type on the stack.
const SCRATCH_BYTES: usize = crate::limits::BODY_BYTES_MAX;

/// Appends the archive of `value`.
pub fn put<T: Flat>(value: &T, out: &mut BytesMut) {
    const { assert!(T::BYTES <= SCRATCH_BYTES, "a flat type is larger than a body may be") };
    let mut scratch = [0u8; SCRATCH_BYTES];
    let mut nothing: [core::mem::MaybeUninit<u8>; 0] = [];
    rkyv::api::low::to_bytes_in_with_alloc::<_, _, Failure>(
        value,
        Buffer::from(&mut scratch),
        SubAllocator::new(&mut nothing),
    )
    .expect("a flat type needs no allocation and fits the scratch");
    out.put_slice(&scratch[..T::BYTES]);
}

/// Reads a value from exactly [`Flat::BYTES`] bytes. Whatever they are they are a value: `frames!` and `elements!` admit only
/// [`Plain`] fields.
///
/// # Panics
/// If there are more or fewer bytes: the caller slices, after it has checked the length.
pub fn read<T: Flat>(bytes: &[u8]) -> T
where
    T::Archived: Deserialize<T, Strategy<(), Failure>>,
{
    assert_eq!(bytes.len(), T::BYTES, "the caller sliced it to size");
    let archived =
        rkyv::api::low::access::<T::Archived, Failure>(bytes).expect("flat types have no invalid bit pattern");
    rkyv::api::deserialize_using::<T, _, Failure>(archived, &mut ()).expect("integers deserialize without failure")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
    struct Mixed {
        small: u8,
        medium: u32,
        large: u64,
    }

    #[test]
    fn fields_lie_in_order_little_endian_and_without_padding() {
        let value = Mixed { small: 0x01, medium: 0x0203_0405, large: 0x0607_0809_0a0b_0c0d };
        let mut out = BytesMut::new();
        put(&value, &mut out);
        assert_eq!(Mixed::BYTES, 13);
        assert_eq!(out[..], [0x01, 0x05, 0x04, 0x03, 0x02, 0x0d, 0x0c, 0x0b, 0x0a, 0x09, 0x08, 0x07, 0x06]);
        assert_eq!(read::<Mixed>(&out), value);
    }

    #[test]
    fn a_value_is_read_at_any_address() {
        let mut out = BytesMut::new();
        put(&Mixed { small: 1, medium: 2, large: 3 }, &mut out);
        let mut buffer = [0u8; 32];
        for at in 0..8 {
            buffer[at..at + 13].copy_from_slice(&out);
            assert_eq!(read::<Mixed>(&buffer[at..at + 13]), Mixed { small: 1, medium: 2, large: 3 }, "offset {at}");
        }
    }
}
