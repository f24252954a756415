#!/usr/bin/env python3
"""Rewards over a bad network: a run in one network namespace, two replicas of its reward server in another, each behind a link of its
own that delays, loses or drops all packets of IP. Whatever the links do, no score is lost and the metrics are, digit for digit, those of
a run that scores in its own process.

    tests/proofs/reward_network.py BUILD/marble         prints a line for each network; needs root and /dev/net/tun, else exit 77

The links are a thread each between two TUN devices, so it works where the kernel has no netem."""
import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
STEPS = 6
NAMES = ["ocr", "count", "color", "clean", "jpeg"]
SMALL = ["threads=1", "prompts.groups=4", "prompts.group_size=4", "rollout.steps=2", f"train.steps={STEPS}",
         "train.timestep_fraction=0.5", "eval.every=0", "eval.prompts=4", "eval.steps=2", "checkpoint.every=100",
         "log.samples_every=0"]


def run(*words, **more):
    subprocess.run(words, check=True, **more)


class Link(threading.Thread):
    """Carries packets between 10.77.N.1 in the namespace of the run and 10.77.N.2 in that of the servers."""

    def __init__(self, number, here, there):
        super().__init__(daemon=True)
        self.files, self.delay, self.loss, self.cut, self.random = [], 0, 0, False, random.Random(number)
        self.carried = self.lost = 0
        for side, namespace in ((1, here), (2, there)):
            name = f"mbl{os.getpid() % 10000}n{number}{side}"
            file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
            run("ip", "link", "set", name, "netns", namespace)
            run("ip", "-n", namespace, "addr", "add", f"10.77.{number}.{side}/24", "dev", name)
            run("ip", "-n", namespace, "link", "set", name, "up")
            self.files.append(file)
        self.start()

    def run(self):
        waiting, order = [], 0
        while True:
            wait = max(0, waiting[0][0] - time.monotonic()) if waiting else None
            for file in select.select(self.files, [], [], wait)[0]:
                try:
                    packet = os.read(file, 65536)
                except OSError:  # its namespace is gone
                    return
                if self.cut or self.random.random() < self.loss:
                    self.lost += 1
                    continue
                order += 1
                heapq.heappush(waiting, (time.monotonic() + self.delay, order, self.files[1 - self.files.index(file)], packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, other, packet = heapq.heappop(waiting)
                with contextlib.suppress(OSError):
                    os.write(other, packet)
                self.carried += 1


def lines_of(out):
    with contextlib.suppress(FileNotFoundError), open(os.path.join(out, "metrics.jsonl")) as file:
        return [json.loads(line) for line in file if line.endswith("\n")]
    return []


def train(namespace, out, rewards, while_running):
    command = [marble, "train", "deploy/examples/remote-rewards.yaml", "--out", out]
    for item in [*SMALL, *rewards]:
        command += ["--set", item]
    with open(f"{out}.log", "w") as log:
        process = subprocess.Popen(["ip", "netns", "exec", namespace, *command], stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
        while process.poll() is None:
            while_running(len(lines_of(out)))
            time.sleep(0.02)
    if process.returncode:
        sys.exit(f"exit code {process.returncode}:\n{open(f'{out}.log').read()}")
    return lines_of(out)


def serve(namespace, number):
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, "proto/python/marble_reward.py", "serve",
         "deploy/examples/rewards/signs/signs.py", "--listen", f"10.77.{number}.2:8000", "--with-parent"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env={**os.environ, "MARBLE": marble})
    assert process.stdout.readline().startswith("ready ")
    return process


def same(there, here, what):
    assert len(there) == len(here) == STEPS, what
    for a, b in zip(there, here):
        assert set(a["failed"].values()) == {0}, (what, a["failed"])
        for key in ("reward", "valid", "na", "alpha", "cos", "grad_norm", "loss", "kl", "x0_norm"):
            assert a[key] == b[key], (what, key, a[key], b[key])


def networks(links):
    """Name, what the links do from the start, what they do after so many steps."""
    one, two = links

    def at_first(delay=0, loss=0):
        for link in links:
            link.delay, link.loss, link.cut = delay, loss, False

    def cut_one(steps):
        two.cut = steps >= 1

    def cut_one_for_a_while(steps):
        two.cut = 1 <= steps < 3

    def cut_both(steps):
        if steps >= 2 and not hasattr(cut_both, "until"):
            cut_both.until = time.monotonic() + 3
        one.cut = two.cut = time.monotonic() < getattr(cut_both, "until", 0)

    def nothing(steps):
        pass

    return [("two good links", lambda: at_first(), nothing),
            ("20 ms each way", lambda: at_first(0.02), nothing),
            ("5 ms and 3 % of all packets lost", lambda: at_first(0.005, 0.03), nothing),
            ("one link cut after a step", lambda: at_first(), cut_one),
            ("one link cut for two steps", lambda: at_first(0.001), cut_one_for_a_while),
            ("both links cut for 3 s", lambda: at_first(), cut_both)]


def prove(folder, here, there):
    links = [Link(number, here, there) for number in (1, 2)]
    servers = [serve(there, number) for number in (1, 2)]
    try:
        alone = train(here, os.path.join(folder, "alone"), ["rewards=[%s]" % ", ".join("{name: %s}" % name for name in NAMES)],
                      lambda steps: None)
        rewards = [f"rewards.{k}.{key}" for k in range(5)
                   for key in ('urls=["http://10.77.1.2:8000", "http://10.77.2.2:8000"]', "deadline=2 s", "batch=2", "retries=8")]
        for number, (what, begin, go_on) in enumerate(networks(links)):
            begin()
            before, start = sum(link.lost for link in links), time.monotonic()
            found = train(here, os.path.join(folder, str(number)), rewards, go_on)
            same(found, alone, what)
            total = {key: sum(line["remote"]["ocr"][key] for line in found) for key in ("requests", "retried", "hedged")}
            wait = sum(line["remote"]["ocr"]["wait"] for line in found)
            print(f"{what:34} {total['requests']} requests, {total['retried']} sent again, {total['hedged']} hedged; slowest p99 "
                  f"{1e3 * max(line['remote']['ocr']['p99'] for line in found):.0f} ms; waited {wait:.2f} s of "
                  f"{time.monotonic() - start:.1f} s; {sum(link.lost for link in links) - before} packets lost; no score lost, same metrics",
                  flush=True)
    finally:
        for server in servers:
            server.kill()


if len(sys.argv) != 2:
    sys.exit("usage: reward_network.py BUILD/marble")
marble = os.path.abspath(sys.argv[1])
if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
    print("skipped: needs root and /dev/net/tun")
    sys.exit(77)
pair = [f"marble-{os.getpid()}-{side}" for side in ("run", "servers")]
try:
    for namespace in pair:
        if subprocess.run(["ip", "netns", "add", namespace]).returncode:
            print("skipped: no network namespace can be made")
            sys.exit(77)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
    with tempfile.TemporaryDirectory() as folder:
        prove(folder, *pair)
finally:
    for namespace in pair:
        subprocess.run(["ip", "netns", "del", namespace], stderr=subprocess.DEVNULL)
