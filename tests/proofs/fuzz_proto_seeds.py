"""Writes the seeds of fuzz_proto.c, from the recorded exchanges of tests/golden/proto: fuzz_proto_seeds.py CODEC FOLDER."""
import base64, json, sys
from pathlib import Path

codec, folder = sys.argv[1], Path(sys.argv[2])
files = {"oip": ("triton", "mlserver", "kserve"), "unirl": ("unirl",), "chat": ("chat",)}[codec]
golden = Path(__file__).resolve().parent.parent / "golden" / "proto"
count = 0
for name in files:
    for case in json.loads((golden / f"{name}.json").read_text())["cases"]:
        exchanges = case["exchanges"]
        two = len(case["options"].get("outputs", [])) > 1 or "schema" in case["options"].get("judge", {})
        for at, exchange in enumerate(exchanges):
            response = exchange["response"]
            body = base64.b64decode(response["body"])
            length = response["headers"].get("inference-header-content-length")
            asks = exchange["request"]["method"] == "GET"
            first = two | (at << 1 | 8 if asks else 0)
            second = (case["batch"]["n"] - 1) | (128 if length else 0) | (6 << 2 if response["status"] != 200 else 0)
            (folder / f"{name}-{count}").write_bytes(bytes([first, second]) + int(length or 0).to_bytes(2, "little") + body)
            count += 1
print(f"{codec}: {count} seeds")
