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

/// Room for the largest flat type on the stack.
const SCRATCH_BYTES: usize = crate::limits::BODY_BYTES_MAX;

/// Appends the archive of `value`.
pub fn put<T: Flat>(value: &T, out: &mut BytesMut) {
    const { assert!(T::BYTES <= SCRATCH_BYTES, "a flat type is larger than a body may be") };
    let mut scratch = [0u8; SCRATCH_BYTES];
    let mut nothing = [core::mem::MaybeUninit::uninit(); 0];
    rkyv::api::low::to_bytes_in_with_alloc::<_, _, Failure>(
        value,
        Buffer::from(&mut scratch),
        SubAllocator::new(&mut nothing),
    )
    .expect("a flat type needs no allocation and fits the scratch");
    out.put_slice(&scratch[..T::BYTES]);
}

/// Reads a value from exactly [`Flat::BYTES`] bytes; every bit pattern of integers is valid.
pub fn read<T: Flat>(bytes: &[u8]) -> T
where
    T::Archived: Deserialize<T, Strategy<(), Failure>>,
{
    let archived = rkyv::api::low::access::<T::Archived, Failure>(bytes)
        .expect("the caller sliced it to size and flat types have no invalid bit pattern");
    rkyv::api::deserialize_using::<T, _, Failure>(archived, &mut ()).expect("integers deserialize without failure")
}
