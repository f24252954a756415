"""A Slurm cluster of its own on this machine: munged, slurmctld and several slurmd, with key, sockets, ports and state in
one folder; nothing under /etc, /run or /var is read or written. Ends with the `with` block.

Nodes n1, n2, ... are all this machine (slurmd -N). Two partitions share the first half of them: jobs in `high` take nodes
from jobs in `low`, which are put back into the queue. The other half is the partition `apart`."""
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import time

PROGRAMS = "munged slurmctld slurmd slurmstepd srun sbatch scontrol scancel squeue sinfo".split()
CONFIG = """ClusterName=marbletest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=bf_interval=1,batch_sched_delay=0,sched_interval=1
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
ReturnToService=2
KillWait=5
SlurmdTimeout=300
MinJobAge=3600
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
TaskProlog={folder}/own-tmp
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
"""


class Lacking(Exception):
    """The cluster cannot be had here; the text says why."""


def programs_missing():
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    return [name for name in PROGRAMS if not shutil.which(name, path=path)]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Cluster:
    def __init__(self, folder, nodes=6, cpus=2):
        self.folder = pathlib.Path(folder)
        self.nodes = [f"n{i + 1}" for i in range(nodes)]
        self.conf = self.folder / "slurm.conf"
        self.daemons = {}
        self.environment = {**os.environ, "SLURM_CONF": str(self.conf), "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
        for name in [name for name in self.environment if name.startswith(("SLURM_JOB", "SBATCH_", "SALLOC_"))]:
            del self.environment[name]
        self._write(free_ports(1 + nodes), cpus)

    def _write(self, ports, cpus):
        host = socket.gethostname().split(".")[0]
        text = CONFIG.format(folder=self.folder, host=host, user=pwd.getpwuid(os.getuid()).pw_name, ports=ports)
        for name, port in zip(self.nodes, ports[1:]):
            text += f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Gres=gpu:2\n"
        half = len(self.nodes) // 2
        shared = "Nodes=" + ",".join(self.nodes[:half])
        text += f"PartitionName=low {shared} Default=YES PriorityTier=1\n"
        text += f"PartitionName=high {shared} PriorityTier=2 PreemptMode=OFF\n"
        text += f"PartitionName=apart Nodes={','.join(self.nodes[half:])}\n"
        self.conf.write_text(text)
        gpus = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n" # stand for the two GPUs of every node
        (self.folder / "gres.conf").write_text(gpus)
        own_tmp = self.folder / "own-tmp"
        own_tmp.write_text(f'#!/bin/sh\necho "export TMPDIR={self.folder}/$SLURMD_NODENAME/tmp"\n')
        own_tmp.chmod(0o755)
        (self.folder / "state").mkdir()
        (self.folder / "munge.key").write_bytes(os.urandom(256))
        (self.folder / "munge.key").chmod(0o600)
        for name in self.nodes:
            # PMIx and Open MPI make folders named after the job; nodes that share a /tmp would find them taken.
            own = self.folder / name
            (own / "tmp").mkdir(parents=True)
            (own / "slurm.conf").write_text(f"include {self.conf}\n")
            (own / "gres.conf").write_text(gpus)
            (own / "mpi.conf").write_text(f"PMIxCliTmpDirBase={own}/tmp\n")
            (self.folder / f"spool-{name}").mkdir()

    def _start(self, name, *words):
        if shutil.which("setpriv"): # a daemon ends with this process, too
            words = ("setpriv", "--pdeathsig", "TERM") + words
        with open(self.folder / f"{name}.out", "ab") as out:
            self.daemons[name] = subprocess.Popen(words, env=self.environment, stdin=subprocess.DEVNULL, stdout=out,
                                                  stderr=out, start_new_session=True)

    def start_node(self, name):
        self._start(name, "slurmd", "-D", "-N", name, "-f", str(self.folder / name / "slurm.conf"))

    def __enter__(self):
        try:
            f = self.folder
            self._start("munged", "munged", "--foreground", "--force", f"--key-file={f}/munge.key",
                        f"--socket={f}/munge.socket", f"--pid-file={f}/munged.pid", f"--log-file={f}/munged.log",
                        f"--seed-file={f}/munged.seed")
            self.wait_for("munged's socket", lambda: (f / "munge.socket").exists())
            self._start("slurmctld", "slurmctld", "-D", "-f", str(self.conf))
            for name in self.nodes:
                self.start_node(name)
            self.wait_for("idle nodes", lambda: self.states(*self.nodes) == ["idle"] * len(self.nodes))
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_for(self, what, condition, seconds=30):
        """Lacking unless the condition holds before the time is up or a daemon has ended."""
        end = time.monotonic() + seconds
        while not condition():
            dead = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            if dead or time.monotonic() > end:
                logs = "".join(f"{name}: {self.tail(name)}\n" for name in dead or self.daemons)
                raise Lacking(f"no {what} after {seconds} s; ended: {', '.join(dead) or 'none'}\n{logs}")
            time.sleep(0.1)

    def tail(self, name):
        return " | ".join((self.folder / f"{name}.out").read_text(errors="replace").strip().split("\n")[-3:])

    def call(self, *words, check=True, environment=()):
        """A command of Slurm; what it printed, without the last newline."""
        done = subprocess.run([str(w) for w in words], env={**self.environment, **dict(environment)}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stderr}")
        return done.stdout.strip()

    def states(self, *names):
        answer = self.call("sinfo", "-h", "-N", "-n", ",".join(names), "-o", "%N %t", check=False)
        states = dict(line.split() for line in answer.splitlines())
        return [states.get(name) for name in names]

    def job(self, number):
        """scontrol's fields of a job."""
        text = self.call("scontrol", "show", "job", "-o", number)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def processes(self, node=None):
        """Processes of this cluster, or of one node of it (its slurmstepd and what they started), known by their
        environment; the oldest first."""
        found = []
        wanted = {f"SLURM_CONF={self.folder}/{node}/slurm.conf".encode(), f"SLURMD_NODENAME={node}".encode()}
        for entry in pathlib.Path("/proc").iterdir():
            try:
                words = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
            except OSError:
                continue
            ours = any(word.startswith(f"SLURM_CONF={self.folder}/".encode()) for word in words)
            if ours and (node is None or wanted & set(words)):
                found.append(int(entry.name))
        return sorted(found)

    def kill(self, node, only=None):
        """kill -9 of what runs on a node: all of it, slurmd first, or processes whose command begins with `only`."""
        if only is None:
            self.daemons[node].kill()
            self.daemons.pop(node).wait()
        for pid in self.processes(node):
            try:
                if only is None or pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().startswith(only.encode()):
                    os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, FileNotFoundError):
                pass

    def __exit__(self, *_):
        if "slurmctld" in self.daemons and self.daemons["slurmctld"].poll() is None:
            try:
                self.call("scancel", "--quiet", "--user", pwd.getpwuid(os.getuid()).pw_name, check=False)
                end = time.monotonic() + 10
                while self.call("squeue", "-h", check=False) and time.monotonic() < end:
                    time.sleep(0.1)
            except subprocess.TimeoutExpired:
                pass
        for name in reversed(list(self.daemons)):
            self.daemons[name].terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in self.processes():
            if pid != os.getpid():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
