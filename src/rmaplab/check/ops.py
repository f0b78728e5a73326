# SPDX-License-Identifier: GPL-2.0-only
"""The operations of worlds: system calls and faults of a process, and what the kernel does behind its back.

==============================  =======================================================
``A: mmap p0 2 [r] [file]``      private mapping of 2 pages at page p0 (``h0``: at a 2 MiB boundary); ``rw``, ``rwx``
``A: munmap p0 1``              ``A: mprotect p0 1 r`` (``rw``, ``rwx``, ``none``)
``A: mremap p0 1 p8``           move 1 page from p0 to p8 (``keep``: MREMAP_DONTUNMAP)
``A: madvise p0 1 mergeable``   ``hugepage``, ``nohugepage``, ``dontneed``, ``unmergeable``
``A: write p0``                 a store, with the faults that it takes (``A: write p0 =5``: the value)
``A: read p0``                  a load
``A: fork B``                   ``A: exit``
``reclaim A p0``                the folio that A mapped there when the CPUs started; also ``reclaim-writeback``
``migrate A p0``                ``referenced A p0``, ``split A p0``, ``poison A p0``, ``swapout A p0`` (setup)
``ksm A p0 B p0``               merge two pages
``collapse A h0``               khugepaged
==============================  =======================================================
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rmaplab.check.machine import CheckedKernel
from rmaplab.check.violation import ALLOCATION_MAY_FAIL, Violation
from rmaplab.errors import UserError
from rmaplab.mm import flags as fl
from rmaplab.mm.access import entry_at, mm_peek
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.fault import handle_mm_fault
from rmaplab.mm.folio import Folio
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.hooks import ForkRefused
from rmaplab.mm.huge_memory import split_folio
from rmaplab.mm.khugepaged import collapse_huge_page
from rmaplab.mm.madvise import madvise
from rmaplab.mm.memory_failure import memory_failure
from rmaplab.mm.migrate import migrate_folio
from rmaplab.mm.mm import Mm
from rmaplab.mm.mmap import do_mmap, do_munmap
from rmaplab.mm.mremap import mremap
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT, SWAP, WRITE
from rmaplab.mm.protect import mprotect
from rmaplab.mm.rmap import folio_referenced
from rmaplab.mm.slab import AllocationFailure
from rmaplab.mm.vma import File
from rmaplab.mm.vmscan import shrink_folio

__all__ = ["Machine", "Operation", "page_name", "parse_operation"]

PAGE = fl.PAGE_SHIFT
SMALL = 0x10000  # virtual page number of p0
HUGE = 0x40000  # of h0, at a 2 MiB boundary
_TRIES = 6

_PROTS = {"none": 0, "r": 1, "rw": 3, "rwx": 7}
_ADVICE = {
    "mergeable": fl.MADV_MERGEABLE,
    "unmergeable": fl.MADV_UNMERGEABLE,
    "hugepage": fl.MADV_HUGEPAGE,
    "nohugepage": fl.MADV_NOHUGEPAGE,
    "dontneed": fl.MADV_DONTNEED,
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of a world.

    process: who does it, "" if it is the kernel; args: process names, virtual page numbers, counts and words
    """

    process: str
    name: str
    args: tuple[Any, ...]
    text: str

    def __str__(self) -> str:
        return self.text


_OF_PROCESS = {
    "mmap": ("page", "count", "words"),
    "munmap": ("page", "count"),
    "mprotect": ("page", "count", "word"),
    "mremap": ("page", "count", "page", "words"),
    "madvise": ("page", "count", "word"),
    "write": ("page", "words"),
    "read": ("page",),
    "fork": ("process",),
    "exit": (),
}
_OF_KERNEL = {
    "reclaim": ("process", "page"),
    "reclaim-writeback": ("process", "page"),
    "migrate": ("process", "page"),
    "referenced": ("process", "page"),
    "split": ("process", "page"),
    "poison": ("process", "page"),
    "ksm": ("process", "page", "process", "page"),
    "collapse": ("process", "page"),
}


