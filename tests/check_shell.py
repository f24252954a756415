#!/usr/bin/env python3
"""check_shell.py MARBLE: manual pages and completion say what --help says, marble runs lists what is there, and the terminal
that a person looks at shows progress and no more (through a pseudo terminal); what deploy/trackers has goes with the files and names of a run."""
import fcntl
import importlib.util
import json
import os
import pathlib
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import threading

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
    return re.sub(r"\\f[BIR]", "", page.replace("\\-", "-"))


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


# ---- trackers ----

FAKE = """import json
def init(**more): print(json.dumps(more))
def log(numbers, step): print(json.dumps([step, numbers]))
def finish(): print('"end"')
"""


def trackers(folder):
    board = json.loads(pathlib.Path("deploy/trackers/grafana.json").read_text())
    source = pathlib.Path("src/service/prometheus.c").read_text()
    for panel in board["panels"]:
        for target in panel["targets"]:
            for name in re.findall(r"marble_(\w+)", target["expr"]):
                check(f'"{name}"' in source, f"grafana.json: {panel['title']}: /metrics has no marble_{name}")
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    check(len(set(places)) == len(places), "grafana.json: panels lie upon each other")

    run, script = os.path.join(folder, "followed"), "deploy/trackers/wandb_follow.py"
    make_run(run, 3, 0.25)
    pathlib.Path(folder, "wandb.py").write_text(FAKE)
    answer = said(sys.executable, script, run, "--once", "--project", "p", env={**os.environ, "PYTHONPATH": folder})
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    check(lines[0] == {"project": "p", "name": "followed"} and lines[-1] == "end", f"wandb_follow.py: {answer}")
    check([line[0] for line in lines[1:-1]] == [1, 2, 3, 3], "wandb_follow.py: the steps")
    check(lines[1][1] == {"train/epoch": 1, "reward/ocr": 0.5}, f"wandb_follow.py: {lines[1]}")
    check({"eval/ocr/mean": 0.75, "eval/ocr/change": 0.25}.items() <= lines[-2][1].items(), f"wandb_follow.py: {lines[-2]}")

    # As it goes on: half a line, then its rest, then a resume from step 2.
    spec = importlib.util.spec_from_file_location("wandb_follow", script)
    follow = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    spec.loader.exec_module(follow)
    metrics, lock = pathlib.Path(run, "metrics.jsonl"), pathlib.Path(run, "lock")
    lock.write_text("{}")
    lines = follow.follow(run, False, rest=0.01)
    seen = [next(lines)[0] for _ in range(4)]
    with open(metrics, "a") as out:
        out.write('{"step": 4, "loss"')
        out.flush()
        threading.Timer(0.05, lambda: (out.write(': 0.5}\n'), out.flush())).start()
        seen.append(next(lines))
    check(seen == [1, 2, 3, 3, (4, {"train/loss": 0.5})], f"wandb_follow.py follows {seen}")
    other = pathlib.Path(run, "metrics.jsonl.tmp")
    other.write_text("".join(metrics.read_text().splitlines(True)[:2]) + '{"step": 3, "loss": 0.25}\n')
    other.rename(metrics)
    lock.unlink()
    check([step for step, _ in lines] == [1, 2, 3], "wandb_follow.py does not begin again where lines were cut")


# ---- the terminal ----

class Terminal:
    """As much of a terminal as marble uses; fails on anything else."""

    def __init__(self, columns, rows):
        self.columns, self.rows, self.lines, self.row, self.column = columns, rows, [""], 0, 0
        self.seen = []  # what stood on it whenever it was drawn anew

    def put(self, character):
        if self.column == self.columns:  # the terminal's own work
            self.down()
            self.column = 0
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[:self.column] + character + line[self.column + 1:]
        self.column += 1

    def down(self):
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")

    def feed(self, text):
        for piece in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|.", text, re.S):
            if piece == "\r":
                self.column = 0
            elif piece == "\n":
                self.down()
            elif piece[0] != "\x1b":
                self.put(piece)
            elif piece[-1] == "A":
                self.seen.append([line.rstrip() for line in self.lines])
                self.row -= int(piece[2:-1])
                check(len(self.lines) - self.row <= self.rows, "drawn above the upper edge of the terminal")
            elif piece[-1] == "K":
                self.lines[self.row] = self.lines[self.row][:self.column]
            elif piece[-1] == "J":
                self.lines[self.row] = self.lines[self.row][:self.column]
                del self.lines[self.row + 1:]
            else:
                check(piece[-1] == "m", f"an unknown sequence {piece!r}")


SMALL = """seed: 7
precision: f32
threads: 1
model: {path: deploy/examples/signs-base, lora: {rank: 4, alpha: 8}}
prompts: {source: signs, train_count: 60, test_count: 12, groups: 2, group_size: 2}
rollout: {steps: 2, solver: euler, micro_batch: 2}
train: {steps: 2, timestep_fraction: 0.5}
rewards: [{name: color}, {name: clean}, {name: jpeg}]
eval: {every: 1, prompts: 6, steps: 2}
log: {samples_every: 0, tensorboard: off}
"""


