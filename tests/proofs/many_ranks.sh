#!/bin/sh
# many_ranks.sh BUILD [RANKS GROUPS SIZE]: a run on more ranks than it has prompt groups (64 ranks, 48 groups of 2 images, all on this
# machine) trains; one that was asked for its first step only goes on from its checkpoint on 64 ranks, on 3 and on 1. Every time the
# numbers of the last step (scores, loss, alpha, cosines, norms) are those of one rank to 1e-4. Half a minute of two cores.
set -eu
build=$1 ranks=${2:-64} groups=${3:-48} size=${4:-2}
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$top/tests/make_tiny_model" "$build/marble" cpu
cat >"$work/run.yaml" <<YAML
seed: 7
precision: f32
device: cpu
threads: 1
model: {path: $(cd "$build" && pwd)/tiny-cpu/model, lora: {rank: 4, alpha: 8}}
prompts: {source: signs, train_count: 60, test_count: 2, groups: $groups, group_size: $size}
rollout: {steps: 1, solver: euler, schedule: linear, micro_batch: 8, merge: never}
train: {steps: 2, lr: 2.0e-3, beta: 1.0, kl: 1.0e-3, micro_batch: 8, timestep_fraction: 1}
rewards: [{name: color}, {name: clean}, {name: jpeg}]
eval: {every: 0, prompts: 2, steps: 1}
checkpoint: {every: 1, keep: 0}
log: {level: warn, samples_every: 0}
YAML

# go RANKS OUT [OPTIONS]
go() {
    n=$1 out=$2
    shift 2
    start=$(date +%s)
    "$top/tests/with_ranks" "$n" "$build/marble" train "$work/run.yaml" --out "$work/$out" "$@" >"$work/$out.log" 2>&1 ||
        { cat "$work/$out.log"; exit 1; }
    echo "$out: $n ranks, $(($(date +%s) - start)) s"
}

# same ONE OTHER RANKS: the last line of metrics.jsonl, whose numbers (9 digits) are compared, and that OTHER ran on so many ranks.
same() {
    python3 - "$work/$1/metrics.jsonl" "$work/$2/metrics.jsonl" "$3" <<'PYTHON'
import json, sys
TIMES = {"seconds", "samples_per_s", "time", "bytes_comm", "ranks", "run"}
one, other = (json.loads(open(path).read().splitlines()[-1]) for path in sys.argv[1:3])
worst, compared = 0.0, 0
def walk(a, b, where):
    global worst, compared
    if isinstance(a, dict):
        assert a.keys() == b.keys(), f"{where}: {sorted(a)} against {sorted(b)}"
        for key in a.keys() - (TIMES if not where else set()):
            walk(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (int, float)) and not isinstance(a, bool):
        error = abs(a - b) / max(abs(a), abs(b), 1e-12)
        assert error <= 1e-4, f"{where}: {a} against {b}; expected a difference of 1e-4 at most"
        worst, compared = max(worst, error), compared + 1
    else:
        assert a == b, f"{where}: {a} against {b}"
walk(one, other, "")
shown = len(json.loads(open(sys.argv[2]).read().splitlines()[-1])["ranks"]["train"])
assert shown == int(sys.argv[3]), f"{shown} ranks; expected {sys.argv[3]}"
assert compared > 20, f"{compared} numbers; expected more"
print(f"    step {one['step']}: {compared} numbers, farthest apart by {worst:.2g}")
PYTHON
}

go 1 one
go "$ranks" many
same one many "$ranks"
go "$ranks" ended --set train.steps=1
go "$ranks" again --resume "$work/ended/checkpoints/latest.h5"
same one again "$ranks"
go 3 three --resume "$work/ended/checkpoints/latest.h5"
same one three 3
go 1 back --resume "$work/ended/checkpoints/latest.h5"
same one back 1
go 3 other --set seed=8
if (same one other 3) >/dev/null 2>&1; then
    echo "a run with another seed looks the same: this compares nothing" >&2
    exit 1
fi
echo "$ranks ranks, $groups groups of $size images: as one rank"
