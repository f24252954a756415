"""Golden data of tests/model/test_lora_file.c: the tensors that diffusers and peft themselves save for a LoRA of rank 4 on
the transformer of the case "dual" (tests/mmdit_case.h): every name with its shape.

  python3 tests/golden/make_lora.py      (needs torch, diffusers, peft, safetensors)
"""
import json
import pathlib
import tempfile

from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open

TARGETS = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj", "attn.add_k_proj",
           "attn.add_v_proj", "attn.to_add_out"]
CONFIG = LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, init_lora_weights="gaussian")


def fresh():
    return SD3Transformer2DModel(patch_size=2, in_channels=3, out_channels=3, attention_head_dim=8, num_attention_heads=4,
                                 joint_attention_dim=24, caption_projection_dim=32, pooled_projection_dim=20, sample_size=8,
                                 num_layers=3, pos_embed_max_size=6, dual_attention_layers=(0, 1), qk_norm="rms_norm")


def shapes(path):
    with safe_open(path, "pt") as file:
        return {name: list(file.get_slice(name).get_shape()) for name in sorted(file.keys())}


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    model = fresh()
    model.add_adapter(CONFIG)
    StableDiffusion3Pipeline.save_lora_weights(folder, transformer_lora_layers=get_peft_model_state_dict(model))
    get_peft_model(fresh(), CONFIG).save_pretrained(folder / "peft")
    out = {"diffusers": shapes(folder / "pytorch_lora_weights.safetensors"),
           "peft": shapes(folder / "peft" / "adapter_model.safetensors")}
lines = ["{"]
for i, (kind, names) in enumerate(out.items()):
    lines.append(f'"{kind}": {{')
    lines += [f'  "{n}": {json.dumps(s)}{"," if j + 1 < len(names) else ""}' for j, (n, s) in enumerate(names.items())]
    lines.append("}" + ("," if i == 0 else ""))
(pathlib.Path(__file__).parent / "lora.json").write_text("\n".join(lines + ["}"]) + "\n")
