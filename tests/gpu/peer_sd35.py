#!/usr/bin/env python3
"""peer_sd35.py [--batch 9] [--text 205] [--tiny]: the shapes of Stable Diffusion 3.5 Medium in PyTorch on one GPU, beside which
`marble bench pass` stands: what the device reaches at most, attention by each of PyTorch's ways, the linear layers with LoRA
beside them and as one product, and a whole MM-DiT with LoRA 32: a forward pass, and marble's micro-batch (old, reference and
current forward pass, two backward passes; without the contractions per sample). One JSON object a line, times in ms, the median
of several. --tiny: a few numbers on the CPU, to try the script."""
import argparse
import json
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--batch", type=int, default=9)
parser.add_argument("--text", type=int, default=205, help="tokens of a prompt")
parser.add_argument("--tiny", action="store_true")
options = parser.parse_args()
tiny = options.tiny
device, dtype = "cpu" if tiny else "cuda", torch.bfloat16
BATCH, IMAGE, TEXT, WIDTH, HEADS, LAYERS, DUAL, RANK = (
    (2, 16, 5, 64, 1, 2, 1, 4) if tiny else (options.batch, 1024, options.text, 1536, 24, 24, 13, 32))
HEAD = WIDTH // HEADS
WAYS = [SDPBackend.MATH] if tiny else [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]
torch.manual_seed(0)


def say(**figures):
    print(json.dumps(figures), flush=True)


def timed(call, runs=20, before=3):
    for _ in range(before):
        call()
    if tiny:
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    times = []
    for _ in range(runs):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def numbers(*shape, **more):
    return torch.randn(*shape, device=device, dtype=dtype, **more)


def tflops(operations, ms):
    return round(operations / ms / 1e9, 1)


