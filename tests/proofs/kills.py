#!/usr/bin/env python3
"""kill -9 at random moments of runs that write a checkpoint at every step.

    tests/proofs/kills.py build/marble [--kills 200] [--ranks 1,2,3,4] [--steps 30] [--seed 1]
                                [--writer gather | parallel]

Every restart (--resume auto) has to go on, having lost at most one step that metrics.jsonl had reported, and the last
checkpoint has to equal that of an unbroken run on as many ranks, bit for bit. Half of the kills hit all processes of
the run at once (as a machine that loses power), half hit one rank alone (mpirun then ends the others). The model is a
tiny one, pretrained here for a second. Needs Python's standard library only."""
import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = """seed: 7
precision: f32
threads: 1
model: {path: base/model, lora: {rank: 4, alpha: 8}}
prompts: {source: signs, train_count: 30, test_count: 8, groups: 4, group_size: 4}
rollout: {steps: 3, solver: euler, micro_batch: 8}
train: {steps: STEPS, lr: 2.0e-3, beta: 1.0, micro_batch: 8, timestep_fraction: 0.7}
rewards: [{name: color}, {name: clean}, {name: jpeg}]
eval: {every: 0, prompts: 4, steps: 2}
checkpoint: {every: 1, keep: 3, writer: WRITER}
log: {level: error, samples_every: 0}
"""
MODEL = ("threads=1 pretrain.steps=60 pretrain.warmup=2 pretrain.batch=16 pretrain.model.num_layers=2 "
         "pretrain.model.num_attention_heads=2 pretrain.model.attention_head_dim=16 pretrain.model.caption_projection_dim=32 "
         "pretrain.model.joint_attention_dim=32 pretrain.model.pooled_projection_dim=32 pretrain.model.text_layers=1 "
         "eval.prompts=4 eval.steps=2").split()


DEADLINE = 20 # seconds in which the death of one rank ends the others


def command(ranks, out):
    marble = [str(options.marble), "train", str(folder / "run.yaml"), "--out", str(out), "--resume", "auto"]
    return marble if ranks == 1 else [str(ROOT / "tests/with_ranks"), str(ranks)] + marble


def start(ranks, out, log):
    return subprocess.Popen(command(ranks, out), stdout=log, stderr=log, start_new_session=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def processes(out):
    """The marble processes of the run in `out`: started by us, known by their --out."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if entry.name.isdigit() and str(out).encode() in words and words[0].endswith(b"marble"):
            found.append(int(entry.name))
    return found


def end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def strike(child, out):
    ranks = processes(out)
    if random.random() < 0.5 and ranks:
        end(random.choice(ranks))
        try:
            child.wait(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            left = processes(out)
            if left:
                sys.exit(f"{out}: {DEADLINE} s after a rank was killed the ranks {left} had not ended")
            # Open MPI 4.1.4 over PMIx 4.2.2, now and then, when a rank is killed while it starts
            print("all ranks had ended, mpirun alone had not: it waits for itself", file=sys.stderr)
    for pid in [child.pid] + ranks + processes(out):
        end(pid)
    child.wait()
    while processes(out):
        time.sleep(0.01)


def reported(out):
    """The last whole line's step of metrics.jsonl."""
    try:
        lines = (out / "metrics.jsonl").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return 0
    return json.loads(lines[-1])["step"] if lines else 0


def latest(out):
    """The step of the checkpoint that a run goes on from, read by marble itself."""
    path = out / "checkpoints/latest.h5"
    if not os.path.lexists(path):
        return 0
    answer = subprocess.run([options.marble, "inspect", "--attribute", "step", path], stdout=subprocess.PIPE, text=True,
                          check=True).stdout
    return int(answer)


def differences(a, b):
    answer = json.loads(subprocess.run([options.marble, "inspect", "--json", "--diff", a, b], stdout=subprocess.PIPE,
                                     text=True, check=True).stdout)
    return answer["equal"], answer["datasets"]


def one_run(ranks, number, limit, log):
    """Kills a run until it is through; returns how often, and the most steps a kill lost."""
    out, kills, worst = folder / f"killed{ranks}-{number}", 0, 0
    while True:
        child = start(ranks, out, log)
        moment = time.monotonic() + random.uniform(0.0, span[ranks]) if kills < limit else None
        while child.poll() is None and (moment is None or time.monotonic() < moment):
            time.sleep(0.001)
        if child.poll() is not None:
            if child.returncode != 0:
                sys.exit(f"{out}: exit {child.returncode} on a restart after {kills} kills; see {log.name}")
            break
        strike(child, out)
        kills += 1
        done, kept = reported(out), latest(out)
        lost = done - kept
        worst = max(worst, lost)
        if lost > 1:
            sys.exit(f"{out}: kill {kills}: step {done} was reported, the latest checkpoint is of step {kept}")
    name = f"checkpoints/step-{options.steps:06d}.h5"
    equal, other = differences(folder / f"unbroken{ranks}" / name, out / name)
    if other or equal < 10:
        sys.exit(f"{out}: differs from the unbroken run: {other}")
    if reported(out) != options.steps or len((out / "metrics.jsonl").read_text().splitlines()) != options.steps:
        sys.exit(f"{out}: metrics.jsonl does not hold every step once")
    return kills, worst


parser = argparse.ArgumentParser()
parser.add_argument("marble", type=pathlib.Path)
parser.add_argument("--kills", type=int, default=200)
parser.add_argument("--ranks", default="1,2,3,4")
parser.add_argument("--steps", type=int, default=30)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--writer", choices=["gather", "parallel"], default="gather") # parallel needs two ranks or more
options = parser.parse_args()
options.marble = options.marble.resolve()
random.seed(options.seed)
counts, span = [int(n) for n in options.ranks.split(",")], {}
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    (folder / "run.yaml").write_text(CONFIG.replace("STEPS", str(options.steps)).replace("WRITER", options.writer))
    with open(folder / "log", "w") as log:
        subprocess.run([options.marble, "pretrain", ROOT / "deploy/examples/pretrain.yaml", "--out", folder / "base"] +
                       [word for key in MODEL for word in ("--set", key)], stdout=log, stderr=log, check=True)
        for ranks in counts:
            began = time.monotonic()
            if start(ranks, folder / f"unbroken{ranks}", log).wait() != 0:
                sys.exit((folder / "log").read_text())
            span[ranks] = time.monotonic() - began
        kills, runs, worst = 0, 0, 0
        while kills < options.kills:
            ranks = counts[runs % len(counts)]
            n, lost = one_run(ranks, runs, options.kills - kills, log)
            kills, runs, worst = kills + n, runs + 1, max(worst, lost)
            print(f"{kills} kills: run {runs} on {ranks} ranks took {n} and equals the unbroken one", flush=True)
print(f"{kills} kills in {runs} runs on {options.ranks} ranks: every restart went on, at most {worst} reported step lost, "
      "every last checkpoint equal bit for bit")
