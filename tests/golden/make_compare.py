"""Makes compare.json: score tables with N/A and failed entries, and what numpy makes of them: z-scores' scale, means, paired
differences, win rates, and percentile intervals over resampled prompts, whose draws come from a Philox4x32-10 written anew
here (Salmon et al., SC 2011).   python make_compare.py > compare.json"""
import json

import numpy as np

STUDY = 10  # what the draws are for, part of the generator's key


def philox(seed, purpose, step, sample, blocks):
    """The first 4 * blocks words of the streams (seed, purpose, step, sample[r]): [len(sample), 4 * blocks]."""
    u64, mask = np.uint64, np.uint64(0xFFFFFFFF)
    r, b = np.meshgrid(np.asarray(sample, u64), np.arange(blocks, dtype=u64), indexing="ij")
    c = [b, r & mask, r >> u64(32), np.full_like(b, step)]
    key = [seed & 0xFFFFFFFF, seed >> 32 ^ purpose * 0x9E3779B9 & 0xFFFFFFFF]
    for _ in range(10):
        p0, p1 = u64(0xD2511F53) * c[0], u64(0xCD9E8D57) * c[2]
        c = [(p1 >> u64(32)) ^ c[1] ^ u64(key[0]), p1 & mask, (p0 >> u64(32)) ^ c[3] ^ u64(key[1]), p0 & mask]
        key = [key[0] + 0x9E3779B9 & 0xFFFFFFFF, key[1] + 0xBB67AE85 & 0xFFFFFFFF]
    return np.stack(c, -1).reshape(len(sample), -1)


def interval(columns, prompt, resamples, seed):
    """columns [images, j], NaN where an image does not count: the mean over j of the columns' means, and its interval."""
    used = [p for p in sorted(set(prompt)) if not np.isnan(columns[prompt == p]).all()]
    if not used:
        return [None, None, None]
    with np.errstate(invalid="ignore"):
        value = np.mean([np.nanmean(c) for c in columns.T if not np.isnan(c).all()])
        if len(used) < 2:
            return [value, None, None]
        words = philox(seed, STUDY, 0, np.arange(resamples), -(-len(used) // 4))[:, :len(used)]
        assert words.max() < 2 ** 32 // len(used) * len(used)  # none that would have to be drawn again
        drawn = []
        for row in words % np.uint64(len(used)):
            rows = np.concatenate([columns[prompt == used[int(i)]] for i in row])
            drawn.append(np.mean([np.nanmean(c) for c in rows.T if not np.isnan(c).all()]))
    return [value, *np.percentile(drawn, [2.5, 97.5])]


def case(rng, images, k, prompts, resamples, seed):
    prompt = rng.integers(0, prompts, images)
    state = rng.choice(3, size=(2, images, k), p=[0.75, 0.15, 0.1])  # valid, N/A, failed
    state[:, :, 0] = 0
    state[:, :, k - 1] = np.where(prompt == prompt[0], 0, 1)  # a reward for one prompt alone
    values = np.round(rng.normal(size=(2, images, k)) * np.arange(1, k + 1) + rng.normal(size=(1, images, k)), 1)
    values[1, :, 0] = np.round(values[0, :, 0] + rng.choice([-0.3, 0, 0.5], images), 1)
    a, b = (np.where(s == 0, v, np.nan) for s, v in zip(state, values))
    both = np.concatenate([a, b])
    mean, deviation = np.nanmean(both, 0), np.nanstd(both, 0)
    z = (b - a) / deviation
    with np.errstate(invalid="ignore"):
        by_image = np.array([np.nanmean(row) if not np.isnan(row).all() else np.nan for row in z])
    differences = [*(b - a).T, by_image]
    scores = [[interval(t[:, [j]], prompt, resamples, seed) for j in range(k)]
              + [interval((t - mean) / deviation, prompt, resamples, seed)] for t in (a, b)]
    pair = [interval(c, prompt, resamples, seed) for c in [*((b - a)[:, [j]] for j in range(k)), z]]
    wins = [np.where(np.isnan(d), np.nan, (np.sign(d) + 1) / 2) for d in differences]
    return {
        "prompts": prompts, "resamples": resamples, "seed": seed, "prompt": prompt.tolist(),
        "state": state.reshape(2, -1).tolist(), "value": np.where(state == 0, values, 0).reshape(2, -1).tolist(),
        "mean": mean.tolist(), "deviation": deviation.tolist(), "scores": scores, "pair": pair,
        "win_rate": [interval(w[:, None], prompt, resamples, seed) for w in wins],
        "won_tied_lost": [[int((d > 0).sum()), int((d == 0).sum()), int((d < 0).sum())] for d in differences],
    }


rng = np.random.default_rng(5)
cases = [case(rng, 24, 3, 7, 200, 1234), case(rng, 40, 4, 40, 333, 2 ** 40 + 7), case(rng, 30, 2, 3, 100, 0)]
print("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]")
