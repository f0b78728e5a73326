# SPDX-License-Identifier: GPL-2.0-only
"""CoW context: one object for each address space that has anonymous memory, in a tree that mirrors the forks.

After the proposal of Lorenzo Stoakes (LSF/MM/BPF 2026; LWN 1072378 "Keeping COWs in context"). A folio names a
context whose subtree holds every mm that may map it; a walk descends the subtree and finds the VMA in each mm by
``folio->index``. That is easy while address = index: it breaks for what mremap has moved, and for private file
mappings, whose index is a file offset. For these a context keeps *remap records*.

Only the outline is public. Ours are: the form of the records (one for each base at which an mm has faulted VMAs), the
locks, merging, and how the contexts of dead processes go away. docs/designs/cow_context.md tells which is which. The
walk, and what it relies on: :mod:`rmaplab.designs.cow_walk`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

from rmaplab.designs.cow_tree import CONTEXT_SIZE, REMAP_SIZE, CowContext, Remap
from rmaplab.designs.cow_walk import CowWalk
from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.vma import Vma

__all__ = ["CowContext", "CowContextDesign", "Remap"]


def _base(vma: Vma) -> int:
    return vma.vm_start - (vma.vm_pgoff << PAGE_SHIFT)


class CowContextDesign(CowWalk):
    """``vma->anon_vma`` holds the :class:`Remap` for the base of the VMA, None while the VMA is unfaulted."""

    name = "cow_context"
    objects: ClassVar[tuple[type, ...]] = (CowContext, Remap)
    per_mm: ClassVar = ("contexts",)
    wants_removals = False
    wants_migration_entries = False

    def attach(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._contexts = kernel.slab("cow_context", CONTEXT_SIZE, rcu=True)
        self._remaps = kernel.slab("cow_remap", REMAP_SIZE)
        self.contexts: dict[Mm, CowContext] = {}  # mm_struct's pointer

    # --- objects

    def _own_context(self, mm: Mm) -> CowContext:
        """The context of an mm that is nobody's child, made at its first fault."""
        context = self.contexts.get(mm)
        if context is None:
            fresh = self._contexts.alloc(CowContext(mm, None))
            with self.kernel.locks.page_table_lock(mm):
                context = self.contexts.setdefault(mm, fresh)
            if context is not fresh:  # another fault was first
                self._free(fresh)
        return context

    def _hold(self, vma: Vma, context: CowContext) -> None:
        """`vma` becomes faulted, with the record of its base. Only the allocation may fail, before anything changed."""
        self._join(vma, context, self._spare(vma, context))

    def _spare(self, vma: Vma, context: CowContext) -> Remap | None:
        """A new record for the base of `vma`, if there is none and it is not 0. Not under the lock, which reclaim, and
        so the allocation, may wait for."""
        base = _base(vma)
        if not base:
            return None
        with self.kernel.locks.anon_vma_read(context):
            if base in context.remaps:  # stays: records go under the mmap lock held for writing
                return None
        return self._remaps.alloc(Remap(context, base))

    def _join(self, vma: Vma, context: CowContext, spare: Remap | None) -> None:
        base = _base(vma)
        with self.kernel.locks.anon_vma_write(context):
            if vma.anon_vma is None:  # else another fault was first
                remap = context.remaps.get(base)
                if remap is None:
                    remap = context.remaps[base] = spare or Remap(context, base)
                    spare = None
                remap.vmas += 1
                remap.cover(vma.vm_pgoff, vma.pgoff_at(vma.vm_end))
                vma.anon_vma = remap
        if spare is not None:
            self._remaps.free(spare)

    def _drop(self, vma: Vma) -> None:
        """`vma` becomes unfaulted; the record goes with the last VMA at its base."""
        remap: Remap = vma.anon_vma
        with self.kernel.locks.anon_vma_write(remap.context):
            vma.anon_vma = None
            remap.vmas -= 1
            last = not remap.vmas
            if last:
                del remap.context.remaps[remap.base]
        if last and remap.base:
            self._remaps.free(remap)

    # --- hook 1

    def anon_vma_prepare(self, vma: Vma) -> None:
        """The first fault of the mm makes the context; the first at a base that is not 0 makes a record."""
        self._hold(vma, self._own_context(vma.vm_mm))

    # --- hook 2

    def folio_set_anon(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """A folio names the context of its mm; one that relatives may share, the root. Both without the lock of the
        tree, under that of a page table."""
        context: CowContext = vma.anon_vma.context
        folio.mapping = context if exclusive else context.root
        folio.index = vma.vm_pgoff + ((address - vma.vm_start) >> PAGE_SHIFT)

    def folio_move_anon_rmap(self, folio: Folio, vma: Vma) -> None:
        """From an ancestor's context to that of the only mm that is left."""
        folio.mapping = vma.anon_vma.context

    # --- hook 5

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> None:
        """The first faulted VMA makes the child's context, below the parent's; each inherits its record. All of it is
        in place before an entry is copied."""
        if pvma.anon_vma is None:
            return
        vma.anon_vma = None
        context = self.contexts.get(vma.vm_mm)
        if context is None:
            parent: CowContext = pvma.anon_vma.context
            context = self._contexts.alloc(CowContext(vma.vm_mm, parent))
            with self.kernel.locks.anon_vma_write(parent):
                parent.adopt(context)
            self.contexts[vma.vm_mm] = context
        self._hold(vma, context)

    # --- hook 6

    def try_dup_anon_rmap(self, folio: Folio, vma: Vma, pvma: Vma) -> bool | None:
        """A folio that names an unnamed context names that of the parent from now on, as it should have before. Without
        the lock of the tree: an unnamed context stays as long as the parent, the only process that has its folios."""
        context = folio.mapping
        if isinstance(context, CowContext) and context.unnamed:
            folio.mapping = pvma.anon_vma.context
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
        """The context stays as long as the mm. Page tables may be freed afterwards: walks have left the VMA."""
        if vma.anon_vma is not None:
            self._drop(vma)

    def anon_vma_lock(self, vma: Vma) -> AbstractContextManager[Any]:
        """The lock of the tree; when the range of `vma` has changed, that of its record follows."""
        return nullcontext() if vma.anon_vma is None else self._resizing(vma)

    @contextmanager
    def _resizing(self, vma: Vma) -> Iterator[None]:
        remap: Remap = vma.anon_vma
        with self.kernel.locks.anon_vma_write(remap.context):
            yield
            if _base(vma) == remap.base:
                remap.cover(vma.vm_pgoff, vma.pgoff_at(vma.vm_end))
        self._rebase(vma)

    def _rebase(self, vma: Vma) -> None:
        """The stack of an execve keeps its VMA and gets a new base. Until its pages have followed no walk finds them;
        mainline has that, too (vma_is_temporary_stack). execve fails with the allocation."""
        remap: Remap = vma.anon_vma
        if _base(vma) != remap.base:
            spare = self._spare(vma, remap.context)
            self._drop(vma)
            self._join(vma, remap.context, spare)

    # --- hook 9

    def copy_vma(self, vma: Vma, pgoff_kept: bool) -> bool:
        """Entries move under the lock of the tree: which of two records a walk looks at first is not known."""
        return True

    def move_page_tables(self, folio: Folio, vma: Vma, new_vma: Vma) -> None:
        """Hook 7 has recorded the base of the copy. Only the stack of an execve, where mm moves it without hook 7 since
        nobody can be walking, changes its base here."""
        if vma is new_vma:
            self._rebase(vma)

    # --- extra hooks

    def folio_swapped_in(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """Hook 10: while nothing mapped the folio, hook 6 did not see it, and its context may be gone."""
        context: CowContext = vma.anon_vma.context
        folio.mapping = context if exclusive and folio.nr_pages == 1 else context.root

    def collapse_lock(self, vma: Vma) -> AbstractContextManager[Any]:
        """Hook 13: the lock of the tree."""
        return self.kernel.locks.anon_vma_write(vma.anon_vma.context)  # type: ignore[no-any-return]

    def folio_removed(self, folio: Folio, mm: Mm, address: int) -> None:
        """Hook 14: not wanted."""

    def mm_gone(self, mm: Mm) -> None:
        """Hook 15: the context forgets its mm, under the lock, and stays while it has children. Dead ancestors that no
        folio can name any more are taken out of the tree."""
        context = self.contexts.pop(mm, None)
        if context is not None:
            with self.kernel.locks.anon_vma_write(context):
                context.mm = None
                unnamed = context.cut_out_unnamed()
            for dead in unnamed:
                self._put(dead)
            self._put(context)
        self.kernel.mmdrop(mm)

    # --- figures

    def walk_lookups(self, folio: Folio) -> int:
        """Searches in VMA trees that a walk makes: one for each record, also those that find nothing."""
        return sum(len(context.in_range(folio)) for context in folio.mapping.subtree())

    def vma_fields(self) -> dict[str, int]:
        """Bytes that the design adds to vm_area_struct, by field: the list head of the AVCs goes."""
        return {"anon_vma_chain": -16}
