#!/usr/bin/env python3
"""proto/python/marble_reward.py against clients that send nonsense: truncated and altered requests, wrong sizes, deep and large
JSON, headers without end, slow bodies, more connections and more memory than there is. Every answer is an error that says what
was expected, and the server goes on."""
import asyncio
import json
import os
import random
import socket
import sys
import time
import types
import unittest

from reward_client import PROGRAM, Server, flat, infer_body, pack, post

sys.path.insert(0, str(PROGRAM.parent))
sys.dont_write_bytecode = True
import marble_reward  # noqa: E402

REWARDS = '''
import time
from marble_reward import reward

@reward("slow", images="raw")
def slow(images, prompts, metadata):
    time.sleep(float(prompts[0]))
    return [image.data[0] for image in images]
'''
PIXELS, SHAPE = flat([9, 8])
KNOWN = {field: ("slow", field) for field in ("scores", "valid", "reason")}


def parse(body, json_length):
    """read_request on bytes, as the server calls it; returns the request or the Fault."""
    buffer = types.SimpleNamespace(map=bytearray(body) + bytearray(8))
    try:
        return marble_reward.read_request("slow", KNOWN, buffer, len(body), len(body) if json_length is None else json_length)
    except marble_reward.Fault as fault:
        return fault


def document(**changes):
    """A request in JSON, with keys of inputs[i] changed by "i.key", others by their name."""
    value = {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]},
                        {"name": "prompts", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}
    for key, change in changes.items():
        if "__" in key:
            value["inputs"][int(key[1])][key[4:]] = change
        else:
            value[key] = change
    return json.dumps(value).encode()


