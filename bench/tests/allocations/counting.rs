//! What a piece of code asks of the allocator, on the thread that runs it.
//!
//! Counted a thread: the threads of a test binary, and those that a journal or an index keeps for itself, do not disturb each other's
//! counts, and the count of a deterministic piece of code is the same in every run. What the code has other threads do is not counted.

#![allow(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::ops::AddAssign;

thread_local! {
    /// Since the thread began.
    static ASKED: Cell<Asked> = const { Cell::new(Asked { allocations: 0, reallocations: 0 }) };
    /// Whether it is noted who asks.
    static TRACING: Cell<bool> = const { Cell::new(false) };
    static TRACES: RefCell<Vec<Backtrace>> = const { RefCell::new(Vec::new()) };
}

/// How often the allocator was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// For memory.
    pub(super) allocations: u64,
    /// For more or less of what there was.
    pub(super) reallocations: u64,
}

impl AddAssign for Asked {
    fn add_assign(&mut self, more: Self) {
        self.allocations += more.allocations;
        self.reallocations += more.reallocations;
    }
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(allocations: u64, reallocations: u64) {
    // A thread that is ending has no cells any more, and nobody asks about it.
    let _ = ASKED.try_with(|asked| {
        let before = asked.get();
        asked.set(Asked {
            allocations: before.allocations + allocations,
            reallocations: before.reallocations + reallocations,
        });
    });
    // A backtrace allocates: what it asks for is not traced.
    if TRACING.try_with(|tracing| tracing.replace(false)).unwrap_or(false) {
        TRACES.with_borrow_mut(|traces| traces.push(Backtrace::force_capture()));
        TRACING.set(true);
    }
}

// SAFETY: every call is passed on to the system's allocator as it came. Counting allocates nothing, and tracing, which does, is off
// while it does.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, 0);
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, 0);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(0, 1);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Runs the code; what it returns, and how often it asked.
pub(super) fn asked_by<T>(run: impl FnOnce() -> T) -> (T, Asked) {
    let before = ASKED.get();
    let value = run();
    let after = ASKED.get();
    let asked = Asked {
        allocations: after.allocations - before.allocations,
        reallocations: after.reallocations - before.reallocations,
    };
    (value, asked)
}

/// Runs the code; what it returns, and who asked, in order.
pub(super) fn traced<T>(run: impl FnOnce() -> T) -> (T, Vec<Backtrace>) {
    TRACING.set(true);
    let value = run();
    TRACING.set(false);
    (value, TRACES.take())
}

#[test]
fn what_is_asked_is_counted_and_traced_on_this_thread_alone() {
    let work = || {
        let mut grown: Vec<u8> = std::hint::black_box(Vec::with_capacity(10));
        grown.extend_from_slice(&[0; 11]);
        drop(std::hint::black_box(vec![0u8; 5]));
        drop(grown);
    };
    let two = Asked { allocations: 2, reallocations: 1 };
    assert_eq!(asked_by(work), ((), two));
    assert_eq!(asked_by(|| 7), (7, Asked::default()));
    let ((), traces) = traced(work);
    assert_eq!(traces.len(), 3, "{traces:?}");
    let ((), here) = asked_by(|| {
        let aside = std::thread::spawn(move || asked_by(work).1);
        assert_eq!(aside.join().expect("it does not fail"), two);
    });
    assert!(here.allocations < 20, "starting a thread takes some: {here:?}");
}
