"""Writes tests/golden/clip/NAME/: tiny text encoders as transformers saves them, with inputs.json and expected.safetensors
(hidden_states[-2] and the projected pooled state, computed in f64). Needs torch and transformers:
    python tests/golden/make_clip.py"""
import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

CASES = {
    "one_layer": dict(hidden_act="quick_gelu", num_hidden_layers=1, hidden_size=24, intermediate_size=40, num_attention_heads=3,
                      projection_dim=10, eos_token_id=30, bos_token_id=29, pad_token_id=30),
    "three_layers": dict(hidden_act="gelu", num_hidden_layers=3, hidden_size=32, intermediate_size=48, num_attention_heads=4,
                         projection_dim=20, layer_norm_eps=1e-6, eos_token_id=2, bos_token_id=29, pad_token_id=0),
}
VOCAB, TOKENS, N = 31, 9, 4
root = pathlib.Path(__file__).parent / "clip"
for name, options in CASES.items():
    torch.manual_seed(len(name))
    config = CLIPTextConfig(vocab_size=VOCAB, max_position_embeddings=TOKENS + 2, **options)
    model = CLIPTextModelWithProjection(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # larger than CLIP's own, so that every part of the network shows
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(root / name)
    ids = torch.randint(3, 29, (N, TOKENS))
    ids[:, 0] = 29
    ends = [TOKENS - 1, 4, 1, 6]
    for row, end in zip(ids, ends):
        row[end:] = options["pad_token_id"]
        row[end] = 30
    with torch.no_grad():
        out = model.double()(ids, output_hidden_states=True)
    save_file({"hidden": out.hidden_states[-2].contiguous(), "pooled": out.text_embeds.contiguous()}, root / name / "expected.safetensors")
    (root / name / "inputs.json").write_text(json.dumps({"ids": ids.tolist(), "end": ends}))
