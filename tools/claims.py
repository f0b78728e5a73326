# SPDX-License-Identifier: GPL-2.0-only
"""Runs `rmaplab hooks` and puts what it prints into docs/claims.md, docs/hooks-at-once.md and README.md, where it is
pasted.

python tools/claims.py [--hooks FILE] [--sets FILE] [--example FILE] [--at-once FILE]

A block of docs/claims.md that follows a line `<!-- output: NAME -->` is replaced. FILE: an output that exists already.
Takes about 40 minutes on two CPUs. Afterwards read what is said around the blocks: it may no longer be so.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLAIMS, AT_ONCE, README = ROOT / "docs" / "claims.md", ROOT / "docs" / "hooks-at-once.md", ROOT / "README.md"
COMMANDS = {
    "hooks": "rmaplab hooks --faults",
    "sets": "rmaplab hooks --design gki --design gki_mm --histories 150 --sets --no-claims",
    "example": "rmaplab hooks --design gki --hook 10 --no-claims",
    "at_once": "rmaplab hooks --concurrent --executions 100",
}


def output(command: str, file: Path | None) -> str:
    """What `command` prints, or printed into `file`."""
    if file is not None:
        return file.read_text().rstrip()
    print(command, file=sys.stderr)
    arguments = [sys.executable, "-m", *command.split()]
    return subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout.rstrip()


def tables(text: str) -> dict[str, str]:
    """Name of each design, or first word of another table -> that part of an output of `rmaplab hooks`."""
    heads = list(
        re.finditer(r"^(\w+)(?:: all hooks in place| faults: |: calls of|: what breaks| of the mail| A: )", text, re.M)
    )
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return {head[1]: text[head.start() : end].rstrip() for head, end in zip(heads, ends, strict=True)}


def hook(table: str, number: int) -> str:
    """One hook of the table of a design."""
    found = re.search(rf"^hook +{number} .*?(?=^hook |\Z)", table, re.M | re.S)
    assert found is not None, f"hook {number}"
    return found[0].rstrip()


def blocks(hooks: str, sets: str, at_once: str) -> dict[str, str]:
    """The blocks of docs/claims.md by name."""
    parts, at_once_parts = tables(hooks), tables(at_once)
    smallest = re.findall(r"^smallest set of hooks.*?(?=^\S|\Z)", sets, re.M | re.S)
    return {
        "summary": parts["hooks"],
        "claims": parts["claims"],
        "gki": parts["gki"],
        "cow_context": "\n\n".join(hook(parts["cow_context"], number) for number in (6, 9, 10)),
        "faults": parts["seeded"],
        "sets": "\n\n".join(part.rstrip() for part in smallest),
        "at once": f"{at_once_parts['hooks']}\n\n{at_once_parts['repairs']}",
        "claims at once": at_once_parts["claim"],
    }


def fill(document: str, texts: dict[str, str]) -> str:
    """`document` with its marked blocks replaced."""
    for name, text in texts.items():
        pattern = rf"(<!-- output: {name} -->\n```\n).*?(^```$)"
        document, count = re.subn(
            pattern, lambda found, t=text: f"{found[1]}{t}\n{found[2]}", document, flags=re.M | re.S
        )
        assert count == 1, f"{count} blocks are named {name}"
    return document


def fill_example(document: str, text: str) -> str:
    """README.md with the example's output behind its command, indented as the rest."""
    indented = "".join(f"    {line}" if line.strip() else line for line in text.splitlines(keepends=True))
    pattern = rf"(^    \$ {re.escape(COMMANDS['example'])}\n).*?(\n\n    \$ )"
    document, count = re.subn(pattern, lambda found: f"{found[1]}{indented}{found[2]}", document, flags=re.M | re.S)
    assert count == 1, "README.md does not show the example"
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, command in COMMANDS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="FILE", help=f"output of `{command}`")
    asked = vars(parser.parse_args())
    texts = {name: output(command, asked[name]) for name, command in COMMANDS.items()}
    CLAIMS.write_text(fill(CLAIMS.read_text(), blocks(texts["hooks"], texts["sets"], texts["at_once"])))
    AT_ONCE.write_text(fill(AT_ONCE.read_text(), {"all": texts["at_once"]}))
    README.write_text(fill_example(README.read_text(), texts["example"]))


if __name__ == "__main__":
    main()
