#!/usr/bin/env python3
"""page_history.py MARBLE [STEPS]: how long the page takes for a run of many steps (10,000 unless given): from opening it until it shows
the run, and until it has every step; the processor time of the page's thread and of the server, and the server's memory. Needs
Chromium. Prints one line of JSON for each of five openings; the first one finds no cache warm."""
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import browser  # noqa: E402

marble, steps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10000
NAMES = ["ocr", "count", "color", "clean", "jpeg"]
folder = pathlib.Path(tempfile.mkdtemp(prefix="marble-history-")) / "run"
folder.mkdir()


def by(digits=9):
    return {name: round(random.random(), digits) for name in NAMES}


with open(folder / "metrics.jsonl", "w") as file:
    for step in range(1, steps + 1):
        line = {"step": step, "epoch": step, **{key: round(random.random(), 9) for key in ("loss", "kl", "lr", "grad_norm", "old_lag", "samples_per_s", "cos_min", "cos_part_min", "cos_mean", "cos_var",
                                                                                       "gram_share", "x0_norm")}}
        for key in ("reward", "advantage_std", "alpha", "alpha_ema", "alpha_raw", "grad_norm_by", "cos", "cos_part", "cos_step"):
            line[key] = by()
        for key in ("valid", "na", "failed", "flat_groups"):
            line[key] = {name: random.randrange(480) for name in NAMES}
        line["alarms"] = {f"alarm_{i}": 0 for i in range(12)}
        line["seconds"] = {key: round(random.random(), 9) for key in ("rollout", "reward_wait", "train", "gram", "qp", "comm", "checkpoint", "total")}
        line.update(time="2026-05-08T09:30:00Z", bytes_comm=9661240, run="3a78b7c709194b32")
        file.write(json.dumps(line) + "\n")
with open(folder / "gram.jsonl", "w") as file:
    for step in range(1, steps + 1):
        file.write(json.dumps({"step": step, "rewards": NAMES, "norm": [1.0] * 5, "cos": [[round(random.random(), 9) for _ in NAMES] for _ in NAMES]}) + "\n")


def processor(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


server = subprocess.Popen([marble, "dash", folder], stdout=subprocess.PIPE, text=True)
page = None
try:
    address = server.stdout.readline().strip()
    page = browser.Browser(1440, 1000)
    page.call("Performance.enable", timeDomain="threadTicks")

    def thread():
        return {metric["name"]: metric["value"] for metric in page.call("Performance.getMetrics")["metrics"]}

    for _ in range(5):
        before, start = processor(server.pid), time.monotonic()
        page.open(address)
        page.until("Number(document.documentElement.dataset.steps) > 0")
        shown, shown_time = time.monotonic() - start, thread()["TaskDuration"]
        page.until(f"Number(document.documentElement.dataset.steps) === {steps}", 120)
        whole, at_end = time.monotonic() - start, thread()
        memory = next(line.split()[1] for line in pathlib.Path(f"/proc/{server.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(json.dumps({"steps": steps, "megabytes": round((folder / "metrics.jsonl").stat().st_size / 1e6, 1), "shown_s": round(shown, 2), "whole_s": round(whole, 2),
                          "page_shown_cpu_s": round(shown_time, 2), "page_whole_cpu_s": round(at_end["TaskDuration"], 2), "server_cpu_s": round(processor(server.pid) - before, 2),
                          "server_peak_mib": round(int(memory) / 1024, 1)}), flush=True)
    server.send_signal(signal.SIGINT)
    server.wait(20)
finally:
    if page:
        page.close()
    server.kill()
    server.wait()
    shutil.rmtree(folder.parent, ignore_errors=True)
