"""From run folders to compact data, and from the data to the figures that the page quotes."""
import csv
import json
import os

import numpy as np

from arms import ARMS, REWARDS, ROUNDING
from runs import json_lines, note_of, of_rewards


def _short(value, digits=4):
    """Significant digits enough for plots and tables, in little room."""
    if isinstance(value, dict):
        return {key: _short(item, digits) for key, item in value.items()}
    if isinstance(value, list):
        return [_short(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def _columns(lines, key):
    """[steps][K] of an object by reward; None where a step has none."""
    return [[line[key].get(name) for name in REWARDS] if key in line else None for line in lines]


def read_run(path):
    """The compact data of one finished run folder; None when it has not finished."""
    note = note_of(path)
    if not note or not note["finished"]:
        return None
    lines = json_lines(os.path.join(path, "metrics.jsonl"))
    run = {"arm": note["arm"], "seed": note["seed"], "settings": note["settings"], "steps": len(lines)}
    run["eval"] = [{"step": line["step"], **{name: of_rewards(line)[name] for name in REWARDS}}
                   for line in json_lines(os.path.join(path, "eval.jsonl"))]
    for line in lines:  # runs from before the average was called alpha_ema
        if "alpha" in line:
            line.setdefault("alpha_ema", line["alpha"])
    for key in ("reward", "alpha_ema", "alpha_raw", "cos", "cos_step"):
        run[key] = _short(_columns(lines, key), 3)
    if any("alpha_variance" in line for line in lines):
        run["alpha_variance"] = _short(_columns(lines, "alpha_variance"), 3)
        run["gram_share"] = [line.get("gram_share") for line in lines]
    run["cos_var"] = [line.get("cos_var") for line in lines]
    run["seconds"] = sum(line["seconds"]["total"] for line in lines)
    advantages = json_lines(os.path.join(path, "advantages.jsonl"))
    if note["arm"] == "marble" and advantages:
        run["advantages"] = advantages[:1]
    return _short(run)


def read_all(out):
    """The finished runs of a study's folder, in the order of the arms, then of their seeds."""
    runs = []
    for name in ARMS:
        folder = os.path.join(out, name)
        for seed in sorted(os.listdir(folder) if os.path.isdir(folder) else [], key=lambda s: int(s.split("-")[1])):
            run = read_run(os.path.join(folder, seed))
            if run:
                runs.append(run)
    return runs


def read_data(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def write_data(runs, path):
    """One run a line."""
    with open(path, "w") as file:
        for run in runs:
            file.write(json.dumps(run, separators=(",", ":")) + "\n")


def of_arm(runs, arm):
    return [run for run in runs if run["arm"] == arm]


def numbers(rows):
    """[steps, K] with NaN where there is nothing."""
    empty = [None] * len(REWARDS)
    return np.array([[np.nan if v is None else v for v in (row or empty)] for row in rows], dtype=float)


def cosines(run, key="cos"):
    """[steps, K]; NaN where a reward took no part (older versions of the program wrote 0)."""
    values = numbers(run[key])
    values[values == 0] = np.nan
    return values


def least(values):
    """The least of each row [steps]; NaN where a row has none."""
    rows = np.where(np.isnan(values), np.inf, values).min(axis=1)
    return np.where(np.isinf(rows), np.nan, rows)


def _share(flags):
    return float(np.mean(flags)) if len(flags) else float("nan")


def change(run):
    """Final change from the base model: mean and 95 % half-width by reward [K], and both over the standard deviation of what the
    base's interval is over, which makes rewards of different scales comparable: images' scores, or with "prompts" prompts' means."""
    first, last = run["eval"][0], run["eval"][-1]
    counts = [first[name].get("prompts", first[name]["n"]) for name in REWARDS]
    spread = np.array([first[name]["ci95"] * np.sqrt(n) / 1.959964 for name, n in zip(REWARDS, counts)])
    mean = np.array([last[name]["change"] for name in REWARDS])
    ci = np.array([last[name]["change_ci95"] for name in REWARDS])
    safe = np.where(spread > 0, spread, np.nan)
    return mean, ci, mean / safe, ci / safe


def statistics(run):
    """One row of the table of runs."""
    cos, step = least(cosines(run)), least(cosines(run, "cos_step"))
    cos, step = cos[~np.isnan(cos)], step[~np.isnan(step)]
    variance = np.array([v for v in run["cos_var"] if v is not None], dtype=float)
    mean, ci, gain, _ = change(run)
    row = {"arm": run["arm"], "seed": run["seed"], "steps": run["steps"],
           "anti_aligned": _share(cos < -ROUNDING), "cos_min_mean": cos.mean(), "cos_min_least": cos.min(),
           "cos_var_mean": variance.mean(), "step_anti_aligned": _share(step < -ROUNDING), "step_cos_min_mean": step.mean(),
           "improved": int((mean > ci).sum()), "worsened": int((mean < -ci).sum()), "worst_gain": gain.min(),
           "mean_gain": gain.mean()}
    for k, name in enumerate(REWARDS):
        row[f"{name}_change"], row[f"{name}_ci95"] = mean[k], ci[k]
    return row


def against(run, other):
    """Final change of a run minus that of another one with the same seed, and its 95 % half-width [K]. The intervals are added
    as if independent: with the same prompts and noise they are not quite, so this half-width is on the large side."""
    mean, ci, _, _ = change(run)
    base, base_ci, _, _ = change(other)
    return mean - base, np.hypot(ci, base_ci)


def pairs(runs, arm, other):
    """(seed, run, run of the other arm) for seeds that both have."""
    by_seed = {run["seed"]: run for run in of_arm(runs, other)}
    return [(run["seed"], run, by_seed[run["seed"]]) for run in of_arm(runs, arm) if run["seed"] in by_seed]


def summary(runs, arm):
    """Means over the seeds of an arm's rows, with the count of seeds; None without runs."""
    rows = [statistics(run) for run in of_arm(runs, arm)]
    if not rows:
        return None
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key not in ("arm", "seed")}
    mean.update(arm=arm, seeds=len(rows), anti_aligned_worst=max(row["anti_aligned"] for row in rows),
                cos_min_least=min(row["cos_min_least"] for row in rows), improved_least=min(row["improved"] for row in rows))
    for name in REWARDS:  # of the mean over seeds, whose images differ
        mean[f"{name}_ci95"] = float(np.sqrt(sum(row[f"{name}_ci95"] ** 2 for row in rows)) / len(rows))
    return mean


def write_tables(runs, folder):
    """runs.csv: a line per run; arms.json: the means."""
    rows = [_short({key: value.item() if isinstance(value, np.generic) else value for key, value in statistics(run).items()})
            for run in runs]
    with open(os.path.join(folder, "runs.csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with open(os.path.join(folder, "arms.json"), "w") as file:
        json.dump([_short(s) for s in (summary(runs, arm) for arm in ARMS) if s], file, indent=1)
        file.write("\n")
