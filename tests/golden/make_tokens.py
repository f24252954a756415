"""Writes tests/golden/clip_tokens/: sentences and hostile strings, the part of CLIP's vocabulary they need, and their ids by
transformers' CLIPTokenizer of both text encoders of Stable Diffusion 3; and t5_tokens/: a small tokenizer of T5's structure
(precompiled charsmap, Metaspace, Unigram, added tokens), trained here on the same sentences, and their ids by `tokenizers`. Needs
transformers 5, sentencepiece and a tokenizer/ with CLIP's vocab.json and merges.txt:
    python tests/golden/make_tokens.py SD3_FOLDER/tokenizer"""
import base64
import io
import json
import pathlib
import sys
import tempfile
import unicodedata

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "parity"))
import sentencepiece
from tokens import hostile
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import CLIPTokenizer

LENGTH, HOSTILE = 24, 150
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
    b"4k, 8K, HDR, f/1.8, 35mm", b"--ar 16:9 --v 5", b"(masterpiece:1.2), [[best]] quality",
    b"control \x01\x02 \x7f bytes", b"A store front with 'Diffusion' written on it.", b"the word \"START\" on a blue t-shirt", b"dr. who's t.a.r.d.i.s., 1963-2023",
    "\u00c0\u00c9\u00ce\u00d5\u00dc \u0100\u0101\u010c\u010d\u0141\u0142 \u01c4\u01c5 \u1e00".encode(), "\u1ec7 e\u0323\u0302 \u1e69 s\u0307\u0323".encode(), "\u10a0\u13a0\u2c00\ua640\U00010400".encode(), b"z" * 3000 + b" end",
]



def special(pad):
    """tokenizer_config.json of a published tokenizer/ (pad <|endoftext|>) or tokenizer_2/ (pad !)."""
    names = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": pad, "unk_token": "<|endoftext|>"}
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "special": True}
    added = {"49406": {"content": "<|startoftext|>", "normalized": True, **flags}, "49407": {"content": "<|endoftext|>", "normalized": False, **flags}}
    if pad == "!":
        added["0"] = {"content": "!", "normalized": False, **flags}
    return {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "added_tokens_decoder": added, **names}


def write(folder, vocab, merges, pad):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(m + "\n" for m in merges))
    (folder / "tokenizer_config.json").write_text(json.dumps(special(pad)))


def encode(folder, texts):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
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


def make_clip(source, texts, target):
    vocab = json.loads((source / "vocab.json").read_text())
    merges = [m for m in (source / "merges.txt").read_text().split("\n") if m and not m.startswith("#version")]
    ids = {}
    with tempfile.TemporaryDirectory() as name:
        for pad in ("<|endoftext|>", "!"):
            write(pathlib.Path(name) / pad[:1], vocab, merges, pad)
            ids[pad] = encode(pathlib.Path(name) / pad[:1], texts)
        small, few = needed(vocab, merges, ids["<|endoftext|>"] + ids["!"])
        for pad in ("!", "<|endoftext|>"):  # the second stays
            write(target, small, few, pad)
            # The cut vocabulary may lack a merge that the cut-off tail of a long sentence uses; the visible ids must not change.
            for s, a, b in zip(texts, ids[pad], encode(target, texts)):
                assert a == b, (s, a, b)
    (target / "config_2.json").write_text(json.dumps(special("!")))
    cases = []
    for t, a, b in zip(texts, ids["<|endoftext|>"], ids["!"]):
        a = trimmed(a, 49407)
        b = trimmed(b, 0)
        cases.append({"hex": t.encode().hex(), "ids": a, **({"ids_2": b} if b != a + [49407] else {})})
    return cases


def trimmed(ids, pad):
    """Without the padding behind; CLIP's is its end token, which goes with it."""
    n = len(ids)
    while n and ids[n - 1] == pad:
        n -= 1
    return ids[:n]


