//! What the users and members of the largest groups take in memory, by what is asked of the allocator:
//!
//! ```sh
//! cargo run --release -p carillon-bench --example members_memory -- [MEMBERS]
//! ```
//!
//! The parts come one after the other: the users, each with its personal conversation; their membership in a group, in a second
//! and in a third one; their devices and producers; marks at one message. Then what the index keeps of the event that tells
//! each member of its membership, and which a broker lets go of when its memory is short.

use std::io::{self, Write};

use carillon::index::Index;
use carillon_bench::SHARD;
use carillon_bench::group::Group;
use carillon_protocol::ids::{ConversationId, Position, Seq, UserId};

/// The system's allocator, which counts.
mod counting {
    #![allow(unsafe_code, reason = "an allocator cannot be written without")]

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Bytes that are allocated now.
    pub(super) static BYTES: AtomicUsize = AtomicUsize::new(0);

    /// Allocations that are there now.
    pub(super) static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

    pub(super) struct Counting;

    // SAFETY: each call is the system allocator's, with the arguments as they came.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            BYTES.fetch_add(layout.size(), Ordering::Relaxed);
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the caller keeps to the contract of `alloc`.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
            ALLOCATIONS.fetch_sub(1, Ordering::Relaxed);
            // SAFETY: the caller keeps to the contract of `dealloc`.
            unsafe { System.dealloc(at, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;
}

/// What is allocated.
#[derive(Clone, Copy)]
struct Memory {
    bytes: usize,
    allocations: usize,
}

impl Memory {
    fn now() -> Self {
        let now = |count: &std::sync::atomic::AtomicUsize| count.load(std::sync::atomic::Ordering::Relaxed);
        Self { bytes: now(&counting::BYTES), allocations: now(&counting::ALLOCATIONS) }
    }
}

/// 16 MB, for a million members.
const BYTES_A_MEMBERSHIP_MAX: f64 = 16.0;

/// Writes the table, a line a part.
struct Table<W> {
    out: W,
    members: u32,
    before: Memory,
}

impl<W: Write> Table<W> {
    /// What was added since the last part; returns its bytes a member.
    fn part(&mut self, what: &str) -> io::Result<f64> {
        let now = Memory::now();
        let each = |now: usize, before: usize| (now as f64 - before as f64) / f64::from(self.members);
        let bytes = each(now.bytes, self.before.bytes);
        let allocations = each(now.allocations, self.before.allocations);
        writeln!(self.out, "{what:<42}{bytes:>8.1} bytes, {allocations:.2} allocations")?;
        self.before = Memory::now();
        Ok(bytes)
    }
}

fn main() -> io::Result<()> {
    let members: u32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let mut group = Group::of_service();
    let mut table = Table { out: io::stdout().lock(), members, before: Memory::now() };
    writeln!(table.out, "{members} users, each:")?;
    group.make_users(members - 1);
    // The list of them is the bench's own.
    table.before.bytes += group.members() * size_of::<UserId>();
    table.part("a user with its personal conversation")?;
    group.add_all();
    let first = table.part("its membership in a group")?;
    group.add_all_to_another();
    table.part("  in a second one")?;
    group.add_all_to_another();
    table.part("  in a third one")?;
    group.publish();
    (0..group.members()).for_each(|member| group.mark_read(member));
    table.part("a mark in the third one")?;
    (0..members).for_each(|member| group.attach(member));
    table.part("a device and a producer")?;
    drop(group);

    table.before = Memory::now();
    let index = Index::new();
    for user in 0..members {
        let personal = ConversationId::new(SHARD, u64::from(user) + 1);
        index.append(personal, Seq(1), Position(u64::from(user) + 1), UserId(u32::MAX));
    }
    table.part("the event of a membership in the index")?;
    assert!(first <= BYTES_A_MEMBERSHIP_MAX, "{first} bytes a membership are more than {BYTES_A_MEMBERSHIP_MAX}");
    Ok(())
}
