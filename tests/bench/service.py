#!/usr/bin/env python3
"""service.py [MARBLE] [--pairs N] [--steps N]: what the service of a run costs, in three figures. Nothing passes or fails here.
  rate      processor time of a run without a service over that of one with it and ten clients on its stream, interleaved, least of each;
            by_thread: what the service's thread leaves of the run's own, which other work on the machine changes less
  history   10,000 steps over GET /api/metrics: seconds until all has arrived, and the process's peak memory above that with one step
  status    GET /api/status, 200 requests a second for ten seconds: milliseconds, against that history and against a run at work"""
import argparse
import base64
import http.client
import json
import os
import pathlib
import resource
import select
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SETS = ("prompts.groups=4 prompts.group_size=4 rollout.steps=4 eval.prompts=4 eval.steps=2 eval.every=0 checkpoint.every=0 log.samples_every=0"
        " threads=1 log.tensorboard=off train.timestep_fraction=0.5").split()
HISTORY, RATE, SECONDS = 10000, 200, 10


def address_of(folder, process):
    while process.poll() is None:
        try:
            place = json.loads((folder / "service.json").read_text())["address"].split("//")[1].split(":")
            socket.create_connection((place[0], int(place[1])), 1).close()
            return place[0], int(place[1])
        except (OSError, ValueError):
            time.sleep(0.05)
    raise SystemExit(process.stderr.read().decode())


