#!/usr/bin/env python3
"""make_watch.py MARBLE RUN_FOLDER: the images of watch.md, of the page that `marble dash` serves of that run. Needs Chromium and Pillow."""
import pathlib
import subprocess
import sys

from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))
import browser  # noqa: E402

marble, run = sys.argv[1:]
# name, width and height of what is seen, theme, the part on top
VIEWS = [("watch-rewards", 1440, 1010, "light", None), ("watch-images", 1280, 760, "dark", "images"), ("watch-phone", 390, 844, "light", None)]

server, page = subprocess.Popen([marble, "dash", run], stdout=subprocess.PIPE, text=True), None
try:
    address = server.stdout.readline().strip()
    page = browser.Browser()
    for name, width, height, theme, part in VIEWS:
        page.size(width, height, mobile=width < 600)
        page.open(address)
        page.until("Number(document.documentElement.dataset.steps) > 0 && document.querySelectorAll('#wall .tile').length > 0")
        page.run(f"document.documentElement.dataset.theme === '{theme}' || document.getElementById('theme').click()")
        if part:
            page.run(f"document.getElementById('{part}').scrollIntoView()")
        page.run("new Promise((done) => setTimeout(done, 1500))")
        page.picture(HERE / f"{name}.png")
        image = Image.open(HERE / f"{name}.png").convert("RGB").quantize(256, dither=Image.Dither.NONE)
        image.save(HERE / f"{name}.png", optimize=True)
        print(f"{name}.png: {(HERE / f'{name}.png').stat().st_size} bytes")
finally:
    if page:
        page.close()
    server.terminate()
    server.wait()
