#!/usr/bin/env python3
"""wandb_follow.py DIR [--project NAME] [--tracker wandb|trackio|swanlab]: shows a run of marble to a tracker as it goes on.

Reads DIR/metrics.jsonl and eval.jsonl, which stay the source of truth: it may be stopped and started again, on any machine
that sees the folder. Ends when the run has (--once: at the end of the files). Lines that a resumed run takes again are left out.
"""
import argparse
import importlib
import json
import os
import time


def flat(group, line):
    for key, value in line.items():
        if isinstance(value, dict):
            yield from flat(key if group == "train" else f"{group}/{key}", value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and key != "step":
            yield f"{group}/{key}", value


def follow(folder, once, rest=2):
    """(step, numbers) of whole lines, as they are written."""
    at, file = {"metrics.jsonl": 0, "eval.jsonl": 0}, {}
    while True:
        held = os.path.exists(os.path.join(folder, "lock"))  # before reading: what comes after it is still read
        for name in at:
            path = os.path.join(folder, name)
            if not os.path.exists(path):
                continue
            with open(path, "rb") as lines:
                if file.setdefault(name, os.fstat(lines.fileno()).st_ino) != os.fstat(lines.fileno()).st_ino:
                    file[name], at[name] = os.fstat(lines.fileno()).st_ino, 0  # a resumed run has cut it back
                lines.seek(at[name])
                for text in lines:
                    if not text.endswith(b"\n"):
                        break
                    at[name] += len(text)
                    line = json.loads(text)
                    yield line["step"], dict(flat("train" if name == "metrics.jsonl" else "eval", line.get("rewards", line)))
        if once or not held:
            return
        time.sleep(rest)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--project", default="marble")
    parser.add_argument("--tracker", default="wandb", choices=("wandb", "trackio", "swanlab"))
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    tracker = importlib.import_module(options.tracker)
    tracker.init(project=options.project, name=os.path.basename(os.path.abspath(options.folder)))
    last = -1
    for step, numbers in sorted(follow(options.folder, True), key=lambda one: one[0]) if options.once else follow(
            options.folder, False):
        if step >= last:
            tracker.log(numbers, step=step)
            last = step
    tracker.finish()


if __name__ == "__main__":
    main()
