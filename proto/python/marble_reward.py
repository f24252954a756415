#!/usr/bin/env python3
"""Serves reward functions written in Python to marble, or to any client of the Open Inference Protocol v2.

    # my_rewards.py
    from marble_reward import reward

    @reward("bright", range=(0, 1))
    def bright(images, prompts, metadata):
        return [image.mean() / 255 for image in images]

    python marble_reward.py serve my_rewards.py --check                     calls it on test images
    python marble_reward.py serve my_rewards.py --listen 127.0.0.1:8000     serves it

A reward gets three lists of the same length: images, prompts (str) and metadata (dict), and returns one score per image:
a number, None where the reward does not apply (N/A), or a pair (number or None, "why"). Images are numpy arrays uint8
[H, W, 3] (images="numpy"), PIL images (images="pil") or Pixels (images="raw": needs no package); they may differ in size
and are valid during the call only. What a reward raises is why its images have no score, and is not tried again; OSError
(a file or another server that cannot be reached) and a lack of memory are. Neither becomes a score of 0.

The file runs in worker processes (--workers), each of which imports it and calls one reward at a time. This process
receives requests, merges those that arrive together into batches, and starts workers anew when they die. proto/README.md
describes the protocol. One file, Python 3.9 or newer, standard library only; numpy and Pillow are used where a reward asks.
"""

import argparse
import asyncio
import base64
import collections
import contextlib
import email.utils
import hmac
import importlib.util
import io
import json
import math
import mmap
import os
import queue
import re
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse

VERSION = "1"
TLS_HANDSHAKE = b"\x16\x03"  # how a client that speaks TLS begins
MAX_HEAD = 32 << 10  # bytes of a request's line and header fields
MAX_FIELDS = 100
MAX_JSON = 16 << 20  # bytes of JSON; 64 images of 512 x 512 belong into the binary extension or into JPEG
MAX_DEPTH = 32  # levels of JSON
MAX_IMAGES = 4096  # images of a request
MAX_SIDE = 8192  # pixels
MAX_DECODED = 1 << 30  # bytes of pixels that the files of a batch become
MAX_TEXT = 1 << 20  # bytes of a prompt or of one image's metadata
MAX_PARTS = 128  # requests in one batch: the number of open files that a message can carry is limited
HEAD_SECONDS, BODY_SECONDS, BODY_RATE, IDLE_SECONDS = 10, 30, 1e6, 600  # a body has 30 s and a second per megabyte
FLOAT_MAX = 3.4028234663852886e38


# ---- what a reward file uses ----------------------------------------------------------------------------------------

REWARDS = {}  # name -> Reward, filled by the decorator when a worker imports the file


class Reward:
    def __init__(self, name, function, low, high, batch, images):
        self.name, self.function, self.low, self.high = name, function, low, high
        self.batch, self.images = batch, images


class Pixels:
    """An image for rewards that use no package: data holds height * width * 3 bytes, rows from the top, RGB."""

    def __init__(self, width, height, data):
        self.width, self.height, self.data = width, height, data


def reward(name, range=None, batch=None, images="numpy"):
    """Declares a reward. range: (lowest, highest) score, beyond which a score is an error; either may be None. batch: the most
    images of one call, where --batch is too many for it. images: "numpy", "pil" or "raw"."""
    if not isinstance(name, str) or not re.fullmatch("[A-Za-z0-9_-]{1,64}", name) or name.endswith(("_valid", "_reason")):
        raise ValueError(f"reward {name!r}: expected a name of letters, digits, _ and - that does not end in _valid or _reason")
    if images not in ("numpy", "pil", "raw"):
        raise ValueError(f'reward "{name}": images={images!r}: expected "numpy", "pil" or "raw"')
    if batch is not None and (not isinstance(batch, int) or batch < 1):
        raise ValueError(f'reward "{name}": batch={batch!r}: expected a number of images from 1')
    low, high = (None, None) if range is None else range
    if low is not None and high is not None and not low < high:
        raise ValueError(f'reward "{name}": range={range!r}: expected (lowest, highest)')

    def register(function):
        if name in REWARDS:
            raise ValueError(f'reward "{name}" is declared twice')
        REWARDS[name] = Reward(name, function, low, high, batch, images)
        return function

    return register


def device():
    """The device of this worker: its entry of --device, "cpu" by default. For use where a file loads its models."""
    return os.environ.get("MARBLE_REWARD_DEVICE", "cpu")


# ---- messages between this process and its workers: length, JSON, open files ----------------------------------------


class Fault(Exception):
    """What a client reads as {"error": message} with an HTTP status."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


def send_message(channel, message, files=()):
    text = json.dumps(message).encode()
    length = struct.pack("<I", len(text))
    if files:
        socket.send_fds(channel, [length], list(files))
    else:
        channel.sendall(length)
    channel.sendall(text)


def receive_exactly(channel, count):
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        n = channel.recv_into(view[got:])
        if n == 0:
            raise EOFError
        got += n
    return data


def receive_message(channel):
    """Returns the message and its files; raises EOFError at the other side's end."""
    length, files, _, _ = socket.recv_fds(channel, 4, MAX_PARTS)
    if not length:
        raise EOFError
    length += receive_exactly(channel, 4 - len(length))
    return json.loads(receive_exactly(channel, struct.unpack("<I", length)[0])), files


# ---- a worker: imports the file, calls its rewards ------------------------------------------------------------------


def load_file(path):
    """Imports the user's file, which fills REWARDS."""
    name = os.path.splitext(os.path.basename(path))[0]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise ImportError(f"{path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    if not REWARDS:
        raise ImportError(f"{path}: declares no reward; expected a function with @reward(...)")
    for entry in REWARDS.values():
        package = {"numpy": "numpy", "pil": "PIL"}.get(entry.images)
        if package and importlib.util.find_spec(package) is None:
            raise ImportError(f'reward "{entry.name}" takes images="{entry.images}", for which the package '
                              f'{"Pillow" if package == "PIL" else package} is missing in {sys.executable}')


def where_raised(error, path):
    """The last line of the user's file that the exception came through, as ` (file:line)`."""
    lines = [f for f in traceback.extract_tb(error.__traceback__) if os.path.abspath(f.filename) == os.path.abspath(path)]
    return f" ({os.path.basename(path)}:{lines[-1].lineno})" if lines else ""


def decode_file(data, index):
    """A PIL image of JPEG or PNG bytes. The size is checked before any pixel is decoded."""
    try:
        import PIL.Image
    except ImportError:
        raise Fault(400, "images as JPEG or PNG need Pillow at the server, which is missing; send UINT8 [N, H, W, 3]") from None
    try:
        image = PIL.Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        if max(image.size) > MAX_SIDE:
            raise Fault(400, f"images[{index}]: {image.width} x {image.height} pixels; expected at most {MAX_SIDE} a side")
        return image.convert("RGB")
    except Fault:
        raise
    except Exception as error:  # Pillow raises many types for broken files
        raise Fault(400, f"images[{index}]: not a JPEG or PNG file that can be read: {error}") from None


def images_of(part, handle, kind):
    """The images of a request's part, in the form that the reward asks for, over a private mapping of the request's body: a
    reward may write into its images without a copy of all and without another reward seeing it."""
    body = memoryview(mmap.mmap(handle, part["length"], access=mmap.ACCESS_COPY))
    if "files" in part:
        decoded = []
        for i, (at, size) in enumerate(part["files"]):
            decoded.append(decode_file(body[at:at + size], i))
            if sum(image.width * image.height * 3 for image in decoded) > MAX_DECODED:
                raise Fault(413, f"images[{i}]: over {MAX_DECODED} bytes of pixels in one batch")
        if kind == "pil":
            return decoded
        if kind == "raw":
            return [Pixels(image.width, image.height, memoryview(image.tobytes())) for image in decoded]
        import numpy
        return [numpy.array(image) for image in decoded]
    height, width, count, at = part["height"], part["width"], part["count"], part["offset"]
    size = height * width * 3
    if kind == "numpy":
        import numpy
        return list(numpy.frombuffer(body, numpy.uint8, count * size, at).reshape(count, height, width, 3))
    views = [body[at + i * size:at + (i + 1) * size] for i in range(count)]
    if kind == "raw":
        return [Pixels(width, height, view) for view in views]
    import PIL.Image
    return [PIL.Image.frombytes("RGB", (width, height), bytes(view)) for view in views]


def check_scores(entry, returned, count):
    """Turns what a reward returned into `count` numbers, None, or NaN where it is no score, and as many reasons; raises a
    Fault that names the reward where it is no list of so many."""
    def fault(text):
        return Fault(422, f'reward "{entry.name}" returned {text}')

    if hasattr(returned, "tolist"):  # numpy, torch
        returned = returned.tolist()
    if isinstance(returned, (str, bytes, dict, set, frozenset)) or not hasattr(returned, "__iter__"):  # of no order, or none
        raise fault(f"{type(returned).__name__}; expected {count} scores")
    returned = list(returned)
    if len(returned) != count:
        raise fault(f"{len(returned)} scores for {count} images")
    scores, reasons = [], []
    for i, value in enumerate(returned):
        try:
            value, reason = check_score(entry, value, i, fault)
        except Fault as wrong:
            value, reason = math.nan, wrong.message
        scores.append(value)
        reasons.append(reason[:1000])
    return scores, reasons


def check_score(entry, value, i, fault):
    """The score of image i and the reason that came with it."""
    reason = ""
    if isinstance(value, tuple):
        if len(value) != 2 or not isinstance(value[1], str):
            raise fault(f'{value!r:.100} for image {i}; expected (score, "reason")')
        value, reason = value
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list) and len(value) == 1:  # a column [N, 1]
        value = value[0]
    if value is not None:
        if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
            raise fault(f"{value!r:.100} for image {i}; expected a number or None")
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value) or abs(value) > FLOAT_MAX:
            raise fault(f"{value} for image {i}; expected a finite number, or None where it does not apply")
        slack = 1e-5 * max(1, abs(value))
        if (entry.low is not None and value < entry.low - slack) or (entry.high is not None and value > entry.high + slack):
            raise fault(f"{value} for image {i}, outside of its declared range ({entry.low}, {entry.high})")
    return value, reason


