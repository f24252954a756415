#!/usr/bin/env python3
"""deploy/examples/remote-rewards.yaml in small, on two ranks, from two replicas of marble_reward.py of which one is killed in the
middle: not a score is lost, and the metrics are those of a run that starts the same file itself (type: python)."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

marble = os.path.abspath(sys.argv[1])
example = "deploy/examples/remote-rewards.yaml"
server = ["proto/python/marble_reward.py", "serve", "deploy/examples/rewards/own/my_rewards.py"]
pythons = [path for path in (sys.executable, "/usr/bin/python3")
           if os.path.exists(path) and subprocess.run([path, "-c", "import numpy"], capture_output=True).returncode == 0]
if not pythons:
    print("skipped: deploy/examples/rewards/own/my_rewards.py needs numpy")
    sys.exit(77)
small = ["threads=1", "prompts.groups=4", "prompts.group_size=4", "rollout.steps=2", "train.steps=6", "train.timestep_fraction=0.5",
         "eval.every=0", "eval.prompts=4", "eval.steps=2", "checkpoint.every=100", "log.samples_every=0", "log.recheck_every=2"]


def start(port):
    process = subprocess.Popen([pythons[0], *server, "--listen", f"127.0.0.1:{port}", "--with-parent"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    line = process.stdout.readline()
    assert line.startswith("ready "), line
    return process, line.split()[1]


def train(out, rewards, while_running=lambda lines: None):
    sets = [word for item in [*small, *rewards] for word in ("--set", item)]
    with open(f"{out}.log", "w") as log:
        run = subprocess.Popen(["tests/with_ranks", "2", marble, "train", example, "--out", out, *sets], stdout=log,
                               stderr=subprocess.STDOUT)
        while run.poll() is None:
            while_running(lines_of(out))
            time.sleep(0.02)
    if run.returncode:
        print(open(f"{out}.log").read())
        sys.exit(f"exit code {run.returncode}")
    return lines_of(out)


def lines_of(out):
    try:
        with open(os.path.join(out, "metrics.jsonl")) as file:
            return [json.loads(line) for line in file if line.endswith("\n")]
    except FileNotFoundError:
        return []


with tempfile.TemporaryDirectory() as folder:
    servers, urls = zip(*(start(0) for _ in range(2)))

    def kill_one(lines):
        if lines and servers[1].poll() is None:
            servers[1].send_signal(signal.SIGKILL)
            servers[1].wait()

    there = train(os.path.join(folder, "there"), [f"rewards.4.urls={json.dumps(urls)}"], kill_one)
    assert servers[1].returncode == -signal.SIGKILL and servers[0].poll() is None
    servers[0].terminate()
    servers[0].wait()
    own = "{name: bright, type: python, file: deploy/examples/rewards/own/my_rewards.py, python: %s}" % pythons[0]
    here = train(os.path.join(folder, "here"), ["rewards=[{name: ocr}, {name: count}, {name: color}, {name: clean}, %s]" % own])
    assert len(there) == len(here) == 6
    for a, b in zip(there, here):
        assert a["failed"]["bright"] == 0 and a["valid"]["bright"] == 16, a
        assert a["remote"]["bright"]["requests"] >= 2, a["remote"]
        for key in ("reward", "alpha", "cos", "grad_norm", "loss", "kl", "x0_norm"):
            assert a.get(key) == b.get(key), (key, a.get(key), b.get(key))
        for name, difference in (a.get("recheck") or {}).items():
            assert difference in (0, None), (name, a["recheck"])
    assert any("recheck" in line for line in there)
