#!/usr/bin/env python3
"""The user's guide is complete: config.md is what `marble train --help-config` says today, run-folder.md has every key that runs write
into metrics.jsonl, eval.jsonl and advantages.jsonl and none that no run writes, methods.md every method, rewards.md every reward,
troubleshooting.md every alarm and exit code, and messages that it quotes are in the sources. $1 is the marble program."""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
GUIDE = ROOT / "deploy/guide"
MARBLE = pathlib.Path(sys.argv[1]).resolve()
TINY = ("model.path=deploy/examples/signs-base prompts.groups=2 prompts.group_size=4 rollout.steps=4 train.steps=2 eval.prompts=4 eval.steps=2"
        " eval.every=1 checkpoint.every=0 log.samples_every=0 log.advantages_every=1 threads=1").split()
NAMES = [f"{name}_here" for name in ("ocr", "count", "color", "clean", "jpeg")]  # no other key is called so
TINY += ["rewards=[" + ", ".join(f"{{name: {name}, type: {name[:-5]}}}" for name in NAMES) + "]"]
BRIGHT = """from marble_reward import reward


@reward("bright", images="raw")
def bright(images, prompts, metadata):
    return [sum(image.data) / (255 * len(image.data)) for image in images]
"""
# Together they write every key there is.
PROMPTS = "".join(f"{count} {color} circles\n" for count in ("two", "three", "four") for color in ("red", "blue", "green", "purple"))
RUNS = {"sources": ["prompts.source=file", "prompts.sources=[{file: %s/prompts.txt, name: source_here}]", "prompts.test_share=0.4"],
        "halves": ["balance.alpha_halves=1", "balance.shrink=equal"], "guard": ["balance.guard=own_parts"],
        "python": ["rewards=[{name: color_here, type: color}, {name: bright_here, type: python, file: %s/bright.py, output: bright}]", "log.recheck_every=1"], "limit": ["rewards.0.min=0.4"],
        "stages": ["stages=[{steps: 1, rewards: [ocr_here, color_here]}, {steps: 1, rewards: [count_here, clean_here, jpeg_here]}]"]}
wrong = []


def page(name):
    return (GUIDE / name).read_text()


def keys_of(value, rewards, prefix=""):
    """Names of an object's keys, those within as outer.inner; the names of rewards stand for all of them."""
    for key, inner in value.items():
        if key in rewards:
            yield from keys_of(inner, rewards, prefix) if isinstance(inner, dict) else ()
            continue
        yield prefix + key
        if isinstance(inner, dict) and key != "failed":  # there: kinds of failures
            yield from keys_of(inner, rewards, f"{prefix}{key}.")


def written(folder):
    """The keys of every kind of line that the runs wrote."""
    found = {"metrics.jsonl": set(), "eval.jsonl": set(), "advantages.jsonl": set(), "gram.jsonl": set()}
    for name, sets in RUNS.items():
        command = [MARBLE, "train", "deploy/examples/quickstart.yaml", "--out", folder / name]
        (folder / "bright.py").write_text(BRIGHT)
        (folder / "prompts.txt").write_text(PROMPTS)
        for item in TINY + sets:
            command += ["--set", item.replace("%s", str(folder))]
        run = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=100)
        assert run.returncode == 0, run.stderr
        for kind, keys in found.items():
            for line in (folder / name / kind).read_text().splitlines():
                keys.update(keys_of(json.loads(line), [*NAMES, "bright_here", "source_here"]))
    return found


def documented(text, kind):
    """The keys in the first column of the tables below the heading that names a kind of line."""
    part = re.search(rf"^## [^\n]*`{re.escape(kind)}`.*?(?=^## |\Z)", text, re.M | re.S)
    assert part, f"run-folder.md has no section of {kind}"
    return {key for row in re.findall(r"^\| (`[^|]*`)(?: \*)? \|", part[0], re.M) for key in re.findall(r"`([^`]+)`", row)}


def check_run_folder():
    text = page("run-folder.md")
    with tempfile.TemporaryDirectory() as folder:
        for kind, keys in written(pathlib.Path(folder)).items():
            there = documented(text, kind)
            alarms = {key for key in keys if key.startswith("alarms.")}
            wrong.extend(f"run-folder.md: {kind}: {key} is not described" for key in sorted(keys - alarms - there))
            wrong.extend(f"run-folder.md: {kind}: no run writes {key}" for key in sorted(there - keys - {"control"}))  # of a run that was asked: test_train_control
            trouble = page("troubleshooting.md")
            wrong.extend(f"troubleshooting.md: the alarm {key[7:]} is not described" for key in sorted(alarms) if f"`{key[7:]}`" not in trouble)
            assert kind != "metrics.jsonl" or len(alarms) >= 12, alarms


def check_names():
    help_text = subprocess.run([MARBLE, "train", "--help-config"], capture_output=True, text=True, check=True).stdout
    methods = re.search(r"^  balance\.method +(.*)$", help_text, re.M)[1].split(" | ")
    assert len(methods) >= 10, methods
    wrong.extend(f"methods.md: {name} is not described" for name in methods if f"| `{name}` |" not in page("methods.md"))
    doctor = json.loads(subprocess.run([MARBLE, "doctor", "--json"], capture_output=True, text=True).stdout)
    rewards = doctor["rewards"]["found"].split(", ")
    assert len(rewards) >= 5, rewards
    wrong.extend(f"rewards.md: {name} is not described" for name in rewards if f"| `{name}` |" not in page("rewards.md"))
    codes = subprocess.run([MARBLE, "--help"], capture_output=True, text=True).stdout
    for code in re.findall(r"(\d+) [a-z]", codes[codes.index("exit codes"):]):
        if f"| {code} |" not in page("troubleshooting.md"):
            wrong.append(f"troubleshooting.md: exit code {code} is not described")


def check_config():
    made = subprocess.run([sys.executable, GUIDE / "make_config.py", MARBLE, "--print"], capture_output=True, text=True, check=True).stdout
    if made != page("config.md"):
        wrong.append(f"config.md is not what the program says; run deploy/guide/make_config.py {sys.argv[1]}")


def check_messages():
    """Quoted messages, in the first column of a table, are in the sources but for what stands for `...`."""
    sources = "".join(path.read_text() for folder in ("src", "comm", "gpu") for path in sorted((ROOT / folder).rglob("*.[chi]*")))
    sources = re.sub(r'"\s*\n?\s*"', "", sources).replace('\\"', '"')
    quoted = re.findall(r"^\| `([^`]*\.\.\.[^`]*|[^`]* [^`]*)` \|", page("troubleshooting.md"), re.M)
    assert len(quoted) >= 15, quoted
    for message in quoted:
        for piece in message.split("..."):
            if piece.strip(" :") and re.sub(r"\s+", " ", piece.strip()) not in sources:
                wrong.append(f"troubleshooting.md: no source says {piece.strip()!r}")


check_config()
check_names()
check_messages()
check_run_folder()
print("\n".join(wrong) or "the guide is complete")
sys.exit(len(wrong) > 0)