class Parsing(unittest.TestCase):
    def test_words(self):
        """What is wrong is named, with what was expected."""
        for body, word in (
                (b"", "is not JSON"), (b"[]", "expected a JSON object"), (b"{", "not JSON, or nested"), (b'{"inputs": NaN}', "NaN is no JSON"),
                (b"{}", "inputs: expected an array"), (b'{"inputs": [1]}', "inputs[0]: expected an object"), (b"\xff\xfe{\0}\0", "not JSON"),
                (b'{"inputs": ' + b"[" * 100000 + b"]" * 100000 + b"}", "nested deeper than 32"),
                (b'{"inputs": "' + b'\\"[' * 100 + b'"}', "inputs: expected an array"),
                (document(i0__shape=[1, 1, 3]), "expected [N, H, W, 3]"), (document(i0__shape=[1, 1, 1, 4]), "expected [N, H, W, 3]"),
                (document(i0__shape=[0, 1, 1, 3]), "integers from 1"), (document(i0__shape=[-1, 1, 1, 3]), "integers from 1"),
                (document(i0__shape=[2**31, 2**31, 2**31, 3]), "pixels a side"), (document(i0__shape=[1, 1, 1e3, 3]), "integers from 1"),
                (document(i0__shape=[True, 1, 1, 3]), "integers from 1"), (document(i0__shape=[2**70, 1, 1, 3]), "integers from 1"),
                (document(i0__shape=[2, 1, 1, 3]), "3 bytes for the shape [2, 1, 1, 3]; expected 6"),
                (document(i0__data=[1, 2, 256]), "integers from 0 to 255"), (document(i0__data=[1, 2, "3"]), "integers from 0 to 255"),
                (document(i0__data=[[1, 2], 3]), "mixes arrays"), (document(i0__data={}), "data: expected an array"),
                (document(i0__datatype="FP32"), "datatype FP32; expected UINT8"), (document(i0__datatype=None), "expected UINT8"),
                (document(i0__name="pictures"), "images, prompts, metadata"), (document(i1__name="images"), "each once of"),
                (document(i1__shape=[2]), "expected [1]"), (document(i1__data=["a", "b"]), "2 elements of data"),
                (document(i1__data=[7]), "not text in UTF-8"), (document(i1__data=["\ud800"]), "not text in UTF-8"),
                (document(i1__data=["x" * (1 << 20) + "x"]), "over 1048576 bytes"),
                (document(i1__parameters={"binary_data_size": 5}), "either data or"), (document(i1__parameters=[]), "expected an object"),
                (document(outputs=[{"name": "score"}]), "expected each at most once of: scores, valid, reason"),
                (document(outputs=[{"name": "valid"}, {"name": "valid"}]), "at most once"), (document(outputs={}), "outputs: expected an array"),
                (document(outputs=[{"name": "valid", "parameters": 1}]), "outputs[0]: parameters"), (document(parameters=[]), "expected an object"),
                (document(outputs=None), "outputs: expected an array"), (document(id=None), "id: expected a string"),
                (document(parameters={"binary_data_output": 1}), "true or false"), (document(id=7), "id: expected a string")):
            fault = parse(body, None)
            self.assertIsInstance(fault, marble_reward.Fault, body[:200])
            self.assertEqual(fault.status, 400)
            self.assertIn(word, fault.message)
            self.assertLess(len(fault.message), 600)

    def test_binary_words(self):
        def body(prompts, size=None, images=b"123", metadata=None, more=b""):
            inputs = [("images", "UINT8", [1, 1, 1, 3], images), ("prompts", "BYTES", [1], prompts)]
            if metadata is not None:
                inputs.append(("metadata", "BYTES", [1], metadata))
            text = json.dumps({"inputs": [{"name": n, "datatype": t, "shape": s, "parameters": {
                "binary_data_size": size if size is not None and n == "prompts" else len(d)}} for n, t, s, d in inputs]}).encode()
            return text + b"".join(i[3] for i in inputs) + more, len(text)

        for (data, length), word in (
                (body(pack(["a"]), size=6), "binary_data_size 6, but 5 bytes are left"), (body(pack(["a"]), size=-1), "expected a number of bytes"),
                (body(pack(["a"]), size=2**63), "bytes are left of the body"), (body(pack(["a"]), size="5"), "expected a number of bytes"),
                (body(b"\xff\xff\xff\xffa"), "element 0 has 4294967295 bytes by its length"), (body(b"\1\0\0"), "its bytes end at element 0"),
                (body(pack(["a", "b"])), "5 bytes after its last element"), (body(pack(["a"]), images=b"12"), "2 bytes for the shape"),
                (body(pack(["a"]), more=b"zz"), "2 bytes after the last tensor"), (body(pack([b"\xff"])), "not text in UTF-8"),
                (body(pack(["a"]), metadata=pack(["[1]"])), "metadata[0]: expected a JSON object"),
                (body(pack(["a"]), metadata=pack(["{" * 99])), "metadata[0] is not JSON, or nested")):
            fault = parse(data, length)
            self.assertIsInstance(fault, marble_reward.Fault, word)
            self.assertIn(word, fault.message)

    def test_altered(self):
        """20,000 requests with bytes changed, cut out, repeated and cut off: parsed or refused, nothing else."""
        draw = random.Random(7)
        seeds = [infer_body(PIXELS, SHAPE, ["one", 'two "2"'], ['{"tag": 1}', ""], ["scores", "valid"], binary) for binary in (True, False)]
        seen = {"parsed": 0, "refused": 0}
        for _ in range(20000):
            length, body = draw.choice(seeds)
            body = bytearray(body)
            for _ in range(draw.randint(1, 4)):
                at, size = draw.randrange(len(body)), draw.randint(0, 20)
                change = draw.randrange(5)
                if change == 0:
                    body[at] = draw.choice(b'[]{}",:0123456789-eE\\\0\xff') if draw.random() < 0.7 else draw.randrange(256)
                elif change == 1:
                    del body[at:at + size]
                elif change == 2:
                    body[at:at] = body[at:at + size]
                elif change == 3:
                    body[at:at] = str(draw.choice([0, -1, 2**31, 2**32, 2**63, 2**64, 1e308])).encode()
                elif draw.random() < 0.3:
                    del body[at:]
                body = body or bytearray(b" ")
            if length is not None:
                length = min(len(body), max(0, length + draw.choice([0, 0, 0, len(body) - len(seeds[0][1]), -1, 1])))
            result = parse(bytes(body), length)
            if isinstance(result, marble_reward.Fault):
                self.assertIn(result.status, (400, 413))
                seen["refused"] += 1
            else:
                self.assertEqual(len(result.prompts), result.count)
                self.assertEqual(len(result.metadata), result.count)
                part = result.part(0, result.count)
                end = max((at + size for at, size in part["files"]), default=0) if "files" in part else \
                    part["offset"] + result.count * part["height"] * part["width"] * 3
                self.assertLessEqual(end, len(body))
                seen["parsed"] += 1
        self.assertTrue(all(count > 300 for count in seen.values()), seen)

    def test_memory_suffices_for_the_largest_body(self):
        for size in (1, 70000, (5 << 20) // 2, 1 << 20):
            server = marble_reward.Server(types.SimpleNamespace(max_memory=size, max_body=size), None)
            asyncio.run(asyncio.wait_for(server.buffers.take(size), 2))

    def test_large_json_is_refused_quickly(self):
        for body in (b'{"inputs": ' + b"[" * (8 << 20), b'{"a": "' + b'\\"' * (4 << 20), b'{"a": ' + b"[]," * (3 << 20), b'"' * (8 << 20) + b"[" * 40):
            start = time.process_time()
            self.assertIsInstance(parse(body, None), marble_reward.Fault)
            self.assertLess(time.process_time() - start, 5)


class Wire(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(REWARDS, "--max-body", "1M", "--max-memory", "2M", "--max-connections", "60",
                            limits={"HEAD_SECONDS": 0.6, "BODY_SECONDS": 0.6, "IDLE_SECONDS": 8})

    @classmethod
    def tearDownClass(cls):
        cls.server.close()

    def tearDown(self):
        self.server.until(lambda: self.server.metrics()["memory_bytes"] == 0, "memory is free again")
        self.assertEqual(self.score("0").outputs()["scores"], [9, 8])
        self.assertFalse("Traceback" in self.server.text(), self.server.text()[:3000])

    def score(self, text):
        with self.server.client() as client:
            return client.infer("slow", PIXELS, SHAPE, [text, ""])

    def refused(self, data, status, word):
        with self.server.client() as client:
            answer = client.ask(data)
            self.assertEqual(answer.status, status, data[:80])
            self.assertIn(word, answer.error)
            self.assertEqual(answer.fields["connection"], "close")
            self.assertRaises((EOFError, ConnectionResetError), client.read)

    def test_headers(self):
        for data, status, word in (
                (b"nonsense\r\n\r\n", 400, "expected METHOD"), (b"GET /v2 HTTP/2.0\r\n\r\n", 505, "HTTP/1.1"), (b"get /v2 HTTP/1.1\r\n\r\n", 400, "METHOD"),
                (b"\x16\x03\x01\x02\x00\x01", 400, "expected http://"), (b"\x16\r\n\r\n", 400, "expected METHOD"), (b"GET /v2 HTTP/1.1\r\nno colon\r\n\r\n", 400, "NAME: VALUE"),
                (b"GET /v2 HTTP/1.1\r\na : b\r\n\r\n", 400, "NAME: VALUE"), (b"GET /v2 HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400, "NAME: VALUE"),
                (b"GET /v2 HTTP/1.1\r\nA: " + b" " * 30000 + b"\x01\r\n\r\n", 400, "NAME: VALUE"),
                (b"GET /v2 HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431, "200 header fields"), (b"GET /v2 HTTP/1.1\r\nA: " + b"a" * 40000, 431, "32768"),
                (b"POST /v2/models/slow/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501, "Content-Length"),
                (b"POST /v2/models/slow/infer HTTP/1.1\r\n\r\n", 411, "Content-Length"),
                (b"POST /v2/models/slow/infer HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "differ"),
                (b"POST /v2/models/slow/infer HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "number of bytes"),
                (b"POST /v2/models/slow/infer HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400, "number of bytes"),
                (b"POST /v2/models/slow/infer HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n", 413, "at most 1048576"),
                (b"POST /v2/models/slow/infer HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n", 415, "Content-Encoding gzip"),
                (post("slow", b"{}", 3), 400, "at most the body's 2"), (b"POST /v2/models/no/infer HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde", 404, "slow"),
                (b"DELETE /v2 HTTP/1.1\r\n\r\n", 405, "expected GET"), (b"GET /v2 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 400, "takes no body"),
                (b"GET /v2/models/..%2f..%2fetc/passwd HTTP/1.1\r\n\r\n", 404, "expected")):
            self.refused(data, status, word)

    def test_bodies_cut_off(self):
        """A body that ends anywhere, or whose length is a lie, is refused; a client that leaves in its midst frees its memory."""
        length, body = infer_body(PIXELS, SHAPE, ["0", "b"])
        with self.server.client() as client:
            for end in range(0, len(body), 7):
                answer = client.ask(post("slow", body[:end], min(length, end)))
                self.assertEqual(answer.status, 400, end)
        for _ in range(20):
            with self.server.client() as client:
                client.send(post("slow", body, length)[:-5])

    def test_sent_byte_by_byte_and_ahead(self):
        length, body = infer_body(PIXELS, SHAPE, ["0", "b"])
        data = post("slow", body, length)
        with self.server.client() as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(200):
                client.send(data[i:i + 1])
            client.send(data[200:] + data * 5)
            self.assertEqual([client.read().status for _ in range(6)], [200] * 6)

    def test_many_requests_ahead(self):
        """As many as a read can bring are answered one after the other; a client that never reads its answers is not read either."""
        request = b"GET /v2 HTTP/1.1\r\n\r\n"
        with self.server.client() as client:
            client.send(request * 3000)
            self.assertEqual({client.read().status for _ in range(3000)}, {200})
        with self.server.client(timeout=1) as client:
            with self.assertRaises((socket.timeout, ConnectionError)):
                for _ in range(40):
                    client.send(request * 50000)  # 40 MB, whose answers would be 300

    def test_expect_continue(self):
        length, body = infer_body(PIXELS, SHAPE, ["0", "b"])
        head, rest = post("slow", body, length, ["Expect: 100-continue"]).split(b"\r\n\r\n", 1)
        with self.server.client() as client:
            self.assertEqual(client.ask(head + b"\r\n\r\n").status, 100)
            self.assertEqual(client.ask(rest).status, 200)

    def test_slow_clients(self):
        with self.server.client() as head, self.server.client() as body, self.server.client() as silent:
            head.send(b"GET /v2 HTTP/1.1\r\nA")
            body.send(b"POST /v2/models/slow/infer HTTP/1.1\r\nContent-Length: 100\r\n\r\n")
            start = time.monotonic()
            for client in (head, body):
                while True:  # a byte now and then does not keep the connection
                    client.socket.settimeout(0.1)
                    try:
                        answer = client.read()
                        break
                    except socket.timeout:
                        client.send(b"x")
                    self.assertLess(time.monotonic() - start, 8)
                self.assertEqual(answer.status, 408)
            self.assertEqual(silent.get("/v2").status, 200)

    def test_leaves_while_scored(self):
        for _ in range(5):
            length, body = infer_body(PIXELS, SHAPE, ["0.2", "b"])
            with self.server.client() as client:
                client.send(post("slow", body, length))
        self.assertEqual(self.score("0").status, 200)

    def test_memory_is_bounded(self):
        """Two bodies of 1 MiB are all that is held; others wait until one is done or gives up."""
        size = 1 << 20
        head = f"POST /v2/models/slow/infer HTTP/1.1\r\nContent-Length: {size}\r\n\r\n".encode()
        with self.server.client() as a, self.server.client() as b, self.server.client() as c:
            a.send(head + b"{")
            b.send(head + b"{")
            self.server.until(lambda: self.server.metrics()["memory_bytes"] == 2 * size, "two bodies")
            length, body = infer_body(PIXELS, SHAPE, ["0", "b"])
            start = time.monotonic()
            answer = c.ask(post("slow", body, length))
            self.assertEqual(answer.status, 200)
            self.assertGreater(time.monotonic() - start, 0.2)
            self.assertEqual((a.read().status, b.read().status), (408, 408))

    def test_many_connections(self):
        clients = []
        try:
            for _ in range(50):
                clients.append(self.server.client())
                clients[-1].send(b"GET /v2 HT")  # and no more
            self.assertEqual(self.score("0").status, 200)
            while len(clients) < 64:
                clients.append(self.server.client())
            self.assertEqual(clients[-1].read().status, 503)
        finally:
            for client in clients:
                client.socket.close()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + [word for word in sys.argv[1:] if not os.path.isfile(word)])