def lacks_memory(error, text):
    return isinstance(error, MemoryError) or "out of memory" in text


def passes(error, text):
    """Whether another try may do better: what a reward reaches for may come back, memory may be free again."""
    return isinstance(error, OSError) or "CUDA error" in text or lacks_memory(error, text)


SHOWN = set()  # what this process has printed the traceback of


def run_batch(message, files, path):
    """Calls one reward on one batch. The answer has scores and reasons, or error and status: 422 where the same images would
    fail again, 500 where they may not. split: fewer of them may do better."""
    entry = REWARDS[message["reward"]]
    try:
        images = []
        for part, handle in zip(message["parts"], files):
            images += images_of(part, handle, entry.images)
        start = time.perf_counter()
        returned = entry.function(images, message["prompts"], message["metadata"])
        scores, reasons = check_scores(entry, returned, len(images))
        return {"scores": scores, "reasons": reasons, "seconds": time.perf_counter() - start}
    except Fault as fault:
        return {"error": fault.message, "status": fault.status}
    except (Exception, SystemExit) as error:
        raised = f'reward "{entry.name}" raised {type(error).__name__}{where_raised(error, path)}'
        if raised not in SHOWN:  # it is called again with half of its images, and in every step
            SHOWN.add(raised)
            traceback.print_exc()
        text = f"{raised}: {error}"[:2000]
        return {"error": text, "status": 500 if passes(error, text) else 422,
                "split": not passes(error, text) or lacks_memory(error, text), "starved": lacks_memory(error, text),
                "broken": "CUDA error" in text}  # after which no call on that device succeeds
    finally:
        for handle in files:
            os.close(handle)


def end_with(parent, then):
    """Calls `then` within a second of the parent's end, whatever this process does meanwhile."""
    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        then()

    threading.Thread(target=watch, daemon=True).start()


