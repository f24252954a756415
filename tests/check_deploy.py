#!/usr/bin/env python3
"""What deploy/ has for containers and hosts, as far as it can be checked without Kubernetes, Docker and Apptainer: the
MPIJob against the rules of the MPI operator (kubeflow/mpi-operator, pkg/apis/kubeflow/validation, v2beta1) and against
itself; what the image definitions copy; and mpirun's command of deploy/mpirun, run on hosts that are all this one.
$1 is the marble program."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
failures = []


def check(what, is_so):
    if not is_so:
        failures.append(what)


def container_of(spec, role):
    containers = spec["template"]["spec"]["containers"]
    check(f"{role}: one container with a name and an image", len(containers) == 1 and
          {"name", "image"} <= set(containers[0]))
    for word in containers[0].get("command", []) + containers[0].get("args", []):
        check(f"{role}: {word!r} is a text", isinstance(word, str))
    return containers[0]


def check_replica(role, replica):
    check(f"{role}: replicas is a number", type(replica.get("replicas")) is int and replica["replicas"] > 0)
    check(f"{role}: restartPolicy Never or OnFailure", replica.get("restartPolicy") in ("Never", "OnFailure"))
    check(f"{role}: no other keys", set(replica) == {"replicas", "restartPolicy", "template"})
    pod = replica["template"]["spec"]
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    mounts = container_of(replica, role).get("volumeMounts", [])
    check(f"{role}: every volume is mounted, every mount has its volume", volumes == {mount["name"] for mount in mounts})


def check_mpijob(job):
    check("kubeflow.org/v2beta1, MPIJob", (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob"))
    spec = job["spec"]
    known = {"slotsPerWorker", "runPolicy", "mpiReplicaSpecs", "sshAuthMountPath", "waitForWorkers", "mpiImplementation"}
    check("no unknown keys in spec", set(spec) <= known)
    check("slotsPerWorker is a number", type(spec["slotsPerWorker"]) is int and spec["slotsPerWorker"] > 0)
    check("cleanPodPolicy", spec["runPolicy"]["cleanPodPolicy"] in ("None", "Running", "All"))
    check("backoffLimit leaves room for restarts", spec["runPolicy"]["backoffLimit"] >= 100)
    check("a Launcher and Workers", set(spec["mpiReplicaSpecs"]) == {"Launcher", "Worker"})
    launcher, worker = spec["mpiReplicaSpecs"]["Launcher"], spec["mpiReplicaSpecs"]["Worker"]
    for role, replica in (("Launcher", launcher), ("Worker", worker)):
        check_replica(role, replica)
    check("one launcher, which comes back", launcher["replicas"] == 1 and launcher["restartPolicy"] == "OnFailure")
    last_pod = f"{job['metadata']['name']}-worker-{worker['replicas'] - 1}"
    check(f"{last_pod} is a DNS label", re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", last_pod))

    command = container_of(launcher, "Launcher")
    words = command["command"] + command["args"]
    train = words[words.index("marble"):]
    check("the launcher is mpirun itself, which hears signals", words[0] == "mpirun")
    check("resumes", train[1] == "train" and train[train.index("--resume") + 1] == "auto")
    ranks = spec["slotsPerWorker"] * worker["replicas"]
    check(f"-np {ranks}", words[words.index("-np") + 1] == str(ranks))
    container = container_of(worker, "Worker")
    check("a GPU for every rank", container["resources"]["limits"]["nvidia.com/gpu"] == spec["slotsPerWorker"])
    claims = {volume["name"] for volume in worker["template"]["spec"]["volumes"] if "persistentVolumeClaim" in volume}
    kept = [mount["mountPath"] + "/" for mount in container["volumeMounts"] if mount["name"] in claims]
    check("the run's folder lies on a claim", any(train[train.index("--out") + 1].startswith(path) for path in kept))
    home = str(pathlib.PurePath(spec["sshAuthMountPath"]).parent)
    check("keys, sshd and Dockerfile agree on the user's home", f"{home}/.sshd_config" in container["args"] and
          f">{home}/.sshd_config" in (ROOT / "deploy/kubernetes/Dockerfile").read_text())


def sections(text):
    """An Apptainer definition: header lines, and the lines of each section."""
    found, name = {"": []}, ""
    for line in text.split("\n"):
        if line.startswith("%"):
            name = line[1:].strip()
            check(f"%{name} once", name not in found)
            found[name] = []
        elif line.strip() and not line.lstrip().startswith("#"):
            found[name].append(line.strip())
    return found


def check_images():
    parts = sections((ROOT / "deploy/apptainer/marble.def").read_text())
    check("Bootstrap and From", [line.split(":")[0] for line in parts[""]] == ["Bootstrap", "From"])
    check("only known sections", set(parts) == {"", "files", "post", "environment", "runscript", "test", "help"})
    copied = dict(line.split() for line in parts["files"])
    needed = {"CMakeLists.txt", "LICENSE"} | {
        name for name in ("src", "comm", "gpu", "proto", "tests", "deploy") if (ROOT / name).is_dir()}
    check(f"copies {sorted(needed)}", set(copied) == needed)
    for source, place in copied.items():
        check(f"{source} to its own place", place == f"/opt/marble/{source}")
    for name in ("post", "environment", "runscript", "test"):
        check(f"%{name} is a shell script", subprocess.run(["sh", "-n"], input="\n".join(parts[name]).encode()).returncode == 0)
    docker = re.findall(r"^COPY (.*) (/\S+)$", (ROOT / "deploy/kubernetes/Dockerfile").read_text(), re.M)
    check("the Dockerfile copies the same", {name for names, _ in docker for name in names.split()} == needed)


CONFIG = """seed: 7
precision: f32
threads: 1
model: {path: base/model, lora: {rank: 4, alpha: 8}}
prompts: {source: signs, train_count: 30, test_count: 8, groups: 4, group_size: 4}
rollout: {steps: 3, solver: euler, micro_batch: 8}
train: {steps: 3, beta: 1.0, micro_batch: 8}
rewards: [{name: color}, {name: jpeg}]
eval: {every: 0, prompts: 4, steps: 2}
"""
MODEL = ("threads=1 pretrain.steps=20 pretrain.warmup=2 pretrain.batch=16 pretrain.model.num_layers=2 "
         "pretrain.model.num_attention_heads=2 pretrain.model.attention_head_dim=16 pretrain.model.caption_projection_dim=32 "
         "pretrain.model.joint_attention_dim=32 pretrain.model.pooled_projection_dim=32 pretrain.model.text_layers=1 "
         "eval.prompts=4 eval.steps=2").split()
# ssh's stand-in: skips options and the host, which it notes, and runs the rest here, with a folder for temporary files of
# its own: Open MPI's daemons keep files there that are named after the job, and break each other's where they share it. Where
# one may (root), it has a host name of its own too: Open MPI 5 takes ranks under one name for ranks of one host.
AGENT = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
echo "$1" >>"$0.hosts"
TMPDIR=$0.tmp/$1
export TMPDIR
mkdir -p "$TMPDIR"
host=$1
shift
if unshare --uts true 2>/dev/null; then
    exec unshare --uts sh -c "hostname $host; $*"
fi
exec sh -c "$*"
"""


