#!/usr/bin/env bash
# The long runs: every target, or those that are named, under libFuzzer with AddressSanitizer.
#
#   tests/fuzz/run.sh [--minutes N] [--jobs N] [TARGET...]
#
# N minutes of CPU a target (5), on as many cores as there are jobs (all). What was found stays in target/fuzz/corpus and is
# gone on from; a crash is left in target/fuzz/crashes, and ends the script with an error once all targets had their time.
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
        -*) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
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

# One target's time, in one process. Its log tells executions and coverage.
work() {
    local target=$1 dir=$CARGO_TARGET_DIR
    mkdir -p "$dir/corpus/$target" "$dir/crashes" "$dir/logs"
    local words=tests/fuzz/words/$target
    if CARILLON_FUZZ=$target "$fuzz" \
        -max_total_time=$((minutes * 60)) -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -use_value_profile=1 \
        -artifact_prefix="$dir/crashes/$target-" $([[ -f $words ]] && echo "-dict=$words") \
        "$dir/corpus/$target" "tests/fuzz/corpus/$target" >"$dir/logs/$target" 2>&1
    then
        local line
        line=$(grep -E '^#[0-9]+' "$dir/logs/$target" | tail -n 1)
        printf '%-12s %s minutes, no crash: %s\n' "$target" "$minutes" "$line"
        printf '%s %s %s %s\n' "$(date -u +%FT%TZ)" "$target" "$minutes" "$line" >>"$dir/runs"
    else
        printf '%-12s CRASHED: see %s\n' "$target" "$dir/logs/$target"
        touch "$dir/failed"
    fi
}

rm -f "$CARGO_TARGET_DIR/failed"
export CARGO_TARGET_DIR fuzz minutes
export -f work
printf '%s\n' "${targets[@]}" | xargs -P "$jobs" -I {} bash -c 'work {}'
[[ ! -e $CARGO_TARGET_DIR/failed ]]
