#!/usr/bin/env python3
"""proto/python/marble_reward.py as clients and the trainer meet it: JSON and the binary extension, several rewards of one file,
batches across clients, N/A, errors that name the function, workers that die, tokens, sockets, how it starts and ends."""
import base64
import json
import math
import os
import pathlib
import re
import shutil
import signal
import ssl
import struct
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
import zlib

from reward_client import PROGRAM, RECORDED_REWARDS, ROOT, Client, Server, flat, infer_body, post

REWARDS = '''
import os, sys, time
from marble_reward import reward, device

print(f"loaded on {device()}\\n", end="")  # one write: the lines of two workers do not mix

@reward("bright", range=(0, 1), images="raw")
def bright(images, prompts, metadata):
    return [sum(image.data) / len(image.data) / 255 for image in images]

@reward("quoted", images="raw")
def quoted(images, prompts, metadata):
    return [(len(p.split('"')[1]), "counted") if p.count('"') > 1 else (None, "no quoted text") for p in prompts]

@reward("tagged", images="raw", batch=3)
def tagged(images, prompts, metadata):
    return [m.get("tag", -1) * 10 + len(images) for m in metadata]

@reward("slow", images="raw")
def slow(images, prompts, metadata):
    time.sleep(float(prompts[0]))
    return [len(images)] * len(images)

@reward("bad", range=(0, 1), images="raw")
def bad(images, prompts, metadata):
    images[0].data[0] = 77
    for text in prompts:
        if text == "raise":
            raise KeyError("no such thing")
        if text == "gone":
            open("/no/such/file")
        if text == "cuda":
            raise RuntimeError("CUDA error: device-side assert triggered")
        if text == "die":
            os.abort()
        if text == "set":
            return {0.25, 0.5}
        if text == "exit":
            sys.exit("leaves")
    value = {"nan": float("nan"), "fake": 2.0, "text": "0.5", "huge": 10**400}.get(prompts[0], 0.5)
    return [value] * (len(images) + (prompts[0] == "many"))
'''


