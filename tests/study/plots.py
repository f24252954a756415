"""The study's plots: PNG, 800 pixels wide, in the colours of Okabe and Ito, which the colour-blind can distinguish."""
import io
import json
import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402 (matplotlib brings it)

import limit  # noqa: E402
from arms import ARMS, PLAIN, REWARDS, RHO, ROUNDING, SHARE  # noqa: E402
from results import change, cosines, least, numbers, of_arm, statistics  # noqa: E402

BLUE, ORANGE, GREEN, RED, PINK, SKY, YELLOW, BLACK, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#B8A800", "#000000", "#999999")
STYLE = {"weighted_sum": (RED, "-"), "equal": (GREEN, "-"), "gdpo": (PINK, "-"), "marble": (BLUE, "-"), "stages": (ORANGE, "-"),
         "offset": (GREEN, "--"), "every_10": (ORANGE, "--"), "tenth": (SKY, "--"), "reference": (BLACK, ":"),
         "apart": (PINK, "--"), "adam": (YELLOW, "--"), "constraint": (GREY, "--")}
REWARD_STYLE = dict(zip(REWARDS, [(BLUE, "-"), (RED, "-"), (GREEN, "--"), (BLACK, ":"), (ORANGE, "-.")]))
plt.rcParams.update({"font.size": 9, "axes.titlesize": 9.5, "axes.spines.top": False, "axes.spines.right": False,
                     "legend.frameon": False, "figure.dpi": 100, "savefig.dpi": 100, "axes.grid": True, "grid.alpha": 0.25})


def _save(figure, folder, name):
    buffer = io.BytesIO()
    figure.savefig(buffer, metadata={"Software": None})
    plt.close(figure)
    image = Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE)  # a third of the bytes
    image.save(os.path.join(folder, name), optimize=True)
    return name


def _grid(rows, columns, height, **options):
    figure, axes = plt.subplots(rows, columns, figsize=(8, height), layout="constrained", squeeze=False, **options)
    return figure, list(axes.flat)


def _present(runs, arms):
    return [arm for arm in arms if of_arm(runs, arm)]


def rewards(runs, folder, arms, name, title):
    """Change from the base model on held-out prompts: mean over seeds, band from the least to the most."""
    arms = _present(runs, arms)
    if not arms:
        return None
    figure, axes = _grid(2, 3, 4.8)
    for axis, reward in zip(axes, REWARDS):
        for arm in arms:
            curves = {}
            for run in of_arm(runs, arm):
                for line in run["eval"]:
                    curves.setdefault(line["step"], []).append(line[reward].get("change", 0))
            steps = sorted(curves)
            colour, dash = STYLE[arm]
            axis.fill_between(steps, [min(curves[s]) for s in steps], [max(curves[s]) for s in steps], color=colour, alpha=0.12,
                              linewidth=0)
            axis.plot(steps, [np.mean(curves[s]) for s in steps], dash, color=colour, label=ARMS[arm].label,
                      linewidth=2.2 if arm == "marble" else 1.5)
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set_title(reward)
        axis.set_xlabel("optimizer step")
    for axis in axes[0:5:3]:
        axis.set_ylabel("change from base")
    axes[5].axis("off")
    axes[5].legend(*axes[0].get_legend_handles_labels(), loc="center", fontsize=10)
    figure.suptitle(title)
    return _save(figure, folder, name)


def gains(runs, folder):
    """Where every arm ends, reward by reward, in standard deviations of the base images' scores."""
    arms = _present(runs, ARMS)
    figure, axes = _grid(1, len(REWARDS), 1.1 + 0.27 * len(arms), sharey=True)
    for k, (axis, reward) in enumerate(zip(axes, REWARDS)):
        for y, arm in enumerate(arms):
            found = [change(run) for run in of_arm(runs, arm)]
            values = [f[2][k] for f in found]
            half = np.sqrt(sum(f[3][k] ** 2 for f in found)) / len(found)
            colour = STYLE.get(arm, (GREY, "-"))[0]
            axis.errorbar(np.mean(values), y, xerr=half, fmt="o", color=colour, markersize=5, capsize=2)
            axis.plot(values, [y] * len(values), "|", color=colour, markersize=7, alpha=0.8)
        axis.axvline(0, color=GREY, linewidth=0.8)
        axis.set_title(reward)
    axes[0].set_yticks(range(len(arms)), [ARMS[arm].label for arm in arms])
    axes[0].set_ylim(len(arms) - 0.5, -0.5)
    figure.supxlabel("final change from base / standard deviation of the base images' scores; bars: 95 %, ticks: seeds", fontsize=9)
    return _save(figure, folder, "gains.png")


