#!/usr/bin/env python3
"""The pages say what is so: every `sh` block of README.md and of the pages beside deploy/ and the code runs, one page after
another, each in a scratch folder that looks like the repository, with small settings; `yaml` blocks are configurations that
marble accepts; links lead somewhere; commands, options, tests, presets and keys that pages name exist. $1 is the marble program;
further arguments: only these pages.

Comments before a block: <!-- not run: WHY --> has its commands looked up instead, <!-- exit: N --> names the code expected of its
last command, <!-- file: NAME --> makes the block a file of the scratch folder, <!-- part --> is a part of a configuration."""
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
MARBLE = pathlib.Path(sys.argv[1]).resolve()
SMALL = ("--set train.steps=2 --set prompts.groups=2 --set prompts.group_size=4 --set rollout.steps=4 --set train.timestep_fraction=0.25"
         " --set eval.prompts=8 --set eval.steps=2 --set eval.every=2 --set checkpoint.every=1 --set log.samples_every=2 --set threads=1")
SMALL_PRETRAIN = ("--set pretrain.steps=2 --set pretrain.warmup=1 --set pretrain.batch=8 --set pretrain.eval_every=0"
                  " --set pretrain.checkpoint_every=1 --set eval.prompts=8 --set threads=1")
WRAPPER = f"""#!/bin/sh
case "$1 $*" in
train*.yaml*) exec {shlex.quote(str(MARBLE))} "$@" {SMALL} ;;
eval*.yaml*) exec {shlex.quote(str(MARBLE))} "$@" --set eval.prompts=8 --set eval.steps=2 --set threads=1 ;;
pretrain*.yaml*) exec {shlex.quote(str(MARBLE))} "$@" {SMALL_PRETRAIN} ;;
*) exec {shlex.quote(str(MARBLE))} "$@" ;;
esac
"""
# Two ranks stand for any number.
MPIRUN = f"""#!/bin/sh
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMP_NUM_THREADS=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_base_warn_component_unused=0
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe OMPI_MCA_smsc=^cma
while [ $# -gt 0 ]; do
    case $1 in
    -np) shift 2 ;;
    --map-by | --bind-to) shift 2 ;;
    --oversubscribe) shift ;;
    *) break ;;
    esac
done
exec {shutil.which("mpirun") or "mpirun"} --bind-to none -np 2 "$@"
"""
wrong = []


def output_of(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT, timeout=60).stdout


def say(page, line, what):
    wrong.append(f"{page.relative_to(ROOT)}:{line}: {what}")


# ---- what there is ----
help_text = output_of(MARBLE, "--help")
COMMANDS = re.findall(r"^  ([a-z]+)  ", help_text, re.M)
HELP = {name: output_of(MARBLE, name, "--help") for name in COMMANDS}
KEYS = set(re.findall(r"^  ([a-z0-9_.]+)(?: {2,}|$)", output_of(MARBLE, "train", "--help-config"), re.M))
SECTIONS = {key.split(".")[0] for key in KEYS if "." in key}
PRESETS = {kind: {preset["name"] for preset in presets}
           for kind, presets in json.loads((ROOT / "CMakePresets.json").read_text()).items() if kind.endswith("Presets")}
TESTS = re.findall(r"Test +#\d+: (\S+)", output_of("ctest", "--test-dir", MARBLE.parent, "-N"))
emulated = (ROOT / "tests/emulation/CMakeLists.txt").read_text()
TESTS += re.findall(r"\b(?:emulation|check)_[a-z0-9_]+", emulated)
TESTS += [path.stem + suffix for path in sorted((ROOT / "tests").rglob("test_*.c")) for suffix in ("", "_fake", "_cuda")]
TESTS += [path.stem + suffix for path in (ROOT / "tests/emulation").rglob("*.c*") for suffix in ("", "_cuda")]
TESTS += [f"emulation_{path.stem}" for path in (ROOT / "tests/emulation").rglob("*.cu")] + ["check_devices_cuda", "check_dead_rank_cuda"]
LABELS = {"unit", "ranks", "runs", "scripts", "lint", "gpu", "slurm", "evidence"}


# ---- looking commands up ----
def split_commands(text):
    """The simple commands of a piece of shell, each a list of words without assignments."""
    text = re.sub(r"\\\n", " ", text)
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words = []
        try:
            for word in lexer:
                if set(word) <= set("();<>|&"):
                    yield words
                    words = []
                elif words or not re.match(r"^\w+=", word):
                    words.append(word)
        except ValueError:
            pass  # a text over several lines: its commands are looked up by the line that begins them
        yield words


