"""Writes tests/golden/types.safetensors with the safetensors package: every dtype marble reads, values by formula.
Needs torch and safetensors:  python tests/golden/make_safetensors.py"""
import json
import pathlib
import struct

import safetensors
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

# Every type of the format by its size, `__metadata__: null`, and nothing that marble would read as numbers: what the package
# takes, by its own word.
BITS = {"BOOL": 8, "I8": 8, "I16": 16, "U16": 16, "U32": 32, "U64": 64, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
        "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}
header, at = {"__metadata__": None}, 0
for name, bits in BITS.items():
    size = 4 * 3 * bits // 8
    header[name] = {"dtype": name, "shape": [4, 3], "data_offsets": [at, at + size]}
    at += size
text = json.dumps(header).encode()
content = struct.pack("<Q", len(text)) + text + bytes(i % 251 for i in range(at))
assert {n: e["dtype"] for n, e in safetensors.deserialize(content)} == {n: n for n in BITS}
(pathlib.Path(__file__).parent / "exotic.safetensors").write_bytes(content)
