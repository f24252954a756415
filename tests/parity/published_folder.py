#!/usr/bin/env python3
"""Writes a model folder in the published layout of Stable Diffusion 3.5 Medium, with random weights.

Usage: published_folder.py [--small] [--transformer bf16|f16] TOKENIZERS OUT

Names, shapes, types and files are those of the publisher's folder (16.5 GB; both sets of the text encoders' files are
there, the fp16 one as hard links); --small keeps the layout and makes every part small. TOKENIZERS is a folder with
tokenizer/, tokenizer_2/ and tokenizer_3/ as published. Sizes that can be run for real, numbers that mean nothing."""
import argparse
import json
import os
import shutil
import struct
import sys

import numpy as np

POOL = 1 << 25


class Weights:
    """Random 16-bit numbers of one size and random sign and mantissa: no tensor costs more than its copy."""

    def __init__(self, seed):
        self.pool = np.random.default_rng(seed).integers(0, 1 << 16, POOL, dtype=np.uint16)
        self.at = 0

    def take(self, count, dtype, scale):
        mantissa = {"BF16": 7, "F16": 10}[dtype]
        bias = {"BF16": 127, "F16": 15}[dtype]
        exponent = max(1, bias + int(np.floor(np.log2(max(scale, 1e-12)))))
        keep = np.uint16(0x8000 | ((1 << mantissa) - 1))
        while count > 0:
            n = min(count, POOL - self.at)
            yield (self.pool[self.at : self.at + n] & keep) | np.uint16(exponent << mantissa)
            self.at = (self.at + n) % POOL
            count -= n

    @staticmethod
    def constant(count, dtype, value):
        word = np.float32(value).view(np.uint32) >> 16 if dtype == "BF16" else np.float16(value).view(np.uint16)
        yield np.full(count, word, dtype=np.uint16)


