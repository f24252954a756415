#!/usr/bin/env python3
"""The examples for Stable Diffusion 3.5 Medium are configurations that marble accepts, and plans say of them what the model's
published sizes come to: weights, adapters, encoders, decoder, and micro-batches that fit. No weights are needed: the folder
holds what says sizes. $1 is the marble program."""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
MARBLE = pathlib.Path(sys.argv[1]).resolve()
EXAMPLES = ROOT / "deploy/examples"
CLIP = {"eos_token_id": 2, "layer_norm_eps": 1e-05, "max_position_embeddings": 77, "vocab_size": 49408}
ENCODERS = {
    "text_encoder": CLIP | {"hidden_act": "quick_gelu", "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
                            "num_hidden_layers": 12, "projection_dim": 768},
    "text_encoder_2": CLIP | {"hidden_act": "gelu", "hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20,
                              "num_hidden_layers": 32, "projection_dim": 1280},
    "text_encoder_3": {"d_ff": 10240, "d_kv": 64, "d_model": 4096, "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-06,
                       "num_heads": 64, "num_layers": 24, "relative_attention_max_distance": 128,
                       "relative_attention_num_buckets": 32, "vocab_size": 32128}}
VAE = {"_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
       "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "force_upcast": True, "in_channels": 3,
       "latent_channels": 16, "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3, "scaling_factor": 1.5305,
       "shift_factor": 0.0609, "use_post_quant_conv": False, "use_quant_conv": False}
