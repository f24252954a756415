#!/usr/bin/env python3
"""The study of a lagging policy on tiny runs: arms, resuming, a table of what has finished."""
import json
import os
import subprocess
import sys
import tempfile

marble = sys.argv[1]
script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "study", "lag.py")


def lag(folder, *arguments):
    return subprocess.run([sys.executable, script, "--out", f"{folder}/out", *arguments], text=True, capture_output=True)


with tempfile.TemporaryDirectory() as folder:
    train = ["--marble", marble, "--before", marble, "--only", "shrink_average,before", "--seeds", "1", "--lags", "0.95", "--steps", "2", "--pace", "0.1"]
    for size in ("prompts.groups=4", "prompts.group_size=4", "eval.prompts=16", "eval.every=2"):
        train += ["--set", size]
    nothing = lag(folder, "--collect")
    assert nothing.returncode == 1 and "no finished run" in nothing.stderr, nothing.stderr
    late = lag(folder, *train, "--seconds", "12")  # no time is left for any run
    assert late.returncode == 75 and "0 of 2 runs done" in late.stdout, (late.stdout, late.stderr)
    done = lag(folder, *train)
    assert done.returncode == 0 and "2 of 2 runs done" in done.stdout, (done.stdout, done.stderr)
    table = lag(folder, "--collect", "--results", folder)
    assert table.returncode == 0 and "| 0.95 | together, as before | 1 |" in table.stdout, (table.stdout, table.stderr)
    runs = {one["arm"]: one for one in json.load(open(f"{folder}/lag.json", encoding="utf-8"))}
    assert [(one["seed"], one["steps"], len(one["steps_cos"])) for one in runs.values()] == [(1, 2, 2)] * 2, runs
    shrunk = runs["h0.95_shrink_average"]
    assert 0 <= shrunk["shrunk"] <= 1 and abs(sum(shrunk["alpha"].values()) - 1) < 1e-6, shrunk
    assert runs["h0.95_before"]["shrunk"] is None and set(shrunk["change"]) == {"ocr", "count", "color", "clean", "jpeg"}, runs
    note = json.load(open(f"{folder}/out/h0.95_before/seed-1/study.json", encoding="utf-8"))
    assert note["settings"]["train.old_decay.hold"] == "0.95" and note["settings"]["train.old_decay.rate"] == "0.02375", note
    wrong = lag(folder, "--only", "togehter")
    assert wrong.returncode == 2 and "no such arm" in wrong.stderr, wrong.stderr
