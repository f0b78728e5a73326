# SPDX-License-Identifier: GPL-2.0-only
"""Worlds: a few processes and pages, and two or three CPUs that each do a few things at once.

A file of worlds is TOML: a table for each world::

    [reclaim-fork]
    about = "reclaim walks while its page becomes shared"
    tied = ["Q1", "hook 6"]
    setup = ["A: mmap p0 1", "A: write p0"]
    cpu0 = ["reclaim A p0"]
    cpu1 = ["A: fork B"]

Operations are those of :mod:`rmaplab.check.ops`.
"""

import tomllib
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from rmaplab.check.ops import Operation, parse_operation
from rmaplab.errors import UserError

__all__ = ["World", "library", "load_worlds", "parse_world"]

_KEYS = {"about", "tied", "setup", "cpu0", "cpu1", "cpu2", "fail", "tryfail", "reuse", "thp"}


@dataclass(frozen=True, slots=True)
class World:
    """A world.

    setup: done one after another before the CPUs start; cpus: what each does
    fail: allocations that may fail on each CPU; tryfail: trylocks that may fail there without need
    reuse: freed anon_vmas are handed out again at once
    thp: as Kernel's
    """

    name: str
    about: str
    tied: tuple[str, ...]
    setup: tuple[Operation, ...]
    cpus: tuple[tuple[Operation, ...], ...]
    fail: int = 0
    tryfail: int = 0
    reuse: bool = False
    thp: str = "never"

    def operations(self) -> int:
        """How many there are, setup included."""
        return len(self.setup) + sum(map(len, self.cpus))

    def without(self, where: int, index: int) -> "World":
        """The world without one operation: of the setup (`where` -1), or of a CPU."""
        if where < 0:
            return replace(self, setup=self.setup[:index] + self.setup[index + 1 :])
        cpus = list(self.cpus)
        cpus[where] = cpus[where][:index] + cpus[where][index + 1 :]
        return replace(self, cpus=tuple(cpus))


def parse_world(name: str, table: Any) -> World:
    """A world from its TOML table. Raises UserError."""
    if not isinstance(table, dict):
        raise UserError(f"world {name!r}: not a table")
    for key in table:
        if key not in _KEYS:
            raise UserError(f"world {name!r}: unknown key {key!r}; known are {', '.join(sorted(_KEYS))}")
    cpus = [key for key in ("cpu0", "cpu1", "cpu2") if key in table]
    if cpus[:2] != ["cpu0", "cpu1"]:
        raise UserError(f"world {name!r} needs cpu0 and cpu1")
    lines = {key: _lines(name, key, table.get(key, [])) for key in ("setup", *cpus)}
    if not any(lines[cpu] for cpu in cpus):
        raise UserError(f"world {name!r}: no CPU does anything")
    numbers = {key: table.get(key, 0) for key in ("fail", "tryfail")}
    for key, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 9:
            raise UserError(f"world {name!r}: {key} must be a number from 0 to 9, not {value!r}")
    thp = table.get("thp", "never")
    if thp not in ("never", "madvise", "always"):
        raise UserError(f"world {name!r}: thp must be never, madvise or always, not {thp!r}")
    return World(
        name,
        str(table.get("about", "")),
        tuple(_lines(name, "tied", table.get("tied", []))),
        _operations(name, "setup", lines["setup"]),
        tuple(_operations(name, cpu, lines[cpu]) for cpu in cpus),
        numbers["fail"],
        numbers["tryfail"],
        bool(table.get("reuse", False)),
        thp,
    )


def _lines(name: str, key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise UserError(f"world {name!r}: {key} must be a list of strings")
    return value


def _operations(name: str, key: str, lines: list[str]) -> tuple[Operation, ...]:
    try:
        return tuple(parse_operation(line) for line in lines)
    except UserError as error:
        raise UserError(f"world {name!r}, {key}: {error}") from error


def load_worlds(text: str, source: str) -> dict[str, World]:
    """The worlds of a TOML text; `source` names it in errors. Raises UserError."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{source} is no TOML: {error}") from error
    if not tables:
        raise UserError(f"{source} has no worlds")
    return {name: parse_world(name, table) for name, table in tables.items()}


def load_file(path: Path) -> dict[str, World]:
    """The worlds of a file. Raises UserError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return load_worlds(text, str(path))


def library() -> dict[str, World]:
    """The worlds that come with rmaplab, by name."""
    text = files("rmaplab.check").joinpath("worlds.toml").read_text(encoding="utf-8")
    return load_worlds(text, "worlds.toml")