def look_up_marble(words):
    """Trouble with the words after `marble`."""
    if not words or words[0] in ("...", "COMMAND"):
        return None
    name, options = words[0], [word.split("=")[0] for word in words[1:] if word.startswith("--")]
    if name.startswith("-"):
        known = re.findall(r"--[a-z-]+", output_of(MARBLE, "--help"))
        return None if name in known else f"marble has no option {name}"
    if name not in COMMANDS:
        return f"marble has no command {name}"
    for option in options:
        if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", HELP[name]):
            return f"marble {name} has no option {option}"
    for i, word in enumerate(words[:-1]):
        key = words[i + 1].split("=")[0]
        if word == "--set" and "." in key and not key.startswith(("rewards.", "stages.")) and key not in KEYS:
            return f"--set {key}: no such key"
    return None


def look_up_ctest(words):
    for option, name in zip(words, words[1:]):
        if option == "-R" and not any(re.search(name, test) for test in TESTS):
            return f"ctest -R {name}: no such test"
        if option == "-L" and not any(re.search(name, label) for label in LABELS):
            return f"ctest -L {name}: no such label"
    return None


def look_up(words):
    """Trouble with one simple command, None without."""
    for i, word in enumerate(words):
        base = word.rsplit("/", 1)[-1]
        if base == "marble" and (i == 0 or words[0] in ("mpirun", "srun", "until", "if", "apptainer", "time", "strace", "env")):
            return look_up_marble(words[i + 1:])
        if base == "ctest" and i == 0:
            return look_up_ctest(words[1:])
        if word == "--preset":
            kind = "workflow" if "--workflow" in words else "build" if "--build" in words else "configure"
            if words[i + 1] not in PRESETS[kind + "Presets"]:
                return f"--preset {words[i + 1]}: not among the {kind} presets of CMakePresets.json"
        if re.match(r"^(deploy|tests|gpu|src)/[\w./-]+$", word) and not re.search("[A-Z]{4}", word) and not (ROOT / word).exists():
            return f"{word}: no such file"
    if words and re.match(r"^deploy/(quickstart|check|install-packages|build)$", words[0]):
        options = [word.split("=")[0] for word in words[1:] if word.startswith("--")]
        text = output_of("sh", ROOT / words[0], "--help") if words[0] != "deploy/build" else ""
        for option in options:
            if option not in text:
                return f"{words[0]} --help does not know {option}"
    return None


# ---- reading pages ----
def blocks_of(text):
    """(line, language, notes, body) of every fenced block; notes: what the comment before it says."""
    lines = text.splitlines()
    i = 0
    notes = {}
    while i < len(lines):
        comment = re.match(r"^<!-- (not run|exit|file|part)(?:: (.*))? -->$", lines[i])
        fence = re.match(r"^```(\w*)$", lines[i])
        if comment:
            notes[comment[1]] = comment[2] or ""
        elif fence:
            start = i + 1
            while lines[i + 1] != "```":
                i += 1
            yield start, fence[1], notes, "\n".join(lines[start:i + 1]) + "\n"
            i += 1
            notes = {}
        elif lines[i].strip():
            notes = {}
        i += 1


