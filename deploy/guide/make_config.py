#!/usr/bin/env python3
"""Writes config.md beside this file from what `marble train --help-config` prints: make_config.py [MARBLE]. With --print it goes to
standard output instead."""
import pathlib
import re
import subprocess
import sys

HEAD = """# Every key of run.yaml

Made by `deploy/guide/make_config.py` from `marble train --help-config`; do not edit it by hand.

Every key has a default, so a file holds what differs. `--set KEY=VALUE` overrides the file and may be repeated: `--set train.lr=1e-4`,
`--set 'model.lora.targets=[attn.to_q, attn.to_k]'`, `--set rewards.0.weight=2`. Paths are looked up from the current folder, then
from the folder of the file. An unknown key, a value out of its range or a combination that makes no sense is refused before anything
starts, with the line of the file. The `run.yaml` in a run's folder has every key with its value.

Where defaults and examples differ: constants of the method (`train.lr`, `train.beta`, `train.kl`, `train.clip`, `train.timestep_fraction`, AdamW's) default to
what the MARBLE and DiffusionNFT papers use for Stable Diffusion 3.5. Sizes (`prompts.groups`, `prompts.group_size`, `rollout.steps`, `train.steps`,
`model.lora.rank`) default to what a workstation can do; the paper has 48 prompts of 24 images, 25 sampling steps, rank 32 and alpha 64.
`deploy/examples/quickstart.yaml` takes larger steps and fewer timesteps (`train.lr` 5e-4, `train.beta` 1, `train.timestep_fraction` 0.25), with
which a model of 2.4 million weights improves within 80 steps on two cores, and a stronger KL term (0.01) that keeps it near its base.
"""


def cell(text):
    return text.replace("|", "\\|").strip()


def tables(text):
    """The sections of the help as Markdown, each key with the others of its section."""
    sections, title, key, lists = {}, {"": "The run"}, None, ""
    for line in text.splitlines():
        other = re.match(r"^(an? [^:]*|[a-z]+ \(.*\)).*:$", line)  # at the end: what stands within a key, in two columns
        if other:
            lists += f"\n## {other[1][0].upper()}{other[1][1:].partition(',')[0]}\n\n| | |\n|---|---|\n"
        if lists:
            row = re.match(r"^(    )?  (\w+) +(.*)$", line)  # further in: the keys of one scorer
            lists += f"| {'&nbsp; ' if row[1] else ''}`{row[2]}` | {cell(row[3])} |\n" if row else ""
            continue
        head = re.match(r"^([a-z_.]+): (.*)$", line)
        named = re.match(r"^  ([a-z0-9_.]+)(?: {2,}(.*))?$", line)
        if head:
            title[head[1]] = f"`{head[1]}`: {head[2]}"
        elif named:
            section = named[1].rpartition(".")[0]
            while section and section not in title:
                section = section.rpartition(".")[0]
            key = [named[1], cell(named[2] or ""), "", ""]
            sections.setdefault(section, []).append(key)
        elif key and line.startswith("      "):
            default = re.search(r" ?\[default: (.*)\]$", line)
            if default:
                key[2] = f"`{cell(default[1])}`"
                line = line[:default.start()]
            word = re.match(r"^      ([a-z_]+) +(.*)$", line)  # what one of several choices means
            if key[3] and word and word[1] in key[1].split(" \\| "):
                line = f"<br>{word[1]}: {word[2]}"
            key[3] += cell(line)
    return "".join(f"\n## {title[section]}\n\n| key | value | default | meaning |\n|---|---|---|---|\n"
                   + "".join("| `{}` | {} | {} | {} |\n".format(*row) for row in rows) for section, rows in sections.items()) + lists


def main():
    words = [word for word in sys.argv[1:] if word != "--print"]
    marble = words[0] if words else "build/marble"

    def help_of(*section):
        return subprocess.run([marble, "train", "--help-config", *section], capture_output=True, text=True, check=True).stdout

    page = HEAD + tables(help_of() + help_of("rewards").partition("\n\n")[2])  # first there: the key again, shown in the table above
    if "--print" in sys.argv:
        print(page, end="")
    else:
        pathlib.Path(__file__).with_name("config.md").write_text(page)


main()
