"""README.md of this folder: page.md with figures filled in."""
import json
import os

import numpy as np

import lag_results
import limit
from arms import ARMS, REWARDS
from markdown import table
from results import against, change, of_arm, pairs, statistics, summary


def cosine_table(runs):
    rows = []
    for arm in ARMS:
        s = summary(runs, arm)
        if s:
            rows.append([ARMS[arm].label, str(s["seeds"]), f"{100 * s['anti_aligned']:.1f} %", f"{s['cos_min_mean']:+.3f}",
                         f"{s['cos_min_least']:+.3f}", f"{s['cos_var_mean']:.4f}", f"{100 * s['step_anti_aligned']:.1f} %",
                         f"{s['step_cos_min_mean']:+.3f}"])
    return table(["arm", "seeds", "steps against a reward", "least cosine, mean over steps", "least of all", "variance of the cosines",
                   "AdamW's steps against a reward", "least cosine of AdamW's steps"], rows)


def change_table(runs):
    rows = []
    for arm in ARMS:
        s = summary(runs, arm)
        if s:
            rows.append([ARMS[arm].label, *[f"{s[f'{name}_change']:+.4f} +- {s[f'{name}_ci95']:.4f}" for name in REWARDS],
                         f"{s['worst_gain']:+.3f}", f"{s['mean_gain']:+.3f}"])
    return table(["arm", *REWARDS, "worst gain", "mean gain"], rows)


def seed_table(runs):
    rows = []
    for arm in ARMS:
        for run in of_arm(runs, arm):
            s = statistics(run)
            rows.append([ARMS[arm].label, str(run["seed"]), f"{s['improved']} of {len(REWARDS)}", str(s["worsened"]),
                         f"{s['worst_gain']:+.3f}", *[_against(runs, run, other) for other in ("weighted_sum", "equal")]])
    return table(["arm", "seed", "rewards clearly improved", "clearly worse", "worst gain", "worse than weighted sum",
                   "worst gain minus that of equal"], rows)


def _against(runs, run, other):
    found = [pair for pair in pairs(runs, run["arm"], other) if pair[0] == run["seed"]]
    if not found or run["arm"] == other:
        return "-"
    _, one, two = found[0]
    if other == "equal":
        return f"{statistics(one)['worst_gain'] - statistics(two)['worst_gain']:+.3f}"
    mean, half = against(one, two)
    worse = [f"{name} ({mean[k]:+.4f} +- {half[k]:.4f})" for k, name in enumerate(REWARDS) if mean[k] < -half[k]]
    return ", ".join(worse) or "none"


def _worse_in_the_mean(runs):
    """Rewards that end lower under marble than under weighted sum by more than the interval of the mean over seeds."""
    found = [against(one, two) for _, one, two in pairs(runs, "marble", "weighted_sum")]
    mean, half = np.mean([f[0] for f in found], axis=0), np.sqrt(np.sum([f[1] ** 2 for f in found], axis=0)) / len(found)
    return [f"{name} ({mean[k]:+.4f} +- {half[k]:.4f})" for k, name in enumerate(REWARDS) if mean[k] < -half[k]]


def _ratio(a, b):
    return f"{a / b:.3g}" if b else "no"


def claims(runs):
    """The paper's claims with this study's figures: as measured, whichever way they point."""
    marble, plain = summary(runs, "marble"), summary(runs, "weighted_sum")
    if not marble or not plain:
        return "Needs finished runs of `marble` and `weighted_sum`."
    improved = [(change(run)[0] > change(run)[1]).all() for run in of_arm(runs, "marble")]
    worse = [name for _, one, two in pairs(runs, "marble", "weighted_sum")
             for k, name in enumerate(REWARDS) if against(one, two)[0][k] < -against(one, two)[1][k]]
    better = [statistics(one)["worst_gain"] > statistics(two)["worst_gain"] for _, one, two in pairs(runs, "marble", "equal")]
    rows = [["steps with a reward anti-aligned: weighted sum -> marble", "80 % -> 0 %",
             f"{100 * plain['anti_aligned']:.1f} % -> {100 * marble['anti_aligned']:.1f} %"],
            ["least cosine, mean over steps", "-0.13 -> +0.37", f"{plain['cos_min_mean']:+.3f} -> {marble['cos_min_mean']:+.3f}; "
             f"least of all steps of marble {marble['cos_min_least']:+.3f}"],
            ["variance of the cosines", "0.161 -> 0.006", f"{plain['cos_var_mean']:.4f} -> {marble['cos_var_mean']:.4f} "
             f"({_ratio(marble['cos_var_mean'], plain['cos_var_mean'])} of it)"],
            ["seeds in which all five rewards clearly improve under marble", "yes", f"{sum(improved)} of {len(improved)}"],
            ["rewards clearly worse under marble than under weighted sum, same seed", "none", ", ".join(worse) or "none"],
            ["the same of the means over seeds", "none", ", ".join(_worse_in_the_mean(runs)) or "none"],
            ["seeds in which marble's worst reward gains more than that of `equal`", "yes",
             f"{sum(better)} of {len(better)}" if better else "no pairs"]]
    return table(["claim", "paper", "here"], rows)


def limit_table(folder):
    """What limit.py measured, where its results lie beside the others."""
    try:
        with open(os.path.join(folder, "limit.json")) as file:
            found = json.load(file)
    except FileNotFoundError:
        return ""
    return table(["arm", "steps", "ocr in training, mean", f"least mean of {limit.WINDOW} steps", *REWARDS], limit.rows(found))


def setting(runs):
    first = runs[0]["settings"]
    seconds = [run["seconds"] for run in runs]
    return {"runs": str(len(runs)), "arms": str(len({run["arm"] for run in runs})),
            "seeds": ", ".join(str(s) for s in sorted({run["seed"] for run in runs})),
            "steps": str(max(run["steps"] for run in runs)), "groups": first["prompts.groups"],
            "group_size": first["prompts.group_size"],
            "images": str(max(line["color"]["n"] for run in runs[:1] for line in run["eval"])),
            "took": f"{np.median(seconds) / 60:.1f} minutes on " + ("one core" if first.get("device", "cpu") == "cpu" else
                                                                    "a GPU that several runs share"),
            "device": first.get("device", "cpu")}


def write(runs, plots, template, path):
    """Fills {{NAME}} in the template; a section whose plot was not made is left out (from its heading to the next)."""
    with open(template) as file:
        text = file.read()
    folder = os.path.join(os.path.dirname(path), "results")
    fill = {"claims": claims(runs), "cosines": cosine_table(runs), "changes": change_table(runs), "by_seed": seed_table(runs),
            "limit": limit_table(folder), **lag_results.tables(lag_results.read_data(folder)), **setting(runs)}
    for key, value in fill.items():
        text = text.replace("{{" + key + "}}", value)
    sections = text.split("\n## ")
    made = {f"results/{name}" for name in plots}
    kept = [s for s in sections if all(part.split(")")[0] in made for part in s.split("](results/")[1:]
                                       for part in ["results/" + part] if part.split(")")[0].endswith(".png"))]
    with open(path, "w") as file:
        file.write("\n## ".join(kept))
    return os.path.basename(path)