def check_mpirun(marble, folder):
    """The README's command with one rank a host, on as many hosts as its hostfile has."""
    text = (ROOT / "deploy/mpirun/README.md").read_text()
    words = re.search(r"```sh\n(mpirun .*)\n```", text).group(1).split()
    lines = [line.split() for line in (ROOT / "deploy/mpirun/hostfile").read_text().splitlines() if line[0] != "#"]
    slots = sum(int(line[1].split("=")[1]) for line in lines)
    check(f"-np {slots}, as many as slots", words[words.index("-np") + 1] == str(slots))
    (folder / "hostfile").write_text("".join(f"{line[0]} slots=1\n" for line in lines))
    (folder / "run.yaml").write_text(CONFIG)
    agent = folder / "agent"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    other = {"deploy/mpirun/hostfile": folder / "hostfile", "build/marble": marble, "run.yaml": folder / "run.yaml",
             "/shared/run1": folder / "run1", str(slots): len(lines), "OMP_NUM_THREADS=8": "OMP_NUM_THREADS=1"}
    words = [str(other.get(word, word)) for word in words]
    words[1:1] = ["--mca", "plm_rsh_agent", str(agent)]
    subprocess.run([marble, "pretrain", ROOT / "deploy/examples/pretrain.yaml", "--out", folder / "base"] +
                   [word for key in MODEL for word in ("--set", key)], stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, check=True)
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                   "OMPI_MCA_mpi_yield_when_idle": "1",
                   "OMPI_MCA_btl_tcp_if_include": "lo"}  # Open MPI 5 finds no other way from this machine to itself
    done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    if done.returncode != 0:
        print(done.stdout)
    check("mpirun trains", done.returncode == 0 and (folder / "run1/metrics.jsonl").read_text().count("\n") == 3)
    reached = sorted((folder / "agent.hosts").read_text().split())
    check(f"reaches {reached}", reached == sorted(line[0] for line in lines))


check_images()
try:
    import yaml
    check_mpijob(yaml.safe_load((ROOT / "deploy/kubernetes/mpijob.yaml").read_text()))
except ImportError:
    print("deploy/kubernetes/mpijob.yaml was not looked at: python3-yaml is not installed")
if shutil.which("mpirun"):
    with tempfile.TemporaryDirectory() as name:
        check_mpirun(str(pathlib.Path(sys.argv[1]).resolve()), pathlib.Path(name))
for what in failures:
    print("not so:", what)
sys.exit(1 if failures else 0)
