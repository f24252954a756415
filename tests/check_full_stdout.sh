#!/bin/sh
# What a command printed and could not be written is a failure: every command with an answer, and all help, on a full standard
# output ends with 1 and says so; so do some whose standard output is closed.
marble=$1
[ -x "$marble" ] || { echo "usage: check_full_stdout.sh PATH_OF_MARBLE"; exit 2; }
[ -w /dev/full ] || { echo "no /dev/full here"; exit 77; }
unset OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_RANK SLURM_PROCID SLURM_NTASKS
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
base=deploy/examples/signs-base
failed=0

# full ARGS...: exit code 1 and a reason on a full standard output, 0 elsewhere.
full() {
    "$marble" "$@" >/dev/full 2>"$folder/said" </dev/null
    code=$?
    if [ $code -ne 1 ] || ! grep -q 'cannot be written' "$folder/said"; then
        echo "marble $* >/dev/full: exit $code, expected 1 with \"cannot be written\"; said:"
        cat "$folder/said"
        failed=1
    fi
    "$marble" "$@" >/dev/null 2>"$folder/said" </dev/null || {
        echo "marble $*: exit $?, expected 0; said:"
        cat "$folder/said"
        failed=1
    }
}

"$marble" train "$base/../quickstart.yaml" --out "$folder/run" --set threads=1 --set train.steps=2 --set checkpoint.every=1 \
    --set prompts.groups=2 --set prompts.group_size=2 --set prompts.train_count=8 --set prompts.test_count=4 --set rollout.steps=4 \
    --set rollout.micro_batch=4 --set train.micro_batch=4 --set eval.every=0 --set eval.prompts=2 --set eval.steps=2 \
    --set log.samples_every=0 >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
first=$folder/run/checkpoints/step-000001.h5 last=$folder/run/checkpoints/step-000002.h5

full --version
full --help
full help
for command in $("$marble" --help | sed -n '/^commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
    full "$command" --help
    full help "$command"
done
full train --help-config
full doctor
full doctor --json
full inspect "$last"
full inspect "$last" --json
full inspect "$last" --attribute config
full inspect --diff "$first" "$last"
full inspect --diff "$first" "$last" --json
full inspect "$base"
full plan --model deploy/examples/sd3.5-medium.json --size 64
full plan --model deploy/examples/sd3.5-medium.json --size 64 --json
echo '{"gram": [[1, 0.5], [0.5, 1]]}' >"$folder/gram.json"
full solve "$folder/gram.json"
for command in --version doctor "inspect $last"; do
    # shellcheck disable=SC2086
    "$marble" $command >&- 2>"$folder/said"
    code=$?
    if [ $code -ne 1 ] || ! grep -q 'cannot be written' "$folder/said"; then
        echo "marble $command >&-: exit $code, expected 1 with \"cannot be written\"; said:"
        cat "$folder/said"
        failed=1
    fi
done
exit $failed
