#!/usr/bin/env python3
"""Comments and pages name files that exist, and no comment is a list run together; and lint_comments sees it when that is not so."""
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CASES = [  # file, its text, what lint_comments says (None: nothing)
    ("a.c", "/* See b.c. */\n", None),
    ("a.c", "/* See src/b.c and c.h. */\n", "a.c:1: names c.h,"),
    ("a.c", "/* See other/b.c. */\n", "a.c:1: names other/b.c,"),
    ("a.c", 'const char *text = "in a string: c.h";\n', None),
    ("a.c", "/* Each method is a method_NAME.c. */\n", None),
    ("a.c", "int a;\n/* One line,\n * and gone.md. */\n", "a.c:3: names gone.md,"),
    ("a.md", "The formulas are in `gone.md`.\n", "a.md:1: names gone.md,"),
    ("a.md", "The sources are in `src/b.c`, the page is a.md.\n", None),
    ("a.py", "x = 1  # as gone.py does\n", "a.py:1: names gone.py,"),
    ("run", "#!/bin/sh\n# as gone.sh does\n", "run:2: names gone.sh,"),
    ("a.c", "/* first   the one thing, second  the\n * other thing. */\n", "a.c:1: a run of spaces"),
    ("a.c", "/* Two kinds:\n *   first   the one thing\n *   second  the other thing */\n", None),
    ("a.c", "/* Shown as \"two  words\" in the sheet. */\n", None),
    ("a.c", "int a; /* one */  int b; /* two */\n", None),
]


def lint(root):
    return subprocess.run([HERE / "lint_comments", root], text=True, capture_output=True)


if subprocess.run(["git", "-C", HERE.parent, "rev-parse"], capture_output=True).returncode:
    print("skipped: this folder is no checkout of git's")
    sys.exit(77)
failed = 0
for name, text, wanted in CASES:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "init", "-q", folder], check=True)
        Path(folder, "src").mkdir()
        Path(folder, "src/b.c").write_text("int b;\n")
        Path(folder, name).write_text(text)
        said = lint(folder)
        if said.returncode != (wanted is not None) or (wanted or "") not in said.stdout or said.stderr:
            print(f"{name} with {text!r}: exit {said.returncode}, {said.stdout!r} {said.stderr!r}; expected {wanted!r}")
            failed = 1
here = lint(HERE.parent)
print(here.stdout + here.stderr, end="")
sys.exit(failed or here.returncode)
