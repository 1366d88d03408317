#!/usr/bin/env bash
# Builds the fuzz targets and runs them, one after the other: coverage-guided, with the address sanitizer, debug
# assertions and overflow checks. Ends with 1 at the first finding, whose input then lies in fuzz/artifacts/.
#
#   fuzz/run.sh                        every target for five minutes
#   fuzz/run.sh mqtt query             some of them
#   fuzz/run.sh --keep                 runs nothing: minimises fuzz/corpus/ and keeps small inputs in fuzz/corpora/*.txt
#
# Each run begins with the inputs of fuzz/corpora/, and for manifests with those of this repository.
#
# FUZZ_SECONDS    how long each runs  [default: 300]
# FUZZ_TOOLCHAIN  a nightly toolchain, which the sanitizer needs  [default: nightly]
#
# The targets are those of cargo-fuzz too (`cargo +nightly fuzz run mqtt`), which this needs not.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
toolchain=${FUZZ_TOOLCHAIN:-nightly}
seconds=${FUZZ_SECONDS:-300}
# Bytes of the longest input; MQTT packets before a device is admitted have 72 KB.
input_bytes_max=16384
# Memory of one run, in megabytes, and of one allocation.
memory_mb_max=2048
allocation_mb_max=256
# Seconds that one input may take.
input_seconds_max=10

keep=
if [ "${1:-}" = --keep ]; then
    keep=1
    shift
fi
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for file in "$here"/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

host=$(rustc "+$toolchain" -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$here/target}
# What cargo-fuzz gives the compiler.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
RUSTFLAGS+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
RUSTFLAGS+=" -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address --cfg fuzzing"
RUSTFLAGS+=" -Cdebug-assertions -Coverflow-checks"
export RUSTFLAGS
(cd "$here" && cargo "+$toolchain" build --quiet --release --locked --target "$host" "${targets[@]/#/--bin=}")

for target in "${targets[@]}"; do
    corpus=$here/corpus/$target
    mkdir -p "$corpus" "$here/artifacts/$target"
    program=$CARGO_TARGET_DIR/$host/release/$target
    if [ -n "$keep" ]; then
        smaller=$(mktemp -d)
        "$program" -merge=1 -max_len="$input_bytes_max" -rss_limit_mb="$memory_mb_max" -timeout="$input_seconds_max" \
            "$smaller" "$corpus" 2>/dev/null
        python3 "$here/corpora.py" pack "$target" "$smaller"
        rm -rf "$smaller"
        continue
    fi
    # A target that is new has none yet.
    if [ -f "$here/corpora/$target.txt" ]; then python3 "$here/corpora.py" unpack "$target" "$corpus"; fi
    seeds=()
    if [ "$target" = manifest ]; then seeds=("$here/../manifests" "$here/../fleet" "$here/../tests/broken"); fi
    echo "== $target, $seconds s"
    log=$(mktemp)
    code=0
    "$program" "$corpus" "${seeds[@]}" -max_total_time="$seconds" -print_final_stats=1 \
        -max_len="$input_bytes_max" -rss_limit_mb="$memory_mb_max" -malloc_limit_mb="$allocation_mb_max" \
        -timeout="$input_seconds_max" -artifact_prefix="$here/artifacts/$target/" >"$log" 2>&1 || code=$?
    grep -E '^stat::|^Done' "$log" || true
    if [ "$code" -ne 0 ]; then
        tail -n 60 "$log"
        exit 1
    fi
    rm -f "$log"
done