class Protocol(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(REWARDS, "--workers", "2", "--device", "cpu,other", listen=["127.0.0.1:0", "unix:DIR/s"])

    def setUp(self):
        self.server.until(lambda: self.server.metrics()["workers_ready"] == 2, "both workers")

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    def test_metadata(self):
        with self.server.client() as client:
            self.assertEqual(client.get("/v2").json["extensions"], ["binary_tensor_data"])
            for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/bright/ready", "/v2/models/rewards/versions/1/ready"):
                self.assertEqual(client.get(path).status, 200, path)
            self.assertEqual(client.get("/v2/models").json["models"], ["bright", "quoted", "tagged", "slow", "bad", "rewards"])
            bright = client.get("/v2/models/bright").json
            self.assertEqual(bright["parameters"], {"max_batch_size": 64, "min": 0, "max": 1})
            self.assertEqual(bright["inputs"][0], {"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 3]})
            self.assertEqual([(o["name"], o["datatype"]) for o in bright["outputs"]],
                             [("scores", "FP32"), ("valid", "BOOL"), ("reason", "BYTES")])
            both = client.get("/v2/models/rewards").json
            self.assertEqual([o["name"] for o in both["outputs"]][3:6], ["quoted", "quoted_valid", "quoted_reason"])
            self.assertEqual(both["parameters"], {"max_batch_size": 3})
        for path, status, word in (("/v2/models/none", 404, "bright"), ("/v2/models/bright/versions/2", 404, "expected 1"),
                                   ("/v3", 404, "/v2"), ("/v2/models/bright/infer", 405, "expected POST")):
            answer = self.server.get(path)
            self.assertEqual(answer.status, status, path)
            self.assertIn(word, answer.error)

    def test_json_and_binary_agree(self):
        pixels, shape = flat([0, 51, 255])
        for which in (0, 1):
            for binary in (True, False):
                with self.server.client(which) as client:
                    answer = client.infer("bright", pixels, shape, ["a", "b", "c"], binary=binary, id="x7")
                    self.assertEqual(answer.status, 200, answer.body)
                    found = answer.outputs()
                    for score, expected in zip(found["scores"], (0, 0.2, 1)):
                        self.assertAlmostEqual(score, expected, 6)
                    self.assertEqual(found["valid"], [True] * 3)
                    self.assertEqual(found["reason"], [""] * 3)
                    self.assertIn(b'"id": "x7"', answer.body)
                    self.assertEqual("inference-header-content-length" in answer.fields, binary)

    def test_nested_json_images(self):
        body = {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [[[[0, 0, 0], [255, 255, 255]]]]},
                           {"name": "prompts", "datatype": "BYTES", "shape": [1, 1], "data": [["é"]]}]}
        with self.server.client() as client:
            self.assertEqual(client.ask(post("bright", json.dumps(body).encode())).outputs()["scores"], [0.5])

    def test_not_applicable_is_no_score(self):
        pixels, shape = flat([1, 2])
        with self.server.client() as client:
            found = client.infer("quoted", pixels, shape, ['says "Grüße"', "nothing"]).outputs()
            self.assertEqual(found["scores"][0], 5)
            self.assertTrue(math.isnan(found["scores"][1]))
            self.assertEqual(found["valid"], [True, False])
            self.assertEqual(found["reason"], ["counted", "no quoted text"])
            found = client.infer("quoted", pixels, shape, ['says "Grüße"', "nothing"], binary=False).outputs()
            self.assertEqual(found["scores"], [5, None])

    def test_several_rewards(self):
        pixels, shape = flat([0, 255])
        before = self.server.metrics().get('images_total{reward="slow"}', 0)
        with self.server.client() as client:
            found = client.infer("rewards", pixels, shape, ['"ab"', "c"], ['{"tag": 3}', ""],
                                 outputs=["quoted", "bright", "tagged", "quoted_valid"]).outputs()
            self.assertEqual(list(found), ["quoted", "bright", "tagged", "quoted_valid"])
            self.assertEqual((found["bright"], found["tagged"], found["quoted_valid"]), ([0, 1], [32, -8], [True, False]))
            answer = client.infer("rewards", pixels, shape, ["a", "b"], outputs=["quoted", "scores"])
            self.assertEqual(answer.status, 400)
            self.assertIn("outputs[1]: 'scores'", answer.error)
        self.assertEqual(self.server.metrics().get('images_total{reward="slow"}', 0), before, "a reward ran that nobody asked for")

    def test_large_requests_are_split(self):
        pixels, shape = flat(range(8))
        with self.server.client() as client:
            found = client.infer("tagged", pixels, shape, ["p"] * 8, [json.dumps({"tag": i}) for i in range(8)]).outputs()
        self.assertEqual(found["scores"], [i * 10 + n for i, n in zip(range(8), (3, 3, 3, 3, 3, 3, 2, 2))])

    def test_faults_name_the_function(self):
        pixels, shape = flat([5, 6])
        for prompt, word in (("raise", "raised KeyError (rewards_file.py:29): 'no such thing'"), ("exit", "raised SystemExit"),
                             ("gone", "raised FileNotFoundError (rewards_file.py:31)"),
                             ("nan", "returned nan for image 0"), ("fake", "outside of its declared range (0, 1)"),
                             ("text", "returned '0.5' for image 0"), ("many", "returned 3 scores for 2 images"), ("set", "returned set; expected 2 scores"),
                             ("huge", "returned inf for image 0"), ("die", "was ended by SIGABRT while reward")):
            with self.server.client() as client:
                answer = client.infer("bad", pixels, shape, [prompt] * 2)
                self.assertEqual(answer.status, 500 if prompt == "gone" else 422, prompt)
                self.assertIn("bad", answer.error)
                self.assertIn(word, answer.error)
                # The connection and the server go on, once a worker is there again where both died.
                self.server.until(lambda: self.server.metrics()["workers_ready"] > 0, "a worker")
                self.assertEqual(client.infer("bad", pixels, shape, ["fine", "b"]).outputs()["scores"], [0.5, 0.5])

    def test_batches_across_clients(self):
        """Two clients' requests become one call; a third one's fault is its own."""
        pixels, shape = flat([1])
        with self.server.client() as a, self.server.client() as b, self.server.client() as c, self.server.client() as d, \
                self.server.client() as e:
            for client in (c, d):
                length, body = infer_body(pixels, shape, ["0.4"])
                client.send(post("slow", body, length))  # both workers are busy
            time.sleep(0.1)
            for client, text in ((a, "0"), (b, "0"), (e, "x")):
                length, body = infer_body(pixels, shape, [text])
                client.send(post("slow", body, length))
            self.assertEqual([c.read().outputs()["scores"], d.read().outputs()["scores"]], [[1], [1]])
            answers = [a.read(), b.read(), e.read()]
        self.assertEqual([answer.status for answer in answers], [200, 200, 200])
        self.assertEqual([answer.outputs()["scores"] for answer in answers], [[3], [3], [3]])

    def test_a_fault_is_not_shared(self):
        pixels, shape = flat([1])
        with self.server.client() as a, self.server.client() as b, self.server.client() as c, self.server.client() as d:
            for client in (c, d):
                length, body = infer_body(pixels, shape, ["0.4"])
                client.send(post("slow", body, length))
            time.sleep(0.1)
            for client, text in ((a, "fine"), (b, "raise")):
                length, body = infer_body(pixels, shape, [text])
                client.send(post("bad", body, length))
            self.assertEqual([a.read().status, b.read().status], [200, 422])

    def test_a_reward_that_fails_takes_no_other_with_it(self):
        pixels, shape = flat([0, 255])
        with self.server.client() as client:
            for binary in (True, False):
                found = client.infer("rewards", pixels, shape, ["raise"] * 2, binary=binary,
                                     outputs=["bright", "bad", "bad_valid", "bad_reason", "bright_reason"]).outputs()
                self.assertEqual((found["bright"], found["bright_reason"]), ([0, 1], ["", ""]))
                self.assertEqual(found["bad_valid"], [True, True])
                self.assertTrue(all(score is None or math.isnan(score) for score in found["bad"]))
                self.assertEqual(found["bad_reason"], ["reward \"bad\" raised KeyError (rewards_file.py:29): 'no such thing'"] * 2)
            self.assertEqual(client.infer("rewards", pixels, shape, ["raise"] * 2, outputs=["bad"]).status, 422)
            self.assertEqual(client.infer("rewards", pixels, shape, ["gone", "b"], outputs=["bad", "bright"]).status, 500)
        self.assertGreaterEqual(self.server.metrics()['call_failures_total{reward="bad",code="422"}'], 3)

    def test_an_image_that_raises_takes_no_other_with_it(self):
        """One of 64 images costs itself; a function that raises for all is not called for each."""
        pixels, shape = flat([9] * 64)
        with Server(REWARDS) as server, server.client() as client:
            for at in (0, 37, 63):
                prompts = ["fine"] * 64
                prompts[at] = "raise"
                found = client.infer("bad", pixels, shape, prompts).outputs()
                self.assertEqual([i for i, score in enumerate(found["scores"]) if score != 0.5], [at])
                self.assertTrue(math.isnan(found["scores"][at]) and all(found["valid"]))
                self.assertEqual([i for i, reason in enumerate(found["reason"]) if "raised KeyError" in reason], [at])
            before = server.metrics()['call_failures_total{reward="bad",code="422"}']
            self.assertEqual(client.infer("bad", pixels, shape, ["raise"] * 64).status, 422)
            self.assertLess(server.metrics()['call_failures_total{reward="bad",code="422"}'] - before, 12)

    def test_a_reward_that_ends_its_worker(self):
        """The other rewards of the call keep their scores; the reward is called less and less often."""
        pixels, shape = flat([0, 255])
        with Server(REWARDS) as server, server.client() as client:
            for i in range(3):
                start = time.monotonic()
                answer = client.infer("rewards", pixels, shape, ["die", "b"], outputs=["bright", "bad", "bad_valid", "bad_reason"])
                found = answer.outputs()
                self.assertEqual((found["bright"], found["bad_valid"]), ([0, 1], [True, True]))
                self.assertTrue(all(math.isnan(score) for score in found["bad"]))
                self.assertIn("is not called for" if i == 2 else "was ended by SIGABRT", found["bad_reason"][0])
                server.until(lambda: server.metrics()["workers_ready"] == 1, "a worker")
            self.assertLess(time.monotonic() - start, 2)
            self.assertEqual(server.metrics()["worker_deaths_total"], 4)
            answer = client.infer("bad", pixels, shape, ["fine", "b"])
            self.assertEqual(answer.status, 422)
            self.assertIn("2 calls in a row ended their worker or lacked memory for one image; the last: the worker was ended by SIGABRT", answer.error)

    def test_a_reward_that_always_lacks_memory(self):
        """It is not tried image by image again and again, each of which may take a while; the other rewards go on."""
        pixels, shape = flat([0, 255] * 4)
        text = REWARDS + ("\n@reward('eats', images='raw')\ndef eats(images, prompts, metadata):\n"
                          "    if len(images) > int(prompts[0]):\n        raise MemoryError\n    return [1] * len(images)\n")
        failures = 'call_failures_total{reward="eats",code="500"}'
        with Server(text) as server, server.client() as client:
            self.assertEqual(client.infer("eats", pixels, shape, ["2"] * 8).outputs()["scores"], [1] * 8)  # smaller batches do
            before = server.metrics()[failures]
            statuses = [client.infer("eats", pixels, shape, ["0"] * 8).status for _ in range(4)]
            self.assertEqual(statuses, [500, 500, 422, 422])
            self.assertEqual(server.metrics()[failures] - before, 5)  # of 8, 4, 2, 1 and 8
            found = client.infer("rewards", pixels, shape, ["0"] * 8, outputs=["bright", "eats", "eats_reason"]).outputs()
            self.assertEqual(found["bright"], [0, 1] * 4)
            self.assertIn("lacked memory for one image; the last: reward \"eats\" raised MemoryError", found["eats_reason"][0])

    def test_what_the_file_starts_ends_with_it(self):
        text = ("import subprocess, sys\nfrom marble_reward import reward\nchild = subprocess.Popen(['sleep', '600'])\n"
                "@reward('pid', images='raw')\ndef pid(i, p, m): return [child.pid] * len(i)\n")
        for how in (signal.SIGTERM, signal.SIGKILL):
            with Server(text) as server, server.client() as client:
                pid = int(client.infer("pid", *flat([1]), ["a"]).outputs()["scores"][0])
                self.assertTrue(os.path.exists(f"/proc/{pid}"))
                server.child.send_signal(how)
                server.until(lambda: not os.path.exists(f"/proc/{pid}") or " Z " in pathlib.Path(f"/proc/{pid}/stat").read_text(), "its child ends", 5)

    def test_images_are_private(self):
        """A reward that writes into its images does not change what another one of the same request sees."""
        pixels, shape = flat([0])
        with self.server.client() as client:
            for _ in range(3):
                found = client.infer("rewards", pixels, shape, ["fine"], outputs=["bad", "bright"]).outputs()
                self.assertEqual(found["bright"], [0])

    def test_files_need_pillow_or_are_read(self):
        """JPEG or PNG as BYTES; this test knows which of both answers to expect."""
        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        png = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)) +
               chunk(b"IDAT", zlib.compress((b"\0" + b"\xff" * 6) * 2)) + chunk(b"IEND", b""))
        body = {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(png).decode()],
                            "parameters": {"content_type": "base64"}},
                           {"name": "prompts", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}
        with self.server.client() as client:
            answer = client.ask(post("bright", json.dumps(body).encode()))
            try:
                import PIL.Image  # noqa: F401
            except ImportError:
                self.assertEqual(answer.status, 400)
                self.assertIn("need Pillow", answer.error)
            else:
                self.assertEqual(answer.outputs()["scores"], [1])
                body["inputs"][0]["data"] = ["AAAA"]
                answer = client.ask(post("bright", json.dumps(body).encode()))
                self.assertIn("images[0]: not a JPEG or PNG", answer.error)

    @unittest.skipUnless(shutil.which("curl"), "no curl")
    def test_commands_of_the_readme(self):
        address = self.server.addresses[0]
        blocks = re.findall(r"\n\n((?:    .*\n)+)", (ROOT / "proto/README.md").read_text())
        commands = [textwrap.dedent(block).replace("http://127.0.0.1:8000", address) for block in blocks if "curl" in block]
        answers = [subprocess.run(["sh", "-c", command], capture_output=True, text=True) for command in commands]
        self.assertEqual(json.loads(answers[0].stdout)["outputs"][0]["data"], [0.5])
        self.assertEqual(float(answers[1].stdout), 0.5)
        self.assertEqual(len(answers), 2)

    def test_asks_for_files(self):
        with Server(REWARDS, "--ask-for-files", ready=False) as server:
            try:
                import PIL  # noqa: F401
            except ImportError:
                self.assertEqual(server.child.wait(60), 2)
                self.assertIn("Pillow, which reads them, is missing", server.text())
            else:
                server.addresses = server.child.stdout.readline().split()[1:]
                self.assertEqual(server.get("/v2/models/bright").json["inputs"][0], {"name": "images", "datatype": "BYTES", "shape": [-1]})

    def test_devices(self):
        self.server.until(lambda: {"loaded on cpu", "loaded on other"} <= set(self.server.text().splitlines()), "devices")


