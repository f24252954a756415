"""Writes tests/golden/types.safetensors with the safetensors package: every dtype marble reads, values by formula.
Needs torch and safetensors:  python tests/golden/make_safetensors.py"""
import pathlib

import torch
from safetensors.torch import save_file

ramp = torch.arange(24, dtype=torch.float64) * 0.375 - 3.5
tensors = {
    "f64": ramp.reshape(2, 3, 4),
    "f32": ramp.float().reshape(4, 6),
    "bf16": ramp.bfloat16().reshape(24),
    "f16": torch.tensor([0.0, -0.0, 1.0, -2.5, 65504.0, 2.0**-24, 3 * 2.0**-20, float("inf"), float("-inf"), float("nan")],
                        dtype=torch.float16),
    "i64": torch.arange(-2, 4, dtype=torch.int64) * 2**40,
    "i32": torch.arange(-2, 4, dtype=torch.int32).reshape(6, 1),
    "u8": torch.arange(250, 256, dtype=torch.uint8),
    "scalar": torch.tensor(1.25),
    "empty": torch.zeros(0, 5),
}
save_file(tensors, pathlib.Path(__file__).parent / "types.safetensors", metadata={"format": "pt", "naïve": "ünïcode"})
