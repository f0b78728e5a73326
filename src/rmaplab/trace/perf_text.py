# SPDX-License-Identifier: GPL-2.0-only
"""The text of `perf script`, line by line, as raw events.

The command is::

    perf script --ns --show-mmap-events --show-task-events -F comm,pid,tid,cpu,time,event,trace

A raw event is a plain tuple `(time, tid, kind, a, b)`: this loop sees every line of a recording, and a
tuple is the fastest thing Python can make. `time` is in ns. What `a` and `b` hold depends on `kind`:

========== ============================== ==========================================
kind       a                              b
========== ============================== ==========================================
ENTER      name of the system call        its arguments as text
EXIT       name of the system call        its result as text
FAULT      address                        error_code, + FAULT_KERNEL
MAPPED     text of the MMAP2 record       0
COMM_EXEC  name of the new program        pid
NEW_TASK   tid of the child               (clone flags, name)
GONE       0                              0
LOCK_READ  mm as text                     1 = acquired, 0 = the trylock failed
LOCK_WRITE mm as text                     1
TEARDOWN   address of the maple tree      0
ALLOC      object pointer as text         number of its cache
FREE       object pointer as text         number of its cache
========== ============================== ==========================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from rmaplab.trace.call_sites import IGNORED, CallSites
from rmaplab.trace.schema import FAULT_KERNEL

__all__ = [
    "ALLOC",
    "COMM_EXEC",
    "ENTER",
    "EXIT",
    "FAULT",
    "FREE",
    "GONE",
    "LOCK_READ",
    "LOCK_WRITE",
    "MAPPED",
    "NEW_TASK",
    "PERF_SCRIPT_OPTIONS",
    "TEARDOWN",
    "PerfTextParser",
    "RawEvent",
]

PERF_SCRIPT_OPTIONS: Final = (
    "--ns",
    "--show-mmap-events",
    "--show-task-events",
    "--show-lost-events",
    "-F",
    "comm,pid,tid,cpu,time,event,trace",
)
"""What makes `perf script` print the text that this module reads."""

RawEvent = tuple[int, int, int, Any, Any]
"""(time in ns, tid, kind, a, b); see the module's docstring."""

ENTER: Final = 0
EXIT: Final = 1
FAULT: Final = 2
MAPPED: Final = 3
COMM_EXEC: Final = 4
NEW_TASK: Final = 5
GONE: Final = 6
LOCK_READ: Final = 7
LOCK_WRITE: Final = 8
TEARDOWN: Final = 9
ALLOC: Final = 10
FREE: Final = 11
# kinds that only the parser knows: what it has to do with the line, not what the line becomes
_LOCK: Final = 20
_LOST: Final = 21
_SKIP: Final = 22
_UNKNOWN: Final = 23

_FIXED: Final = {
    "kmem:kmem_cache_alloc:": ALLOC,
    "kmem:kmem_cache_free:": FREE,
    "mmap_lock:mmap_lock_acquire_returned:": _LOCK,
    "mmap:exit_mmap:": TEARDOWN,
    "task:task_newtask:": NEW_TASK,
    "sched:sched_process_exit:": GONE,
    "PERF_RECORD_MMAP2": MAPPED,
    "PERF_RECORD_COMM": COMM_EXEC,
    "exceptions:page_fault_user:": FAULT,
    "exceptions:page_fault_kernel:": FAULT,
    "PERF_RECORD_LOST": _LOST,
    "PERF_RECORD_LOST_SAMPLES": _LOST,
    # a prctl(PR_SET_NAME), the kernel's own text, and what other events say better
    "PERF_RECORD_COMM:": _SKIP,
    "PERF_RECORD_MMAP": _SKIP,
    "PERF_RECORD_FORK": _SKIP,
    "PERF_RECORD_EXIT": _SKIP,
    "sched:sched_process_fork:": _SKIP,
    "sched:sched_process_exec:": _SKIP,
}

_COMM_WIDTH: Final = 17
"""perf prints the task's name right-aligned in 16 columns and a blank."""

_LINE: Final = re.compile(r"(-?\d+)/(-?\d+)\s+\[(\d+)\]\s+(\d+)\.(\d{9}):\s+(\S+)\s?(.*)$", re.DOTALL)
_COMM_TAIL: Final = re.compile(r"exec: (.*):(-?\d+)/(-?\d+)\s*$", re.DOTALL)
_NUMBER: Final = re.compile(r"\d+")


class _Kind:
    """An event name: what to do with its lines, and how many there were."""

    __slots__ = ("action", "count", "detail")

    def __init__(self, action: int, detail: Any) -> None:
        self.action = action
        self.detail = detail
        self.count = 0


def _classify(name: str) -> _Kind:
    if name.startswith("syscalls:sys_enter_") and name.endswith(":"):
        return _Kind(ENTER, name[19:-1])
    if name.startswith("syscalls:sys_exit_") and name.endswith(":"):
        return _Kind(EXIT, name[18:-1])
    # PERF_RECORD_FORK(1:1):(2:2) and PERF_RECORD_EXIT(...) carry their numbers in the name
    base = name.partition("(")[0]
    action = _FIXED.get(base, _UNKNOWN)
    if base.startswith("PERF_RECORD_") and action == _UNKNOWN:
        # records about perf itself (throttling, cgroup names, ...) say nothing about memory
        action = _SKIP
    return _Kind(action, FAULT_KERNEL if base == "exceptions:page_fault_kernel:" else 0)


