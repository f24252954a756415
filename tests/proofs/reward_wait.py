#!/usr/bin/env python3
"""How long the trainer waits for a scorer that needs twice as long for an image as the rollout does, when there are 1, 2, 3 or 4 of it.

    tests/proofs/reward_wait.py BUILD/marble [--set KEY=VALUE]...

One of it alone scores half of the images while they are made; the other half has to be waited for, since the advantages of a step need
all of its scores, and images of the next step would come from a policy that is not trained yet. Beside each measurement stands that
least wait, from the measured times: max(0, scoring / workers - rollout)."""
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REWARD = """
import time
from marble_reward import reward

@reward("slow", images="raw")
def slow(images, prompts, metadata):
    time.sleep({seconds} * len(images))
    return [sum(image.data) / len(image.data) for image in images]
"""
IMAGES, STEPS = 96, 5
COMMON = ["threads=1", f"prompts.groups={IMAGES // 12}", "rollout.micro_batch=8", f"train.steps={STEPS}", "eval.every=0",
          "eval.prompts=4", "eval.steps=2", "checkpoint.every=100", "log.samples_every=0"]


def train(folder, name, rewards):
    out = os.path.join(folder, name)
    command = [marble, "train", "deploy/examples/quickstart.yaml", "--out", out]
    for item in [*COMMON, f"rewards={rewards}", *more]:
        command += ["--set", item]
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if found.returncode:
        sys.exit(found.stdout)
    with open(os.path.join(out, "metrics.jsonl")) as file:
        lines = [json.loads(line)["seconds"] for line in file]
    return {key: statistics.median(line[key] for line in lines[1:]) for key in ("rollout", "reward_wait", "train", "total")}


marble = os.path.abspath(sys.argv[1])
more = [word for word in sys.argv[2:] if word != "--set"]
with tempfile.TemporaryDirectory() as folder:
    own = "{name: ocr}, {name: count}, {name: color}"
    alone = train(folder, "alone", f"[{own}]")
    seconds = 2 * alone["rollout"] / IMAGES
    path = os.path.join(folder, "slow.py")
    with open(path, "w") as file:
        file.write(REWARD.format(seconds=seconds))
    print(f"without it: rollout {alone['rollout']:.2f} s, step {alone['total']:.2f} s; its time for an image: {1e3 * seconds:.1f} ms")
    for workers in (1, 2, 3, 4):
        t = train(folder, f"{workers}", f"[{own}, {{name: slow, type: python, file: {path}, python: {sys.executable}, "
                                        f"workers: {workers}, batch: 2, in_flight: {2 * workers}}}]")
        least = max(0, seconds * IMAGES / workers - t["rollout"])
        print(f"{workers} of it: rollout {t['rollout']:.2f} s, waited {t['reward_wait']:.2f} s of a step of {t['total']:.2f} s: "
              f"{100 * t['reward_wait'] / t['total']:.1f} %; at least {100 * least / (t['total'] - t['reward_wait'] + least):.1f} %", flush=True)
