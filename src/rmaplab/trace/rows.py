# SPDX-License-Identifier: GPL-2.0-only
"""Rows while they are being found: they get their place, their result and their call at different times.

Every raw event has a *position*, its number in the order of time. A row is made when it is known, and
carries the position of the event that commits it, which may be long past; sorting by position at the
end puts rows into commit order.
"""

from __future__ import annotations

from collections.abc import Hashable
from operator import attrgetter
from typing import Any, Final

from rmaplab.trace.mappings import FileTable
from rmaplab.trace.schema import COLUMNS

__all__ = ["Call", "Row", "RowTable", "signed"]

_SIGN: Final = 1 << 63


def signed(value: int) -> int:
    """A 64-bit register as the kernel's `long`: negative errnos, and arguments that are no addresses.

    >>> signed(0xfffffffffffffff4)
    -12
    """
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= _SIGN else value


def _fit(values: list[int], bits: int) -> list[int]:
    """Registers as signed numbers of `bits`. Almost always they are small enough as they are."""
    limit = 1 << (bits - 1)
    if values and (max(values) >= limit or min(values) < -limit):
        return [(value + limit) % (2 * limit) - limit for value in values]
    return values


class Call:
    """One system call, fault or teardown: the window that slab events and rows of its task belong to."""

    # Most calls are faults and set next to none of these: class attributes are their defaults.
    name = "fault"
    """System call, or `fault`, `exit`, `grow`, `unknown`."""
    is_syscall = False
    """Ends at its sys_exit, and nothing but an exit ends it before."""
    rows = 0
    """Rows that were made for it."""
    first = -1
    """Position of its first slab event."""
    last = -1
    """Position and time of its last slab event."""
    last_time = 0
    first_free = -1
    """Position and time of the first slab free."""
    first_free_time = 0
    number = -1
    """Value of the `call` column, given at the end."""
    span_start = -1
    span_end = -1

    __slots__ = ("__dict__", "truth")

    def __init__(self) -> None:
        self.truth: list[int] = []


class Row:
    """One row of the trace, before it is put into columns."""

    __slots__ = (
        "addr",
        "addr2",
        "call",
        "cancelled",
        "file_key",
        "file_name",
        "flags",
        "len",
        "len2",
        "op",
        "peer",
        "pgoff",
        "pid",
        "position",
        "prot",
        "ret",
        "tid",
        "time",
    )

    def __init__(self, position: int, time: int, tid: int, pid: int, call: Call, op: str) -> None:
        self.position = position
        self.time = time
        self.tid = tid
        self.pid = pid
        self.call = call
        self.op = op
        self.addr = self.len = self.addr2 = self.len2 = 0
        self.prot = self.flags = self.pgoff = self.peer = self.ret = 0
        self.file_key: Hashable = None
        self.file_name = ""
        self.cancelled = False


class RowTable:
    """Collects rows, and turns them into the columns of a trace."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, row: Row) -> Row:
        """Take a row in."""
        row.call.rows += 1
        self.rows.append(row)
        return row

    def cancel(self, row: Row) -> None:
        """Take a row back."""
        if not row.cancelled:
            row.cancelled = True
            row.call.rows -= 1

    def columns(self, files: FileTable, truth: bool) -> tuple[dict[str, list[Any]], int]:
        """(columns in commit order, time of the first row in ns, which is subtracted from all)."""
        rows = [row for row in self.rows if not row.cancelled]
        # stable: rows made for one position stay in the order in which they were made
        rows.sort(key=attrgetter("position"))
        times = [row.time for row in rows]
        start = min(times, default=0)
        calls: list[Call] = []
        for row in rows:
            call = row.call
            position = row.position
            if call.number < 0:
                call.number = len(calls)
                calls.append(call)
                first = call.first
                call.span_start = first if 0 <= first < position else position
            last = call.last
            call.span_end = last if last > position else position
        columns: dict[str, list[Any]] = {
            "time": [time - start for time in times],
            "tid": [row.tid for row in rows],
            "pid": [row.pid for row in rows],
            "call": [row.call.number for row in rows],
            "op": [row.op for row in rows],
            "addr": _fit([row.addr for row in rows], 64),
            "len": _fit([row.len for row in rows], 64),
            "addr2": _fit([row.addr2 for row in rows], 64),
            "len2": _fit([row.len2 for row in rows], 64),
            "prot": _fit([row.prot for row in rows], 32),
            "flags": _fit([row.flags for row in rows], 64),
            "pgoff": _fit([row.pgoff for row in rows], 64),
            "file": [-1 if row.file_key is None else files.number(row.file_key, row.file_name) for row in rows],
            "peer": [row.peer for row in rows],
            "ret": [row.ret for row in rows],
            "quiescent": _quiescent(rows, calls),
            "truth": _truth(rows) if truth else [None] * len(rows),
        }
        assert tuple(columns) == COLUMNS
        return columns, start


def _truth(rows: list[Row]) -> list[list[int] | None]:
    """Each call's slab events, at its last row."""
    column: list[list[int] | None] = [None] * len(rows)
    last: dict[int, int] = {}
    for index, row in enumerate(rows):
        call = row.call
        if call.rows == 1:
            column[index] = call.truth
        else:
            last[call.number] = index
    for index in last.values():
        column[index] = rows[index].call.truth
    return column


def _quiescent(rows: list[Row], calls: list[Call]) -> list[bool]:
    """Which rows are followed by an instant that lies inside no call's span."""
    column = [False] * len(rows)
    spans = [(call.span_start, call.span_end) for call in calls]
    spans.sort()
    index = 0
    end = -1
    for start, stop in [*spans, (1 << 62, 1 << 62)]:
        if start > end and end >= 0:
            # a row lies inside its own call's span: the rows up to here are those of the spans up to here
            while index < len(rows) and rows[index].position <= end:
                index += 1
            if index:
                column[index - 1] = True
        end = max(end, stop)
    return column
