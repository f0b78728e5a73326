# SPDX-License-Identifier: GPL-2.0-only
"""System calls as rows: which arguments go where, and which calls matter when they fail."""

from __future__ import annotations

import re
from typing import Final

from rmaplab.trace.rows import Row, signed

__all__ = ["EXECS", "FORKS", "MAPPERS", "PARTIAL", "ROW_OPS", "fill", "parse_arguments"]

EXECS: Final = frozenset({"execve", "execveat"})
FORKS: Final = frozenset({"clone", "clone3", "fork", "vfork"})

MAPPERS: Final = frozenset({"mmap", "brk", "mprotect", "pkey_mprotect", "mremap", "shmat", "remap_file_pages", *EXECS})
"""Calls that write MMAP2 records of their own; elsewhere such a record is a stack that grows."""

ROW_OPS: Final = {
    "mmap": "mmap",
    "munmap": "munmap",
    "mprotect": "mprotect",
    "pkey_mprotect": "mprotect",
    "mremap": "mremap",
    "brk": "brk",
    "madvise": "madvise",
    "mlock": "mlock",
    "mlock2": "mlock",
    "munlock": "munlock",
    "mlockall": "mlockall",
    "munlockall": "munlockall",
    "shmat": "shmat",
    "shmdt": "shmdt",
}
"""Call -> operation. execve and the fork family have rows of their own making."""

PARTIAL: Final = frozenset({"mprotect", "mremap", "madvise", "mlock", "munlock", "mlockall", "munlockall"})
"""Operations that change what came before the error: kept when they fail. Others only with slab events."""

_VALUE: Final = re.compile(r"\w+: (?:0x)?([0-9a-f]+)")


def parse_arguments(text: str) -> list[int]:
    """The numbers of `addr: 0x1000, len: 0x00002000, ...`.

    :raises ValueError: there is something that is no number
    """
    if not text.strip():
        return []
    try:
        return [int(part.rpartition(" ")[2], 16) for part in text.split(", ")]
    except ValueError:
        # newer kernels show strings after the pointer; these calls have none, but be safe
        return [int(value, 16) for value in _VALUE.findall(text)]


def fill(row: Row, name: str, text: str, ret: int, page_shift: int) -> None:
    """Put the arguments of the system call `name` into its row. mmap's file is not touched.

    :raises ValueError: arguments are missing or no numbers
    """
    args = parse_arguments(text)
    row.ret = ret
    try:
        if name == "mmap":
            row.addr = ret if ret >= 0 else args[0]
            row.len, row.prot, row.flags = args[1:4]
            row.pgoff = signed(args[5]) >> page_shift
        elif name in ("munmap", "munlock"):
            row.addr, row.len = args[:2]
        elif name in ("mprotect", "pkey_mprotect"):
            row.addr, row.len, row.prot = args[:3]
        elif name == "mremap":
            row.addr, row.len, row.len2, row.flags, row.addr2 = args[:5]
        elif name == "brk":
            row.addr = args[0]
        elif name in ("madvise", "mlock2"):
            row.addr, row.len, row.flags = args[:3]
        elif name == "mlock":
            row.addr, row.len = args[:2]
        elif name == "mlockall":
            row.flags = args[0]
        elif name == "shmat":
            row.addr = ret
            row.flags = args[2]
        elif name == "shmdt":
            row.addr = args[0]
    except IndexError as error:
        raise ValueError(f"{name} with {len(args)} arguments") from error
