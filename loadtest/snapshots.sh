#!/usr/bin/env bash
# What a snapshot takes from serving: the same load on one broker that takes snapshots all the time and on one that takes none, in turn, on one
# data directory with very many users. On loopback; some 6 minutes, in which the machine should have nothing else to do.
#
#   loadtest/snapshots.sh                          a million users, three rounds
#   loadtest/snapshots.sh --members 10000 --rounds 1
#                                                  to see that it works
#   BROKER=FILE loadtest/snapshots.sh              another broker's binary
#
# Prints every figure of both and the ratio, round by round; the reports stay in target/snapshots. Then compares each snapshot that was taken with
# the state that the records up to it lead to, and fails if one is another.
set -euo pipefail
cd "$(dirname "$0")/.."

members=1000000 rounds=3 seconds=20 rate=1000
while (($# > 1)); do
    case $1 in
    --members) members=$2 ;;
    --rounds) rounds=$2 ;;
    --seconds) seconds=$2 ;;
    --rate) rate=$2 ;;
    *) break ;;
    esac
    shift 2
done
(($# == 0)) || { echo "$0 takes --members N, --rounds N, --seconds N (of a run) and --rate N (messages a second)" >&2; exit 2; }

broker=${BROKER:-target/release/carillon} load=target/release/carillon-loadtest
work=target/snapshots data=target/snapshots/data
address=127.0.0.1:14467
server=

# Each snapshot keeps a second name beside: the broker keeps two of them. One may be gone before it has it.
collect() {
    while sleep 0.2; do ln "$data"/journal/*.snapshot "$work/taken/" 2>/dev/null || true; done
}

stop() {
    [[ -n $server ]] || return 0
    kill "$server" 2>/dev/null || true
    wait "$server" || true
    server=
}
collector=
trap 'stop; [[ -z $collector ]] || kill "$collector"' EXIT
trap 'exit 1' INT TERM

# start KIND: `always` takes the next snapshot when the last one is done, `never` takes none.
start() {
    local bytes=1099511627776
    [[ $1 == never ]] || bytes=1048576
    cat >"$work/carillon.toml" <<EOF
data = "data"
listen = "$address"
tls = { certificate = "data/server.pem", key = "data/server.key" }
tokens.keys = ["data/token.pub"]
snapshots.journal_bytes = $bytes
http.listen = ""
EOF
    "$broker" serve --config "$work/carillon.toml" >"$work/$1.$round.log" 2>&1 &
    server=$!
    for _ in $(seq 1200); do
        ! grep -q 'listens on' "$work/$1.$round.log" || return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    echo "the broker did not come up:" >&2
    tail -n 20 "$work/$1.$round.log" >&2
    exit 1
}

run() { # run NAME SCENARIO ARGUMENTS...
    local name=$1
    shift
    "$load" "$@" --address "$address" --server-name localhost --ca "$data/ca.pem" --token-key "$data/token.key" --tenant dev \
        --broker-pid "$server" --quiet --json-file "$work/$name.json" >"$work/$name.txt" ||
        { echo "$name failed: $work/$name.txt" >&2; exit 1; }
}

ulimit -n "$(ulimit -Hn)"
cargo build --release --locked -p carillon -p carillon-loadtest
rm -rf "${work:?}"
mkdir -p "$work/taken"
"$broker" dev --once --data "$data" --listen 127.0.0.1:0 >"$work/dev.log"
echo "making $members users" >&2
round=0
start never
run members channel --members "$members" --online 10 --seconds 1
stop
collect &
collector=$!
for round in $(seq "$rounds"); do
    for kind in never always; do
        echo "round $round of $rounds: $kind" >&2
        start "$kind"
        run "pairwise.$kind.$round" pairwise --pairs 500 --rate "$rate" --seconds "$seconds"
        run "publish.$kind.$round" publish --producers 64 --window 8 --seconds "$seconds"
        stop
        echo "  $(grep -c 'snapshot taken' "$work/$kind.$round.log" || true) snapshots" >&2
    done
done
for scenario in pairwise publish; do
    for round in $(seq "$rounds"); do
        echo "$scenario, round $round: A without snapshots, B with one after the other"
        "$load" compare "$work/$scenario.never.$round.json" "$work/$scenario.always.$round.json"
    done
done
ln "$work"/taken/*.snapshot "$data/journal/" 2>/dev/null || true
target/release/carillon journal verify --replay --data "$data" | tee "$work/verified.txt"
grep -q 'the state that the records lead to' "$work/verified.txt" || { echo "no snapshot was compared" >&2; exit 1; }
