#!/usr/bin/env python3
"""deploy/slurm/train.sbatch under a real Slurm (slurmctld, six slurmd, munge), started here for the purpose: requeued,
preempted, cancelled, out of time, on a node that breaks and on one that goes down, a run ends as the unbroken one does,
bit for bit. $1 is the marble program. Exit 77 says what is lacking."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import slurm_cluster

ROOT = pathlib.Path(__file__).resolve().parents[1]
STEPS = 40
CONFIG = f"""seed: 7
precision: f32
threads: 1
model: {{path: base/model, lora: {{rank: 4, alpha: 8}}}}
prompts: {{source: signs, train_count: 30, test_count: 8, groups: 4, group_size: 4}}
rollout: {{steps: 3, solver: euler, schedule: linear, micro_batch: 8}}
train: {{steps: {STEPS}, lr: 2.0e-3, beta: 1.0, micro_batch: 8, timestep_fraction: 0.7}}
rewards: [{{name: color}}, {{name: clean}}, {{name: jpeg}}]
eval: {{every: 0, prompts: 4, steps: 2}}
checkpoint: {{every: 1, keep: 3}}
log: {{samples_every: 0}}
"""
MODEL = ("threads=1 pretrain.steps=60 pretrain.warmup=2 pretrain.batch=16 pretrain.model.num_layers=2 "
         "pretrain.model.num_attention_heads=2 pretrain.model.attention_head_dim=16 pretrain.model.caption_projection_dim=32 "
         "pretrain.model.joint_attention_dim=32 pretrain.model.pooled_projection_dim=32 pretrain.model.text_layers=1 "
         "eval.prompts=4 eval.steps=2").split()


def lack(text):
    print(f"skipped: {text}")
    sys.exit(77)


def namespace():
    """The words that start a command in a process namespace of its own, all of which ends with it; [] where that is not
    allowed."""
    for user in ([], ["--user", "--map-current-user"]):
        words = ["unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc"]
        if shutil.which("unshare") and subprocess.run(words + ["true"], stdout=subprocess.DEVNULL,
                                                      stderr=subprocess.DEVNULL).returncode == 0:
            return ["setpriv", "--pdeathsig", "KILL"] + words
    return []


class Run:
    """A run of train.sbatch in its own folder."""

    def __init__(self, name, *options, settings=(), environment=()):
        self.name, self.out = name, folder / name
        self.options, self.settings, self.environment = options, settings, dict(environment)
        self.submit()

    def submit(self):
        words = ["sbatch", "--parsable", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=1",
                 f"--output={self.out}.log", *self.options, ROOT / "deploy/slurm/train.sbatch", folder / "run.yaml",
                 self.out]
        for setting in self.settings:
            words += ["--set", setting]
        self.job = cluster.call(*words, environment=self.environment)

    def field(self, name):
        return cluster.job(self.job)[name]

    def step(self):
        """The last step that metrics.jsonl holds whole."""
        try:
            return (self.out / "metrics.jsonl").read_text().count("\n")
        except FileNotFoundError:
            return 0

    def kept(self):
        """The step of the latest checkpoint."""
        answer = subprocess.run([marble, "inspect", "--attribute", "step", self.out / "checkpoints/latest.h5"], text=True,
                              stdout=subprocess.PIPE, check=True)
        return int(answer.stdout)

    def log(self):
        path = pathlib.Path(f"{self.out}.log")
        return path.read_text() if path.exists() else ""

    def wait(self, what, condition, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                self.fail(f"not {what} after {seconds} s")
            time.sleep(0.05)

    def wait_step(self, step):
        self.wait(f"at step {step}", lambda: self.step() >= step or self.field("JobState") in ("FAILED", "COMPLETED"))
        if self.step() >= STEPS:
            self.fail(f"was through before it could be interrupted after step {step}")

    def wait_state(self, *states):
        self.wait(" or ".join(states).lower(), lambda: self.field("JobState") in states)

    def fail(self, text):
        print(cluster.call("scontrol", "show", "job", self.job, check=False))
        print("\n".join(self.log().split("\n")[-60:]))
        sys.exit(f"{self.name}: {text}")

    def expect(self, what, is_so):
        if not is_so:
            self.fail(f"not so: {what}")

    def excluded(self):
        path = self.out / "excluded-nodes"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def finished(self, restarts):
        """Waits for the end, which is that of the unbroken run."""
        self.wait_state("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
        job = cluster.job(self.job)
        self.expect("completed", job["JobState"] == "COMPLETED" and job["ExitCode"] == "0:0")
        self.expect(f"came back {restarts}", int(job["Restarts"]) in restarts)
        figures = metrics(self.out)
        self.expect("every step reported once", [line["step"] for line in figures] == list(range(1, STEPS + 1)))
        if self.name != "unbroken":
            self.expect("metrics of the unbroken run", figures == metrics(folder / "unbroken"))
            last = f"checkpoints/step-{STEPS:06d}.h5"
            answer = json.loads(subprocess.run([marble, "inspect", "--json", "--diff", folder / "unbroken" / last, self.out / last],
                                             stdout=subprocess.PIPE, check=True).stdout)
            self.expect("checkpoint of the unbroken run", answer["equal"] >= 10 and not answer["datasets"])
        print(f"{self.name}: came back {job['Restarts']} times", flush=True)


def metrics(out):
    """metrics.jsonl without what a clock says."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "samples_per_s", "ranks", "time", "run")} for line in lines]


