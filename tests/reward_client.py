"""What the tests of proto/python/marble_reward.py share: a server with its log, and a client that can also send nonsense."""
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "proto/python/marble_reward.py"


def pack(texts):
    """A BYTES tensor: 4 bytes of length before each element."""
    return b"".join(struct.pack("<I", len(t)) + t for t in (t if isinstance(t, bytes) else t.encode() for t in texts))


def unpack(data):
    texts, at = [], 0
    while at < len(data):
        size = struct.unpack_from("<I", data, at)[0]
        texts.append(data[at + 4:at + 4 + size].decode())
        at += 4 + size
    return texts


def infer_body(pixels, shape, prompts, metadata=None, outputs=None, binary=True, **more):
    """A request in the binary extension or in JSON: (JSON's length or None, body)."""
    inputs, parts = [], []
    tensors = [("images", "UINT8", list(shape), pixels), ("prompts", "BYTES", [len(prompts)], prompts)]
    if metadata is not None:
        tensors.append(("metadata", "BYTES", [len(metadata)], metadata))
    for name, datatype, size, data in tensors:
        entry = {"name": name, "datatype": datatype, "shape": size}
        if binary:
            parts.append(bytes(data) if datatype == "UINT8" else pack(data))
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            entry["data"] = list(data)
        inputs.append(entry)
    document = {"inputs": inputs, **more}
    if outputs is not None:
        document["outputs"] = [{"name": name} for name in outputs]
    if binary:
        document["parameters"] = {"binary_data_output": True}
    text = json.dumps(document).encode()
    return len(text) if binary else None, text + b"".join(parts)


def post(model, body, json_length=None, fields=()):
    lines = [f"POST /v2/models/{model}/infer HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *fields]
    if json_length is not None:
        lines.append(f"Inference-Header-Content-Length: {json_length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Answer:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]

    def outputs(self):
        """name -> list of values, binary or not."""
        assert self.status == 200, self.body
        length = int(self.fields.get("inference-header-content-length", len(self.body)))
        found, at = {}, length
        for entry in json.loads(self.body[:length])["outputs"]:
            size = entry.get("parameters", {}).get("binary_data_size")
            if size is None:
                found[entry["name"]] = entry["data"]
                continue
            data = self.body[at:at + size]
            at += size
            found[entry["name"]] = {"FP32": lambda: list(struct.unpack(f"<{size // 4}f", data)),
                                    "BOOL": lambda: [bool(b) for b in data], "BYTES": lambda: unpack(data)}[entry["datatype"]]()
        assert at == len(self.body), "bytes after the last output"
        return found


class Client:
    """One connection."""

    def __init__(self, address, timeout=20, tls=None):
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(address[5:])
        else:
            host, port = address.split("//")[1].rsplit(":", 1)
            self.socket = socket.create_connection((host, int(port)), timeout)
        if tls:
            try:
                self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
            except OSError:
                self.socket.close()
                raise
        self.rest = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def read(self):
        """The next answer; EOFError where the server closed instead."""
        while b"\r\n\r\n" not in self.rest:
            self.more()
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        while len(self.rest) < int(fields.get("content-length", 0)):
            self.more()
        size = int(fields.get("content-length", 0))
        body, self.rest = self.rest[:size], self.rest[size:]
        return Answer(int(lines[0].split()[1]), fields, body)

    def more(self):
        data = self.socket.recv(1 << 20)
        if not data:
            raise EOFError
        self.rest += data

    def ask(self, data):
        self.send(data)
        return self.read()

    def get(self, path, fields=()):
        return self.ask("\r\n".join([f"GET {path} HTTP/1.1", "Host: test", *fields]).encode() + b"\r\n\r\n")

    def infer(self, model, pixels, shape, prompts, metadata=None, outputs=None, binary=True, fields=(), **more):
        length, body = infer_body(pixels, shape, prompts, metadata, outputs, binary, **more)
        return self.ask(post(model, body, length, fields))


def flat(values, side=2):
    """Images of one value each: (pixels, shape)."""
    return b"".join(bytes([v]) * (side * side * 3) for v in values), (len(values), side, side, 3)


class Server:
    """The server on a file with these rewards, as a child; its folder and log go with it."""

    def __init__(self, rewards, *arguments, environment=None, listen=("127.0.0.1:0",), ready=True, limits=None, python=sys.executable):
        """limits: constants of the program to change, so that a test does not wait for their real values."""
        self.folder = tempfile.TemporaryDirectory(prefix="marble_reward.")
        self.path = pathlib.Path(self.folder.name)
        (self.path / "rewards_file.py").write_text(rewards)
        self.log = open(self.path / "log", "w+")
        listening = [word for address in listen for word in ("--listen", address.replace("DIR", self.folder.name))]
        program = [str(PROGRAM)]
        if limits:
            settings = "; ".join(f"marble_reward.{name} = {value}" for name, value in limits.items())
            program = ["-c", f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import marble_reward; {settings}; "
                             "sys.exit(marble_reward.main())"]
        self.child = subprocess.Popen([python, *program, "serve", str(self.path / "rewards_file.py"), *listening, *arguments],
                                      stdout=subprocess.PIPE, stderr=self.log, text=True,
                                      env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})})
        line = self.child.stdout.readline() if ready else ""
        if ready and not line.startswith("ready "):
            raise AssertionError(f"not ready: {line!r}\n{self.text()}")
        self.addresses = line.split()[1:]

    def text(self):
        self.log.flush()
        return (self.path / "log").read_text()

    def client(self, which=0, **options):
        return Client(self.addresses[which], **options)

    def get(self, path):
        with self.client() as client:
            return client.get(path)

    def workers(self):
        """Process ids of the workers."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                fields = pathlib.Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # ended meanwhile
                continue
            if int(fields[1]) == self.child.pid:
                found.append(int(name))
        return found

    def metrics(self):
        lines = self.get("/metrics").body.decode().splitlines()
        return {line.rsplit(" ", 1)[0].replace("marble_reward_", ""): float(line.rsplit(" ", 1)[1])
                for line in lines if not line.startswith("#")}

    def until(self, condition, what, seconds=15):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"{what}: not within {seconds} s\n{self.text()}")
            time.sleep(0.02)

    def close(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.child.stdout.close()
        self.log.close()
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# What tests/proofs/reward_clients.py has scored while it records, and the test that sends its record again.
RECORDED_REWARDS = '''
from marble_reward import reward

@reward("bright", range=(0, 1), images="raw")
def bright(images, prompts, metadata):
    return [sum(image.data) / len(image.data) / 255 for image in images]

@reward("quoted", images="raw")
def quoted(images, prompts, metadata):
    return [len(p.split('"')[1]) if p.count('"') > 1 else (None, "no quoted text") for p in prompts]
'''
