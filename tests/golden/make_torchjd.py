"""Makes torchjd.json: Gram matrices, random and degenerate, with the weights that TorchJD's aggregators give the
gradients, in float64. `marble solve --method NAME` is held against them (tests/check_solve_methods.py). Where the
definitions differ:
  MGDA     TorchJD balances the gradients as they are, marble those of length one (normalize: false is TorchJD's); its
           Frank-Wolfe iteration comes close only, so the weights here are those after 30000 rounds
  PCGrad   TorchJD draws the order in which gradients meet; here it is marble's circle i + 1, i + 2, ...
  NashMTL  TorchJD's iteration often stops short of its own equation; such weights are left out, and so is the case of no
           bargain, which it does not know
  all      marble scales the direction to the mean of the gradients' lengths, so only weights relative to each other,
           and the direction they make, agree
Needs torchjd[full]: python make_torchjd.py > torchjd.json"""
import json

import torch
from torchjd.aggregation import CAGrad, MGDA, NashMTL, PCGrad, UPGrad
from torchjd.linalg import QuadprogProjector

torch.set_default_dtype(torch.float64)
torch.manual_seed(11)


def in_a_circle(aggregator, gram):
    calls = iter(range(len(gram)))
    original = torch.randperm
    torch.randperm = lambda n: torch.roll(torch.arange(n), -next(calls) - 1)
    try:
        return aggregator(gram)
    finally:
        torch.randperm = original


def nash(J, G):
    a = NashMTL(len(J), max_norm=0, optim_niter=500).weighting(J)
    share = a * (G @ a)
    return a.tolist() if (share / share.mean() - 1).abs().max() < 3e-3 else None


def matrices():
    yield "one", torch.tensor([[3.0, 4.0]])
    yield "orthogonal", torch.diag(torch.tensor([1.0, 2.0, 4.0]))
    yield "equal", torch.tensor([[1.0, 2.0, 0.0]]).repeat(3, 1)
    yield "opposite", torch.tensor([[1.0, 1.0], [-2.0, -2.0]])
    yield "nearly opposite", torch.tensor([[1.0, 0.01], [-1.0, 0.01]])
    yield "dependent", torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.5]])
    yield "balanced out", torch.tensor([[1.0, 0.0], [-0.5, 0.75 ** 0.5], [-0.5, -0.75 ** 0.5]])
    yield "lengths 1000 apart", torch.tensor([[1.0, 0.3], [-500.0, 800.0]])
    for n in (2, 3, 4, 6):
        for common in (0.0, 0.3):
            J = torch.randn(n, n + 2)
            yield f"random {n} {common}", J + common * J.norm(dim=1, keepdim=True)


projector = QuadprogProjector(norm_eps=1e-12, reg_eps=1e-11)
cases = []
for name, J in matrices():
    G = J @ J.T
    case = {"name": name, "gram": G.tolist(),
            "mgda": MGDA(epsilon=1e-15, max_iters=30000).gramian_weighting(G).tolist(),
            "pcgrad": in_a_circle(PCGrad().gramian_weighting, G).tolist(),
            "upgrad": UPGrad(projector=projector).gramian_weighting(G).tolist(),
            "cagrad": CAGrad(0.5, 1e-12).gramian_weighting(G).tolist()}
    if len(J) > 1 and name not in ("opposite", "balanced out"):
        case["nash"] = nash(J, G)
    cases.append(case)
print("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]")
