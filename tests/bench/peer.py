#!/usr/bin/env python3
"""The training step of marble beside another program's on this machine, in turn, and the ratios.

    tests/bench/peer.py build/marble PEER.py --threads 2 --rounds 5

PEER.py is a script that takes --shape signs --batch N --dtype f32|bf16 --threads N --runs N and prints a line of JSON with
forward_ms and step_ms, each [median, min, max]; step_ms is forward passes of the old, the current and no adapter, the NFT loss
with KL and one backward pass. --python chooses the Python that runs it (one with torch). With --cpu-time both count processor
seconds, which is fair for one thread on a machine that others use. Not part of the tests: needs torch, and times never pass or fail.
"""
import argparse
import json
import statistics
import subprocess
import sys

# The peer's clock becomes the processor's without a change to the peer.
CPU_TIME = "import runpy, sys, time; time.perf_counter = time.process_time; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
CASES = {"step": ("step_ms", "nft_step"), "forward": ("forward_ms", "forward")}


def lines_of(command, wanted=None):
    """JSON lines of a command; with `wanted` it is ended after that many."""
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as run:
        lines = []
        for line in run.stdout:
            if line.startswith("{"):
                lines.append(json.loads(line))
            if wanted and len(lines) == wanted:
                run.terminate()
                return lines
        if run.wait() != 0:
            sys.exit(f"{command[0]}: exit code {run.returncode}")
        return lines


def peer_times(args, dtype):
    command = [args.python] + (["-c", CPU_TIME] if args.cpu_time else []) + [args.peer]
    command += ["--shape", "signs", "--batch", args.batch, "--dtype", dtype, "--threads", args.threads, "--runs", args.runs]
    line = lines_of(command + ["--rewards", "1"])[-1]
    return {case: line[key][0] for case, (key, _) in CASES.items()}, line.get("torch", "?")


def marble_times(args):
    """Both types' step and forward: the first four lines."""
    command = [args.marble, "bench", "step", "--json", "--threads", args.threads, "--samples", args.batch, "--runs", args.runs]
    lines = lines_of(command + (["--cpu-time"] if args.cpu_time else []), wanted=4)
    return {line["dtype"] + " " + line["case"]: line["ms"][0] for line in lines}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("marble")
    parser.add_argument("peer")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--batch", default="96")
    parser.add_argument("--runs", default="3", help="timed runs of every program in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true")
    args = parser.parse_args()
    dtypes = ("f32", "bf16")
    rows = {(dtype, case): [] for dtype in dtypes for case in CASES}
    torch = "?"
    for _ in range(args.rounds):
        mine = marble_times(args)
        for dtype in dtypes:
            theirs, torch = peer_times(args, dtype)
            for case, (_, name) in CASES.items():
                rows[dtype, case].append((theirs[case], mine[f"{dtype} {name}"]))
    print(f"batch {args.batch}, {args.threads} threads, torch {torch}, {args.rounds} rounds, medians of "
          f"{'processor' if args.cpu_time else 'wall'} milliseconds")
    print(f"{'':14}{'peer':>10}{'marble':>10}{'ratio':>8}  (lowest .. highest)")
    for (dtype, case), pairs in rows.items():
        ratios = sorted(theirs / mine for theirs, mine in pairs)
        theirs, mine = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
        print(f"{dtype + ' ' + case:14}{theirs:10.1f}{mine:10.1f}{statistics.median(ratios):8.2f}  ({ratios[0]:.2f} .. {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