def slug(heading):
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def headings(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    return {slug(h) for h in re.findall(r"^#+ (.*)$", text, re.M)}


def check_words(page, text):
    """Links and what stands between backquotes."""
    prose = re.sub(r"^```.*?^```$", lambda m: "\n" * m[0].count("\n"), text, flags=re.M | re.S)
    for number, line in enumerate(prose.splitlines(), 1):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if re.match(r"^(https?:|mailto:)", target):
                continue
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            if not path.exists():
                say(page, number, f"link to {target}: no such file")
            elif anchor and anchor not in headings(path):
                say(page, number, f"link to {target}: no such heading")
        for span in re.findall(r"`([^`]+)`", line):
            trouble = None
            if re.match(r"^(build/|build-\w+/)?marble [a-z]|^ctest |^deploy/[a-z-]+( |$)|^tests/[\w/.-]+( |$)|^cmake --preset|^mpirun ", span):
                trouble = next((t for t in map(look_up, split_commands(span)) if t), None)
            elif re.match(r"^[a-z_]+(\.[a-z_0-9]+)+$", span) and span.split(".")[0] in SECTIONS:
                if page.name == "run-folder.md" and line.startswith("|"):
                    continue  # keys of its files; check_guide looks at them
                if span not in KEYS and not any(k.startswith(span + ".") for k in KEYS) and span.rsplit(".", 1)[1] not in (
                        "jsonl", "txt", "json", "png", "tar", "c", "h", "safetensors", "yaml", "old", "dtype"):
                    trouble = f"{span}: no such key"
            if trouble:
                say(page, number, trouble)


# ---- running pages ----
def scratch_folder(parent, fixture):
    """A folder that looks like the repository, with a run of the quickstart in it."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=parent))
    for name in ("deploy", "tests", "gpu", "src", "proto", "README.md", "CMakeLists.txt", "CMakePresets.json"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    for name, text in (("marble", WRAPPER), ("mpirun", MPIRUN)):
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (folder / "build").mkdir()
    (folder / "build/marble").symlink_to(folder / "bin/marble")
    if fixture:
        shutil.copytree(fixture / "runs", folder / "runs", symlinks=True)
    return folder


def run_in(folder, body, limit=150):
    """Exit code and output of a piece of shell."""
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder), "TMPDIR": str(folder)}
    process = subprocess.Popen(["sh", "-e", "-c", body], cwd=folder, env=environment, text=True, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        text = process.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, text


def check_yaml(page, line, body, folder):
    path = folder / f"block-{line}.yaml"
    path.write_text(body if re.search(r"^model:", body, re.M) else body + "\nmodel: {path: deploy/examples/signs-base}\n")
    if not re.search(r"^rewards:", body, re.M):
        path.write_text(path.read_text() + "rewards: [{name: ocr}, {name: count}, {name: color}, {name: clean}, {name: jpeg}]\n")
    total = sum(map(int, re.findall(r"\bsteps: (\d+), rewards", body)))
    code, text = run_in(folder, f"{shlex.quote(str(MARBLE))} plan {path.name} --gpu h100" + (f" --set train.steps={total}" if total else ""))
    if code != 0:
        say(page, line, f"marble does not take this configuration: {text.strip()[-300:]}")


def check_page(page, parent, fixture):
    text = page.read_text()
    check_words(page, text)
    folder = None
    for line, language, notes, body in blocks_of(text):
        if language not in ("sh", "yaml", "python", "") and "file" not in notes:
            continue
        folder = folder or scratch_folder(parent, fixture)
        if language == "python":
            try:
                compile(body, f"{page.name}:{line}", "exec")
            except SyntaxError as error:
                say(page, line, f"no Python: {error}")
        if "file" in notes:
            path = folder / notes["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body)
        if language == "yaml" and "part" not in notes:
            check_yaml(page, line, body, folder)
        if language != "sh":
            continue
        for words in split_commands(body):
            trouble = look_up(words)
            if trouble:
                say(page, line, trouble)
        if "not run" in notes:
            if len(notes["not run"]) < 10:
                say(page, line, "a block that is not run has to say why")
            continue
        try:
            code, text = run_in(folder, body)
        except subprocess.TimeoutExpired:
            say(page, line, "takes minutes here; mark it with <!-- not run: WHY -->")
            continue
        if code != int(notes.get("exit", 0)):
            say(page, line, f"exit code {code}:\n{body.rstrip()}\n{text[-1500:]}")


def main():
    pages = [ROOT / name for name in sys.argv[2:]] or sorted(
        [ROOT / "README.md", ROOT / "gpu/README.md", ROOT / "tests/README.md", *(ROOT / "deploy").rglob("*.md"), *(ROOT / "src").rglob("*.md"),
         *(ROOT / "proto").glob("*.md")])
    with tempfile.TemporaryDirectory() as parent:
        fixture = scratch_folder(parent, None)
        code, text = run_in(fixture, "marble train deploy/examples/quickstart.yaml --out runs/quickstart")
        if code != 0:
            print(text)
            return 1
        saved = fixture / "runs/quickstart/checkpoints"
        shutil.copy(saved / "step-000001.h5", saved / "step-000040.h5")  # pages name a checkpoint of the real quickstart
        for page in pages:
            if page.exists():
                check_page(page, parent, fixture)
    readme = (ROOT / "README.md").read_text().count("\n")
    if readme > 180:
        wrong.append(f"README.md: {readme} lines; expected at most 180: what is not for the first reading goes into deploy/guide")
    print("\n".join(wrong))
    print(f"{len(pages)} pages, {len(wrong)} faults")
    return len(wrong) > 0


sys.exit(main())
