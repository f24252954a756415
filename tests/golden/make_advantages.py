"""Makes advantages.json: scores with gaps, and the advantages that two released codes give them, their formulas written
anew in numpy:
  weighted_mean  MARBLE's baseline (aim-uofa/MARBLE at 1bf9543: flow_grpo/rewards.py and stat_tracking.py): per sample the
                 weighted mean over the rewards that are not NaN, then group mean and the deviation over all samples
  gdpo           GDPO (arXiv 2601.05242; NVlabs/GDPO, trl-GDPO's grpo_trainer.py): every reward less its group's mean over its
                 group's deviation, weighted, summed, and normalised over the batch. Its deviations are torch's, over n - 1;
                 marble's are over n, so gdpo_n is the same with those. It scores NaN as 0; where there is a gap marble leaves
                 the reward out, so gdpo is given whole scores
python make_advantages.py > advantages.json"""
import json

import numpy as np

GROUPS, SIZE, K, EPS = 5, 6, 3, 1e-4
rng = np.random.default_rng(3)
N = GROUPS * SIZE
weights = np.array([1.0, 2.0, 0.5])


def by_group(x, f):
    return np.repeat([f(x[g * SIZE:(g + 1) * SIZE]) for g in range(GROUPS)], SIZE)


def weighted_mean(scores):
    valid = ~np.isnan(scores)
    mean = (np.nan_to_num(scores) * weights[:, None]).sum(0) / (valid * weights[:, None]).sum(0)
    return (mean - by_group(mean, np.mean)) / (mean.std() + EPS)


def gdpo(scores, ddof):
    total = 0
    for weight, score in zip(weights, scores):
        total = total + weight * (score - by_group(score, np.mean)) / (by_group(score, lambda x: x.std(ddof=ddof)) + EPS)
    return (total - total.mean()) / (total.std(ddof=ddof) + EPS)


whole = rng.normal(size=(K, N)) * np.array([1, 20, 0.05])[:, None] + np.array([0, 5, 0.2])[:, None]
gaps = whole.copy()
gaps[1, :2 * SIZE] = np.nan
gaps[2, 3 * SIZE:4 * SIZE] = np.nan
print(json.dumps({"weights": weights.tolist(), "whole": whole.tolist(),
                  "gaps": [[None if np.isnan(x) else x for x in row] for row in gaps],
                  "weighted_mean": weighted_mean(gaps).tolist(), "gdpo": gdpo(whole, 1).tolist(),
                  "gdpo_n": gdpo(whole, 0).tolist()}))
