"""OCR as DiffusionNFT and MARBLE score it, read by RapidOCR: 1 - edit distance / length of the quoted text, N/A without one.
RapidOCR runs PaddleOCR's models on the CPU; they are in its wheel, so nothing is downloaded at run time."""
from marble_reward import reward
from rapidocr_onnxruntime import RapidOCR

# The longer side at most 960 and nothing enlarged, as PaddleOCR does; RapidOCR alone would enlarge small images to 736.
engine = RapidOCR(intra_op_num_threads=1, det_limit_type="max", det_limit_side_len=960)


def distance(a, b):
    """Levenshtein's: insertions, deletions and replacements that make b of a."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        left, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            left, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, left + (x != y))
    return row[-1]


def score(image, prompt):
    words = prompt.split('"')
    wanted = words[1].replace(" ", "").lower() if len(words) > 2 else ""
    if not wanted:
        return None, "no quoted text in the prompt"
    lines, _ = engine(image[:, :, ::-1].copy(), use_cls=False)  # it takes BGR; no angle classifier, as in DiffusionNFT
    found = "".join(text for _, text, _ in lines or []).replace(" ", "").lower()
    wrong = 0 if wanted in found else min(distance(found, wanted), len(wanted))
    return 1 - wrong / len(wanted), f"read {found[:80]!r}"


@reward("ocr", range=(0, 1), batch=16)
def ocr(images, prompts, metadata):
    return [score(image, prompt) for image, prompt in zip(images, prompts)]
