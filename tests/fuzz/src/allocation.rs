//! How much a piece of code holds at its peak, counted by the allocator of every program that links this crate.
//!
//! Counted a thread: tests run side by side. So what a target gives to other threads to free, or gets from them, is counted wrongly;
//! targets run on one thread.

#![allow(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Allocated and not freed on this thread. Below 0 where it frees what others allocated.
    static LIVE_BYTES: Cell<isize> = const { Cell::new(0) };
    /// The most that this was since it was last set.
    static PEAK_BYTES: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    // A thread that is ending has no cells any more, and nobody asks about it.
    let _ = LIVE_BYTES.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK_BYTES.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator as it came; counting allocates nothing, because the cells are
// constants without destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be there at once.
        count(size.cast_signed());
        count(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Runs the code; what it returns, and the most bytes that were allocated at once, beyond those that were before it. May be
/// nested.
pub fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let (before, outer) = (LIVE_BYTES.get(), PEAK_BYTES.get());
    PEAK_BYTES.set(before);
    let value = run();
    let peak = PEAK_BYTES.get();
    PEAK_BYTES.set(peak.max(outer));
    (value, usize::try_from(peak - before).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_what_was_there_at_once() {
        let peak = peak_of(|| {
            drop(std::hint::black_box(vec![0u8; 10_000]));
            let mut grown: Vec<u8> = std::hint::black_box(Vec::with_capacity(3_000));
            grown.resize(3_001, 1);
            drop(grown);
        });
        assert_eq!(peak, ((), 10_000));
        assert_eq!(peak_of(|| 7), (7, 0));
        let (kept, peak) = peak_of(|| vec![0u8; 500]);
        assert_eq!((kept.len(), peak), (500, 500));
        let outer = peak_of(|| {
            drop(std::hint::black_box(vec![0u8; 900]));
            assert_eq!(peak_of(|| drop(std::hint::black_box(vec![0u8; 20]))).1, 20);
        });
        assert_eq!(outer.1, 900, "the outer one saw what was before the inner one");
    }
}
