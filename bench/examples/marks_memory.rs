//! What the marks of the largest group take in memory, by what is asked of the allocator:
//!
//! ```sh
//! cargo run --release -p carillon-bench --example marks_memory -- [MEMBERS]
//! ```
//!
//! Watermarks at one seq, and each at another, in an order that no tree likes; joinings likewise. What is told is what comes on top of
//! members who joined together and have marked nothing (`members_memory`).

use std::io::{self, Write};

use carillon_bench::group::Group;

/// The system's allocator, which counts.
mod counting {
    #![allow(unsafe_code, reason = "an allocator cannot be written without")]

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Bytes that are allocated now.
    pub(super) static BYTES: AtomicUsize = AtomicUsize::new(0);

    pub(super) struct Counting;

    // SAFETY: each call is the system allocator's, with the arguments as they came.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            BYTES.fetch_add(layout.size(), Ordering::Relaxed);
            // SAFETY: the caller keeps to the contract of `alloc`.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
            // SAFETY: the caller keeps to the contract of `dealloc`.
            unsafe { System.dealloc(at, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;
}

fn bytes() -> usize {
    counting::BYTES.load(std::sync::atomic::Ordering::Relaxed)
}

/// 32 MB, for a million members.
const BYTES_A_MEMBER_MAX: usize = 32;

fn main() -> io::Result<()> {
    let members: u32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let mut out = io::stdout().lock();

    let mut group = Group::of(members);
    group.publish();
    let before = bytes();
    (0..group.members()).for_each(|member| group.mark_read(member));
    let at_one = bytes() - before;
    writeln!(out, "{members} members: marks at one seq {at_one} bytes")?;
    drop(group);

    let (together, joined_together) = (bytes(), Group::of(members));
    let stints = bytes() - together;
    drop(joined_together);
    let alone = bytes();
    let mut group = Group::of_joined_apart(members);
    let joined = (bytes() - alone).saturating_sub(stints);
    let count = group.members();
    let before = bytes();
    // Each reads up to a message of its own, beyond the last joining.
    let first = u64::from(members);
    (0..count).for_each(|_| group.publish());
    for nth in 0..count {
        // A prime step visits each once.
        let member = usize::try_from(nth as u64 * 618_033_989 % count as u64).expect("an index");
        group.mark_read_up_to(member, first + member as u64);
    }
    let marks = bytes() - before;
    writeln!(out, "joined at distinct seqs {joined} bytes, both orders; marks at distinct seqs {marks} bytes more")?;
    let most = BYTES_A_MEMBER_MAX * count;
    assert!(joined + marks <= most, "{joined} + {marks} bytes are more than {most}");
    writeln!(out, "all more {} bytes of {most}", joined + marks)?;
    Ok(())
}