def leave():
    """Ends the worker and what its file started: they are a process group."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


def worker_main(path, handle, parent):
    channel = socket.socket(fileno=handle)
    os.dup2(2, 1)  # what the file prints goes to stderr: stdout holds the server's address alone
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes of a job; the server says when to end
        signal.signal(number, signal.SIG_IGN)
    end_with(parent, leave)
    try:
        load_file(path)
        send_message(channel, {"rewards": [{"name": r.name, "low": r.low, "high": r.high, "batch": r.batch}
                                           for r in REWARDS.values()]})
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        send_message(channel, {"error": f"{type(error).__name__}{where_raised(error, path)}: {error}"})
        os._exit(1)
    try:
        while True:
            message, files = receive_message(channel)
            answer = run_batch(message, files, path)
            send_message(channel, answer)
            if answer.get("broken"):
                break
    except (EOFError, OSError):
        sys.stderr.flush()
        leave()
    sys.stderr.flush()
    os._exit(0)  # threads that the file left running do not keep the process


class Process:
    """A worker process as the server sees it."""

    def __init__(self, options, index):
        self.limit = "a third of the key deadline" if options.own_folder else "--seconds"
        self.channel, other = socket.socketpair()
        environment = dict(os.environ, PYTHONUNBUFFERED="1")
        devices = options.device.split(",")
        environment["MARBLE_REWARD_DEVICE"] = devices[index % len(devices)]
        environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // options.workers)
                                                      if hasattr(os, "sched_getaffinity") else 1))
        environment.pop(options.token_env, None)
        with other:
            self.process = subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), "worker", options.file, str(other.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL, env=environment, pass_fds=[other.fileno()], start_new_session=True)

    def hello(self):
        """Waits until the file is loaded; returns its rewards. Raises Fault with the reason if it cannot be."""
        try:
            message, _ = receive_message(self.channel)
        except (EOFError, OSError):
            raise Fault(500, f"the worker {self.how_it_ended()} while it loaded the file") from None
        if "error" in message:
            raise Fault(500, message["error"])
        return message["rewards"]

    def ask(self, message, files, seconds):
        """Runs a batch; the answer has died: True where the process is gone or was killed for lack of an answer."""
        count, name = len(message["prompts"]), message["reward"]
        self.channel.settimeout(seconds or None)
        try:
            send_message(self.channel, message, files)
            answer, _ = receive_message(self.channel)
            answer["died"] = bool(answer.get("broken"))
            return answer
        except socket.timeout:
            self.kill()
            return {"error": f'reward "{name}" took over {seconds:g} s for {count} images; its worker was ended ({self.limit})',
                    "status": 504, "died": True}
        except (EOFError, OSError):
            return {"error": f'the worker {self.how_it_ended()} while reward "{name}" scored {count} images',
                    "status": 422, "died": True}

    def how_it_ended(self):
        self.channel.close()
        if not self.wait(5):
            self.kill()
            return "closed its channel"
        self.kill_group()
        code = self.process.wait()
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def wait(self, seconds):
        """Whether the worker ends in so many seconds. It stays as a zombie: its number is that of its group."""
        end = time.monotonic() + seconds
        while not self.has_ended():
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def has_ended(self):
        if self.process.returncode is not None or not hasattr(os, "waitid"):
            return self.process.poll() is not None
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def kill_group(self):
        """Ends the worker and what its file started, while the number is taken."""
        if self.process.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def kill(self):
        self.channel.close()
        self.kill_group()
        self.process.wait()

    def end(self, seconds):
        """Closes the channel, at which an idle worker ends."""
        self.channel.close()
        self.wait(seconds)
        self.kill()


# ---- memory of requests ---------------------------------------------------------------------------------------------


class Buffer:
    """Memory that a body is received into and that workers map: a file without a name."""

    def __init__(self, capacity):
        self.capacity = capacity
        if hasattr(os, "memfd_create"):
            self.file = os.memfd_create("marble_reward")
        else:
            with tempfile.TemporaryFile() as file:
                self.file = os.dup(file.fileno())
        os.ftruncate(self.file, capacity)
        self.map = mmap.mmap(self.file, capacity)

    def __del__(self):
        os.close(self.file)


def capacity_of(size):
    """Few sizes, so that buffers fit again."""
    return max(1 << 16, 1 << (size - 1).bit_length()) if size < 1 << 20 else -(-size >> 20) << 20


class Buffers:
    """Hands out buffers, `limit` bytes at most; who asks beyond that waits, and its client with it. Freed ones are kept: to
    receive into memory that was touched before is faster."""

    def __init__(self, limit):
        self.limit, self.used, self.free, self.waiting = limit, 0, [], collections.deque()

    async def take(self, size):
        capacity = capacity_of(size)
        if self.waiting or self.used + capacity > self.limit:
            turn = asyncio.get_running_loop().create_future()
            self.waiting.append((capacity, turn))
            await turn  # its bytes are counted already when it is woken
        else:
            self.used += capacity
        fitting = [b for b in self.free if b.capacity == capacity]
        if fitting:
            self.free.remove(fitting[0])
            return fitting[0]
        while self.free and self.used + sum(b.capacity for b in self.free) > self.limit:
            self.free.pop(0)
        return Buffer(capacity)

    def trim(self, now):
        """Gives back what nobody needed for a minute."""
        self.free = [buffer for buffer in self.free if now - buffer.since < 60]

    def give(self, buffer):
        buffer.since = time.monotonic()
        self.free.append(buffer)
        self.release(buffer.capacity)

    def release(self, capacity):
        self.used -= capacity
        while self.waiting and (self.waiting[0][1].cancelled() or self.used + self.waiting[0][0] <= self.limit):
            capacity, turn = self.waiting.popleft()
            if not turn.cancelled():
                self.used += capacity
                turn.set_result(None)


# ---- the protocol: bytes to a Request, results to bytes -------------------------------------------------------------


BRACKETS = bytes.maketrans(b"{}", b"[]")
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse_json(text, what="the body"):
    """Parses bytes. How deep they are nested is checked before: strings and all but brackets are left out, then MAX_DEPTH
    times the innermost pairs."""
    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    bare = re.sub(rb'"[^"]*"?', b"", text.replace(rb"\\", b"").replace(rb'\"', b"")).translate(BRACKETS, NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        bare = bare.replace(b"[]", b"")
    if bare:
        raise Fault(400, f"{what} is not JSON, or nested deeper than {MAX_DEPTH} levels")
    try:
        return json.loads(text.decode(), parse_constant=refuse)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ones
        raise Fault(400, f"{what} is not JSON: {str(error)[:200]}") from None


def flatten(data, what):
    """JSON tensors come flat or nested as their shape is."""
    while data and isinstance(data[0], list):
        if not all(isinstance(row, list) for row in data):
            raise Fault(400, f"{what}: data mixes arrays and elements")
        data = [item for row in data for item in row]
    return data


class Request:
    """One call of /infer: what to score, and the results as they come."""

    def __init__(self, model, names, buffer):
        self.model, self.names, self.buffer = model, names, buffer
        self.id, self.outputs, self.binary_default = None, None, False
        self.count = self.height = self.width = self.offset = 0
        self.length, self.files = 0, None
        self.prompts = self.metadata = None
        self.scores, self.reasons = {}, {}
        self.fault, self.faults, self.pending, self.done = None, {}, 0, None
        self.wrong, self.right = collections.Counter(), set()  # calls that raised, by reward; rewards with a call that did not

    def fail(self, name, fault):
        """A reward failed on all images. The other rewards keep their scores unless the whole may be asked again."""
        self.faults.setdefault(name, fault)
        if fault.status not in (422, 504) or len(self.faults) == len(self.names):
            self.fault = self.fault or fault

    def fail_some(self, name, span, fault):
        self.scores[name][span] = [math.nan] * (span.stop - span.start)
        self.reasons[name][span] = [fault.message[:1000]] * (span.stop - span.start)

    def may_split(self, name):
        """A function that raises is called again with fewer images, to find those that it raises for. Where the first ones,
        down to a single image, all failed, it raises whatever it gets."""
        return name in self.right or self.wrong[name] <= self.count.bit_length()

    def settle(self):
        """After all pieces: a reward that failed has NaN for scores, and why. Without any score it is an error."""
        if self.fault:
            raise self.fault
        for name, fault in self.faults.items():
            self.fail_some(name, slice(0, self.count), fault)
        if all(score is not None and score != score for name in self.names for score in self.scores[name]):
            raise Fault(422, self.reasons[self.names[0]][0])

    def part(self, first, count):
        """What a worker needs to know of `count` images from `first` on."""
        part = {"length": self.length, "count": count}
        if self.files is not None:
            part["files"] = self.files[first:first + count]
        else:
            part.update(height=self.height, width=self.width, offset=self.offset + first * self.height * self.width * 3)
        return part


class Tensor:
    """An input of a request: its header, and where its bytes are or what its JSON data is."""

    def __init__(self, entry, index, at, end):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise Fault(400, f"inputs[{index}]: expected an object with name, shape and datatype")
        self.name = entry["name"]
        self.what = f'inputs[{index}] "{self.name[:64]}"'
        self.shape, self.datatype = entry.get("shape"), entry.get("datatype")
        if not isinstance(self.shape, list) or not all(type(n) is int and 0 < n < 1 << 32 for n in self.shape):
            raise Fault(400, f"{self.what}: shape {str(self.shape)[:100]}; expected an array of integers from 1")
        parameters = entry.get("parameters", {})
        if not isinstance(parameters, dict):
            raise Fault(400, f"{self.what}: parameters: expected an object")
        self.base64 = parameters.get("content_type") == "base64"
        self.data, self.at, self.size = entry.get("data"), at, parameters.get("binary_data_size")
        if (self.data is None) == (self.size is None):
            raise Fault(400, f"{self.what}: expected either data or parameters.binary_data_size")
        if self.size is not None:
            if type(self.size) is not int or self.size < 0:
                raise Fault(400, f"{self.what}: binary_data_size {str(self.size)[:40]}; expected a number of bytes")
            if self.size > end - at:
                raise Fault(400, f"{self.what}: binary_data_size {self.size}, but {end - at} bytes are left of the body")
        else:
            if not isinstance(self.data, list):
                raise Fault(400, f"{self.what}: data: expected an array")
            self.data = flatten(self.data, self.what)

    def expect_list(self, count=None):
        """BYTES [N] or [N, 1]."""
        if self.datatype != "BYTES":
            raise Fault(400, f"{self.what}: datatype {str(self.datatype)[:20]}; expected BYTES")
        if len(self.shape) not in (1, 2) or self.shape[1:] not in ([], [1]) or (count and self.shape[0] != count):
            raise Fault(400, f"{self.what}: shape {self.shape}; expected [{count or 'N'}]")
        if self.shape[0] > MAX_IMAGES:
            raise Fault(400, f"{self.what}: {self.shape[0]} elements; expected at most {MAX_IMAGES}")
        if self.data is not None and len(self.data) != self.shape[0]:
            raise Fault(400, f"{self.what}: {len(self.data)} elements of data for the shape {self.shape}")
        return self.shape[0]

    def elements(self, body):
        """Where the elements of a binary BYTES tensor are: [offset, length] each, behind 4 bytes of length."""
        places, at, end = [], self.at, self.at + self.size
        for i in range(self.shape[0]):
            if end - at < 4:
                raise Fault(400, f"{self.what}: its bytes end at element {i} of {self.shape[0]}")
            size = struct.unpack_from("<I", body, at)[0]
            at += 4
            if size > end - at:
                raise Fault(400, f"{self.what}: element {i} has {size} bytes by its length, but {end - at} are left")
            places.append([at, size])
            at += size
        if at != end:
            raise Fault(400, f"{self.what}: {end - at} bytes after its last element")
        return places

    def texts(self, body, count):
        self.expect_list(count)
        if self.data is None:
            raw = [bytes(body[at:at + size]) if size <= MAX_TEXT else None for at, size in self.elements(body)]
        else:
            raw = [text.encode("utf-8", "surrogatepass") if isinstance(text, str) else b"\xff" for text in self.data]
            raw = [text if len(text) <= MAX_TEXT else None for text in raw]
        texts = []
        for i, text in enumerate(raw):
            if text is None:
                raise Fault(400, f"{self.what}: element {i} has over {MAX_TEXT} bytes")
            try:
                texts.append(text.decode())
            except UnicodeDecodeError:
                raise Fault(400, f"{self.what}: element {i} is not text in UTF-8") from None
        return texts


def read_images(request, tensor, body):
    """Sets where the images are. Those that came as JSON are laid over the JSON text, which is longer and was parsed."""
    if tensor.datatype == "BYTES":
        request.count = tensor.expect_list()
        if tensor.data is None:
            request.files = tensor.elements(body)
        else:
            if not tensor.base64:
                raise Fault(400, f"{tensor.what}: files in JSON need parameters.content_type base64; "
                                 "or use the binary extension")
            request.files, at = [], 0
            for i, text in enumerate(tensor.data):
                try:
                    file = base64.b64decode(text, validate=True)
                except (ValueError, TypeError):
                    raise Fault(400, f"{tensor.what}: element {i} is not base64") from None
                body[at:at + len(file)] = file
                request.files.append([at, len(file)])
                at += len(file)
    elif tensor.datatype == "UINT8":
        if len(tensor.shape) != 4 or tensor.shape[3] != 3:
            raise Fault(400, f"{tensor.what}: shape {tensor.shape}; expected [N, H, W, 3]")
        request.count, request.height, request.width, _ = tensor.shape
        if max(request.height, request.width) > MAX_SIDE:
            raise Fault(400, f"{tensor.what}: shape {tensor.shape}; expected at most {MAX_SIDE} pixels a side")
        size = request.count * request.height * request.width * 3
        have = tensor.size if tensor.data is None else len(tensor.data)
        if have != size:
            raise Fault(400, f"{tensor.what}: {have} bytes for the shape {tensor.shape}; expected {size}")
        request.offset = tensor.at if tensor.data is None else 0
        if tensor.data is not None:
            try:
                body[:size] = bytes(tensor.data)
            except (ValueError, TypeError):
                raise Fault(400, f"{tensor.what}: data: expected integers from 0 to 255") from None
    else:
        raise Fault(400, f"{tensor.what}: datatype {str(tensor.datatype)[:20]}; expected UINT8 [N, H, W, 3], "
                         "or BYTES [N] of JPEG or PNG")
    if request.count > MAX_IMAGES:
        raise Fault(400, f"{tensor.what}: {request.count} images; expected at most {MAX_IMAGES}")


def read_flag(entry, key, default, what):
    """A true or false among the parameters of a request or of one of its outputs."""
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict) or not isinstance(parameters.get(key, default), bool):
        raise Fault(400, f"{what}parameters: expected an object, {key} in it true or false")
    return parameters.get(key, default)


def read_outputs(document, known):
    """The outputs asked for, as (name, binary); all of the model's where the request has none."""
    default, asked = read_flag(document, "binary_data_output", False, ""), document.get("outputs", [])
    if asked == []:
        return [(name, default) for name in known]
    if not isinstance(asked, list):
        raise Fault(400, "outputs: expected an array")
    outputs = []
    for i, entry in enumerate(asked):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in known or name in (n for n, _ in outputs):
            raise Fault(400, f"outputs[{i}]: {str(name)[:64]!r}; expected each at most once of: {', '.join(known)}")
        outputs.append((name, read_flag(entry, "binary_data", default, f"outputs[{i}]: ")))
    return outputs


