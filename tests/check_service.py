#!/usr/bin/env python3
"""check_service.py MARBLE: a run on two ranks is watched and steered over HTTP. Every answer follows proto/openapi-service.yaml,
/metrics is text that Prometheus takes, a pause holds, a learning rate set over HTTP is that of the next step, the stopped run is
resumed at the same address with the same token and that learning rate, and no token is in any other file of its folder."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
MARBLE = pathlib.Path(sys.argv[1]).resolve()
SETS = ("model.path=deploy/examples/signs-base prompts.groups=2 prompts.group_size=4 rollout.steps=2 train.steps=400 eval.prompts=4 eval.steps=1"
        " eval.every=0 checkpoint.every=0 log.samples_every=0 log.advantages_every=1 log.tensorboard=off threads=1 train.timestep_fraction=0.5 service.listen=127.0.0.1:0").split()
SPEC = yaml.safe_load((ROOT / "proto/openapi-service.yaml").read_text())
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
KINDS = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}


def resolve(schema):
    while "$ref" in schema:
        node = SPEC
        for part in schema["$ref"][2:].split("/"):
            node = node[part]
        schema = node
    return schema


def follows(value, schema, where):
    """Fails where a value is not what the schema says."""
    schema = resolve(schema)
    if value is None:
        assert schema.get("nullable"), f"{where}: null"
        return
    kind = schema.get("type")
    assert kind is None or isinstance(value, KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool)), f"{where}: {value!r} is no {kind}"
    assert "enum" not in schema or value in schema["enum"], f"{where}: {value!r}"
    if kind == "object":
        properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        for key in schema.get("required", ()):
            assert key in value, f"{where}: no {key}"
        for key, inner in value.items():
            assert key in properties or more is not False, f"{where}: {key} is not described"
            if key in properties or isinstance(more, dict):
                follows(inner, properties.get(key, more), f"{where}.{key}")
    for i, inner in enumerate(value if kind == "array" else ()):
        follows(inner, schema["items"], f"{where}[{i}]")


def ask(address, path, described, method="get", body=None, token=None):
    """The answer's code and JSON (or bytes), which is as described."""
    request = urllib.request.Request(address + path, method=method.upper(), data=None if body is None else json.dumps(body).encode())
    if body is not None:
        request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", "Bearer " + token)
    try:
        with OPENER.open(request, timeout=20) as answer:
            code, kind, data = answer.status, answer.headers.get_content_type(), answer.read()
    except urllib.error.HTTPError as error:
        code, kind, data = error.code, error.headers.get_content_type(), error.read()
    answer = resolve(SPEC["paths"][described][method]["responses"][str(code)])
    assert kind in answer["content"], f"{path}: {code} {kind}"
    if kind != "application/json":
        return code, data
    value = json.loads(data)
    follows(value, answer["content"][kind]["schema"], path)
    return code, value


