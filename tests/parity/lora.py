"""Do the adapters that marble writes load in diffusers and in peft, and give marble's own velocity?
    python tests/parity/lora.py build/test_lora_file      (needs torch, diffusers, peft)"""
import pathlib
import subprocess
import sys
import tempfile

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from peft import PeftModel
from safetensors.torch import load_file


def velocity(model, case):
    with torch.no_grad():
        return model(hidden_states=case["x"], timestep=case["t"] * 1000, encoder_hidden_states=case["context"],
                     pooled_projections=case["pooled"]).sample


def base():
    return SD3Transformer2DModel.from_pretrained(folder / "base" / "transformer")


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    subprocess.run([sys.argv[1], folder], check=True)
    case = load_file(folder / "case.safetensors")
    pipe = StableDiffusion3Pipeline(transformer=base(), scheduler=FlowMatchEulerDiscreteScheduler(), vae=None,
                                    text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
                                    text_encoder_3=None, tokenizer_3=None)
    pipe.load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors")
    merged = SD3Transformer2DModel.from_pretrained(folder / "merged" / "transformer")
    for what, model, key in (("base", base(), "base"), ("diffusers", pipe.transformer, "adapted"),
                             ("peft", PeftModel.from_pretrained(base(), folder / "peft"), "adapted"),
                             ("merged", merged, "adapted")):
        theirs, ours = velocity(model, case), case[key]
        error = ((theirs - ours).norm() / ours.norm()).item()
        print(f"{what:10} velocity off by {error:.2e}")
        assert error < 1e-5, what
    change = ((case["adapted"] - case["base"]).norm() / case["base"].norm()).item()
    print(f"the adapter changes the velocity by {change:.3f}")
    assert change > 0.05