def read_request(model, known, buffer, length, json_length):
    """Parses a body of `length` bytes, `json_length` of them JSON. `known`: the model's outputs, name -> (reward, field)."""
    body = memoryview(buffer.map)[:length]
    document = parse_json(bytes(body[:json_length]))
    if not isinstance(document, dict):
        raise Fault(400, "the body: expected a JSON object")
    request = Request(model, None, buffer)
    request.length = length
    request.id = document.get("id")
    if not isinstance(document.get("id", ""), str):
        raise Fault(400, "id: expected a string")
    request.outputs = read_outputs(document, list(known))
    request.names = sorted({known[name][0] for name, _ in request.outputs})
    inputs, tensors, at = document.get("inputs"), {}, json_length
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= 16:
        raise Fault(400, "inputs: expected an array of the tensors images, prompts and, if there are any, metadata")
    for i, entry in enumerate(inputs):
        tensor = Tensor(entry, i, at, length)
        if tensor.name not in ("images", "prompts", "metadata") or tensor.name in tensors:
            raise Fault(400, f"{tensor.what}: expected each once of images, prompts, metadata")
        tensors[tensor.name] = tensor
        at += tensor.size or 0
    if at != length:
        raise Fault(400, f"{length - at} bytes after the last tensor")
    for name in ("images", "prompts"):
        if name not in tensors:
            raise Fault(400, f'inputs: "{name}" is missing')
    read_images(request, tensors["images"], body)
    request.prompts = tensors["prompts"].texts(body, request.count)
    request.metadata = [{}] * request.count
    if "metadata" in tensors:
        texts = tensors["metadata"].texts(body, request.count)
        request.metadata = [parse_json(text.encode(), f"metadata[{i}]") if text else {} for i, text in enumerate(texts)]
        for i, value in enumerate(request.metadata):
            if not isinstance(value, dict):
                raise Fault(400, f"metadata[{i}]: expected a JSON object")
    return request


def write_response(request, known):
    """The body of the answer and, where some of it is binary, the length of its JSON. A score that does not apply is NaN
    (null in JSON), so that a client which does not read `valid` cannot take it for one. So is one that failed, which is valid."""
    outputs, binary = [], []
    for name, as_binary in request.outputs:
        reward_name, field = known[name]
        scores = request.scores[reward_name]
        entry = {"name": name, "shape": [request.count]}
        if field == "scores":
            entry["datatype"] = "FP32"
            packed = struct.pack(f"<{request.count}f", *(math.nan if s is None else s for s in scores))
            data = [None if s is None or s != s else v for s, v in zip(scores, struct.unpack(f"<{request.count}f", packed))]
        elif field == "valid":
            entry["datatype"], data = "BOOL", [s is not None for s in scores]
            packed = bytes(data)
        else:
            entry["datatype"], data = "BYTES", request.reasons[reward_name]
            packed = b"".join(struct.pack("<I", len(t)) + t for t in (text.encode("utf-8", "replace") for text in data))
        if as_binary:
            entry["parameters"] = {"binary_data_size": len(packed)}
            binary.append(packed)
        else:
            entry["data"] = data
        outputs.append(entry)
    document = {"model_name": request.model, "model_version": VERSION, "outputs": outputs}
    if request.id is not None:
        document["id"] = request.id
    text = json.dumps(document).encode()
    return b"".join([text] + binary), len(text) if binary else None


# ---- batches and workers --------------------------------------------------------------------------------------------


class Piece:
    """Some images of a request for one reward: what batches are made of."""

    def __init__(self, request, name, first, count):
        self.request, self.name, self.first, self.count = request, name, first, count
        self.since, self.alone = time.monotonic(), False


METRICS = {
    "requests_total": "requests to score, by model and HTTP status",
    "refused_total": "requests refused before they were read, by status",
    "batches_total": "calls of a reward",
    "images_total": "images it was called with",
    "call_seconds_total": "time in its calls",
    "call_failures_total": "calls of a reward that gave no scores, by status",
    "queue_seconds_total": "time that its pieces of requests waited for a worker",
    "worker_starts_total": "workers that loaded the file",
    "worker_deaths_total": "workers that died or were ended",
    "load_failures_total": "workers that could not load the file",
    "workers_ready": "workers that can score",
    "connections": "open connections",
    "requests_active": "requests being scored",
    "memory_bytes": "memory that holds requests",
    "images_waiting": "images that wait for a worker",
}


class Metrics:
    """Counters by name and labels, as Prometheus reads them."""

    def __init__(self):
        self.values = {}

    def add(self, name, amount=1, **labels):
        key = (name, tuple(labels.items()))
        self.values[key] = self.values.get(key, 0) + amount

    def text(self, gauges):
        lines, last = [], None
        for (name, labels), value in sorted(list(self.values.items()) + [((n, ()), v) for n, v in gauges.items()]):
            if name != last:
                lines.append(f"# HELP marble_reward_{name} {METRICS[name]}")
                lines.append(f"# TYPE marble_reward_{name} {'gauge' if name in gauges else 'counter'}")
                last = name
            inner = ",".join(f'{k}="{v}"' for k, v in labels)
            lines.append(f"marble_reward_{name}{'{' + inner + '}' if inner else ''} {value:.9g}")
        return "\n".join(lines) + "\n"


