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
    whole = json.loads(inspect(folder, "--json"))
    assert whole["class"] == "StableDiffusion3Pipeline" and sorted(whole["parts"]) == ["text_encoder", "tokenizer"], whole
    assert whole["parts"]["tokenizer"]["tokens"] == 49408, whole["parts"]["tokenizer"]
    check_tensors(whole["parts"]["text_encoder"], encoder / "model.safetensors")
    assert "text_encoder: CLIPTextModelWithProjection" in inspect(folder)
    cut = folder / "cut.safetensors"
    cut.write_bytes(types.read_bytes()[:-1])
    assert "cut.safetensors: tensor" in inspect(cut, code=1)
    (folder / "empty").mkdir()
    assert "holds neither" in inspect(folder / "empty", code=1)
assert "for checkpoints" in inspect(types, "--attribute", "config", code=2)
