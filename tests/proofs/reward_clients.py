#!/usr/bin/env python3
"""proto/python/marble_reward.py under clients of others: Triton's own HTTP client, and schemathesis with what proto/openapi.yaml
promises. Needs both, and numpy and Pillow, which CI has not:

    python3 -m venv VENV && VENV/bin/pip install 'tritonclient[http]' schemathesis numpy pillow
    VENV/bin/python tests/proofs/reward_clients.py            checks and figures
    VENV/bin/python tests/proofs/reward_clients.py --record   also writes tests/golden/triton_client.json, which
                                                              tests/check_reward_server.py sends again"""
import base64
import importlib.metadata
import io
import json
import pathlib
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from reward_client import ROOT, RECORDED_REWARDS, Server  # noqa: E402

import numpy  # noqa: E402
import PIL.Image  # noqa: E402
import tritonclient.http as triton  # noqa: E402

GOLDEN = ROOT / "tests/golden/triton_client.json"


class Recorder:
    """A proxy that keeps what went both ways, one connection at a time."""

    def __init__(self, address):
        host, port = address.split("//")[1].split(":")
        self.target, self.listener = (host, int(port)), socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.exchanges = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.target)
            threading.Thread(target=self.copy, args=(client, server, 0), daemon=True).start()
            threading.Thread(target=self.copy, args=(server, client, 1), daemon=True).start()

    def copy(self, source, sink, side):
        while data := source.recv(1 << 20):
            if not self.exchanges or (side == 0 and self.exchanges[-1][1]):
                self.exchanges.append([b"", b""])
            self.exchanges[-1][side] += data
            sink.sendall(data)


def inputs_of(images, prompts, metadata=None, binary=True):
    inputs = []
    for name, value, datatype in (("images", images, "UINT8"), ("prompts", prompts, "BYTES"), ("metadata", metadata, "BYTES")):
        if value is not None:
            array = value if datatype == "UINT8" else numpy.array([text.encode() for text in value], dtype=object)
            inputs.append(triton.InferInput(name, list(array.shape), datatype))
            inputs[-1].set_data_from_numpy(array, binary_data=binary)
    return inputs


def check_triton(server, record):
    recorder = Recorder(server.addresses[0])
    client = triton.InferenceServerClient(recorder.address)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("bright")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert [o["name"] for o in client.get_model_metadata("bright")["outputs"]] == ["scores", "valid", "reason"]
    images = numpy.stack([numpy.full((2, 3, 3), value, numpy.uint8) for value in (0, 51, 255)])
    for binary in (True, False):
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("scores", "valid", "reason")]
        answer = client.infer("quoted", inputs_of(images, ['says "ab"', "none", 'é "ü"'], ["{}", "", '{"tag": "x"}'], binary), outputs=wanted,
                              request_id="r7")
        assert answer.get_response()["id"] == "r7"
        scores, valid = answer.as_numpy("scores"), answer.as_numpy("valid")
        assert scores.tolist()[0::2] == [2, 1] and numpy.isnan(scores[1]), scores
        assert valid.tolist() == [True, False, True]
        reasons = [r.decode() if isinstance(r, bytes) else r for r in answer.as_numpy("reason")]
        assert reasons == ["", "no quoted text", ""], reasons
        both = client.infer("rewards", inputs_of(images, ["a", "b", "c"], None, binary),
                            outputs=[triton.InferRequestedOutput(n, binary_data=binary) for n in ("bright", "quoted_valid")])
        assert numpy.allclose(both.as_numpy("bright"), [0, 0.2, 1]) and not both.as_numpy("quoted_valid").any()
    try:
        client.infer("bright", inputs_of(images[..., :2].copy(), ["a", "b", "c"]))
        raise AssertionError("a wrong shape was taken")
    except triton.InferenceServerException as error:
        assert "expected [N, H, W, 3]" in error.message(), error
    client.close()
    exchanges = list(recorder.exchanges)
    print(f"tritonclient {importlib.metadata.version('tritonclient')}: {len(exchanges)} requests, JSON and binary, as it should be")
    if record:
        GOLDEN.write_text(json.dumps({"client": "tritonclient[http] " + importlib.metadata.version("tritonclient"), "exchanges": [
            {"request": base64.b64encode(a).decode(), "response": base64.b64encode(b).decode()} for a, b in exchanges]}, indent=1) + "\n")
        print(f"wrote {GOLDEN.relative_to(ROOT)}")


def check_files(server):
    """JPEG and PNG files as BYTES, which the reward sees as pixels."""
    files = []
    for kind in ("PNG", "JPEG"):
        file = io.BytesIO()
        PIL.Image.new("RGB", (20, 10), (51, 51, 51)).save(file, kind)
        files.append(file.getvalue())
    tensor = triton.InferInput("images", [2], "BYTES")
    tensor.set_data_from_numpy(numpy.array(files, dtype=object))
    client = triton.InferenceServerClient(server.addresses[0].split("//")[1])
    scores = client.infer("bright", [tensor, *inputs_of(None, ["a", "b"])]).as_numpy("scores")
    assert numpy.allclose(scores, 0.2, atol=0.005), scores
    print("files: PNG and JPEG as BYTES are scored as their pixels are")


def figures(server):
    client = triton.InferenceServerClient(server.addresses[0].split("//")[1])
    for n, side in ((64, 512), (1, 32)):
        inputs, times = inputs_of(numpy.zeros((n, side, side, 3), numpy.uint8), ["a"] * n), []
        for _ in range(30):
            start = time.perf_counter()
            client.infer("quoted", inputs)
            times.append(time.perf_counter() - start)
        times.sort()
        print(f"tritonclient, {n} images of {side} x {side}: {times[0] * 1e3:.2f} ms at best, {times[15] * 1e3:.2f} ms median, "
              f"{n * side * side * 3 / times[15] / 1e9:.2f} GB/s")


def check_schema(server):
    """All of its checks but two: that any request of the right form is scored (the form does not say that shapes and data must
    agree), and that a token is asked for (this server has none)."""
    schema = server.path / "openapi.yaml"  # with the models that are there
    pattern = '{type: string, pattern: "^[A-Za-z0-9_-]{1,64}$"}'
    text = (ROOT / "proto/openapi.yaml").read_text()
    assert pattern in text
    schema.write_text(text.replace(pattern, "{type: string, enum: [bright, quoted, rewards]}"))
    command = [str(pathlib.Path(sys.executable).parent / "schemathesis"), "run", str(schema), "--url", server.addresses[0],
               "--max-examples", "300", "--seed", "1", "--exclude-checks", "ignored_auth,positive_data_acceptance"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=server.path)
    print("\n".join(result.stdout.splitlines()[-60:]))
    return result.returncode


if __name__ == "__main__":
    with Server(RECORDED_REWARDS) as running:
        check_triton(running, "--record" in sys.argv)
        check_files(running)
        figures(running)
        code = check_schema(running)
        assert running.get("/v2/health/ready").status == 200 and "Traceback" not in running.text(), running.text()
    sys.exit(code)
