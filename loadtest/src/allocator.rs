//! The allocator of the process: jemalloc, on huge pages where the kernel lets a process ask for them.
//!
//! Thousands of connections lie all over the heap, and each is visited once a round: with pages of 4 KiB most visits miss the
//! translation caches too. `docs/PERFORMANCE.md` has what each of the two is worth. `MALLOC_CONF` in the environment goes before what
//! is set here.
#![allow(unsafe_code, reason = "jemalloc reads its settings from a symbol of this name")]

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// jemalloc's manual, section TUNING: huge pages for everything; what is free is given back within seconds.
// SAFETY: the name is jemalloc's own, and what it expects there is a pointer to a string that ends with a zero: the first word of
// a slice is one.
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: &[u8] = b"thp:always,metadata_thp:always,dirty_decay_ms:5000,muzzy_decay_ms:5000\0";