class Pool:
    """Queues of pieces, one per reward, and the workers that take batches of them. All but run_worker runs on the
    event loop."""

    def __init__(self, options, loop, metrics):
        self.options, self.loop, self.metrics = options, loop, metrics
        self.rewards, self.queues, self.idle, self.live, self.ready_workers = {}, {}, [], {}, 0
        self.deadly = {}  # name -> [calls in a row that ended their worker or lacked memory, not called until, what the last said]
        self.stopping, self.ending, self.timer, self.might_add = False, threading.Event(), None, lambda: False
        self.started = loop.create_future()  # set when the first worker has loaded the file, or with why it could not
        self.threads = [threading.Thread(target=self.run_worker, args=(i,), daemon=True) for i in range(options.workers)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def run_worker(self, index):
        """A thread: keeps one worker process, gives it batches, starts it anew when it died."""
        pause, jobs = 0.5, queue.Queue()
        while not self.ending.is_set():
            try:
                process = self.live[index] = Process(self.options, index)
                rewards = process.hello()
            except (Fault, OSError) as error:  # OSError: no process could be started
                self.call(self.failed_to_load, error)
                if index in self.live:
                    self.live[index].end(5)
            else:
                began = time.monotonic()
                self.call(self.loaded, rewards, jobs)
                died = False
                while not died:
                    try:
                        job = jobs.get(timeout=0.5)
                    except queue.Empty:
                        job = ()
                    if job is None:
                        process.end(5)
                        return
                    if process.wait(0):
                        died = True
                        self.call(self.lost, jobs, job)
                    if died or not job:
                        continue
                    message, pieces = job
                    answer = process.ask(message, [p.request.buffer.file for p in pieces], self.options.seconds)
                    died = answer["died"]
                    self.call(self.answered, message["reward"], pieces, answer, None if died else jobs)
                process.end(5)
                if time.monotonic() - began > 60:
                    pause = 0.5
            self.ending.wait(pause)
            pause = min(2 * pause, 30)

    def call(self, function, *arguments):
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: the server has ended
            pass

    def loaded(self, rewards, jobs):
        if any(entry["name"] == self.options.name for entry in rewards):
            self.failed_to_load(Fault(500, f'a reward is named "{self.options.name}", as is the model of all rewards (--name)'))
            jobs.put(None)
            return
        if not self.rewards:
            self.rewards = {entry["name"]: entry for entry in rewards}
            self.queues = {name: collections.deque() for name in self.rewards}
        if not self.started.done():
            self.started.set_result(None)
        self.metrics.add("worker_starts_total")
        if {entry["name"] for entry in rewards} != set(self.rewards):
            log("the file declares other rewards than before; a worker that loaded it is not used. Start the server anew.")
            jobs.put(None)
            return
        self.idle.append(jobs)
        self.ready_workers += 1
        self.pump()

    def failed_to_load(self, error):
        self.metrics.add("load_failures_total")
        if not self.started.done():
            self.started.set_exception(error)
        log(f"{self.options.file}: {error}")

    def lost(self, jobs, job):
        """A worker ended while it had nothing to do. What it was given since goes to the next one."""
        self.ready_workers -= 1
        self.metrics.add("worker_deaths_total")
        log("a worker ended while it had nothing to do; it is started anew")
        if jobs in self.idle:
            self.idle.remove(jobs)
        elif not job and not jobs.empty():  # given after it was found dead, before this was called
            job = jobs.get_nowait()
            if job is None:  # the end of all
                jobs.put(None)
        if job:
            message, pieces = job
            self.queues[message["reward"]].extendleft(reversed(pieces))
        self.pump()

    def batch_size(self, name):
        return self.rewards[name]["batch"] or self.options.batch

    def submit(self, request):
        """Queues a request; its `done` is set when every piece has been scored or has failed."""
        if not self.ready_workers:
            raise Fault(503, "no worker is running; one is being started")
        request.done = self.loop.create_future()
        for name in request.names:
            request.scores[name], request.reasons[name] = [None] * request.count, [""] * request.count
            if self.is_deadly(name):
                request.fail(name, self.deadly_fault(name))
                continue
            size = self.batch_size(name)
            for first in range(0, request.count, size):
                self.queues[name].append(Piece(request, name, first, min(size, request.count - first)))
                request.pending += 1
        if not request.pending:
            request.done.set_result(None)
        self.pump()
        return request.done

    def is_deadly(self, name):
        return self.deadly.get(name, (0, 0))[1] > time.monotonic()

    def deadly_fault(self, name):
        count, until, text = self.deadly[name]
        return Fault(422, f'reward "{name}" is not called for {max(1, until - time.monotonic()):.0f} s more: {count} calls in a '
                          f"row ended their worker or lacked memory for one image; the last: {text}")

    def note_death(self, name, cost, text):
        """A reward that always ends its worker, or always eats up the memory, would hold up all others: it is called less and less
        often."""
        count = self.deadly.get(name, (0, 0))[0] + 1
        pause = min(max(10 * 2 ** min(count - 2, 10), 10 * cost), max(300, 10 * cost)) if count > 1 else 0
        self.deadly[name] = [count, time.monotonic() + pause, text]
        if pause:
            log(f'reward "{name}" is not called for {pause:.0f} s: {count} calls in a row ended their worker or lacked memory')

    def ripe(self, name, now):
        """Seconds until a queue should run: 0 if a batch is full, if its oldest piece has waited, or if no client can add
        to it."""
        pieces = self.queues[name]
        if pieces[0].alone or self.stopping or sum(p.count for p in pieces) >= self.batch_size(name) or not self.might_add():
            return 0
        return max(0, pieces[0].since + self.options.wait / 1000 - now)

    def pump(self):
        """Gives batches to idle workers, the longest waiting reward first."""
        if self.timer:
            self.timer.cancel()
            self.timer = None
        while self.idle:
            now = time.monotonic()
            waiting = sorted((self.ripe(name, now), pieces[0].since, name) for name, pieces in self.queues.items() if pieces)
            if not waiting:
                return
            if waiting[0][0] > 0:
                self.timer = self.loop.call_later(waiting[0][0], self.pump)
                return
            self.run(waiting[0][2], now)

    def run(self, name, now):
        pieces, count = [], 0
        waiting, size = self.queues[name], self.batch_size(name)
        while waiting and len(pieces) < MAX_PARTS and count + waiting[0].count <= size and not (pieces and waiting[0].alone):
            piece = waiting.popleft()
            if piece.request.fault or name in piece.request.faults:  # another piece of it failed
                self.finish(piece)
                continue
            if self.is_deadly(name):
                piece.request.fail(name, self.deadly_fault(name))
                self.finish(piece)
                continue
            pieces.append(piece)
            count += piece.count
            self.metrics.add("queue_seconds_total", now - piece.since, reward=name)
            if piece.alone:
                break
        if pieces:
            spans = [(p.request, slice(p.first, p.first + p.count)) for p in pieces]
            message = {"reward": name, "parts": [p.request.part(p.first, p.count) for p in pieces],
                       "prompts": [text for r, span in spans for text in r.prompts[span]],
                       "metadata": [value for r, span in spans for value in r.metadata[span]]}
            self.idle.pop(0).put((message, pieces))

    def answered(self, name, pieces, answer, jobs):
        if jobs is not None:
            self.idle.append(jobs)
        else:
            self.ready_workers -= 1
            self.metrics.add("worker_deaths_total")
            log(answer["error"])
        shared = len(pieces) > 1
        if "error" in answer and (shared or (answer["died"] and answer["status"] != 504 and not pieces[0].alone)):
            # One request may have spoilt the batch for the others, or somebody else ended the worker: each once more, alone.
            for piece in reversed(pieces):
                piece.alone = True
                self.queues[name].appendleft(piece)
        elif self.splits(pieces[0], answer):
            self.metrics.add("call_failures_total", reward=name, code=answer["status"])
            self.split(pieces[0])
        else:
            self.metrics.add("batches_total", reward=name)
            self.metrics.add("images_total", sum(p.count for p in pieces), reward=name)
            self.metrics.add("call_seconds_total", answer.get("seconds", 0), reward=name)
            if "error" in answer:
                self.metrics.add("call_failures_total", reward=name, code=answer["status"])
                if answer["died"] or answer.get("starved"):
                    self.note_death(name, time.monotonic() - pieces[0].since, answer["error"])
            else:
                self.deadly.pop(name, None)
            at = 0
            for piece in pieces:
                span = slice(piece.first, piece.first + piece.count)
                fault = Fault(answer["status"], answer["error"]) if "error" in answer else None
                if fault and fault.status == 422 and not answer["died"] and (piece.count == 1 or name in piece.request.right):
                    piece.request.fail_some(name, span, fault)
                elif fault:
                    piece.request.fail(name, fault)
                else:
                    piece.request.right.add(name)
                    piece.request.scores[name][span] = answer["scores"][at:at + piece.count]
                    piece.request.reasons[name][span] = answer["reasons"][at:at + piece.count]
                at += piece.count
                self.finish(piece)
        self.pump()

    def splits(self, piece, answer):
        """Whether a call that raised is made again with fewer images. That takes half the time of a call at most."""
        if not answer.get("split") or (answer["starved"] and piece.name in self.deadly):  # one image was too much before
            return False
        piece.request.wrong[piece.name] += 1
        has_time = not self.options.seconds or time.monotonic() - piece.since < self.options.seconds / 2
        return piece.count > 1 and has_time and piece.request.may_split(piece.name)

    def split(self, piece):
        """Two calls instead of one."""
        half = piece.count // 2
        parts = [Piece(piece.request, piece.name, piece.first, half),
                 Piece(piece.request, piece.name, piece.first + half, piece.count - half)]
        for part in reversed(parts):
            part.alone, part.since = True, piece.since
            self.queues[piece.name].appendleft(part)
        piece.request.pending += 1

    def finish(self, piece):
        request = piece.request
        request.pending -= 1
        if request.pending == 0 and not request.done.done():
            request.done.set_result(None)

    def stop(self):
        """Ends idle workers and, once they have answered, the others."""
        self.ending.set()
        while self.idle:
            self.idle.pop().put(None)

    def kill(self):
        for process in list(self.live.values()):
            process.kill_group()


# ---- HTTP -----------------------------------------------------------------------------------------------------------

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed",
           408: "Request Timeout", 411: "Length Required", 413: "Content Too Large", 415: "Unsupported Media Type",
           422: "Unprocessable Content", 431: "Request Header Fields Too Large", 500: "Internal Server Error", 501: "Not Implemented",
           503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported"}


class Head:
    """A request's line and header fields."""

    def __init__(self, data):
        lines = data.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"([A-Z]{1,20}) (?:https?://[^/ ]*)?(/[!-~]*) HTTP/(\d)\.(\d)", lines[0])
        if not match:
            raise Fault(400, "the request line; expected METHOD /PATH HTTP/1.1")
        if match[3] != "1":
            raise Fault(505, f"HTTP/{match[3]}.{match[4]}; expected HTTP/1.1")
        self.method, self.path = match[1], urllib.parse.unquote(match[2].split("?")[0])
        if len(lines) - 1 > MAX_FIELDS:
            raise Fault(431, f"{len(lines) - 1} header fields; expected at most {MAX_FIELDS}")
        self.fields = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            name, value = name.lower(), value.strip(" \t")
            if not re.fullmatch("[!#$%&'*+.^_`|~0-9a-z-]+", name) or not re.fullmatch("[\t -~\x80-\xff]*", value) or not colon:
                raise Fault(400, "a header field; expected NAME: VALUE")
            if self.fields.get(name, value) != value and name in ("content-length", "transfer-encoding", "host",
                                                                       "authorization", "inference-header-content-length"):
                raise Fault(400, f"two header fields {name} that differ")
            self.fields[name] = value
        options = self.fields.get("connection", "").lower()
        self.keep = "close" not in options and (match[4] != "0" or "keep-alive" in options)
        if "transfer-encoding" in self.fields:
            raise Fault(501, "Transfer-Encoding is not supported; send Content-Length")
        self.length = self.number("content-length") or 0

    def number(self, name):
        """A header field that is a number; None where it is not there."""
        text = self.fields.get(name)
        if text is not None and not re.fullmatch("[0-9]{1,15}", text):
            raise Fault(400, f"{name}: expected a number of bytes")
        return None if text is None else int(text)


