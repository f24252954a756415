"""Does a LoRA that marble trained draw the same images in diffusers? A tiny Stable Diffusion 3.5 folder (tests/golden) is fine-tuned for a
few steps, its LoRA exported, and both draw from the same noise, with guidance:
    python tests/parity/lora_images.py build/marble      (needs torch, diffusers, transformers, peft)"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image
from safetensors.torch import load_file

STEPS, GUIDANCE, TOKENS, PROMPTS = 28, 4.5, 28, ["a red sign that says \"K7\"", "Three blue circles!"]
SIZES = [(64, 64), (48, 80)]
marble = pathlib.Path(sys.argv[1]).resolve()
golden = pathlib.Path(__file__).resolve().parent.parent / "golden"


def run(*words):
    subprocess.run([marble, *map(str, words)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)


with tempfile.TemporaryDirectory() as name:
    work = pathlib.Path(name)
    model = work / "model"
    shutil.copytree(golden / "prompt", model)
    shutil.copytree(golden / "pipeline", model, dirs_exist_ok=True)
    (work / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    (work / "run.yaml").write_text(json.dumps({  # JSON is YAML
        "precision": "f32", "model": {"path": "model", "lora": {"rank": 4, "alpha": 8}},
        "prompts": {"source": "file", "train": "prompts.txt", "test": "prompts.txt", "groups": 2, "group_size": 4, "max_tokens": TOKENS},
        "rollout": {"steps": 4, "micro_batch": 4}, "train": {"steps": 3, "lr": 0.02, "micro_batch": 4}, "rewards": [{"name": "jpeg"}],
        "eval": {"every": 0, "prompts": 2, "steps": 2}}))
    run("train", work / "run.yaml", "--out", work / "run")
    checkpoint = work / "run" / "checkpoints" / "latest.h5"
    run("export", checkpoint, "--lora", work / "lora.safetensors")
    pipe = StableDiffusion3Pipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipe.tokenizer_max_length = pipe.tokenizer.model_max_length
    pipe.set_progress_bar_config(disable=True)

    def theirs(noise, height, width):
        with torch.no_grad():
            images = pipe(prompt=PROMPTS, height=height, width=width, num_inference_steps=STEPS, guidance_scale=GUIDANCE, latents=noise,
                          max_sequence_length=TOKENS, output_type="pil").images
        return numpy.stack([numpy.asarray(image) for image in images]).astype(float)

    drawn = {}
    for height, width in SIZES:
        out, file = work / f"images-{width}", work / f"drawn-{width}.safetensors"
        run("sample", "--checkpoint", checkpoint, "--prompts", work / "prompts.txt", "--steps", STEPS, "--sampler", "euler", "--guidance", GUIDANCE,
            "--height", height, "--width", width, "--latents", file, "--out", out)
        images = numpy.stack([numpy.asarray(Image.open(out / f"{i:03}.png")) for i in range(len(PROMPTS))]).astype(float)
        noise = load_file(file)["noise"]
        drawn[height, width] = images, noise, theirs(noise, height, width)
    pipe.load_lora_weights(work, weight_name="lora.safetensors")
    for (height, width), (ours, noise, base) in drawn.items():
        images = theirs(noise, height, width)
        error, change = numpy.abs(ours - images).mean(), numpy.abs(base - images).mean()
        print(f"{height} x {width}: pixels off by {error:.3f} of 255; the LoRA moves them by {change:.2f}")
        assert error < 0.5 and change > 1
