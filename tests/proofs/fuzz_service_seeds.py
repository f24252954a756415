"""Writes the seeds of fuzz_service.c: fuzz_service_seeds.py service|folder FOLDER. For `service` a request of every path of
proto/openapi-service.yaml, queries, headers and bodies; for `folder` a file of every kind that a run's folder has."""
import io, json, re, sys, tarfile
from pathlib import Path

kind, folder = sys.argv[1], Path(sys.argv[2])
root = Path(__file__).resolve().parent.parent.parent
count = 0


def put(first, text):
    global count
    (folder / f"{kind}-{count}").write_bytes(bytes([first]) + (text if isinstance(text, bytes) else text.encode()))
    count += 1


def service():
    for path in re.findall(r"^  (/\S*):$", (root / "proto/openapi-service.yaml").read_text(), re.M):
        path = path.replace("{id}", "000004").replace("{index}", "1")
        put(0, path)
        put(0, path + "?run=0&from=2&to=4&points=3")
    for text in ("/api/samples/../run.yaml", "/api/samples/000004/../../service.json", "/api/rollout/000000", "/api/log?lines=3",
                 "/api/advantages?step=5", "/api/samples/step-000004.png", "//metrics", "/api/samples/%2e%2e"):
        put(0, text)
    for text in ("run=1&from=5", "from=9007199254740991", "run=0&run=0", "run", "&", "from=00000000000000005"):
        put(1, text)
    for text in ("localhost:80\nhttp://localhost:80\nBearer 0123456789abcdef", "[::1]:8080\nhttps://[::1]:8080\nbearer x", "node.example\n\nBasic x",
                 "127.0.0.1\nnull\n", "evil.example\nhttp://evil.example\n"):
        put(2, text)
    for body in ({"checkpoint": True, "pause": True}, {"set": {"train.lr": 1e-4, "balance.floor": 0.2, "balance.refresh_every": 2}},
                 {"set": {"rewards.jpeg.min": -1, "rewards.0.weight": 3}}, {"pause": True, "resume": True}, {"stop": False}, {"set": {}}, [], {"x": 1}):
        put(3, json.dumps(body))


def tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for name, data in (("000000.png", b"PNG"), ("000000.json", b'{"step": 5, "prompt": "a", "scores": {"ocr": 0.5}}')):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def run():
    put(0, '{"step": 1, "epoch": 1, "reward": {"ocr": 0.5, "jpeg": null}, "valid": {"ocr": 4}, "na": {"ocr": 0}, "failed": {"jpeg": 1}, '
           '"alarms": {"no_score": 1}, "seconds": {"total": 2.5}, "traffic": {}, "time": "2026-05-08T09:30:00Z"}\n{"step": 2}\n')
    put(1, '{"step": 0, "rewards": {"ocr": {"mean": 0.375, "ci95": 0.1}}}\n')
    put(2, '{"step": 1, "rewards": ["ocr", "jpeg"], "norm": [1.5, 0.5], "cos": [[1.0, -0.25], [-0.25, 1.0]]}\n')
    put(3, '# run: 3a78b7c709194b32\ntrain: {steps: 10, lr: 0.0005}\nrewards:\n  - {name: "ocr", options: {url: "http://u:p@h/"}}\n')
    put(4, tar())
    put(5, '{"cells": {"columns": 8}, "images": [{"prompt": "one", "scores": {"ocr": 0.5}}]}')
    put(6, "first\nwith http://u:p@h/x\n")
    put(7, "run 3a78b7c709194b32\n")
    put(8, '{"step": 1, "prompt": [3, 3], "advantage": {"ocr": [1.0, -1.0]}}\n')


{"service": service, "folder": run}[kind]()
print(f"{kind}: {count} seeds")
