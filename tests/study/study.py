#!/usr/bin/env python3
"""The study: runs arms x seeds of the quickstart's world, resumable, and makes the page from what has finished.

    tests/study/study.py --jobs 4 --threads 1           everything that is not finished yet, longest first
    tests/study/study.py --only marble,equal --seeds 1  some arms, some seeds
    tests/study/study.py --seconds 540 --pack OUT.tar   stops in time, resumable; all figures in one archive
    tests/study/study.py --report                       tables, plots and README.md from what has finished

Needs numpy, and matplotlib for --report. Exit codes: 0 done, 1 a run failed, 2 bad usage, 75 stopped or out of time.
"""
import argparse
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)

import arms  # noqa: E402
import runs  # noqa: E402


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="core", metavar="ARM,...",
                        help=f"arms; core, extra, rho, share, all stand for several: {', '.join(arms.ARMS)} (core)")
    parser.add_argument("--seeds", default="42,1,2", metavar="N,...", help="(42,1,2)")
    parser.add_argument("--steps", type=int, default=80, help="optimizer steps of a run (80)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run, as of marble train")
    parser.add_argument("--out", default=os.path.join(ROOT, "runs", "study"), metavar="DIR", help="folder of the runs (runs/study)")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="runs at once (1)")
    parser.add_argument("--threads", type=int, default=1, metavar="T", help="threads of a run (1)")
    parser.add_argument("--seconds", type=float, default=0, metavar="S",
                        help="starts no run that would not finish in time and stops what still runs, with a checkpoint (0: no limit)")
    parser.add_argument("--split", action="store_true", help="with --seconds: starts runs that a later call will finish, too")
    parser.add_argument("--pace", type=float, default=6, metavar="S", help="seconds of a step, until one was measured (6)")
    parser.add_argument("--every", type=float, default=15, metavar="S", help="seconds between progress lines (15)")
    parser.add_argument("--pack", metavar="FILE", help="afterwards: one tar.xz of all figures, and of checkpoints of unfinished runs")
    parser.add_argument("--pack-limit", type=int, default=15 << 20, metavar="BYTES", help="of that archive (15 MiB)")
    parser.add_argument("--marble", default=os.path.join(ROOT, "build", "marble"), metavar="FILE", help="the program (build/marble)")
    parser.add_argument("--config", default=os.path.join(ROOT, "deploy", "examples", "quickstart.yaml"), metavar="RUN.yaml")
    parser.add_argument("--report", action="store_true", help="no runs: the page from what has finished")
    parser.add_argument("--from", dest="data", metavar="FILE", help="with --report: from runs.jsonl of an earlier report")
    parser.add_argument("--page", default=HERE, metavar="DIR", help="where README.md and results/ go (this folder)")
    return parser.parse_args()


def report(options):
    try:
        import lag_plots
        import page
        import plots
        import results
    except ModuleNotFoundError as missing:
        print(f"study: --report needs {missing.name}: pip install numpy matplotlib", file=sys.stderr)
        return 1
    done = results.read_data(options.data) if options.data else results.read_all(options.out)
    if not done:
        print(f"study: {options.data or options.out} holds no finished run", file=sys.stderr)
        return 1
    folder = os.path.join(options.page, "results")
    os.makedirs(folder, exist_ok=True)
    results.write_data(done, os.path.join(folder, "runs.jsonl"))
    results.write_tables(done, folder)
    made = plots.all_plots(done, folder) + lag_plots.all_plots(folder)
    page.write(done, made, os.path.join(HERE, "page.md"), os.path.join(options.page, "README.md"))
    print(f"{len(done)} runs: {options.page}/README.md, results/{{runs.jsonl,runs.csv,arms.json,{','.join(made)}}}")
    return 0


def work(options):
    more = dict(text.split("=", 1) for text in options.set)
    chosen = [runs.Run(arm, seed, arms.settings_of(arm, seed, options.steps, more), options.steps, options.out)
              for arm in arms.select(options.only.split(",")) for seed in map(int, options.seeds.split(","))]
    os.makedirs(options.out, exist_ok=True)
    schedule = runs.Schedule(chosen, options)
    done = schedule.work()
    if options.pack:
        runs.pack(options.out, options.pack, options.pack_limit)
    return 0 if done else 1 if schedule.failed else 75


def main():
    options = parse()
    try:
        return report(options) if options.report else work(options)
    except ValueError as wrong:
        print(f"study: {wrong}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
