#!/usr/bin/env bash
# Counts the instructions of the hot path and holds them against bench/budgets.toml. README.md beside this says more.
#
#   bench/budgets.sh check     compares; fails if something takes more than it may
#   bench/budgets.sh update    writes what is counted into the table
#   bench/budgets.sh tools     installs what the two need: Valgrind by apt, the runner of the benches by cargo
set -euo pipefail
cd "$(dirname "$0")/.."

# The runner must be of the library's version.
version=$(grep -A1 '^name = "gungraun"$' Cargo.lock | sed -n 's/^version = "\(.*\)"$/\1/p')

tools() {
  command -v valgrind > /dev/null || apt-get install --yes --no-install-recommends valgrind
  # Unoptimised: it starts Valgrind and reads what that wrote, and is built in a third of the time.
  if [ "$(gungraun-runner --version 2> /dev/null)" != "gungraun-runner $version" ]; then
    cargo install --debug --locked --version "$version" gungraun-runner
  fi
}

count() {
  # The table's reader is built with the benches, in the same profile and with the same features: nothing is built twice for it.
  GUNGRAUN_OUTPUT_FORMAT=json cargo bench --locked -p carillon-bench --bench instructions > "$counts"
}

case "${1-}" in
  tools) tools ;;
  check | update)
    if ! command -v valgrind > /dev/null || [ "$(gungraun-runner --version 2> /dev/null)" != "gungraun-runner $version" ]; then
      echo "Valgrind and gungraun-runner $version are needed: bench/budgets.sh tools" >&2
      exit 2
    fi
    counts=$(mktemp)
    trap 'rm -f "$counts"' EXIT
    count
    "${CARGO_TARGET_DIR:-target}/release/budgets" "$1" < "$counts"
    ;;
  *)
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
