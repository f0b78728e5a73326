# SPDX-License-Identifier: GPL-2.0-only
"""What one generated process does to its address space. Addresses and lengths are in bytes."""

import random
from dataclasses import dataclass, fields

from rmaplab.mm import flags as fl
from rmaplab.synth.parameters import RUN, Shape
from rmaplab.synth.rows import Rows
from rmaplab.trace.schema import EXEC_FIRST, FAULT_WRITE, MAP_FILE, MAP_SPECIAL, MAP_STACK

__all__ = ["EXEC_TOUCHED", "EXEC_UNTOUCHED", "Files", "Process", "Rounder", "Writer"]

PAGE = fl.PAGE_SIZE
_R, _RW, _RX = fl.PROT_READ, fl.PROT_READ | fl.PROT_WRITE, fl.PROT_READ | fl.PROT_EXEC
_PRIVATE = 0x02
_ANONYMOUS = _PRIVATE | fl.MAP_ANONYMOUS
_STACK = _ANONYMOUS | fl.MAP_NORESERVE | fl.MAP_STACK
_USER_WRITE = FAULT_WRITE | 4
_THREAD = 0x3D0F00  # CLONE_VM, CLONE_THREAD and what else pthread_create passes
_SIGCHLD = 17

_IMAGE = 0x5500000000
_STACK_TOP = 0x7FFC000000
_STACK_PAGES = 33
_STACK_PGOFF = ((fl.TASK_SIZE - PAGE) >> fl.PAGE_SHIFT) - (_STACK_PAGES - 1)
_FIRST = 0x7000000000  # where mappings begin, growing upwards

EXEC_TOUCHED = 3
"""Written VMAs that an execve leaves: the stack, and the data of program and linker."""
EXEC_UNTOUCHED = 8
"""Its other VMAs: three segments each of program and linker, [vdso], [vvar]."""


class Rounder:
    """Turns real means into whole numbers whose sum is the rounded sum of the means.

    >>> rounder = Rounder()
    >>> [rounder.take("heaps", 0.5) for _ in range(4)]
    [1, 0, 1, 0]
    """

    def __init__(self) -> None:
        self._carry: dict[str, float] = {}

    def take(self, key: str, mean: float) -> int:
        """The next whole number of the sequence `key`."""
        value = self._carry.get(key, 0.5) + mean
        whole = int(value + 1e-9)
        self._carry[key] = value - whole
        return whole


