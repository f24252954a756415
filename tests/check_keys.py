#!/usr/bin/env python3
"""Every key of run.yaml does something: outside of src/config some code reads it, as config->KEY or, where a section is
handed on as a whole, by its last name. $1 is the marble program."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
HANDED_ON = {"alarms": "rl/alarms.c", "constraint": "rl/constraint.c"}  # structs of src/rl, read there
comment = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
sources = {path: comment.sub("", path.read_text()) for folder in ("src", "comm", "gpu")
           for path in sorted((ROOT / folder).rglob("*.[ch]")) if "src/config/" not in str(path)}
text = "\n".join(sources.values())
help_text = subprocess.run([sys.argv[1], "train", "--help-config"], capture_output=True, text=True, check=True).stdout
keys = re.findall(r"^  ([a-z0-9_.]+)(?: {2,}|$)", help_text, re.M)
unread = []
for key in keys:
    section, _, name = key.rpartition(".")
    found = re.search(rf"\bconfig(->|\.){re.escape(key)}\b", text)
    if section in HANDED_ON:
        handed = re.search(rf"&\s*\w*config(->|\.){section}\b", text)
        found = found or handed and re.search(rf"(->|\.){name}\b", sources[ROOT / "src" / HANDED_ON[section]])
    if not found:
        unread.append(key)
print(f"{len(keys)} keys")
if len(keys) < 80:
    sys.exit("too few keys in --help-config: its form has changed")
if unread:
    sys.exit(f"read nowhere outside src/config: {', '.join(unread)}")
