"""Golden data of tests/base/test_unicode.c from Python's Unicode database: writes unicode.json. Run: python make_unicode.py

Only characters that Unicode 3.2 knew, so that every newer database (Python's and utf8proc's) agrees about them."""
import json
import pathlib
import random
import unicodedata as u

known = [c for c in range(0x30000) if not 0xD800 <= c < 0xE000 and u.ucd_3_2_0.category(chr(c)) not in ("Cn", "Co")]
marks = [c for c in known if u.combining(chr(c))]
decomposing = [c for c in known if u.decomposition(chr(c)) and "<" not in u.decomposition(chr(c))]
random.seed(1)
texts = []
for _ in range(400):
    text = []
    for _ in range(random.randint(1, 8)):
        pool = random.choice([known, decomposing, range(0x41, 0x7B), range(0xAC00, 0xD7A4), range(0x1100, 0x1113),
                              range(0x1161, 0x1176), range(0x11A8, 0x11C3)])
        text.append(random.choice(pool))
        text += random.choices(marks, k=random.choice([0, 0, 1, 2, 3]))
    texts.append([text, [ord(c) for c in u.normalize("NFC", "".join(map(chr, text)))]])
spaces = [c for c in range(0x110000) if chr(c).isspace() and not 0x1C <= c <= 0x1F]  # Python adds four separators
chars = sorted(set(random.sample(known, 1500) + list(range(0x250)) + spaces + list(range(0x400, 0x460))))
kinds = [[c, "L" if u.category(chr(c))[0] == "L" else "N" if u.category(chr(c))[0] == "N" else "S" if c in spaces else "-",
          ord(chr(c).lower()) if len(chr(c).lower()) == 1 else c] for c in chars if len(chr(c).lower()) == 1]
out = pathlib.Path(__file__).with_name("unicode.json")
out.write_text(json.dumps({"nfc": texts, "kinds": kinds}, separators=(",", ":")) + "\n")
