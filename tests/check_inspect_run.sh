#!/bin/sh
# check_inspect_run.sh MARBLE: marble inspect of a run's folder says its state, step and rewards, from files written here.
marble=$(realpath "$1")
folder=$(mktemp -d)
trap 'kill $other 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder" || exit 1
other=
failed=0
mkdir -p run/checkpoints

# says TEXT ARGUMENTS...: exit 0 and the text in what marble inspect prints.
says() {
    text=$1
    shift
    if ! "$marble" inspect "$@" >said 2>&1 || ! grep -qF -e "$text" said; then
        echo "marble inspect $*: expected \"$text\"; it said:"
        sed 's/^/    /' said
        failed=1
    fi
}

printf 'model: {path: gone}\ntrain: {steps: 4}\n' >run/run.yaml
line() { printf '{"step": %d, "epoch": 1, "alpha": {"ocr": 0.25, "jpeg": 0.75}, "alpha_ema": {"ocr": 0.375, "jpeg": 0.625}, "run": "aaaabbbbccccdddd"}\n' "$1"; }
{ line 1; line 2; } >run/metrics.jsonl
printf '{"step": 0, "rewards": {"ocr": {"mean": 0.5, "ci95": 0.1, "n": 9}, "jpeg": {"mean": -2.0, "ci95": 0.1, "n": 9}}}\n' >run/eval.jsonl
printf '{"step": 2, "rewards": {"ocr": {"mean": 0.75, "change": 0.25, "change_ci95": 0.0625, "n": 9}, "jpeg": {"mean": null, "n": 0}}}\n' >>run/eval.jsonl
: >run/checkpoints/step-000002.h5
: >run/checkpoints/step-000001.h5
: >run/checkpoints/step-000003.h5.partial

says "run aaaabbbbccccdddd, step 2 of 4; stopped" run
says "checkpoints: 2, the newest of step 2" run
says "to go on: marble train run/run.yaml --resume auto" run
tr -s ' ' <said | grep -qx 'ocr 0.5000 0.7500 +0.2500 0.0625 0.375' || { echo "no row of ocr:"; cat said; failed=1; }
tr -s ' ' <said | grep -qx 'jpeg -2.0000 - - - 0.625' || { echo "no row of jpeg, whose mean is null:"; cat said; failed=1; }
says '"state": "stopped", "step": 2, "steps": 4, "checkpoints": 2, "last_checkpoint": 2' --json run
{ line 3; line 4; } >>run/metrics.jsonl
says "step 4 of 4; finished" run
grep -q "to go on" said && { echo "a finished run is not to go on"; failed=1; }
{ printf 'model: {path: gone}\n# ' && head -c 300000 /dev/zero | tr '\0' x && printf '\ntrain: {steps: 4}\n'; } >run/run.yaml
says "step 4 of 4; finished" run # of any length that marble writes and reads
: >run/checkpoints/step-1234567.h5
says "checkpoints: 3, the newest of step 1234567" run
rm run/checkpoints/step-1234567.h5
printf 'train: [' >run/run.yaml
says "step 4; stopped" run

# A run of marble pretrain, whose lines have no epoch.
mkdir -p base/checkpoints
: >base/checkpoints/step-000002.h5
printf 'train: {steps: 60}\npretrain: {steps: 2}\n' >base/run.yaml
printf '{"step": 2, "loss": 1.5, "grad_norm": 0.5, "seconds": {"total": 0.25}, "run": "aaaabbbbccccdddd"}\n' >base/metrics.jsonl
says "step 2 of 2; finished" base
printf 'pretrain: {steps: 3}\n' >base/run.yaml
says "to go on: marble pretrain base/run.yaml --resume auto" base

# A process that works on it.
sleep 60 &
other=$!
start=$(sed 's/.*) //' /proc/$other/stat | cut -d' ' -f20)
printf '{"host":"%s","pid":%d,"start":%s,"boot":"%s","pid_namespace":"%s","slurm_cluster":"","slurm_job":"","slurm_step":"","slurm_restart":""}\n' \
    "$(uname -n)" "$other" "$start" "$(cat /proc/sys/kernel/random/boot_id)" "$(readlink /proc/self/ns/pid)" >run/lock
says "step 4; pid $other on host $(uname -n) works on it" run
"$marble" inspect run --attribute config >said 2>&1
[ $? -eq 2 ] && grep -q "expected one of run/checkpoints" said || { echo "--attribute of a folder:"; cat said; failed=1; }
exit $failed
