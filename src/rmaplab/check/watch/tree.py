# SPDX-License-Identifier: GPL-2.0-only
"""The VMA tree of an mm."""

from collections.abc import Callable, Iterable
from typing import Any

from rmaplab.check.engine import Run
from rmaplab.check.footprint import READ, WRITE
from rmaplab.check.violation import LOCK_RULE, Violation
from rmaplab.check.watch.fields import Field, now
from rmaplab.check.watch.vma import mmap_held, vma_rule

__all__ = ["TREE_METHODS", "Tree", "TreeField", "muted", "under_rcu"]


class TreeField(Field):
    """mm.vmas, mm.starts: read under the mmap lock, or in an RCU section."""

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is None:
            return self
        run = now()
        if run is not None:
            _tree(run, obj, False)
        return self.slot.__get__(obj)

    def __set__(self, obj: Any, value: Any) -> None:
        self.slot.__set__(obj, value)


def _tree(run: Run, mm: Any, write: bool) -> None:
    task = run.task
    assert task is not None
    run.alive(mm)
    name = run.name(mm)
    if write:
        if not mmap_held(run, mm, True) and dict.__len__(mm.raw_pgd()):
            raise Violation(LOCK_RULE, f"{task.name} changes the VMA tree of {name} without its mmap lock")
        run.point(f"change the VMA tree of {name}")
        run.touch((name, "tree"), WRITE)
        return
    if not mmap_held(run, mm, False):
        if not task.rcu and not task.lockless:
            raise Violation(LOCK_RULE, f"{task.name} reads the VMA tree of {name} with neither mmap lock nor RCU")
        if (name, "tree") not in run.footprint:
            run.point(f"read the VMA tree of {name}")
            run.alive(mm)
    run.touch((name, "tree"), READ)


class Tree:
    """The maple tree of an mm as a reader under RCU sees it: ranges that were stored, whatever the VMAs say by now. A
    store over a range takes the place of what was there at once; a VMA that was cut short in preparation is still found
    where the next one will be."""

    def __init__(self, vmas: Iterable[Any]) -> None:
        self.ranges: list[tuple[int, int, Any]] = [(vma.vm_start, vma.vm_end, vma) for vma in vmas]

    def store(self, start: int, end: int, vma: Any) -> None:
        """[start, end) names `vma`, or nothing if it is None."""
        kept = []
        for low, high, other in self.ranges:
            if low < start:
                kept.append((low, min(high, start), other))
            if high > end:
                kept.append((max(low, end), high, other))
        if vma is not None:
            kept.append((start, end, vma))
        self.ranges = sorted(kept, key=lambda entry: entry[0])

    def forget(self, vma: Any) -> None:
        """Nothing names `vma` any more."""
        self.ranges = [entry for entry in self.ranges if entry[2] is not vma]

    def find(self, start: int, end: int) -> list[Any]:
        """The VMAs that are named in [start, end), ascending."""
        return [vma for low, high, vma in self.ranges if low < end and high > start]


def under_rcu(original: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A look-up: with the mmap lock as the model has it; without, in the tree as it was stored last"""

    def method(self: Any, *args: Any) -> Any:
        run = now()
        if run is None:
            return original(self, *args)
        _tree(run, self, False)
        locked = mmap_held(run, self, False)
        task, run.task = run.task, None
        try:
            tree = run.trees.get(self)
            if locked or tree is None or name not in ("vma_lookup", "vmas_in"):
                return original(self, *args)
            if name == "vmas_in":
                return tree.find(*args)
            found = tree.find(args[0], args[0] + 1)
            return found[0] if found else None
        finally:
            run.task = task

    return method


def muted(original: Callable[..., Any], before: Callable[..., None]) -> Callable[..., Any]:
    """`original` as one access, reported by `before`: what it does inside is not reported again."""

    def method(self: Any, *args: Any) -> Any:
        run = now()
        if run is None:
            return original(self, *args)
        before(run, self, *args)
        task, run.task = run.task, None
        try:
            return original(self, *args)
        finally:
            run.task = task

    return method


def _tree_insert(run: Run, mm: Any, vma: Any) -> None:
    _tree(run, mm, True)
    run.trees[mm].store(vma.vm_start, vma.vm_end, vma)


def _tree_insert_below(run: Run, mm: Any, new: Any, vma: Any, address: int, *args: Any) -> None:
    _tree(run, mm, True)
    vma_rule(run, vma, "range", True)
    run.plain(vma, "range", True)
    run.trees[mm].store(new.vm_start, address, new)


def _tree_remove(run: Run, mm: Any, vma: Any) -> None:
    _tree(run, mm, True)
    run.trees[mm].forget(vma)


def _tree_resize(run: Run, mm: Any, vma: Any, start: int, end: int, *args: Any) -> None:
    _tree(run, mm, True)
    vma_rule(run, vma, "range", True)
    run.plain(vma, "range", True)
    run.trees[mm].forget(vma)
    run.trees[mm].store(start, end, vma)


def _tree_clear(run: Run, mm: Any) -> None:
    _tree(run, mm, True)
    run.trees[mm].ranges = []


TREE_METHODS: dict[str, Callable[..., None]] = {
    "insert": _tree_insert,
    "insert_below": _tree_insert_below,
    "remove": _tree_remove,
    "resize": _tree_resize,
    "clear": _tree_clear,
}
"""Methods of an mm that change its tree, with what is reported before."""