def ceilings():
    side, count = 8192, 1 << 30
    x, source = numbers(side, side), torch.ones(count, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    say(what="device", name=torch.cuda.get_device_name(), torch=torch.__version__, cudnn=torch.backends.cudnn.version())
    say(what=f"product {side}^3", tflops=tflops(2 * side**3, timed(lambda: x @ x, 10)))
    say(what="copy 1 GiB", tb_per_s=round(2 * count / timed(lambda: target.copy_(source), 10) / 1e9, 2))


def attention(tokens):
    q, k, v = (numbers(BATCH, HEADS, tokens, HEAD, requires_grad=True) for _ in range(3))
    seed, operations = numbers(BATCH, HEADS, tokens, HEAD), 4 * BATCH * HEADS * tokens**2 * HEAD
    for way in WAYS:
        try:
            with sdpa_kernel(way):
                forward = timed(lambda: F.scaled_dot_product_attention(q, k, v))
                out = F.scaled_dot_product_attention(q, k, v)
                backward = timed(lambda: torch.autograd.grad(out, (q, k, v), seed, retain_graph=True))
                first, again = (torch.autograd.grad(out, q, seed, retain_graph=True)[0] for _ in range(2))
                alone = F.scaled_dot_product_attention(q[:1], k[:1], v[:1])
            say(what=f"attention {tokens} {way.name}", forward_ms=round(forward, 4), forward_tflops=tflops(operations, forward),
                backward_ms=round(backward, 4), backward_tflops=tflops(2.5 * operations, backward),
                backward_repeats=torch.equal(first, again), rows_independent=torch.equal(alone, out[:1]))
        except RuntimeError as error:
            say(what=f"attention {tokens} {way.name}", error=str(error)[:120])


def linears(rows):
    for out, width in ((3 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH)):
        rank = 3 * RANK if out == 3 * WIDTH else RANK
        x, weights = numbers(rows, width), numbers(out, width)
        longer, weights_longer = numbers(rows, width + rank), numbers(out, width + rank)
        down, up, y = numbers(rank, width), numbers(out, RANK), numbers(rows, out)
        ms, narrow = timed(lambda: F.linear(x, weights)), F.linear(x, down)
        say(what=f"linear {rows} x {width} -> {out}", ms=round(ms, 4), tflops=tflops(2 * rows * out * width, ms),
            lora_down_ms=round(timed(lambda: F.linear(x, down)), 4), lora_up_ms=round(timed(lambda: y.addmm_(narrow[:, :RANK], up.t())), 4),
            one_product_ms=round(timed(lambda: F.linear(longer, weights_longer)), 4))


class Linear(torch.nn.Module):
    def __init__(self, width, out, lora=True):
        super().__init__()
        self.weight = torch.nn.Parameter(numbers(out, width) * width**-0.5, requires_grad=False)
        self.bias = torch.nn.Parameter(torch.zeros(out, device=device, dtype=dtype), requires_grad=False)
        self.lora = lora
        if lora:
            self.down, self.up = torch.nn.Parameter(numbers(RANK, width) * width**-0.5), torch.nn.Parameter(numbers(out, RANK) * 1e-3)

    def forward(self, x, adapter):
        y = F.linear(x, self.weight, self.bias)
        return y + F.linear(F.linear(x, self.down), self.up) if self.lora and adapter else y


class Side(torch.nn.Module):
    """The products of one side of a block: q, k, v, the output, and the feed-forward net where it has one."""

    def __init__(self, net=True):
        super().__init__()
        self.qkv, self.out = torch.nn.ModuleList(Linear(WIDTH, WIDTH) for _ in range(3)), Linear(WIDTH, WIDTH)
        if net:
            self.first, self.second = Linear(WIDTH, 4 * WIDTH), Linear(4 * WIDTH, WIDTH)

    def heads(self, x, adapter):
        q, k, v = (layer(x, adapter).unflatten(-1, (HEADS, HEAD)).transpose(1, 2) for layer in self.qkv)
        return F.rms_norm(q, (HEAD,)), F.rms_norm(k, (HEAD,)), v

    def feed(self, x, adapter):
        return self.second(F.gelu(self.first(x, adapter), approximate="tanh"), adapter)


def shifted(x, modulation, i):
    return F.layer_norm(x, (WIDTH,)) * (1 + modulation[:, None, i]) + modulation[:, None, i + 1]


def attend(q, k, v):
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Block(torch.nn.Module):
    def __init__(self, dual):
        super().__init__()
        self.image, self.text, self.second = Side(), Side(), Side(net=False) if dual else None
        self.modulation = Linear(WIDTH, 21 * WIDTH, lora=False)

    def forward(self, x, text, time_embedding, adapter):
        m = self.modulation(time_embedding, adapter).view(BATCH, 21, WIDTH)
        sides = zip(self.image.heads(shifted(x, m, 0), adapter), self.text.heads(shifted(text, m, 6), adapter))
        both = attend(*(torch.cat(pair, 2) for pair in sides))
        y = x + m[:, None, 2] * self.image.out(both[:, :IMAGE], adapter)
        if self.second is not None:
            y = y + m[:, None, 14] * self.second.out(attend(*self.second.heads(shifted(x, m, 12), adapter)), adapter)
        text = text + m[:, None, 8] * self.text.out(both[:, IMAGE:], adapter)
        y = y + m[:, None, 5] * self.image.feed(shifted(y, m, 3), adapter)
        return y, text + m[:, None, 11] * self.text.feed(shifted(text, m, 9), adapter)


def model():
    blocks = torch.nn.ModuleList(Block(i < DUAL) for i in range(LAYERS))
    x, text, embedding, seed = numbers(BATCH, IMAGE, WIDTH), numbers(BATCH, TEXT, WIDTH), numbers(BATCH, WIDTH), numbers(BATCH, IMAGE, WIDTH)
    trained = [p for p in blocks.parameters() if p.requires_grad]

    def run(adapter=True):
        y, c = x, text
        for block in blocks:
            y, c = block(y, c, embedding, adapter)
        return y

    @torch.no_grad()
    def forward(adapter=True):
        return run(adapter)

    def micro_batch():
        forward()
        forward(False)
        y = run()
        torch.autograd.grad(y, trained, seed, retain_graph=True, allow_unused=True)
        torch.autograd.grad(y, trained, seed, allow_unused=True)

    for way in WAYS:
        with sdpa_kernel(way):
            say(what=f"model {way.name}", batch=BATCH, forward_ms=round(timed(forward, 5, 2), 2),
                forward_without_adapter_ms=round(timed(lambda: forward(False), 5, 1), 2), micro_batch_ms=round(timed(micro_batch, 4, 1), 2))


if not tiny:
    ceilings()
for tokens in (21,) if tiny else (IMAGE, IMAGE + TEXT):
    attention(tokens)
for rows in (32,) if tiny else (BATCH * IMAGE, BATCH * TEXT):
    linears(rows)
model()
