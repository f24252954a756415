"""marble's built-in scorers in Python: `marble reward score` as a child process, images in and scores out through a pipe. A program
in any language can be a reward in this way; nothing here needs a package."""
import json
import os
import pathlib
import shutil
import subprocess
import threading

NAMES = ["ocr", "count", "color", "clean", "jpeg"]
BUILD = pathlib.Path(__file__).resolve().parents[4] / "build/marble"


class Scorer:
    """score() may be called from any thread. The child ends with this process, whose end closes its input."""

    def __init__(self, names=NAMES):
        program = os.environ.get("MARBLE") or shutil.which("marble") or str(BUILD)
        self.lock = threading.Lock()
        self.child = subprocess.Popen([program, "reward", "score", *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def score(self, name, images, prompts):
        """images: (width, height, bytes of RGB) each. Returns a number for each, or None where the reward does not apply."""
        scores = []
        first = 0
        for i in range(1, len(images) + 1):  # a request holds images of one size
            if i == len(images) or images[i][:2] != images[first][:2]:
                scores += self.ask(name, images[first:i], prompts[first:i])
                first = i
        for score in scores:
            if isinstance(score, str):
                raise ValueError(score)
        return scores

    def ask(self, name, images, prompts):
        width, height, _ = images[0]
        head = json.dumps({"reward": name, "width": width, "height": height, "prompts": prompts}).encode()
        with self.lock:
            self.child.stdin.write(head + b"\n" + b"".join(bytes(pixels) for _, _, pixels in images))
            self.child.stdin.flush()
            line = self.child.stdout.readline()
        if not line:
            raise OSError(f"marble reward score ended with exit code {self.child.wait()}")
        return json.loads(line)["scores"]