def wait_for(what, found, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        value = found()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


def start(folder, log, *more):
    return subprocess.Popen([ROOT / "tests/with_ranks", "2", MARBLE, "train", ROOT / "deploy/examples/quickstart.yaml" if not more else folder / "run.yaml",
                             "--out", folder, *(f"--set={item}" for item in (SETS if not more else ())), *more],
                            cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def place_of(folder, process):
    """service.json, once this process answers there."""
    def look():
        assert process.poll() is None, "the run has ended"
        try:
            place = json.loads((folder / "service.json").read_text())
            with OPENER.open(place["address"] + "/api/status", timeout=5) as answer:
                return place if json.load(answer)["live"] else None
        except (OSError, ValueError):
            return None
    return wait_for("service.json", look)


def lines(folder, name="metrics.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def prometheus(text):
    """Samples by name and labels; fails where it is not the text format."""
    found, typed = {}, set()
    for line in text.decode().splitlines():
        if line.startswith("#"):
            match = re.fullmatch(r"# (?:HELP (marble_\w+) .+|TYPE (marble_\w+) (gauge|counter))", line)
            assert match, line
            typed.add(match[1] or match[2])
            continue
        match = re.fullmatch(r'(marble_\w+)(\{(?:[a-z]+="(?:[^"\\]|\\.)*",?)*\})? (-?[0-9.e+-]+)', line)
        assert match and match[1] in typed, line
        found[match[1] + (match[2] or "")] = float(match[3])
    return found


def check_answers(address, token):
    get = lambda path, described=None: ask(address, path, described or path.split("?")[0])
    for path in ("/healthz", "/api/runs", "/api/status", "/api/metrics?points=3", "/api/eval", "/api/gram?from=2", "/api/advantages", "/api/rollout",
                 "/api/samples", "/api/config", "/api/alarms", "/api/scorers", "/api/log?lines=5"):
        assert get(path)[0] == 200, path
    assert get("/api/rollout/7", "/api/rollout/{index}")[1][:4] == b"\x89PNG"
    assert get("/api/rollout/8", "/api/rollout/{index}")[0] == 404
    assert get("/api/samples/000001", "/api/samples/{id}")[0] == 404
    assert get("/api/samples/000001.png", "/api/samples/{id}.png")[0] == 404
    assert get("/api/metrics?from=x")[0] == 400 and get("/api/status?run=1")[0] == 404 and get("/api/stream")[0] == 426
    samples, step = prometheus(get("/metrics")[1]), get("/api/status")[1]["step"]
    assert step - 1 <= samples['marble_step{run="run"}'] <= step and samples['marble_scores_failed_total{run="run",reward="jpeg"}'] == 0
    for body, code in (({}, 400), ({"stop": 1}, 400), ({"set": {"train.lr": 7}}, 422), ({"set": {"seed": 1}}, 422)):
        assert ask(address, "/api/control", "/api/control", "post", body, token)[0] == code, body
    said = str(ask(address, "/api/control", "/api/control", "post", {"set": {"train.lr": 7, "balance.refresh_every": 0}}, token)[1])
    assert "train.lr" in said and "(and 1 more)" in said, said  # the reason, which is not in the run's log instead
    assert ask(address, "/api/control", "/api/control", "post", {"stop": True}, token[:-1] + "x")[0] == 401


def check_steering(folder, address, token):
    """Paused, so that what is set is known to hold from the next step on."""
    control = lambda body: ask(address, "/api/control", "/api/control", "post", body, token)
    status = lambda: ask(address, "/api/status", "/api/status")[1]
    assert control({"pause": True})[0] == 202
    wait_for("a pause", lambda: status()["state"] == "paused")
    done = len(lines(folder))
    assert control({"set": {"train.lr": 3e-4, "rewards.jpeg.weight": 2}}) == (202, {"asked": ["train.lr=0.0003", "rewards.4.weight=2"]})
    time.sleep(0.5)
    assert len(lines(folder)) == done, "a paused run takes steps"
    subprocess.run([MARBLE, "ctl", folder, "resume", "checkpoint"], check=True, stdout=subprocess.DEVNULL)
    wait_for("steps after the pause", lambda: len(lines(folder)) > done + 1)
    after = lines(folder)[done]
    assert after["lr"] == 3e-4 and after["control"] == ["train.lr=0.0003", "rewards.4.weight=2"], after
    assert lines(folder)[done - 1]["lr"] != 3e-4 and "control" not in lines(folder)[done + 1]
    wait_for("a checkpoint", lambda: list((folder / "checkpoints").glob("step-*.h5")))


def check_ending(process):
    code = process.wait(60)
    assert code == 75, f"exit {code}, expected 75"


def check_run(folder, log):
    process = start(folder, log)
    try:
        place = place_of(folder, process)
        address, token = place["address"], place["token"]
        assert (folder / "service.json").stat().st_mode & 0o777 == 0o600
        wait_for("two steps", lambda: len(lines(folder)) >= 2 and (folder / "rollout.tar").exists())
        check_answers(address, token)
        check_steering(folder, address, token)
        subprocess.run([MARBLE, "ctl", address, "stop"], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "MARBLE_TOKEN": token})
        check_ending(process)
        process = start(folder, log, "--resume", "auto")
        again = place_of(folder, process)
        assert (again["address"], again["token"]) == (address, token), "pages do not find the resumed run"
        done = len(lines(folder))
        wait_for("a step of the resumed run", lambda: len(lines(folder)) > done)
        assert lines(folder)[-1]["lr"] == 3e-4, "the resumed run has forgotten what it was asked"
        subprocess.run([MARBLE, "ctl", folder, "stop"], check=True, stdout=subprocess.DEVNULL)
        check_ending(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "service.json":
            assert token.encode() not in path.read_bytes(), f"{path}: the token is in it"
    gone = subprocess.run([MARBLE, "ctl", folder], capture_output=True, text=True)
    assert gone.returncode == 1 and "nobody answers" in gone.stderr, gone


with tempfile.TemporaryDirectory() as scratch, open(os.path.join(scratch, "log"), "w+") as output:
    try:
        check_run(pathlib.Path(scratch) / "run", output)
    except AssertionError:
        output.seek(0)
        print(output.read()[-3000:])
        raise
# and beside a training that must not notice them; by hand with 10,000
subprocess.run([sys.executable, ROOT / "tests/proofs/malformed.py", MARBLE, "--requests", "120", "--steps", "6"], check=True)
