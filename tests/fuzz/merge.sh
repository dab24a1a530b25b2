#!/usr/bin/env bash
# Adds to the committed corpora what the long runs have found and what reaches something new, the smallest first.
#
#   tests/fuzz/merge.sh [TARGET...]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
. tests/fuzz/nightly.sh

# Together some hundred KB and a thousand files or two: a corpus is read with every clone.
bytes_max=$((24 * 1024))
files_max=128

targets=("$@")
if ((${#targets[@]} == 0)); then
    mapfile -t targets < <(ls tests/fuzz/corpus)
fi
for target in "${targets[@]}"; do
    small=$(mktemp -d)
    # libFuzzer prefers small inputs. Without values' profiles: an input for every value of a comparison would be thousands.
    CARILLON_FUZZ=$target "$CARGO_TARGET_DIR/$host/fuzz/fuzz" -merge=1 "$small" \
        "tests/fuzz/corpus/$target" "$CARGO_TARGET_DIR/corpus/$target" >"$CARGO_TARGET_DIR/logs/$target.merge" 2>&1
    bytes=$(cat "tests/fuzz/corpus/$target"/* | wc -c)
    files=$(ls "tests/fuzz/corpus/$target" | wc -l)
    # The smallest first, as long as there is room.
    while read -r size file; do
        name=found-$(sha256sum "$small/$file" | cut -c -12)
        cmp -s "$small/$file" "tests/fuzz/corpus/$target/$name" && continue
        ((bytes + size > bytes_max || files >= files_max)) && break
        bytes=$((bytes + size)) files=$((files + 1))
        cp "$small/$file" "tests/fuzz/corpus/$target/$name"
    done < <(find "$small" -type f -printf '%s %f\n' | sort -n)
    rm -r "$small"
    printf '%-12s %s files, %s bytes\n' "$target" "$(ls "tests/fuzz/corpus/$target" | wc -l)" "$bytes"
done
