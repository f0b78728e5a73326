# SPDX-License-Identifier: GPL-2.0-only
"""CoW context: one object for each address space that has anonymous memory, in a tree that mirrors the forks.

After the proposal of Lorenzo Stoakes (LSF/MM/BPF 2026; LWN 1072378 "Keeping COWs in context"). A folio names a
context whose subtree holds every mm that may map it; a walk descends the subtree and finds the VMA in each mm by
``folio->index``. That is easy while address = index: it breaks for what mremap has moved, and for private file
mappings, whose index is a file offset. For these a context keeps *remap records*.

Only the outline is public. Ours are: the form of the records (one for each base at which an mm has faulted VMAs), the
locks, merging, and how the contexts of dead processes go away. docs/designs/cow_context.md tells which is which.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rmaplab.designs.cow_tree import CONTEXT_SIZE, REMAP_SIZE, CowContext, Remap
from rmaplab.designs.plain_vma import PlainVmas
from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.vma import Vma

__all__ = ["CowContext", "CowContextDesign", "Remap"]


def _base(vma: Vma) -> int:
    return vma.vm_start - (vma.vm_pgoff << PAGE_SHIFT)


class CowContextDesign(PlainVmas):
    """``vma->anon_vma`` holds the :class:`Remap` for the base of the VMA, None while the VMA is unfaulted."""

    name = "cow_context"
    wants_removals = False

    def attach(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._slab = kernel.slab("cow_context", CONTEXT_SIZE)
        self._remaps = kernel.slab("cow_remap", REMAP_SIZE)
        self.contexts: dict[Mm, CowContext] = {}  # mm_struct's pointer

    # --- objects

    def _new(self, mm: Mm, parent: CowContext | None) -> CowContext:
        context = CowContext(mm, parent)
        self._slab.alloc(context)
        self.contexts[mm] = context
        if parent is not None:
            with self.kernel.locks.anon_vma_write(parent):
                parent.children.append(context)
                parent.refcount += 1
        return context

    def _put(self, context: CowContext) -> None:
        context.refcount -= 1
        if context.refcount:
            return
        parent = context.parent
        self._free(context)
        if parent is not None:
            parent.children.remove(context)
            self._put(parent)

    def _free(self, context: CowContext) -> None:
        self._slab.free(context)
        del context.mm, context.parent, context.children, context.remaps  # poison, and no reference cycles

    def _hold(self, vma: Vma, context: CowContext) -> None:
        """`vma` is faulted, or becomes so: record its base if that is not 0."""
        base = _base(vma)
        remap = context.remaps.get(base)
        if remap is None:
            remap = Remap(context, base)
            if base:
                self._remaps.alloc(remap)
            with self.kernel.locks.anon_vma_write(context) if base else nullcontext():
                context.remaps[base] = remap
        remap.vmas += 1
        vma.anon_vma = remap
        self._cover(vma)

    def _cover(self, vma: Vma) -> None:
        """Widen the range of the record to that of `vma`, which may have grown."""
        remap: Remap = vma.anon_vma
        first, last = vma.vm_pgoff, vma.pgoff_at(vma.vm_end)
        if first < remap.first or last > remap.last:
            with self.kernel.locks.anon_vma_write(remap.context):
                remap.first, remap.last = min(remap.first, first), max(remap.last, last)

    def _drop(self, vma: Vma) -> None:
        remap: Remap = vma.anon_vma
        vma.anon_vma = None
        remap.vmas -= 1
        if remap.vmas:
            return
        with self.kernel.locks.anon_vma_write(remap.context) if remap.base else nullcontext():
            del remap.context.remaps[remap.base]
        if remap.base:
            self._remaps.free(remap)

    # --- hook 1

    def anon_vma_prepare(self, vma: Vma) -> None:
        """The first fault of the mm makes the context; the first at a base that is not 0 makes a record."""
        self._hold(vma, self.contexts.get(vma.vm_mm) or self._new(vma.vm_mm, None))

    # --- hook 2

    def folio_set_anon(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """A folio names the context of its mm; one that relatives may share, the lowest that holds all of them."""
        remap: Remap = vma.anon_vma
        folio.mapping = remap.context if exclusive else remap.context.tree()
        folio.index = index = vma.vm_pgoff + ((address - vma.vm_start) >> PAGE_SHIFT)
        if not remap.first <= index < remap.last:
            self._cover(vma)

    def folio_move_anon_rmap(self, folio: Folio, vma: Vma) -> None:
        """From an ancestor's context to that of the only mm that is left."""
        folio.mapping = vma.anon_vma.context

    # --- hook 3

    def rmap_walk_anon(self, folio: Folio, pinned: Any = None, locked: bool = False) -> Iterator[tuple[Vma, int]]:
        """In each mm of the subtree, look at the address index, and at base + index for each record in range."""
        named: CowContext = folio.mapping
        index, size = folio.index << PAGE_SHIFT, folio.nr_pages << PAGE_SHIFT
        for context in self._locked_subtree(named):
            for remap in self._in_range(context, folio):
                start = remap.base + index
                for vma in context.mm.vmas_in(start, start + size):  # type: ignore[union-attr]
                    if vma.anon_vma is remap:
                        yield vma, max(start, vma.vm_start)

    @staticmethod
    def _in_range(context: CowContext, folio: Folio) -> list[Remap]:
        index, end = folio.index, folio.index + folio.nr_pages
        return [remap for remap in context.remaps.values() if remap.first < end and index < remap.last]

    def _locked_subtree(self, named: CowContext) -> Iterator[CowContext]:
        """The lock of the named context is held all the time, that of each other one while its mm is looked at."""
        locks = self.kernel.locks
        with locks.anon_vma_read(named):
            for context in named.subtree():
                if context.mm is None:
                    continue
                if context is named:
                    yield context
                    continue
                with locks.anon_vma_read(context):
                    yield context

    # --- hook 4

    def folio_get_anon_vma(self, folio: Folio) -> Any:
        """A reference on the context, if the folio is still mapped."""
        if not folio.mapcount:
            return None
        folio.mapping.refcount += 1
        return folio.mapping

    def put_anon_vma(self, pinned: Any) -> None:
        self._put(pinned)

    # --- hook 5

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> None:
        """The first faulted VMA makes the child's context, below the parent's; each inherits its record."""
        if pvma.anon_vma is None:
            return
        context = self.contexts.get(vma.vm_mm)
        if context is None:
            parent: CowContext = pvma.anon_vma.context
            context = self._new(vma.vm_mm, parent)
            self._find_unnamed(parent)
        self._hold(vma, context)

    @staticmethod
    def _find_unnamed(parent: CowContext) -> None:
        """Dead ancestors of a process that forks for the first time have only its folios left to name them, and hook 6
        renames all that it shares with the child. What it does not share goes with it."""
        above = parent.parent
        if len(parent.children) > 1:
            return
        while above is not None and above.is_link() and above.refcount == 1:
            above.unnamed = True
            above = above.parent

    # --- hook 6

    def try_dup_anon_rmap(self, folio: Folio, vma: Vma, pvma: Vma) -> bool | None:
        """A folio that names a dead context with a single child names the lowest that will do from now on."""
        if folio.mapping.is_link():
            folio.mapping = folio.mapping.lowest()
        return None

    # --- hook 7

    def anon_vma_clone(self, dst: Vma, src: Vma) -> None:
        """A part has the base of the whole; what mremap makes has one of its own."""
        dst.anon_vma = None
        if src.anon_vma is not None:
            self._hold(dst, src.anon_vma.context)

    def dup_anon_vma(self, dst: Vma, src: Vma) -> None:
        """A merge target becomes faulted with what it grows over."""
        if src.anon_vma is not None and dst.anon_vma is None:
            self._hold(dst, src.anon_vma.context)

    def unlink_anon_vmas(self, vma: Vma) -> None:
        """The record goes with the last VMA at its base; the context stays as long as the mm."""
        if vma.anon_vma is not None:
            self._drop(vma)

    def anon_vma_lock(self, vma: Vma) -> AbstractContextManager[Any]:
        """The lock of the context, which walks hold while they look at the mm."""
        if vma.anon_vma is None:
            return nullcontext()
        return self.kernel.locks.anon_vma_write(vma.anon_vma.context)  # type: ignore[no-any-return]

    # --- hook 9

    def move_page_tables(self, folio: Folio, vma: Vma, new_vma: Vma) -> None:
        """Hook 7 has recorded the base of the copy. But the stack of an execve keeps its VMA and gets a new base."""
        self._settle(new_vma)

    def _settle(self, vma: Vma) -> None:
        if vma.anon_vma.base != _base(vma):
            context = vma.anon_vma.context
            self._drop(vma)
            self._hold(vma, context)
        self._cover(vma)

    # --- extra hooks

    def folio_swapped_in(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """Hook 10: while nothing mapped the folio, hook 6 did not see it, and its context may be gone."""
        self._settle(vma)
        if not folio.mapcount:
            context: CowContext = vma.anon_vma.context
            folio.mapping = context if exclusive and folio.nr_pages == 1 else context.tree()

    def ksm_pin(self, vma: Vma) -> Any:
        """Hook 11: a reference on the context."""
        context: CowContext = vma.anon_vma.context
        context.refcount += 1
        return context

    def ksm_walk(self, pinned: Any, address: int) -> Iterator[tuple[Vma, int]]:
        """Hook 11: the same address in each mm of the subtree. mremap gives up merged pages first."""
        for context in self._locked_subtree(pinned):
            vma = context.mm.vma_lookup(address)  # type: ignore[union-attr]
            if vma is not None and vma.anon_vma is not None:
                yield vma, address

    def ksm_unpin(self, pinned: Any) -> None:
        self._put(pinned)

    def collect_procs_anon(self, folio: Folio) -> Iterator[tuple[Vma, int]]:
        """Hook 12: the same walk."""
        return self.rmap_walk_anon(folio)

    def collapse_lock(self, vma: Vma) -> AbstractContextManager[Any]:
        """Hook 13: the lock of the context."""
        return self.anon_vma_lock(vma)

    def folio_removed(self, folio: Folio, mm: Mm, address: int) -> None:
        """Hook 14: not wanted."""

    def mm_gone(self, mm: Mm) -> None:
        """Hook 15: the context forgets its mm, under its lock, and stays while it has children. Dead ancestors that no
        folio can name any more are taken out of the tree."""
        context = self.contexts.pop(mm, None)
        if context is None:
            return
        with self.kernel.locks.anon_vma_write(context):
            context.mm = None
        while context.parent is not None and context.parent.unnamed:
            self._cut_out(context.parent)
        self._put(context)

    def _cut_out(self, dead: CowContext) -> None:
        (child,) = dead.children
        child.parent = dead.parent
        if dead.parent is not None:
            siblings = dead.parent.children
            siblings[siblings.index(dead)] = child
        self._free(dead)

    def split_lock(self, pinned: Any) -> AbstractContextManager[Any]:
        """Hook 16: the lock of the context that the folio names, which every walk for it holds from end to end."""
        return self.kernel.locks.anon_vma_write(pinned)  # type: ignore[no-any-return]

    # --- figures

    def walk_lookups(self, folio: Folio) -> int:
        """Searches in VMA trees that a walk makes: one for each record, also those that find nothing."""
        return sum(len(self._in_range(context, folio)) for context in folio.mapping.subtree())

    def vma_fields(self) -> dict[str, int]:
        """Bytes that the design adds to vm_area_struct, by field: the list head of the AVCs goes."""
        return {"anon_vma_chain": -16}
