#!/usr/bin/env python3
"""Where the drawing policy lags: marble's variants with an old_decay that reaches h = .5 or .95 within 40 steps; and long runs.

    tests/study/lag.py --jobs 2                      arms x seeds x lags, 120 steps each; resumable, by the same command
    tests/study/lag.py --before OLD/build/marble     also the arm "before": another version's definitions, by its program
    tests/study/lag.py --long                        the arms of LONG below: 600 steps of the released decay, one seed
    tests/study/lag.py --collect                     results/lag.json and its tables from what has finished; study.py --report draws them

Figures are of the steps from the 40th on, where h is what it is called. Exit codes: 0 done, 1 a run failed, 75 stopped.
"""
import argparse
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)

import lag_results  # noqa: E402
from arms import COMMON, HALVES, Arm  # noqa: E402
from lag_results import SETTLED  # noqa: E402
from runs import Run, Schedule  # noqa: E402

ARMS = {
    "together": {"balance.method": "marble", "balance.common": "together", **HALVES},
    "kl_common": {"balance.method": "marble", "balance.common": "together", "balance.kl": "common"},
    "apart": {"balance.method": "marble", "balance.common": "apart"},
    "offset": {"balance.method": "marble", "balance.common": "offset"},
    "guard": {"balance.method": "marble", "balance.common": "together", "balance.guard": "own_parts"},
    "shrink_equal": {"balance.method": "marble", "balance.common": "together", "balance.shrink": "equal"},
    "shrink_average": {"balance.method": "marble", "balance.common": "together", "balance.shrink": "average"},
    "equal": {"balance.method": "equal"},
    "weighted_sum": {"balance.method": "weighted_sum"},
    "before": {"balance.method": "marble"},
}

LONG = {name: ARMS[name] for name in ("offset", "weighted_sum", "equal")}
LONG["offset_slow"] = {**ARMS["offset"], "train.lr": "0.0001"}  # a fifth of quickstart.yaml's
LONG["offset_kl"] = {**ARMS["offset"], "train.kl": "0.1"}  # ten times its
RELEASED = {"train.old_decay.flat": "0", "train.old_decay.rate": "0.001", "train.old_decay.hold": "0.95"}


class ByProgram(Run):
    """A run by another program than the study's."""

    def __init__(self, program, *rest):
        super().__init__(*rest)
        self.program = program

    def start(self, marble, config, threads):
        super().start(self.program, config, threads)


def lag_of(h):
    return {"train.old_decay.flat": "0", "train.old_decay.rate": str(h / SETTLED), "train.old_decay.hold": str(h)}


def runs_of(options):
    more = dict(text.split("=", 1) for text in options.set)
    if options.long:
        names = options.only.split(",") if options.only else LONG
        return [Run(Arm(f"long_{name}", name, {}), 42,
                    {"seed": "42", "train.steps": "600", **COMMON, "log.advantages_every": "0", **RELEASED, **LONG[name], **more}, 600, options.out)
                for name in names]
    found = []
    for name in options.only.split(",") if options.only else ARMS:
        for h in map(float, options.lags.split(",")):
            for seed in map(int, options.seeds.split(",")):
                settings = {"seed": str(seed), "train.steps": str(options.steps), **COMMON, "log.advantages_every": "0",
                            **lag_of(h), **ARMS[name], **more}
                one = (Arm(f"h{h:g}_{name}", name, {}), seed, settings, options.steps, options.out)
                if name != "before":
                    found.append(Run(*one))
                elif options.before:
                    found.append(ByProgram(options.before, *one))
    return found


def collect(options):
    found = lag_results.read_all(options.out)
    if not found:
        print(f"lag: {options.out} holds no finished run", file=sys.stderr)
        return 1
    os.makedirs(options.results, exist_ok=True)
    with open(os.path.join(options.results, lag_results.FILE), "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(one, separators=(",", ":")) for one in found) + "\n]\n")
    for text in (lag_results.directions(found), lag_results.changes(found)):
        print(text)
    return 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="ARM,...", help=f"of {', '.join(ARMS)}; with --long of {', '.join(LONG)} (all)")
    parser.add_argument("--seeds", default="42,1,2", metavar="N,...")
    parser.add_argument("--lags", default="0.5,0.95", metavar="H,...", help="the largest h (0.5,0.95)")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--before", metavar="FILE", help="marble of an earlier version")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--collect", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", default=os.path.join(ROOT, "runs", "lag"), metavar="DIR")
    parser.add_argument("--results", default=os.path.join(HERE, "results"), metavar="DIR", help="of --collect")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0, metavar="S", help="stops in time, with checkpoints (0: no limit)")
    parser.add_argument("--split", action="store_true", help="with --seconds: starts runs that a later call will finish")
    parser.add_argument("--pace", type=float, default=6, metavar="S", help="seconds of a step, until one was measured")
    parser.add_argument("--every", type=float, default=15, metavar="S", help="seconds between progress lines")
    parser.add_argument("--marble", default=os.path.join(ROOT, "build", "marble"), metavar="FILE")
    parser.add_argument("--config", default=os.path.join(ROOT, "deploy", "examples", "quickstart.yaml"), metavar="RUN.yaml")
    options = parser.parse_args()
    arms = LONG if options.long else ARMS
    wrong = [name for name in (options.only or "").split(",") if name and name not in arms]
    if wrong:
        parser.error(f"--only {wrong[0]}: no such arm; expected some of {', '.join(arms)}")
    return options


def main():
    options = parse()
    if options.collect:
        return collect(options)
    os.makedirs(options.out, exist_ok=True)
    schedule = Schedule(runs_of(options), options)
    done = schedule.work()
    return 0 if done else 1 if schedule.failed else 75


if __name__ == "__main__":
    sys.exit(main())
