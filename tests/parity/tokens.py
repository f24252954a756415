"""Ids of every prompt of a folder (*.txt by line, *.jsonl by "prompt") and of 10,000 hostile strings, by marble and by
transformers: both CLIP tokenizers and T5's of a Stable Diffusion 3 folder, as published and as transformers saves them again.
Needs transformers 5; build/test_tokenizer is marble's side:
    python tests/parity/tokens.py build/test_tokenizer SD3_FOLDER PROMPTS_FOLDER
T5TokenizerFast of transformers 5 does not follow a published tokenizer.json: it puts WhitespaceSplit where the file has Strip and
Replace. Transformers 4 and marble follow the file; so the file is compared through `tokenizers`, and T5TokenizerFast with the folder
that it saves. `tokenizers` reads a quarter of the file's scores one bit off, which shows where two ways to cut a run of one sign have
the same score; T5TokenizerFast of transformers 5 has them right, and so do marble and this comparison (by giving `tokenizers` the
scores)."""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import Tokenizer
from tokenizers.models import Unigram
from transformers import CLIPTokenizer, T5TokenizerFast

HOSTILE = 10_000


def read_prompts(folder):
    prompts = []
    for path in sorted(pathlib.Path(folder).iterdir()):
        lines = path.read_text().split("\n")
        prompts += [json.loads(x)["prompt"] for x in lines if x] if path.suffix == ".jsonl" else [x for x in lines if x]
    return prompts


