"""Convolutions, group norm with silu, and nearest-neighbour enlargement by torch in f64, as an image decoder chains
them, for tests/ops/test_decoder_ops.c: writes decoder.json. Weights and images are in torch's order, channels first; numbers are
multiples of 1/16. Run: python make_decoder.py"""
import json
import os

import torch
import torch.nn.functional as F

torch.manual_seed(8)
N, C, H, W, OUT, GROUPS, EPS = 2, 8, 3, 5, 4, 4, 1e-6


def draw(*shape):
    return (torch.randn(*shape, dtype=torch.float64) * 16).round() / 16


x, weight, bias = draw(N, C, H, W) + 2, draw(C), draw(C)
conv3, bias3, conv1, bias1 = draw(OUT, C, 3, 3), draw(OUT), draw(OUT, C, 1, 1), draw(OUT)
hidden = F.silu(F.group_norm(x, GROUPS, weight, bias, EPS))
block = F.conv2d(x, conv1, bias1) + F.conv2d(hidden, conv3, bias3, padding=1)
large = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), conv3, bias3, padding=1)

out = {"shape": [N, C, H, W], "outputs": OUT, "groups": GROUPS, "eps": EPS}
named = {"x": x, "weight": weight, "bias": bias, "conv3": conv3, "bias3": bias3, "conv1": conv1, "bias1": bias1,
         "hidden": hidden, "block": block, "large": large}
out.update({name: tensor.flatten().tolist() for name, tensor in named.items()})
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "decoder.json"), "w") as file:
    json.dump(out, file)
    file.write("\n")
