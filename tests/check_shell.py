#!/usr/bin/env python3
"""check_shell.py MARBLE: manual pages and completion say what --help says, marble runs lists what is there, and the terminal
that a person looks at shows progress and no more (through a pseudo terminal)."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

marble = os.path.realpath(sys.argv[1])
failed = []


def check(good, what):
    if not good:
        failed.append(what)
        print(f"check_shell: {what}")


def said(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


def commands():
    text = said(marble, "--help").stdout
    return re.findall(r"^  ([a-z]+) {2,}", text[text.index("commands:"):], re.M)


def options(command):
    return re.findall(r"^  (--[a-z-]+)", said(marble, command, "--help").stdout, re.M)


# ---- manual pages ----

def lint(page, name):
    if shutil.which("mandoc"):
        found = subprocess.run(["mandoc", "-Tlint", "-Werror"], input=page, capture_output=True, text=True)
        check(found.returncode == 0, f"{name}: {found.stdout.strip()}")
    if shutil.which("groff"):
        found = subprocess.run(["groff", "-man", "-Tutf8", "-ww"], input=page, capture_output=True, text=True)
        check(not found.stderr, f"{name}: groff: {found.stderr.strip()}")
        return re.sub(r"\x1b\[[0-9;]*m|.\x08", "", found.stdout)
    return page.replace("\\-", "-")


def pages():
    whole = said(marble, "--man")
    text = lint(whole.stdout, "marble.1")
    for command in commands():
        check(f"marble-{command}(1)" in text, f"marble.1 has no marble-{command}")
        page = said(marble, "--man", command)
        check(page.returncode == 0 and page.stdout.startswith(f".TH MARBLE-{command.upper()} 1 "), f"--man {command}")
        text_of = lint(page.stdout, f"marble-{command}.1")
        for option in options(command):
            check(option in text_of, f"marble-{command}.1 has no {option}")
    unknown = said(marble, "--man", "trian")
    check(unknown.returncode == 2 and "did you mean train" in unknown.stderr, f"--man trian: {unknown.stderr}")


# ---- completion ----

DRIVE = r"""
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
compopt() { :; }
_marble "$1"
printf '%s\n' "${COMPREPLY[@]}"
"""


def completed(script, *words):
    run = said("bash", "--norc", "-c", DRIVE, "bash", script, *words)
    check(not run.stderr, f"completion of {words}: {run.stderr}")
    return run.stdout.split()


def completion(folder):
    script = os.path.join(folder, "marble.bash")
    pathlib.Path(script).write_text(said(marble, "--completion", "bash").stdout)
    check(sorted(completed(script, marble, "")) == sorted(commands() + ["--help", "--version"]), "commands in bash")
    check(completed(script, marble, "pre") == ["pretrain"], "pre in bash")
    for command in commands():
        check(sorted(completed(script, marble, command, "--")) == sorted(options(command)), f"options of {command} in bash")
    check(completed(script, marble, "train", "--accept", "") == ["prompts"], "words of a choice in bash")
    check("train.lr=" in completed(script, marble, "train", "--set", "train.l"), "keys of run.yaml in bash")
    os.mkdir(os.path.join(folder, "there"))
    pathlib.Path(folder, "there.yaml").write_text("")
    check(completed(script, marble, "train", "--out", os.path.join(folder, "the")) == [os.path.join(folder, "there")],
          "folders in bash")
    zsh = said(marble, "--completion", "zsh").stdout
    for command in commands():
        part = zsh[zsh.index(f"    {command})\n"):]
        part = part[:part.index(";;")]
        check(all(f"{option}[" in part for option in options(command)), f"options of {command} in zsh")
    if shutil.which("zsh"):
        path = os.path.join(folder, "_marble")
        pathlib.Path(path).write_text(zsh)
        loaded = said("zsh", "-fc", 'fpath=("$1" $fpath); autoload -Uz compinit; compinit -u -D; whence -w _marble; print $_comps[marble]',
                      "zsh", folder)
        check(loaded.stdout.split() == ["_marble:", "function", "_marble"], f"zsh: {loaded.stdout}{loaded.stderr}")
        check(said("zsh", "-n", path).returncode == 0, "zsh cannot parse its script")
    other = said(marble, "--completion", "fish")
    check(other.returncode == 2 and "expected bash or zsh" in other.stderr, "another shell")


# ---- marble runs ----

def make_run(folder, steps, change=None, dead=False):
    os.makedirs(folder)
    pathlib.Path(folder, "run.yaml").write_text("train: {steps: 4}\n")
    with open(os.path.join(folder, "metrics.jsonl"), "w") as out:
        for step in range(1, steps + 1):
            print(json.dumps({"step": step, "epoch": step, "reward": {"ocr": 0.5}, "run": "aaaabbbbccccdddd"}), file=out)
    if change is not None:
        pathlib.Path(folder, "eval.jsonl").write_text(json.dumps({"step": steps, "rewards": {
            "ocr": {"mean": 0.75, "change": change, "change_ci95": 0.125}}}) + "\n")
    if dead:
        process = subprocess.Popen(["sleep", "0"])
        start = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
        process.wait()
        pathlib.Path(folder, "lock").write_text(json.dumps({
            "host": os.uname().nodename, "pid": process.pid, "start": int(start),
            "boot": pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "pid_namespace": os.readlink("/proc/self/ns/pid"), "slurm_cluster": "", "slurm_job": "", "slurm_step": "",
            "slurm_restart": ""}) + "\n")


def runs(folder):
    root = os.path.join(folder, "runs")
    make_run(os.path.join(root, "done"), 4, 0.25)
    make_run(os.path.join(root, "half"), 2, -0.25)
    make_run(os.path.join(root, "killed"), 3, dead=True)
    os.mkdir(os.path.join(root, "no run"))
    lines = said(marble, "runs", root).stdout.splitlines()
    check(len(lines) == 4, f"runs: {lines}")
    for line, parts in zip(lines[1:], (("done", "finished", "4/4", "ocr 0.750 +0.250+"), ("half", "stopped", "2/4", "-0.250-"),
                                       ("killed", "killed", "3/4"))):
        check(all(part in line for part in parts), f"runs: {line} has not all of {parts}")
    found = json.loads(said(marble, "runs", "--json", root).stdout)
    check([run["state"] for run in found] == ["finished", "stopped", "killed"], "runs --json")
    check(found[0]["rewards"]["ocr"]["mean"] == 0.75 and found[2]["rewards"] == {}, "rewards of runs --json")
    check(said(marble, "runs", os.path.join(root, "done")).stdout.count("\n") == 2, "a run itself")
    check(said(marble, "runs", cwd=folder).stdout.count("\n") == 4, "runs of the current folder")
    empty = said(marble, "runs", cwd=root)
    check(empty.returncode == 0 and "no runs in runs" in empty.stderr, f"no runs: {empty.stderr}")
    check(said(marble, "runs", "/nowhere").returncode == 2, "a folder that is not there")


with tempfile.TemporaryDirectory() as place:
    pages()
    completion(place)
    runs(place)
sys.exit(1 if failed else 0)