def parse_operation(line: str) -> Operation:
    """One line. Raises UserError."""
    match = re.fullmatch(r"\s*(?:([A-Z])\s*:)?\s*([a-z-]+)\s*(.*?)\s*", line)
    if match is None:
        raise UserError(f"{line!r} is no operation; they look like 'A: mmap p0 1' or 'reclaim A p0'")
    process, name, rest = match[1] or "", match[2], match[3].split()
    known = _OF_PROCESS if process else _OF_KERNEL
    if name not in known:
        other = _OF_KERNEL if process else _OF_PROCESS
        hint = f"; {name!r} {'takes no' if process else 'needs a'} process before a colon" if name in other else ""
        raise UserError(f"{line!r}: unknown operation {name!r}{hint}; known are {', '.join(known)}")
    args: list[Any] = []
    for kind in known[name]:
        if kind == "words":
            args += _words(line, name, rest)
            rest = []
        elif not rest:
            raise UserError(f"{line!r}: a {kind} is missing")
        else:
            args.append(_argument(line, kind, rest.pop(0)))
    if rest:
        raise UserError(f"{line!r}: {rest[0]!r} is too much")
    if name == "mprotect" and args[2] not in _PROTS:
        raise UserError(f"{line!r}: protection must be one of {', '.join(_PROTS)}")
    if name == "madvise" and args[2] not in _ADVICE:
        raise UserError(f"{line!r}: advice must be one of {', '.join(_ADVICE)}")
    return Operation(process, name, tuple(args), " ".join(line.split()))


def _words(line: str, name: str, words: list[str]) -> list[str]:
    allowed = {"mmap": "rwx|rw|r|none|file", "mremap": "keep", "write": "=[0-9]+"}[name]
    for word in words:
        if not re.fullmatch(allowed, word):
            raise UserError(f"{line!r}: {word!r} is not understood; may be {allowed}")
    return words


def _argument(line: str, kind: str, word: str) -> Any:
    if kind == "process" and re.fullmatch("[A-Z]", word):
        return word
    if kind == "count" and word.isdigit() and 0 < int(word) <= 4096:
        return int(word)
    if kind == "page" and re.fullmatch("[ph][0-9]+", word) and int(word[1:]) < 4096:
        return (SMALL if word[0] == "p" else HUGE) + int(word[1:])
    if kind == "word":
        return word
    raise UserError(f"{line!r}: {word!r} is no {kind}")


def page_name(vpn: int) -> str:
    """A virtual page number as worlds write it.

    >>> page_name(0x10002)
    'p2'
    """
    if SMALL <= vpn < SMALL + 4096:
        return f"p{vpn - SMALL}"
    if HUGE <= vpn < HUGE + 4096:
        return f"h{vpn - HUGE}"
    return f"{vpn:#x}"


