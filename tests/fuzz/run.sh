#!/usr/bin/env bash
# The long runs: every target, or those that are named, under libFuzzer with AddressSanitizer.
#
#   tests/fuzz/run.sh [--minutes N] [--jobs N] [TARGET...]
#
# N minutes of CPU a target (5), on as many cores as there are jobs (all): CPU is counted, not the clock, so that the runs may be
# niced beside other work. What was found stays in target/fuzz/corpus and is gone on from, in slots of a minute; a crash is left in
# target/fuzz/crashes, and ends the script with an error once all targets had their time. target/fuzz/runs has a line for each slot
# (time, target, CPU seconds, libFuzzer's last line), so that what a target had over several runs can be added up.
# Installs nightly Rust if there is none; needs a C++ compiler.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"

minutes=5
jobs=$(nproc)
targets=()
while (($#)); do
    case $1 in
        --minutes) minutes=$2; shift 2 ;;
        --jobs) jobs=$2; shift 2 ;;
        --build) minutes=0; shift ;;
        -*) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
        *) targets+=("$1"); shift ;;
    esac
done

. tests/fuzz/nightly.sh

cargo "+$nightly" build -p carillon-fuzz --features libfuzzer --bin fuzz --profile fuzz --locked --target "$host"
fuzz=$CARGO_TARGET_DIR/$host/fuzz/fuzz

if ((${#targets[@]} == 0)); then
    mapfile -t targets < <(ls tests/fuzz/corpus)
fi
if ((minutes == 0)); then exit; fi

# One slot, in one process. Its log tells executions and coverage; its output here is the CPU seconds that it had.
slot() {
    local target=$1 dir=$CARGO_TARGET_DIR words=tests/fuzz/words/$1 TIMEFORMAT='%U %S'
    { time CARILLON_FUZZ=$target "$fuzz" \
        -max_total_time=60 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -use_value_profile=1 \
        -artifact_prefix="$dir/crashes/$target-" $([[ -f $words ]] && echo "-dict=$words") \
        "$dir/corpus/$target" "tests/fuzz/corpus/$target" >"$dir/logs/$target" 2>&1; } 2>&1 |
        awk '{ print int($1 + $2 + 0.5) }'
}

# One target's time. A slot without CPU would be repeated for ever: each counts as a second at least.
work() {
    local target=$1 dir=$CARGO_TARGET_DIR had=0 now line
    mkdir -p "$dir/corpus/$target" "$dir/crashes" "$dir/logs"
    while ((had < minutes * 60)); do
        if ! now=$(slot "$target"); then
            printf '%-12s CRASHED after %s s of CPU: see %s\n' "$target" "$had" "$dir/logs/$target"
            touch "$dir/failed"
            return
        fi
        had=$((had + (now > 0 ? now : 1)))
        line=$(grep -E '^#[0-9]+' "$dir/logs/$target" | tail -n 1)
        printf '%s %s %s %s\n' "$(date -u +%FT%TZ)" "$target" "$now" "$line" >>"$dir/runs"
    done
    printf '%-12s %s s of CPU, no crash: %s\n' "$target" "$had" "$line"
}

rm -f "$CARGO_TARGET_DIR/failed"
export CARGO_TARGET_DIR fuzz minutes
export -f slot work
printf '%s\n' "${targets[@]}" | xargs -P "$jobs" -I {} bash -o pipefail -c 'work {}'
[[ ! -e $CARGO_TARGET_DIR/failed ]]
