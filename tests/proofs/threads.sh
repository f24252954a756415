#!/bin/sh
# The threads beside training under the thread sanitizer: the one that writes checkpoints and those that score images, in their
# tests and in a whole run with a checkpoint at every step, resumed once. $1 is a build folder of the preset tsan.
# OpenMP has one thread: the sanitizer cannot see the barriers of libgomp, which is built without it, and would take every
# parallel loop for a race.
set -eu
build=$(cd "${1:?usage: tests/proofs/threads.sh BUILD}" && pwd)
cd "$(dirname "$0")/../.."
if ! nm "$build/marble" | grep -q __tsan_func_entry; then
    echo "threads.sh: $build/marble is not built with the thread sanitizer; expected a build by: cmake --preset tsan && cmake --build build-tsan" >&2
    exit 2
fi
export OMP_NUM_THREADS=1
export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat >"$folder/run.yaml" <<YAML
seed: 7
precision: f32
threads: 1
model: {path: $folder/base/model, lora: {rank: 4, alpha: 8}}
prompts: {source: signs, train_count: 30, test_count: 8, groups: 4, group_size: 4}
rollout: {steps: 3, solver: euler, micro_batch: 8}
train: {steps: 4, lr: 2.0e-3, micro_batch: 8, timestep_fraction: 0.7}
rewards: [{name: ocr}, {name: count}, {name: color}, {name: clean}, {name: jpeg}]
eval: {every: 2, prompts: 4, steps: 2}
checkpoint: {every: 1, keep: 2}
log: {samples_every: 2}
YAML

# run NAME COMMAND...: runs it and says how long it took; its output only when it fails.
run() {
    name=$1
    shift
    start=$(date +%s)
    if ! "$@" >"$folder/log" 2>&1; then
        cat "$folder/log"
        echo "threads.sh: $name: FAILED"
        exit 1
    fi
    echo "$name: no race, $(($(date +%s) - start)) s"
}

run "the writer of checkpoints" "$build/test_ckpt_writer"
run "the pool of scorers" "$build/test_scorer_pool"
run "a small base model" "$build/marble" pretrain deploy/examples/pretrain.yaml --out "$folder/base" --set threads=1 \
    --set pretrain.steps=4 --set pretrain.warmup=2 --set pretrain.batch=8 --set pretrain.eval_every=0 \
    --set pretrain.model.num_layers=2 --set pretrain.model.num_attention_heads=2 --set pretrain.model.attention_head_dim=16 \
    --set pretrain.model.caption_projection_dim=32 --set pretrain.model.joint_attention_dim=32 \
    --set pretrain.model.pooled_projection_dim=32 --set pretrain.model.text_layers=1 --set eval.prompts=4 --set eval.steps=2
run "a run with a checkpoint at every step" "$build/marble" train "$folder/run.yaml" --out "$folder/run"
run "the same, resumed" "$build/marble" train "$folder/run.yaml" --out "$folder/run" --resume auto --set train.steps=6
