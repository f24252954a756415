#!/usr/bin/env python3
"""deploy/examples/remote-rewards.yaml in small, on two ranks: five rewards from two replicas of marble_reward.py and the server of
another kind. In turn one replica is killed and started anew, one answers late and then not at all, and one answers nonsense. Not a
score is lost, and the metrics are those of a run that scores in its own process."""
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

marble = os.path.abspath(sys.argv[1])
example = "deploy/examples/remote-rewards.yaml"
python_server = ["proto/python/marble_reward.py", "serve", "deploy/examples/rewards/signs/signs.py", "--with-parent", "--listen"]
plain_server = ["deploy/examples/rewards/signs/plain_server.py"]
NAMES = ["ocr", "count", "color", "clean", "jpeg"]
STEPS = 8
small = ["threads=1", "prompts.groups=4", "prompts.group_size=4", "rollout.steps=2", f"train.steps={STEPS}",
         "train.timestep_fraction=0.5", "eval.every=0", "eval.prompts=4", "eval.steps=2", "checkpoint.every=100",
         "log.samples_every=0", "log.recheck_every=2"]
environment = {**os.environ, "MARBLE": marble, "PYTHONDONTWRITEBYTECODE": "1"}


class Server:
    """A reward server, and between it and its clients a proxy that makes trouble."""

    def __init__(self, command):
        self.command, self.fault, self.troubled = command, None, 0
        self.start()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def start(self):
        self.process = subprocess.Popen([sys.executable, *self.command, "127.0.0.1:0"], stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, env=environment)
        line = self.process.stdout.readline()
        assert line.startswith("ready "), line
        self.port = int(line.rsplit(":", 1)[1])

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                client.close()
                continue
            threading.Thread(target=self.copy, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self.copy, args=(server, client, True), daemon=True).start()

    def copy(self, source, sink, answers):
        try:
            while data := source.recv(1 << 16):
                if answers and self.fault:
                    self.troubled += 1
                    if self.fault == "hangs":
                        continue
                    if self.fault == "late":
                        time.sleep(1)
                    else:
                        data = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\x00{[[\xff 12"
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def lines_of(out):
    try:
        with open(os.path.join(out, "metrics.jsonl")) as file:
            return [json.loads(line) for line in file if line.endswith("\n")]
    except FileNotFoundError:
        return []


def train(out, rewards, while_running=lambda lines: None):
    sets = [word for item in [*small, *rewards] for word in ("--set", item)]
    with open(f"{out}.log", "w") as log:
        run = subprocess.Popen(["tests/with_ranks", "2", marble, "train", example, "--out", out, *sets], stdout=log,
                               stderr=subprocess.STDOUT)
        while run.poll() is None:
            while_running(len(lines_of(out)))
            time.sleep(0.02)
    if run.returncode:
        print(open(f"{out}.log").read())
        sys.exit(f"exit code {run.returncode}")
    return lines_of(out)


def trouble(steps):
    """What happens after so many steps."""
    first, second, third = servers
    if steps >= 1 and done[0] < 1:
        first.kill()
        done[0], second.fault = 1, "late"
    if steps >= 2 and done[0] < 2:
        done[0], second.fault = 2, "hangs"
    if steps >= 4 and done[0] < 3:
        first.start()
        done[0], third.fault = 3, "nonsense"


def compare(a, b, what):
    for key in ("reward", "alpha", "cos", "grad_norm", "loss", "kl", "x0_norm"):
        one, other = (x[key] if isinstance(x[key], dict) else {"": x[key]} for x in (a, b))
        assert one.keys() == other.keys(), (what, key)
        for name in one:
            assert one[name] == other[name], f"{what}: {key} {name}: {one[name]} there, {other[name]} here"


with tempfile.TemporaryDirectory() as folder:
    servers = [Server(python_server), Server(python_server), Server(plain_server)]
    try:
        done = [0]
        urls = json.dumps([server.url for server in servers])
        there = train(os.path.join(folder, "there"),
                      [f"rewards.{k}.{key}" for k in range(5) for key in (f"urls={urls}", "deadline=2 s", "batch=2")], trouble)
        here = train(os.path.join(folder, "here"), ["rewards=[%s]" % ", ".join("{name: %s}" % name for name in NAMES)])
    finally:
        for server in servers:
            server.kill()
    assert done == [3] and servers[1].troubled and servers[2].troubled, "the run was over before the faults"
    assert len(there) == len(here) == STEPS
    for step, (a, b) in enumerate(zip(there, here), 1):
        for name in NAMES:
            assert a["failed"][name] == 0 and a["valid"][name] == b["valid"][name] and a["na"][name] == b["na"][name], (step, name, a)
            assert a["remote"][name]["requests"] >= 8, a["remote"]
        for name, difference in (a.get("recheck") or {}).items():
            assert difference in (0, None), (name, a["recheck"])
        compare(a, b, f"step {step}")
    assert any("recheck" in line for line in there)
    assert sum(sum(line["remote"]["ocr"]["failed"].values()) for line in there) > 0
