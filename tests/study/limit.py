#!/usr/bin/env python3
"""A reward kept at a level that training reached: ocr >= 0.8, then the other four with and without that limit.

    tests/study/limit.py --threads 2            trains ocr alone, merges it into the model, trains on from there; resumable
    tests/study/limit.py --collect              results/limit.json from what there is; study.py --report shows it

The limit is on the mean over a step's images of training prompts; held-out prompts score lower.
"""
import argparse
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)

from arms import REWARDS  # noqa: E402
from runs import json_lines  # noqa: E402

LEVEL, WINDOW = 0.8, 10  # window: steps of the moving mean
ALONE = ["rewards=[{name: ocr}, {name: clean, weight: 0.2}]", "balance.method=weighted_sum", "train.steps=400", "train.lr=1e-3",
         "eval.every=50", "checkpoint.every=100", "checkpoint.keep=1", "log.samples_every=0"]
AFTER = ["train.steps=80", "balance.diagnostics_every=1", "checkpoint.every=20", "checkpoint.keep=1", "log.samples_every=0"]
ARMS = {"limit": [f"rewards.0.min={LEVEL}"], "free": ["balance.common=together"]}


def train(options, name, settings):
    path = os.path.join(options.out, name)
    command = [options.marble, "train", options.config, "--out", path, "--resume", "auto", "--set", f"threads={options.threads}"]
    for text in [*settings, *options.set]:
        command += ["--set", text]
    subprocess.run(command, check=True)


def work(options):
    model = os.path.join(options.out, "ocr", "merged")
    if not os.path.exists(os.path.join(model, "model_index.json")):
        train(options, "ocr", ALONE)
        newest = os.path.join(options.out, "ocr", "checkpoints", "latest.h5")
        subprocess.run([options.marble, "export", newest, "--merged", model, "--force"], check=True)
    for name, settings in ARMS.items():
        train(options, name, [f"model.path={model}", *AFTER, *settings])


def collect(out):
    """What page and plot need of the runs, by arm: ocr in training, its multiplier, evaluations."""
    found = {}
    for name in ARMS:
        steps = json_lines(os.path.join(out, name, "metrics.jsonl"))
        if steps:
            found[name] = {"ocr": [round(step["reward"]["ocr"], 4) for step in steps],
                           "multiplier": [round(step["constraint"]["ocr"]["multiplier"], 4) for step in steps
                                          if "constraint" in step],
                           "eval": [{"step": line["step"], **{r: line.get("rewards", line)[r] for r in REWARDS}}
                                    for line in json_lines(os.path.join(out, name, "eval.jsonl"))]}
    return found


def moving(values):
    """Mean over the last WINDOW values, from the first full window on."""
    return [sum(values[i - WINDOW:i]) / WINDOW for i in range(WINDOW, len(values) + 1)]


def rows(found):
    """Lines of the page's table: arm, ocr in training, held-out change of every reward."""
    lines = []
    for name, label in (("limit", f"ocr >= {LEVEL}"), ("free", "no limit")):
        if name in found and len(found[name]["ocr"]) >= WINDOW:
            arm, last = found[name], found[name]["eval"][-1]
            lines.append([label, str(len(arm["ocr"])), f"{sum(arm['ocr']) / len(arm['ocr']):.3f}", f"{min(moving(arm['ocr'])):.3f}",
                          *[f"{last[r]['change']:+.4f} +- {last[r]['change_ci95']:.4f}" for r in REWARDS]])
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--marble", default=os.path.join(ROOT, "build", "marble"), metavar="FILE", help="the program (build/marble)")
    parser.add_argument("--config", default=os.path.join(ROOT, "deploy", "examples", "quickstart.yaml"), metavar="RUN.yaml")
    parser.add_argument("--out", default=os.path.join(ROOT, "runs", "limit"), metavar="DIR", help="folder of the runs (runs/limit)")
    parser.add_argument("--threads", type=int, default=1, metavar="T", help="threads of a run (1)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run, as of marble train")
    parser.add_argument("--collect", action="store_true", help="no runs: results/limit.json from what there is")
    options = parser.parse_args()
    if not options.collect:
        try:
            work(options)
        except subprocess.CalledProcessError as failed:
            return failed.returncode
    found = collect(options.out)
    if not found:
        print(f"limit: {options.out} holds no run", file=sys.stderr)
        return 1
    with open(os.path.join(HERE, "results", "limit.json"), "w") as file:
        json.dump(found, file, separators=(",", ":"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
