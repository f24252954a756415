"""What lag.py's runs show: one row of figures per run, their means over seeds, two tables for the page."""
import json
import os
import statistics

from arms import REWARDS, ROUNDING
from markdown import table
from runs import json_lines, note_of, of_rewards

FILE = "lag.json"
SETTLED = 40  # steps after which h is at its largest; figures are of the later ones
LABELS = {"together": "together", "before": "together, as before", "apart": "apart", "offset": "offset", "guard": "together, guarded",
          "shrink_average": "shrunk to the average", "shrink_equal": "shrunk to equal", "kl_common": "KL common", "equal": "equal",
          "weighted_sum": "weighted sum", "marble": "marble", "offset_slow": "offset, a fifth of the learning rate",
          "offset_kl": "offset, ten times the KL weight"}


def _least(lines, key):
    """The least of every step's numbers by reward; None for steps that have none."""
    rows = [[v for v in line.get(key, {}).values() if v is not None] for line in lines]
    return [min(row) if row else None for row in rows]


def _known(values):
    return [value for value in values if value is not None]


def _mean(values):
    values = _known(values)
    return statistics.fmean(values) if values else None


def _below(values):
    values = _known(values)
    return sum(v < -ROUNDING for v in values) / len(values) if values else None


def _rounded(values, digits=3):
    return [None if value is None else round(value, digits) for value in values]


def _wobble(lines):
    """How much the alpha of a step, as applied, differs from step to step: its standard deviation over the steps, mean over the rewards."""
    columns = [_known([(line.get("alpha") or {}).get(name) for line in lines]) for name in REWARDS]
    return _mean([statistics.stdev(column) for column in columns if len(column) > 1])


def figures(path):
    """A finished run's row; None of another folder."""
    note = note_of(path)
    if not note or not note["finished"]:
        return None
    lines = json_lines(os.path.join(path, "metrics.jsonl"))
    late = [line for line in lines if line["step"] > SETTLED] or lines
    held = json_lines(os.path.join(path, "eval.jsonl"))
    rewards = [of_rewards(line) for line in held]
    cos, part = _least(lines, "cos"), _least(lines, "cos_part")
    settled = len(lines) - len(late)
    return {"arm": note["arm"], "seed": note["seed"], "steps": len(lines), "images": int(note["settings"]["prompts.groups"])
            * int(note["settings"]["prompts.group_size"]), "seconds": round(sum(line["seconds"]["total"] for line in lines)),
            "change": {r: rewards[-1][r].get("change") for r in REWARDS},
            "ci95": {r: rewards[-1][r].get("change_ci95") for r in REWARDS},
            "cos_min": _mean(cos[settled:]), "cos_part_min": _mean(part[settled:]), "against": _below(cos[settled:]),
            "against_part": _below(part[settled:]),
            "alpha": {r: _mean([line.get("alpha", {}).get(r) for line in late]) for r in REWARDS}, "wobble": _wobble(late),
            "noise_ratio": {r: _mean([line.get("noise_ratio", {}).get(r) for line in late]) for r in REWARDS},
            "shrunk": _mean([line.get("shrunk") for line in late]), "old_lag": _mean([line.get("old_lag") for line in late]),
            "steps_cos": _rounded(cos), "steps_cos_part": _rounded(part),
            "held_out": [{"step": line["step"], **{r: round(row[r].get("change") or 0, 4) for r in REWARDS}}
                         for line, row in zip(held, rewards)]}


def read_all(out):
    """The finished runs of a study's folder."""
    found = []
    for arm in sorted(os.listdir(out)) if os.path.isdir(out) else []:
        for seed in sorted(os.listdir(os.path.join(out, arm))):
            one = figures(os.path.join(out, arm, seed))
            found += [one] if one else []
    return found


def read_data(folder):
    """results/lag.json; nothing where there is none."""
    try:
        with open(os.path.join(folder, FILE), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return []


def short(found):
    """{(h, arm): runs}, by h, then in the order of LABELS; not the long runs."""
    sets = {}
    for one in found:
        h, _, name = one["arm"].partition("_")
        if h.startswith("h"):
            sets.setdefault((float(h[1:]), name), []).append(one)
    order = list(LABELS)
    return dict(sorted(sets.items(), key=lambda item: (item[0][0], order.index(item[0][1]))))


def long(found):
    """{arm: run}, in the order of LABELS."""
    runs = {one["arm"].removeprefix("long_"): one for one in found if one["arm"].startswith("long_")}
    return {name: runs[name] for name in LABELS if name in runs}


def change(runs, reward):
    """Mean over seeds, and its 95 % half-width."""
    return (statistics.fmean(one["change"][reward] for one in runs),
            sum(one["ci95"][reward] ** 2 for one in runs) ** 0.5 / len(runs))


def _shown(value, form):
    return "-" if value is None else format(value, form)


def _over_seeds(runs, key):
    return _mean([one[key] for one in runs])


def directions(found):
    rows = []
    for (h, name), runs in short(found).items():
        rows.append([f"{h:g}", LABELS[name], str(len(runs)), *[_shown(_over_seeds(runs, key), ".1%").replace("%", " %")
                                                                for key in ("against", "against_part")],
                     *[_shown(_over_seeds(runs, key), "+.3f") for key in ("cos_min", "cos_part_min")],
                     *[_shown(_mean([one["alpha"][r] for one in runs]), ".2f") for r in REWARDS],
                     _shown(_over_seeds(runs, "wobble"), ".3f")])
    return table(["h", "arm", "seeds", "steps against a gradient", "steps against an own part", "least cosine with g_k",
                   "least cosine with a_k", *[f"alpha {r}" for r in REWARDS], "alpha's standard deviation"], rows)


def changes(found):
    rows = []
    for (h, name), runs in short(found).items():
        cells = [change(runs, r) for r in REWARDS]
        better = min(sum(one["change"][r] > one["ci95"][r] for r in REWARDS) for one in runs)
        rows.append([f"{h:g}", LABELS[name], *[f"{mean:+.4f} +- {half:.4f}" for mean, half in cells],
                     f"{better} of {len(REWARDS)}"])
    return table(["h", "arm", *REWARDS, "clearly better, worst seed"], rows)


def long_table(found):
    rows = []
    for name, one in long(found).items():
        rows.append([LABELS[name], str(one["steps"]), *[f"{one['change'][r]:+.4f} +- {one['ci95'][r]:.4f}" for r in REWARDS],
                     _shown(one["against"], ".1%").replace("%", " %"),
                     _shown(one["against_part"], ".1%").replace("%", " %")])
    return table(["arm", "steps", *REWARDS, "steps against a gradient", "steps against an own part"], rows)


def noise(found):
    """Squared signal over squared noise of each a_k, of the arms that were run with halves."""
    rows = []
    for (h, name), runs in short(found).items():
        if any(one["noise_ratio"][r] is not None for one in runs for r in REWARDS):
            rows.append([f"{h:g}", LABELS[name], *[_shown(_mean([one["noise_ratio"][r] for one in runs]), ".2f") for r in REWARDS],
                         _shown(_over_seeds(runs, "shrunk"), ".2f")])
    return table(["h", "arm", *REWARDS, "alpha's distance kept"], rows)


def tables(found):
    """What the page's template names."""
    return {"lag_directions": directions(found), "lag_changes": changes(found), "lag_noise": noise(found), "long": long_table(found)}
