//! Asks the processor for memory before it is needed.
//!
//! Of thousands of connections each has left the caches when its turn comes. While one is worked on, the next
//! one is on its way. `docs/PERFORMANCE.md` has what that is worth.
#![allow(unsafe_code, reason = "the intrinsic takes a raw pointer")]

use crate::limits::PREFETCH_BYTES;

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// Asks for the beginning of a value, [`PREFETCH_BYTES`] of it at most.
#[cfg(target_arch = "x86_64")]
pub(crate) fn prefetch<T>(value: &T) {
    use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    let start = std::ptr::from_ref(value).cast::<i8>();
    for offset in (0..size_of::<T>().min(PREFETCH_BYTES)).step_by(LINE_BYTES) {
        // SAFETY: a prefetch reads nothing that the program sees and faults on no address; this one is within the value.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(start.add(offset)) };
    }
}

/// Nothing is asked for on other processors.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn prefetch<T>(_value: &T) {}
