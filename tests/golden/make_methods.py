"""Makes methods.json: Gram matrices of random conflicting gradients with the weights that torchjd's aggregators give
them, in float64. PCGrad's random order is replaced by the circle i + 1, i + 2, ... of src/rl/method_pcgrad.c; UPGrad's
regularisation is turned down to what its solver bears. Needs torchjd with cvxpy, clarabel, ecos and quadprog:
python make_methods.py > methods.json"""
import json

import torch
from torchjd.aggregation import CAGrad, NashMTL, PCGrad, UPGrad
from torchjd.linalg import QuadprogProjector

torch.set_default_dtype(torch.float64)
torch.manual_seed(7)


def in_a_circle(aggregator, gram):
    calls = iter(range(len(gram)))
    original = torch.randperm
    torch.randperm = lambda n: torch.roll(torch.arange(n), -next(calls) - 1)
    try:
        return aggregator(gram)
    finally:
        torch.randperm = original


def shares(weights, J):
    part = weights.double() * J.norm(dim=1)
    return (part / part.sum()).tolist()


def nash(J, G):
    """None where torchjd's iteration stops short of what it looks for, G a = 1 / a, and that is often."""
    a = NashMTL(len(J), max_norm=0, optim_niter=500).weighting(J)
    share = a * (G @ a)
    return shares(a, J) if (share / share.mean() - 1).abs().max() < 3e-3 else None


projector = QuadprogProjector(norm_eps=1e-12, reg_eps=1e-11)
cases = []
for n in (2, 2, 2, 3, 3, 4, 5, 5, 8, 8):
    J = torch.randn(n, n + 3) * 2.0 ** torch.randint(-2, 3, (n, 1))
    J = J + 0.4 * J.norm(dim=1, keepdim=True) / (n + 3) ** 0.5
    G = J @ J.T
    weights = torch.rand(n) + 0.2
    cases.append({
        "gram": G.tolist(),
        "weights": (weights * n / weights.sum()).tolist(),
        "pcgrad": shares(in_a_circle(PCGrad().gramian_weighting, G), J),
        "upgrad": shares(UPGrad(projector=projector).gramian_weighting(G), J),
        "upgrad_weighted": shares(UPGrad(weights / weights.sum(), projector).gramian_weighting(G), J),
        "cagrad": shares(CAGrad(0.5, 1e-12).gramian_weighting(G), J),
        "nash": nash(J, G),
    })
print("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]")
