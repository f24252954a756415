"""Writes tests/golden/t5/NAME/: tiny T5 v1.1 encoders as transformers saves them, with inputs.json and expected.safetensors (the last
hidden state, computed in f64, without a mask as Stable Diffusion 3 calls it), and how far transformers itself is from it in bf16. "shards" is saved as the fp16 variant in several files.
Needs torch and transformers:
    python tests/golden/make_t5.py"""
import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel

CASES = {
    "whole": dict(d_model=24, d_kv=8, num_heads=3, d_ff=40, num_layers=2),
    "shards": dict(d_model=16, d_kv=12, num_heads=2, d_ff=24, num_layers=3, relative_attention_num_buckets=8,
                   relative_attention_max_distance=20, layer_norm_epsilon=1e-5),
}
VOCAB, TOKENS, N = 31, 45, 2
root = pathlib.Path(__file__).parent / "t5"
for name, options in CASES.items():
    torch.manual_seed(len(name))
    model = T5EncoderModel(T5Config(vocab_size=VOCAB, feed_forward_proj="gated-gelu", tie_word_embeddings=False, **options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # larger than T5's own, so that every part of the network shows
            parameter.add_(0.3 * torch.randn_like(parameter))
    if name == "shards":
        model.half().save_pretrained(root / name, variant="fp16", max_shard_size="5KB")
    else:
        model.save_pretrained(root / name)
    ids = torch.randint(3, VOCAB, (N, TOKENS))
    ids[0, 30], ids[0, 31:] = 1, 0
    with torch.no_grad():
        out = model.double()(ids)[0]
        rounded = model.bfloat16()(ids)[0].double()
    error = ((rounded - out).norm() / out.norm()).item()
    save_file({"hidden": out.contiguous()}, root / name / "expected.safetensors")
    (root / name / "inputs.json").write_text(json.dumps({"ids": ids.tolist(), "bf16_error": round(error, 5)}, separators=(",", ":")))
