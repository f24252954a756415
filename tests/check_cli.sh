#!/bin/sh
# The command line: help everywhere, exit codes, plan, doctor's JSON.
marble=$1
[ -x "$marble" ] || { echo "usage: check_cli.sh PATH_OF_MARBLE"; exit 2; }
unset OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_RANK SLURM_PROCID SLURM_NTASKS
failed=0

# expect CODE TEXT ARGS...: exit code, and TEXT somewhere in what is printed.
expect() {
    code=$1 text=$2
    shift 2
    said=$("$marble" "$@" 2>&1 </dev/null)
    got=$?
    if [ "$got" -ne "$code" ] || ! printf '%s\n' "$said" | grep -qF -- "$text"; then
        echo "marble $*: exit $got, expected $code with \"$text\"; printed:"
        printf '%s\n' "$said"
        failed=1
    fi
}
expect 0 'usage: marble COMMAND'
expect 0 'usage: marble COMMAND' --help
expect 0 'usage: marble COMMAND' help
expect 0 'marble 0.' --version
expect 2 '"trian": no such command' trian
expect 2 'did you mean doctor?' docter
expect 2 '"nothing": no such command' help nothing
expect 2 '--jsn: unknown option; did you mean --json?' doctor --jsn
expect 2 '--json: takes no value' doctor --json=1
expect 2 '"x" is one argument too many' doctor x

commands=$("$marble" --help | sed -n '/^commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
[ -n "$commands" ] || { echo "marble --help lists no commands"; failed=1; }
for command in $commands; do
    expect 0 "usage: marble $command" "$command" --help
    expect 0 "usage: marble $command" help "$command"
    expect 2 'unknown option' "$command" --no-such-option
done

medium=deploy/examples/sd3.5-medium.json
expect 0 '| H100 SXM' plan --model $medium --size 64 --gpu h100 --markdown
expect 0 '"bytes_least"' plan --model $medium --size 64 --json
expect 0 'training micro-batch' plan deploy/examples/quickstart.yaml --ranks 2
expect 2 'expected either RUN.yaml or --model FILE' plan
expect 2 'expected either RUN.yaml or --model FILE' plan deploy/examples/quickstart.yaml --model $medium
expect 2 'sample_size: found 63' plan --model $medium --size 63
expect 1 'no/such/plan.json: cannot be written' plan --model $medium --size 64 --json no/such/plan.json

expect 0 'onednn' doctor
json=$("$marble" doctor --json)
[ "$(printf '%s\n' "$json" | wc -l)" -eq 1 ] || { echo "doctor --json: more than one line"; failed=1; }
for item in marble compiler build onednn isa bf16 threads mpi launcher hdf5 libuv cuda nccl; do
    printf '%s\n' "$json" | grep -Eq "\"$item\": \{\"found\": \"[^\"]+\", \"ok\": (true|false)" ||
        { echo "doctor --json lacks $item: $json"; failed=1; }
done
export MARBLE_CPU_ISA=portable
expect 0 'portable; products: own' doctor
MARBLE_CPU_ISA=sse9
expect 0 'found "sse9"; expected portable, avx2 or avx512' doctor
expect 2 'found "sse9"; expected portable, avx2 or avx512' bench matmul --device cpu --runs 1
unset MARBLE_CPU_ISA
# Whatever is not good says how to get it.
if printf '%s\n' "$json" | grep -Eq '"ok": false\}'; then
    echo "doctor --json: an item that is missing has no remedy: $json"
    failed=1
fi

# eval has no checkpoint to promise: a signal ends it with 1, not 75. It is sent once SIGTERM is caught.
log=$(mktemp)
"$marble" eval deploy/examples/quickstart.yaml --set threads=1 >"$log" 2>&1 &
job=$!
for _ in $(seq 300); do
    caught=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$job/status")
    [ $((0x${caught:-0} & 0x4000)) -eq 0 ] || break
    sleep 0.1
done
kill -TERM $job
wait $job
code=$?
if [ $code -ne 1 ] || ! grep -q 'stopped by a signal; nothing of this comparison is kept' "$log"; then
    echo "marble eval at SIGTERM: exit $code, expected 1 and word of it; printed:"
    cat "$log"
    failed=1
fi
rm -f "$log"
exit $failed