def shown(folder, out, columns, rows, *more, **environment):
    """What a run writes to a pseudo terminal of that size."""
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    own = {"TERM": "xterm", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", **environment}
    process = subprocess.Popen([marble, "train", os.path.join(folder, "run.yaml"), "--out", os.path.join(folder, out), *more],
                               stdin=other, stdout=other, stderr=other, env={**os.environ, **own})
    os.close(other)
    text = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not piece:
            break
        text += piece
    os.close(main)
    text = text.decode()
    check(process.wait() == 0, f"{out}: exit code {process.returncode}: {text}")
    return text


def terminal(folder):
    pathlib.Path(folder, "run.yaml").write_text(SMALL)
    text = shown(folder, "live", 100, 30)
    screen = Terminal(100, 30)
    screen.feed(text)
    live = [lines for lines in screen.seen if any(line.startswith(" step 2/2") for line in lines)]
    check(bool(live), "no table of step 2")
    check(all(len(line) < 100 for lines in live for line in lines if line.startswith(" ")), "lines of the table wrap")
    for lines in live[:1]:
        table = lines[[line.startswith(" reward") for line in lines].index(True):]
        check(table[0].split() == ["reward", "base", "now", "change", "alpha", "cos", "step", "course"], f"head {table[0]}")
        check([line.split()[0] for line in table[1:4]] == ["color", "clean", "jpeg"], f"rows {table[1:4]}")
        last = json.loads(pathlib.Path(folder, "live/metrics.jsonl").read_text().splitlines()[1])
        evals = [json.loads(line)["rewards"] for line in pathlib.Path(folder, "live/eval.jsonl").read_text().splitlines()]
        for line in table[1:4]:
            name, base, now, change, alpha, cosine, step = line.split()[:7]
            wanted = (evals[0][name]["mean"], evals[1][name]["mean"], evals[1][name]["change"], last["alpha"][name],
                      last["cos"][name], last["reward"][name])
            for one, is_so, digits in zip((base, now, change, alpha, cosine, step), wanted, (3, 3, 3, 2, 2, 3)):
                check(abs(float(one) - is_so) <= 0.51 * 10**-digits, f"{line}: {one} is {is_so} in the run's files")
    phases = " ".join(" ".join(lines) for lines in screen.seen)
    for phase in ("encoding the prompts", "rollout", "training", "evaluation", "loading the model"):
        check(phase in phases, f"{phase} shows no progress")
    rest = "\n".join(screen.lines)
    check(screen.column == 0 and screen.row == len(screen.lines) - 1, "the cursor is left amid the screen")
    check(rest.count("eval at step") == 3 and rest.count("report: ") == 1, f"messages do not scroll above: {rest}")
    check(" reward " not in rest and "a step" not in rest and "\nreward " in rest, f"something is left behind: {rest}")
    check("step 1/2  color" not in text, "lines of steps scroll beside the table")
    check("step 1/2  color" in pathlib.Path(folder, "live/log.txt").read_text(), "log.txt lacks the steps")

    text = shown(folder, "tiny", 30, 6, NO_COLOR="1", LC_ALL="C")
    tiny = Terminal(30, 6)
    tiny.feed(text)
    check(any(line.startswith(" step 2/2") for lines in tiny.seen for line in lines), "a tiny terminal shows no step")
    check(all(len(line) < 30 for lines in tiny.seen for line in lines if line.startswith((" step", "rollout", "training"))),
          "a tiny terminal gets long lines")
    check("\x1b[3" not in text and "\x1b[1m" not in text, "colours with NO_COLOR")
    check(all(ord(character) < 128 for character in text), "letters beyond ASCII in the C locale")

    text = shown(folder, "quiet", 100, 30, "--quiet")
    check("\x1b" not in text and "eval at step" not in text and text.count("clean ") == 1, f"--quiet: {text}")
    check("step 2/2" in pathlib.Path(folder, "quiet/log.txt").read_text(), "log.txt of --quiet lacks the steps")

    text = shown(folder, "dumb", 100, 30, TERM="dumb")
    check("\x1b" not in text and "step 2/2  color" in text, f"TERM=dumb: {text}")

    plain = said(marble, "train", os.path.join(folder, "run.yaml"), "--out", os.path.join(folder, "plain"),
                 "--set", "train.steps=1", env={**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1", "MARBLE_TERMINAL": ""})
    check("\x1b" not in plain.stderr + plain.stdout and "step 1/1  color" in plain.stderr, f"no terminal: {plain.stderr}")
    piped = said(marble, "train", os.path.join(folder, "run.yaml"), "--out", os.path.join(folder, "piped"),
                 "--set", "train.steps=1", env={**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1", "MARBLE_TERMINAL": "90x20"})
    check("\x1b[1m reward" in piped.stderr, "MARBLE_TERMINAL, as for mpirun, shows no table")
    check("live page: http://127.0.0.1:" in piped.stderr, "MARBLE_TERMINAL, as for mpirun, has no page of the run")


with tempfile.TemporaryDirectory() as place:
    pages()
    completion(place)
    runs(place)
    trackers(place)
    terminal(place)
sys.exit(1 if failed else 0)
