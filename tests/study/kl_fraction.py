#!/usr/bin/env python3
"""What train.kl_fraction costs in accuracy: the gradient of the KL term from a fraction of the rows, beside that of all rows, on the
checkpoints of a run on the example. A step's direction is read from AdamW's first moment, and the KL term from the difference of
two steps that differ by nothing else: with balance.kl: apart it changes neither alpha nor what the rewards add.

    tests/study/kl_fraction.py [--seeds 42,1] [--set KEY=VALUE ...] [--marble FILE] [--out DIR]

Measured so (one core of an AMD EPYC, bf16; --seeds 42): with prompts.groups=16, prompts.group_size=8, rollout.steps=4, 128 rows a step;
then from those checkpoints with prompts.group_size=30 and 8 sampling steps, 960 rows, after step 20 alone.
Needs h5py and NumPy. A finished run goes on where it was; --set is for every run (smaller groups, more threads)."""
import argparse
import os
import subprocess
import sys

try:
    import h5py
    import numpy as np
except ModuleNotFoundError as missing:
    sys.exit(f"kl_fraction: needs {missing.name}: pip install h5py numpy")

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FRACTIONS = (1, 0.5, 0.25)
LARGE = 100  # of train.kl where the term is measured: far above the rounding of the rewards' part, which is the same in all
RUN = ["train.steps=40", "checkpoint.every=20", "checkpoint.keep=0", "eval.every=0", "eval.prompts=1", "log.samples_every=0"]
STEPS = (20, 40)


def options_of_command():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", default="42,1", metavar="N,...", help="(42,1)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run, as of marble train")
    parser.add_argument("--marble", default=os.path.join(ROOT, "build", "marble"), metavar="FILE", help="the program (build/marble)")
    parser.add_argument("--config", default=os.path.join(ROOT, "deploy", "examples", "quickstart.yaml"), metavar="RUN.yaml")
    parser.add_argument("--out", default=os.path.join(ROOT, "runs", "kl_fraction"), metavar="DIR", help="(runs/kl_fraction)")
    return parser.parse_args()


def train(options, out, settings, resume):
    command = [options.marble, "train", options.config, "--out", out, "--resume", resume, "--quiet"]
    for text in [*settings, *options.set]:
        command += ["--set", text]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def moment(path):
    with h5py.File(path) as file:
        return file["optimizer/m"][:].astype(np.float64), file["counters"][:]


def direction(options, run, step, name, settings):
    """What the step after `step` went along, with these settings."""
    start = os.path.join(run, "checkpoints", f"step-{step:06}.h5")
    out = f"{run}-{step}-{name}"
    last = os.path.join(out, "checkpoints", f"step-{step + 1:06}.h5")
    if not os.path.exists(last):
        train(options, out, [*RUN, f"train.steps={step + 1}", "train.grad_clip=0", *settings], start)
    return (moment(last)[0] - 0.9 * moment(start)[0]) / 0.1


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def measure(options, seed, found):
    run = os.path.join(options.out, f"seed-{seed}")
    chosen = [f"seed={seed}"]
    train(options, run, [*RUN, *chosen], "auto")
    for step in STEPS:
        rewards = direction(options, run, step, "none", [*chosen, "train.kl=0"])
        kl = {f: (direction(options, run, step, f"kl-{f}", [*chosen, f"train.kl={LARGE}", f"train.kl_fraction={f}"]) - rewards) / LARGE
              for f in FRACTIONS}
        for f in FRACTIONS:
            found[f].append((cosine(kl[f], kl[1]), np.linalg.norm(kl[f] - kl[1]) / np.linalg.norm(kl[1]),
                             cosine(rewards + 0.01 * kl[f], rewards + 0.01 * kl[1]), 0.01 * np.linalg.norm(kl[f]) / np.linalg.norm(rewards)))


def main():
    options = options_of_command()
    found = {f: [] for f in FRACTIONS}
    for seed in options.seeds.split(","):
        measure(options, seed, found)
    print(f"{len(found[1])} steps: mean (least or largest)")
    print("| `train.kl_fraction` | cosine with the KL gradient of all rows | relative error | cosine of the step's directions, kl 0.01 | length of the KL gradient over the rewards' |")
    print("|---|---|---|---|---|")
    for f in FRACTIONS[1:]:
        rows = np.array(found[f])
        print(f"| {f} | {rows[:, 0].mean():.3f} ({rows[:, 0].min():.3f}) | {rows[:, 1].mean():.3f} ({rows[:, 1].max():.3f}) | "
              f"{rows[:, 2].mean():.5f} ({rows[:, 2].min():.5f}) | {rows[:, 3].mean():.4f} ({rows[:, 3].max():.4f}) |")


if __name__ == "__main__":
    main()