class Connection(asyncio.BufferedProtocol):
    """One connection: reads a head, then the body straight into the memory that workers see, then answers; one request after
    another. While it works on one, what a client sent ahead waits."""

    def __init__(self, server):
        self.server, self.transport = server, None
        self.ahead, self.filled = bytearray(MAX_HEAD + 4), 0  # bytes of the head, or of what follows this request
        # head, waiting (for memory), body, busy, drain (the answer is sent, the rest is dropped) or gone
        self.state, self.scored, self.choked = "head", False, False
        self.head = self.buffer = self.view = self.task = None
        self.got, self.expires = 0, time.monotonic() + IDLE_SECONDS

    def connection_made(self, transport):
        self.transport = transport
        self.server.connections.add(self)
        if len(self.server.connections) > self.server.options.max_connections:
            self.refuse(Fault(503, f"over {self.server.options.max_connections} connections (--max-connections)"))

    def connection_lost(self, error):
        self.server.connections.discard(self)
        if self.state == "body":
            self.drop_body()
        self.state = "gone"

    def get_buffer(self, hint):
        if self.state == "body":
            return self.view[self.got:]
        if self.state == "drain":
            return self.ahead
        if self.filled == len(self.ahead):  # only of a client that sends ahead without end
            self.transport.abort()
            return bytearray(1)
        return memoryview(self.ahead)[self.filled:]

    def buffer_updated(self, count):
        if self.state == "body":
            self.got += count
            if self.got == self.head.length:
                self.work(self.score())
        elif self.state != "drain":
            self.filled += count
            self.read_heads()

    def eof_received(self):
        return False  # seen only between requests, or in the midst of one: while one is answered, nothing is read

    def pause_writing(self):
        """The client does not read its answers: it is not read either."""
        self.choked = True
        self.transport.pause_reading()

    def resume_writing(self):
        self.choked = False
        if self.state not in ("busy", "waiting"):
            self.transport.resume_reading()
        self.read_heads()

    def read_heads(self):
        while self.state == "head" and self.filled and not self.choked and self.read_head():
            pass

    def read_head(self):
        """Reads a request's head and does what it asks; false if it is not whole yet."""
        if self.ahead.startswith(TLS_HANDSHAKE, 0, self.filled):
            self.refuse(Fault(400, "TLS; this server speaks http: expected http:// in its url"))
            return False
        end = self.ahead.find(b"\r\n\r\n", 0, self.filled)
        if end < 0:
            if self.filled >= MAX_HEAD:
                self.refuse(Fault(431, f"over {MAX_HEAD} bytes of header; expected fewer"))
            else:
                self.expires = min(self.expires, time.monotonic() + HEAD_SECONDS)
            return False
        data = bytes(self.ahead[:end])
        self.consume(end + 4)
        try:
            self.head = Head(data)
            self.server.authorize(self.head)
            answer = self.server.answer_at_once(self.head)
            if answer is None:
                self.server.check_body(self.head)
        except Fault as fault:
            self.refuse(fault)
            return True
        if answer is None:
            self.work(self.open_body(), "waiting")
        elif self.head.length:
            self.refuse(Fault(400, f"{self.head.method} {self.head.path} takes no body"))
        else:
            self.send(200, *answer)
            self.next()
        return True

    def consume(self, count):
        self.ahead[:self.filled - count] = self.ahead[count:self.filled]
        self.filled -= count

    def work(self, coroutine, state="busy"):
        self.state = state
        self.expires = math.inf
        self.transport.pause_reading()
        self.task = self.server.loop.create_task(coroutine)

    async def open_body(self):
        """Waits for memory, then has the body received into it."""
        self.buffer = await self.server.buffers.take(max(1, self.head.length))
        if self.state == "gone":
            self.drop_body()
            return
        self.view = memoryview(self.buffer.map)[:self.head.length]
        self.got = min(self.filled, self.head.length)
        self.view[:self.got] = self.ahead[:self.got]
        self.consume(self.got)
        if self.head.fields.get("expect", "").lower() == "100-continue" and not self.got:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.got == self.head.length:
            self.state = "busy"
            await self.score()
            return
        self.state, self.expires = "body", time.monotonic() + BODY_SECONDS + self.head.length / BODY_RATE
        self.transport.resume_reading()

    def drop_body(self):
        if self.buffer:
            self.view = None
            self.server.buffers.give(self.buffer)
            self.buffer = None

    async def score(self):
        """Answers a request whose body is here. Its memory is free again only when no worker reads it any more."""
        server, head = self.server, self.head
        server.active += 1
        self.scored = True
        try:
            status, body, kind, extra = await server.score(head, self.buffer)
        except Fault as fault:
            status, body, kind, extra = fault_answer(fault)
        except Exception:  # ours
            traceback.print_exc()
            status, body, kind, extra = fault_answer(Fault(500, "the server failed; its log says more"))
        finally:
            server.active -= 1
        self.drop_body()
        server.metrics.add("requests_total", model=head.path.split("/")[3], code=status)
        if self.state != "gone":
            self.send(status, body, kind, extra)
            self.next()
            self.read_heads()

    def send(self, status, body, kind="application/json", extra=()):
        keep = self.head is not None and self.head.keep and not self.server.stopping and self.state != "drain"
        if not keep:
            self.state = "drain"
        lines = [f"HTTP/1.1 {status} {REASONS[status]}", f"Content-Type: {kind}", f"Content-Length: {len(body)}",
                 f"Date: {email.utils.formatdate(usegmt=True)}", f"Connection: {'keep-alive' if keep else 'close'}", *extra]
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def next(self):
        """Waits for the next request, or closes."""
        if not self.choked:
            self.transport.resume_reading()
        if self.state == "drain":
            self.linger()
        else:
            self.state, self.expires = "head", time.monotonic() + IDLE_SECONDS

    def refuse(self, fault):
        """Answers before the body was read; the connection cannot go on."""
        self.drop_body()
        self.state = "drain"
        status, body, kind, extra = fault_answer(fault)
        self.server.metrics.add("refused_total", code=status)
        self.send(status, body, kind, extra)
        self.linger()

    def linger(self):
        """Closes, but reads on for a moment: bytes that nobody reads would make the client lose its answer."""
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.expires = time.monotonic() + 2
        else:
            self.transport.close()

    def expire(self, now):
        if now < self.expires:
            return
        if self.state == "body" or (self.state == "head" and self.filled):
            self.refuse(Fault(408, "the request did not arrive in time"))
        elif self.state == "drain":
            self.transport.abort()
        else:
            self.transport.close()


def fault_answer(fault):
    extra = {503: ["Retry-After: 1"], 401: ["WWW-Authenticate: Bearer"], 405: [f"Allow: {getattr(fault, 'allow', 'GET')}"]}
    return fault.status, json.dumps({"error": fault.message}).encode(), "application/json", extra.get(fault.status, [])