class Files:
    """Names of mapped files, numbered as they come up."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[tuple[str, int], int] = {}

    def number(self, kind: str, i: int) -> int:
        """The index of file `i` of `kind`, a format string."""
        key = kind, i
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.names)
            self.names.append(kind % i)
        return number


@dataclass(slots=True)
class Writer:
    """What all processes of a system write with."""

    rows: Rows
    files: Files
    rounder: Rounder
    rng: random.Random
    next_pid: int = 1

    def pid(self) -> int:
        """A new thread id."""
        self.next_pid += 1
        return self.next_pid - 1


class Process:
    """One process, alive.

    written: writable addresses that have a page, one for each VMA, its own and inherited ones
    heaps: address and length of own heaps that are VMAs of their own
    unwritten: writable addresses of VMAs without a page
    """

    def __init__(self, writer: Writer, pid: int, comm: str, parent: int) -> None:
        self.writer = writer
        self.pid = pid
        self.comm = comm
        self.parent = parent
        self.threads: list[int] = []
        self.cursor = _FIRST
        self.written: list[int] = []
        self.heaps: list[tuple[int, int]] = []
        self.unwritten: list[int] = []

    def _map(self, pages: int, prot: int, flags: int, file: int = -1, pgoff: int = 0, gap: int = 1) -> int:
        start = self.cursor
        length = pages * PAGE
        self.writer.rows.add("mmap", self.pid, self.pid, start, length, prot, flags, pgoff, file, ret=start)
        self.cursor = start + length + gap * PAGE
        return start

    def write(self, address: int, pages: int = 1) -> None:
        """Write faults in `pages` pages from `address` on."""
        add = self.writer.rows.add
        for at in range(address, address + pages * PAGE, PAGE):
            add("fault", self.pid, self.pid, at, flags=_USER_WRITE)

    def protect(self, address: int, length: int, prot: int) -> None:
        """mprotect"""
        self.writer.rows.add("mprotect", self.pid, self.pid, address, length, prot)

    # --- life

    def execute(self, program: str, first: bool = False) -> None:
        """execve: the old address space goes away, program, linker, stack and [vdso] are there."""
        add, pid, files = self.writer.rows.add, self.pid, self.writer.files
        add("exec_prepare", pid, pid)
        if not first:
            add("exit_mmap", pid, pid)
        add("exec", pid, pid, flags=EXEC_FIRST if first else 0)
        stack = _STACK_PAGES * PAGE
        add("exec_map", pid, pid, _STACK_TOP - stack, stack, _RW, MAP_STACK, _STACK_PGOFF)
        self.cursor = _FIRST
        self.written, self.heaps, self.unwritten = [_STACK_TOP - PAGE], [], []
        for name, base in ((program, _IMAGE), ("/apex/com.android.runtime/bin/linker64", _FIRST)):
            file = files.number(name.replace("%", "%%") + "%.0s", 0)
            parts = ((0, 4, _R, 0), (4, 12, _RX, 4), (16, 2, _R, 15), (18, 2, _RW, 16))
            for i, (offset, pages, prot, pgoff) in enumerate(parts):
                length = (pages if i else 20) * PAGE  # the first covers the whole image, for a moment
                add("exec_map", pid, pid, base + offset * PAGE, length, prot, MAP_FILE, pgoff, file)
        for pages, prot in ((1, _RX), (2, _R)):
            self.cursor += 64 * PAGE
            add("exec_map", pid, pid, self.cursor, pages * PAGE, prot, MAP_SPECIAL)
        self.cursor += 64 * PAGE
        for base in (_IMAGE, _FIRST):
            self.write(base + 18 * PAGE)
            self.written.append(base + 18 * PAGE)

    def fork(self, comm: str) -> "Process":
        """fork; the child has everything, and no threads."""
        writer = self.writer
        child = Process(writer, writer.pid(), comm, self.pid)
        writer.rows.add("fork", self.pid, self.pid, flags=_SIGCHLD, peer=child.pid, ret=child.pid)
        child.cursor = self.cursor
        child.written, child.heaps, child.unwritten = list(self.written), list(self.heaps), list(self.unwritten)
        return child

    def exit(self) -> None:
        """All threads leave, then the address space goes."""
        add, pid = self.writer.rows.add, self.pid
        for tid in self.threads:
            add("exit", tid, pid)
        add("exit", pid, pid)
        add("exit_mmap", pid, pid)

    # --- memory

    def library(self, kind: str, i: int) -> None:
        """dlopen: five VMAs as lld lays a library out. RELRO is a segment of its own, so that its mprotect splits
        nothing, and no segment continues the file offsets of the one before."""
        file = self.writer.files.number(kind, i)
        text = 2 + i * 7 % 40
        self._map(2, _R, _PRIVATE, file, 0, 0)
        self._map(text, _RX, _PRIVATE, file, 1, 0)
        relro = self._map(1, _RW, _PRIVATE, file, text, 0)
        data = self._map(1, _RW, _PRIVATE, file, text, 0)
        bss = self._map(1, _RW, _ANONYMOUS)
        for start in (relro, data, bss):
            self.write(start)
        self.protect(relro, PAGE, _R)
        self.written += (data, bss)

    def thread(self) -> None:
        """pthread_create: guard and stack from one mmap, then the thread."""
        start = self._map(16, 0, _STACK)
        self.protect(start + PAGE, 15 * PAGE, _RW)
        tid = self.writer.pid()
        self.writer.rows.add("clone_vm", self.pid, self.pid, flags=_THREAD, peer=tid, ret=tid)
        self.threads.append(tid)
        self.writer.rows.add("fault", tid, self.pid, start + 15 * PAGE, flags=_USER_WRITE)
        self.written.append(start + 15 * PAGE)

    def heap(self, pages: int) -> None:
        """An anonymous VMA of its own, `pages` pages of it written."""
        length = pages + 1 + self.writer.rng.randrange(8)
        start = self._map(length, _RW, _ANONYMOUS)
        self.write(start, pages)
        self.written.append(start)
        self.heaps.append((start, length * PAGE))

    def run(self, pages: int) -> None:
        """RUN neighbouring VMAs that share an anon_vma: a region of which parts were made read-only after it was
        written. On Android most are kept apart by their names instead (PR_SET_VMA_ANON_NAME), to the same effect."""
        length = (pages + 1) * PAGE
        start = self._map(RUN * (pages + 1), _RW, _ANONYMOUS)
        for part in range(RUN):
            self.write(start + part * length, pages)
        for part in range(1, RUN, 2):
            self.protect(start + part * length, length, _R)
        self.written += (start + part * length for part in range(0, RUN, 2))

    def file(self, i: int) -> None:
        """A mapping that nobody writes to: of a package, or shared memory of the property service."""
        files = self.writer.files
        if i % 3:
            self._map(1 + i % 16, _R, _PRIVATE, files.number("/data/app/%d/base.apk", i % 97), i)
        else:
            self._map(1, _R, fl.MAP_SHARED, files.number("/dev/__properties__/%d", i % 97))

    def reserve(self) -> None:
        """An anonymous mapping that is not written yet."""
        self.unwritten.append(self._map(4, _RW, _ANONYMOUS))

    def pass_by(self) -> None:
        """A mapping that is written and goes away at once."""
        start = self._map(8, _RW, _ANONYMOUS)
        self.write(start)
        self.writer.rows.add("munmap", self.pid, self.pid, start, 8 * PAGE)
        self.cursor = start

    # --- by amounts

    def build(
        self, shape: Shape, *, key: str, library: str, sharing: float, pages: int, executed: bool = False
    ) -> None:
        """Map what `shape` says, in whole numbers around its means.

        key: which sequences of whole numbers to go on with
        library: format string of the libraries' names
        executed: what an execve mapped is a part of the shape
        """
        take = self.writer.rounder.take
        runs = sharing * shape.touched / (RUN - 1)
        singles = shape.heaps - RUN * runs - (EXEC_TOUCHED if executed else 0)
        count = {f.name: take(f"{key}.{f.name}", getattr(shape, f.name)) for f in fields(shape) if f.name != "heaps"}
        for i in range(count["libraries"]):
            self.library(library, i)
        for _ in range(take(f"{key}.runs", runs)):
            self.run(pages)
        for _ in range(take(f"{key}.singles", max(0.0, singles))):
            self.heap(pages)
        for i in range(count["files"] - (EXEC_UNTOUCHED if executed else 0)):
            self.file(i)
        for _ in range(count["threads"]):
            self.thread()
