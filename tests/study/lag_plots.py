"""Plots of lag.py's runs: directions and rewards of every arm under lag, and the long runs. Nothing without results/lag.json."""
import numpy as np

import lag_results as lag
from arms import REWARDS
from plots import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, YELLOW, _grid, _save

COLOURS = {"together": BLUE, "before": GREY, "apart": PINK, "offset": SKY, "guard": BLACK, "shrink_average": ORANGE,
           "shrink_equal": YELLOW, "equal": GREEN, "weighted_sum": RED, "marble": BLUE, "kl_common": GREY,
           "offset_slow": PINK, "offset_kl": ORANGE}


def _by_lag(found):
    sets = lag.short(found)
    return sets, sorted({h for h, _ in sets}), [name for name in lag.LABELS if any(arm == name for _, arm in sets)]


def directions(found, folder):
    """How many steps work against a reward, by its whole gradient and by its own part."""
    sets, lags, arms = _by_lag(found)
    figure, axes = _grid(1, len(lags), 1.2 + 0.3 * len(arms), sharey=True)
    for axis, h in zip(axes, lags):
        for y, name in enumerate(arms):
            for key, mark, colour, label in (("against", "o", BLUE, "a reward's gradient g_k"),
                                             ("against_part", "s", ORANGE, "what it alone adds, a_k")):
                values = [100 * one[key] for one in sets.get((h, name), []) if one[key] is not None]
                if values:
                    axis.plot(values, [y] * len(values), "|", color=colour, markersize=9)
                    axis.plot(np.mean(values), y, mark, color=colour, markersize=6, label=label if y == 0 else None)
        axis.set_title(f"h = {h:g}")
        axis.set_xlim(-4, 104)
        axis.set_xlabel("steps against it, % (ticks: seeds)")
    axes[0].set_yticks(range(len(arms)), [lag.LABELS[name] for name in arms])
    axes[0].set_ylim(len(arms) - 0.5, -0.5)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return _save(figure, folder, "lag.png")


def rewards(found, folder):
    """Where every arm ends on held-out images."""
    sets, lags, arms = _by_lag(found)
    figure, axes = _grid(len(lags), len(REWARDS), 0.7 + (0.6 + 0.24 * len(arms)) * len(lags), sharey=True)
    for row, h in enumerate(lags):
        for k, reward in enumerate(REWARDS):
            axis = axes[row * len(REWARDS) + k]
            for y, name in enumerate(arms):
                runs = sets.get((h, name), [])
                if not runs:
                    continue
                mean, half = lag.change(runs, reward)
                axis.errorbar(mean, y, xerr=half, fmt="o", color=COLOURS[name], markersize=4.5, capsize=2)
                axis.plot([one["change"][reward] for one in runs], [y] * len(runs), "|", color=COLOURS[name], markersize=7)
            axis.axvline(0, color=GREY, linewidth=0.8)
            axis.set_title(f"{reward}, h = {h:g}", fontsize=8.5)
            axis.locator_params(axis="x", nbins=3)
            axis.tick_params(labelsize=7.5)
    axes[0].set_yticks(range(len(arms)), [lag.LABELS[name] for name in arms])
    axes[0].set_ylim(len(arms) - 0.5, -0.5)
    figure.supxlabel("final change from base on held-out images; bars: 95 %, ticks: seeds", fontsize=9)
    return _save(figure, folder, "lag_rewards.png")


def _smooth(values, window=20):
    values = np.array([np.nan if v is None else v for v in values], dtype=float)
    return [np.nanmean(values[max(0, i - window + 1):i + 1]) for i in range(len(values))]


def long(found, folder):
    """600 steps with the released decay: held-out rewards, and the cosines on the way."""
    runs = lag.long(found)
    if not runs:
        return None
    figure, axes = _grid(2, 3, 4.8)
    for axis, reward in zip(axes, REWARDS):
        for name, one in runs.items():
            axis.plot([line["step"] for line in one["held_out"]], [line[reward] for line in one["held_out"]], color=COLOURS[name],
                      label=lag.LABELS[name])
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set_title(f"{reward}, change from base")
    for name, one in runs.items():
        axes[5].plot(range(1, one["steps"] + 1), _smooth(one["steps_cos_part"]), color=COLOURS[name])
    axes[5].axhline(0, color=BLACK, linewidth=0.8)
    axes[5].set_title("least cosine with a_k, smoothed")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    figure.supxlabel("optimizer step")
    return _save(figure, folder, "long.png")


def all_plots(folder):
    """The names of the files made."""
    found = lag.read_data(folder)
    made = [draw(found, folder) for draw in (directions, rewards)] if lag.short(found) else []
    return [name for name in [*made, long(found, folder)] if name]
