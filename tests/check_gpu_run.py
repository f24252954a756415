#!/usr/bin/env python3
"""tests/gpu/run on machines without a GPU: on this build it checks nothing and says so; on a stub of a build with one it passes
where all is well, and fails where a suite does, where graphs change a loss, and where one is not made."""
import os
import pathlib
import subprocess
import sys
import tempfile

marble = pathlib.Path(sys.argv[1]).resolve()
script = pathlib.Path(__file__).resolve().parent / "gpu" / "run"
STUB = """#!/usr/bin/env python3
import json, os, sys
words = sys.argv[1:]
settings = dict(words[i + 1].split("=") for i, w in enumerate(words) if w == "--set")
case = os.environ["STUB_CASE"]
if words[0] == "doctor":
    print("ok  threads    1\\nok  cuda       a stub, 80 GiB\\nok  nccl       no")
elif words[0] == "train":
    out = words[words.index("--out") + 1]
    os.makedirs(out)
    loss = 0.25 + 1e-9 * (case == "differs" and settings["cuda.graphs"] == "off")
    with open(out + "/metrics.jsonl", "w") as file:
        for step in range(2):
            print(json.dumps({"step": step, "loss": loss, "grad_norm": 1.5, "alpha": [1], "seconds": {"total": 0.5}}), file=file)
    if settings["cuda.graphs"] == "on":
        print("device cuda: %d of 9 recorded parts ran as graphs" % (0 if case == "no graphs" else 7))
elif words[1] == "pass":
    if case == "bench ends":
        sys.exit("marble: error: an illegal memory access")
    for name, ms in (("velocity", 20), ("micro_batch", 200)):
        print(json.dumps({"bench": "pass", "case": name, "ms": [ms] * 3, "ms_asking": 1, "launches": 400, "limit": "H100", "percent_of_limit": 52}))
        print(json.dumps({"bench": "pass", "case": name + ": matmul", "ms": [ms] * 3, "percent": 70}))
else:
    sys.exit("not in the stub")
"""


def run(build, *arguments, case="fine"):
    done = subprocess.run([script, "--build", build, *arguments], text=True, capture_output=True,
                          env=os.environ | {"STUB_CASE": case, "PATH": f"{build}:{os.environ['PATH']}"})
    return done.returncode, done.stdout + done.stderr


def expect(result, code, *texts):
    assert result[0] == code, result
    for text in texts:
        assert text in result[1], (text, result[1])


with tempfile.TemporaryDirectory() as folder:
    if "ok  cuda" not in subprocess.run([marble, "doctor"], text=True, capture_output=True).stdout:
        expect(run(marble.parent, "--out", f"{folder}/none"), 77, "| suites | skipped: no GPU", "| graphs | skipped: no GPU", "nothing was checked")
    expect(run(marble.parent, "--only", "suits"), 2, "no part is called suits; expected some of machine, suites")
    expect(run(f"{folder}/nothing"), 2, "nothing/marble is not there; build it first")

    build = pathlib.Path(folder) / "build"
    build.mkdir()
    (build / "marble").write_text(STUB)
    (build / "marble").chmod(0o755)

    def suites(**commands):
        (build / "CTestTestfile.cmake").write_text("".join(
            f'add_test({name} {command})\nset_tests_properties({name} PROPERTIES LABELS gpu SKIP_RETURN_CODE 77)\n'
            for name, command in commands.items()))

    suites(test_a_cuda="true", test_b_cuda="true")
    only = ("--tiny", "--only")
    parts = "machine,graphs,bench"
    expect(run(build, *only, parts), 0, "a stub, 80 GiB", "7 of 9 parts as graphs, fastest step 0.500 s", "2 steps equal to the bit",
           "| bench | velocity, graphs on | 20.00 ms, 1.00 ms asking, 400 launches, 52 % of the H100's limit |", "matmul 70 %", "no part failed\n")
    expect(run(build, "--only", "suites"), 0, "2 passed, 0 failed, 0 skipped")
    expect(run(build, "--only", "machine,torch"), 0, "skipped: torch") if subprocess.run(
        [sys.executable, "-c", "import torch"], capture_output=True).returncode else None
    expect(run(build, *only, parts, case="differs"), 1, "graphs | FAILED: losses, gradients or rewards differ", "| bench | passed")
    expect(run(build, *only, "graphs", case="no graphs"), 1, "no part ran as a graph")
    expect(run(build, *only, parts, case="bench ends"), 1, "bench | FAILED: exit 1, marble: error: an illegal memory access", "| graphs | passed")
    suites(test_a_cuda="true", test_b_cuda="false")
    expect(run(build, "--only", "suites"), 1, "FAILED: test_b_cuda", "1 passed, 1 failed")
    suites(test_a_cuda="true", test_b_cuda="sh -c \"exit 77\"")
    expect(run(build, "--only", "suites"), 1, "1 suites skipped")
