#!/bin/sh
# fuzz.sh BUILD [RUNS [NAME...]]: the readers of safetensors and checkpoints on RUNS (10,000,000) inputs each, with libFuzzer
# and AddressSanitizer: `safetensors`, `checkpoint` (any bytes) and, a hundredth as often since each makes an HDF5 file,
# `content` (odd content with a right digest); of what reward servers answer, by protocol: `oip`, `unirl`, `chat`; of requests to the
# service of a run, `service`, and, a hundredth as often, of the files in the folder of a run that it shows, `folder`. Needs clang,
# cmocka and a built BUILD, whose library and link line it takes for all but the readers.
set -eu
build=${1:?usage: fuzz.sh BUILD [RUNS]} runs=${2:-10000000}
shift "$(($# < 2 ? $# : 2))"
wanted=${*:-safetensors checkpoint content oip unirl chat service folder}
root=$(cd "$(dirname "$0")/../.." && pwd)
command -v clang >/dev/null || { echo "fuzz.sh: clang is not installed"; exit 77; }
libraries=$(sed -n '/^build marble: /,/^$/s/^  LINK_LIBRARIES = //p' "$build/build.ninja" | sed "s# libmbl.a# $build/libmbl.a#g; s#^libmbl.a#$build/libmbl.a#; s#[^ ]*libgomp.so##")
includes=$(sed -n '/^build CMakeFiles\/mbl.dir\/src\/io\/checkpoint.c.o: /,/^$/s/^  INCLUDES = //p' "$build/build.ninja")
gomp=$(gcc -print-file-name=libgomp.so)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fuzz() {
    name=$1 count=$2 harness=$1 extra=
    shift 2
    case " $wanted " in *" $name "*) ;; *) return 0 ;; esac
    mkdir "$work/$name"
    case $name in
    oip | unirl | chat)
        harness=proto extra="-dict=$root/tests/proofs/fuzz_proto.dict"
        python3 "$root/tests/proofs/fuzz_proto_seeds.py" "$name" "$work/$name"
        ;;
    service | folder)
        harness=service extra="-dict=$root/tests/proofs/fuzz_service.dict"
        python3 "$root/tests/proofs/fuzz_service_seeds.py" "$name" "$work/$name"
        ;;
    esac
    # shellcheck disable=SC2086
    clang -g -O1 -fsanitize=fuzzer,address -D_GNU_SOURCE -Wno-unused-command-line-argument -I"$root/tests" $includes "$root/tests/proofs/fuzz_$harness.c" "$@" \
        -o "$work/fuzz_$name" $libraries "$gomp" -lm
    [ "$name" != safetensors ] || cp "$root"/tests/golden/*.safetensors "$work/$name"
    "$work/fuzz_$name" -runs="$count" -max_len=4096 -print_final_stats=1 -verbosity=0 $extra "$work/$name" 2>"$work/log" ||
        { tail -40 "$work/log"; echo "$name: a finding"; exit 1; }
    echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log") executions without a finding"
}
fuzz safetensors "$runs" "$root/src/model/safetensors.c" "$root/src/model/safetensors_header.c" "$root/src/model/safetensors_index.c" \
    "$root/src/model/safetensors_read.c"
fuzz checkpoint "$runs" "$root/src/io/checkpoint_files.c" "$root/src/io/checkpoint_read.c"
fuzz content "$((runs / 100))" "$root/src/io/checkpoint_files.c" "$root/src/io/checkpoint_read.c"
codecs=$(find "$root/proto" -name '*.c' ! -name 'http*.c')
number=0
for codec in oip unirl chat; do
    # shellcheck disable=SC2086
    fuzz "$codec" "$runs" $codecs -DFUZZ_CODEC=$number
    number=$((number + 1))
done
answers="$root/tests/support.c $root/src/run/control.c $root/src/io/tar.c $(find "$root/src/service" -name '*.c' ! -name 'service.c')"
# shellcheck disable=SC2086
fuzz service "$runs" $answers -lcmocka -DMBL_VERSION='"fuzzed"'
# shellcheck disable=SC2086
fuzz folder "$((runs / 100))" $answers -lcmocka -DMBL_VERSION='"fuzzed"' -DFUZZ_FOLDER
