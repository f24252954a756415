#!/bin/sh
# cmake --install makes a folder that can be moved and works on its own: the program on the PATH, examples with their base
# model, scripts. The presets are read by the CMake that is here. $1 is the marble program of a build folder.
set -eu
build=$(cd "$(dirname "$1")" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
    echo "check_install: $*"
    exit 1
}

cmake --install "$build" --prefix "$folder/first" >"$folder/install.log" || { cat "$folder/install.log"; fail "cmake --install failed"; }
mv "$folder/first" "$folder/moved here"
prefix="$folder/moved here"
share="$prefix/share/marble"
for file in examples/quickstart.yaml examples/signs-base/model_index.json slurm/train.sbatch mpirun/hostfile python/marble_reward.py; do
    [ -f "$share/$file" ] || fail "share/marble/$file is not installed"
done
[ -x "$share/slurm/train.sbatch" ] || [ ! -x "$root/deploy/slurm/train.sbatch" ] || fail "train.sbatch lost its permissions"
for file in man/man1/marble.1 man/man1/marble-train.1 man/man1/marble-runs.1 bash-completion/completions/marble zsh/site-functions/_marble; do
    [ -s "$prefix/share/$file" ] || fail "share/$file is not installed"
done
[ -x "$prefix/bin/marble" ] || fail "bin/marble is not installed"
python3 "$share/python/marble_reward.py" --help >/dev/null || fail "the reward server does not start"

PATH="$prefix/bin:$PATH"
export OMP_NUM_THREADS=1
mkdir "$folder/work"
cd "$folder/work"
marble init run.yaml >/dev/null 2>init.log || { cat init.log; fail "marble init found no example"; }
grep -q "$root" run.yaml && fail "run.yaml names the source folder: $(grep "$root" run.yaml)"
small="--set train.steps=1 --set prompts.groups=2 --set prompts.group_size=2 --set rollout.steps=4 --set eval.every=0 --set eval.prompts=2 --set eval.steps=1"
# shellcheck disable=SC2086
marble train run.yaml --out run $small >train.log 2>&1 || { tail -20 train.log; fail "the example does not train"; }
[ "$(wc -l <run/metrics.jsonl)" -eq 1 ] || fail "one step was asked for, $(wc -l <run/metrics.jsonl) are in metrics.jsonl"
marble sample --model "$share/examples/signs-base" --prompt 'a red sign that says "K7"' --steps 2 --out images >sample.log 2>&1 ||
    { cat sample.log; fail "the base model makes no images"; }
[ -s images/sheet.png ] || fail "images/sheet.png was not written"

# Presets: of version 6, which CMake before 3.25 cannot read.
cmake --version | awk 'NR == 1 { split($3, v, "."); exit !(v[1] > 3 || v[2] >= 25) }' || exit 0
cd "$root"
cmake --list-presets=all >"$folder/presets" || fail "CMakePresets.json cannot be read"
for name in release unit emulated asan-ubsan; do
    sed -n '/workflow presets/,$p' "$folder/presets" | grep -q "\"$name\"" || fail "there is no workflow preset $name"
done
if [ "$build" = "$root/build" ]; then
    for name in release unit; do
        ctest --preset $name -N >"$folder/tests" || fail "ctest --preset $name does not work"
        grep -q "check_layers" "$folder/tests" || fail "ctest --preset $name leaves out the lints"
    done
    grep -q "_[0-9][0-9]*_ranks" "$folder/tests" && fail "ctest --preset unit starts ranks"
fi
exit 0
