# SPDX-License-Identifier: GPL-2.0-only
"""The trace in memory: its columns, its metadata, its constants. docs/trace-format.md explains each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

__all__ = [
    "ALLOC",
    "ANON_VMA",
    "ANON_VMA_CHAIN",
    "CACHES",
    "COLUMNS",
    "EXEC_FIRST",
    "EXEC_NO_ARGS",
    "FAULT_KERNEL",
    "FAULT_WRITE",
    "INFERRED",
    "MAP_ANONYMOUS_PART",
    "MAP_FILE",
    "MAP_IS_SHARED",
    "MAP_SPECIAL",
    "MAP_STACK",
    "OPS",
    "VERSION",
    "VM_AREA_STRUCT",
    "Meta",
    "Trace",
    "pack_truth",
    "unpack_truth",
]

VERSION: Final = 1
"""Version of the schema that this program writes, and the newest that it reads."""

CACHES: Final = ("vm_area_struct", "anon_vma", "anon_vma_chain")
"""Slab caches in the order of their numbers in `truth`."""
VM_AREA_STRUCT: Final = 0
ANON_VMA: Final = 1
ANON_VMA_CHAIN: Final = 2

ALLOC: Final = 1
"""Lowest bit of an element of `truth`: set for an allocation, clear for a free."""

OPS: Final = (
    "exec_prepare",
    "exec",
    "exec_fail",
    "exec_map",
    "fork",
    "clone_vm",
    "exit",
    "exit_mmap",
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "brk",
    "madvise",
    "mlock",
    "munlock",
    "mlockall",
    "munlockall",
    "shmat",
    "shmdt",
    "fault",
    "grow",
    "unknown",
)

COLUMNS: Final = (
    "time",
    "tid",
    "pid",
    "call",
    "op",
    "addr",
    "len",
    "addr2",
    "len2",
    "prot",
    "flags",
    "pgoff",
    "file",
    "peer",
    "ret",
    "quiescent",
    "truth",
)

EXEC_NO_ARGS: Final = 1
"""`flags` of `exec_prepare`: the argument pages were not copied."""
EXEC_FIRST: Final = 1
"""`flags` of `exec`: the first exec of the recording, whose old mm is unknown."""
INFERRED: Final = 1
"""`flags` of `exit_mmap`: not seen, but the last user of the mm has left."""
FAULT_WRITE: Final = 2
"""Bit of a fault's error_code: it was a write."""
FAULT_KERNEL: Final = 256
"""`flags` of `fault`: taken in kernel mode."""
MAP_FILE: Final = 0
MAP_STACK: Final = 1
MAP_SPECIAL: Final = 2
MAP_ANONYMOUS_PART: Final = 3
MAP_IS_SHARED: Final = 256
"""`flags` of `exec_map`: one of the kinds above, plus this if the mapping is shared."""


def pack_truth(obj: int, cache: int, alloc: bool) -> int:
    """One slab event as the number that the `truth` column holds.

    >>> pack_truth(5, ANON_VMA, True)
    43
    """
    return obj << 3 | cache << 1 | alloc


def unpack_truth(word: int) -> tuple[int, int, bool]:
    """(object, cache, allocated) of an element of the `truth` column.

    >>> unpack_truth(43)
    (5, 1, True)
    """
    return word >> 3, word >> 1 & 3, bool(word & ALLOC)


@dataclass(slots=True)
class Meta:
    """What is known about a recording as a whole. Unknown text is "", an unknown number 0."""

    version: int = VERSION
    command: list[str] = field(default_factory=list)
    """The recorded command and its arguments."""
    kernel: str = ""
    """uname -r of the recording machine."""
    machine: str = ""
    """uname -m of the recording machine."""
    cpus: int = 0
    thp: str = ""
    """/sys/kernel/mm/transparent_hugepage/enabled of the recording machine: `always`, `madvise` or `never`."""
    page_size: int = 4096
    """Bytes."""
    mode: str = "unknown"
    """How perf was attached: `cgroup`, `task` or `unknown`."""
    truth: bool = False
    """The kernel's own slab events were recorded."""
    locks: bool = False
    """mmap_lock events were recorded, and rows are in the order of the locks."""
    teardown: str = "seen"
    """`exit_mmap` of exiting tasks was `seen`, or is `inferred`."""
    lost: int = 0
    """Records that perf says it lost."""
    duplicates: int = 0
    """Slab records that perf had written twice, dropped."""
    deferred: list[str] = field(default_factory=list)
    """Caches whose frees come from RCU callbacks, so that no operation owns them (kernels up to 6.14)."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Reason -> how many raw events were left out for it."""
    events: dict[str, int] = field(default_factory=dict)
    """Kind -> how many raw events of it were read."""
    duration_ns: int = 0
    """From the first row to the last event of a recorded task."""
    files: list[str] = field(default_factory=list)
    """Names of the mapped files, indexed by the `file` column."""
    processes: list[dict[str, Any]] = field(default_factory=list)
    """One {pid, comm, parent} for each process; `parent` 0 = not of the recording."""
    slabs: dict[str, dict[str, int]] = field(default_factory=dict)
    """Cache -> {object_size, slot_size} in bytes."""
    synthetic: bool = False
    """Made by a generator, not recorded."""
    source: str = ""
    """Base name of what it was imported from."""
    created: str = ""
    """UTC, ISO 8601."""
    interrupted: bool = False
    """The recording ended before the command did, or in the middle of a call."""


@dataclass(slots=True)
class Trace:
    """A recording: `columns[name][row]` for every name of COLUMNS, and its metadata.

    Rows are in commit order. `op` holds interned strings of OPS, `truth` a list of words or None,
    `quiescent` bools, every other column ints.
    """

    columns: dict[str, list[Any]]
    meta: Meta

    def __len__(self) -> int:
        return len(self.columns["time"])

    @classmethod
    def empty(cls, meta: Meta | None = None) -> Trace:
        """A trace without rows."""
        return cls({name: [] for name in COLUMNS}, meta if meta is not None else Meta())

    def append(self, op: str, **values: Any) -> int:
        """Add one row, its other columns at their neutral values; returns its index.

        For generators and tests. The importer fills whole columns.

        >>> t = Trace.empty()
        >>> t.append("fault", tid=7, pid=7, addr=0x1000, flags=FAULT_WRITE)
        0
        """
        if op not in OPS:
            raise ValueError(f"unknown operation {op!r}")
        unknown = set(values) - set(COLUMNS)
        if unknown:
            raise ValueError(f"unknown column {sorted(unknown)[0]!r}")
        row = len(self)
        for name, column in self.columns.items():
            column.append(op if name == "op" else values.get(name, _NEUTRAL.get(name, 0)))
        return row


_NEUTRAL: Final[dict[str, Any]] = {"file": -1, "quiescent": False, "truth": None}