class PerfTextParser:
    """Turns lines into raw events, and counts what it saw.

    >>> parser = PerfTextParser()
    >>> parser.parse(["    sh 7/7 [000]  1.000000002: syscalls:sys_exit_brk: 0x5000"])
    [(1000000002, 7, 1, 'brk', '0x5000')]
    """

    def __init__(self) -> None:
        self.lines = 0
        """Lines read."""
        self.lost = 0
        """Records that perf says it lost."""
        self.locks = False
        """An mmap_lock event was seen."""
        self.unreadable = 0
        """Lines that are no event of perf."""
        self.malformed: dict[str, int] = {}
        """Event name -> lines whose fields could not be read."""
        self.sites = CallSites()
        self._kinds: dict[str, _Kind] = {}
        self._who: dict[str, int] = {}

    @property
    def events(self) -> int:
        """Lines that were an event of perf."""
        return sum(kind.count for kind in self._kinds.values())

    def counts(self) -> dict[str, int]:
        """Raw events by the name perf gives them."""
        merged: dict[str, int] = {}
        for name, kind in self._kinds.items():
            base = name.partition("(")[0].rstrip(":")
            merged[base] = merged.get(base, 0) + kind.count
        return dict(sorted(merged.items()))

    def ignored(self) -> dict[str, int]:
        """Reason -> how many lines were left out for it."""
        reasons: dict[str, int] = {}
        for name, kind in self._kinds.items():
            if kind.action == _UNKNOWN:
                reasons[f"event {name.rstrip(':')}"] = kind.count
        for name, count in self.malformed.items():
            reasons[f"malformed {name.rstrip(':')}"] = count
        if self.unreadable:
            reasons["unreadable line"] = self.unreadable
        reasons.update(self.sites.ignored())
        return reasons

    def parse(self, lines: Sequence[str]) -> list[RawEvent]:
        """The raw events of `lines`, in their order. Lines are decoded as latin-1, without newline."""
        out: list[RawEvent] = []
        add = out.append
        kinds, who_to_tid, sites = self._kinds, self._who, self.sites.caches
        self.lines += len(lines)
        for line in lines:
            try:
                who, _, stamp, name, rest = line[_COMM_WIDTH:].split(None, 4)
                # Known names and tasks were once read by _header(), which checks the whole form. What is
                # not known, or no number, goes there now.
                kind = kinds[name]
                tid = who_to_tid[who]
                time = int(stamp[:-1].replace(".", ""))
            except (ValueError, KeyError):
                header = self._header(line)
                if header is None:
                    continue
                time, tid, name, rest, kind = header
            kind.count += 1
            action = kind.action
            try:
                if action >= ALLOC:
                    if action <= FREE:
                        site, pointer, cache_name = rest.split(None, 3)[:3]
                        cache = sites.get((site, cache_name))
                        if cache is None:
                            cache = self.sites.learn(site, cache_name, rest)
                        if cache >= 0:
                            add((time, tid, action, pointer[4:], cache))
                        elif cache == IGNORED:
                            self.sites.tally(cache_name)
                        else:
                            self.sites.defer(cache_name)
                    elif action == _LOCK:
                        self.locks = True
                        mm = rest.partition(" ")[0][3:]
                        if rest.endswith("write=false success=true"):
                            add((time, tid, LOCK_READ, mm, 1))
                        elif rest.endswith("write=true success=true"):
                            add((time, tid, LOCK_WRITE, mm, 1))
                        elif rest.endswith("write=false success=false"):
                            add((time, tid, LOCK_READ, mm, 0))
                    elif action == _LOST:
                        number = _NUMBER.search(rest)
                        self.lost += int(number.group()) if number else 1
                elif action == FAULT:
                    place, _, code = rest.rpartition(" error_code=")
                    # perf prints a kernel address by name: not a fault on user memory
                    if place.startswith("address=0x"):
                        address = int(place[8 : place.index(" ")], 16)
                        add((time, tid, FAULT, address, int(code, 16) | kind.detail))
                elif action <= EXIT:
                    add((time, tid, action, kind.detail, rest))
                elif action == MAPPED:
                    add((time, tid, MAPPED, rest, 0))
                elif action == COMM_EXEC:
                    match = _COMM_TAIL.match(rest)
                    if match is not None:
                        add((time, tid, COMM_EXEC, match.group(1), int(match.group(2))))
                elif action == NEW_TASK:
                    head, _, tail = rest.rpartition(" clone_flags=")
                    pid, _, comm = head.partition(" ")
                    add((time, tid, NEW_TASK, int(pid[4:]), (int(tail.split()[0], 16), comm[5:])))
                elif action == GONE:
                    add((time, tid, GONE, 0, 0))
                elif action == TEARDOWN:
                    add((time, tid, TEARDOWN, int(rest.split()[1].rstrip(","), 16), 0))
            except (ValueError, IndexError):
                self.malformed[name] = self.malformed.get(name, 0) + 1
        return out

    def _header(self, line: str) -> tuple[int, int, str, str, _Kind] | None:
        """The slow way for a line that did not fit: new name, new task, odd task name, no event at all."""
        match = _LINE.search(line)
        if match is None:
            if line.strip() and not line.startswith("#"):
                self.unreadable += 1
            return None
        _, tid, _, seconds, fraction, name, rest = match.groups()
        kind = self._kinds.get(name)
        if kind is None:
            kind = self._kinds[name] = _classify(name)
        if len(self._who) < 1 << 20:
            self._who[line[match.start() : match.end(2)]] = int(tid)
        return int(seconds + fraction), int(tid), name, rest.lstrip(), kind
