#!/usr/bin/env python3
"""check_page_run.py MARBLE: the page of a run under way on two ranks, in headless Chromium: it shows the lines of metrics.jsonl as
they come; its controls need the token, and change the learning rate on all ranks, pause, resume and stop; it finds the run again
once that was resumed. Exit 77 where Chromium is not installed."""
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import browser  # noqa: E402

if len(sys.argv) != 2:
    sys.exit("usage: check_page_run.py MARBLE")
if not browser.program():
    print("check_page_run: Chromium is not installed: " + browser.INSTALL)
    sys.exit(77)
ROOT = pathlib.Path(__file__).resolve().parents[1]
folder = pathlib.Path(tempfile.mkdtemp(prefix="marble-page-run-"))
run = folder / "run"
NAMES = ["clean", "jpeg"]
CONFIG = f"""precision: f32
threads: 1
model: {{path: {ROOT}/deploy/examples/signs-base, lora: {{rank: 4, alpha: 8}}}}
prompts: {{source: signs, train_count: 30, test_count: 8, groups: 2, group_size: 2}}
rollout: {{steps: 2, solver: euler, micro_batch: 8, merge: never}}
train: {{steps: 100000, lr: 2.0e-4, micro_batch: 8, timestep_fraction: 0.5}}
rewards: [{{name: clean}}, {{name: jpeg}}]
eval: {{every: 0, prompts: 4, steps: 2}}
checkpoint: {{every: 1000}}
alarms: {{replica_mismatch: 1}}
log: {{samples_every: 1000, advantages_every: 1}}
"""


def start(*arguments):
    command = [str(ROOT / "tests/with_ranks"), "2", sys.argv[1], "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=open(folder / "said.txt", "a"))


def until(what, test, seconds=60):
    end = time.monotonic() + seconds
    while not (found := test()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}\n{(folder / 'said.txt').read_text()[-2000:]}"
        time.sleep(0.05)
    return found


def lines():
    text = (run / "metrics.jsonl").read_text() if (run / "metrics.jsonl").exists() else ""
    return [json.loads(line) for line in text.splitlines(True) if line.endswith("\n")]


def place():
    path = run / "service.json"
    return json.loads(path.read_text()) if path.exists() else None


def same(found, wanted):
    assert found == wanted, f"found {found!r}, expected {wanted!r}"


def check_shown():
    """What the page shows now is what the line of its last step says."""
    shown = page.run("(() => { const text = (key) => [...document.querySelectorAll(`#summary [data-key=${key}]`)].map((cell) => cell.textContent);"
                     "return {step: Number(document.documentElement.dataset.last), reward: text('reward'), alpha: text('alpha'), valid: text('valid')}; })()")
    line = next(line for line in lines() if line["step"] == shown["step"])
    same(shown["reward"], [f"{line['reward'][name]:.3f}" for name in NAMES])
    same(shown["alpha"], [f"{line['alpha'][name]:.3f}" for name in NAMES])
    same(shown["valid"], [str(line["valid"][name]) for name in NAMES])
    return shown["step"]


def steps_more(n):
    step = int(page.run("document.documentElement.dataset.last || 0"))
    page.until(f"Number(document.documentElement.dataset.last) >= {step + n}", 60)


def press(name):
    page.run(f"document.querySelector('[data-ask={name}]').click()")


def set_rate(value):
    page.run("(() => { document.getElementById('answer').textContent = ''; document.getElementById('set-key').value = 'train.lr';"
             f"document.getElementById('set-value').value = '{value}'; document.querySelector('#set-form button').click(); }})()")
    return page.until("document.getElementById('answer').textContent.length > 1 && document.getElementById('answer').textContent")


def check_control(token):
    page.run("document.getElementById('token').value = '0'.repeat(document.getElementById('token').value.length)")
    set_rate(1e-3)
    same(page.run("'bad' in document.getElementById('answer').dataset"), True)
    page.run(f"document.getElementById('token').value = {json.dumps(token)}")
    assert "train.lr" in set_rate(1e-3), "the setting is not among what was asked"
    same(page.run("'bad' in document.getElementById('answer').dataset"), False)
    line = until("a step with the new learning rate", lambda: next((line for line in lines() if line["lr"] == 1e-3), None))
    same(line["alarms"]["replica_mismatch"], 0)  # both ranks take the same steps
    same({found["lr"] for found in lines() if found["step"] < line["step"]}, {2e-4})
    press("pause")
    page.until("document.getElementById('state').dataset.state === 'paused' && document.querySelector('[data-ask=pause]').disabled")
    at = len(lines())
    time.sleep(1)
    same(len(lines()), at)
    press("resume")
    until("steps after the pause", lambda: len(lines()) > at + 1)
    press("checkpoint")
    until("a checkpoint", lambda: list((run / "checkpoints").glob("step-*.h5")))


(folder / "run.yaml").write_text(CONFIG)
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
process, page = start(folder / "run.yaml", "--out", run, "--set", f"service.listen=127.0.0.1:{port}"), None
try:
    where = until("service.json", place)
    page = browser.Browser(1280, 900)
    page.open(where["address"] + "/#token=" + where["token"])
    same(page.run("location.hash"), "")  # the token leaves the address bar
    same(page.run("document.getElementById('token').value"), where["token"])
    steps_more(3)
    first = check_shown()
    steps_more(2)
    assert check_shown() > first
    same(page.run("document.getElementById('control').hidden"), False)
    same(page.run("document.querySelectorAll('#ranks tbody tr').length"), 2)
    page.run("document.getElementById('images').scrollIntoView()")
    page.until("document.getElementById('map-step').textContent.startsWith('step')")
    # the image behind a column of the map: its pixels come, and its prompt is one of the run's
    page.until("document.getElementById('map-note').textContent === ''")
    page.run("(() => { const canvas = document.getElementById('map'), box = canvas.getBoundingClientRect();"
             "canvas.dispatchEvent(new MouseEvent('click', {clientX: box.right - 5, clientY: box.top + 5, bubbles: true})); })()")
    page.until("(() => { const image = document.querySelector('#image-body img'); return image && image.complete && image.naturalWidth === 32; })()")
    assert len(page.run("document.querySelector('#image-body .prompt').textContent").split()) > 2
    page.run("document.getElementById('image-dialog').close()")
    check_control(where["token"])
    press("stop")
    until("the end", lambda: process.poll() is not None)
    page.until("document.getElementById('link').dataset.on === 'no' && !document.getElementById('notice').hidden")
    done = lines()[-1]["step"]
    process = start(run / "run.yaml", "--resume", "auto")
    page.until(f"document.getElementById('link').dataset.on === 'yes' && Number(document.documentElement.dataset.last) > {done + 1}", 60)
    check_shown()
    same(lines()[-1]["lr"], 1e-3)  # which a resumed run goes on with
    # What a browser itself says of a wrong token and of a run that is away; nothing else.
    same([error for error in page.errors if "401" not in error and "ERR_CONNECTION" not in error and "WebSocket" not in error], [])
except Exception:
    if page:
        print("the console says:", page.errors)
    raise
finally:
    if page:
        page.close()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    finally:
        process.kill()
        shutil.rmtree(folder, ignore_errors=True)
