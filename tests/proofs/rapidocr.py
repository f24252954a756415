#!/usr/bin/env python3
"""deploy/examples/rewards/rapidocr behind proto/python/marble_reward.py, for real: rendered text is sent through the server and read.
Needs what that example's requirements.txt lists (its wheel holds the models), and DejaVu's letters:

    python3 -m venv VENV && VENV/bin/pip install -r deploy/examples/rewards/rapidocr/requirements.txt
    VENV/bin/python tests/proofs/rapidocr.py"""
import os
import pathlib
import random
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from reward_client import ROOT, Server  # noqa: E402

import numpy  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf"
WORDS = ["OPEN", "Hello World", "NASA 2049", "STOP", "Spring Collection 2024", "K7", "Exit 12", "No Parking", "Fresh Bread", "QUIET",
         "Forever Yours", "Level 3", "Mind the Gap", "Lost & Found", "50% OFF", "Danger"]


def render(text, side, noise=0, seed=0):
    image = Image.new("RGB", (side, side), (235, 225, 200))
    draw = ImageDraw.Draw(image)
    size = next(n for n in range(side // 5, 6, -1) if draw.textlength(text, font=ImageFont.truetype(FONT, n)) < side * 0.85)
    draw.rounded_rectangle((side * 0.04, side * 0.35, side * 0.96, side * 0.65), side // 20, fill=(150, 20, 30))
    draw.text((side / 2, side / 2), text, fill=(250, 250, 250), font=ImageFont.truetype(FONT, size), anchor="mm")
    pixels = numpy.asarray(image).astype(int)
    pixels = pixels + numpy.random.default_rng(seed).integers(-noise, noise + 1, pixels.shape)
    return pixels.clip(0, 255).astype(numpy.uint8)


def processor_seconds(server):
    fields = [pathlib.Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split() for worker in server.workers()]
    return sum(int(f[11]) + int(f[12]) for f in fields) / os.sysconf("SC_CLK_TCK")


def score(server, images, prompts):
    stacked = numpy.stack(images)
    with server.client(timeout=300) as client:
        answer = client.infer("ocr", stacked.tobytes(), stacked.shape, prompts)
    assert answer.status == 200, answer.body
    return answer.outputs()


if __name__ == "__main__":
    example = ROOT / "deploy/examples/rewards/rapidocr/ocr.py"
    with Server(example.read_text(), "--workers", "2") as server:
        server.until(lambda: server.metrics()["workers_ready"] == 2, "both workers", 60)
        draw, failures = random.Random(3), 0
        prompts = [f'a red sign that says "{word}"' for word in WORDS]
        for side, noise in ((512, 0), (512, 40), (256, 0)):
            images = [render(word, side, noise, i) for i, word in enumerate(WORDS)]
            found = score(server, images, prompts)
            exact = sum(s == 1 for s in found["scores"])
            print(f"{side} x {side}, noise {noise}: {exact} of {len(WORDS)} read exactly, mean {numpy.mean(found['scores']):.3f}")
            failures += exact < len(WORDS) - 2
            for word, s, reason in zip(WORDS, found["scores"], found["reason"]):
                if s < 1:
                    print(f"    {word!r}: {s:.3f}, {reason}")
        # Another text than the one asked for, and none.
        others = score(server, [render(WORDS[(i + 5) % len(WORDS)], 512) for i in range(len(WORDS))], prompts)
        print(f"another text on the sign: mean {numpy.mean(others['scores']):.3f}, at most {max(others['scores']):.3f}")
        failures += numpy.mean(others["scores"]) > 0.35
        blank = score(server, [numpy.full((512, 512, 3), 200, numpy.uint8)] * 2, ['says "OPEN"', "three blue circles"])
        print(f"no text on the image: {blank['scores'][0]}; no text asked for: valid {blank['valid'][1]}, {blank['reason'][1]!r}")
        failures += blank["scores"][0] != 0 or blank["valid"] != [True, False]
        # Speed: four clients, two workers.
        images = [render(word, 512) for word in WORDS]
        start, before = time.perf_counter(), processor_seconds(server)
        threads = [threading.Thread(target=score, args=(server, images, prompts)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
        each = (processor_seconds(server) - before) / (4 * len(WORDS))
        print(f"{4 * len(WORDS)} images of 512 x 512: {4 * len(WORDS) / seconds:.1f} a second with 2 workers; {each:.3f} s of a processor each")
        print(f"{failures} failures" if failures else "all good")
    sys.exit(bool(failures))
