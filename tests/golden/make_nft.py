"""Golden data of tests/rl/test_nft_sd3.c: one step's losses and gradients of DiffusionNFT's loss (arXiv 2509.16117)
with the KL term to the base, by torch in f64 through diffusers' SD3Transformer2DModel with adapters of PEFT.

The model has what Stable Diffusion 3.5 Medium has (16 channels, heads of 64, blocks of two attentions, a last block
without text, qk_norm), only less of it. Weights, adapters and inputs follow from a hash that the test computes too
(make_mmdit.py), noise and timesteps from marble's generator, which is written anew here.

  python3 tests/golden/make_nft.py      (needs torch, diffusers, peft, safetensors)
"""
import pathlib

import numpy as np
import torch
from diffusers import SD3Transformer2DModel
from diffusers.models import embeddings, normalization
from make_mmdit import TARGETS, exact_rms_norm, exact_timesteps, hashed, project, single, value
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
CONFIG = dict(sample_size=8, patch_size=2, in_channels=16, out_channels=16, num_layers=3, attention_head_dim=64,
              num_attention_heads=1, joint_attention_dim=48, caption_projection_dim=64, pooled_projection_dim=32,
              pos_embed_max_size=6, dual_attention_layers=(0, 1), qk_norm="rms_norm")
N, K, SIDE, TOKENS, RANK, ALPHA = 4, 2, 8, 5, 4, 8
STEPS, TIMESTEPS, SHIFT = 4, 2, 3.0
SEED, STEP, FIRST = 77, 5, 100
BETA, CLIP, KL = 0.5, 5.0, 0.25
RNG_TIMESTEPS, RNG_TRAIN = 5, 6


def philox(key, counter):
    k, c = list(key), list(counter)
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [q >> 32 ^ c[1] ^ k[0], q & 0xFFFFFFFF, p >> 32 ^ c[3] ^ k[1], p & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def words(purpose, sample):
    key = [SEED & 0xFFFFFFFF, SEED >> 32 ^ purpose * 0x9E3779B9 & 0xFFFFFFFF]
    block = 0
    while True:
        yield from philox(key, [block, sample & 0xFFFFFFFF, sample >> 32, STEP])
        block += 1


def below(stream, n):
    while True:
        word = next(stream)
        if word <= 2**32 // n * n - 1:
            return word % n


def permutation(sample):
    stream, out = words(RNG_TIMESTEPS, sample), []
    for i in range(STEPS):
        j = below(stream, i + 1) if i > 0 else 0
        out.append(i)
        out[i], out[j] = out[j], i
    return out


def normal(sample, count):
    stream = words(RNG_TRAIN, sample)
    u = np.array([next(stream) >> 8 for _ in range(count)]) / 2**24
    radius, angle = np.sqrt(-2 * np.log(1 - u[0::2])), 2 * np.pi * u[1::2]
    return torch.from_numpy(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).reshape(-1))


def sigmas():
    """The first STEPS of diffusers' schedule: the shift applied to its end and to the line from 1 to there."""
    def shifted(s):
        return SHIFT * s / (1 + (SHIFT - 1) * s)
    return [shifted(s) for s in np.linspace(1, shifted(0.001), STEPS)]


def make_rows():
    """x_t, x0, t and the sample of every row."""
    x0 = single(0.6 * hashed("x0", (N, 16, SIDE, SIDE)))
    rows = []
    for slot in range(TIMESTEPS):
        for i in range(N):
            t = sigmas()[permutation(FIRST + i)[slot]]
            noise = normal(FIRST + i | slot << 40, x0[i].numel()).reshape(x0[i].shape)
            rows.append(((1 - t) * x0[i] + t * noise, x0[i], t, i))
    return [torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows]),
            torch.tensor([r[2] for r in rows], dtype=torch.float64), [r[3] for r in rows]]


def set_adapter(model, prefix):
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                short = name.removeprefix("base_model.model.").replace(".default", "")
                p.copy_(single(0.25 * hashed(prefix + short, tuple(p.shape))))


def make():
    embeddings.get_timestep_embedding = exact_timesteps
    normalization.RMSNorm.forward = exact_rms_norm
    base = SD3Transformer2DModel(**CONFIG).double()
    with torch.no_grad():
        for name, p in base.named_parameters():
            p.copy_(value(name, tuple(p.shape)))
    model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS)).double()
    xt, x0, t, of = make_rows()
    context, pooled = single(hashed("context", (N, TOKENS, 48))), single(hashed("pooled", (N, 32)))
    def velocity():
        return model(hidden_states=xt, timestep=1000 * t, encoder_hidden_states=context[of],
                     pooled_projections=pooled[of]).sample
    with torch.no_grad():
        set_adapter(model, "old.")
        v_old = velocity()
        with model.disable_adapter():
            v_ref = velocity()
    set_adapter(model, "")
    v = velocity()
    r = single(0.5 * hashed("advantage", (K, N)))[:, of] + 0.5
    sides = []
    for sign in (1, -1):
        mixed = (1 - sign * BETA) * v_old + sign * BETA * v
        wrong = xt - t.view(-1, 1, 1, 1) * mixed - x0
        scale = wrong.detach().abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-5)
        sides.append((wrong**2 / scale).mean((1, 2, 3)))
    policy = CLIP / BETA * (r * sides[0] + (1 - r) * sides[1]).mean(1)
    kl = ((v - v_ref) ** 2).mean()
    trained = {n.removeprefix("base_model.model.").replace(".default", ""): p
               for n, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * (8 * CONFIG["num_layers"] - 1), len(trained)  # the last block's to_add_out is not there
    out = {"loss": policy.mean().detach().reshape(1), "kl": kl.detach().reshape(1)}
    for k in range(K):
        gradients = torch.autograd.grad(policy[k] + KL * kl, trained.values(), retain_graph=True)
        for name, g in zip(trained, gradients):
            project(out, f"{k}.{name}", g)
        print(f"reward {k}: loss {policy[k].item():.6f}, kl {kl.item():.6f}, "
              f"|gradient| {torch.stack([g.norm() for g in gradients]).norm().item():.6f}")
    save_file(out, HERE / "nft.safetensors")


if __name__ == "__main__":
    make()
