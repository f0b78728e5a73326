# SPDX-License-Identifier: GPL-2.0-only
"""Writes docs/worlds.md (the library of worlds) and, with --counts, docs/check-counts.md (dpor against dfs)."""

import sys
from pathlib import Path
from typing import Any

from rmaplab.check.execution import Laboratory
from rmaplab.check.explore import dfs, dpor
from rmaplab.check.explore.result import Budget
from rmaplab.check.world import World, library
from rmaplab.designs.registry import make_design

DOCS = Path(__file__).parents[1] / "docs"
DESIGNS = ("anon_vma", "gki_locked", "anon_vma_lazy_locked")

WORLDS_HEAD = """\
# Worlds

The worlds that come with rmaplab (`src/rmaplab/check/worlds.toml`, where each is a few lines), written by
`python tools/check_docs.py`. Tied to: the reviewers' questions Q1-Q17 and the seed mail's claims A-D, a hook, or the
commit that mended such a bug in Linux. A file of your own: `rmaplab check DESIGN --world FILE`.

| world | what happens | tied to |
|---|---|---|
"""

COUNTS_HEAD = """\
# dpor against dfs

On each tiny world: executions of `dpor`, which are exactly the Mazurkiewicz traces that `dfs` sees, and of `dfs`, which
tries every interleaving. Both reach the same final states and violations (tests/check/test_worlds.py). Written by
`python tools/check_docs.py --counts`.

| world | design | dpor | blocked | dfs |
|---|---|---|---|---|
"""


def worlds() -> str:
    """docs/worlds.md"""
    rows = [f"| `{name}` | {world.about} | {', '.join(world.tied)} |" for name, world in library().items()]
    return WORLDS_HEAD + "\n".join(rows) + "\n"


def counts_row(world: World, design: str) -> str:
    """A row of docs/check-counts.md"""
    kind: Any = type(make_design(design))
    with Laboratory(world, kind) as laboratory:
        reduced = dpor.explore(laboratory, Budget(), all_violations=True)
    with Laboratory(world, kind) as laboratory:
        everything = dfs.explore(laboratory, Budget(), all_violations=True)
    return f"| {world.name} | {design} | {reduced.executions} | {reduced.blocked} | {everything.executions} |"


def main() -> None:
    """Write."""
    (DOCS / "worlds.md").write_text(worlds(), encoding="utf-8")
    if "--counts" in sys.argv[1:]:
        rows = [
            counts_row(world, design)
            for name, world in library().items()
            if name.startswith("tiny-")
            for design in DESIGNS
        ]
        (DOCS / "check-counts.md").write_text(COUNTS_HEAD + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
