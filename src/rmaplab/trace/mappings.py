# SPDX-License-Identifier: GPL-2.0-only
"""PERF_RECORD_MMAP2: what was mapped, and which `struct file` is behind it."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Final, NamedTuple

from rmaplab.trace.schema import MAP_ANONYMOUS_PART, MAP_FILE, MAP_IS_SHARED, MAP_SPECIAL, MAP_STACK

__all__ = ["FileTable", "Mapping", "parse_mapping"]

_RECORD: Final = re.compile(
    r"-?\d+/-?\d+: \[(?:0x)?([0-9a-f]+)\((?:0x)?([0-9a-f]+)\) @ (?:0x)?([0-9a-f]+) ([^\]]*)\]: (\S{4}) ?(.*)$",
    re.DOTALL,
)

_PROT_READ: Final = 1
_PROT_WRITE: Final = 2
_PROT_EXEC: Final = 4


class Mapping(NamedTuple):
    """One MMAP2 record."""

    addr: int
    """Start of the VMA, after merging."""
    len: int
    """Bytes."""
    offset: int
    """Bytes into the file; the address itself for private anonymous memory."""
    identity: str
    """Device, inode and inode generation (or the build id), as perf prints them."""
    prot: int
    """PROT_READ, PROT_WRITE, PROT_EXEC."""
    shared: bool
    name: str

    @property
    def kind(self) -> int:
        """MAP_FILE, MAP_STACK, MAP_SPECIAL or MAP_ANONYMOUS_PART, plus MAP_IS_SHARED."""
        shared = MAP_IS_SHARED if self.shared else 0
        if self.identity.startswith("00:00 0"):
            if self.name.startswith("[stack"):
                return MAP_STACK | shared
            if self.name.startswith("[") and not self.name.startswith(("[heap", "[anon")):
                return MAP_SPECIAL | shared
            return MAP_ANONYMOUS_PART | shared
        return MAP_FILE | shared


def parse_mapping(text: str) -> Mapping | None:
    """Read the text of an MMAP2 record, or None if it is not one.

    >>> parse_mapping("7/7: [0x5000(0x2000) @ 0x1000 fe:00 42 9]: r-xp /usr/bin/ls").prot
    5
    """
    match = _RECORD.match(text)
    if match is None:
        return None
    addr, length, offset, identity, mode, name = match.groups()
    prot = (mode[0] == "r") * _PROT_READ | (mode[1] == "w") * _PROT_WRITE | (mode[2] == "x") * _PROT_EXEC
    return Mapping(int(addr, 16), int(length, 16), int(offset, 16), identity, prot, mode[3] == "s", name)


class FileTable:
    """Numbers the files that rows refer to, in order of first use.

    Two VMAs merge only over one `struct file`. perf shows inodes; the caller adds to `key` what tells
    two opens of one inode apart as far as it can be seen: the descriptor of the mmap call, or the exec.
    """

    def __init__(self, full_paths: bool = False) -> None:
        self.names: list[str] = []
        self._full_paths = full_paths
        self._numbers: dict[Hashable, int] = {}

    def number(self, key: Hashable, name: str) -> int:
        """Index into `names` of the file that `key` identifies."""
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.names)
            self.names.append(self._shown(name))
        return number

    def _shown(self, name: str) -> str:
        # perf's text was read as latin-1, so that no name can break the import
        name = name.encode("latin-1", "replace").decode("utf-8", "replace")
        # private mappings of /dev/zero are anonymous memory: the reader must recognise it
        if self._full_paths or name == "/dev/zero":
            return name
        return name.rpartition("/")[2] or name
