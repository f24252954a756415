#!/usr/bin/env python3
"""What one rank of two alone meets with: a full disk, prompts that only one node sees, memory that runs out. The job ends
within seconds (limits.deadline is far away), the rank that knows says why, and the last checkpoint is whole. $1 is the
marble program. Exit 77 says what is lacking."""
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
marble = pathlib.Path(sys.argv[1]).resolve()
TINY = ("device=cpu threads=1 pretrain.steps=40 pretrain.warmup=2 pretrain.batch=16 pretrain.model.patch_size=8 "
        "pretrain.model.num_layers=2 pretrain.model.num_attention_heads=2 pretrain.model.attention_head_dim=16 "
        "pretrain.model.caption_projection_dim=32 pretrain.model.joint_attention_dim=32 pretrain.model.text_layers=1 "
        "pretrain.model.pooled_projection_dim=32 eval.prompts=4 eval.steps=1").split()
CONFIG = """precision: f32
threads: 1
model: {path: base/model, lora: {rank: 4, alpha: 8}}
prompts: {source: signs, train_count: 30, test_count: 8, groups: 2, group_size: 2}
rollout: {steps: 2, solver: euler, schedule: linear, micro_batch: 8, merge: never}
train: {steps: 4, lr: 2.0e-3, beta: 1.0, micro_batch: 8, timestep_fraction: 0.5}
rewards: [{name: clean}, {name: jpeg}]
eval: {every: 2, prompts: 2, steps: 1}
checkpoint: {every: 1, keep: 0}
log: {samples_every: 2, advantages_every: 3}
"""
# Fails what it is asked to on one rank, once the file FAIL_WHEN is there: writes to, and opening for writing of, paths with
# FAIL_PATH in them, or allocations of FAIL_BYTES and more.
FAIL = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int here(const char *name) {
    const char *rank = getenv("OMPI_COMM_WORLD_RANK"), *wanted = getenv("FAIL_RANK");
    return getenv(name) && rank && wanted && strcmp(rank, wanted) == 0 && access(getenv("FAIL_WHEN"), F_OK) == 0;
}
ssize_t write(int fd, const void *data, size_t n) {
    char link[64], path[512];
    if (here("FAIL_PATH")) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        path[length > 0 ? length : 0] = 0;
        errno = ENOSPC;
        if (strstr(path, getenv("FAIL_PATH")))
            return -1;
    }
    return ((ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write"))(fd, data, n);
}
FILE *fopen(const char *path, const char *mode) {
    errno = ENOSPC;
    if (here("FAIL_PATH") && mode[0] == 'w' && strstr(path, getenv("FAIL_PATH")))
        return NULL;
    return ((FILE *(*)(const char *, const char *))dlsym(RTLD_NEXT, "fopen"))(path, mode);
}
void *aligned_alloc(size_t alignment, size_t n) {
    if (here("FAIL_BYTES") && n >= strtoul(getenv("FAIL_BYTES"), NULL, 10))
        return NULL;
    return ((void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "aligned_alloc"))(alignment, n);
}
"""
FAR = 300  # seconds: limits.deadline
SOON = 25  # a job takes 1 s and the end of one another, by itself
failures = []


def lack(text):
    print(f"skipped: {text}")
    sys.exit(77)


def start(ranks, command, environment=()):
    begun = time.time()
    launcher = [ROOT / "tests/with_ranks", str(ranks)] if ranks > 1 else []
    for name, value in dict(environment).items():
        launcher += ["-x", f"{name}={value}"]
    done = subprocess.run(["timeout", "-k", "5", str(2 * SOON)] + launcher + command, cwd=folder, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout, time.time() - begun


def sets(words):
    return [part for word in words for part in ("--set", word)]


def train(name, *more):
    return [marble, "train", "run.yaml", "--out", name, *sets([f"limits.deadline={FAR}", "device=cpu", *more])]


def expect(name, code, log, seconds, rank, reasons, alone=True, goes_on=False):
    """Ended in time, by the rank that knows, who says why; goes_on: or reported and gone on."""
    wanted = [f"[rank {rank}] error:", *reasons] + (["ends alone"] if alone else [])
    missing = [text for text in wanted if text not in log]
    if goes_on and code == 0:
        missing = [text for text in reasons if text not in log]
    elif code not in (1, 2):
        missing.append("exit code 1 or 2")
    if seconds > SOON:
        missing.append(f"an end within {SOON} s")
    print(f"{name}: code {code} after {seconds:.1f} s")
    if missing:
        print(log)
        print(f"{name}: lacks {'; '.join(missing)}")
        failures.append(name)


def attribute(path, name):
    return subprocess.run([marble, "inspect", "--attribute", name, path], cwd=folder, capture_output=True,
                          text=True).stdout.strip()


def latest_is(name, step):
    found = attribute(f"{name}/checkpoints/latest.h5", "step")
    if found != str(step):
        print(f"{name}: the last checkpoint is of step {found or 'none'}; expected {step}")
        failures.append(name)


def failing(name, rank, once, **what):
    """The environment of a job whose `rank` fails once the checkpoint of the step `once` is there (0: at once)."""
    when = folder / name / f"checkpoints/step-{once:06}.h5" if once else "/"
    return {"LD_PRELOAD": folder / "fail.so", "FAIL_RANK": rank, "FAIL_WHEN": when, **what}


def disk(name, path, once, step, command=None):
    """Rank 0's writes to `path` fail; the last checkpoint is then that of `step`."""
    code, log, seconds = start(2, command or train(name), failing(name, 0, once, FAIL_PATH=f"{name}/{path}"))
    expect(name, code, log, seconds, 0, [path, "No space left"], goes_on=True)
    if code:
        latest_is(name, step)


if not shutil.which("cc") or not shutil.which("mpirun"):
    lack("no C compiler or no mpirun")
folder = pathlib.Path(tempfile.mkdtemp())
try:
    (folder / "run.yaml").write_text(CONFIG)
    (folder / "fail.c").write_text(FAIL)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "fail.so", folder / "fail.c", "-ldl"], check=True)
    pretrain = [marble, "pretrain", ROOT / "deploy/examples/pretrain.yaml", *sets([f"limits.deadline={FAR}", *TINY])]
    code, log, _ = start(1, pretrain + ["--out", "base"])
    assert code == 0, log

    disk("metrics", "metrics.jsonl", 2, 2)
    disk("evaluation", "eval.jsonl", 1, 2)
    disk("sheet", "samples/step-000002.png", 1, 2)
    disk("advantages", "advantages.jsonl", 2, 3)
    disk("pretraining", "metrics.jsonl", 20, 20, pretrain + ["--out", "pretraining", *sets(["pretrain.checkpoint_every=20"])])

    # A step takes no memory; an evaluation after it does, on every rank.
    for rank in (0, 1):
        name = f"memory{rank}"
        code, log, seconds = start(2, train(name), failing(name, rank, 2, FAIL_BYTES=8000))
        expect(name, code, log, seconds, rank, ["no memory"], alone=False)
        found = attribute(f"{name}/checkpoints/latest.h5", "step")
        if found not in ("2", "3"):
            failures.append(name)
            print(f"{name}: the last checkpoint is of step {found or 'none'}; expected 2 or 3")

    # A run.yaml that is another one on rank 1.
    (folder / "other.yaml").write_text(CONFIG + "nothing: 1\nrollouts: {steps: 2}\n")
    words = " ".join(f"'{word}'" for word in map(str, train("configuration")))
    script = f"[ $OMPI_COMM_WORLD_RANK = 0 ] || cd other; exec {words}"
    (folder / "other").mkdir()
    shutil.copy(folder / "other.yaml", folder / "other/run.yaml")
    (folder / "other/base").symlink_to(folder / "base")
    code, log, seconds = start(2, ["sh", "-c", script])
    expect("configuration", code, log, seconds, 1, ["nothing: unknown key", "(and 1 more)"], alone=False)
    (folder / "other/run.yaml").write_text(CONFIG.replace("lr: 2.0e-3", "lr: 2.0e-4"))
    code, log, seconds = start(2, ["sh", "-c", script])
    expect("another configuration", code, log, seconds, 1,
           ["run.yaml: train.lr is 0.0002 on rank 1 and 0.002 on rank 0"], alone=False)

    # Prompts of which rank 1 sees nothing, or something else.
    (folder / "prompts.0.txt").write_text("a red sign that says \"K7\"\nthree blue circles\ngreen above purple\n")
    (folder / "prompts.2.txt").write_text("")
    (folder / "prompts.3.txt").write_text("three blue circles\ngreen above purple\na red sign that says \"K7\"\n")
    for name, file, reasons in (("unseen", "prompts.1.txt", ["prompts.train", "does not exist"]),
                                ("empty", "prompts.2.txt", ["no prompts"]),
                                ("others", "prompts.3.txt", ["prompts.train", "not the same on all ranks"])):
        command = train(name, "prompts.source=file", "prompts.train_count=3", "prompts.test_count=3")
        words = " ".join(f"'{word}'" for word in map(str, command))
        script = (f"file=prompts.0.txt; [ $OMPI_COMM_WORLD_RANK = 0 ] || file={file}; "
                  f"exec {words} --set prompts.train=$file --set prompts.test=prompts.0.txt")
        code, log, seconds = start(2, ["sh", "-c", script])
        expect(name, code, log, seconds, 1, reasons, alone=False)
finally:
    shutil.rmtree(folder)
sys.exit(bool(failures))
