"""Golden data of tests/model/test_lora_in.c: adapters on the model of the case "dual" (make_mmdit.py) as peft and diffusers
save them, and the velocities that peft's and diffusers' own loaders then give. A file with kohya's names and alphas, which
diffusers' loader of SD3 does not take, has the velocity of W + alpha / r B A.

  python3 tests/golden/make_lora_in.py      (needs torch, diffusers, peft, safetensors)
"""
import json
import pathlib
import shutil

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from diffusers.models import embeddings, normalization
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from make_mmdit import CASES, N, exact_rms_norm, exact_timesteps, hashed, single, value

HERE = pathlib.Path(__file__).parent / "lora_in"
TARGETS = ["attn.to_q", "attn.add_k_proj"]
CONFIG, HEIGHT, WIDTH, TOKENS = CASES["dual"]
embeddings.get_timestep_embedding = exact_timesteps
normalization.RMSNorm.forward = exact_rms_norm
PEFT = {
    "peft": {},
    "peft_rslora": dict(use_rslora=True),
    "peft_patterns": dict(rank_pattern={"to_q": 2, "^transformer_blocks.1.attn.add_k_proj": 5},
                          alpha_pattern={"transformer_blocks.2.attn.to_q": 1, "attn.add_k_proj": 16}),
    "peft_both": dict(use_rslora=True, rank_pattern={"to_q": 3}, alpha_pattern={"^transformer_blocks.0.attn.to_q": 2}),
    "peft_fan": dict(fan_in_fan_out=True),
    "peft_layers": dict(layers_to_transform=[1], layers_pattern="transformer_blocks",
                        target_modules=["attn.to_q", "attn2.to_v", "ff.net.2", "ff_context.net.0.proj"]),
}


def fresh():
    model = SD3Transformer2DModel(**CONFIG).double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(value(name, tuple(p.shape)))
    return model


def fill(model):
    """A and B by the hash of their names, and no other weights."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".lora_" in name:
                p.copy_(single(0.5 * hashed(name.split("transformer_blocks", 1)[1], tuple(p.shape))))
    return model


def velocity(model):
    inputs = dict(hidden_states=single(hashed("x", (N, 3, HEIGHT, WIDTH))),
                  timestep=single((hashed("t", (N,)) + 1) / 2) * 1000,
                  encoder_hidden_states=single(hashed("context", (N, TOKENS, 24))),
                  pooled_projections=single(hashed("pooled", (N, 20))))
    with torch.no_grad():
        return model(**inputs).sample.float().contiguous()


def pipeline(model):
    return StableDiffusion3Pipeline(transformer=model, scheduler=FlowMatchEulerDiscreteScheduler(), vae=None,
                                    text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
                                    text_encoder_3=None, tokenizer_3=None)


def as_floats(path):
    """The tensors of a file as f32, which hold them exactly; its metadata stays."""
    tensors = {n: t.float().contiguous() for n, t in load_file(path).items()}
    header = json.loads(path.read_bytes()[8:8 + int.from_bytes(path.read_bytes()[:8], "little")])
    save_file(tensors, path, metadata=header.get("__metadata__"))
    return tensors


def with_peft(name, more):
    config = dict(r=4, lora_alpha=6, target_modules=TARGETS, init_lora_weights="gaussian") | more
    fill(get_peft_model(fresh(), LoraConfig(**config))).save_pretrained(HERE / name)
    as_floats(HERE / name / "adapter_model.safetensors")
    (HERE / name / "README.md").unlink()
    config = HERE / name / "adapter_config.json"
    words = json.loads(config.read_text()) | more  # peft itself takes fan_in_fan_out back while it saves
    config.write_text(json.dumps(words, indent=2, sort_keys=True) + "\n")
    return velocity(PeftModel.from_pretrained(fresh(), HERE / name))


def load_in_diffusers(name):
    pipe = pipeline(fresh())
    pipe.load_lora_weights(HERE, weight_name=f"{name}.safetensors")
    return velocity(pipe.transformer)


def with_diffusers(name, metadata, **more):
    config = dict(r=4, lora_alpha=8, target_modules=TARGETS, init_lora_weights="gaussian") | more
    model = fresh()
    model.add_adapter(LoraConfig(**config))
    fill(model)
    words = {k: (sorted(v) if isinstance(v, set) else v) for k, v in model.peft_config["default"].to_dict().items()}
    StableDiffusion3Pipeline.save_lora_weights(HERE, transformer_lora_layers=get_peft_model_state_dict(model),
                                               transformer_lora_adapter_metadata=words if metadata else None,
                                               weight_name=f"{name}.safetensors")
    as_floats(HERE / f"{name}.safetensors")
    return load_in_diffusers(name)


def older_names(source, name, a, b, alpha):
    """The adapter of `source` with other names, and kohya's alphas if there are any."""
    tensors = {k.replace(".lora_A.", a).replace(".lora_B.", b): v for k, v in load_file(HERE / f"{source}.safetensors").items()}
    if alpha:
        sites = sorted({k.split(a)[0] for k in tensors if a in k})
        tensors |= {f"{s}.alpha": torch.tensor(alpha[i % len(alpha)]) for i, s in enumerate(sites)}
    save_file(tensors, HERE / f"{name}.safetensors")
    return tensors


def by_formula(tensors, a, b):
    model = fresh()
    with torch.no_grad():
        for name in [k for k in tensors if a in k]:
            site = name.split(a)[0]
            down, up = tensors[name].double(), tensors[name.replace(a, b)].double()
            model.get_submodule(site.removeprefix("transformer.")).weight += \
                tensors[f"{site}.alpha"].double() / down.shape[0] * up @ down
    return velocity(model)


def make():
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    out = {"base": velocity(fresh())}
    for name, more in PEFT.items():
        out[name] = with_peft(name, more)
    out["diffusers"] = with_diffusers("diffusers", False)
    out["diffusers_ranks"] = with_diffusers("diffusers_ranks", False, rank_pattern={"to_q": 2, "transformer_blocks.1.attn.to_q": 5})
    out["diffusers_metadata"] = with_diffusers("diffusers_metadata", True, use_rslora=True,
                                               alpha_pattern={"transformer_blocks.0.attn.to_q": 3})
    older_names("diffusers_ranks", "diffusers_old", ".lora.down.", ".lora.up.", None)
    out["diffusers_old"] = load_in_diffusers("diffusers_old")
    out["kohya"] = by_formula(older_names("diffusers", "kohya", ".lora_down.", ".lora_up.", [1.0, 6.0, 2.5]), ".lora_down.",
                              ".lora_up.")
    for name, v in out.items():
        change = ((v - out["base"]).norm() / out["base"].norm()).item()
        print(f"{name:20} moves the velocity by {change:.3f}")
    save_file(out, HERE / "velocity.safetensors")


make()
