#!/usr/bin/env python3
"""The commands give the same on every backend: fake (device addresses that fault on the host) to the bit; with a second argument
`cuda`, the emulated GPU to rounding, over NCCL and over MPI. MBL_DEVICE names the backend where the configuration says auto."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

marble = os.path.abspath(sys.argv[1])
source = pathlib.Path(__file__).resolve().parent
CONFIG = f"""seed: 7
precision: f32
threads: 1
model: {{path: {source.parent}/deploy/examples/signs-base, lora: {{rank: 4, alpha: 8}}}}
prompts: {{source: signs, train_count: 60, test_count: 12, groups: 4, group_size: 3}}
rollout: {{steps: 3, solver: dpm2, schedule: linear, micro_batch: 5}}
train: {{steps: 3, lr: 2.0e-3, beta: 1.0, kl: 1.0e-3, micro_batch: 6, timestep_fraction: 0.7}}
rewards: [{{name: ocr}}, {{name: count}}, {{name: color}}, {{name: clean}}, {{name: jpeg}}]
eval: {{every: 2, prompts: 6, steps: 2}}
checkpoint: {{every: 1, keep: 0}}
pretrain: {{steps: 3, warmup: 2, batch: 12, eval_every: 2, checkpoint_every: 1}}
log: {{level: info, samples_every: 2}}
"""
# what of a run's lines depends on the clock, on the transport or on which run it is
TIMES = ("seconds", "samples_per_s", "bytes_comm", "ranks", "time", "run")


def call(device, ranks, *arguments, code=0, nccl="1", log=False):
    command = [marble, *map(str, arguments)]
    if ranks > 1:
        command = [str(source / "with_ranks"), str(ranks), *command]
    done = subprocess.run(command, env=dict(os.environ, MARBLE_DEVICE=device, MARBLE_NCCL=nccl), text=True, capture_output=True)
    assert done.returncode == code, f"{device}: {' '.join(command)}\nexit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr if log else done.stdout


def lines(path):
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for line in found:
        for name in TIMES:
            line.pop(name, None)
    return found


def image(png):
    """The chunks of a PNG file but its texts, which name the folder."""
    kept, at = [], 8
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at:at + 4], "big")
        if png[at + 4:at + 8] != b"tEXt":
            kept.append(png[at:end])
        at = end
    return b"".join(kept)


def contents(run):
    """Everything a run left behind that another device must repeat: by relative name, comparable."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_symlink() or path.is_dir() or name in ("log.txt", "run.yaml", "report.html") or name.startswith("tensorboard/"):
            continue  # they hold times; what else is in them is in the lines
        if path.suffix == ".jsonl":
            found[name] = lines(path)
        elif path.suffix == ".json":
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key not in TIMES}
        elif path.suffix == ".h5":
            # the digest of every dataset; those of the attributes, the seal and the whole file know which run it is
            found[name] = re.findall(rb"(?<![0-9A-Za-z_])sha256\0.{0,80}?([0-9a-f]{64})", path.read_bytes(), re.DOTALL)
            assert len(found[name]) >= 4, (path, found[name])
        elif path.suffix == ".png":
            found[name] = image(path.read_bytes())
        else:
            found[name] = path.read_bytes()
    return found


def same(folder, case):
    want, got = contents(folder / "cpu" / case), contents(folder / "fake" / case)
    assert want.keys() == got.keys() and any(n.endswith(".png") for n in want), (case, list(want), list(got))
    for name in want:
        assert got[name] == want[name], f"{case}: {name} differs\ncpu {str(want[name])[:2000]}\nfake {str(got[name])[:2000]}"


def run_all(folder, device):
    yaml, out = folder / "run.yaml", folder / device
    train = ("train", yaml, "--out")
    call(device, 1, *train, out / "one")
    call(device, 2, *train, out / "two")
    call(device, 1, *train, out / "bf16", "--set", "precision=bf16", "--set", "train.steps=2")
    call(device, 2, *train, out / "part", "--set", "balance.gram_fraction=0.5", "--set", "balance.refresh_every=2")
    call(device, 1, *train, out / "sum", "--set", "balance.method=weighted_sum", "--set", "train.updates_per_epoch=2")
    call(device, 2, *train, out / "again", "--set", "train.steps=1")
    call(device, 2, *train, out / "again", "--resume", "auto")
    call(device, 2, "pretrain", yaml, "--out", out / "base")
    checkpoint = out / "one/checkpoints/latest.h5"
    answer = call(device, 1, "eval", yaml, "--checkpoint", checkpoint, "--seeds", "1,2", "--json")
    (out / "one/eval.txt").write_text(answer.replace(str(out), "OUT"))  # it names the checkpoint
    call(device, 1, "sample", "--model", source.parent / "deploy/examples/signs-base", "--prompt", "three blue circles",
         "--checkpoint", checkpoint, "--config", yaml, "--steps", 3, "--threads", 1, "--out", out / "images")