def cos_min(runs, folder):
    """The least cosine between the direction and a reward's gradient, at every step of every seed."""
    arms = _present(runs, PLAIN)
    rows = -(-len(arms) // 3)
    figure, axes = _grid(rows, 3, 0.5 + 1.6 * rows, sharex=True, sharey=True)
    for axis, arm in zip(axes, arms):
        curves = [least(cosines(run)) for run in of_arm(runs, arm)]
        low = min(-0.1, min(np.nanmin(curve) for run in runs for curve in [least(cosines(run))]) - 0.03)
        axis.axhspan(low, 0, color=RED, alpha=0.08, linewidth=0)
        axis.axhline(0, color=BLACK, linewidth=0.8)
        for curve, colour in zip(curves, [BLUE, ORANGE, GREEN, PINK, SKY] * len(curves)):
            axis.plot(np.arange(1, len(curve) + 1), curve, color=colour, linewidth=1.1)
        together = np.concatenate(curves)
        together = together[~np.isnan(together)]
        axis.set_title(f"{ARMS[arm].label}: {100 * np.mean(together < -ROUNDING):.0f} % below 0", fontsize=9)
    for axis in axes[len(arms):]:
        axis.axis("off")
    figure.supylabel("least cos(D, g_k) over the rewards")
    figure.supxlabel("optimizer step (one colour a seed; shaded: against a reward; %: of all steps of all seeds)", fontsize=9)
    return _save(figure, folder, "cos_min.png")


def alpha(runs, folder):
    """Weights over time, first seed: what a solve returns as dots, the average alphabar as lines."""
    arms = _present(runs, ["marble", "offset", "every_10", "tenth", "reference", "constraint"])
    if not arms:
        return None
    rows = -(-len(arms) // 2)
    figure, axes = _grid(rows, 2, 0.7 + 1.9 * rows, sharex=True, sharey=True)
    for axis, arm in zip(axes, arms):
        run = of_arm(runs, arm)[0]
        mean, raw = numbers(run.get("alpha_ema", run.get("alpha"))), numbers(run["alpha_raw"])  # or of an older run
        steps = np.arange(1, len(mean) + 1)
        for k, reward in enumerate(REWARDS):
            colour, dash = REWARD_STYLE[reward]
            axis.plot(steps, mean[:, k], dash, color=colour, linewidth=1.6, label=reward)
            axis.plot(steps, raw[:, k], ".", color=colour, markersize=3, alpha=0.55)
        axis.set_title(f"{ARMS[arm].label} (seed {run['seed']})")
    for axis in axes[len(arms):]:
        axis.axis("off")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    figure.supylabel("weight alpha_k (dots: of a solve)", fontsize=9)
    figure.supxlabel("optimizer step")
    return _save(figure, folder, "alpha.png")


def specialists(table):
    """[K, n] advantages (NaN: does not apply) -> the order of samples by the reward each is best at, and the share of samples
    that are above their group's mean for some rewards and below it for others."""
    known = np.nan_to_num(table, nan=-np.inf)
    best = known.argmax(axis=0)
    order = np.lexsort((-known.max(axis=0), best))
    mixed = (np.nan_to_num(table) > 0.1).any(axis=0) & (np.nan_to_num(table) < -0.1).any(axis=0)
    return order, float(mixed.mean())


def advantages(runs, folder):
    """Every sample's advantage for every reward at the first step: most samples are good for some rewards only."""
    run = next((run for run in runs if run.get("advantages")), None)
    if not run:
        return None
    line = run["advantages"][0]
    table = numbers(np.array([line["advantage"][name] for name in REWARDS], dtype=object).T.tolist()).T
    order, mixed = specialists(table)
    figure, axis = plt.subplots(figsize=(8, 2.6), layout="constrained")
    colours = plt.get_cmap("RdBu").copy()
    colours.set_bad("#d9d9d9")
    image = axis.imshow(table[:, order], aspect="auto", cmap=colours, vmin=-3, vmax=3, interpolation="nearest")
    axis.grid(False)
    axis.set_yticks(range(len(REWARDS)), REWARDS)
    axis.set_xlabel(f"{table.shape[1]} images of step {line['step']}, sorted by the reward each is best at (grey: does not apply)")
    axis.set_title(f"{100 * mixed:.0f} % of images are above their group's mean for one reward and below it for another")
    figure.colorbar(image, ax=axis, label="advantage A_ik", pad=0.01)
    return _save(figure, folder, "advantages.png")


def rho(runs, folder):
    """The smoothing of alpha with a solve every ten steps."""
    values = [value for value, arm in RHO.items() if of_arm(runs, arm)]
    if len(values) < 2:
        return None
    figure, axes = _grid(1, 3, 2.7)
    shown = [("worst_gain", "worst reward's gain\n(base standard deviations)", BLUE), ("mean_gain", "mean gain\n(the same unit)", GREEN),
             ("cos_min_mean", "least cosine,\nmean over steps", RED)]
    for axis, (key, label, colour) in zip(axes, shown):
        for value in values:
            found = [statistics(run)[key] for run in of_arm(runs, RHO[value])]
            axis.plot([value] * len(found), found, "_", color=colour, markersize=9)
        means = [np.mean([statistics(run)[key] for run in of_arm(runs, RHO[value])]) for value in values]
        axis.plot(values, means, "o-", color=colour)
        axis.set_xticks(values)
        axis.set_xlabel("rho")
        axis.set_ylabel(label)
    figure.suptitle("marble, N = 10: smoothing of the averaged alpha (dashes: seeds)")
    return _save(figure, folder, "rho.png")


def halves(runs, folder):
    """How far alpha is noise: its variance between two disjoint halves of the rows of a solve, by how many rows that half has."""
    shares = [share for share, arm in SHARE.items() if any(run.get("alpha_variance") for run in of_arm(runs, arm))]
    if not shares:
        return None
    figure, axis = plt.subplots(figsize=(8, 3.2), layout="constrained")
    points = []
    for share in shares:
        chosen = [run for run in of_arm(runs, SHARE[share]) if run.get("alpha_variance")]
        seen = np.mean([s for run in chosen for s in run["gram_share"] if s])
        points.append((50 * seen, np.nanmean([numbers(run["alpha_variance"]) for run in chosen], axis=(0, 1)) ** 0.5))
    for k, reward in enumerate(REWARDS):
        colour, dash = REWARD_STYLE[reward]
        axis.plot([p[0] for p in points], [p[1][k] for p in points], dash, marker="o", markersize=4, color=colour, label=reward)
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_xticks([p[0] for p in points], [f"{p[0]:.3g}" for p in points])
    axis.minorticks_off()
    axis.set_xlabel("rows that a solve sees (half of gram_fraction), % of the step")
    axis.set_ylabel("standard deviation of alpha_k\nbetween disjoint rows")
    axis.legend(ncols=5, loc="upper right")
    return _save(figure, folder, "halves.png")


def cos_step(runs, folder):
    """What AdamW really applies against what was asked for: both least cosines, mean over steps and seeds."""
    arms = _present(runs, PLAIN)
    figure, axes = _grid(1, 2, 1.2 + 0.27 * len(arms), sharey=True)
    for y, arm in enumerate(arms):
        rows = [statistics(run) for run in of_arm(runs, arm)]
        for axis, keys in zip(axes, [("cos_min_mean", "step_cos_min_mean"), ("anti_aligned", "step_anti_aligned")]):
            asked, taken = (np.mean([row[key] for row in rows]) * (100 if axis is axes[1] else 1) for key in keys)
            axis.plot([asked, taken], [y, y], color=GREY, linewidth=1.2, zorder=1)
            axis.plot(asked, y, "o", color=BLUE, markersize=7, label="direction D" if y == 0 else None)
            axis.plot(taken, y, "s", color=ORANGE, markersize=5.5, label="step AdamW takes" if y == 0 else None)
    axes[0].axvline(0, color=BLACK, linewidth=0.8)
    axes[0].set_xlabel("least cosine with a reward's gradient, mean over steps")
    axes[1].set_xlabel("steps with a cosine below 0, %")
    axes[1].set_xlim(-4, 104)
    axes[0].set_yticks(range(len(arms)), [ARMS[arm].label for arm in arms])
    axes[0].set_ylim(len(arms) - 0.5, -0.5)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return _save(figure, folder, "cos_step.png")


def kept(folder):
    """A reward with a lower limit: its mean in training, and its multiplier."""
    try:
        with open(os.path.join(folder, "limit.json")) as file:
            found = json.load(file)
    except FileNotFoundError:
        return None
    figure, axes = _grid(1, 2, 2.6)
    for arm, label, colour in (("limit", f"ocr >= {limit.LEVEL}", BLUE), ("free", "no limit", RED)):
        if arm in found:
            values = found[arm]["ocr"]
            axes[0].plot(range(1, len(values) + 1), values, ".", color=colour, markersize=3, alpha=0.5)
            axes[0].plot(range(limit.WINDOW, len(values) + 1), limit.moving(values), color=colour, label=label)
    axes[0].axhline(limit.LEVEL, color=BLACK, linewidth=0.8)
    axes[0].set(title=f"ocr in training (line: mean of {limit.WINDOW} steps)", xlabel="optimizer step")
    axes[0].legend(loc="lower left")
    axes[1].plot(range(1, len(found["limit"]["multiplier"]) + 1), found["limit"]["multiplier"], color=BLUE)
    axes[1].set(title="multiplier of ocr", xlabel="optimizer step")
    return _save(figure, folder, "limit.png")


def all_plots(runs, folder):
    """Draws what the runs allow; the names of the files made."""
    main, variants = ["weighted_sum", "equal", "gdpo", "stages", "marble"], ["offset", "every_10", "tenth", "reference", "marble"]
    made = [rewards(runs, folder, main, "rewards.png", "Held-out rewards: marble and the baselines (band: seeds)"),
            rewards(runs, folder, variants, "variants.png", "Held-out rewards: variants of marble (band: seeds)"),
            gains(runs, folder), cos_min(runs, folder), cos_step(runs, folder), alpha(runs, folder), advantages(runs, folder),
            rho(runs, folder), halves(runs, folder), kept(folder)]
    return [name for name in made if name]