def one_file(path, tensors, dtype, weights):
    """tensors: (name, shape, kind); kind "one" or a scale."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _ in tensors:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape, kind in tensors:
            count = int(np.prod(shape))
            parts = weights.constant(count, dtype, 1) if kind == "one" else weights.take(count, dtype, kind)
            for part in parts:
                file.write(part.tobytes())
    return at


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def linear(name, out, into, bias=True, scale=None):
    tensors = [(f"{name}.weight", (out, into), scale or 1 / np.sqrt(into))]
    return tensors + ([(f"{name}.bias", (out,), 0.02)] if bias else [])


# ---- transformer ----


def transformer_config(small):
    if not small:
        path = os.path.join(os.path.dirname(__file__), "../../deploy/examples/sd3.5-medium.json")
        with open(path, encoding="utf-8") as file:
            return json.load(file) | {"_diffusers_version": "0.31.0.dev0"}
    return {"_class_name": "SD3Transformer2DModel", "_diffusers_version": "0.31.0.dev0", "sample_size": 16, "patch_size": 2,
            "in_channels": 16, "out_channels": 16, "num_layers": 4, "attention_head_dim": 64, "num_attention_heads": 2,
            "joint_attention_dim": 256, "caption_projection_dim": 128, "pooled_projection_dim": 192,
            "pos_embed_max_size": 64, "dual_attention_layers": [0, 1], "qk_norm": "rms_norm"}


def transformer(c):
    d, head, layers = c["num_attention_heads"] * c["attention_head_dim"], c["attention_head_dim"], c["num_layers"]
    t = [("pos_embed.pos_embed", (1, c["pos_embed_max_size"] ** 2, d), 0.5),
         ("pos_embed.proj.weight", (d, c["in_channels"], c["patch_size"], c["patch_size"]), 0.1),
         ("pos_embed.proj.bias", (d,), 0.02)]
    t += linear("time_text_embed.timestep_embedder.linear_1", d, 256)
    t += linear("time_text_embed.timestep_embedder.linear_2", d, d)
    t += linear("time_text_embed.text_embedder.linear_1", d, c["pooled_projection_dim"])
    t += linear("time_text_embed.text_embedder.linear_2", d, d)
    t += linear("context_embedder", d, c["joint_attention_dim"])
    for i in range(layers):
        b, dual, last = f"transformer_blocks.{i}", i in c["dual_attention_layers"], i == layers - 1
        t += linear(f"{b}.norm1.linear", (9 if dual else 6) * d, d, scale=0.3 / np.sqrt(d))
        t += linear(f"{b}.norm1_context.linear", (2 if last else 6) * d, d, scale=0.3 / np.sqrt(d))
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0"):
            t += linear(f"{b}.attn.{name}", d, d)
        if not last:
            t += linear(f"{b}.attn.to_add_out", d, d)
        t += [(f"{b}.attn.{name}.weight", (head,), "one") for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k")]
        if dual:
            for name in ("to_q", "to_k", "to_v", "to_out.0"):
                t += linear(f"{b}.attn2.{name}", d, d)
            t += [(f"{b}.attn2.{name}.weight", (head,), "one") for name in ("norm_q", "norm_k")]
        for net in ("ff",) if last else ("ff", "ff_context"):
            t += linear(f"{b}.{net}.net.0.proj", 4 * d, d) + linear(f"{b}.{net}.net.2", d, 4 * d)
    t += linear("norm_out.linear", 2 * d, d, scale=0.3 / np.sqrt(d))
    return t + linear("proj_out", c["patch_size"] ** 2 * c["out_channels"], d)


# ---- text encoders ----


def clip_config(hidden, heads, layers, mlp, projection, act):
    return {"architectures": ["CLIPTextModelWithProjection"], "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0,
            "eos_token_id": 2, "hidden_act": act, "hidden_size": hidden, "initializer_factor": 1.0,
            "initializer_range": 0.02, "intermediate_size": mlp, "layer_norm_eps": 1e-05, "max_position_embeddings": 77,
            "model_type": "clip_text_model", "num_attention_heads": heads, "num_hidden_layers": layers, "pad_token_id": 1,
            "projection_dim": projection, "torch_dtype": "float16", "transformers_version": "4.41.2", "vocab_size": 49408}


def clip(c):
    d, mlp = c["hidden_size"], c["intermediate_size"]
    e = "text_model.embeddings"
    t = [(f"{e}.position_embedding.weight", (77, d), 0.01), (f"{e}.token_embedding.weight", (49408, d), 0.02)]
    for i in range(c["num_hidden_layers"]):
        layer = f"text_model.encoder.layers.{i}"
        for name in ("layer_norm1", "layer_norm2"):
            t += [(f"{layer}.{name}.weight", (d,), "one"), (f"{layer}.{name}.bias", (d,), 0.02)]
        t += linear(f"{layer}.mlp.fc1", mlp, d) + linear(f"{layer}.mlp.fc2", d, mlp)
        for name in ("k_proj", "out_proj", "q_proj", "v_proj"):
            t += linear(f"{layer}.self_attn.{name}", d, d)
    t += [("text_model.final_layer_norm.weight", (d,), "one"), ("text_model.final_layer_norm.bias", (d,), 0.02)]
    return t + linear("text_projection", c["projection_dim"], d, bias=False)


def t5_config(d, ff, heads, layers):
    return {"architectures": ["T5EncoderModel"], "classifier_dropout": 0.0, "d_ff": ff, "d_kv": 64, "d_model": d,
            "decoder_start_token_id": 0, "dense_act_fn": "gelu_new", "dropout_rate": 0.1, "eos_token_id": 1,
            "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0, "is_encoder_decoder": True, "is_gated_act": True,
            "layer_norm_epsilon": 1e-06, "model_type": "t5", "num_decoder_layers": layers, "num_heads": heads,
            "num_layers": layers, "output_past": True, "pad_token_id": 0, "relative_attention_max_distance": 128,
            "relative_attention_num_buckets": 32, "tie_word_embeddings": False, "torch_dtype": "float16",
            "transformers_version": "4.41.2", "use_cache": True, "vocab_size": 32128}


def t5(c):
    d, ff, heads = c["d_model"], c["d_ff"], c["num_heads"]
    t = [("shared.weight", (32128, d), 1.0)]
    for i in range(c["num_layers"]):
        block = f"encoder.block.{i}.layer"
        for name in ("q", "k", "v", "o"):  # scores are not divided by the root of the width
            scale = {"q": 0.12}.get(name, 1) / np.sqrt(d)
            shape = (d, heads * 64) if name == "o" else (heads * 64, d)
            t.append((f"{block}.0.SelfAttention.{name}.weight", shape, scale))
        if i == 0:
            t.append((f"{block}.0.SelfAttention.relative_attention_bias.weight", (32, heads), 0.5))
        t.append((f"{block}.0.layer_norm.weight", (d,), "one"))
        t += linear(f"{block}.1.DenseReluDense.wi_0", ff, d, bias=False)
        t += linear(f"{block}.1.DenseReluDense.wi_1", ff, d, bias=False)
        t += linear(f"{block}.1.DenseReluDense.wo", d, ff, bias=False)
        t.append((f"{block}.1.layer_norm.weight", (d,), "one"))
    return t + [("encoder.final_layer_norm.weight", (d,), "one")]


# ---- image decoder and encoder ----


def vae_config(channels):
    kinds = len(channels)
    return {"_class_name": "AutoencoderKL", "_diffusers_version": "0.31.0.dev0", "act_fn": "silu",
            "block_out_channels": channels, "down_block_types": ["DownEncoderBlock2D"] * kinds, "force_upcast": True,
            "in_channels": 3, "latent_channels": 16, "latents_mean": None, "latents_std": None, "layers_per_block": 2,
            "mid_block_add_attention": True, "norm_num_groups": 32, "out_channels": 3, "sample_size": 1024,
            "scaling_factor": 1.5305, "shift_factor": 0.0609, "up_block_types": ["UpDecoderBlock2D"] * kinds,
            "use_post_quant_conv": False, "use_quant_conv": False}


def conv(name, out, into, k):
    return [(f"{name}.weight", (out, into, k, k), 1 / np.sqrt(into * k * k)), (f"{name}.bias", (out,), 0.02)]


def norm(name, width):
    return [(f"{name}.weight", (width,), "one"), (f"{name}.bias", (width,), 0.02)]


def resnet(name, into, out):
    t = norm(f"{name}.norm1", into) + conv(f"{name}.conv1", out, into, 3)
    t += norm(f"{name}.norm2", out) + conv(f"{name}.conv2", out, out, 3)
    return t + (conv(f"{name}.conv_shortcut", out, into, 1) if into != out else [])


def middle(name, width):
    t = resnet(f"{name}.resnets.0", width, width) + resnet(f"{name}.resnets.1", width, width)
    t += norm(f"{name}.attentions.0.group_norm", width)
    for linear_name in ("to_q", "to_k", "to_v", "to_out.0"):
        t += linear(f"{name}.attentions.0.{linear_name}", width, width)
    return t


def vae(c):
    widths, latents = c["block_out_channels"], c["latent_channels"]
    t, into = conv("encoder.conv_in", widths[0], 3, 3), widths[0]
    for b, out in enumerate(widths):
        for r in range(2):
            t += resnet(f"encoder.down_blocks.{b}.resnets.{r}", into, out)
            into = out
        if b + 1 < len(widths):
            t += conv(f"encoder.down_blocks.{b}.downsamplers.0.conv", out, out, 3)
    t += middle("encoder.mid_block", into) + norm("encoder.conv_norm_out", into) + conv("encoder.conv_out", 2 * latents, into, 3)
    t += conv("decoder.conv_in", into, latents, 3) + middle("decoder.mid_block", into)
    for b, out in enumerate(reversed(widths)):
        for r in range(3):
            t += resnet(f"decoder.up_blocks.{b}.resnets.{r}", into, out)
            into = out
        if b + 1 < len(widths):
            t += conv(f"decoder.up_blocks.{b}.upsamplers.0.conv", out, out, 3)
    return t + norm("decoder.conv_norm_out", into) + conv("decoder.conv_out", 3, into, 3)


# ---- the folder ----


def write_transformer(out, small, dtype, weights):
    os.makedirs(f"{out}/transformer")
    config = transformer_config(small)
    write_json(f"{out}/transformer/config.json", config)
    tensors = transformer(config)
    count = sum(int(np.prod(shape)) for _, shape, _ in tensors)
    assert small or (len(tensors), count) == (909, 2469663936), (len(tensors), count)
    one_file(f"{out}/transformer/diffusion_pytorch_model.safetensors", tensors, dtype, weights)


def write_clip(out, name, config, expected, weights):
    os.makedirs(f"{out}/{name}")
    write_json(f"{out}/{name}/config.json", config)
    tensors = clip(config)
    count = sum(int(np.prod(shape)) for _, shape, _ in tensors)
    assert expected in (None, (len(tensors), count)), (len(tensors), count)
    one_file(f"{out}/{name}/model.safetensors", tensors, "F16", weights)
    os.link(f"{out}/{name}/model.safetensors", f"{out}/{name}/model.fp16.safetensors")


def write_t5(out, small, weights):
    folder = f"{out}/text_encoder_3"
    os.makedirs(folder)
    config = t5_config(256, 512, 4, 2) if small else t5_config(4096, 10240, 64, 24)
    write_json(f"{folder}/config.json", config)
    tensors = t5(config)
    first = len(tensors) // 2 if small else 113
    total, places = 0, {}
    for i, part in enumerate((tensors[:first], tensors[first:])):
        total += one_file(f"{folder}/model-0000{i + 1}-of-00002.safetensors", part, "F16", weights)
        places |= {name: i + 1 for name, _, _ in part}
        os.link(f"{folder}/model-0000{i + 1}-of-00002.safetensors", f"{folder}/model.fp16-0000{i + 1}-of-00002.safetensors")
    assert small or (len(tensors), total) == (219, 9524621312), (len(tensors), total)
    for stem, index in (("model", "model.safetensors.index.json"), ("model.fp16", "model.safetensors.index.fp16.json")):
        names = {name: f"{stem}-0000{i}-of-00002.safetensors" for name, i in sorted(places.items())}
        write_json(f"{folder}/{index}", {"metadata": {"total_size": total}, "weight_map": names})


def write_vae(out, small, weights):
    os.makedirs(f"{out}/vae")
    config = vae_config([32, 64, 64, 64] if small else [128, 256, 512, 512])
    write_json(f"{out}/vae/config.json", config)
    tensors = vae(config)
    count = sum(int(np.prod(shape)) for _, shape, _ in tensors)
    assert small or (len(tensors), count) == (244, 83819683), (len(tensors), count)
    one_file(f"{out}/vae/diffusion_pytorch_model.safetensors", tensors, "BF16", weights)


def write_rest(out, tokenizers, weights):
    os.makedirs(f"{out}/scheduler")
    write_json(f"{out}/scheduler/scheduler_config.json",
               {"_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.29.0.dev0",
                "num_train_timesteps": 1000, "shift": 3.0})
    parts = {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
             "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
             "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
             "text_encoder_3": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
             "tokenizer_2": ["transformers", "CLIPTokenizer"], "tokenizer_3": ["transformers", "T5TokenizerFast"],
             "transformer": ["diffusers", "SD3Transformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}
    write_json(f"{out}/model_index.json",
               {"_class_name": "StableDiffusion3Pipeline", "_diffusers_version": "0.31.0.dev0"} | parts)
    for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        shutil.copytree(f"{tokenizers}/{name}", f"{out}/{name}")
    for name in ("vocab.json", "merges.txt"):  # the same in both
        if not os.path.exists(f"{out}/tokenizer_2/{name}"):
            shutil.copy(f"{tokenizers}/tokenizer/{name}", f"{out}/tokenizer_2/{name}")
    # what stands beside the parts and belongs to none
    os.makedirs(f"{out}/vae copy")
    shutil.copy(f"{out}/vae/config.json", f"{out}/vae copy/config.json")
    os.makedirs(f"{out}/text_encoders")
    for path in ("sd3.5_medium.safetensors", "text_encoders/clip_l.safetensors"):
        one_file(f"{out}/{path}", [("a.tensor", (4, 4), 1.0)], "F16", weights)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--small", action="store_true", help="every part small")
    parser.add_argument("--transformer", choices=("bf16", "f16"), default="bf16", help="type of its file")
    parser.add_argument("tokenizers", metavar="TOKENIZERS")
    parser.add_argument("out", metavar="OUT")
    args = parser.parse_args()
    if os.path.exists(args.out):
        sys.exit(f"{args.out}: exists already")
    os.makedirs(args.out)
    weights = Weights(7)
    write_transformer(args.out, args.small, args.transformer.upper(), weights)
    if args.small:
        one, other = clip_config(64, 1, 2, 256, 64, "quick_gelu"), clip_config(128, 2, 2, 512, 128, "gelu")
    else:
        one, other = clip_config(768, 12, 12, 3072, 768, "quick_gelu"), clip_config(1280, 20, 32, 5120, 1280, "gelu")
    write_clip(args.out, "text_encoder", one, None if args.small else (197, 123650304), weights)
    write_clip(args.out, "text_encoder_2", other, None if args.small else (517, 694659840), weights)
    write_t5(args.out, args.small, weights)
    write_vae(args.out, args.small, weights)
    write_rest(args.out, args.tokenizers, weights)


if __name__ == "__main__":
    main()
