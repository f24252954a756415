"""Steps of torch.optim.AdamW in f32 for tests/rl/test_policy.c: writes adamw.json. Run: python make_adamw.py"""
import json
import os

import torch

torch.manual_seed(5)
N, STEPS = 12, 6
CASES = [
    {"lr": 3e-4, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 1e-4},
    {"lr": 0.05, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "weight_decay": 0.1},
]

out = {"n": N, "cases": []}
for case in CASES:
    w = torch.nn.Parameter(torch.randn(N))
    optimizer = torch.optim.AdamW([w], lr=case["lr"], betas=(case["beta1"], case["beta2"]), eps=case["eps"],
                                  weight_decay=case["weight_decay"], foreach=False)
    record = dict(case, start=w.tolist(), gradients=[], weights=[])
    for step in range(STEPS):
        # lengths from 1e-6 to 10, and some entries that are zero throughout
        w.grad = torch.randn(N) * 10.0 ** torch.linspace(-6, 1, N) * (torch.arange(N) != 3)
        optimizer.step()
        record["gradients"].append(w.grad.tolist())
        record["weights"].append(w.tolist())
    out["cases"].append(record)

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "adamw.json"), "w") as file:
    json.dump(out, file)
    file.write("\n")
