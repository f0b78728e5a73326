# SPDX-License-Identifier: GPL-2.0-only
"""The kernel that a world runs on: the model's own, with locks, slab caches and memory that the checker sees."""

from typing import Any

from rmaplab.check.engine import Run
from rmaplab.check.model_locks import CheckedLocks
from rmaplab.check.watch.fields import WatchedMap
from rmaplab.check.watch.model import groups_of
from rmaplab.check.watch.pagetable import WatchedPgd
from rmaplab.check.watch.tree import Tree
from rmaplab.mm.folio import ContentsMap, Folio
from rmaplab.mm.hooks import Hooks
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.slab import AllocationFailure, SlabCache, SlabSize

__all__ = ["CheckedKernel"]

BY_RCU = ("vm_area_struct", "anon_vma")
"""Caches whose freed objects stay readable until a grace period has ended: vm_area_struct through call_rcu, anon_vma
through SLAB_TYPESAFE_BY_RCU. A design says it of its own (Kernel.slab)."""
TYPESAFE = ("anon_vma",)
"""Of these, the freed memory may be a new object of the same type at once."""


class CheckedSlab(SlabCache):
    """Allocation may fail if the world says so; a typesafe cache hands out freed objects first if it says so."""

    __slots__ = ("free_list", "reuse", "run")

    def __init__(self, name: str, number: int, size: SlabSize | None, run: Run, reuse: bool) -> None:
        super().__init__(name, number, size)
        self.run = run
        self.reuse = reuse and name in TYPESAFE
        self.free_list: list[Any] = []

    def alloc(self, obj: Any) -> Any:
        run = self.run
        task = run.task
        if task is None:
            super().alloc(obj)
            return obj
        if task.failures < run.fail and run.point(f"allocate {self.name}", outcomes=2):
            task.failures += 1
            run.note(f"allocation of {self.name} fails")
            raise AllocationFailure(self.name)
        super().alloc(obj)
        if self.reuse:
            run.touch(("slab", self.name), 2)
            if self.free_list:
                return self._recycle(run, obj)
        run.note(f"new {run.name(obj)}")
        return obj

    def _recycle(self, run: Run, fresh: Any) -> Any:
        """The memory of the object freed last becomes `fresh`"""
        old = self.free_list.pop()
        task, run.task = run.task, None
        for cls in type(fresh).__mro__:
            for slot in vars(cls).get("__slots__", ()):
                if hasattr(fresh, slot):
                    value = getattr(fresh, slot)
                    setattr(old, slot, old if value is fresh else list(value) if isinstance(value, list) else value)
        run.task = task
        del run.freed[id(old)]
        for group in groups_of(type(old)):
            run.touch((run.name(old), group), 2)
        run.note(f"new {run.name(old)}, in the memory of the one that was freed")
        return old

    def free(self, obj: Any) -> None:
        super().free(obj)
        run = self.run
        run.free(obj, groups_of, self.rcu or self.name in BY_RCU)
        if self.reuse and run.task is not None:
            run.touch(("slab", self.name), 2)
            self.free_list.append(obj)


class CheckedMemMap(ContentsMap):
    """Frames are not used again, so that a stale entry is seen to be one."""

    __slots__ = ("run",)

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def free(self, folio: Folio) -> None:
        run = self.run
        pfn, nr_pages = folio.pfn, folio.nr_pages
        self.pages[pfn : pfn + nr_pages] = [None] * nr_pages
        self._free_large.setdefault(nr_pages, []).append(pfn)
        for page in range(pfn, pfn + nr_pages):
            self.contents.pop(page, None)
        run.free(folio, groups_of, False)

    def alloc(self) -> Folio:
        return self.alloc_large(1)

    def alloc_large(self, nr_pages: int) -> Folio:
        folio = Folio(len(self.pages), nr_pages)  # no scheduling point: nobody else can know it yet
        self.pages.extend([folio] * nr_pages)
        return folio

    def copy(self, to: int, source: int) -> None:
        run = self.run
        if run.task is not None:
            run.touch(("page", run.name(self.pages[source])), 1)
            run.touch(("page", run.name(self.pages[to])), 2)
        super().copy(to, source)


class CheckedKernel(Kernel):
    """A kernel under the checker.

    order: the lock order learned so far; reuse: freed anon_vmas are handed out again
    """

    def __init__(
        self, hooks: Hooks, run: Run, order: dict[tuple[str, str], str], *, reuse: bool, **options: Any
    ) -> None:
        self.run = run
        self.reuse = reuse
        self.mms: list[Mm] = []
        super().__init__(hooks, locks=CheckedLocks(run, order), contents=True, **options)
        self.mem = CheckedMemMap(run)
        for name in getattr(hooks, "per_mm", ()):
            setattr(hooks, name, WatchedMap(getattr(hooks, name), name))

    def slab_cache(self, name: str, number: int, size: SlabSize | None) -> SlabCache:
        return CheckedSlab(name, number, size, self.run, self.reuse)

    def mm_free(self, mm: Mm) -> None:
        super().mm_free(mm)
        self.run.free(mm, groups_of, getattr(self.hooks, "mm_by_rcu", False))

    def mm_alloc(self) -> Mm:
        mm = super().mm_alloc()
        mm.pgd = WatchedPgd(mm)
        self.run.name(mm)
        self.run.trees[mm] = Tree(())
        self.mms.append(mm)
        return mm