class Recorded(unittest.TestCase):
    def test_triton_client(self):
        """What tritonclient sent in tests/proofs/reward_clients.py gets the answers that it got there."""
        record = json.loads((ROOT / "tests/golden/triton_client.json").read_text())
        self.assertGreater(len(record["exchanges"]), 5)
        with Server(RECORDED_REWARDS) as server, server.client() as client:
            for exchange in record["exchanges"]:
                expected = base64.b64decode(exchange["response"])
                answer = client.ask(base64.b64decode(exchange["request"]))
                head, body = expected.split(b"\r\n\r\n", 1)
                self.assertEqual(answer.status, int(head.split()[1]))
                self.assertEqual(answer.body, body)
                self.assertEqual({k.lower(): v for k, v in (line.split(": ", 1) for line in head.decode().split("\r\n")[1:]) if k != "Date"},
                                 {k: v for k, v in answer.fields.items() if k != "date"})


class Life(unittest.TestCase):
    def test_stops_gracefully(self):
        pixels, shape = flat([1])
        with Server(REWARDS, listen=["unix:DIR/s"]) as server, server.client() as busy, server.client() as idle:
            self.assertEqual(idle.get("/v2").status, 200)
            length, body = infer_body(pixels, shape, ["0.5"])
            busy.send(post("slow", body, length))
            time.sleep(0.2)
            server.child.send_signal(signal.SIGTERM)
            self.assertRaises(EOFError, idle.read)
            answer = busy.read()
            self.assertEqual((answer.status, answer.fields["connection"], answer.outputs()["scores"]), (200, "close", [1]))
            self.assertEqual(server.child.wait(60), 0)
            self.assertFalse((server.path / "s").exists())

    def test_a_call_that_hangs(self):
        pixels, shape = flat([1])
        with Server(REWARDS, "--seconds", "0.5") as server, server.client() as client:
            answer = client.infer("slow", pixels, shape, ["60"])
            self.assertEqual(answer.status, 504)
            self.assertIn('reward "slow" took over 0.5 s for 1 images', answer.error)
            server.until(lambda: server.metrics()["workers_ready"] == 1, "a new worker")
            self.assertEqual(client.infer("slow", pixels, shape, ["0"]).status, 200)
            for says in ("took over 0.5 s", "took over 0.5 s", "is not called for"):  # the call's other reward keeps its score
                found = client.infer("rewards", *flat([255]), ["60"], outputs=["bright", "slow", "slow_valid", "slow_reason"]).outputs()
                self.assertEqual((found["bright"], found["slow_valid"]), ([1.0], [True]))
                self.assertTrue(math.isnan(found["slow"][0]))
                self.assertIn(says, found["slow_reason"][0])
                server.until(lambda: server.metrics()["workers_ready"] == 1, "a new worker")

    def test_all_workers_die(self):
        with Server(REWARDS) as server, server.client() as client:
            # An idle one is missed within a second, and a request that came before that waits for the next one.
            os.kill(server.workers()[0], signal.SIGKILL)
            self.assertEqual(client.infer("bright", *flat([1]), ["a"]).status, 200)
            os.kill(server.workers()[0], signal.SIGKILL)
            server.until(lambda: server.get("/v2/health/ready").status == 503, "not ready")
            server.until(lambda: server.get("/v2/health/ready").status == 200, "ready again")
            self.assertEqual(client.infer("bright", *flat([1]), ["a"]).status, 200)

    def test_a_device_that_is_lost(self):
        """After a CUDA error no call on that device succeeds: the worker answers and is started anew."""
        with Server(REWARDS) as server, server.client() as client:
            first = server.workers()
            answer = client.infer("bad", *flat([1]), ["cuda"])
            self.assertEqual(answer.status, 500)
            self.assertIn("CUDA error: device-side assert", answer.error)
            server.until(lambda: server.metrics()["workers_ready"] == 1, "a new worker")
            self.assertNotEqual(server.workers(), first)
            self.assertEqual(client.infer("bad", *flat([1]), ["fine"]).status, 200)

    def test_token(self):
        pixels, shape = flat([1])
        with Server(REWARDS, environment={"MARBLE_REWARD_TOKEN": "s3cret"}) as server:
            for fields, status in (((), 401), (("Authorization: Bearer s3cre",), 401), (("Authorization: Bearer s3cret",), 200)):
                with server.client() as client:
                    self.assertEqual(client.infer("bright", pixels, shape, ["a"], fields=fields).status, status)
                with server.client() as client:
                    self.assertEqual(client.get("/metrics", fields).status, status)
            with server.client() as client:
                self.assertEqual(client.get("/v2/health/live").status, 200)
            self.assertNotIn("s3cret", server.text())
            self.assertNotIn(b"s3cret", pathlib.Path(f"/proc/{server.workers()[0]}/environ").read_bytes())
        with tempfile.NamedTemporaryFile("w") as file:
            os.chmod(file.name, 0o644)
            print("of a file", file=file, flush=True)
            with Server(REWARDS, "--token-file", file.name, environment={"MARBLE_REWARD_TOKEN": "s3cret"}) as server, server.client() as client:
                self.assertEqual(client.get("/v2", ["Authorization: Bearer of a file"]).status, 200)
                self.assertIn("other users can read it", server.text())

    @unittest.skipUnless(shutil.which("openssl"), "no openssl")
    def test_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("server", "client"):
                subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                                "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{folder}/{name}.key",
                                "-out", f"{folder}/{name}.pem"], check=True, capture_output=True)
            trusting = ssl.create_default_context(cafile=f"{folder}/server.pem")
            known = ssl.create_default_context(cafile=f"{folder}/server.pem")
            known.load_cert_chain(f"{folder}/client.pem", f"{folder}/client.key")
            arguments = ["--tls-cert", f"{folder}/server.pem", "--tls-key", f"{folder}/server.key"]
            pixels, shape = flat(range(200), 30)
            with Server(REWARDS, *arguments) as server:
                self.assertTrue(server.addresses[0].startswith("https://"))
                with server.client(tls=trusting) as client:
                    for _ in range(3):
                        self.assertEqual(client.infer("bright", pixels, shape, ["a"] * 200).status, 200)
                    self.assertEqual(client.ask(b"DELETE /v2 HTTP/1.1\r\n\r\n").status, 405)
                self.assertRaises(ssl.SSLError, server.client, tls=ssl.create_default_context())
                with server.client() as client:  # not TLS
                    self.assertRaises((EOFError, ConnectionResetError), client.get, "/v2")
            with Server(REWARDS, *arguments, "--tls-client-ca", f"{folder}/client.pem") as server:
                with server.client(tls=known) as client:
                    self.assertEqual(client.get("/v2").status, 200)
                with server.client(tls=trusting) as client:
                    self.assertRaises((ssl.SSLError, EOFError, ConnectionResetError), client.get, "/v2")

    def test_tls_to_a_server_that_has_none(self):
        """It is refused at once, not after the time for a head."""
        pixels, shape = flat([1])
        with Server(REWARDS) as server:
            start = time.monotonic()
            self.assertRaisesRegex(ssl.SSLError, "(?i)wrong.version.number", server.client, tls=ssl.create_default_context())
            self.assertLess(time.monotonic() - start, 5)
            with server.client() as client:
                self.assertEqual(client.infer("bright", pixels, shape, ["a"]).status, 200)

    def test_addresses(self):
        """A socket of a server that is gone is replaced; one in use, a file and nonsense are refused with the reason."""
        with Server(REWARDS, listen=["unix:DIR/s"]) as server:
            socket_path = server.path / "s"
            self.assertEqual(socket_path.stat().st_mode & 0o777, 0o600)
            with Server(REWARDS, listen=[f"unix:{socket_path}"], ready=False) as second:
                self.assertEqual(second.child.wait(60), 1)
                self.assertIn("another server listens there", second.text())
            self.assertEqual(server.get("/v2").status, 200)
            workers = server.workers()
            server.child.kill()
            server.child.wait()
            server.until(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in workers), "workers end with the server", 5)
            with Server(REWARDS, listen=[f"unix:{socket_path}"]) as second:
                self.assertEqual(second.get("/v2").status, 200)
        for address, word in ((f"unix:{__file__}", "is no socket"), ("unix:" + "x" * 200, "at most 100 bytes"), ("nowhere", "expected HOST:PORT"),
                              ("unix:/nowhere/at/all/s", "--listen unix:/nowhere/at/all/s: No such file")):
            with Server(REWARDS, listen=[address], ready=False) as server:
                self.assertEqual(server.child.wait(60), 1)
                self.assertIn(word, server.text())

    def test_ends_with_its_parent(self):
        script = (f"import subprocess, sys; child = subprocess.Popen([sys.executable, {str(PROGRAM)!r}, 'serve', sys.argv[1], '--listen', "
                  "'127.0.0.1:0', '--with-parent'], stdout=subprocess.PIPE, text=True); print(child.stdout.readline(), child.pid, flush=True); "
                  "sys.stdin.read()")
        with Server(REWARDS) as server:  # for its file
            parent = subprocess.Popen([sys.executable, "-c", script, str(server.path / "rewards_file.py")], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            address, child = parent.stdout.readline().split()[1], int(parent.stdout.readline())
            with Client(address) as client:
                self.assertEqual(client.get("/v2").status, 200)
            parent.kill()
            parent.communicate()
            server.until(lambda: not os.path.exists(f"/proc/{child}"), "the child ends", 5)

    def test_files_that_cannot_be_loaded(self):
        for text, word in (("import nothing_of_this_name", "(rewards_file.py:1): No module named"), ("x = 1", "declares no reward"),
                           ("from marble_reward import reward\n@reward('a b')\ndef f(i, p, m): pass", "expected a name of letters"),
                           ("from marble_reward import reward\n@reward('rewards', images='raw')\ndef f(i, p, m): pass", "--name"),
                           ("import os\nos._exit(3)", "ended with exit code 3 while it loaded")):
            with Server(text, ready=False) as server:
                self.assertEqual(server.child.wait(60), 1)
                self.assertIn(word, server.text())

    def test_check(self):
        def check(rewards):
            with Server(rewards, "--check", "--check-side", "16", ready=False) as server:
                return server.child.wait(60), server.child.stdout.read() + server.text()

        code, text = check(REWARDS.split('@reward("tagged"')[0])
        self.assertEqual(code, 0, text)
        for word in ("bright (range 0 to 1)", "N/A", "no quoted text", "images a second", "all good"):
            self.assertIn(word, text)
        for arguments, word in ((("--token-file", "/no/such"), "/no/such"), (("--tls-cert", "/no/such.pem"), "--tls-cert /no/such.pem")):
            with Server(REWARDS, "--check", *arguments, ready=False) as server:
                self.assertEqual(server.child.wait(60), 1)
                self.assertIn(word, server.text())
        with Server(REWARDS.split('@reward("tagged"')[0], "--check", "--check-side", "16", ready=False,
                    environment={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}) as server:
            self.assertEqual(server.child.wait(60), 0, server.text())
        faults = {"count": ("[0.5]", "returned 1 scores for 6 images"), "again": ("[time.perf_counter() % 1 for _ in images]", "again"),
                  "order": ("[i / 6 for i in range(6)][:len(images)] if len(images) < 7 else [0] * len(images)", "reverse order"),
                  "alone": ("[1 / len(images)] * len(images)", "image 3 alone"), "far": ("[7] * len(images)", "outside of its declared")}
        code, text = check("from marble_reward import reward\nimport time\n" + "".join(
            f"@reward('{name}', range=(0, 1), images='raw')\ndef {name}(images, prompts, metadata):\n    return {value}\n"
            for name, (value, _) in faults.items()))
        self.assertEqual(code, 1, text)
        for name, (_, word) in faults.items():
            part = text.split(f"{name} (range 0 to 1)")[1].split("(range")[0]
            self.assertRegex(part, f"fault: .*{word}", name)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + [word for word in sys.argv[1:] if not os.path.isfile(word)])
