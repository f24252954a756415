#!/usr/bin/env python3
"""The same five rewards from a server written from proto/README.md alone, without marble_reward.py: the least of the Open Inference
Protocol v2, JSON tensors over Python's http.server. marble asks it as any other server. A start for one in another language.

    python deploy/examples/rewards/signs/plain_server.py 127.0.0.1:8003
"""
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from marble_scorer import NAMES, Scorer

MOST = 64 << 20  # bytes of a request
MODEL = {"name": "rewards", "versions": ["1"], "platform": "plain",
         "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
                    {"name": "prompts", "datatype": "BYTES", "shape": [-1]}],
         "outputs": [{"name": name + suffix, "datatype": kind, "shape": [-1, 1]}
                     for name in NAMES for suffix, kind in (("", "FP32"), ("_valid", "BOOL"))]}
ANSWERS = {"/v2": {"name": "plain", "version": "1", "extensions": []},  # no binary_tensor_data: JSON it is
           "/v2/health/live": {"live": True}, "/v2/health/ready": {"ready": True},
           "/v2/models/rewards": MODEL, "/v2/models/rewards/ready": {"name": "rewards", "ready": True}}


def infer(scorer, request):
    tensors = {tensor["name"]: tensor for tensor in request["inputs"]}
    count, height, width, channels = tensors["images"]["shape"]
    pixels, size = bytes(tensors["images"]["data"]), height * width * 3
    if channels != 3 or len(pixels) != count * size:
        raise ValueError(f"{len(pixels)} bytes of images; expected {count * size}, as their shape [N, H, W, 3] says")
    images = [(width, height, pixels[i * size:(i + 1) * size]) for i in range(count)]
    outputs, scores = [], {}
    for asked in request.get("outputs") or MODEL["outputs"]:
        name, _, valid = asked["name"].partition("_")
        if name not in NAMES or valid not in ("", "valid"):
            raise ValueError(f"outputs: {asked['name']}; expected one of {', '.join(NAMES)}, or with _valid behind it")
        if name not in scores:
            scores[name] = scorer.score(name, images, tensors["prompts"]["data"])
        data = [score is not None for score in scores[name]] if valid else scores[name]
        outputs.append({"name": asked["name"], "shape": [count, 1], "datatype": "BOOL" if valid else "FP32", "data": data})
    return {"model_name": "rewards", "model_version": "1", "outputs": outputs}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    disable_nagle_algorithm = True

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        known = ANSWERS.get(self.path)
        self.answer(200 if known else 404, known or {"error": f"no {self.path} here; expected one of {', '.join(ANSWERS)}"})

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != "/v2/models/rewards/infer" or not 0 < length <= MOST:
            self.close_connection = True  # the body is not read
            self.answer(404, {"error": f"expected up to {MOST} bytes at /v2/models/rewards/infer"})
            return
        body = self.rfile.read(length)
        try:
            self.answer(200, infer(self.server.scorer, json.loads(body)))
        except (KeyError, TypeError, ValueError) as error:
            self.answer(400, {"error": f"{type(error).__name__}: {error}"})
        except OSError as error:
            self.answer(500, {"error": str(error)})

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Handler)
    server.daemon_threads, server.scorer = True, Scorer()
    print(f"ready http://{host}:{server.server_port}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
