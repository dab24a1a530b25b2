# Sourced by run.sh and asan.sh: nightly Rust, which alone has sanitizers.
# shellcheck shell=bash

# The nightly that these scripts were last seen to work with is no older than the workspace's rust-version; any later one does.
nightly=${CARILLON_NIGHTLY:-nightly}
host=$(rustc -vV | sed -n 's/^host: //p')

if ! rustc "+$nightly" --version >/dev/null 2>&1; then
    echo "installing Rust $nightly" >&2
    rustup toolchain install "$nightly" --profile minimal
fi
if ! command -v c++ >/dev/null; then
    echo "a C++ compiler is needed, for libFuzzer: install g++ or clang" >&2
    exit 1
fi

# No incremental state, and a directory of its own: other flags would build everything anew each time.
export CARGO_INCREMENTAL=0
export CARGO_TARGET_DIR=${CARILLON_FUZZ_TARGET:-$root/target/fuzz}

# What cargo-fuzz would set. Comparisons are traced, so that magic numbers and keywords are found. The tests under AddressSanitizer are
# built with the same flags, so that what they depend on is built once.
flags='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4'
flags+=' -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table'
flags+=' -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Zsanitizer=address'
export RUSTFLAGS=$flags
# Leaks are not looked for: what is made once a process, or a thread, stays to its end on purpose. Allocations are counted instead.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
