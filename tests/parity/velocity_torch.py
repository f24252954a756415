#!/usr/bin/env python3
"""Times one velocity of a model folder's transformer in diffusers, in bf16 on the CPU: what `marble bench velocity` compares with.

Usage: velocity_torch.py [--size N] [--tokens N] [--threads N] [--runs N] FOLDER

Needs torch and diffusers. Prints the processor time of all threads, as `marble bench velocity --cpu-time` does."""
import argparse
import resource
import time

import torch
from diffusers import SD3Transformer2DModel


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size", type=int, default=512, help="side of the image, in pixels of a vae that makes 8 of a latent")
    parser.add_argument("--tokens", type=int, default=205)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("folder")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = SD3Transformer2DModel.from_pretrained(args.folder, subfolder="transformer", torch_dtype=torch.bfloat16).eval()
    c = model.config
    torch.manual_seed(0)
    x = torch.randn(1, c.in_channels, args.size // 8, args.size // 8, dtype=torch.bfloat16)
    context = torch.randn(1, args.tokens, c.joint_attention_dim, dtype=torch.bfloat16)
    pooled = torch.randn(1, c.pooled_projection_dim, dtype=torch.bfloat16)
    seconds = []
    with torch.inference_mode():
        for run in range(args.runs + 1):  # the first is not counted
            start = time.process_time()
            v = model(x, timestep=torch.tensor([500.0]), encoder_hidden_states=context, pooled_projections=pooled).sample
            seconds += [time.process_time() - start] * (run > 0)
    assert torch.isfinite(v).all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"torch {torch.__version__}: {1e3 * min(seconds):.0f} ms at least of {args.runs}, peak {peak:.2f} GiB")


if __name__ == "__main__":
    main()
