#!/usr/bin/env python3
"""marble's codec of the Open Inference Protocol and proto/python/marble_reward.py, with each other: the codec, in
test_proto_golden --speak, makes the requests and reads the responses, which this script carries."""
import os
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "golden"))
from make_proto import PROMPTS, case, pixels, record
from reward_client import Server

VALID, NA, FAILED = 0, 1, 2
BUILD = None
REWARDS = '''
from marble_reward import reward

@reward("mean", range=(0, 1), images="raw")
def mean(images, prompts, metadata):
    if any("raise" in p for p in prompts):
        raise KeyError("no such\\nthing")
    return [None if "skip" in p else (sum(i.data) / len(i.data) / 255, f"of {len(i.data)} bytes") for i, p in zip(images, prompts)]

@reward("count", images="raw")
def count(images, prompts, metadata):
    return [(m.get("count"), "" if "count" in m else "no count") for m in metadata]
'''
MEANS = [sum(pixels(i)) / len(pixels(i)) / 255 for i in range(4)]


class Codec(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(REWARDS)
        cls.port = int(cls.server.addresses[0].rsplit(":", 1)[1])

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    def run_case(self, options, prompts=None, n=4, **more):
        item = case("", {"codec": "oip", **options}, n=n, **more)
        if prompts:
            item["batch"]["prompts"] = prompts
        return record(BUILD, item, self.port)

    def check(self, found, states, scores):
        self.assertEqual(found["result"].get("states"), states, found["result"])
        for got, expected in zip(found["result"]["scores"], scores):
            self.assertAlmostEqual(got, expected, 6)

    def test_scores(self):
        for wire in "auto", "json":
            found = self.run_case({"model": "mean", **({"wire": "json"} if wire == "json" else {})})
            self.check(found, [VALID, VALID, NA, VALID], [MEANS[0], MEANS[1], 0, MEANS[3]])
            self.assertEqual(found["result"]["reasons"], ["of 60 bytes", "of 60 bytes", None, "of 60 bytes"])
            sent = found["exchanges"][-1]["request"]["headers"]
            self.assertEqual("Inference-Header-Content-Length" in sent, wire == "auto")

    def test_several_rewards_from_one_call(self):
        found = self.run_case({"model": "rewards", "outputs": ["count", "mean"]})
        self.check(found, [VALID, NA, NA, NA, VALID, VALID, NA, VALID], [2, 0, 0, 0, MEANS[0], MEANS[1], 0, MEANS[3]])
        self.assertEqual(found["result"]["reasons"][1], "no count")

    def test_one_image(self):
        self.check(self.run_case({"model": "mean"}, n=1), [VALID], MEANS[:1])

    def test_what_is_refused(self):
        found = self.run_case({"model": "mean"}, prompts=["raise"] * len(PROMPTS))["result"]
        self.assertEqual(found["error"], "refused")
        self.assertIn("HTTP 422: ", found["text"])
        self.assertIn("no such", found["text"])
        self.assertEqual(self.run_case({"model": "none"})["result"]["error"], "absent")
        found = self.run_case({"model": "mean", "outputs": ["hps"]})["result"]
        self.assertEqual(found["error"], "mismatch")
        self.assertIn("the model answers with scores FP32 [-1]", found["text"])


if __name__ == "__main__":
    programs = [word for word in sys.argv[1:] if os.path.isfile(word)]
    if not programs:
        sys.exit("check_reward_codec.py: expected the path of marble, beside which test_proto_golden lies")
    BUILD = pathlib.Path(programs[0]).parent
    unittest.main(argv=sys.argv[:1] + [word for word in sys.argv[1:] if word not in programs])
