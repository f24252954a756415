"""Tokens of every prompt of a folder (*.txt by line, *.jsonl by "prompt") with CLIP's whole vocabulary, by marble and by
transformers' CLIPTokenizer. Needs transformers and CLIP's bpe_simple_vocab_16e6.txt.gz (in the package open_clip_torch):
    python tests/parity/clip_tokens.py build/test_tokenizer .../bpe_simple_vocab_16e6.txt.gz PROMPTS_FOLDER"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "golden"))
from make_tokens import CLIPTokenizer, full_vocabulary, write

program, vocabulary, prompts_folder = sys.argv[1:]
prompts = []
for path in sorted(pathlib.Path(prompts_folder).iterdir()):
    lines = path.read_text().split("\n")
    prompts += [json.loads(x)["prompt"] for x in lines if x] if path.suffix == ".jsonl" else [x for x in lines if x]
assert prompts and not any("\n" in p or "\0" in p for p in prompts)
with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    write(folder, *full_vocabulary(vocabulary), 77)
    ours = subprocess.run([program], input="\n".join(prompts).encode() + b"\n", stdout=subprocess.PIPE, check=True,
                          env={**os.environ, "MARBLE_TOKENIZER": name}).stdout.decode().splitlines()
    theirs = CLIPTokenizer.from_pretrained(name)(prompts, padding="max_length", truncation=True, max_length=77).input_ids
assert len(ours) == len(prompts), (len(ours), len(prompts))
wrong = [p for p, a, b in zip(prompts, ours, theirs) if [int(x) for x in a.split()] != b]
for p in wrong[:20]:
    print("differs:", repr(p))
print(f"{len(prompts) - len(wrong)} of {len(prompts)} prompts equal")
sys.exit(bool(wrong))
