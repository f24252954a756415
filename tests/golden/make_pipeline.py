"""Writes tests/golden/pipeline/: transformer, vae, scheduler and model_index.json of a tiny Stable Diffusion 3 folder as diffusers saves
it (its text encoders and tokenizers are those of tests/golden/prompt), and expected.safetensors: for every case the noise, the sampler's
last latents and the bytes that StableDiffusion3Pipeline makes of a prompt, in f32. "cases" of its metadata says what each was made with.
Needs torch, transformers and diffusers:
    python tests/golden/make_pipeline.py"""
import json
import pathlib
import shutil
import tempfile

import numpy
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import save_file
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

T5_TOKENS, STEPS = 28, 28
CASES = [
    {"name": "square", "guidance": 1.0, "height": 64, "width": 64},
    {"name": "guided", "guidance": 4.5, "height": 64, "width": 64, "negative": "two blue"},
    {"name": "wide", "guidance": 1.0, "height": 32, "width": 80},
    {"name": "wide_guided", "guidance": 4.5, "height": 32, "width": 80},
]
PROMPTS = ["a red sign that says \"K7\"", "Three blue circles!"]
here = pathlib.Path(__file__).parent
target = here / "pipeline"


def larger(model, scale):
    """Larger weights than fresh ones, so that every part of the network shows; what bf16 holds."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "pos_embed.pos_embed":
                parameter.add_(scale * torch.randn_like(parameter))
    return model.to(torch.bfloat16).float().eval()


torch.manual_seed(11)
text = here / "prompt"
encoders = [CLIPTextModelWithProjection.from_pretrained(text / f"text_encoder{n}", dtype=torch.float32) for n in ("", "_2")]
t5 = T5EncoderModel.from_pretrained(text / "text_encoder_3", dtype=torch.float32)
transformer = larger(SD3Transformer2DModel(
    sample_size=8, patch_size=2, in_channels=16, out_channels=16, num_layers=3, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=40,
    caption_projection_dim=16, pooled_projection_dim=20, pos_embed_max_size=12, dual_attention_layers=(0, 1), qk_norm="rms_norm"), 0.12)
vae = larger(AutoencoderKL(
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(4, 8, 8, 8), layers_per_block=1,
    norm_num_groups=2, latent_channels=16, sample_size=64, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False), 0.1)
with torch.no_grad():  # most pixels within -1 to 1, some outside
    image = vae.decode(torch.randn(2, 16, 8, 8) / 1.5305 + 0.0609).sample
    vae.decoder.conv_out.weight.mul_(0.6 / image.std())
vae.to(torch.bfloat16).float()
pipe = StableDiffusion3Pipeline(
    transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae, text_encoder=encoders[0], text_encoder_2=encoders[1],
    text_encoder_3=t5, tokenizer=CLIPTokenizer.from_pretrained(text / "tokenizer"), tokenizer_2=CLIPTokenizer.from_pretrained(text / "tokenizer_2"),
    tokenizer_3=T5TokenizerFast.from_pretrained(text / "tokenizer_3"))
# diffusers fixes CLIP's length at 77; the tokenizers of this folder say theirs
pipe.tokenizer_max_length = pipe.tokenizer.model_max_length
pipe.set_progress_bar_config(disable=True)
expected = {}
for case in CASES:
    noise = torch.randn(len(PROMPTS), 16, case["height"] // 8, case["width"] // 8)
    options = dict(prompt=PROMPTS, negative_prompt=case.get("negative"), num_inference_steps=STEPS, guidance_scale=case["guidance"],
                   height=case["height"], width=case["width"], max_sequence_length=T5_TOKENS)
    latents = pipe(latents=noise.clone(), output_type="latent", **options).images
    images = pipe(latents=noise.clone(), output_type="pil", **options).images
    pixels = numpy.stack([numpy.asarray(i) for i in images])
    expected |= {f"{case['name']}.noise": noise, f"{case['name']}.latents": latents.contiguous(), f"{case['name']}.bytes": torch.from_numpy(pixels)}
    print(case["name"], "latents", latents.std().item(), "pixels", pixels.std(), "between prompts", numpy.abs(pixels[0].astype(int) - pixels[1]).mean())
shutil.rmtree(target, ignore_errors=True)
target.mkdir()
with tempfile.TemporaryDirectory() as temporary:
    pipe.transformer.to(torch.bfloat16)
    pipe.vae.to(torch.bfloat16)
    pipe.save_pretrained(temporary)
    for name in ("model_index.json", "transformer", "vae", "scheduler"):
        source = pathlib.Path(temporary) / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target / name)
save_file(expected, target / "expected.safetensors",
          metadata={"cases": json.dumps(CASES), "prompts": json.dumps(PROMPTS), "steps": str(STEPS), "max_tokens": str(T5_TOKENS)})
