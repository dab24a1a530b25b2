#!/usr/bin/env bash
# The tests of what parses bytes, and of the unsafe code, under AddressSanitizer: the protocol, the transport on real sockets, the
# journal, snapshots and the index, and the short runs of every fuzz target.
#
#   tests/fuzz/asan.sh
#
# Installs nightly Rust if there is none.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
. tests/fuzz/nightly.sh

run() {
    echo "== $*"
    # The profile of the long runs: optimised, with every assertion. Doc tests are left out, which have no sanitizer.
    cargo "+$nightly" test --profile fuzz --target "$host" --locked "$@"
}

run -p carillon-protocol --lib --tests
run -p carillon-transport --lib --tests
run -p carillon --lib -- journal:: snapshot:: index:: store::
run -p carillon-fuzz --lib --tests
