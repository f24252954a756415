#!/usr/bin/env python3
"""make_event.py: writes event.hex beside it, what TensorBoard's own messages (PyPI package tensorboard) make of the values in
tests/io/test_tensorboard.c: the event without its time as hexadecimal, and the masked CRC-32C of that."""
import pathlib
import struct

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

values = [
    summary_pb2.Summary.Value(tag="loss", simple_value=0.25),
    summary_pb2.Summary.Value(tag="samples", image=summary_pb2.Summary.Image(
        height=300, width=20, colorspace=3, encoded_image_string=b"PNG")),
    summary_pb2.Summary.Value(
        tag="config",
        metadata=summary_pb2.SummaryMetadata(plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="text")),
        tensor=tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"n" * 399], tensor_shape=tensor_shape_pb2.TensorShapeProto(
            dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)]))),
    summary_pb2.Summary.Value(tag="advantage/ocr", histo=summary_pb2.HistogramProto(
        min=-2, max=2, num=4, sum=-1.5, sum_squares=9.25, bucket_limit=[0, 2], bucket=[3, 1])),
]
event = event_pb2.Event(step=300, summary=summary_pb2.Summary(value=values)).SerializeToString(deterministic=True)
text = event.hex()
lines = [text[at:at + 120] for at in range(0, len(text), 120)]
pathlib.Path(__file__).with_name("event.hex").write_text("\n".join(lines) + f"\n{struct.unpack('<I', struct.pack('<I', masked_crc32c(event)))[0]:08x}\n")
