#!/usr/bin/env python3
"""Every marble bench prints one JSON object per case with times that make sense, and an unknown name is refused."""
import json
import os
import subprocess
import sys

marble = sys.argv[1]


def lines_of(name, *arguments, isa=""):
    run = subprocess.run([marble, "bench", name, "--json", "--threads", "1", *arguments], text=True, capture_output=True,
                         env=os.environ | {"MARBLE_CPU_ISA": isa})
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    for line in lines:
        median, low, high = line["ms"]
        assert line["bench"] == name and low <= median <= high, line
        assert name == "gradients" or low > 0, line  # there a difference of two times
    return lines


lines = lines_of("matmul", "--runs", "3")
assert len(lines) >= 20, lines
for line in lines:
    m, k, n = map(int, line["case"].split()[1].split("x"))
    assert abs(line["gflops"] * line["ms"][0] * 1e6 / (2 * m * k * n) - 1) < 1e-4, line
    assert line["percent_of_copy"] > 0, line
    if "peak_gflops" in line:  # not known in bf16 with AMX, and on devices
        assert abs(line["percent_of_peak"] * line["peak_gflops"] / line["gflops"] / 100 - 1) < 1e-4, line
assert {line["case"].split()[0] for line in lines} == {"f32", "bf16"}
for isa in ("portable", "avx2"):  # where this processor has it: more than a processor of 1 GHz, less than two peaks
    run = subprocess.run([marble, "doctor"], text=True, capture_output=True, env=os.environ | {"MARBLE_CPU_ISA": isa})
    if f"{isa}; products: own" in run.stdout:
        lines = lines_of("matmul", "--runs", "1", isa=isa)
        assert all(line["peak_gflops"] > 1 and 0 < line["percent_of_peak"] < 200 for line in lines), lines

lines = lines_of("loops", "--runs", "1", "--samples", "3")
cases = [line["case"].split() for line in lines]
assert {case[1] for case in cases} == {"f32", "bf16"} and len(cases) == len({line["case"] for line in lines}), cases
assert {"sample_grad", "qk_norm", "qk_norm_bwd", "gate_norm", "layer_norm", "layer_norm_bwd"} <= {case[0] for case in cases}
for line in lines:
    assert line["gb_per_s"] > 0 and line["gflops"] > 0 and line["percent_of_copy"] > 0, line

tiny = ["--runs", "1", "--samples", "2"]
lines = lines_of("gradients", *tiny)
assert {(l["case"], l["k"], l["dtype"]) for l in lines} == {
    (case, k, dtype) for cases, sizes in ((("two_seed", "separate"), (1, 5, 10, 20)), (("two_seed masks=2", "two_seed masks=5"), (5,)))
    for case in cases for k in sizes for dtype in ("f32", "bf16")}, lines
for line in lines:
    assert line["relative_with_forward"] > 0 and line["ms_with_forward"] > line["ms"][0], line
    assert line["case"].startswith("two_seed") or line["relative_to_separate"] == 1, line

lines = lines_of("step", "--profile", *tiny)
methods = {"marble", "equal", "weighted_sum", "weighted_sum diagnostics", "marble cached", "marble refresh_every=10",
           "marble gram_fraction=0.1", "marble kl_fraction=0.25", "marble kl=common",
           "marble common=together"}
for dtype in ("f32", "bf16"):
    cases = {l["case"]: l for l in lines if l["dtype"] == dtype}
    assert methods | {"nft_step", "forward", "rollout", "nft_step: matmul"} <= set(cases), cases
    for method in methods:
        assert 0.1 < cases[method]["relative_to_weighted_sum"] < 10, cases[method]
        assert 0.1 < cases[method]["relative_with_rollout"] < 10, cases[method]
    assert cases["weighted_sum"]["relative_to_weighted_sum"] == 1, cases["weighted_sum"]
    assert abs(sum(l["percent"] for c, l in cases.items() if c.startswith("nft_step: ")) - 100) < 0.1, cases
    assert all(cases[c]["waits"] == 0 for c in methods - {"marble refresh_every=10"} | {"nft_step"}), cases  # no device here

lines = lines_of("gram", *tiny)
shares = {l["k"]: l["percent_of_step"] for l in lines if l["case"] == "signs"}
assert set(shares) == {5, 20} and all(0 < share < 100 for share in shares.values()), lines

for graphs in ("on", "off"):
    lines = {l["case"]: l for l in lines_of("pass", "--runs", "2", "--tokens", "12", "--profile", "--graphs", graphs)}
    for case in ("velocity", "micro_batch"):
        line, profile = lines[case], [l for c, l in lines.items() if c.startswith(case + ": ")]
        assert line["graphs"] == graphs and line["image_tokens"] == 64 and line["tokens"] == 12 and line["batch"] == 1, line
        assert 0 < line["ms_asking"] and line["launches"] > len(profile) > 10, line
        assert abs(sum(l["percent"] for l in profile) - 100) < 0.1, profile
        # Clears and copies are no operations; what is counted beside the operations is little.
        assert 0.9 < sum(l["gb"] for l in profile) / line["gb"] <= 1.0001, (line, profile)
        assert abs(sum(l["gflop"] for l in profile) / line["gflop"] - 1) < 1e-4, (line, profile)
        if "limit_ms" in line:
            assert 0 < line["limit_ms"] < line["ms"][0] and line["percent_of_limit"] < 100, line
    assert lines["micro_batch"]["gflop"] > 3 * lines["velocity"]["gflop"], lines  # three passes forward, two backward

lines = {l["case"]: l for l in lines_of("codecs", "--runs", "1")}
assert set(lines) == {f"{codec} request" for codec in ("oip binary", "oip JSON", "unirl", "chat")} | {"oip binary response", "oip JSON response"}
images = lines["oip binary request"]
assert 0 < images["bytes_copied"] == images["bytes"] - 64 * 512 * 512 * 3 < 1e4, images  # pixels are sent from where they lie

lines = {l["case"]: l for l in lines_of("requests", "--runs", "3")}
assert set(lines) == {f"{kind} {n}" for kind in ("tcp", "unix") for n in ("64 images, 1 in flight", "64 images, 4 in flight",
                                                                          "1 image, 1 in flight")}, lines
for case, line in lines.items():
    size = int(case.split()[1]) * 512 * 512 * 3 * int(case.split(", ")[1][0])
    assert size < line["bytes"] < 1.001 * size and abs(line["gb_per_s"] * line["ms"][0] * 1e6 / line["bytes"] - 1) < 1e-4, line
    assert ("added_ms" in line) == case.endswith("1 in flight"), line

run = subprocess.run([marble, "bench", "matmull"], text=True, capture_output=True)
assert run.returncode == 2 and "there are: matmul" in run.stderr, (run.returncode, run.stderr)
