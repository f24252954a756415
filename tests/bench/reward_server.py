#!/usr/bin/env python3
"""How fast proto/python/marble_reward.py takes images over loopback: a client in Python sends batches, the reward looks at nothing.

    python3 tests/bench/reward_server.py [--unix] [--images N] [--side PIXELS] [--runs N] [--clients N]"""
import argparse
import pathlib
import statistics
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from reward_client import Server, infer_body, post  # noqa: E402

REWARDS = '''
from marble_reward import reward

@reward("nothing", images="raw")
def nothing(images, prompts, metadata):
    return [0.5] * len(images)
'''


def measure(server, images, side, runs, times):
    length, body = infer_body(bytes(images * side * side * 3), (images, side, side, 3), ["a red sign"] * images)
    data = post("nothing", body, length)
    with server.client(timeout=60) as client:
        for run in range(runs + 3):
            start = time.perf_counter()
            answer = client.ask(data)
            assert answer.status == 200, answer.body
            if run >= 3:
                times.append(time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unix", action="store_true")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--clients", type=int, default=1)
    options = parser.parse_args()
    with Server(REWARDS, listen=["unix:DIR/s" if options.unix else "127.0.0.1:0"]) as server:
        times, start = [], time.perf_counter()
        threads = [threading.Thread(target=measure, args=(server, options.images, options.side, options.runs, times)) for _ in range(options.clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        calls = server.metrics()['call_seconds_total{reward="nothing"}'] / server.metrics()['batches_total{reward="nothing"}']
        size, middle = options.images * options.side ** 2 * 3, statistics.median(times)
        print(f"{options.clients} client{'s' * (options.clients > 1)}, {options.images} images of {options.side} x {options.side} over "
              f"{'a unix socket' if options.unix else 'TCP'}: {min(times) * 1e3:.2f} ms at best, {middle * 1e3:.2f} median; "
              f"{size / middle / 1e9:.2f} GB/s median, {size / min(times) / 1e9:.2f} at best; the call itself {calls * 1e3:.3f} ms")


if __name__ == "__main__":
    main()