INDEX = {"_class_name": "StableDiffusion3Pipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
         "text_encoder": ["transformers", "CLIPTextModelWithProjection"], "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
         "text_encoder_3": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
         "tokenizer_2": ["transformers", "CLIPTokenizer"], "tokenizer_3": ["transformers", "T5TokenizerFast"],
         "transformer": ["diffusers", "SD3Transformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}
WEIGHTS, LORA, TEXT = 2469663936, 18776064, 123650304 + 694659840 + 4762310656


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def make_folder(folder):
    model = folder / "stable-diffusion-3.5-medium"
    for name, config in ENCODERS.items():
        write(model / name / "config.json", config)
    write(model / "vae/config.json", VAE)
    write(model / "model_index.json", INDEX)
    write(model / "scheduler/scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
    shutil.copytree(ROOT / "tests/golden/clip_tokens", model / "tokenizer")
    tokenizer = model / "tokenizer/tokenizer_config.json"
    write(tokenizer, json.loads(tokenizer.read_text()) | {"model_max_length": 77})
    (model / "transformer").mkdir()
    shutil.copy(EXAMPLES / "sd3.5-medium.json", model / "transformer/config.json")
    for name, line in (("pickscore/train.txt", "a {}"), ("ocr/train.txt", 'a sign that says "{}"'),
                       ("geneval/train_metadata.jsonl", '{{"prompt": "object {}", "tag": "single_object"}}')):
        path = folder / "prompts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line.format(i) + "\n" for i in range(100)))


def plan(folder, name, *options):
    run = subprocess.run([MARBLE, "plan", EXAMPLES / name, "--json", *options], cwd=folder, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"marble plan {name} {' '.join(options)}: {run.returncode}\n{run.stderr}")
    found = json.loads(run.stdout)
    return found["memory_bytes"], run.stderr, found


def tensor_flops(phase, op):
    return sum(row["flops"]["tensor"] for row in phase["ops"] if row["op"] == op)


def text_products(tokens):
    """Arithmetic of the products of one prompt: every weight of the layers times every token, and the pooled states' projection."""
    flops = 0
    for config in (ENCODERS["text_encoder"], ENCODERS["text_encoder_2"]):
        width, inner = config["hidden_size"], config["intermediate_size"]
        flops += 2 * 77 * config["num_hidden_layers"] * (4 * width**2 + 2 * width * inner) + 2 * width * config["projection_dim"]
    t5 = ENCODERS["text_encoder_3"]
    heads = t5["num_heads"] * t5["d_kv"]
    return flops + 2 * tokens * t5["num_layers"] * (4 * t5["d_model"] * heads + 3 * t5["d_model"] * t5["d_ff"])


def convolutions(side):
    """Arithmetic of the decoder's convolutions and linears for an image of side x side latents."""
    area, width = side * side, VAE["block_out_channels"][-1]
    weights = area * (9 * VAE["latent_channels"] * width + 4 * 9 * width**2 + 4 * width**2)  # conv_in, two residual blocks, attention
    for i, out in enumerate(reversed(VAE["block_out_channels"])):
        weights += area * (9 * width * out + 9 * out**2 + (width * out if width != out else 0))
        weights += VAE["layers_per_block"] * area * 2 * 9 * out**2
        if i + 1 < len(VAE["block_out_channels"]):
            area *= 4
            weights += area * 9 * out**2
        width = out
    return 2 * (weights + area * 9 * width * 3)


def near(what, found, expected, tolerance=0.01):
    if abs(found - expected) > tolerance * expected:
        sys.exit(f"{what}: found {found}, expected about {expected}")


with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch)
    make_folder(folder)
    for name in ("sd35-medium.yaml", "sd35-medium-nft.yaml", "sd35-medium-1gpu.yaml"):
        for ranks in (1, 8):
            memory, _, found = plan(folder, name, "--gpu", "h100", "--ranks", str(ranks))
            near(f"{name}: weights", memory["weights"], 2 * WEIGHTS)
            if memory["all"] > 80e9:
                sys.exit(f"{name} on {ranks} H100: {memory['all']} bytes")
            if "1gpu" not in name:
                near(f"{name}: text encoders", memory["text"], 2 * TEXT)
            if not 0 < memory["decoder"] < 3e9:
                sys.exit(f"{name}: image decoder of {memory['decoder']} bytes")
            # a hundred prompts of each file; the arithmetic by hand
            text, decoding = found["text_encoding"], next(p for p in found["phases"] if p["phase"] == "decoding images")
            files = set(re.findall(r"prompts/\w+/\w+\.(?:txt|jsonl)", (EXAMPLES / name).read_text()))
            prompts = -(-100 * len(files) // ranks)
            if text["prompts"] != prompts or not 0 < text["bound"]["h100"] < text["estimate"]["h100"]:
                sys.exit(f"{name} on {ranks}: text encoding {text['prompts']} of {prompts}, {text['bound']}, {text['estimate']}")
            at_once = min(64, prompts)
            near(f"{name}: products of text encoders", tensor_flops(text["once"], "matmul"), at_once * text_products(128), 1e-7)
            images = (tensor_flops(decoding, "conv2d") + tensor_flops(decoding, "matmul")) / convolutions(64)
            near(f"{name}: images decoded at once", images, round(images), 1e-7)
            total = sum(phase["all"]["seconds"]["h100"] * phase["times"] * phase["share"] for phase in found["phases"])
            near(f"{name}: seconds of an epoch by phase", total, found["epoch_seconds"]["h100"], 1e-6)
            share = decoding["all"]["seconds"]["h100"] * decoding["times"]
            if images < 1 or not 0 < share < 0.2 * found["epoch_seconds"]["h100"]:
                sys.exit(f"{name} on {ranks}: {images} images decoded at once, {share} s")
    # K sets of a reward's gradient and as many of masks in f64, and the same again of the sums
    memory, _, _ = plan(folder, "sd35-medium.yaml", "--gpu", "h100", "--ranks", "1")
    if not 5 * 8 * LORA < memory["gradients"] < 30 * 8 * LORA:
        sys.exit(f"gradient sets of {memory['gradients']} bytes")
    small, said, _ = plan(folder, "sd35-medium-1gpu.yaml", "--memory", "24")
    if small["all"] > 24e9 or "blocks are made again" not in said:
        sys.exit(f"24 GB: {small['all']} bytes\n{said}")
    large, said, _ = plan(folder, "sd35-medium-1gpu.yaml", "--memory", "80")
    if not small["train"] < large["train"] or "blocks are made again" in said:
        sys.exit(f"80 GB: {large}\n{said}")
    # 1,152 images on 8 to 512 GPUs: the rows, no estimate below its bound, and the fewer images the shorter
    run = subprocess.run([MARBLE, "plan", EXAMPLES / "sd35-medium.yaml", "--by-number", "--markdown"], cwd=folder, capture_output=True, text=True)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in run.stdout.splitlines() if line.startswith("| ") and line[2].isdigit()]
    if [(int(r[0]), int(r[1])) for r in rows] != [(8 << i, -(-1152 // (8 << i))) for i in range(7)]:
        sys.exit(f"plan --by-number: {run.stdout}{run.stderr}")
    times = [(float(r[3]), float(r[4])) for r in rows]
    if any(bound >= estimate for bound, estimate in times) or times != sorted(times, reverse=True) or "nccl-tests" not in run.stdout:
        sys.exit(f"plan --by-number: {run.stdout}")
    refused = subprocess.run([MARBLE, "plan", EXAMPLES / "sd35-medium.yaml", "--by-number", "--ranks", "8"], cwd=folder, capture_output=True, text=True)
    if refused.returncode != 2 or "--by-number goes with RUN.yaml" not in refused.stderr:
        sys.exit(f"plan --by-number --ranks: {refused.returncode} {refused.stderr}")
    for option in (["--merged"], ["--launch-us", "5"]):
        refused = subprocess.run([MARBLE, "plan", EXAMPLES / "sd35-medium.yaml", "--by-number", *option], cwd=folder, capture_output=True, text=True)
        if refused.returncode != 2 or "--by-number goes with RUN.yaml" not in refused.stderr:
            sys.exit(f"plan --by-number {option[0]}: {refused.returncode} {refused.stderr}")
print("three examples planned")
