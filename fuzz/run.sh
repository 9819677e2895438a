#!/bin/sh
# Fuzzes all targets, one after the other: run.sh SECONDS_PER_TARGET [TARGET…]
set -eu
cd "$(dirname "$0")"
seconds=${1:?"usage: $0 SECONDS_PER_TARGET [TARGET…]"}
shift
[ $# -gt 0 ] || set -- npy b2nd bincode json key operations label_and_check parquet

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzzing is skipped: it needs a nightly toolchain (rustup toolchain install nightly)"
    exit 0
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    [ -x target/tools/bin/cargo-fuzz ] || cargo install --locked --root target/tools cargo-fuzz
    PATH=$PWD/target/tools/bin:$PATH
fi

# C code is instrumented too; SQLite is linked twice under other names, which is not what we look for.
export CFLAGS="${CFLAGS:-} -fsanitize=address"
export ASAN_OPTIONS="detect_odr_violation=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
# Chests are made and removed by the thousand.
[ -w /dev/shm ] && export TMPDIR=/dev/shm

failed=
for target in "$@"; do
    features=
    [ "$target" != parquet ] || features="--features arrow"
    mkdir -p "corpus/$target" "seeds/$target"
    echo "== $target, $seconds s"
    # shellcheck disable=SC2086
    cargo +nightly fuzz run $features "$target" "corpus/$target" "seeds/$target" -- -max_total_time="$seconds" \
        -rss_limit_mb=2048 -malloc_limit_mb=512 -timeout=10 -verbosity=0 -print_final_stats=1 ||
        failed="$failed $target"
done
[ -z "$failed" ] || { echo "found something:$failed; the inputs are in fuzz/artifacts"; exit 1; }