class Server:
    """What the paths answer, and how the server starts and ends."""

    def __init__(self, options, token):
        self.options, self.token = options, token
        self.metrics, self.buffers = Metrics(), Buffers(max(options.max_memory, capacity_of(options.max_body)))
        self.connections, self.active, self.stopping, self.listeners = set(), 0, False, []
        self.orphan = False  # whoever started this one is gone

    def authorize(self, head):
        if self.token and not head.path.startswith("/v2/health/"):
            given = head.fields.get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, b"Bearer " + self.token):
                raise Fault(401, "expected the header field Authorization: Bearer TOKEN with this server's token")

    def outputs_of(self, model):
        """The outputs of a model: name -> (reward, field). One model per reward, and one for all of the file's."""
        if model == self.options.name:
            return {name + suffix: (name, field) for name in self.pool.rewards
                    for suffix, field in (("", "scores"), ("_valid", "valid"), ("_reason", "reason"))}
        if model not in self.pool.rewards:
            known = ", ".join([*self.pool.rewards, self.options.name])
            raise Fault(404, f"no model {model[:64]!r} here; expected one of: {known}")
        return {field: (model, field) for field in ("scores", "valid", "reason")}

    def route(self, head):
        """Returns (method, what, model); raises Fault for a path that is not ours."""
        match = re.fullmatch("/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer)?", head.path)
        if match:
            self.outputs_of(match[1])
            if match[2] not in (None, VERSION):
                raise Fault(404, f"no version {match[2][:64]!r}; expected {VERSION}")
            return ("POST" if match[3] == "/infer" else "GET"), match[3] or "/metadata", match[1]
        if head.path.rstrip("/") in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/metrics"):
            return "GET", head.path.rstrip("/"), None
        raise Fault(404, f"no {head.path[:100]!r} here; expected /v2, /v2/models/NAME, /v2/models/NAME/infer, /metrics ...")

    def answer_at_once(self, head):
        """The answer to all but /infer: (body, content type); None for /infer."""
        method, what, model = self.route(head)
        if head.method != method:
            fault = Fault(405, f"{head.method} {head.path[:100]}; expected {method}")
            fault.allow = method
            raise fault
        if what == "/infer":
            return None
        if what == "/metrics":
            gauges = {"workers_ready": self.pool.ready_workers, "connections": len(self.connections),
                      "requests_active": self.active, "memory_bytes": self.buffers.used,
                      "images_waiting": sum(p.count for pieces in self.pool.queues.values() for p in pieces)}
            return self.metrics.text(gauges).encode(), "text/plain; version=0.0.4"
        if what in ("/v2/health/ready", "/ready") and (self.stopping or not self.pool.ready_workers):
            raise Fault(503, "stopping" if self.stopping else "no worker is running; one is being started")
        return json.dumps({"/v2": lambda: {"name": "marble_reward", "version": VERSION, "extensions": ["binary_tensor_data"]},
                           "/v2/health/live": lambda: {"live": True},
                           "/v2/health/ready": lambda: {"ready": True},
                           "/v2/models": lambda: {"models": [*self.pool.rewards, self.options.name]},
                           "/ready": lambda: {"name": model, "ready": True},
                           "/metadata": lambda: self.metadata(model)}[what]()).encode(), "application/json"

    def metadata(self, model):
        types = {"scores": "FP32", "valid": "BOOL", "reason": "BYTES"}
        outputs = self.outputs_of(model)
        images = {"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}
        if self.options.ask_for_files:
            images = {"name": "images", "datatype": "BYTES", "shape": [-1]}
        names = sorted({name for name, _ in outputs.values()})
        parameters = {"max_batch_size": min(self.pool.batch_size(name) for name in names)}
        if model != self.options.name:
            for key, bound in (("min", "low"), ("max", "high")):
                if self.pool.rewards[model][bound] is not None:
                    parameters[key] = self.pool.rewards[model][bound]
        return {"name": model, "versions": [VERSION], "platform": "python_marble_reward", "parameters": parameters,
                "inputs": [images, {"name": "prompts", "datatype": "BYTES", "shape": [-1]},
                           {"name": "metadata", "datatype": "BYTES", "shape": [-1]}],
                "outputs": [{"name": name, "datatype": types[field], "shape": [-1]} for name, (_, field) in outputs.items()]}

    def check_body(self, head):
        """What can be said of a body before any of it is read."""
        if self.stopping:
            raise Fault(503, "the server is stopping")
        if "content-length" not in head.fields:
            raise Fault(411, "Content-Length is missing")
        if head.fields.get("content-encoding", "identity").lower() != "identity":
            raise Fault(415, f"Content-Encoding {head.fields['content-encoding'][:40]}; expected none")
        if head.length > self.options.max_body:
            raise Fault(413, f"a body of {head.length} bytes; expected at most {self.options.max_body} (--max-body)")
        head.json_length = head.number("inference-header-content-length")
        if head.json_length is None:
            head.json_length = head.length
        if head.json_length > head.length:
            raise Fault(400, f"Inference-Header-Content-Length {head.json_length}; expected at most the body's {head.length}")
        if head.json_length > MAX_JSON:
            raise Fault(413, f"{head.json_length} bytes of JSON; expected at most {MAX_JSON}: send images through the binary "
                             "tensor extension, or as JPEG or PNG")

    async def score(self, head, buffer):
        model = head.path.split("/")[3]
        known = self.outputs_of(model)
        request = read_request(model, known, buffer, head.length, head.json_length)
        await self.pool.submit(request)
        request.settle()
        body, json_length = write_response(request, known)
        if json_length is None:
            return 200, body, "application/json", []
        return 200, body, "application/octet-stream", [f"Inference-Header-Content-Length: {json_length}"]

    async def listen(self, address):
        """Returns the address as clients write it."""
        tls = {"ssl": tls_context(self.options), "ssl_handshake_timeout": HEAD_SECONDS} if self.options.tls_cert else {}
        scheme = "https" if tls else "http"
        if address.startswith("unix:"):
            path = address[5:]
            free_unix_path(path)
            mask = os.umask(0o177)  # who may connect: this user
            try:
                self.listeners.append(await self.loop.create_unix_server(lambda: Connection(self), path, backlog=512, **tls))
            finally:
                os.umask(mask)
            return address
        host, port = split_address(address)
        listener = await self.loop.create_server(lambda: Connection(self), host, port, backlog=512, **tls)
        self.listeners.append(listener)
        for sock in listener.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        if not self.token and not all(s.getsockname()[0] in ("127.0.0.1", "::1") for s in listener.sockets):
            log(f"{address} can be reached from other hosts, and there is no token (--token-file)")
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{listener.sockets[0].getsockname()[1]}"

    async def listen_or_say(self, address):
        try:
            return await self.listen(address)
        except OSError as error:
            if not error.errno:  # ours, which names the address
                raise
            raise OSError(f"--listen {address}: {error.strerror or error}") from None

    async def serve(self):
        self.loop = asyncio.get_running_loop()
        self.pool = Pool(self.options, self.loop, self.metrics)
        # A batch waits only while some connection that scores is not waiting for an answer itself.
        self.pool.might_add = lambda: any(c.scored and c.state != "busy" for c in self.connections)
        self.ended = asyncio.Event()
        # Ctrl-C and a job's SIGTERM reach a trainer's server too: the trainer, which ignored both for it, stops first, with
        # scores that are still to come, and ends it then.
        for number in (signal.SIGUSR1,) if self.options.own_folder else (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self.stop)
        if self.options.own_folder:
            self.loop.add_signal_handler(signal.SIGUSR2, self.stop_without_parent)
        if self.options.with_parent:
            end_with(self.options.with_parent, self.end_without_parent)
        self.pool.start()
        ended = self.loop.create_task(self.ended.wait())
        await asyncio.wait([self.pool.started, ended], return_when=asyncio.FIRST_COMPLETED)
        if self.stopping:
            self.pool.kill()  # workers that load the file have nothing to finish
        else:
            if self.pool.started.exception():
                self.pool.kill()
                return 1  # the reason is in the log
            addresses = [await self.listen_or_say(address) for address in self.options.listen]
            print("ready", *addresses, flush=True)
            log(f"serving {', '.join(self.pool.rewards)} with {self.options.workers} workers")
            sweep = self.loop.create_task(self.sweep())
            await ended
            await self.finish()
            sweep.cancel()
        self.pool.stop()
        end = time.monotonic() + 2
        while time.monotonic() < end and any(thread.is_alive() for thread in self.pool.threads):
            await asyncio.sleep(0.01)
        self.pool.kill()
        for address in self.options.listen:
            if address.startswith("unix:"):
                with contextlib.suppress(OSError):
                    os.unlink(address[5:])
        self.remove_folder()
        return 0

    def stop_without_parent(self):
        """Linux sends the signal once for each thread of the parent that was to inherit this process and ended too."""
        if not self.orphan:
            self.orphan = True
            self.stop()

    def end_without_parent(self):
        self.orphan = True
        self.pool.kill()
        self.remove_folder()
        os._exit(1)

    def remove_folder(self):
        """Whoever started this one removes its folder, unless it was killed."""
        if self.options.own_folder and self.orphan:
            folder = os.path.dirname(os.path.abspath(__file__))
            for name in (os.path.basename(__file__), "s", "lock"):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, name))
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def stop(self):
        if self.stopping:  # asked twice
            self.pool.kill()
            os._exit(1)
        self.stopping = True
        self.ended.set()

    async def finish(self):
        """Takes no more requests, answers those that are here or whose body is arriving."""
        for listener in self.listeners:
            listener.close()
        end = time.monotonic() + self.options.grace
        self.pool.stopping = True
        self.pool.pump()
        while time.monotonic() < end:
            for connection in list(self.connections):
                if connection.state == "head" and not connection.filled:
                    connection.transport.close()
            if not self.connections:
                return
            await asyncio.sleep(0.02)
        log(f"{self.active} requests were not finished within {self.options.grace:g} s (--grace)")
        for connection in list(self.connections):
            connection.transport.abort()

    async def sweep(self):
        while True:
            await asyncio.sleep(0.5)
            now = time.monotonic()
            self.buffers.trim(now)
            for connection in list(self.connections):
                connection.expire(now)


def tls_context(options):
    """None without --tls-cert. OSError names the file."""
    if not options.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except OSError as error:
        raise OSError(f"--tls-cert {options.tls_cert}{', --tls-key ' + options.tls_key if options.tls_key else ''}: {error}; "
                      "expected PEM files of a certificate and its key") from None
    if options.tls_client_ca:
        try:
            context.load_verify_locations(options.tls_client_ca)
        except OSError as error:
            raise OSError(f"--tls-client-ca {options.tls_client_ca}: {error}; expected a PEM file of certificates") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def free_unix_path(path):
    """Removes the socket of a server that is gone; refuses anything else."""
    if len(os.fsencode(path)) > 100:
        raise OSError(f"unix:{path}: expected a path of at most 100 bytes")
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(f"unix:{path}: exists and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)
            return
    raise OSError(f"unix:{path}: another server listens there")


def split_address(address):
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)):(\d{1,5})", address)
    if not match or int(match[3]) > 65535:
        raise OSError(f"--listen {address}: expected HOST:PORT, [IPV6]:PORT or unix:PATH")
    return match[1] or match[2], int(match[3])


def log(text):
    with contextlib.suppress(OSError):  # whoever read it may be gone
        print(f"marble_reward: {text}", file=sys.stderr, flush=True)


# ---- --check: calls every reward on test images ---------------------------------------------------------------------


