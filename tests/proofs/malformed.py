#!/usr/bin/env python3
"""malformed.py MARBLE [--requests N] [--steps N]: a run that is asked N malformed requests (10,000) while it trains writes the same metrics to
the bit, times aside, and the same checkpoint as one without a service; processor time of both, that of the service's thread apart. Requests
are good ones with bytes changed, left out, put in or cut, by a fixed seed; some are left open. Nothing that they ask for may happen."""
import argparse
import hashlib
import json
import os
import pathlib
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SETS = ("prompts.groups=2 prompts.group_size=4 rollout.steps=2 eval.prompts=4 eval.steps=2 eval.every=0 checkpoint.every=0 log.samples_every=0"
        " threads=1 train.timestep_fraction=0.5").split()
TIMES = {"time", "seconds", "ranks", "samples_per_s", "run", "gram_share", "traffic"}


def good(token):
    """Requests that a run takes, the token among them: with a byte changed they must change nothing."""
    wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
    yield b"GET /api/metrics?from=1&to=3&points=2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    yield (f"POST /api/control HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {wrong}\r\nContent-Type: application/json\r\n"
           "Content-Length: 46\r\n\r\n{\"stop\": true, \"set\": {\"train.lr\": 1000000000}}").encode()
    yield (f"POST /api/control HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
           "Content-Length: 30\r\n\r\n{\"set\": {\"train.steps\": 900000}").encode()  # a key that no run takes, and cut
    yield (b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
           b"Sec-WebSocket-Version: 13\r\n\r\n\x81\x85????hello")
    yield b"GET /api/samples/../../metrics.jsonl HTTP/1.0\r\nHost: [::1]\r\nRange: bytes=0-1\r\n\r\n"
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"


def spoil(rng, request):
    data = bytearray(request)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1 and len(data) > 8:
            del data[at]
        elif kind == 2:
            data.insert(at, rng.randrange(256))
        elif at > 8:
            del data[at:]
    return bytes(data)


def start(marble, folder, steps, listen):
    return subprocess.Popen([marble, "train", ROOT / "deploy/examples/quickstart.yaml", "--out", folder, f"--set=train.steps={steps}", f"--set=service.listen={listen}",
                             *(f"--set={item}" for item in SETS)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process):
    errors = process.communicate()[1]
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}: {errors}")


def service_s(process):
    for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        head, _, fields = (task / "stat").read_text().rpartition(")")
        if head.endswith("(marble-service"):
            return (int(fields.split()[11]) + int(fields.split()[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def lines(folder):
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in (folder / "metrics.jsonl").read_text().splitlines()]


def adapter(marble, folder):
    """What was trained, without what says when."""
    out = folder / "lora.safetensors"
    subprocess.run([marble, "export", folder / "checkpoints/latest.h5", "--lora", out], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return hashlib.sha256(out.read_bytes()).hexdigest()


def steps_done(folder):
    try:
        return (folder / "metrics.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0


def attack(process, folder, count, steps):
    """Sends `count` requests, spread over the steps but the last; how many answers there were by code, and the service's processor time."""
    rng, open_links, codes, done = random.Random(7), [], {}, 0
    while steps_done(folder) < 1 and process.poll() is None:
        time.sleep(0.02)
    place = json.loads((folder / "service.json").read_text())
    bases = list(good(place["token"]))
    for i in range(count):
        while done < 1 + i * (steps - 2) // count and process.poll() is None:
            time.sleep(0.005)
            done = steps_done(folder)
        if process.poll() is not None:
            raise SystemExit(f"the run ended after {i} requests; expected more --steps")
        link = socket.create_connection(("127.0.0.1", place["port"]), 10)
        try:
            link.sendall(spoil(rng, bases[i % len(bases)]))
            if i % 4 == 0:
                link.shutdown(socket.SHUT_WR)
                link.settimeout(0.2)
                code = link.recv(64)[9:12].decode("latin-1") or "closed"
                codes[code] = codes.get(code, 0) + 1
        except OSError:
            pass
        if i % 50 == 0:
            open_links = [*open_links[-30:], link]
        else:
            link.close()
    return codes, service_s(process)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("marble")
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="marble-malformed-"))
    try:
        used = [resource.getrusage(resource.RUSAGE_CHILDREN)]
        finish(start(given.marble, scratch / "calm", given.steps, "off"))
        used.append(resource.getrusage(resource.RUSAGE_CHILDREN))
        process = start(given.marble, scratch / "asked", given.steps, "127.0.0.1:0")
        codes, own = attack(process, scratch / "asked", given.requests, given.steps)
        finish(process)
        used.append(resource.getrusage(resource.RUSAGE_CHILDREN))
        calm, asked = lines(scratch / "calm"), lines(scratch / "asked")
        assert len(calm) == given.steps and len(asked) == given.steps, (len(calm), len(asked))
        for one, other in zip(calm, asked):
            assert one == other, f"step {one['step']}: {one} and {other}"
        assert adapter(given.marble, scratch / "calm") == adapter(given.marble, scratch / "asked"), "the adapters differ"
        cpu = [b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(used, used[1:])]
        print(json.dumps({"requests": given.requests, "steps": given.steps, "answers": codes, "cpu_s_without": round(cpu[0], 2),
                          "cpu_s_with": round(cpu[1], 2), "cpu_s_service": round(own, 2), "rate": round(cpu[0] / (cpu[1] - own), 4)}))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
