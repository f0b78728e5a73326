# SPDX-License-Identifier: GPL-2.0-only
"""The tasks of a recording as the importer knows them."""

from __future__ import annotations

from rmaplab.trace.mappings import Mapping
from rmaplab.trace.rows import Call, Row

__all__ = ["Mm", "Syscall", "Task"]


class Mm:
    """An address space: how many tasks use it, and the kernel pointer that lock events show."""

    __slots__ = ("pointer", "users")

    def __init__(self, pointer: str = "") -> None:
        self.users = 1
        self.pointer = pointer
        """As printed; "" = not known yet."""


class Syscall(Call):
    """A system call that has been entered."""

    is_syscall = True

    # what becomes known while it runs; -1 = not seen
    write_position = -1
    """First write acquisition of the task's own mmap lock."""
    write_time = 0
    read_position = -1
    """First read acquisition of it."""
    read_time = 0
    last_write_position = -1
    """Last write acquisition of a lock that is not the new mm's: where execve tears the old mm down."""
    last_write_time = 0
    mapping: Mapping | None = None
    """The first MMAP2 record inside."""
    mapping_position = -1
    mapping_time = 0
    new_mm = ""
    """Another mm that was write-locked inside: the child's, or that of the new program."""
    child_row: Row | None = None
    """`fork` or `clone_vm` row."""
    executed = False
    """The COMM exec record has come."""
    program = ""
    """Name that the new program gave the task."""
    first_exec = False
    """The exec that a recording starts with."""
    past_special = False
    """execve has mapped [vdso] or the like, which comes last."""
    teardown_seen = False
    old_tid = 0
    """tid of the thread that called execve, if it took over its leader's."""
    number_of_exec = 0

    def __init__(self, name: str, text: str, position: int, time: int) -> None:
        super().__init__()
        self.name = name
        self.text = text
        self.position = position
        self.time = time


class Task:
    """A thread of the recording, or (`mm is None`) one that may become the first."""

    __slots__ = (
        "call",
        "dead",
        "doubtful",
        "fault",
        "mm",
        "pid",
        "slab_kind",
        "slab_pointer",
        "slab_time",
        "tentative",
        "tid",
        "write_position",
        "write_time",
    )

    def __init__(self, tid: int, pid: int, mm: Mm | None) -> None:
        self.tid = tid
        self.pid = pid
        self.mm = mm
        self.call: Call | None = None
        """The window that its events belong to."""
        self.fault: Row | None = None
        """A fault whose lock acquisition may follow."""
        self.dead = False
        self.tentative = False
        """Its first exec may turn out to be that of a task outside the recording."""
        self.doubtful: list[Row] = []
        """The rows it has made while that is open."""
        self.slab_pointer = ""
        """Pointer, time and kind of its last slab event."""
        self.slab_time = -1
        self.slab_kind = -1
        self.write_position = -1
        """Last write acquisition of its mmap lock after it left: where its mm is torn down."""
        self.write_time = 0
