"""Runs of marble train, several at once: finished ones are left alone, unfinished ones resumed, all stopped in time."""
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time

GRACE = 12  # seconds that a stop may take: a micro-batch, a checkpoint


def whole_lines(path):
    """The lines of a file that may be growing, without a last one that is only half written."""
    try:
        with open(path) as file:
            return file.read().split("\n")[:-1]
    except FileNotFoundError:
        return []


def json_lines(path):
    return [json.loads(line) for line in whole_lines(path)]


def of_rewards(line):
    """The rewards of a line of eval.jsonl; older lines have them beside "step"."""
    return line.get("rewards", line)


def note_of(path):
    """What study.json of a run folder holds; None of another folder."""
    try:
        with open(os.path.join(path, "study.json"), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


class Run:
    """One arm with one seed in its own folder. study.json beside the program's files holds its settings."""

    def __init__(self, arm, seed, settings, steps, out):
        self.arm, self.seed, self.settings, self.steps = arm, seed, settings, steps
        self.name = f"{arm.name}/seed-{seed}"
        self.path = os.path.join(out, arm.name, f"seed-{seed}")
        self.process = None
        self.started = self.began_at = 0

    def write_note(self, finished):
        note = {"arm": self.arm.name, "seed": self.seed, "steps": self.steps, "finished": finished, "settings": self.settings}
        temporary = os.path.join(self.path, "study.json.tmp")
        with open(temporary, "w") as file:
            json.dump(note, file, indent=1)
        os.replace(temporary, os.path.join(self.path, "study.json"))

    def finished(self):
        note = note_of(self.path)
        if note and note["settings"] != self.settings:
            differing = [k for k in {*note["settings"], *self.settings} if note["settings"].get(k) != self.settings.get(k)]
            raise ValueError(f"{self.path}: made with other settings ({', '.join(sorted(differing))}); take another --out")
        return bool(note and note["finished"])

    def step(self):
        return len(whole_lines(os.path.join(self.path, "metrics.jsonl")))

    def seconds_per_step(self):
        """From what it has done so far; None before its second step."""
        seconds = [line["seconds"]["total"] for line in json_lines(os.path.join(self.path, "metrics.jsonl"))]
        return sum(seconds) / len(seconds) if len(seconds) > 1 else None

    def start(self, marble, config, threads):
        os.makedirs(self.path, exist_ok=True)
        self.write_note(False)
        command = [marble, "train", config, "--out", self.path, "--resume", "auto", "--set", f"threads={threads}"]
        for key, value in self.settings.items():
            command += ["--set", f"{key}={value}"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        with open(os.path.join(self.path, "console.txt"), "a") as console:
            self.process = subprocess.Popen(command, stdout=console, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                            env=environment, start_new_session=True)
        self.started, self.began_at = time.monotonic(), self.step()

    def close(self):
        """After the process has ended: its exit code; a finished run keeps no checkpoint."""
        code, self.process = self.process.returncode, None
        if code == 0:
            self.write_note(True)
            for name in ("checkpoints", "samples"):
                shutil.rmtree(os.path.join(self.path, name), ignore_errors=True)
        return code

    def complaint(self):
        with open(os.path.join(self.path, "console.txt")) as file:
            return "".join(file.readlines()[-4:]).strip()


class Schedule:
    def __init__(self, runs, options):
        self.options = options
        self.waiting = [run for run in runs if not run.finished()]
        self.done, self.total = len(runs) - len(self.waiting), len(runs)
        self.running, self.failed = [], []
        self.deadline = time.monotonic() + options.seconds - GRACE if options.seconds else None
        self.stopping = False

    def pace(self, run):
        """Seconds of a step: the run's own, else the mean of the others', else what a step of this size took elsewhere."""
        own = run.seconds_per_step()
        if own:
            return own
        paces = [p for p in (other.seconds_per_step() for other in self.running + self.waiting) if p]
        return sum(paces) / len(paces) if paces else self.options.pace

    def left(self, run):
        """Seconds to its end, with a tenth for the evaluations."""
        return 1.1 * self.pace(run) * max(0, run.steps - run.step()) + 2 * self.pace(run)

    def ask_to_stop(self, *_):
        self.stopping = True
        for run in self.running:
            if run.process.poll() is None:
                run.process.send_signal(signal.SIGTERM)

    def may_start(self, run):
        if not self.deadline:
            return True
        left = self.deadline - time.monotonic()
        return left > (6 * self.pace(run) if self.options.split else self.left(run))

    def fill(self):
        self.waiting.sort(key=self.left, reverse=True)  # the longest first
        for run in list(self.waiting):
            if len(self.running) >= self.options.jobs or self.stopping:
                return
            if self.may_start(run):
                self.waiting.remove(run)
                run.start(self.options.marble, self.options.config, self.options.threads)
                self.running.append(run)

    def reap(self):
        for run in [r for r in self.running if r.process.poll() is not None]:
            self.running.remove(run)
            code = run.close()
            if code == 0:
                self.done += 1
            elif code == 75:
                print(f"{run.name}: stopped at step {run.step()} of {run.steps}; the same command goes on with it", flush=True)
            else:
                self.failed.append(run)
                print(f"{run.name}: exit code {code}\n    {run.complaint()}".replace("\n", "\n    "), flush=True)

    def time_left(self):
        """Seconds to the end of all: whatever runs and waits, over so many jobs."""
        ends = [self.left(run) for run in self.running + self.waiting]
        return max([sum(ends) / self.options.jobs, *[self.left(run) for run in self.running]], default=0)

    def progress(self, start):
        steps = sum(run.step() for run in self.running)
        minutes, seconds = divmod(int(time.monotonic() - start), 60)
        print(f"[{minutes:2d}:{seconds:02d}] {self.done} of {self.total} runs done, {len(self.running)} running "
              f"({steps} steps), {len(self.waiting)} waiting, about {self.time_left() / 60:.1f} min left", flush=True)

    def work(self):
        """Runs everything that can be; True when all are finished."""
        start = time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.ask_to_stop)
        self.fill()
        try:
            self.watch(start)
        finally:  # nothing trains on without its schedule
            self.ask_to_stop()
        self.progress(start)
        return self.done == self.total

    def watch(self, start):
        said = float("-inf")
        while self.running:
            if time.monotonic() - said >= self.options.every:
                said = time.monotonic()
                self.progress(start)
            if self.deadline and time.monotonic() >= self.deadline and not self.stopping:
                self.ask_to_stop()
            time.sleep(0.2)
            self.reap()
            self.fill()


def pack(out, path, limit):
    """One tar.xz of all runs' figures and of the checkpoints of unfinished runs, the furthest first, within `limit` bytes. A
    run whose checkpoint does not fit is left out and will start afresh."""
    keep, checkpoints = [], []
    for folder, _, names in os.walk(out):
        if "study.json" in names:
            with open(os.path.join(folder, "study.json")) as file:
                finished = json.load(file)["finished"]
            files = [os.path.join(folder, name) for name in names if name != "console.txt" or not finished]
            stored = [os.path.join(folder, "checkpoints", name) for name in _list(os.path.join(folder, "checkpoints"))]
            if finished:
                keep += files
            else:
                checkpoints.append((len(whole_lines(os.path.join(folder, "metrics.jsonl"))), files + stored))
    _write_tar(out, path, keep)
    for _, files in sorted(checkpoints, reverse=True, key=lambda entry: entry[0]):
        _write_tar(out, path + ".tmp", keep + files)
        if os.path.getsize(path + ".tmp") > limit:
            print(f"{os.path.dirname(files[0])}: not packed, the archive would exceed {limit} bytes", flush=True)
            os.remove(path + ".tmp")
            continue
        keep += files
        os.replace(path + ".tmp", path)
    print(f"{path}: {len(keep)} files, {os.path.getsize(path)} bytes; unpack with: tar -xf {path} -C {out}", flush=True)


def _list(folder):
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def _write_tar(out, path, files):
    with tarfile.open(path, "w:xz", preset=3) as archive:
        for file in files:
            archive.add(file, os.path.relpath(file, out))
