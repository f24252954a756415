#!/usr/bin/env python3
"""deploy/examples/rewards: the reward of one's own and GenEval's rules, and the bridge to servers that speak pickle against such
a server, entries of run.yaml as marble takes them ($1). Parts that need numpy or Pillow are left out where no Python here has them; tests/proofs/rapidocr.py is for RapidOCR."""
import importlib.util
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from reward_client import ROOT, Server, flat

EXAMPLES = ROOT / "deploy/examples/rewards"
MARBLE = next((os.path.abspath(word) for word in sys.argv[1:] if os.path.isfile(word)), None)


def python_with(*packages):
    """A Python that has these packages, or None."""
    for python in (sys.executable, "/usr/bin/python3"):
        if os.path.exists(python) and subprocess.run([python, "-c", "import " + ", ".join(packages)], capture_output=True).returncode == 0:
            return python
    return None


class Folders(unittest.TestCase):
    def test_each_is_whole(self):
        """A README and its requirements for every reward, valid Python, and a line in the table."""
        table = (EXAMPLES / "README.md").read_text()
        folders = [path for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"]
        self.assertEqual(len(folders), 10)
        for folder in folders:
            self.assertIn(f"`{folder.name}`", table)
            readme = (folder / "README.md").read_text()
            for source in folder.glob("*.py"):
                compile(source.read_text(), str(source), "exec")
                self.assertTrue((folder / "requirements.txt").read_text().strip())
            for served in [word for word in readme.split() if word.endswith(".py") and "/" not in word]:
                self.assertTrue((folder / served).exists(), served)


class GenEval(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        spec = importlib.util.spec_from_file_location("rules", EXAMPLES / "geneval/rules.py")
        cls.rules = importlib.util.module_from_spec(spec)
        sys.dont_write_bytecode = True
        spec.loader.exec_module(cls.rules)

    def score(self, include, found, colors=()):
        return self.rules.score(include, found, lambda name, boxes: list(colors))

    def test_relations(self):
        box = (0, 0, 10, 10)
        for other, expected in (((30, 0, 40, 10), {"left of"}), ((-30, 0, -20, 10), {"right of"}), ((0, 30, 10, 40), {"above"}), ((0, -30, 10, -20), {"below"}),
                                ((1, 0, 11, 10), set()), ((30, 30, 40, 40), {"left of", "above"}), (box, set())):
            self.assertEqual(self.rules.relations(box, other), expected, other)

    def test_counts(self):
        for want, have, expected in ((1, 1, 1), (2, 1, 0.5), (2, 3, 0.5), (1, 0, 0), (1, 3, -1)):
            mean, right, why = self.score([{"class": "cat", "count": want}], {"cat": [(0, 0, 1, 1)] * have})
            self.assertEqual((mean, right, bool(why)), (expected, want == have, want != have))

    def test_colors(self):
        include = [{"class": "cup", "count": 2, "color": "red"}]
        self.assertEqual(self.score(include, {"cup": [(0, 0, 1, 1)] * 2}, ["red", "red"])[:2], (1, True))
        self.assertEqual(self.score(include, {"cup": [(0, 0, 1, 1)] * 2}, ["red", "blue"])[:2], (0.75, False))
        self.assertEqual(self.score(include, {"cup": [(0, 0, 1, 1)]})[:2], (0.25, False))  # not asked for its colour: 0.5 and 0

    def test_positions(self):
        include = [{"class": "dog", "count": 1}, {"class": "car", "count": 1, "position": ["right of", 0]}]
        left, right = [(0, 0, 10, 10)], [(50, 0, 60, 10)]
        self.assertEqual(self.score(include, {"dog": left, "car": right})[:2], (1, True))
        mean, correct, why = self.score(include, {"dog": right, "car": left})
        self.assertEqual((mean, correct, why), (0.75, False, "car not right of the other"))  # 1, 1, 0 and the released code's 1
        mean, correct, why = self.score(include, {"car": right})
        self.assertAlmostEqual(mean, 1 / 3)
        self.assertFalse(correct)


class Own(unittest.TestCase):
    def test_own(self):
        python = python_with("numpy")
        if not python:
            self.skipTest("no Python with numpy")
        with Server((EXAMPLES / "own/my_rewards.py").read_text(), python=python) as server, server.client() as client:
            pixels, shape = flat([0, 51])
            found = client.infer("rewards", pixels, shape, ["a", "b"], ['{"rgb": [51, 0, 0]}', "{}"]).outputs()
            self.assertEqual([round(v, 6) for v in found["bright"]], [0, 0.2])
            self.assertAlmostEqual(found["mean_color"][0], 1 - 51 / 255 / 3, 6)
            self.assertEqual((found["mean_color_valid"], found["mean_color_reason"]), ([True, False], ["", "no rgb in the metadata"]))


@unittest.skipUnless(MARBLE, "no marble program was named")
class FromARun(unittest.TestCase):
    """The entries of run.yaml that the pages show, as marble takes them."""

    def marble(self, rewards, *command, **environment):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "run.yaml"
            path.write_text(f"model: {{path: {ROOT}/deploy/examples/signs-base}}\nprompts: {{source: signs}}\nrewards:\n{rewards}")
            words = [word.replace("RUN", str(path)) for word in command]
            done = subprocess.run([MARBLE, *words], capture_output=True, text=True, timeout=120,
                                  env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment})
        return done.returncode, done.stdout + done.stderr

    def test_own(self):
        python = python_with("numpy")
        if not python:
            self.skipTest("no Python with numpy")
        entry = f"  - {{name: bright, type: python, file: {EXAMPLES}/own/my_rewards.py, python: {python}}}\n"
        code, text = self.marble(entry, "reward", "check", "RUN")
        self.assertEqual(code, 0, text)
        self.assertIn("bright (python): ok", text)
        self.assertIn("0 not applicable, 0 failed", text)

    def test_judge(self):
        """A run takes the entry for UnifiedReward, and refuses it with a key misspelt."""
        entry = (EXAMPLES / "unifiedreward/reward.yaml").read_text()
        code, text = self.marble(entry, "plan", "RUN", "--gpu", "h100", JUDGE_TOKEN="x")
        self.assertEqual(code, 0, text)
        code, text = self.marble(entry.replace("pattern:", "patern:"), "plan", "RUN", "--gpu", "h100", JUDGE_TOKEN="x")
        self.assertEqual(code, 2, text)
        self.assertIn("patern", text)


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


class PickleServer(BaseHTTPRequestHandler):
    """What flow_grpo's reward servers do: a pickle in, a pickle out, tracebacks with 500."""

    def do_POST(self):
        question = pickle.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert all(data[:2] == b"\xff\xd8" for data in question["images"])  # JPEG
        self.server.seen.append({name: value for name, value in question.items() if name != "images"})
        status, answer = 200, {"scores": [len(m["include"]) / 2 for m in question["meta_datas"]],
                               "strict_rewards": [1.0] * len(question["images"]), "rewards": [], "group_rewards": {}}
        mode = question["meta_datas"][0].get("tag")
        if mode == "evil":
            answer["scores"] = [Evil()]
        elif mode == "short":
            answer["scores"] = []
        elif mode == "other":
            answer = [1]
        body = pickle.dumps(answer)
        if mode == "fails":
            status, body = 500, b"Traceback ...\nKeyError: 'class'"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Bridge(unittest.TestCase):
    def test_bridge(self):
        python = python_with("PIL", "numpy")
        if not python:
            self.skipTest("no Python with Pillow and numpy")
        target = ThreadingHTTPServer(("127.0.0.1", 0), PickleServer)
        target.seen = []
        threading.Thread(target=target.serve_forever, daemon=True).start()
        try:
            with Server((EXAMPLES / "pickle_bridge/bridge.py").read_text(), python=python,
                        environment={"BRIDGE_URL": f"http://127.0.0.1:{target.server_port}"}) as server, server.client() as client:
                pixels, shape = flat([0, 90, 200], 16)
                metadata = [json.dumps({"tag": "counting", "include": [{"class": "cat", "count": 1}] * n}) for n in (1, 0, 2)]
                found = client.infer("geneval", pixels, shape, ["a", "b", "c"], metadata).outputs()
                self.assertEqual((found["scores"][0], found["scores"][2], found["valid"]), (0.5, 1, [True, False, True]))
                self.assertEqual(target.seen[-1]["only_strict"], False)
                found = client.infer("geneval_strict", pixels, shape, ["a", "b", "c"], metadata).outputs()
                self.assertEqual(found["valid"], [True, False, True])
                for mode, word in (("evil", "the answer holds posix.system; expected numbers"), ("short", "0 scores for 1 images"),
                                   ("other", "answered with list; expected a dict"), ("fails", "KeyError: 'class'")):
                    answer = client.infer("geneval", *flat([1]), ["a"], [json.dumps({"tag": mode, "include": [1]})])
                    self.assertEqual(answer.status, 500 if mode == "fails" else 422)  # that server may do better next time
                    self.assertIn(word, answer.error)
                self.assertFalse(pathlib.Path("evil").exists() or (server.path / "evil").exists())
                # numpy's numbers and arrays are data too
                if python == sys.executable or python_with("numpy") == python:
                    made = subprocess.run([python, "-c", "import numpy, pickle, sys; sys.stdout.buffer.write(pickle.dumps({'a': numpy.float32(.5), "
                                           "'b': numpy.arange(3.)}))"], capture_output=True, check=True).stdout
                    check = subprocess.run([python, "-c", f"import sys, io; sys.path[:0] = [{str(ROOT / 'proto/python')!r}, {str(EXAMPLES / 'pickle_bridge')!r}]; "
                                            "import bridge; print(bridge.DataOnly(io.BytesIO(sys.stdin.buffer.read())).load())"], input=made,
                                           capture_output=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
                    self.assertIn(b"[0., 1., 2.]", check.stdout, check.stderr)
        finally:
            target.shutdown()
            target.server_close()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + [word for word in sys.argv[1:] if not os.path.isfile(word)])
