"""Writes tests/golden/prompt/: the text side of a tiny Stable Diffusion 3 folder as diffusers saves it (two CLIP text encoders and T5
with their tokenizers, f16), prompts, and expected.safetensors: what StableDiffusion3Pipeline.encode_prompt makes of them in f64.
Needs torch, transformers and diffusers:
    python tests/golden/make_prompt.py"""
import json
import pathlib
import shutil
import tempfile

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

CLIP_TOKENS, T5_TOKENS = 20, 28
PROMPTS = ["", "a red sign that says \"K7\"", "Three blue circles!", "one two three four five six seven eight nine ten eleven twelve "
           "thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty", "caf\u00e9 \uff21\uff22 \U0001f431 <|endoftext|> <extra_id_0> </s> !"]
here = pathlib.Path(__file__).parent
target = here / "prompt"


def clip_tokenizer(folder, pad):
    """Single bytes and a few words."""
    codes = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters = [chr(c) for c in codes] + [chr(256 + i) for i in range(256 - len(codes))]
    vocab, merges = letters + [x + "</w>" for x in letters], []
    for word in ("red", "sign", "three", "blue", "two", "teen"):
        done = word[0]
        for i, c in enumerate(word[1:], 1):
            right = c + ("</w>" if i + 1 == len(word) else "")
            if f"{done} {right}" not in merges:
                merges.append(f"{done} {right}")
                vocab.append(done + right)
            done += c
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(dict.fromkeys(vocab))}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(m + "\n" for m in merges))
    return CLIPTokenizer.from_pretrained(folder, pad_token=pad, model_max_length=CLIP_TOKENS)


def larger(model):
    """Larger weights than fresh ones, so that every part of the network shows; what f16 holds."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.half().eval()


def clip(tokenizer, **options):
    config = CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=CLIP_TOKENS, eos_token_id=2, bos_token_id=0, pad_token_id=1, **options)
    return larger(CLIPTextModelWithProjection(config))


torch.manual_seed(7)
shutil.rmtree(target, ignore_errors=True)
with tempfile.TemporaryDirectory() as temporary:
    tokenizers = [clip_tokenizer(pathlib.Path(temporary) / str(i), pad) for i, pad in enumerate(("<|endoftext|>", "!"))]
t5_tokenizer = T5TokenizerFast.from_pretrained(here / "t5_tokens", extra_ids=0)
t5 = T5EncoderModel(T5Config(vocab_size=336, feed_forward_proj="gated-gelu", d_model=40, d_kv=8, num_heads=3, d_ff=24, num_layers=2, tie_word_embeddings=False))
pipe = StableDiffusion3Pipeline(
    transformer=SD3Transformer2DModel(sample_size=4, in_channels=16, num_layers=1, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=40,
                                      caption_projection_dim=16, pooled_projection_dim=20, out_channels=16, pos_embed_max_size=8),
    scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=None,
    text_encoder=clip(tokenizers[0], hidden_act="quick_gelu", num_hidden_layers=2, hidden_size=16, intermediate_size=24, num_attention_heads=2, projection_dim=12),
    text_encoder_2=clip(tokenizers[1], hidden_act="gelu", num_hidden_layers=3, hidden_size=12, intermediate_size=20, num_attention_heads=3, projection_dim=8),
    text_encoder_3=larger(t5), tokenizer=tokenizers[0], tokenizer_2=tokenizers[1], tokenizer_3=t5_tokenizer)
with tempfile.TemporaryDirectory() as temporary:
    pipe.save_pretrained(temporary)
    for name in ["model_index.json", *[f"{part}{n}" for part in ("tokenizer", "text_encoder") for n in ("", "_2", "_3")]]:
        source = pathlib.Path(temporary) / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, (target.mkdir(exist_ok=True), target / name)[1])
for encoder in (pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3):
    encoder.double()
with torch.no_grad():
    embeds, _, pooled, _ = pipe.encode_prompt(PROMPTS, None, None, do_classifier_free_guidance=False, max_sequence_length=T5_TOKENS)
assert embeds.shape == (len(PROMPTS), CLIP_TOKENS + T5_TOKENS, 40) and pooled.shape == (len(PROMPTS), 20), (embeds.shape, pooled.shape)
save_file({"context": embeds.float().contiguous(), "pooled": pooled.float().contiguous()}, target / "expected.safetensors")
(target / "prompts.json").write_text(json.dumps({"max_tokens": T5_TOKENS, "prompts": PROMPTS}))
