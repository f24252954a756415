"""Does a folder made by mbl_pipeline_create load in transformers and diffusers, with equal tokens? Needs both:
    python tests/parity/fresh_folder.py build/test_pipeline build/test_tokenizer"""
import os
import pathlib
import subprocess
import sys
import tempfile

from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

make, encode = sys.argv[1:]
SENTENCES = ["a red sign that says \"K7\"", "three blue circles", "green above purple", "four yellow triangles", "", "unknown words, 42!",
             "a black sign that says \"A4\"", "caf\u00e9 \u732b \U0001f431", "one two three four five six seven eight nine ten eleven twelve"]
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    subprocess.run([make, name], check=True)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    length = tokenizer.model_max_length
    theirs = tokenizer(SENTENCES, padding="max_length", truncation=True).input_ids
    ours = subprocess.run([encode], input="\n".join(SENTENCES).encode() + b"\n", stdout=subprocess.PIPE, check=True,
                          env={**os.environ, "MARBLE_TOKENIZER": str(folder / "tokenizer")}).stdout.decode().splitlines()
    ours = [[int(x) for x in line.split()] for line in ours]
    assert ours == theirs, list(zip(ours, theirs))
    encoder = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder")
    assert encoder.config.vocab_size == len(tokenizer), (encoder.config.vocab_size, len(tokenizer))
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    assert scheduler.config.shift == 3.0
    print(f"{len(ours)} of {len(SENTENCES)} sentences equal, {len(tokenizer)} tokens, prompts of {length}; "
          f"text encoder of {sum(p.numel() for p in encoder.parameters())} parameters loads")
