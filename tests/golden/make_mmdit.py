"""Golden data of tests/model/test_mmdit.c: outputs and gradients of diffusers' SD3Transformer2DModel in f64.

Weights and inputs follow from a hash of name and index that the test computes too, so the file holds only
images of the answers: outputs, and for every gradient its norm and four random projections.

  python3 tests/golden/make_mmdit.py      (needs torch, diffusers, safetensors)
"""
import math
import pathlib

import numpy as np
import torch
from diffusers import SD3Transformer2DModel
from diffusers.models import embeddings, normalization
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
BASE = dict(patch_size=2, in_channels=3, out_channels=3, attention_head_dim=8, num_attention_heads=4,
            joint_attention_dim=24, caption_projection_dim=32, pooled_projection_dim=20)
CASES = {  # configuration, height, width, context tokens
    "dual": (dict(BASE, sample_size=8, num_layers=3, pos_embed_max_size=6, dual_attention_layers=(0, 1),
                  qk_norm="rms_norm"), 8, 8, 5),
    "plain": (dict(BASE, sample_size=8, num_layers=2, pos_embed_max_size=4, dual_attention_layers=(), qk_norm=None),
              8, 8, 7),
    "crop": (dict(BASE, sample_size=16, num_layers=2, pos_embed_max_size=12, out_channels=5,
                  dual_attention_layers=(1,), qk_norm="rms_norm"), 6, 10, 4),
}
TARGETS = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj", "attn.add_k_proj",
           "attn.add_v_proj", "attn.to_add_out"]
MORE = ["attn.to_k", "attn2.to_v", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2", "ff_context.net.2"]
N, RANK, ALPHA, SETS = 3, 4, 6.0, 3


def hashed(name, shape):
    """Values in [-1, 1): FNV-1a of the name, then one integer hash per index."""
    seed = 2166136261
    for c in name.encode():
        seed = (seed ^ c) * 16777619 & 0xFFFFFFFF
    x = np.arange(math.prod(shape), dtype=np.uint64) * 0x9E3779B1 + seed & 0xFFFFFFFF
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ x >> np.uint64(shift)) * np.uint64(factor) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    return torch.from_numpy((x >> np.uint64(8)).astype(np.float64) / 2**23 - 1).reshape(shape)


def single(t):
    return t.float().double()  # what a float holds, so that both sides start from the same numbers


def value(name, shape):
    h = hashed(name, shape)
    if "norm_" in name and "linear" not in name:
        return single(1 + 0.4 * h)
    if len(shape) == 1:
        return single(0.2 * h)
    return single(h * math.sqrt(3.0 / math.prod(shape[1:])))


def exact_timesteps(t, dim, flip_sin_to_cos=False, downscale_freq_shift=1, scale=1, max_period=10000):
    """diffusers computes this in f32 whatever the model's type; the truth is in f64."""
    f = torch.exp(-math.log(max_period) * torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))
    return torch.cat([torch.cos(t[:, None].double() * f), torch.sin(t[:, None].double() * f)], -1)


def exact_rms_norm(self, x):
    """diffusers takes the mean square in f32 whatever the model's type."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def project(out, name, gradient):
    g = gradient.flatten()
    signs = [torch.sign(hashed(f"projection.{j}", g.shape)) for j in range(4)]
    out[name] = torch.stack([g.norm()] + [s @ g for s in signs])


class Lora(torch.nn.Module):
    def __init__(self, base, name):
        super().__init__()
        self.base = base
        self.a = torch.nn.Parameter(single(hashed(name + ".lora_A.weight", (RANK, base.in_features)) * 0.5))
        self.b = torch.nn.Parameter(single(hashed(name + ".lora_B.weight", (base.out_features, RANK)) * 0.5))

    def forward(self, x):
        return self.base(x) + ALPHA / RANK * (x @ self.a.T) @ self.b.T


def adapt(model, targets):
    found = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and any(name.endswith("." + t) for t in targets):
            parent, leaf = name.rsplit(".", 1)
            found[name] = Lora(module, name)
            setattr(model.get_submodule(parent), leaf, found[name])
    return found


def lora_case(out, key, model, inputs, targets, coefficient, dv):
    found = adapt(model, targets)
    v = model(**inputs).sample
    out[f"{key}.v"] = v.detach()
    params = {f"{n}.lora_{m}.weight": p for n, l in found.items() for m, p in (("A", l.a), ("B", l.b))}
    for k in range(SETS):
        loss = (coefficient[k].view(-1, 1, 1, 1) * v * dv).sum()
        for (name, _), g in zip(params.items(), torch.autograd.grad(loss, params.values(), retain_graph=True)):
            project(out, f"{key}.{k}.{name}", g)


def make(case, exact):
    config, height, width, tokens = CASES[case]
    def fresh():
        model = SD3Transformer2DModel(**config).double()
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(value(name, tuple(p.shape)))
        return model
    embeddings.get_timestep_embedding = exact_timesteps if exact else original[0]
    normalization.RMSNorm.forward = exact_rms_norm if exact else original[1]
    inputs = dict(hidden_states=single(hashed("x", (N, 3, height, width))),
                  timestep=single((hashed("t", (N,)) + 1) / 2) * 1000,
                  encoder_hidden_states=single(hashed("context", (N, tokens, 24))),
                  pooled_projections=single(hashed("pooled", (N, 20))))
    dv = single(hashed("dv", (N, config["out_channels"], height, width)))
    coefficient = single(hashed("coefficient", (SETS, N)))
    model, out = fresh(), {}
    v = model(**inputs).sample
    out[f"{case}.v"] = v.detach()
    for (name, p), g in zip(model.named_parameters(),
                            torch.autograd.grad((v * dv).sum(), model.parameters(), allow_unused=True)):
        project(out, f"{case}.full.{name}", torch.zeros_like(p) if g is None else g)
    lora_case(out, f"{case}.lora", fresh(), inputs, TARGETS, coefficient, dv)
    if case == "dual":
        lora_case(out, f"{case}.more", fresh(), inputs, MORE, coefficient, dv)
    return out


original = embeddings.get_timestep_embedding, normalization.RMSNorm.forward
if __name__ == "__main__":
    out = {}
    for case in CASES:
        golden, shipped = make(case, True), make(case, False)
        v, w = golden[f"{case}.v"], shipped[f"{case}.v"]
        print(f"{case}: |v| {v.norm():.3f}, f32 parts of diffusers differ by {(v - w).norm() / v.norm():.1e}")
        out.update(golden)
    save_file(out, HERE / "mmdit.safetensors")
