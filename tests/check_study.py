#!/usr/bin/env python3
"""The study's script on tiny runs: two arms, no time, then all they need; then the page with its plots. Skipped without matplotlib."""
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

try:
    import matplotlib  # noqa: F401
except ModuleNotFoundError:
    print("skipped: no matplotlib (pip install numpy matplotlib)")
    sys.exit(77)

marble = sys.argv[1]
script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "study", "study.py")
sys.path.insert(0, os.path.dirname(script))
import results  # noqa: E402

for counts in ({"n": 16}, {"n": 64, "prompts": 16}):  # intervals over images, as once, and over prompts: a deviation of 2 in both
    first, last = {"ci95": 1.959964 / 2, **counts}, {"change": 3, "change_ci95": 1}
    gain = results.change({"eval": [{r: first for r in results.REWARDS}, {r: last for r in results.REWARDS}]})[2]
    assert all(abs(one - 1.5) < 1e-12 for one in gain), (counts, gain)
sizes = ["prompts.groups=4", "prompts.group_size=4", "eval.prompts=16", "eval.every=2"]


def study(folder, *arguments):
    return subprocess.run([sys.executable, script, "--out", f"{folder}/out", *arguments], text=True, capture_output=True)


with tempfile.TemporaryDirectory() as folder:
    train = ["--marble", marble, "--only", "weighted_sum,marble", "--seeds", "1", "--steps", "3", "--pace", "0.1",
             *[word for size in sizes for word in ("--set", size)]]
    late = study(folder, *train, "--seconds", "12")  # no time is left for any run
    assert late.returncode == 75 and "0 of 2 runs done" in late.stdout, (late.stdout, late.stderr)
    done = study(folder, *train, "--pack", f"{folder}/all.tar.xz")
    assert done.returncode == 0 and "2 of 2 runs done" in done.stdout, (done.stdout, done.stderr)
    names = tarfile.open(f"{folder}/all.tar.xz").getnames()
    assert "marble/seed-1/metrics.jsonl" in names and not any(name.endswith(".h5") for name in names), names
    again = study(folder, *train)
    assert again.returncode == 0 and " 0 running" in again.stdout.splitlines()[0], again.stdout
    other = study(folder, *train, "--set", "train.lr=1e-3")
    assert other.returncode == 2 and "other settings (train.lr)" in other.stderr, other.stderr
    wrong = study(folder, "--only", "marbel")
    assert wrong.returncode == 2 and "no such arm" in wrong.stderr, wrong.stderr
    gone = study(folder, "--only", "adam")
    assert gone.returncode == 2 and "does not have it any more" in gone.stderr, gone.stderr

    made = study(folder, "--report", "--page", folder)
    assert made.returncode == 0, made.stderr
    page = open(f"{folder}/README.md").read()
    assert "{{" not in page and "| marble | 1 |" in page and "| weighted sum | 1 |" in page, page
    for name in page.split("](results/")[1:]:
        assert os.path.getsize(f"{folder}/results/" + name.split(")")[0]) > 2000, name
    assert "rho.png" not in page and "halves.png" in page, page
    assert "\n## Where the drawing policy lags\n" not in page and "\n## Long runs\n" not in page, page
    with open(os.path.join(os.path.dirname(script), "results", "lag.json")) as file:
        found = json.load(file)
    for name in ("marble", "equal"):  # as if they were long ones
        found.append({**found[0], "arm": f"long_{name}"})
    with open(f"{folder}/results/lag.json", "w") as file:
        json.dump(found, file)
    lag = study(folder, "--report", "--page", folder)
    page = open(f"{folder}/README.md").read()
    assert lag.returncode == 0 and "| 0.95 | together, guarded | 3 |" in page and "{{" not in page, (lag.stderr, page)
    assert "\n## Long runs\n" in page and f"| marble | {found[0]['steps']} |" in page, page
    assert all(os.path.getsize(f"{folder}/results/{name}.png") > 2000 for name in ("lag", "lag_rewards", "long"))
    os.makedirs(f"{folder}/again/results")
    shutil.copy(f"{folder}/results/lag.json", f"{folder}/again/results")
    repeat = study(folder, "--report", "--from", f"{folder}/results/runs.jsonl", "--page", f"{folder}/again")
    assert repeat.returncode == 0, repeat.stderr
    assert open(f"{folder}/again/README.md").read() == page, "the page from the data differs from that from the runs"
