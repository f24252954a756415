#!/usr/bin/env python3
"""A rank of marble train on emulated GPUs is killed with SIGKILL. mpirun sees it and ends the job; where it is asked to let the others
go on, they wait in a collective over NCCL or MPI, for limits.deadline, and report what it was. Either way the last checkpoint is whole,
at most one reported step is lost, and the run goes on from it to what the unbroken run is, bit for bit."""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

marble = os.path.abspath(sys.argv[1])
source = pathlib.Path(__file__).resolve().parents[2]
DEADLINE = 5
CONFIG = f"""seed: 7
device: cuda
precision: f32
threads: 1
model: {{path: base/model, lora: {{rank: 4, alpha: 8}}}}
prompts: {{source: signs, train_count: 30, test_count: 8, groups: 2, group_size: 2}}
rollout: {{steps: 2, solver: euler, micro_batch: 4, merge: never}}
train: {{steps: 1000, lr: 2.0e-3, micro_batch: 4, timestep_fraction: 0.5}}
rewards: [{{name: color}}, {{name: clean}}, {{name: jpeg}}]
eval: {{every: 0, prompts: 1, steps: 1}}
checkpoint: {{every: 1, keep: 0}}
limits: {{deadline: {DEADLINE}}}
log: {{level: info, samples_every: 0}}
"""
MODEL = ("device=cpu threads=1 pretrain.steps=60 pretrain.warmup=2 pretrain.batch=16 pretrain.eval_every=0 eval.prompts=4 eval.steps=2 "
         "pretrain.model.patch_size=8 pretrain.model.num_layers=2 pretrain.model.attention_head_dim=16 "
         "pretrain.model.num_attention_heads=1 pretrain.model.caption_projection_dim=16 pretrain.model.joint_attention_dim=16 "
         "pretrain.model.pooled_projection_dim=16 pretrain.model.text_layers=1 pretrain.model.text_tokens=12")


def call(*command):
    done = subprocess.run(list(map(str, command)), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
    assert done.returncode == 0, f"{command}\nexit {done.returncode}\n{done.stdout}"
    return done.stdout


def train(folder, out, steps):
    call(source / "tests/with_ranks", 2, marble, "train", folder / "run.yaml", "--out", out, "--resume", "auto",
         "--set", f"train.steps={steps}")


def steps_of(out):
    try:
        return (out / "metrics.jsonl").read_text().count("\n")
    except FileNotFoundError:
        return 0


def killed(folder, out, recovery):
    """The code of a job of two ranks the second of which is killed after two steps, the seconds from then on, what was said."""
    pids = folder / f"{out.name}.pid"
    command = [source / "tests/with_ranks", "2", "sh", "-c", 'echo $$ >"$1.$OMPI_COMM_WORLD_RANK"; shift; exec "$@"', "rank", pids,
               marble, "train", folder / "run.yaml", "--out", out]
    with open(folder / f"{out.name}.log", "w+") as log:
        job = subprocess.Popen(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT,
                               env=dict(os.environ, OMPI_MCA_orte_enable_recovery=str(recovery)))
        while steps_of(out) < 2 and job.poll() is None:
            time.sleep(0.05)
        start = time.monotonic()
        os.kill(int(pathlib.Path(f"{pids}.1").read_text()), signal.SIGKILL)
        code = job.wait(timeout=300)
        seconds = time.monotonic() - start
        log.seek(0)
        return code, seconds, log.read()


def check(folder):
    unbroken = folder / "unbroken"
    for name, recovery in (("seen", 0), ("waited-for", 1)):
        out = folder / name
        code, seconds, said = killed(folder, out, recovery)
        assert seconds < 4 * DEADLINE, (name, seconds, said)
        if recovery:  # mpirun then reports nobody's code
            assert seconds >= 0.8 * DEADLINE, (name, seconds, said)
            assert f"rank 0 waited more than {DEADLINE} s in" in said, said
            assert "collectives of rank 0 over mpi and nccl:" in said and " failed, " in said, said
        else:
            assert code == 128 + signal.SIGKILL, (name, code, said)
        last = (out / "checkpoints/latest.h5").resolve()
        saved = int(last.stem.removeprefix("step-"))
        assert saved >= steps_of(out) - 1 > 0, (name, saved, steps_of(out))
        assert "every digest verified" in call(marble, "inspect", last)
        train(folder, out, saved + 1)
        train(folder, unbroken, saved + 1)
        file = f"checkpoints/step-{saved + 1:06}.h5"
        diff = call(marble, "inspect", out / file, "--diff", unbroken / file)
        assert "datasets equal to the bit" in diff and "\ndatasets" not in diff, diff
        print(f"{name}: code {code} after {seconds:.1f} s, resumed from step {saved}")


folder = pathlib.Path(tempfile.mkdtemp())
try:
    (folder / "run.yaml").write_text(CONFIG)
    sets = [word for setting in MODEL.split() for word in ("--set", setting)]
    call(marble, "pretrain", source / "deploy/examples/pretrain.yaml", "--out", folder / "base", *sets)
    check(folder)
finally:
    shutil.rmtree(folder)
