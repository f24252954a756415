#!/usr/bin/env python3
"""marble bench prints one JSON object per case with times that make sense, and refuses an unknown name."""
import json
import subprocess
import sys

marble = sys.argv[1]
run = subprocess.run([marble, "bench", "matmul", "--json", "--runs", "3", "--threads", "1"], text=True,
                     capture_output=True)
assert run.returncode == 0, run.stderr
lines = [json.loads(line) for line in run.stdout.splitlines()]
assert len(lines) >= 20, lines
for line in lines:
    median, low, high = line["ms"]
    assert line["bench"] == "matmul" and 0 < low <= median <= high, line
    m, k, n = map(int, line["case"].split()[1].split("x"))
    assert abs(line["gflops"] * median * 1e6 / (2 * m * k * n) - 1) < 1e-4, line
assert {line["case"].split()[0] for line in lines} == {"f32", "bf16"}
run = subprocess.run([marble, "bench", "matmull"], text=True, capture_output=True)
assert run.returncode == 2 and "there are: matmul" in run.stderr, (run.returncode, run.stderr)