def close(a, b, where, scale=0.0):
    """Numbers agree to rounding that a few steps of f32 carry on: 3e-3 of themselves; a gradient that vanishes may do so to
    rounding. What is made of two means (their difference) does so to 3e-3 of a mean, `scale`: a pixel that is rounded the other way
    moves a score, and the bytes of a JPEG. An interval of two images is 9 times their deviation."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), (where, list(a), list(b))
        for key in a:
            close(a[key], b[key], f"{where}.{key}", abs(a.get("mean") or 0.0))
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b)):
            close(*pair, f"{where}[{i}]")
    elif isinstance(a, float):
        # a cosine is a share of 1: near 0, where the KL term may bring it, its own size says nothing
        least = 3e-5 if ".cos" in where else 1e-6
        if where.endswith((".change", "ci95")):
            least += 3e-3 * scale * (9 if where.endswith("ci95") else 1)
        assert abs(a - b) <= 3e-3 * max(abs(a), abs(b)) + least, (where, a, b)
    else:
        assert a == b, (where, a, b)


def check_cuda(folder):
    """Two ranks train on emulated GPUs: as on the CPU, the same over NCCL and MPI to rounding, and again after a stop."""
    small = ("--set", "prompts.groups=2", "--set", "prompts.group_size=2", "--set", "rollout.steps=2", "--set", "eval.prompts=2",
             "--set", "eval.steps=1", "--set", "log.samples_every=0", "--set", "train.steps=3")
    train = ("train", folder / "run.yaml", *small, "--out")
    call("cpu", 2, *train, folder / "cpu/small")
    log = call("cuda", 2, *train, folder / "cuda/nccl", "--set", "log.level=debug", log=True)
    for part, parts in re.findall(r"(\d+) of (\d+) recorded parts ran as graphs", log) or [(0, 0)]:
        assert int(part) > int(parts) / 4 > 0, (part, parts)
    # cut in two and without graphs: the same to the bit
    call("cuda", 2, *train, folder / "cuda/again", "--set", "train.steps=1", "--set", "cuda.graphs=off")
    call("cuda", 2, *train, folder / "cuda/again", "--resume", "auto", "--set", "cuda.graphs=off")
    call("cuda", 2, *train, folder / "cuda/mpi", nccl="0")
    for run in ("nccl", "mpi"):
        for name in ("metrics.jsonl", "eval.jsonl"):
            close(lines(folder / "cpu/small" / name), lines(folder / "cuda" / run / name), f"{run} {name}")
        staged = "mpi moves device memory between ranks through the host: MARBLE_NCCL=0" in (folder / f"cuda/{run}/log.txt").read_text()
        assert staged == (run == "mpi"), run
    saved = [folder / "cuda" / run / "checkpoints/step-000003.h5" for run in ("nccl", "again")]
    diff = call("cpu", 1, "inspect", saved[1], "--diff", saved[0])
    assert "datasets equal to the bit" in diff and "config.cuda.graphs" in diff and "\ndatasets" not in diff, diff


def check_fake(folder):
    for device in ("cpu", "fake"):
        run_all(folder, device)
    for case in ("one", "two", "bf16", "part", "sum", "again", "base", "images"):
        same(folder, case)
    assert "device memory" not in (folder / "cpu/two/log.txt").read_text()
    assert (folder / "fake/two/log.txt").read_text().count("mpi moves device memory between ranks through the host") == 1
    # the run that was cut in two ended like the one that was not
    assert contents(folder / "fake/again")["checkpoints/step-000003.h5"] == contents(folder / "fake/two")["checkpoints/step-000003.h5"]
    call("fake", 1, "bench", "step", "--json", "--threads", 1, "--runs", 1, "--samples", 2)
    call("fake", 1, "bench", "gradients", "--json", "--threads", 1, "--runs", 1, "--samples", 2)
    call("abacus", 1, "train", folder / "run.yaml", "--out", folder / "none", code=2)


folder = pathlib.Path(tempfile.mkdtemp())
try:
    (folder / "run.yaml").write_text(CONFIG)
    if sys.argv[2:] == ["cuda"]:
        assert "emulated" in json.loads(call("cpu", 1, "doctor", "--json"))["cuda"]["found"]
        check_cuda(folder)
    else:
        check_fake(folder)
finally:
    shutil.rmtree(folder)
