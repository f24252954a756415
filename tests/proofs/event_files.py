#!/usr/bin/env python3
"""event_files.py DIR: TensorBoard's own reader (PyPI package tensorboard) and metrics.jsonl say the same of a run.

Every number of every line of DIR/metrics.jsonl is looked for in the events, steps that a resumed run took again are there
once, and images, histograms and the configuration are read. Prints what was compared; exit 1 at the first difference.
"""
import io
import json
import pathlib
import sys

from PIL import Image
from tensorboard.backend.event_processing import event_accumulator


def same(found, value):
    """Events have floats of 32 bits, metrics.jsonl nine digits."""
    return found is not None and abs(found - value) <= 2e-7 * abs(value)


def numbers(group, line):
    """Tags and numbers, as src/io/tensorboard.h says."""
    for key, value in line.items():
        if isinstance(value, dict):
            yield from numbers(key if group == "train" else f"{group}/{key}", value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and key != "step":
            yield f"{group}/{key}", value


run = pathlib.Path(sys.argv[1])
board = event_accumulator.EventAccumulator(str(run / "tensorboard"), size_guidance={key: 0 for key in (
    "scalars", "images", "histograms", "tensors")})
board.Reload()
tags = board.Tags()
seen = {}
for tag in tags["scalars"]:
    events = board.Scalars(tag)
    seen[tag] = {event.step: event.value for event in events}
    assert len(seen[tag]) == len(events), f"{tag}: a step is there twice"
compared = 0
lines = [json.loads(line) for line in open(run / "metrics.jsonl")]
for line in lines:
    for tag, value in numbers("train", line):
        found = seen.get(tag, {}).get(line["step"])
        assert same(found, value), f"step {line['step']}: {tag} is {found}, metrics.jsonl has {value}"
        compared += 1
for tag, by_step in seen.items():
    assert max(by_step) <= max(line["step"] for line in lines), f"{tag}: step {max(by_step)} is void"
for line in (json.loads(line) for line in open(run / "eval.jsonl")):
    for name, score in line["rewards"].items():
        if score["mean"] is not None:
            assert same(seen[f"eval/{name}"].get(line["step"]), score["mean"]), f"eval/{name} at {line['step']}"
            compared += 1
for image in board.Images("samples") if "samples" in tags["images"] else []:
    with Image.open(io.BytesIO(image.encoded_image_string)) as opened:
        opened.load()
        assert opened.size == (image.width, image.height)
histograms = [event.histogram_value for tag in tags["histograms"] for event in board.Histograms(tag)]
for histogram in histograms:
    assert sum(histogram.bucket) == histogram.num and len(histogram.bucket) == len(histogram.bucket_limit)
config = board.Tensors("config")[-1].tensor_proto.string_val[0].decode()
assert config.replace("\n    ", "\n")[4:].strip() == (run / "run.yaml").read_text().strip(), "config is another than run.yaml"
print(f"{compared} numbers of {len(lines)} steps, {len(tags['images'])} series of images, {len(histograms)} of histograms, "
      "run.yaml: the same in both")
