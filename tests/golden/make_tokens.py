"""Writes tests/golden/clip_tokens/: sentences, the part of CLIP's vocabulary they need, and their ids by transformers'
CLIPTokenizer. Needs transformers and CLIP's bpe_simple_vocab_16e6.txt.gz (the package open_clip_torch carries it):
    python tests/golden/make_tokens.py .../bpe_simple_vocab_16e6.txt.gz"""
import gzip
import json
import pathlib
import sys
import tempfile

from transformers import CLIPTokenizer

LENGTH = 24
SENTENCES = [b"", b" ", b"\t\r\n ", b"a red sign that says \"K7\"", b"three blue circles", b"green above purple",
    b"A photo of 2 cats, sitting!", b"The cat's toy isn't where they've left it; I'm sure we'll see he'd say you're right.",
    b"IT'S ALL'S WELL THAT'S 'S", b"''s '' 's'", b"don''t", b"rock 'n' roll", b"1234567890 3.14159 1/2 50% $9.99", b"x1y2z3",
    b"multiple    spaces   and\ttabs\nnewlines", b"  leading and trailing  ", "caf\u00e9 na\u00efve r\u00e9sum\u00e9 \u00dcBER \u00c5ngstr\u00f6m".encode(),
    "cafe\u0301 nai\u0308ve U\u0308BER".encode(), "\u0130stanbul \u0131\u015f\u0131k".encode(), "\u03a3\u0399\u03a3\u03a5\u03a6\u039f\u03a3 \u039f\u0394\u03a5\u03a3\u03a3\u0395\u0391\u03a3".encode(),
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u041c\u0418\u0420!".encode(), "\u732b\u304c\u5ea7\u3063\u3066\u3044\u308b\u3002".encode(), "\u4e00\u53ea\u7ea2\u8272\u7684\u732b".encode(),
    "\uac15\uc544\uc9c0 \u1100\u1161\u11a8".encode(), "\u0645\u0631\u062d\u0628\u0627 \u0661\u0662\u0663".encode(), "\u0928\u092e\u0938\u094d\u0924\u0947 \u0967\u0968".encode(),
    "a cat \U0001f431 and a dog \U0001f436!!".encode(), "\U0001f468\u200d\U0001f469\u200d\U0001f467 family".encode(), "\u2764\ufe0f love \u2122 \u00a9".encode(),
    "\u201csmart quotes\u201d \u2018single\u2019 it\u2019s \u2026 \u2014 \u2013".encode(), "no\u00a0break\u2003em\u3000wide\u0085next".encode(), "\u00bd \u00b2 \u2167 \u2460 \u0663".encode(),
    "\u2126 \u212b \uf900 \ufb01 \u00df \u1e9e".encode(), "zero\u200bwidth \ufeffbom soft\u00adhyphen".encode(), "\u0344 \u0958 \U0001d15f".encode(),
    b"<|startoftext|> inside", b"before<|endoftext|>after", b"<|STARTOFTEXT|>!", b"!<|EndOfText|>!?", b"<|endoftext|><|endoftext|>", b"<|endoftext", b"a<|b|>c",
    b"supercalifragilisticexpialidocious antidisestablishmentarianism", b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    b"one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty twenty-one twenty-two",
    b"one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty five six",
    b"#hashtag @user http://example.com/path?q=1&r=2", b"C++ && f(x) = x^2 - [y_1] {z} ~ `code` \\ |", b"...!!!???---===", b"snake_case CamelCase kebab-case",
    b"4k, 8K, HDR, f/1.8, 35mm", b"--ar 16:9 --v 5", b"(masterpiece:1.2), [[best]] quality", b"bro\xffken \xc3( \xe2\x82 \xf0\x9f\x90 utf-8 \x80\xbf", b"\xed\xa0\x80 surrogate \xc0\xaf overlong \xf4\x90\x80\x80",
    b"control \x01\x02 \x7f bytes", b"A store front with 'Diffusion' written on it.", b"the word \"START\" on a blue t-shirt", b"dr. who's t.a.r.d.i.s., 1963-2023",
    "\u00c0\u00c9\u00ce\u00d5\u00dc \u0100\u0101\u010c\u010d\u0141\u0142 \u01c4\u01c5 \u1e00".encode(), "\u1ec7 e\u0323\u0302 \u1e69 s\u0307\u0323".encode(), "\u10a0\u13a0\u2c00\ua640\U00010400".encode(), b"z" * 3000 + b" end",
]


def full_vocabulary(path):
    lines = gzip.open(path).read().decode().split("\n")[1:49152 - 256 - 2 + 1]
    codes = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters = [chr(c) for c in codes]
    letters += [chr(256 + i) for i in range(256 - len(codes))]
    vocab = letters + [x + "</w>" for x in letters] + ["".join(m.split()) for m in lines] + ["<|startoftext|>", "<|endoftext|>"]
    return {t: i for i, t in enumerate(vocab)}, lines


def write(folder, vocab, merges, length):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(m + "\n" for m in merges))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": length, **special}))


def encode(folder, sentences):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    texts = [s.decode("utf-8", "replace") for s in sentences]
    return tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH).input_ids


def needed(vocab, merges, ids):
    """Tokens used, with everything they are merged from; merges keep their order, ids their numbers."""
    by_result = {}
    for m in merges:
        by_result.setdefault(m.replace(" ", ""), m)
    names = {i: t for t, i in vocab.items()}
    keep = {t for t, i in vocab.items() if i < 512 or i >= len(vocab) - 2}
    stack = [names[i] for row in ids for i in row]
    while stack:
        token = stack.pop()
        if token in by_result and token not in keep:
            stack += by_result[token].split(" ")
        keep.add(token)
    return {t: i for t, i in vocab.items() if t in keep}, [m for m in merges if {*m.split(" "), m.replace(" ", "")} <= keep]


if __name__ == "__main__":
    target = pathlib.Path(__file__).parent / "clip_tokens"
    vocab, merges = full_vocabulary(sys.argv[1])
    with tempfile.TemporaryDirectory() as full:
        write(pathlib.Path(full), vocab, merges, LENGTH)
        ids = encode(full, SENTENCES)
    small, few = needed(vocab, merges, ids)
    write(target, small, few, LENGTH)
    again = encode(target, SENTENCES)
    # The cut vocabulary may lack a merge that the cut-off tail of a long sentence uses; the visible ids must not change.
    for s, a, b in zip(SENTENCES, ids, again):
        assert a == b, (s, a, b)
    with open(target / "cases.json", "w") as file:
        json.dump({"length": LENGTH, "cases": [{"hex": s.hex(), "ids": i} for s, i in zip(SENTENCES, ids)]}, file, separators=(",", ":"))
    print(len(SENTENCES), "sentences,", len(small), "tokens,", len(few), "merges")
