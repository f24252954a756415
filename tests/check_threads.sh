#!/bin/sh
# How many threads a rank gets, as the log and `marble doctor` say: the key, OMP_NUM_THREADS, the affinity mask, which only
# ranks with the same one share. $1 is the marble program.
here=$(dirname "$0")
unset OMP_NUM_THREADS
[ "$(nproc)" -ge 2 ] || { echo "skipped: one CPU only"; exit 77; }
command -v taskset >/dev/null || { echo "skipped: no taskset"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0
cpus=$(taskset -cp $$ | sed 's/.*: //; s/[-,]/ /g')
one=${cpus%% *}
two=$one,${cpus##* }

# expect WHAT TEXT: $folder/log has the text.
expect() {
    grep -q "$2" "$folder/log" && return
    cat "$folder/log"
    echo "$1: lacks \"$2\""
    failures=1
}

# short SETTING...: a run of one small step.
short="pretrain deploy/examples/pretrain.yaml --out $folder/run --overwrite --set device=cpu --set pretrain.steps=1 --set pretrain.warmup=0 \
    --set pretrain.batch=2 --set train.micro_batch=1 --set rollout.micro_batch=1 --set eval.prompts=2 --set eval.steps=1 \
    --set pretrain.checkpoint_every=0"

taskset -c "$one" "$1" doctor >"$folder/log"
expect "doctor on one CPU" '1 thread: 1 of [0-9]* CPU'
taskset -c "$two" "$1" doctor --json >"$folder/log"
expect "doctor on two CPUs" '"2 threads: 2 of [0-9]* CPUs in the affinity mask"'
OMP_NUM_THREADS=3 "$1" doctor >"$folder/log"
expect "doctor with OMP_NUM_THREADS" '3 threads: OMP_NUM_THREADS'

# shellcheck disable=SC2086
OMP_NUM_THREADS=3 taskset -c "$one" "$1" $short >"$folder/log" 2>&1
expect "a run with OMP_NUM_THREADS" '3 threads: OMP_NUM_THREADS'
# shellcheck disable=SC2086
OMP_NUM_THREADS=3 "$1" $short --set threads=2 >"$folder/log" 2>&1
expect "a run with both" '2 threads: the key threads'
# shellcheck disable=SC2086
taskset -c "$two" "$here/with_ranks" 2 "$1" $short >"$folder/log" 2>&1
expect "two ranks on two CPUs" '1 thread: 2 of [0-9]* CPUs in the affinity mask, for 2 ranks'
# Rank 1 on one of them: the masks differ, and rank 0 has its own for itself.
# shellcheck disable=SC2016,SC2086
taskset -c "$two" "$here/with_ranks" 2 sh -c 'cpus=$1; [ $OMPI_COMM_WORLD_RANK = 0 ] || cpus=$2; shift 2; exec taskset -c $cpus "$@"' \
    rank "$two" "$one" "$1" $short >"$folder/log" 2>&1
expect "two ranks with masks of their own" '2 threads: 2 of [0-9]* CPUs in the affinity mask$'
exit $failures
