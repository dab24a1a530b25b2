//! How many instructions each operation of the hot path takes, counted by Callgrind. `bench/budgets.toml` says how many they may be;
//! `bench/budgets.sh check` compares.
//!
//! What is set up is not counted, nor is what is returned dropped within the count. Each operation is done so many times as its
//! name says, so that what grows by doubling, and what a first time takes, has no weight.

#![allow(
    missing_docs,
    unused_qualifications,
    reason = "the macros of gungraun make public items without docs, and paths in full"
)]

mod edge;
mod frames;
mod shard;
mod store;

use gungraun::{Callgrind, LibraryBenchmarkConfig, main};

use edge::fan_out;
use frames::codec;
use shard::state;
use store::storage;

main!(
    config = LibraryBenchmarkConfig::default()
        // The C library chooses among its ways to copy and to compare by the CPU, and Valgrind's CPU has what the real one has. This
        // leaves it those that every x86-64 CPU of the last decade has.
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-ERMS,-FSRM")
        .tool(Callgrind::with_args(["--cache-sim=no"]));
    library_benchmark_groups = codec, state, storage, fan_out
);
