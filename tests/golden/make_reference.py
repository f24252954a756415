"""Makes reference.json: three optimizer steps as MARBLE's released training code does them (aim-uofa/MARBLE at
1bf9543: train.py, flow_grpo/stat_tracking.py, flow_grpo/pareto_balancer), its formulas written anew for a linear
model v = W phi and differentiated by torch in float64. The quadratic program is solved exactly, by trying every
support, in place of SLSQP. Every weighted case has prompts that some rewards do not apply to.
python make_reference.py > reference.json"""
import itertools
import json

import numpy as np
import torch

torch.set_default_dtype(torch.float64)
GROUPS, SIZE, MICRO, SLOTS, E, P, K = 4, 4, 8, 2, 3, 2, 3
N = GROUPS * SIZE
BETA, CLIP, KL, RHO, EVERY, WARMUP = 0.4, 1.5, 0.05, 0.7, 2, 1


def advantages(scores):
    """Group mean over the valid scores, deviation over all valid ones; NaN stays NaN."""
    out = np.full((K, N), np.nan)
    for k in range(K):
        std = np.nanstd(scores[k]) + 1e-4
        for g in range(GROUPS):
            s = slice(g * SIZE, (g + 1) * SIZE)
            if not np.isnan(scores[k, s]).all():
                out[k, s] = (scores[k, s] - np.nanmean(scores[k, s])) / std
    return out


def losses(W, W_old, W_ref, row, advantage, mask):
    """policy loss (a mean over the samples of the mask) and KL loss of a micro-batch."""
    x0, xt, t, phi = row
    v, v_old, v_ref = phi @ W.T, phi @ W_old.T, phi @ W_ref.T
    r = (advantage.clamp(-CLIP, CLIP) / CLIP / 2 + 0.5).clamp(0, 1)
    total = 0
    for sign, weight in ((1, r), (-1, 1 - r)):
        mixed = (1 - sign * BETA) * v_old + sign * BETA * v
        wrong = xt - t[:, None] * mixed - x0
        scale = wrong.detach().abs().mean(1, keepdim=True).clamp(min=1e-5)
        total = total + weight * (wrong ** 2 / scale).mean(1) / BETA * CLIP
    policy = (total * mask).sum() / mask.sum().clamp(min=1)
    return policy, ((v - v_ref) ** 2).mean(1).mean()


def gradient(loss, W):
    return torch.autograd.grad(loss, W, retain_graph=True)[0].reshape(-1)


def solve_qp(C, floor):
    """argmin a'Ca / 2 with sum a = 1, a >= floor: the best of the feasible stationary points of all supports."""
    n, best = len(C), None
    for size in range(1, n + 1):
        for support in map(list, itertools.combinations(range(n), size)):
            rest = [i for i in range(n) if i not in support]
            a = np.full(n, float(floor))
            A = np.block([[C[np.ix_(support, support)], -np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]])
            b = np.append(-C[np.ix_(support, rest)] @ a[rest], 1 - floor * len(rest))
            a[support] = np.linalg.lstsq(A, b, rcond=None)[0][:size]
            if (a[support] >= floor - 1e-12).all() and (best is None or a @ C @ a < best @ C @ best - 1e-15):
                best = a
    return best


def balance(grads, weights, floor):
    norms = [g.norm().item() for g in grads]
    valid = [k for k in range(K) if norms[k] > 1e-12]
    alpha = np.zeros(K)
    if not valid:
        return torch.zeros_like(grads[0]), alpha
    if len(valid) == 1:
        alpha[valid] = 1
        return grads[valid[0]], alpha
    U = torch.stack([weights[k] * grads[k] / norms[k] for k in valid])
    alpha[valid] = solve_qp((U @ U.T).numpy(), floor)
    return torch.as_tensor(alpha[valid]) @ U * np.mean([norms[k] for k in valid]), alpha


def case(seed, weights, floor):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(K, N))
    scores[0, 2 * SIZE:] = np.nan
    scores[1, :2 * SIZE] = np.nan
    scores[1, 3 * SIZE] = np.nan
    A = advantages(scores)
    order = rng.permutation(N)
    if seed == 2:  # the first micro-batch has nothing for reward 0
        order = np.array(sorted(order, key=lambda i: i < 2 * SIZE))
    raw = torch.as_tensor(A[:, order])
    x0 = torch.as_tensor(rng.normal(size=(N, E)))
    noise, phi = (torch.as_tensor(rng.normal(size=(SLOTS, N, d))) for d in (E, P))
    t = torch.as_tensor(rng.uniform(0.2, 0.9, size=(SLOTS, N)))
    W_old, W_ref = (torch.as_tensor(rng.normal(size=(E, P))) for _ in range(2))
    cached, last, steps = None, -1, []
    for step in range(4):
        W = (W_old + torch.as_tensor(0.5 * rng.normal(size=(E, P)))).requires_grad_()
        D, solutions = torch.zeros(E * P), []
        for micro in range(N // MICRO):
            s = slice(micro * MICRO, (micro + 1) * MICRO)
            for slot in range(SLOTS):
                tt = t[slot, s]
                row = (x0[s], (1 - tt)[:, None] * x0[s] + tt[:, None] * noise[slot, s], tt, phi[slot, s])
                part = N // MICRO * SLOTS
                if cached is not None and step >= WARMUP and step - last < EVERY:
                    combined = sum(cached[k] * raw[k, s].nan_to_num(0) for k in range(K))
                    policy, kl = losses(W, W_old, W_ref, row, combined, torch.ones(MICRO))
                    D += gradient((policy + KL * kl) / part, W)
                    continue
                grads = []
                for k in range(K):
                    mask = (~raw[k, s].isnan()).double()
                    policy, kl = losses(W, W_old, W_ref, row, raw[k, s].nan_to_num(0), mask)
                    grads.append(gradient(policy / part, W))
                direction, alpha = balance(grads, weights, floor)
                cached = alpha if cached is None else RHO * cached + (1 - RHO) * alpha
                last = step
                solutions.append(alpha.tolist())
                D += direction + gradient(KL * kl / part, W)
        steps.append({"w": W.detach().reshape(-1).tolist(), "solutions": solutions, "alpha_mean": cached.tolist(),
                      "direction": D.tolist()})
    return {"weights": weights, "floor": floor,
            "scores": [[None if np.isnan(x) else x for x in row] for row in scores],
            "order": order.tolist(), "x0": x0.reshape(-1).tolist(), "noise": noise.reshape(-1).tolist(),
            "phi": phi.reshape(-1).tolist(), "t": t.reshape(-1).tolist(), "w_old": W_old.reshape(-1).tolist(),
            "w_ref": W_ref.reshape(-1).tolist(), "steps": steps}


cases = [case(0, [1, 1, 1], 0), case(1, [2, 0.5, 1], 0.05), case(2, [1, 3, 2], 0)]
print("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]")