def requeued_and_preempted():
    run = Run("requeued")
    run.wait_step(4)
    cluster.call("scontrol", "requeue", run.job)
    run.wait("back", lambda: run.field("Restarts") == "1" and run.field("JobState") == "RUNNING")
    run.wait_step(12)
    other = cluster.call("sbatch", "--parsable", "--partition=high", "--nodes=3", "--ntasks=3", "--cpus-per-task=2",
                         "--output=/dev/null", "--wrap=sleep 1")
    run.wait("preempted", lambda: cluster.job(other)["JobState"] in ("RUNNING", "COMPLETED"))
    run.expect("not running", run.field("JobState") != "RUNNING")
    run.finished(restarts=[2])


def cancelled():
    run = Run("cancelled")
    run.wait_step(4)
    cluster.call("scancel", run.job)
    run.wait_state("CANCELLED")
    time.sleep(2)
    run.expect("cancelled for good", run.field("JobState") == "CANCELLED")
    run.expect(f"a checkpoint of the last step, {run.step()}", run.kept() == run.step() < STEPS)
    run.submit()
    run.finished(restarts=[0])


def unbroken():
    """Returns how many seconds of a job a third of the run takes."""
    run = Run("unbroken")
    run.wait("running", lambda: run.field("JobState") == "RUNNING")
    began = time.monotonic()
    run.wait_step(STEPS // 3)
    third = time.monotonic() - began
    run.finished(restarts=[0])
    return third


def out_of_time(seconds):
    """A minute, less a margin that leaves it some seconds each time."""
    run = Run("out-of-time", "--time=1", "--signal=B:USR1@1", "--partition=apart",
              settings=[f"limits.margin={60 - seconds:.0f}"])

    def verify():
        run.finished(restarts=range(1, 30))
        run.expect("marble knew the limit", "Slurm ends this job in" in run.log())
    return verify


def signalled_in_time():
    """Slurm's own signal before the end, which comes within half a minute; not to come back is reported."""
    run = Run("signalled-in-time", "--time=1", "--signal=B:USR1@50", "--partition=apart", "--nodes=1", "--ntasks=1",
              settings=["limits.margin=0", "train.steps=5000", "checkpoint.every=5000"],
              environment={"RESUBMIT_LIMIT": "0"})

    def verify():
        run.wait_state("FAILED", "COMPLETED", "TIMEOUT", "CANCELLED")
        run.expect("exit 75", run.field("ExitCode") == "75:0")
        run.expect(f"a checkpoint of step {run.step()}", run.kept() == run.step() > 0)
        run.expect("the limit of coming back reported", "came back 0 times; the checkpoint is in" in run.log())
        print(f"signalled in time: stopped at step {run.step()} after {run.field('RunTime')}", flush=True)
    return verify


def broken_node():
    """One rank killed: its node is blamed, and only its node."""
    run = Run("broken-node")
    run.wait_step(4)
    node = run.field("NodeList") == "n[1-2]" and "n2"
    run.expect("on n1 and n2", node)
    cluster.kill(node, only=marble)
    run.finished(restarts=[1])
    run.expect("n2 alone excluded", run.excluded() == ["n2"])
    run.expect("on the other two", run.field("NodeList") == "n[1,3]" and run.field("ExcNodeList") == "n2")


def node_down():
    """The first node, with the script on it, is switched off; later it is back, and the run keeps away from it."""
    run = Run("node-down")
    run.wait_step(4)
    cluster.kill("n1")
    cluster.call("scontrol", "update", "NodeName=n1", "State=DOWN", "Reason=off")
    run.wait("back", lambda: run.field("Restarts") == "1" and run.field("JobState") == "RUNNING")
    run.wait_step(12)
    run.expect("n1 excluded", run.excluded() == ["n1"])
    cluster.start_node("n1")
    cluster.wait_for("n1", lambda: cluster.states("n1") == ["idle"])
    cluster.call("scancel", "--batch", "--signal=USR1", run.job)
    run.finished(restarts=[2])
    run.expect("on the other two", run.field("NodeList") == "n[2-3]" and run.field("ExcNodeList") == "n1")


def mpirun_resubmitted():
    """Without PMIx and where requeueing is forbidden: mpirun, and a new job that goes on."""
    run = Run("mpirun", "--no-requeue", environment={"LAUNCHER": "mpirun"})
    run.wait_step(4)
    cluster.call("scancel", "--batch", "--signal=USR1", run.job)
    run.wait_state("COMPLETED")
    run.expect("a new job submitted", "Submitted batch job " in run.log())
    run.job = run.log().split("Submitted batch job ")[1].split()[0]
    run.finished(restarts=[0])


def gpus():
    """Two GPUs on each of two nodes: every rank sees both of its node and has a number on it, again after the job has
    submitted itself anew. A script that prints what it sees stands for marble."""
    (folder / "sees").write_text('#!/bin/sh\necho "$SLURMD_NODENAME $SLURM_LOCALID $CUDA_VISIBLE_DEVICES $CAME_BACK" >>"$4/seen"\n'
                                 '[ -n "$CAME_BACK" ] || exit 75\n')
    (folder / "sees").chmod(0o755)
    run = Run("gpus", "--no-requeue", "--ntasks=4", "--ntasks-per-node=2", "--gpus-per-node=2",
              environment={"MARBLE": str(folder / "sees")})
    seen = run.out / "seen"
    run.wait("through twice", lambda: seen.exists() and seen.read_text().count("\n") >= 8)
    want = [f"n{node} {number} 0,1 {back}" for back in ("", "1") for node in (1, 2) for number in (0, 1)]
    run.expect("two ranks and two GPUs a node", sorted(seen.read_text().split("\n")[:-1]) == sorted(want))
    print("gpus: two ranks a node see its two", flush=True)


def array():
    """Two runs of one array, each with its folder and seed. Each comes back once and takes nobody along, the last task too,
    whose id is that of the array; then the same where requeueing is forbidden."""
    (folder / "counts").write_text('#!/bin/sh\necho "$7 $8" >>"$4/seen"\n[ "$(wc -l <"$4/seen")" -gt 1 ] || exit 75\n')
    (folder / "counts").chmod(0o755)
    for name, *options in ["array"], ["array-anew", "--no-requeue"]:
        words = ["sbatch", "--parsable", "--array=1-2", "--ntasks=1", "--cpus-per-task=1", f"--output={folder}/{name}-%a.log",
                 *options, ROOT / "deploy/slurm/train.sbatch", folder / "run.yaml", folder / f"{name}-%a", "--set", "seed=%a"]
        cluster.call(*words, environment={"MARBLE": str(folder / "counts")})
    wanted = {f"{name}-{task}": f"--set seed={task}\n" * 2 for name in ("array", "array-anew") for task in (1, 2)}

    def found():
        paths = {name: folder / name / "seen" for name in wanted}
        return {name: path.read_text() if path.exists() else "" for name, path in paths.items()}
    end = time.monotonic() + 60
    while time.monotonic() < end and (found() != wanted or "RUNNING" in cluster.call("squeue", "-h", "-o", "%T %j")):
        time.sleep(0.2)
    time.sleep(3) # for what should not come
    if found() != wanted:
        sys.exit(f"array: {found()} instead of {wanted}\n" +
                 "".join(path.read_text() for path in sorted(folder.glob("array*.log"))))
    print("array: each of its runs came back by itself", flush=True)


def everything():
    global cluster
    (folder / "run.yaml").write_text(CONFIG)
    (folder / "cluster").mkdir()
    subprocess.run([marble, "pretrain", ROOT / "deploy/examples/pretrain.yaml", "--out", folder / "base"] +
                   [word for key in MODEL for word in ("--set", key)], stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, check=True)
    try:
        with slurm_cluster.Cluster(folder / "cluster") as cluster:
            verify_signalled = signalled_in_time() # these two run on the partition `apart` while the others go on
            verify_out = out_of_time(unbroken())
            gpus()
            array()
            requeued_and_preempted()
            cancelled()
            broken_node()
            node_down()
            mpirun_resubmitted()
            verify_signalled()
            verify_out()
    except slurm_cluster.Lacking as why:
        lack(f"Slurm does not run here: {why}")


missing = slurm_cluster.programs_missing()
if missing:
    lack(f"{', '.join(missing)} not installed; deploy/install-packages --check installs Debian's slurm-wlm and munge")
marble = str(pathlib.Path(sys.argv[1]).resolve())
os.environ.update(MARBLE=marble, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                  OMPI_MCA_mpi_yield_when_idle="1", OMPI_MCA_btl_base_warn_component_unused="0")
signal.signal(signal.SIGTERM, lambda *_: sys.exit("asked to end"))
if len(sys.argv) > 2: # inside the namespace
    folder = pathlib.Path(sys.argv[2])
    everything()
    sys.exit(0)
with tempfile.TemporaryDirectory(prefix="marble-slurm-") as name:
    folder = pathlib.Path(name)
    apart = namespace()
    if apart:
        inside = subprocess.Popen(apart + [sys.executable, sys.argv[0], marble, name])
        try:
            sys.exit(inside.wait())
        finally:
            inside.kill()
            inside.wait()
    everything()
