# SPDX-License-Identifier: GPL-2.0-only
"""Fields of a VMA, by the rules of Documentation/mm/process_addrs.rst."""

from typing import Any

from rmaplab.check.engine import Run
from rmaplab.check.footprint import READ
from rmaplab.check.violation import LOCK_RULE, Violation
from rmaplab.check.watch.fields import Atomic, Plain, now

__all__ = ["VmaAnonVma", "VmaField", "mmap_held", "vma_rule"]


class VmaField(Plain):
    """vm_start, vm_end, vm_pgoff, vm_flags: the rules of process_addrs.rst besides the order of accesses."""

    def access(self, run: Run, obj: Any, write: bool) -> None:
        task = run.task
        assert task is not None
        if write or not task.lockless:
            vma_rule(run, obj, self.group, write)
        run.plain(obj, self.group, write)


class VmaAnonVma(Atomic):
    """vma->anon_vma: stable under the mmap lock held for writing; else it may go from NULL to set at any time."""

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is None:
            return self
        run = now()
        if run is None:
            return self.slot.__get__(obj)
        if mmap_held(run, obj.raw_mm(), True):
            run.alive(obj)
            run.touch((run.name(obj), self.group), READ)
        else:
            run.read(obj, self.group)
        return self.slot.__get__(obj)


def mmap_held(run: Run, mm: Any, write: bool) -> bool:
    task = run.task
    assert task is not None
    for held in task.held:
        if held.subject is mm and held.kind == "mmap_lock":
            return not write or held.writer is task
    return False


def vma_rule(run: Run, vma: Any, group: str, write: bool) -> None:
    """Reading needs the mmap lock, the VMA lock or an rmap lock; writing the first two, both for writing. A VMA that
    is not in its tree is its maker's own."""
    task = run.task
    assert task is not None
    mm = vma.raw_mm()
    if not any(other is vma for other in mm.raw_vmas()):
        return
    mine = next((held for held in task.held if held.subject is vma and held.kind == "vma"), None)
    if write:
        if not mmap_held(run, mm, True) or mine is None or mine.writer is not task:
            raise Violation(
                LOCK_RULE,
                f"{task.name} changes {run.name(vma)}.{group} without mmap lock and VMA lock, both for writing",
            )
        return
    if mine is not None or mmap_held(run, mm, False):
        return
    if not any(held.kind in ("anon_vma", "page_table_lock") for held in task.held):
        raise Violation(LOCK_RULE, f"{task.name} reads {run.name(vma)}.{group} with neither mmap, VMA nor rmap lock")
