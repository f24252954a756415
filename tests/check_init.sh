#!/bin/sh
# check_init.sh MARBLE: marble init writes a run.yaml that the other commands take, and never over a file.
marble=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failed=0

# expect CODE TEXT COMMAND...: its exit code, and what its output has to hold.
expect() {
    code=$1 text=$2
    shift 2
    "$@" >said 2>&1
    got=$?
    if [ "$got" -ne "$code" ] || ! grep -qF -e "$text" said; then
        echo "$*: exit $got, expected $code with \"$text\"; it said:"
        sed 's/^/    /' said
        failed=1
    fi
}

expect 0 "run.yaml is written" "$marble" init
expect 0 "device memory of a rank" "$marble" plan run.yaml --gpu h100
expect 0 "seconds at least" "$marble" plan run.yaml --gpu h100
grep -q "an epoch of 480 images" said && ! grep -q "^matmul" said || { echo "plan: expected the answer without details"; cat said; failed=1; }
expect 0 "training micro-batch, " "$marble" plan run.yaml --gpu h100 --details
grep -q "^matmul" said || { echo "plan --details: no operations"; cat said; failed=1; }
cp run.yaml first.yaml
expect 2 "run.yaml is there already" "$marble" init
cmp run.yaml first.yaml || failed=1
[ "$(grep -c '^ *lr: 0.0005  # (0, 1]' run.yaml)" = 1 ] || { echo "run.yaml: no annotated train.lr"; cat run.yaml; failed=1; }
grep -q '^    weight_decay' run.yaml && { echo "run.yaml: keys that the example does not set"; failed=1; }

# The written file is the example again.
"$marble" init - >second.yaml || failed=1
tail -n +5 first.yaml >a
tail -n +5 second.yaml >b
cmp a b || failed=1

# File names of any kind.
printf 'a red cube\na blue cube\n' >'say "a\b".txt'
expect 0 'train: "' "$marble" init - --prompts 'say "a\b".txt' --test 'say "a\b".txt'

printf 'a red cube\na blue cube\n' >train.txt
printf 'a green "cube"\n' >test.txt
expect 0 "own.yaml is written" "$marble" init own.yaml --prompts train.txt --test test.txt --set train.steps=3
expect 0 "device memory of a rank" "$marble" plan own.yaml --gpu h100
grep -q "train: \"$folder/train.txt\"" own.yaml || { echo "own.yaml: not the prompts that were given"; cat own.yaml; failed=1; }
grep -q "steps: 3  #" own.yaml || { echo "own.yaml: not the steps that were given"; failed=1; }
expect 2 "expected the other one too" "$marble" init other.yaml --prompts train.txt
expect 2 "does not exist" "$marble" init other.yaml --model nowhere
expect 2 'did you mean train.lr?' "$marble" init other.yaml --set train.lt=1
expect 2 "expected one of" "$marble" init other.yaml --from nothing
expect 2 "expected one of" "$marble" init other.yaml --from ../examples/quickstart
expect 1 "cannot be written" "$marble" init nowhere/run.yaml
[ ! -e other.yaml ] || { echo "other.yaml was written by a command that failed"; failed=1; }
expect 0 "marble pretrain base.yaml" "$marble" init base.yaml --from pretrain

expect 0 "train.old_decay.hold" "$marble" train --help-config train
expect 0 "scores in [0, 1]" "$marble" train --help-config rewards
expect 2 "expected one of seed, device" "$marble" train --help-config nothing
expect 2 "did you mean train?" "$marble" train --help-config trian
expect 2 "did you mean train.lr?" "$marble" train --help-config train.lrr
"$marble" train --help-config train.old_decay | grep -q 'train\.lr' && { echo "--help-config train.old_decay shows train.lr"; failed=1; }
exit $failed
