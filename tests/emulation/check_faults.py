#!/usr/bin/env python3
"""What goes wrong on GPUs, on emulated ones: no driver, one that is too old, no memory, broken memory, ranks that share a GPU or
have different NCCLs, no network interface. The rank that knows says so, in words that help; the job ends soon, non-zero; the last
checkpoint is whole."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

marble = os.path.abspath(sys.argv[1])
source = pathlib.Path(__file__).resolve().parents[2]
CONFIG = f"""seed: 7
device: cuda
precision: f32
threads: 1
model: {{path: {source}/deploy/examples/signs-base, lora: {{rank: 4, alpha: 8}}}}
prompts: {{source: signs, train_count: 60, test_count: 12, groups: 2, group_size: 2}}
rollout: {{steps: 2, solver: dpm2, micro_batch: 5}}
train: {{steps: 2, lr: 2.0e-3, micro_batch: 6}}
rewards: [{{name: clean}}, {{name: jpeg}}]
eval: {{every: 0, prompts: 2, steps: 1}}
checkpoint: {{every: 1, keep: 0}}
log: {{level: info, samples_every: 0}}
"""


def train(folder, ranks, *arguments, everywhere={}, last={}, seconds=60):
    """Exit code and output; `last` is the environment of the last rank alone."""
    command = [marble, "train", folder / "run.yaml", "--out", folder / "run", *arguments]
    if last:
        settings = " ".join(f"{name}={value}" for name, value in last.items())
        command = ["sh", "-c", f'[ $OMPI_COMM_WORLD_RANK -ne {ranks - 1} ] || export {settings}; exec "$@"', "sh", *command]
    if ranks > 1:
        command = [source / "tests/with_ranks", str(ranks), *command]
    env = dict(os.environ, MARBLE_EMULATED_CHECKS="off", **everywhere)
    start = time.monotonic()
    done = subprocess.run(list(map(str, command)), env=env, text=True, timeout=600,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    took = time.monotonic() - start
    assert took < seconds, f"ended after {took:.0f} s: {done.stdout}"
    return done.returncode, done.stdout


def refused(folder, ranks, *words, **how):
    code, output = train(folder, ranks, **how)
    assert code not in (0, 75), (code, output)
    for word in words:
        assert word in output, f"no '{word}' in:\n{output}"
    return output


def check(folder):
    for setting, found in (({}, "^NVLS,NVLSTree"), ({"NCCL_ALGO": "Ring"}, "Ring")):
        env = {name: value for name, value in os.environ.items() if name != "NCCL_ALGO"} | setting
        said = subprocess.run([marble, "doctor"], env=env, text=True, capture_output=True).stdout
        assert f"built in; NCCL_ALGO={found}\n" in said, said
    refused(folder, 1, "no NVIDIA driver here", "device: cpu", everywhere={"MARBLE_EMULATED_DRIVER": "0"})
    refused(folder, 1, "the driver takes CUDA up to 12.2", "update the driver", everywhere={"MARBLE_EMULATED_DRIVER": "12020"})
    refused(folder, 1, "shows no GPU", everywhere={"MARBLE_EMULATED_DEVICES": "0"})
    # the part that does not fit, and what makes it fit; 32 MB are cublasLt's
    for memory, part, less in (("24M", "cublasLt's workspace", "fewer other processes on this GPU (nvidia-smi lists them), or device: cpu"),
                               ("40M", "the transformer's weights", "precision: bf16"),
                               ("46M", "a copy of the adapted weights", "rollout.merge: never"),
                               ("50M", "gradient sets", "a smaller model.lora.rank or fewer rewards")):
        refused(folder, 1, f"no device memory for {part}: ", f" MiB are missing; expected more, or {less}",
                everywhere={"MARBLE_EMULATED_MEMORY": memory})
    refused(folder, 2, "no device memory for", "rank 1", last={"MARBLE_EMULATED_MEMORY": "40M"})
    refused(folder, 2, "two ranks of this job would share GPU 0", "MARBLE_SHARE_GPU=1",
            everywhere={"MARBLE_EMULATED_DEVICES": "1"})
    refused(folder, 2, "nccl: ranks 0 and 1 share one GPU", everywhere={"MARBLE_EMULATED_DEVICES": "1", "MARBLE_SHARE_GPU": "1"})
    refused(folder, 2, "nccl: this rank has version", "21800 to 22700", "MARBLE_NCCL=0", last={"MARBLE_EMULATED_NCCL": "21800"})
    output = refused(folder, 2, "no socket interface found", "NCCL_SOCKET_IFNAME names the interface",
                     everywhere={"NCCL_SOCKET_IFNAME": "carrier-pigeon"})
    assert "rank 1 failed" not in output, output
    refused(folder, 2, "no socket interface found", last={"NCCL_SOCKET_IFNAME": "=l"})

    # broken memory in a later step, on one rank of two: the checkpoints before it are there, and a run goes on from the last
    code, output = train(folder, 2, "--set", "train.steps=9", everywhere={"NCCL_SOCKET_IFNAME": "lo"},
                         last={"MARBLE_EMULATED_ECC": "1600"}, seconds=300)
    assert code not in (0, 75), (code, output)
    for word in ("uncorrectable ECC error", "resume from the last checkpoint on another"):
        assert word in output, f"no '{word}' in:\n{output}"
    saved = len(list((folder / "run/checkpoints").glob("step-*.h5")))
    assert saved > 0 and (folder / "run/checkpoints/latest.h5").resolve().name == f"step-{saved:06}.h5", output
    code, output = train(folder, 2, "--resume", "auto", "--set", f"train.steps={saved + 1}", seconds=300)
    assert code == 0 and (folder / f"run/checkpoints/step-{saved + 1:06}.h5").exists(), (code, output)


folder = pathlib.Path(tempfile.mkdtemp())
try:
    (folder / "run.yaml").write_text(CONFIG)
    check(folder)
finally:
    shutil.rmtree(folder)
