"""Writes tests/golden/guidance/: a LoRA for the tiny Stable Diffusion 3 folder of tests/golden/pipeline and tests/golden/prompt as diffusers saves
it, and expected.safetensors: noise, and the sampler's last latents and the bytes that StableDiffusion3Pipeline makes of a prompt in f32, with
guidance and skipped layers ("skipped") and with guidance and the LoRA ("adapted"). Needs torch, transformers, diffusers and peft:
    python tests/golden/make_guidance.py"""
import json
import pathlib
import shutil
import tempfile

import numpy
import torch
from diffusers import StableDiffusion3Pipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

HEIGHT, WIDTH, STEPS, TOKENS, PROMPT = 32, 48, 12, 28, "Three blue circles!"
SKIP = dict(skip_guidance_layers=[1], skip_layer_guidance_scale=2.8, skip_layer_guidance_start=0.05, skip_layer_guidance_stop=0.5)
here = pathlib.Path(__file__).parent
target = here / "guidance"
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name) / "model"
    shutil.copytree(here / "prompt", folder)
    shutil.copytree(here / "pipeline", folder, dirs_exist_ok=True)
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, torch_dtype=torch.float32)
pipe.tokenizer_max_length = pipe.tokenizer.model_max_length
pipe.set_progress_bar_config(disable=True)
torch.manual_seed(5)
noise = torch.randn(1, 16, HEIGHT // 8, WIDTH // 8)
options = dict(prompt=PROMPT, num_inference_steps=STEPS, guidance_scale=4.5, height=HEIGHT, width=WIDTH, max_sequence_length=TOKENS)
tensors = {"noise": noise}


def draw(name, **more):
    with torch.no_grad():
        latents = pipe(latents=noise.clone(), output_type="latent", **options, **more).images
        image = pipe(latents=noise.clone(), output_type="pil", **options, **more).images[0]
    tensors[f"{name}.latents"] = latents.contiguous()
    tensors[f"{name}.bytes"] = torch.from_numpy(numpy.asarray(image).copy())
    print(name, "apart from plain by", ((latents - tensors["plain.latents"]).norm() / latents.norm()).item())


tensors["plain.latents"] = pipe(latents=noise.clone(), output_type="latent", **options).images.contiguous()
draw("skipped", **SKIP)
pipe.transformer.add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=["attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj"]))
with torch.no_grad():
    for key, parameter in pipe.transformer.named_parameters():
        if "lora_B" in key:
            parameter.copy_(0.3 * torch.randn_like(parameter))
shutil.rmtree(target, ignore_errors=True)
StableDiffusion3Pipeline.save_lora_weights(target, transformer_lora_layers=get_peft_model_state_dict(pipe.transformer), weight_name="lora.safetensors",
                                           transformer_lora_adapter_metadata=pipe.transformer.peft_config["default"].to_dict())
draw("adapted")
save_file(tensors, target / "expected.safetensors", metadata={"prompt": PROMPT, "about": json.dumps(dict(steps=STEPS, tokens=TOKENS, **SKIP))})