def stream(address):
    link = socket.create_connection(address)
    key = base64.b64encode(os.urandom(16)).decode()
    link.sendall(f"GET /api/stream?from=0 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                 "Sec-WebSocket-Version: 13\r\n\r\n".encode())
    return link


def processor_s(process, name=None):
    """Seconds of a process, or of its threads of that name."""
    sum = 0
    for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        try:
            head, _, fields = (task / "stat").read_text().rpartition(")")
        except OSError:
            continue
        if name is None or head.endswith("(" + name):
            sum += (int(fields.split()[11]) + int(fields.split()[12])) / os.sysconf("SC_CLK_TCK")
    return sum


def train(marble, scratch, steps, listen, clients):
    """Processor seconds of a run of so many steps, those of the service's thread, and bytes that the clients took."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=scratch))
    before, taken, own = resource.getrusage(resource.RUSAGE_CHILDREN), 0, 0
    process = subprocess.Popen([marble, "train", ROOT / "deploy/examples/quickstart.yaml", "--out", folder / "run", f"--set=train.steps={steps}",
                                f"--set=service.listen={listen}", *(f"--set={item}" for item in SETS)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    links = [stream(address_of(folder / "run", process)) for _ in range(clients)] if clients else []
    while links:
        for link in select.select(links, [], [])[0]:
            data = link.recv(1 << 16)
            taken += len(data)
            if not data:
                links.remove(link)
        own = max(own, processor_s(process, "marble-service"))
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(errors.decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, own, taken


def rate(marble, scratch, pairs, steps):
    off, on, owns, taken = [], [], [], 0
    for _ in range(pairs):
        off.append(train(marble, scratch, steps, "off", 0)[0])
        seconds, own, taken = train(marble, scratch, steps, "127.0.0.1:0", 10)
        on.append(seconds)
        owns.append(own)
    print(json.dumps({"bench": "service", "case": "rate", "steps": steps, "clients": 10, "bytes_streamed": taken, "cpu_s_off": [round(s, 2) for s in off],
                      "cpu_s_on": [round(s, 2) for s in on], "ratio": round(min(off) / min(on), 4), "cpu_s_service": [round(s, 2) for s in owns],
                      "ratio_by_thread": round(1 - max(o / s for o, s in zip(owns, on)), 4)}), flush=True)


def write_history(marble, scratch, folder, steps):
    """A run's folder whose lines are those of a real one, again and again."""
    if not (scratch / "seed").exists():
        subprocess.run([marble, "train", ROOT / "deploy/examples/quickstart.yaml", "--out", scratch / "seed", "--set=train.steps=2", "--set=service.listen=off",
                        *(f"--set={item}" for item in SETS)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder.mkdir()
    (folder / "run.yaml").write_text((scratch / "seed/run.yaml").read_text())
    for name in ("metrics.jsonl", "gram.jsonl"):
        line = json.loads((scratch / "seed" / name).read_text().splitlines()[0])
        with open(folder / name, "w") as out:
            for step in range(1, steps + 1):
                out.write(json.dumps({**line, "step": step}) + "\n")


class Dash:
    def __init__(self, marble, folder):
        self.process = subprocess.Popen([marble, "dash", folder], stdout=subprocess.PIPE, text=True)
        host = self.process.stdout.readline().strip().split("//")[1].rstrip("/").split(":")
        self.address = host[0], int(host[1])

    def peak(self):
        return int(next(line for line in open(f"/proc/{self.process.pid}/status") if line.startswith("VmHWM")).split()[1]) / 1024

    def get(self, path):
        link = http.client.HTTPConnection(*self.address)
        link.request("GET", path)
        data = link.getresponse().read()
        link.close()
        return data

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def history(marble, scratch):
    write_history(marble, scratch, scratch / "short", 1)
    write_history(marble, scratch, scratch / "long", HISTORY)
    with Dash(marble, scratch / "short") as dash:
        dash.get("/api/metrics")
        least = dash.peak()
    with Dash(marble, scratch / "long") as dash:
        times, used = [], processor_s(dash.process)
        for _ in range(3):
            start = time.perf_counter()
            data = dash.get("/api/metrics")
            times.append(time.perf_counter() - start)
        assert len(json.loads(data)["lines"]) == HISTORY
        dash.get("/api/gram")
        print(json.dumps({"bench": "service", "case": "history", "steps": HISTORY, "bytes": len(data), "s": [round(t, 3) for t in times],
                          "cpu_s": round((processor_s(dash.process) - used) / 3, 3), "more_mib": round(dash.peak() - least, 1)}), flush=True)
        status(dash.address, "history", dash.process)
    start = time.perf_counter()
    with Dash(marble, scratch / "long") as dash: # started, indexed and sent
        dash.get("/api/metrics")
        print(json.dumps({"bench": "service", "case": "history from the start of the process", "s": round(time.perf_counter() - start, 3)}), flush=True)


def status(address, case, process, thread=None):
    """At fixed times, whether the answer before came or not: late starts count."""
    link, times = http.client.HTTPConnection(*address), []
    begin, used = time.perf_counter(), processor_s(process, thread)
    for i in range(RATE * SECONDS):
        due = begin + i / RATE
        while (now := time.perf_counter()) < due:
            time.sleep(due - now)
        link.request("GET", "/api/status")
        link.getresponse().read()
        times.append(1e3 * (time.perf_counter() - due))
    times.sort()
    print(json.dumps({"bench": "service", "case": f"status, {case}", "requests_per_s": RATE, "cpu_ms": round(1e3 * (processor_s(process, thread) - used) / len(times), 3), "ms": {"p50": round(times[len(times) // 2], 2),
                      "p99": round(times[len(times) * 99 // 100], 2), "max": round(times[-1], 2)}}), flush=True)


def status_live(marble, scratch):
    folder = scratch / "live"
    process = subprocess.Popen([marble, "train", ROOT / "deploy/examples/quickstart.yaml", "--out", folder, "--set=train.steps=100000",
                                "--set=service.listen=127.0.0.1:0", *(f"--set={item}" for item in SETS)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        status(address_of(folder, process), "a run at work on one thread", process, "marble-service")
    finally:
        process.terminate()
        process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("marble", nargs="?", default=ROOT / "build/marble")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        history(options.marble, scratch)
        status_live(options.marble, scratch)
        rate(options.marble, scratch, options.pairs, options.steps)


main()
