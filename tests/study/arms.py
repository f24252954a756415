"""The arms of the study: what each changes in deploy/examples/quickstart.yaml, and what it is called in tables and plots."""

REWARDS = ["ocr", "count", "color", "clean", "jpeg"]
ROUNDING = 1e-6  # a cosine above minus this counts as not against

# What every run shares: the quickstart's sizes, cosines at every step, no sheets of samples, and no checkpoint but the one a
# stop leaves.
COMMON = {
    "prompts.groups": "40",
    "prompts.group_size": "12",
    "balance.diagnostics_every": "1",
    "eval.every": "20",
    "checkpoint.every": "0",
    "checkpoint.keep": "1",
    "log.samples_every": "0",
    "log.advantages_every": "20",
}


class Arm:
    """`settings` go to marble as --set; `steps` in them stands for the length of the run. `gone`: its runs stay on the page, but this
    version cannot make them."""

    def __init__(self, name, label, settings, core=True, gone=False):
        self.name, self.label, self.settings, self.core, self.gone = name, label, settings, core, gone


def _stages(steps):
    """The sequential baseline: one reward after another, each with the generalists beside it, as long as the others train."""
    part = steps // 3
    return (f"[{{rewards: [ocr, clean, jpeg], steps: {part}}}, {{rewards: [count, clean, jpeg], steps: {part}}}, "
            f"{{rewards: [color, clean, jpeg], steps: {steps - 2 * part}}}]")


# As the paper has it; the default is offset since.
MARBLE = {"balance.method": "marble", "balance.common": "together"}
# What two halves of a solve's rows say: how far alpha is noise.
HALVES = {"balance.alpha_halves": "1"}

_ALL = [
    Arm("weighted_sum", "weighted sum", {"balance.method": "weighted_sum"}),
    Arm("equal", "equal", {"balance.method": "equal"}),
    Arm("gdpo", "gdpo", {"balance.method": "gdpo"}),
    Arm("marble", "marble", {**MARBLE, **HALVES}),
    Arm("offset", "marble, offset", {"balance.method": "marble", "balance.common": "offset"}),
    Arm("every_10", "marble, N = 10", {**MARBLE, "balance.refresh_every": "10"}),
    Arm("tenth", "marble, f = 0.1", {**MARBLE, "balance.gram_fraction": "0.1", **HALVES}),
    Arm("reference", "marble_reference", {"balance.method": "marble_reference"}),
    Arm("stages", "stages", {"balance.common": "together", "stages": _stages}),
    Arm("apart", "marble, apart", {"balance.method": "marble", "balance.common": "apart"}, core=False),
    Arm("adam", "marble, metric adam", {"balance.method": "marble", "balance.metric": "adam"}, core=False, gone=True),
    Arm("constraint", "marble, ocr >= 0.5", {**MARBLE, "rewards.0.min": "0.5"}, core=False),
] + [
    Arm(f"rho_{rho}", f"N = 10, rho {rho}", {**MARBLE, "balance.refresh_every": "10", "balance.rho": str(rho)},
        core=False) for rho in (0.1, 0.3, 0.5, 0.9)
] + [
    Arm(f"share_{share}", f"marble, f = {share}", {**MARBLE, "balance.gram_fraction": str(share), **HALVES},
        core=False) for share in (0.05, 0.25, 0.5)
]
ARMS = {arm.name: arm for arm in _ALL}
RHO = {0.1: "rho_0.1", 0.3: "rho_0.3", 0.5: "rho_0.5", 0.7: "every_10", 0.9: "rho_0.9"}
SHARE = {0.05: "share_0.05", 0.1: "tenth", 0.25: "share_0.25", 0.5: "share_0.5", 1.0: "marble"}
PLAIN = [name for name in ARMS if not name.startswith(("rho_", "share_"))]  # the arms but those of the two ablations


def select(words):
    """Arms by name; "core", "extra", "rho", "share" and "all" stand for several."""
    chosen, here = [], [a for a in _ALL if not a.gone]
    for word in words:
        several = {"core": [a for a in here if a.core], "extra": [a for a in here if not a.core], "all": here,
                   "rho": [ARMS[name] for name in RHO.values()], "share": [ARMS[name] for name in SHARE.values()]}
        if word not in several and word not in ARMS:
            raise ValueError(f"--only {word}: no such arm; there are {', '.join([*several, *ARMS])}")
        if word in ARMS and ARMS[word].gone:
            raise ValueError(f"--only {word}: this version does not have it any more; its runs are in results/runs.jsonl")
        chosen += [arm for arm in several.get(word, [ARMS.get(word)]) if arm not in chosen]
    return chosen


def settings_of(arm, seed, steps, more):
    """Every --set of a run, in order; `more` (from the command line) comes last."""
    values = {"seed": str(seed), "train.steps": str(steps), **COMMON, **arm.settings, **more}
    return {key: value(steps) if callable(value) else value for key, value in values.items()}