def charsmap_rules():
    """What nmt_nfkc does, for as many characters as make a small file."""
    some = [chr(c) for r in [(0xA0, 0x180), (0x2460, 0x2470), (0xFF01, 0xFF40), (0xFB00, 0xFB07), (0x1EC0, 0x1ED0), (0xAC00, 0xAC10)] for c in range(*r)]
    some += list("\u2126\u212b\ufdfa\u2026\u2122\u00bd\u2167\uf900")
    rules = {}
    for c in some:
        to = unicodedata.normalize("NFKC", c)
        for form in {c, unicodedata.normalize("NFD", c)}:
            if form != to:
                rules[form] = to
    for c in [*range(1, 9), 0xB, *range(0xE, 0x20), 0x7F, 0x8F, 0x9F]:
        rules[chr(c)] = ""
    for c in "\t\n\x0c\r\u00a0\u1680\u2000\u2003\u200b\u200e\u2028\u2029\u3000\ufeff":
        rules[c] = " "
    return "".join(" ".join(f"{ord(x):X}" for x in a) + "\t" + " ".join(f"{ord(x):X}" for x in b) + "\n" for a, b in sorted(rules.items()))


def train(texts):
    """Pieces with scores, and the charsmap, as sentencepiece writes it."""
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write(charsmap_rules())
        rules.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts * 3), model_writer=model, model_type="unigram", vocab_size=420, character_coverage=0.98, hard_vocab_limit=False,
            normalization_rule_tsv=rules.name, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, num_threads=1, max_sentence_length=20000)
    from sentencepiece import sentencepiece_model_pb2
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    return [(p.piece, p.score if p.type == 1 else 0.0) for p in proto.pieces], base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()


def make_t5(texts, target):
    vocab, charsmap = train([s.decode() for s in SENTENCES if 0 < len(s) < 500 and b"\n" not in s])
    vocab += [(f"<extra_id_{i}>", 0.0) for i in (2, 1, 0)] + [(f"<0x{b:02X}>", -30.0) for b in "\u9be8\u9c3b".encode()[:5]]
    vocab = list(dict(vocab).items())
    metaspace = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always", split=True)
    ids = {}
    for form in ("split", "bytes", "file"):  # the last one is written
        tokenizer = Tokenizer(Unigram(vocab, unk_id=2, byte_fallback=form == "bytes"))
        steps = [normalizers.Precompiled(base64.b64decode(charsmap))]
        if form != "split":
            steps += [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "\u2581")]
        tokenizer.normalizer = normalizers.Sequence(steps)
        tokenizer.pre_tokenizer = metaspace if form != "split" else pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
        tokenizer.add_special_tokens([AddedToken(x, normalized=False) for x in ("<pad>", "</s>", "<unk>")] +
                                     [AddedToken(f"<extra_id_{i}>", normalized=False, lstrip=True, rstrip=True) for i in (2, 1, 0)] +
                                     [AddedToken("Big Thing", normalized=True), AddedToken("\uff21\uff22", normalized=True, rstrip=True)])
        target.mkdir(parents=True, exist_ok=True)
        # Before padding and truncation, as transformers saves it; compact.
        (target / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")))
        tokenizer.enable_truncation(LENGTH)
        tokenizer.enable_padding(length=LENGTH, pad_id=0, pad_token="<pad>")
        ids[form] = [x.ids for x in tokenizer.encode_batch(texts)]
    (target / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5TokenizerFast", "model_max_length": LENGTH, "pad_token": "<pad>"}))
    return [{"hex": t.encode().hex(), **{form: trimmed(ids[form][i], 0) for form in ids if form == "file" or ids[form][i] != ids["file"][i]}} for i, t in enumerate(texts)]


def save(target, cases):
    with open(target / "cases.json", "w") as file:
        json.dump({"length": LENGTH, "cases": cases}, file, separators=(",", ":"))


if __name__ == "__main__":
    here = pathlib.Path(__file__).parent
    texts = [s.decode() for s in SENTENCES] + hostile(10_000)[20:20 + HOSTILE // 3] + hostile(10_000)[-2 * HOSTILE // 3:]
    texts += ["a Big Thing, a big thing", "\uff21\uff22 AB  ABC", "x <extra_id_0> y<extra_id_2><extra_id_1>  z", "\u9be8 \u9c3b \u9be8\u9be8 a\u9be8\u9c3b\u9be8 <0xE9>", "-" * 28, "A" * 40]
    texts = [t for t in dict.fromkeys(texts) if "\0" not in t]
    save(here / "clip_tokens", make_clip(pathlib.Path(sys.argv[1]), texts, here / "clip_tokens"))
    save(here / "t5_tokens", make_t5(texts, here / "t5_tokens"))
    print(len(texts), "strings")
