#!/usr/bin/env python3
"""check_page.py MARBLE: the page of runs in headless Chromium, served by `marble dash`: every panel shows the numbers of the
run's files, controls and keys do what they say, texts with markup stay texts, nothing is fetched from elsewhere, and the console
is silent. Exit 77 where Chromium is not installed."""
import json
import math
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import browser  # noqa: E402

if len(sys.argv) != 2:
    sys.exit("usage: check_page.py MARBLE")
if not browser.program():
    print("check_page: Chromium is not installed: " + browser.INSTALL)
    sys.exit(77)
marble = sys.argv[1]
folder = pathlib.Path(tempfile.mkdtemp(prefix="marble-page-"))
NAMES = ["ocr", "count", "color", "jpeg"]
STEPS, GROUPS, EACH = 1200, 3, 4
EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> & "K7"'
PROMPTS = [EVIL, "three blue circles", "green above purple"]


def png(width, height, colour):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes(colour(x, y)[c] for x in range(width) for c in range(3)) for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def by(values):
    return dict(zip(NAMES, values))


def make_run(name, steps, seed):
    """A run's folder like marble's own, with numbers that are known."""
    rng, run = random.Random(seed), folder / name
    (run / "samples").mkdir(parents=True)
    lines, grams = [], []
    for step in range(1, steps + 1):
        alpha = [rng.random() for _ in NAMES]
        cos = [round(rng.uniform(-0.1, 0.9), 6) for _ in NAMES]
        line = {"step": step, "epoch": step, "loss": round(2 - step / steps + rng.random() / 9, 6), "kl": step * 1e-6, "lr": 5e-4, "grad_norm": round(rng.random(), 6),
                "old_lag": 0.01, "samples_per_s": round(3 + rng.random(), 6), "reward": by(round(rng.random(), 6) for _ in NAMES), "valid": by([8, 4, 12, 12]),
                "na": by([4, 8, 0, 0]), "failed": by([0, 0, 0, 1]), "alpha": by(round(a / sum(alpha), 6) for a in alpha), "cos": by(cos), "cos_min": min(cos),
                "cos_part_min": min(cos), "alarms": {"old_drift": min(2, step // 100), "no_score": 0}, "time": "2026-05-08T09:30:00Z",
                "seconds": {"rollout": 4.0 + step % 3, "reward_wait": 0.5, "train": 3.0, "gram": 0.25, "qp": 0.125, "comm": 0.75, "checkpoint": 0.0, "total": 8.0 + step % 3},
                "bytes_comm": 1000 + step, "ranks": {"rollout": [4.5, 4.25], "train": [3.5, 3.0], "comm": [0.0, 2.0], "memory": [1.5e9, 1.25e9]}, "run": "3a78b7c709194b32"}
        lines.append(line)
        k = len(NAMES)
        value = [[math.sin(step + 7 * min(i, j) + 13 * max(i, j)) for j in range(k)] for i in range(k)]
        grams.append({"step": step, "rewards": NAMES, "norm": [1.0] * k, "cos": [[1.0 if i == j else round(value[i][j], 4) for j in range(k)] for i in range(k)]})
    for line in lines[2::5]:  # steps that only score the last reward, whatever its cosine
        line["trained"] = by([True] * (len(NAMES) - 1) + [False])
        line["cos"][NAMES[-1]] = -0.5
        line["cos_min"] = min(cos for name, cos in line["cos"].items() if name != NAMES[-1])
    lines[-1]["cos"]["count"] = lines[-1]["cos_min"] = -0.25
    evals = [{"step": step, "rewards": {name: dict({"mean": round(0.4 + i / 10 + step / steps / 5, 6), "ci95": 0.05, "n": 72, "na": 0, "failed": 0},
                                                  **({"change": round(step / steps / 5, 6), "change_ci95": 0.03} if step else {})) for i, name in enumerate(NAMES)}}
             for step in (0, steps // 2, steps)]
    advantages = [{"step": steps, "prompt": [i // EACH for i in range(GROUPS * EACH)],
                   "advantage": by([round(rng.uniform(-2, 2), 3) if (i // EACH + k) % 3 else None for i in range(GROUPS * EACH)] for k in range(len(NAMES)))}]
    for file, what in (("metrics.jsonl", lines), ("gram.jsonl", grams), ("eval.jsonl", evals), ("advantages.jsonl", advantages)):
        (run / file).write_text("".join(json.dumps(line) + "\n" for line in what))
    sheets = {}
    for step, shade in ((0, 60), (steps, 200)):
        images = [{"prompt": PROMPTS[i], "scores": by(round((i + k + step) % 10 / 10, 2) if i + k != 2 else None for k in range(len(NAMES)))} for i in range(3)]
        cells = {"columns": 2, "left": 4, "top": 6, "step_x": 20, "step_y": 30, "width": 16, "height": 16}
        # image i is a plane of one colour, so that a cut in the wrong place shows
        def colour(x, y):
            i = (x - 4) // 20 + 2 * ((y - 6) // 30)
            inside = 4 <= x and (x - 4) % 20 < 16 and 6 <= y and (y - 6) % 30 < 16
            return (shade, 40 * i, 10) if inside else (255, 255, 255)
        (run / f"samples/step-{step:06d}.png").write_bytes(png(44, 60, colour))
        (run / f"samples/step-{step:06d}.json").write_text(json.dumps({"cells": cells, "images": images, "step": step, "seed": 1, "run": "3a78b7c709194b32"}))
        sheets[step] = images
    (run / "run.yaml").write_text("# run: 3a78b7c709194b32\nseed: 42  # at least 0\ntrain:\n  steps: %d\n  lr: 0.0005  # (0, 1]\nrewards:\n" % steps +
                                  "".join(f"  - name: {name}\n    type: {name}\n    weight: 1\n" for name in NAMES))
    (run / "log.txt").write_text("2026-05-08 09:30:00 step 1\n2026-05-08 09:30:01 warning: <b>bold</b> words\n")
    return {"lines": lines, "grams": grams, "evals": evals, "advantages": advantages[0], "sheets": sheets}


def make_pretraining(name):
    """What marble pretrain leaves: lines without rewards, nothing else."""
    (folder / name).mkdir()
    (folder / name / "metrics.jsonl").write_text("".join(json.dumps({"step": step, "time": "2026-05-08T09:30:00Z", "loss": 1 / step, "grad_norm": 0.5, "seconds": {"total": 2.0},
                                                                    "run": "3a78b7c709194b32"}) + "\n" for step in range(1, 8)))
    (folder / name / "run.yaml").write_text("seed: 42\n")


def make_foreign(name):
    """Lines of JSON that are not marble's: what fits is shown, nothing breaks."""
    (folder / name).mkdir()
    for file, text in (("metrics.jsonl", '{"step": 1, "reward": {"a": 0.5}, "ranks": {"rollout": [1]}, "seconds": {"total": -5}}\n{"step": 2}\n[1]\nnull\n'
                                         '{"step": 3, "reward": null, "alpha": 7, "ranks": {"rollout": [1]}, "alarms": [1]}\n'),
                       ("gram.jsonl", '{"step": 3, "cos": [1, 2]}\n{"step": 4, "cos": [], "rewards": "x"}\n{"step": 5, "cos": [[1]], "rewards": ["a", "b"]}\n'),
                       ("eval.jsonl", '{"step": 1, "rewards": 5}\n{"step": 2, "rewards": {"a": null}}\n'),
                       ("advantages.jsonl", '{"step": 1, "advantage": 3}\n{"step": 2, "prompt": [1], "advantage": {"a": 3}}\n'), ("run.yaml", "rewards: 5\ntrain: [1]\n")):
        (folder / name / file).write_text(text)


failures = []


def expect(what, found, wanted, tolerance=0.0):
    same = found == wanted
    if isinstance(wanted, (int, float)) and isinstance(found, (int, float)):
        same = abs(found - wanted) <= tolerance
    if not same:
        failures.append(f"{what}: found {found!r:.400}, expected {wanted!r:.400}")


def chart(selector, label):
    """Points of a chart's data set that the chart really has."""
    return page.run(f"(Chart.getChart(document.querySelector({json.dumps(selector)})).data.datasets.find((set) => set.label === {json.dumps(label)}) || {{data: []}}).data")


def expect_curve(what, points, wanted, tolerance=1e-9):
    expect(what + ": steps", [p["x"] for p in points], [w[0] for w in wanted])
    for point, (step, value) in zip(points, wanted):
        if point["y"] is None or abs(point["y"] - value) > tolerance:
            failures.append(f"{what}, step {step}: found {point['y']}, expected {value}")
            return


def text(selector):
    return page.run(f"document.querySelector({json.dumps(selector)}).textContent")


def pixel(canvas, *places):
    """Colours, red to opacity, at places of a canvas: read from a copy, so that the page's own stays as it is."""
    return page.run(f"(() => {{ const from = {canvas}, copy = document.createElement('canvas'); copy.width = from.width; copy.height = from.height;"
                    "const context = copy.getContext('2d', {willReadFrequently: true}); context.drawImage(from, 0, 0);"
                    f"return [{', '.join(f'[{x}, {y}]' for x, y in places)}].flatMap(([x, y]) => [...context.getImageData(x, y, 1, 1).data]); }})()")


def see(identifier):
    """Scrolls there, since charts are drawn only where they can be seen."""
    page.run(f"document.getElementById({json.dumps(identifier)}).scrollIntoView()")
    page.run("new Promise((done) => setTimeout(done, 150))")


def check_rewards(made):
    line, last = made["lines"][-1], made["evals"][-1]["rewards"]
    for name in NAMES:
        row = f'#summary tr[data-reward="{name}"] '
        for key, wanted in (("base", f'{made["evals"][0]["rewards"][name]["mean"]:.3f}'), ("now", f'{last[name]["mean"]:.3f}'), ("reward", f'{line["reward"][name]:.3f}'),
                            ("alpha", f'{line["alpha"][name]:.3f}'), ("change", f'▲ +{last[name]["change"]:.3f} ± {last[name]["change_ci95"]:.3f}'), ("cos", f'{line["cos"][name]:+.3f}'),
                            ("valid", str(line["valid"][name])), ("na", str(line["na"][name])), ("failed", str(line["failed"][name]))):
            expect(f"summary, {name}, {key}", text(f'{row} [data-key="{key}"]'), wanted)
        expect_curve(f"chart of {name}", chart(f'#reward-charts canvas[data-reward="{name}"]', "training"), [(l["step"], l["reward"][name]) for l in made["lines"][-50:]])
        points = chart(f'#reward-charts canvas[data-reward="{name}"]', "evaluation")
        expect(f"evaluations of {name}", [(p["x"], p["y"], p["ci"]) for p in points], [(e["step"], e["rewards"][name]["mean"], e["rewards"][name]["ci95"]) for e in made["evals"][-1:]])


def check_balance(made):
    lines = made["lines"][-50:]
    for name in NAMES:
        expect_curve(f"alpha of {name}", chart("#alpha", name), [(l["step"], l["alpha"][name]) for l in lines])
    expect_curve("least cosine", chart("#cos-min", "least cosine"), [(l["step"], l["cos_min"]) for l in lines])
    def count(line):
        return sum(cos < 0 for name, cos in line["cos"].items() if line.get("trained", {}).get(name, True))

    counts = [(l["step"], count(l)) for l in lines]
    expect_curve("rewards worked against", chart("#cos-min", "rewards worked against"), [c for c in counts if c[1]])
    against = sum(count(l) > 0 for l in made["lines"])
    expect("steps against a reward", text("#against"), f"now -0.250, against a reward in {against} of {STEPS} steps")
    gram = made["grams"][-1]
    expect("step of the cosines", text("#heat-step"), f"step {STEPS}")
    label = page.run("document.getElementById('heat').getAttribute('aria-label')")
    expect("cosine in words", f"ocr with count {gram['cos'][0][1]:.2f}" in label, True)
    # the colour of a cell: bluer with the cosine, more orange against it
    for i, j in ((0, 1), (1, 2), (2, 3)):
        left, ratio = 12 + 7 * max(map(len, NAMES)), page.run("document.getElementById('heat').width / document.getElementById('heat').clientWidth")
        wide = min(120, (page.run("document.getElementById('heat').clientWidth") - left) / len(NAMES))
        red, _, blue, _ = pixel("document.getElementById('heat')", (int((left + j * wide + 4) * ratio), int((i * 44 + 4) * ratio)))
        expect(f"colour of the cosine of {NAMES[i]} and {NAMES[j]} ({gram['cos'][i][j]})", blue > red, gram["cos"][i][j] > 0)
    page.run("(() => { const slider = document.getElementById('heat-time'); slider.value = 0; slider.dispatchEvent(new Event('input')); })()")
    expect("the slider goes back", int(text("#heat-step").split()[1]) <= 2, True)
    page.run("(() => { const slider = document.getElementById('heat-time'); slider.value = slider.max; slider.dispatchEvent(new Event('input')); })()")


def click_map(column):
    page.run(f"(() => {{ const canvas = document.getElementById('map'), box = canvas.getBoundingClientRect(), left = 12 + 7 * 5, wide = (canvas.clientWidth - left) / {GROUPS * EACH};"
             f"canvas.dispatchEvent(new MouseEvent('click', {{clientX: box.left + left + ({column} + 0.5) * wide, clientY: box.top + 5, bubbles: true}})); }})()")


def check_images(made):
    advantage = made["advantages"]["advantage"]
    expect("step of the advantages", text("#map-step"), f"step {STEPS}")
    click_map(5)
    for name in NAMES:
        value = advantage[name][5]
        expect(f"advantage of image 5 for {name}", text(f'#image-body tr[data-reward="{name}"] td:nth-child(3)'), "N/A" if value is None else f"{value:.2f}")
    page.run("document.getElementById('image-dialog').close()")
    page.run("(() => { const order = document.getElementById('map-order'); order.value = 'by jpeg'; order.dispatchEvent(new Event('change')); })()")
    best = max((value, -i) for i, value in enumerate(advantage["jpeg"]) if value is not None)
    click_map(0)
    expect("the first image by jpeg", f"image {-best[1]} of step {STEPS}" in text("#image-body"), True)
    page.run("document.getElementById('image-dialog').close()")
    page.until("document.querySelectorAll('#wall .tile').length === 3")
    for i, prompt in enumerate(PROMPTS):
        expect(f"prompt {i}", text(f'#wall .tile[data-index="{i}"] .prompt'), prompt)
        scores = [f"{name}{made['sheets'][STEPS][i]['scores'][name]:.2f}" for name in NAMES if made["sheets"][STEPS][i]["scores"][name] is not None]
        shown = text(f'#wall .tile[data-index="{i}"] .scores')
        for score in scores:
            expect(f"{score} of prompt {i} in {shown}", score in shown, True)

    def pixels(i):
        return pixel(f"document.querySelector('#wall .tile[data-index=\"{i}\"] canvas')", (1, 8), (14, 8))
    page.until("document.querySelector('#wall .tile[data-index=\"2\"] canvas').width === 16")
    for i in range(3):
        expect(f"before and after of image {i}", pixels(i), [60, 40 * i, 10, 255, 200, 40 * i, 10, 255])
    page.run("(() => { const wipe = document.getElementById('wipe'); wipe.value = 0; wipe.dispatchEvent(new Event('input')); })()")
    expect("all of it after", pixels(1), [200, 40, 10, 255] * 2)
    page.run("(() => { const search = document.getElementById('search'); search.value = 'BLUE'; search.dispatchEvent(new Event('input')); })()")
    page.until("document.querySelectorAll('#wall .tile').length === 1")
    expect("the prompt that was looked for", text("#wall .prompt"), "three blue circles")
    expect("how many", text("#wall-count"), "1 of 3")
    page.run("(() => { const search = document.getElementById('search'); search.value = ''; search.dispatchEvent(new Event('input')); })()")
    page.until("document.querySelectorAll('#wall .tile').length === 3")
    page.run("document.querySelector('#wall .tile').click()")
    page.until("document.querySelectorAll('#image-body .strip canvas').length === 2")
    expect("a prompt with markup in the window", text("#image-body .prompt"), EVIL)
    page.run("document.getElementById('image-dialog').close()")


def check_speed(made):
    lines = made["lines"][-50:]
    for label, key in (("rollout", "rollout"), ("training", "train"), ("waiting for scores", "reward_wait"), ("Gram matrix", "gram"), ("quadratic program", "qp")):
        expect_curve(f"seconds of {label}", chart("#phases", label), [(l["step"], l["seconds"][key]) for l in lines])
    expect_curve("seconds of the rest", chart("#phases", "rest"), [(l["step"], 0.125) for l in lines])
    expect_curve("throughput", chart("#phases", "images a second"), [(l["step"], l["samples_per_s"]) for l in lines])
    expect("rate", text("#rate").startswith(f"{lines[-1]['seconds']['total']:.2f} s a step · {lines[-1]['samples_per_s']:.2f} images/s"), True)
    expect("alarms", page.run("[...document.querySelectorAll('#alarms .alarm')].map((alarm) => [alarm.dataset.alarm, alarm.querySelector('.number').textContent])"),
           [["old_drift", "2 steps, last 200"]])
    expect("ranks", page.run("[...document.querySelectorAll('#ranks tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"),
           [["0", "4.50 s", "3.50 s", "0.00 s", "100 %", "1500 MB"], ["1", "4.25 s", "3.00 s", "2.00 s", "66 %", "1250 MB"]])
    page.until("document.querySelectorAll('#scorers tbody tr').length === 4")
    expect("scorers", page.run("[...document.querySelectorAll('#scorers tbody tr')].map((row) => [...row.cells].slice(0, 5).map((cell) => cell.textContent))"),
           [[name, name, str(STEPS * lines[0]["valid"][name]), str(STEPS * lines[0]["na"][name]), str(STEPS * lines[0]["failed"][name])] for name in NAMES])


def check_training_and_texts(made):
    lines = made["lines"][-50:]
    for key in ("loss", "kl", "grad_norm", "lr", "old_lag"):
        expect_curve(key, chart(f'#training-charts canvas[data-column="{key}"]', key), [(l["step"], l[key]) for l in lines])
    page.run("(() => { const any = document.getElementById('any'); any.value = 'valid.ocr'; any.dispatchEvent(new Event('change')); })()")
    page.run("new Promise((done) => setTimeout(done, 200))")
    expect_curve("any number", chart('#training-charts canvas[data-column="any"]', "valid.ocr"), [(l["step"], 8) for l in lines])
    see("texts")
    expect("log", text("#log").endswith("warning: <b>bold</b> words"), True)
    expect("config", "train:\n" in page.run("document.getElementById('config').innerText"), True)
    page.run("(() => { const find = document.getElementById('config-find'); find.value = '(0, 1]'; find.dispatchEvent(new Event('input')); })()")
    expect("config that was looked for", page.run("[...document.getElementById('config').children].map((line) => line.textContent)"), ["train:", "  lr: 0.0005  # (0, 1]"])


def press(key):
    page.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
    page.call("Input.dispatchKeyEvent", type="keyUp", key=key)


def check_tools(other):
    theme = page.run("document.documentElement.dataset.theme")
    press("t")
    expect("t changes the theme", page.run("document.documentElement.dataset.theme") != theme, True)
    press("2")
    page.until("document.activeElement.id === 'balance' || Math.abs(document.getElementById('balance').getBoundingClientRect().top) < 300")
    press("/")
    expect("/ goes to the search", page.run("document.activeElement.id"), "search")
    page.run("document.activeElement.blur()")
    press("?")
    expect("? shows the keys", page.run("document.getElementById('help-dialog').open"), True)
    page.run("document.getElementById('help-dialog').close()")
    see("rewards")
    page.run("document.querySelector('#compare input[type=checkbox]').click()")
    page.until("[...Chart.getChart(document.querySelector('#reward-charts canvas')).data.datasets].some((set) => set.label === 'second')")
    points = chart("#reward-charts canvas", "second, evaluation")
    expect("the run beside it", [(p["x"], p["y"]) for p in points], [(e["step"], e["rewards"]["ocr"]["mean"]) for e in other["evals"]])
    page.choose_files("#compare input[type=file]", folder / "second")
    page.until("Chart.getChart(document.querySelector('#reward-charts canvas')).data.datasets.filter((set) => set.label === 'second').length === 2")
    page.run("document.querySelector('#compare button').click()")
    page.until("Chart.getChart(document.querySelector('#reward-charts canvas')).data.datasets.filter((set) => set.label === 'second').length === 1")
    page.run("(() => { const choice = document.getElementById('run-choice'); choice.value = 1; choice.dispatchEvent(new Event('change')); })()")
    page.until(f"Number(document.documentElement.dataset.steps) === {len(other['lines'])}")
    expect("the other run's numbers", text('#summary tr[data-reward="ocr"] [data-key="reward"]'), f"{other['lines'][-1]['reward']['ocr']:.3f}")
    page.size(390, 844, mobile=True)
    page.run("new Promise((done) => setTimeout(done, 300))")
    expect("nothing is wider than a phone", page.run("document.documentElement.scrollWidth <= 390"), True)


def check_pretraining():
    page.run("(() => { const choice = document.getElementById('run-choice'); choice.value = 2; choice.dispatchEvent(new Event('change')); })()")
    page.until("Number(document.documentElement.dataset.steps) === 7")
    for section in ("balance", "images", "speed", "training"):
        see(section)
    expect("loss of pretraining", [p["y"] for p in chart('#training-charts canvas[data-column="loss"]', "loss")], [1 / step for step in range(1, 8)])
    expect("rows without rewards", page.run("document.querySelectorAll('#summary tbody tr').length"), 0)


def check_foreign():
    page.run("(() => { const choice = document.getElementById('run-choice'); choice.value = 3; choice.dispatchEvent(new Event('change')); })()")
    page.until("Number(document.documentElement.dataset.steps) === 3")
    for section in ("rewards", "balance", "images", "speed", "training"):
        see(section)
    expect("rewards of foreign lines", page.run("[...document.querySelectorAll('#summary tbody tr')].map((row) => row.dataset.reward)"), ["a"])


def follow(run, made, address):
    """What is appended is shown; what a run that went on from an earlier step wrote anew replaces what was there; after the server
    was away the page finds it again by itself."""
    global server
    page.run("(() => { const choice = document.getElementById('run-choice'); choice.value = 0; choice.dispatchEvent(new Event('change')); })()")
    page.until(f"Number(document.documentElement.dataset.steps) === {STEPS} && document.getElementById('link').dataset.on === 'yes'", 30)
    more = dict(made["lines"][-1], step=STEPS + 1, epoch=STEPS + 1, reward=by([0.111, 0.222, 0.333, 0.444]))
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(more) + "\n")
    with open(run / "log.txt", "a") as file:
        file.write("2026-05-08 09:30:02 one more\n")
    page.until(f"Number(document.documentElement.dataset.steps) === {STEPS + 1}")
    expect("a new line's reward", text('#summary tr[data-reward="count"] [data-key="reward"]'), "0.222")
    page.until("document.getElementById('log').textContent.endsWith('one more')")
    again = made["lines"][:200] + [dict(more, step=201, epoch=201, reward=by([0.5, 0.625, 0.75, 0.875]))]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in again))
    page.until("Number(document.documentElement.dataset.steps) === 201")
    expect("the reward after going back", text('#summary tr[data-reward="count"] [data-key="reward"]'), "0.625")
    errors = list(page.errors)
    server.kill()
    server.wait()
    page.until("document.getElementById('link').dataset.on === 'no' && !document.getElementById('notice').hidden")
    again.append(dict(more, step=202, epoch=202, reward=by([0.25, 0.125, 0.75, 0.875])))
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in again))
    server = serve(["--listen", address.split("//")[1].strip("/")])
    page.until("document.getElementById('link').dataset.on === 'yes' && document.getElementById('notice').hidden", 30)
    page.until("Number(document.documentElement.dataset.steps) === 202")
    expect("the reward after coming back", text('#summary tr[data-reward="count"] [data-key="reward"]'), "0.125")
    # a browser says of every connection that fails that it did; nothing else may be there
    expect("what the console says of it", [error for error in page.errors[len(errors):] if "ERR_CONNECTION" not in error and "WebSocket" not in error], [])
    page.errors[:] = errors


def serve(more):
    return subprocess.Popen([marble, "dash", folder / "first", folder / "second", folder / "pretrained", folder / "foreign", *more], stdout=subprocess.PIPE, text=True)


first, second = make_run("first", STEPS, 1), make_run("second", 40, 2)
make_pretraining("pretrained")
make_foreign("foreign")
server = serve([])
page = None
try:
    address = server.stdout.readline().strip()
    page = browser.Browser(1280, 900)
    page.open(address)
    page.until(f"Number(document.documentElement.dataset.steps) === {STEPS}", 30)
    page.run("(() => { const range = document.getElementById('range'); range.value = '50'; range.dispatchEvent(new Event('change')); })()")
    for section, check in (("rewards", check_rewards), ("balance", check_balance), ("images", check_images), ("speed", check_speed), ("training", check_training_and_texts)):
        see(section)
        check(first)
    check_tools(second)
    check_pretraining()
    check_foreign()
    follow(folder / "first", first, address)
    expect("nothing was made from markup", page.run("window.hacked === undefined && !document.querySelector('main b b, main img[src=x], main section script')"), True)
    expect("addresses elsewhere", [url for url in page.run("performance.getEntriesByType('resource').map((entry) => entry.name)") if not url.startswith(address)], [])
    expect("what the console says", page.errors, [])
    server.send_signal(signal.SIGINT)
    expect("exit code at Ctrl-C", server.wait(20), 0)
except Exception:
    if page:
        print("the console says:", page.errors)
    raise
finally:
    if page:
        page.close()
    server.kill()
    server.wait()
    shutil.rmtree(folder, ignore_errors=True)
for failure in failures:
    print(failure)
sys.exit(1 if failures else 0)