class Machine:
    """The processes of a world on a kernel, and its operations.

    cpus: what each CPU does
    mms: live address spaces by process name
    parents: mm -> the mm that it was forked from
    wrote: token -> (mm, vpn) of each store
    """

    def __init__(self, kernel: CheckedKernel, cpus: Sequence[Sequence[Operation]] = ()) -> None:
        self.kernel = kernel
        self.cpus = cpus
        self.mms: dict[str, Mm] = {"A": kernel.mm_alloc()}
        self.parents: dict[Mm, Mm] = {}
        self.wrote: dict[int, list[tuple[Mm, int]]] = {}
        self.targets: dict[Operation, Any] = {}
        self.tokens: dict[int, int] = {}  # by CPU, -1 for the setup: stores so far
        self._file = File("file")

    def prepare(self, operation: Operation) -> None:
        """Find what a kernel operation is about, before the CPUs start: a folio, as a walk of the LRU finds it without
        the page tables; or the address spaces, which ksmd and khugepaged hold from madvise on."""
        if operation.name in ("ksm", "collapse"):
            mms = [self.mms.get(name) for name in operation.args[::2]]
            self.targets[operation] = mms
            for mm in mms:
                if mm is not None:
                    self.kernel.mmgrab(mm)  # __ksm_enter, __khugepaged_enter
        elif operation.name in _OF_KERNEL:
            mm = self.mms.get(operation.args[0])
            self.targets[operation] = None if mm is None else self._folio(mm, operation.args[1])

    def _folio(self, mm: Mm, vpn: int) -> Folio | None:
        table = mm.pgd.get(vpn >> 9)
        entry = table if isinstance(table, int) else None if table is None else table.get(vpn)
        if entry is None:
            return None
        if entry & KIND_MASK == SWAP:
            return self.kernel.swap.cache.get(entry >> ENTRY_SHIFT)
        return self.kernel.mem.pages[entry >> ENTRY_SHIFT] if entry & KIND_MASK == PRESENT else None

    def apply(self, operation: Operation) -> None:
        """Carry out one operation; one that makes no sense now (the process has gone) does nothing."""
        name, args = operation.name, operation.args
        method: Callable[..., None] = getattr(self, f"_{name.replace('-', '_')}")
        before = self._seen_before(operation)
        try:
            if operation.process:
                mm = self.mms.get(operation.process)
                if mm is not None:
                    method(mm, *args)
            else:
                if operation not in self.targets:
                    self.prepare(operation)
                target = self.targets.get(operation)
                if target is not None:
                    method(target, *args) if name in ("ksm", "collapse") else method(target)
        except (AllocationFailure, ForkRefused):  # -ENOMEM, -EAGAIN
            if before is not None:
                self._check_unchanged(operation, before)
        while self.kernel.exits:
            exit_mmap(self.kernel.exits.pop())  # mmput_async's work

    # --- running out of memory

    def _seen_before(self, operation: Operation) -> dict[int, Any] | None:
        """What the process has, if it must have the same after a failure: a call that goes on from VMA to VMA, or that
        has unmapped its target, may have come halfway; and nobody else must change it"""
        task = self.kernel.run.task
        if task is None or not self.kernel.run.fail or operation.name in ("mmap", "read", "write", "exit"):
            return None
        mm = self.mms.get(operation.process)
        for cpu, others in enumerate(self.cpus):
            if cpu != task.index and any(op.process and op.name != "read" for op in others):
                return None
        return None if mm is None else self._pages(mm)

    def _pages(self, mm: Mm) -> dict[int, Any]:
        """Virtual page number -> flags, index, contents"""
        task, self.kernel.run.task = self.kernel.run.task, None
        try:
            pages: dict[int, Any] = {}
            for vma in mm.vmas:
                for vpn in range(vma.vm_start >> PAGE, vma.vm_end >> PAGE):
                    entry = entry_at(mm, vpn << PAGE)
                    seen = None if entry is None else mm_peek(mm, vpn, entry)
                    pages[vpn] = vma.vm_flags & fl.VM_ACCESS_FLAGS, vma.pgoff_at(vpn << PAGE), seen
            return pages
        finally:
            self.kernel.run.task = task

    def _check_unchanged(self, operation: Operation, before: dict[int, Any]) -> None:
        mm = self.mms.get(operation.process)
        after = {} if mm is None else self._pages(mm)
        changed = [vpn for vpn in sorted(before.keys() | after.keys()) if before.get(vpn) != after.get(vpn)]
        if changed:
            raise Violation(ALLOCATION_MAY_FAIL, f"{operation} failed, and {page_name(changed[0])} is not as it was")

    # --- of a process

    def _mmap(self, mm: Mm, vpn: int, count: int, *words: str) -> None:
        prot = next((_PROTS[word] for word in words if word in _PROTS), 3)
        file = self._file if "file" in words else None
        do_mmap(mm, vpn << PAGE, count << PAGE, prot, fl.MAP_FIXED | 2, file, 0)

    def _munmap(self, mm: Mm, vpn: int, count: int) -> None:
        with self.kernel.locks.mmap_write(mm):
            do_munmap(mm, vpn << PAGE, (vpn + count) << PAGE, unlock=True)

    def _mprotect(self, mm: Mm, vpn: int, count: int, prot: str) -> None:
        mprotect(mm, vpn << PAGE, count << PAGE, _PROTS[prot])

    def _mremap(self, mm: Mm, vpn: int, count: int, target: int, *words: str) -> None:
        flags = fl.MREMAP_MAYMOVE | fl.MREMAP_FIXED | (fl.MREMAP_DONTUNMAP if "keep" in words else 0)
        size = count << PAGE
        mremap(mm, vpn << PAGE, size, size, flags, target << PAGE, target << PAGE)

    def _madvise(self, mm: Mm, vpn: int, count: int, advice: str) -> None:
        madvise(mm, vpn << PAGE, count << PAGE, _ADVICE[advice])

    def _write(self, mm: Mm, vpn: int, *words: str) -> None:
        if words:
            token = int(words[0][1:])
        else:
            task = self.kernel.run.task
            writer = -1 if task is None else task.index
            self.tokens[writer] = self.tokens.get(writer, 0) + 1
            token = 1000 * (2 + writer) + self.tokens[writer]
        self.wrote.setdefault(token, []).append((mm, vpn))
        contents = self.kernel.mem.contents
        assert contents is not None
        for _ in range(_TRIES):
            entry = self._entry(mm, vpn)
            if entry is not None and entry & (PRESENT | WRITE) == PRESENT | WRITE:
                contents[entry >> ENTRY_SHIFT] = token  # the store itself, in the same instant as the look-up
                self._touch_page(entry, 2)
                return
            if not handle_mm_fault(mm, vpn << PAGE, True):
                return

    def _read(self, mm: Mm, vpn: int) -> None:
        for _ in range(_TRIES):
            entry = self._entry(mm, vpn)
            if entry is None or entry & KIND_MASK == PRESENT:
                if entry is not None:
                    self._touch_page(entry, 1)
                return
            if not handle_mm_fault(mm, vpn << PAGE, False):
                return

    def _entry(self, mm: Mm, vpn: int) -> int | None:
        """What the hardware finds in the page tables. They are not freed under it: the TLB is flushed before"""
        table = mm.pgd.get(vpn >> 9)
        if self.kernel.run.task is not None:
            self.kernel.run.visit(None)
        if isinstance(table, int):
            return table + ((vpn & 511) << ENTRY_SHIFT)
        return None if table is None else table.get(vpn)

    def _touch_page(self, entry: int, mode: int) -> None:
        run = self.kernel.run
        if run.task is not None:
            run.touch(("page", run.name(self.kernel.mem.pages[entry >> ENTRY_SHIFT])), mode)

    def _fork(self, mm: Mm, child: str) -> None:
        if child in self.mms:
            return
        new = dup_mm(mm)
        self.parents[new] = mm
        self.mms[child] = new

    def _exit(self, mm: Mm) -> None:
        name = next(name for name, other in self.mms.items() if other is mm)
        del self.mms[name]
        self.kernel.mmput_async(mm)

    # --- of the kernel

    def _reclaim(self, folio: Folio) -> None:
        shrink_folio(self.kernel, folio)

    def _reclaim_writeback(self, folio: Folio) -> None:
        shrink_folio(self.kernel, folio, writeback=True)

    def _migrate(self, folio: Folio) -> None:
        migrate_folio(self.kernel, folio)

    def _referenced(self, folio: Folio) -> None:
        if not folio.try_get():
            return
        folio_referenced(self.kernel, folio, is_locked=False)  # as shrink_active_list
        if folio.put():
            self.kernel.mem.free(folio)

    def _split(self, folio: Folio) -> None:
        split_folio(self.kernel, folio)

    def _poison(self, folio: Folio) -> None:
        memory_failure(self.kernel, folio.pfn)

    def _enter(self, operation: Operation) -> None:
        """ksmd and khugepaged know the mm since madvise, and hold it (__ksm_enter, __khugepaged_enter: mmgrab)"""
        names = [name for name in operation.args if isinstance(name, str)]
        mms = [self.mms[name] for name in names if name in self.mms]
        for mm in mms:
            self.kernel.mmgrab(mm)
        self.targets[operation] = mms if len(mms) == len(names) else []

    def _leave(self, operation: Operation) -> None:
        for mm in self.targets.pop(operation):
            self.kernel.mmdrop(mm)

    def _ksm(self, mms: list[Mm | None], _: str, vpn: int, __: str, other_vpn: int) -> None:
        one, other = mms
        if one is not None and other is not None:
            self.kernel.ksm.merge(one, vpn << PAGE, other, other_vpn << PAGE)
        self._drop(mms)

    def _collapse(self, mms: list[Mm | None], _: str, vpn: int) -> None:
        if mms[0] is not None:
            collapse_huge_page(mms[0], vpn << PAGE)
        self._drop(mms)

    def _drop(self, mms: list[Mm | None]) -> None:
        for mm in mms:
            if mm is not None:
                self.kernel.mmdrop(mm)