def hostile(count, seed=15):
    """Strings that break tokenizers: any assigned character, what sentencepiece rewrites, marks, joiners, controls, white
    space, runs, markers and their pieces, all mixed; of the characters that this Python knows (at most Unicode 14 for marble with
    libutf8proc 2.8)."""
    r = random.Random(seed)
    assigned = [chr(c) for c in range(1, 0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    by = {}
    for c in assigned:
        by.setdefault(unicodedata.category(c), []).append(c)
    marks, spaces, controls = by["Mn"] + by["Me"] + by["Mc"], by["Zs"] + list("\t\n\r\x0b\x0c\x85\u2028\u2029"), by["Cc"] + by["Cf"]
    compat = [c for c in assigned if unicodedata.normalize("NFKC", c) != c]
    composed = [c for c in assigned if unicodedata.normalize("NFD", c) != c]
    emoji = [chr(c) for c in list(range(0x1F300, 0x1F650)) + list(range(0x1F680, 0x1F6D8)) + list(range(0x2600, 0x27C0))]
    skin, flags = [chr(c) for c in range(0x1F3FB, 0x1F400)], [chr(c) for c in range(0x1F1E6, 0x1F200)]
    hangul = [chr(c) for c in list(range(0x1100, 0x1200)) + list(range(0xAC00, 0xAD00))]
    indic = [c for c in assigned if 0x900 <= ord(c) < 0xE00 or 0x1780 <= ord(c) < 0x1800]
    words = "a photo of The CAT's don't 3.14 K7 red blue sign that says \"HELLO\" supercalifragilistic x1y2 2023".split()
    markers = ["<|startoftext|>", "<|endoftext|>", "<|STARTOFTEXT|>", "<|EndOfText|>", "</s>", "<s>", "<pad>", "<unk>", "<extra_id_0>",
               "<extra_id_99>", "<extra_id_100>", "!", "!!", "\u2581", "\u2581\u2581", "\uff1c/s\uff1e", "\uff1cunk\uff1e", "<0x41>", "\r\n", "'s", "'LL", "\ufeff"]
    kinds = [lambda: r.choice(assigned), lambda: r.choice(compat), lambda: r.choice(composed), lambda: r.choice(marks), lambda: r.choice(spaces),
             lambda: r.choice(controls), lambda: r.choice(words), lambda: r.choice(markers), lambda: r.choice(emoji) + r.choice(["", "\ufe0f", "\u200d", "\u200d" + r.choice(emoji), r.choice(skin)]),
             lambda: r.choice(flags) + r.choice(flags), lambda: r.choice(hangul), lambda: r.choice(indic), lambda: chr(r.randrange(1, 0x250)),
             lambda: unicodedata.normalize("NFD", r.choice(composed)), lambda: r.choice("aeiouAEIOU\u00e9\uff21\u2460") + "".join(r.choice(marks) for _ in range(r.randrange(1, 4))),
             lambda: r.choice(spaces + ["a", "A", "-", "\u732b", "\u0301"]) * r.randrange(1, 40), lambda: " ", lambda: "\u200d", lambda: r.choice(["\u0600", "\u0605"]) + r.choice(assigned)]
    strings = ["", " ", "  ", "\t", "\u200b", "A" * 40, "A" * 3000, "ab" * 2000, " " * 500 + "x", "x" + " " * 500, "\u0301" * 300, "e" + "\u0301\u0323" * 100,
               "\ufb01\ufdfa" * 40, "\u2581", " \u2581 a", "\u732b" * 600, "".join(chr(c) for c in range(1, 0x300))]
    strings += ["a" + c + "b" for c in controls + spaces] + ["x " + c for c in marks[::7]]
    while len(strings) < count:
        some = r.sample(kinds, r.randrange(1, 5))
        strings.append("".join(r.choice(some)() + r.choice(["", "", " "]) for _ in range(r.choice([1, 2, 3, 5, 8, 13, 40]))))
    return strings[:count]


def marble(program, folder, texts, length):
    lines = subprocess.run([program], input="".join(t.encode().hex() + "\n" for t in texts).encode(), stdout=subprocess.PIPE, check=True,
                           env={**os.environ, "MARBLE_TOKENIZER": str(folder), "MARBLE_TOKENIZER_LENGTH": str(length)}).stdout.decode().splitlines()
    assert len(lines) == len(texts), (len(lines), len(texts))
    return [[int(x) for x in line.split()] for line in lines]


def as_the_file_says(path, texts, length):
    tokenizer = Tokenizer.from_file(str(path))
    model = json.loads(pathlib.Path(path).read_text())["model"]
    tokenizer.model = Unigram([tuple(x) for x in model["vocab"]], unk_id=model["unk_id"], byte_fallback=model["byte_fallback"])
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=0, pad_token="<pad>")
    return [x.ids for x in tokenizer.encode_batch(texts)]


def by(tokenizer, texts, length):
    return tokenizer(texts, padding="max_length", truncation=True, max_length=length).input_ids


def compare(what, texts, ours, theirs):
    wrong = [(t, a, b) for t, a, b in zip(texts, ours, theirs) if a != b]
    for t, a, b in wrong[:int(os.environ.get("SHOWN", "5"))]:
        at = next(i for i, (x, y) in enumerate(zip(a, b)) if x != y)
        print("  differs:", ascii(t)[:200], "at", at, a[at:at + 6], b[at:at + 6])
    print(f"{what}: {len(texts) - len(wrong)} of {len(texts)} equal")
    return not wrong


def main(program, published, prompts_folder):
    ok, published = True, pathlib.Path(published)
    sets = {"prompts": read_prompts(prompts_folder), "hostile": hostile(HOSTILE)}
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        for name, length, kind in [("tokenizer", 77, CLIPTokenizer), ("tokenizer_2", 77, CLIPTokenizer), ("tokenizer_3", 128, T5TokenizerFast)]:
            folder = root / name
            folder.mkdir()
            for path in [*(published / "tokenizer").iterdir(), *(published / name).iterdir()]:
                if path.parent.name == name or (name == "tokenizer_2" and path.name in ("vocab.json", "merges.txt")):
                    (folder / path.name).write_bytes(path.read_bytes())
            theirs = kind.from_pretrained(folder)
            theirs.save_pretrained(root / (name + "_saved"))
            for which, texts in sets.items():
                expected = by(theirs, texts, length)
                saved = marble(program, root / (name + "_saved"), texts, length)
                ok &= compare(f"{name} saved again, {which}, length {length}", texts, saved, expected)
                found = marble(program, folder, texts, length)
                if kind is T5TokenizerFast:
                    differ = sum(a != b for a, b in zip(found, expected))
                    expected = as_the_file_says(folder / "tokenizer.json", texts, length)
                    print(f"{name} as published and as transformers 5 has it, {which}: {differ} of {len(texts)} differ")
                ok &= compare(f"{name} as published, {which}, length {length}", texts, found, expected)
    return ok


if __name__ == "__main__":
    sys.exit(not main(*sys.argv[1:]))