def test_images(side):
    """Images with a name: flat, striped, graded, noise, and one that is not square. Rows of bytes, no package needed."""
    noise, bits = bytearray(), 1
    for _ in range(side * side * 3):
        bits = (bits * 1103515245 + 12345) & 0x7FFFFFFF
        noise.append(bits >> 16 & 255)
    wide = side + side // 2
    return [("black", side, side, bytes(side * side * 3)),
            ("white", side, side, b"\xff" * (side * side * 3)),
            ("stripes", side, side, b"".join((b"\xff\x20\x20", b"\x20\x20\xff")[x // 8 % 2] for x in range(side)) * side),
            ("gradient", side, side, bytes(v for y in range(side) for x in range(side)
                                           for v in (x * 255 // side, y * 255 // side, 128))),
            ("noise", side, side, bytes(noise)),
            ("not square", wide, side, b"\xc0" * (wide * side * 3))]


TEST_PROMPTS = ['a red sign that says "STOP"', "three blue circles on a white ground", "",
                'ein Schild mit der Aufschrift "Grüße" 你好 🎨', "a photo of " + "a very " * 60 + "long description",
                "green above purple"]


class Check:
    """Calls each reward in a worker as a server would, and notes what is wrong."""

    def __init__(self, options):
        self.options, self.process = options, None
        self.faults, self.name, self.batch = 0, "", 1

    def fault(self, text):
        self.faults += 1
        print(f"    fault: {text}")

    def call(self, images, prompts, metadata=None):
        """Scores images in batches that the reward takes; returns the answer and the seconds it took, here included."""
        metadata, whole_answer, seconds = metadata or [{}] * len(images), {"scores": [], "reasons": []}, 0
        for first in range(0, len(images), self.batch):
            span = slice(first, first + self.batch)
            answer, more = self.call_once(images[span], prompts[span], metadata[span])
            if "error" in answer:
                return answer, seconds
            seconds += more
            for key in whole_answer:
                whole_answer[key] += answer[key]
        return whole_answer, seconds

    def call_once(self, images, prompts, metadata):
        buffer, parts, at = Buffer(sum(len(image[3]) for image in images)), [], 0
        for _, width, height, data in images:
            buffer.map[at:at + len(data)] = data
            if parts and (parts[-1]["height"], parts[-1]["width"]) == (height, width):
                parts[-1]["count"] += 1
            else:
                parts.append({"length": buffer.capacity, "count": 1, "height": height, "width": width, "offset": at})
            at += len(data)
        start = time.perf_counter()
        answer = self.process.ask({"reward": self.name, "parts": parts, "prompts": prompts,
                                   "metadata": metadata}, [buffer.file] * len(parts),
                                  self.options.seconds)
        if answer.get("died"):
            self.process = Process(self.options, 0)
            self.process.hello()
        return answer, time.perf_counter() - start

    def compare(self, what, expected, answer, tolerance):
        if "error" in answer:
            self.fault(f"{what}: {answer['error']}")
            return
        for i, (a, b) in enumerate(zip(expected, answer["scores"])):
            if b is not None and b != b:
                self.fault(f"{what}: {answer['reasons'][i]}")
                return
            if (a is None) != (b is None) or (a is not None and abs(a - b) > tolerance * max(1, abs(a))):
                self.fault(f"{what}: image {i} scored {a} before and {b} now")
                return

    def check_reward(self, entry):
        self.name, self.batch = entry["name"], entry["batch"] or self.options.batch
        declared = f"range {entry['low']} to {entry['high']}"
        if entry["low"] is None and entry["high"] is None:
            declared = "no range declared"
        print(f"{self.name} ({declared})")
        images = test_images(self.options.check_side)
        metadata = [{}] * (len(images) - 1) + [{"tag": "check", "note": ["a", 1]}]
        answer, _ = self.call(images, TEST_PROMPTS, metadata)
        if "error" in answer:
            self.fault(answer["error"])
            return
        scores = answer["scores"]
        for score, reason in zip(scores, answer["reasons"]):
            if score is not None and score != score:
                self.fault(reason)
                return
        for image, prompt, score, reason in zip(images, TEST_PROMPTS, scores, answer["reasons"]):
            shown = "N/A" if score is None else f"{score:.5g}"
            print(f"    {image[0]:11} {prompt[:36]!r:40} {shown:>10}  {reason[:60]}")
        self.compare("the same images again", scores, self.call(images, TEST_PROMPTS, metadata)[0], 1e-5)
        turned, _ = self.call(images[::-1], TEST_PROMPTS[::-1], metadata[::-1])
        turned["scores"] = turned.get("scores", [])[::-1]
        self.compare("in the reverse order", scores, turned, 1e-3)
        alone, _ = self.call(images[3:4], TEST_PROMPTS[3:4])
        self.compare("image 3 alone", scores[3:4], alone, 1e-3)
        known = [s for s in scores if s is not None]
        if known:
            print(f"    scores {min(known):.5g} to {max(known):.5g}, {len(scores) - len(known)} of {len(scores)} N/A")
        else:
            print("    N/A for every test image: its speed is that of saying so")
        if len(set(known)) == 1 and len(known) > 2:
            print("    note: the same score for every image")
        for count in sorted({1, self.batch}):
            batch = [images[i % 5] for i in range(count)]
            times = []
            for _ in range(3):
                answer, seconds = self.call(batch, [TEST_PROMPTS[i % 5] for i in range(count)])
                times.append(seconds)
            if "error" in answer:
                self.fault(f"a batch of {count}: {answer['error']}")
                return
            side = self.options.check_side
            print(f"    {count} images of {side} x {side}: {min(times) * 1e3:.1f} ms, {count / min(times):.1f} images a second")

    def run(self):
        start = time.perf_counter()
        self.process = Process(self.options, 0)
        try:
            rewards = self.process.hello()
        except Fault as fault:
            print(f"{self.options.file}: {fault.message}")
            return 1
        names = ", ".join(entry["name"] for entry in rewards)
        print(f"{self.options.file}: loaded in {time.perf_counter() - start:.1f} s: {names}")
        for entry in rewards:
            self.check_reward(entry)
        self.process.end(5)
        print(f"{self.faults} fault{'s' * (self.faults != 1)}" if self.faults else "all good")
        return 1 if self.faults else 0


# ---- command line ---------------------------------------------------------------------------------------------------


def size(text):
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if not match or int(match[1]) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected bytes, such as 256M")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


def whole(text):
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 1")
    return int(text)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="marble_reward.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="serve")
    serve = commands.add_parser(
        "serve", help="serves or checks the rewards of a file", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Serves the rewards of FILE. Prints `ready ADDRESS` once the file is loaded; everything else goes to\n"
                    "stderr. SIGTERM finishes the requests that are here and ends.")
    add = serve.add_argument
    add("file", metavar="FILE", help="Python file with functions under @reward")
    add("--listen", action="append", metavar="ADDRESS",
        help="HOST:PORT (port 0: any free one) or unix:PATH; may be given several times (127.0.0.1:8000)")
    add("--check", action="store_true",
        help="call every reward on test images, print scores, speed and faults, and end with 0 or 1")
    add("--check-side", type=whole, default=256, metavar="PIXELS", help="side of --check's images (256)")
    add("--workers", type=whole, default=1, metavar="N", help="processes, each of which loads the file (1)")
    add("--device", default="cpu", metavar="NAME[,NAME...]",
        help="what device() returns in the workers, one after the other (cpu)")
    add("--batch", type=whole, default=64, metavar="N", help="most images of one call (64)")
    add("--wait", type=float, default=1, metavar="MS",
        help="how long a batch that is not full waits for other clients' images, in ms (1)")
    add("--seconds", type=float, default=300, metavar="S",
        help="how long one call may take before its worker is ended; 0: any time (300)")
    add("--name", default="rewards", metavar="NAME", help="name of the model with all rewards of the file (rewards)")
    add("--ask-for-files", action="store_true", help="ask clients for JPEG or PNG files instead of pixels; both are taken")
    add("--token-file", metavar="PATH", help="file with the token that clients must send")
    add("--token-env", default="MARBLE_REWARD_TOKEN", metavar="NAME",
        help="environment variable with it, if it is set and there is no --token-file (MARBLE_REWARD_TOKEN)")
    add("--tls-cert", metavar="PEM", help="certificate: serve HTTPS")
    add("--tls-key", metavar="PEM", help="its private key, if not in the same file")
    add("--tls-client-ca", metavar="PEM", help="accept only clients with a certificate of this authority")
    add("--with-parent", action="store_true", help="end when the process that started this one ends")
    add("--own-folder", action="store_true", help=argparse.SUPPRESS)  # marble's: remove this program's folder after that
    add("--grace", type=float, default=30, metavar="S", help="how long SIGTERM waits for requests that are here (30)")
    add("--max-body", type=size, default="256M", metavar="BYTES", help="largest request (256M)")
    add("--max-memory", type=size, default="2G", metavar="BYTES", help="bodies held at once; beyond that, clients wait (2G)")
    add("--max-connections", type=whole, default=512, metavar="N", help="connections at once (512)")
    options = parser.parse_args()
    if not os.path.isfile(options.file):
        serve.error(f"{options.file}: no such file")
    if not re.fullmatch("[A-Za-z0-9_-]{1,64}", options.name):
        serve.error(f"--name {options.name}: expected letters, digits, _ and -")
    if options.tls_key and not options.tls_cert or options.tls_client_ca and not options.tls_cert:
        serve.error("--tls-key and --tls-client-ca need --tls-cert")
    if options.own_folder and not options.with_parent:
        serve.error("--own-folder: needs --with-parent")
    if options.max_memory < options.max_body:
        serve.error("--max-memory: expected at least --max-body")
    if options.ask_for_files and importlib.util.find_spec("PIL") is None:
        serve.error(f"--ask-for-files: Pillow, which reads them, is missing in {sys.executable}")
    options.listen = options.listen or ["127.0.0.1:8000"]
    options.with_parent = os.getppid() if options.with_parent else 0
    return options


def read_token(options):
    """The token as bytes, or None. It stays out of the workers' environment and of every message."""
    if options.token_file:
        with open(options.token_file, "rb") as file:
            token = file.read().strip()
        if not token:
            raise OSError(f"{options.token_file}: is empty; expected a token")
        if os.stat(options.token_file).st_mode & 0o077:
            log(f"{options.token_file}: other users can read it; chmod 600")
        return token
    return os.environ.get(options.token_env, "").strip().encode() or None


def main():
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # whatever the locale's encoding has no letter for
            stream.reconfigure(errors="backslashreplace")
    sys.modules.setdefault("marble_reward", sys.modules[__name__])  # what a reward file imports is this very module
    if sys.argv[1:2] == ["worker"]:
        worker_main(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    options = parse_arguments()
    try:
        token = read_token(options)
        tls_context(options)  # what cannot be read is said before the file is loaded, which may take long, and by --check
        if options.check:
            return Check(options).run()
        return asyncio.run(Server(options, token).serve())
    except OSError as error:  # ssl.SSLError is one
        log(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
