# SPDX-License-Identifier: GPL-2.0-only
"""Runs each command of docs/answers.md again and replaces the output that is pasted below it.

python tools/answers.py [--check] [Q4 Q10 ...]

--check: change nothing, say what differs, exit 1 if anything does. Without names: all sections; about 10 minutes on
two CPUs. Left out of the output is the column `/s` of `rmaplab check`, which differs from run to run. Budgets are
executions, not seconds, for the same reason. Afterwards read what is said around the blocks: it may no longer be so.
"""

import argparse
import difflib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ANSWERS = ROOT / "docs" / "answers.md"
RATE = 7
"""Width of the column `/s`."""
BLOCK = re.compile(r"^```\n\$ (?P<command>(?:[^\n]*\\\n)*[^\n]*)\n(?P<output>.*?)^```$", re.M | re.S)


def sections(document: str) -> dict[str, str]:
    """Name ("Q1", or "" for what stands before) -> text of each section."""
    parts = re.split(r"^(?=## )", document, flags=re.M)
    return {found[1] if (found := re.match(r"## (Q[0-9]+)\b", part)) else "": part for part in parts}


def commands(text: str) -> list[tuple[list[str], str]]:
    """Each command of `text`, as its words, and the output below it."""
    return [(words(block["command"]), block["output"]) for block in BLOCK.finditer(text)]


def words(command: str) -> list[str]:
    """A command, which may stand in several lines."""
    return shlex.split(command.replace("\\\n", " "))


def steady(output: str) -> str:
    """`output` without the column of executions per second."""
    lines, cut = [], False
    for line in output.splitlines():
        if line.endswith(" blocked     /s"):
            cut = True
        elif not line:
            cut = False
        lines.append(line[: max(0, 75 - RATE)].rstrip() if cut else line)
    return "\n".join(lines).rstrip() + "\n"


def run(command: list[str]) -> str:
    """What a command prints. A counterexample is no failure."""
    assert command[0] == "rmaplab", command
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{shlex.join(command)}: {done.stderr.strip()}")
    return steady(done.stdout)


def renewed(text: str, output: Callable[[list[str]], str]) -> str:
    """`text` with what `output` gives below each command."""

    def block(found: re.Match[str]) -> str:
        return f"```\n$ {found['command']}\n{output(words(found['command']))}```"

    return BLOCK.sub(block, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, say what differs")
    parser.add_argument("names", nargs="*", metavar="Q", help="sections (default: all)")
    asked = parser.parse_args()
    differs = False
    known = sections(ANSWERS.read_text())
    for name in asked.names or [name for name in known if name]:
        if name not in known:
            sys.exit(f"docs/answers.md has no section {name}")
        print(name, file=sys.stderr)
        text = renewed(known[name], run)
        if text == known[name]:
            continue
        differs = True
        if asked.check:
            old, new = known[name].splitlines(), text.splitlines()
            print("\n".join(difflib.unified_diff(old, new, name, "now", lineterm="")))
        else:
            ANSWERS.write_text(ANSWERS.read_text().replace(known[name], text))
    sys.exit(asked.check and differs)


if __name__ == "__main__":
    main()
