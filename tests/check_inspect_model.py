#!/usr/bin/env python3
"""marble inspect on models: a whole folder, a part of it, single files, damaged ones; text and JSON."""
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

marble = sys.argv[1]
golden = pathlib.Path(__file__).parent / "golden"
BLOCK = 4 << 20


def inspect(*args, code=0):
    done = subprocess.run([marble, "inspect", *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = done.stdout.decode()
    assert done.returncode == code, (args, done.returncode, code, text)
    return text


def read(path):
    """Header entries by name, and the digest as defined in src/model/digest.h, computed here."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    sha = hashlib.sha256()
    for name, entry in sorted(header.items(), key=lambda item: item[0].encode()):
        begin, end = entry["data_offsets"]
        content = data[8 + size + begin:8 + size + end]
        sha.update(name.encode() + b"\0" + entry["dtype"].encode() + b"\0" + b"".join(b"%d," % d for d in entry["shape"]))
        for i in range(0, len(content), BLOCK):
            sha.update(hashlib.sha256(content[i:i + BLOCK]).digest())
    return header, sha.hexdigest()


def check_tensors(found, path):
    header, digest = read(path)
    assert found["digest"] == digest, (found["digest"], digest)
    listed = {t["name"]: (t["dtype"], t["shape"]) for t in found["tensors"]}
    assert listed == {n: (e["dtype"], e["shape"]) for n, e in header.items()}, listed
    assert found["bytes"] == sum(e["data_offsets"][1] - e["data_offsets"][0] for e in header.values())


types = golden / "types.safetensors"
one = json.loads(inspect(types, "--json"))
assert one["kind"] == "model", one
check_tensors(one, types)

encoder = golden / "clip" / "one_layer"
part = json.loads(inspect(encoder, "--json"))
check_tensors(part, encoder / "model.safetensors")
assert part["config"]["hidden_size"] == 24, part["config"]
text = inspect(encoder)
for wanted in (part["digest"], "hidden_size                  24", "text_projection.weight", "[10, 24]"):
    assert wanted in text, (wanted, text)

with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    shutil.copytree(encoder, folder / "text_encoder")
    shutil.copytree(golden / "clip_tokens", folder / "tokenizer")
    index = {"_class_name": "StableDiffusion3Pipeline", "_diffusers_version": "0.30.0", "vae": [None, None],
             "text_encoder": ["transformers", "CLIPTextModelWithProjection"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    text = inspect(folder, "--json", code=1)  # described, and not well: parts of it are missing
    whole = json.loads(text.splitlines()[0])
    assert whole["class"] == "StableDiffusion3Pipeline" and sorted(whole["parts"]) == ["text_encoder", "tokenizer"], whole
    assert whole["missing"] == ["transformer", "scheduler"] and "parts missing: 2, damaged: 0" in text, text
    assert whole["parts"]["tokenizer"]["tokens"] == 49408, whole["parts"]["tokenizer"]
    check_tensors(whole["parts"]["text_encoder"], encoder / "model.safetensors")
    assert "text_encoder: CLIPTextModelWithProjection" in inspect(folder, code=1)
    cut = folder / "cut.safetensors"
    cut.write_bytes(types.read_bytes()[:-1])
    assert "cut.safetensors: tensor" in inspect(cut, code=1)
    (folder / "empty").mkdir()
    assert "holds neither" in inspect(folder / "empty", code=1)
with tempfile.TemporaryDirectory() as name:  # a whole folder as it is published, and what else lies there
    folder = pathlib.Path(name)
    for source in ("prompt", "pipeline"):
        shutil.copytree(golden / source, folder, dirs_exist_ok=True)
    for extra in ("vae copy", "text_encoders", ".cache"):
        (folder / extra).mkdir()
    (folder / "README.md").write_text("a card")
    (folder / "text_encoder_3" / "model.fp16.safetensors").write_bytes(b"never opened beside model.safetensors")
    whole = json.loads(inspect(folder, "--json"))
    assert "missing" not in whole and "damaged" not in whole and "model" not in whole, whole
    assert whole["not_read"] == ["expected.safetensors", "text_encoders/", "vae copy/"], whole["not_read"]
    for part, file, kind in (("vae", "diffusion_pytorch_model", "BF16"), ("text_encoder_3", "model", "F16"), ("transformer", "diffusion_pytorch_model", "BF16")):
        found = whole["parts"][part]
        check_tensors(found, folder / part / f"{file}.safetensors")
        assert found["files"] == [f"{file}.safetensors"] and found["types"] == {kind: found["parameters"]}, found
    text = inspect(folder)
    for wanted in ("not read                     expected.safetensors\n                               text_encoders/", "vae: AutoencoderKL", whole["parts"]["vae"]["digest"],
                   "files                        diffusion_pytorch_model.safetensors"):
        assert wanted in text, (wanted, text)
    assert "conv_in" not in text, text  # thousands of tensors are for a part alone, or --json
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    shutil.rmtree(folder / "text_encoder_2")
    config = json.loads((folder / "transformer" / "config.json").read_text())
    medium = {"num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64, "in_channels": 16, "out_channels": 16, "joint_attention_dim": 4096,
              "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 384, "sample_size": 128, "dual_attention_layers": list(range(13))}
    (folder / "transformer" / "config.json").write_text(json.dumps(config | medium))
    text = inspect(folder, "--json", code=1)
    whole = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    assert whole["missing"] == ["text_encoder_2"] and len(whole["damaged"]) == 1 and "vae" in whole["damaged"][0], whole
    assert whole["model"] == "Stable Diffusion 3.5 Medium", whole["model"]
    large = medium | {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "pos_embed_max_size": 192, "dual_attention_layers": []}
    (folder / "transformer" / "config.json").write_text(json.dumps(config | large))
    assert ", Stable Diffusion 3.5 Large\n" in inspect(folder, code=1)
    (folder / "transformer" / "config.json").write_text(json.dumps(config | medium | {"dual_attention_layers": [], "qk_norm": None, "pos_embed_max_size": 192}))
    assert ", Stable Diffusion 3 Medium\n" in inspect(folder, code=1)
assert "for checkpoints" in inspect(types, "--attribute", "config", code=2)
