# SPDX-License-Identifier: GPL-2.0-only
"""How :mod:`rmaplab.designs.cow_context` comes from a folio to the VMAs that may map it, and what keeps these there.

A walk holds the rwsem of the tree for reading from end to end. Everything that changes the tree, the records, or the
range of a faulted VMA holds it for writing, and so does whoever takes a VMA away before he frees page tables or the
mm_struct. So a VMA that a look-up under RCU finds, and whose word is the record, stays as it is.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rmaplab.designs.cow_tree import CowContext
from rmaplab.designs.plain_vma import PlainVmas
from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.slab import SlabCache
from rmaplab.mm.vma import Vma

__all__ = ["CowWalk"]


class CowWalk(PlainVmas):
    """Hooks 3, 4, 11, 12 and 16, and the lifetime of contexts."""

    _contexts: SlabCache

    # --- lifetime

    def _put(self, context: CowContext) -> None:
        """Drop a reference; with the last the context leaves the tree, and its parent loses one."""
        above: CowContext | None = context
        while above is not None:
            context = above
            context.refcount -= 1
            if context.refcount:
                return
            with self.kernel.locks.anon_vma_write(context):  # also waits for those who took it for another one
                above = context.parent
                if above is not None and context in above.children:
                    above.children.remove(context)
            self._free(context)

    def _free(self, context: CowContext) -> None:
        self._contexts.free(context)
        del context.mm, context.parent, context.children, context.remaps, context.root  # poison, and no cycles

    @contextmanager
    def _lock_context_of(self, folio: Folio) -> Iterator[CowContext | None]:
        """The context that a mapped folio names, its tree locked for reading; else None (folio_lock_anon_vma_read).

        RCU keeps the memory of the context, and of the root with the lock. That the folio is mapped and still names it,
        seen under the lock, says that it is in the tree: who unmaps the last page, and who renames the folio (hook 6,
        which holds neither the folio lock nor this one) and goes, needs the lock before it can be freed.
        """
        locks = self.kernel.locks
        while True:
            with locks.rcu_read():
                context = folio.mapping
                if not isinstance(context, CowContext) or not folio.mapcount:
                    break
                guard = locks.anon_vma_trylock_read(context)
                if guard is not None:
                    if folio.mapping is not context or not folio.mapcount:
                        with guard:
                            continue
                elif not context.try_get():
                    continue  # renamed meanwhile
            if guard is not None:
                with guard:
                    yield context
                return
            try:  # wait for it outside of the section, with a reference
                with locks.anon_vma_read(context):
                    if folio.mapping is context and folio.mapcount:
                        yield context
                        return
            finally:
                self._put(context)
        yield None

    # --- hook 3

    def rmap_walk_anon(self, folio: Folio, pinned: Any = None, locked: bool = False) -> Iterator[tuple[Vma, int]]:
        """In each mm of the subtree, look at the address index, and at base + index for each record in range."""
        if pinned is None and not locked:
            with self._lock_context_of(folio) as named:
                if named is not None:
                    yield from self._descend(folio, named)
        elif not isinstance(folio.mapping, CowContext):
            return
        elif locked:
            yield from self._descend(folio, folio.mapping)
        else:
            with self.kernel.locks.anon_vma_read(pinned):
                yield from self._descend(folio, folio.mapping)

    def _descend(self, folio: Folio, named: CowContext) -> Iterator[tuple[Vma, int]]:
        """The tree is locked. Entries move from one record to another under the same lock (hook 9), so that the order
        of the records does not matter."""
        rcu_read = self.kernel.locks.rcu_read
        index, size = folio.index << PAGE_SHIFT, folio.nr_pages << PAGE_SHIFT
        for context in named.subtree():
            mm = context.mm
            if mm is None:
                continue
            for remap in context.in_range(folio):
                start = remap.base + index
                with rcu_read():
                    found = [vma for vma in mm.vmas_in(start, start + size) if vma.anon_vma is remap]
                for vma in found:
                    if vma.vm_start < start + size and vma.vm_end > start:
                        yield vma, max(start, vma.vm_start)

    def collect_procs_anon(self, folio: Folio) -> Iterator[tuple[Vma, int]]:
        """Hook 12: the same walk."""
        return self.rmap_walk_anon(folio)

    # --- hook 4

    def folio_get_anon_vma(self, folio: Folio) -> Any:
        """A reference on the context, if the folio is still mapped. What it becomes may name the context from now on
        without hook 6 having seen it, so the context is not one that no folio will name."""
        with self._lock_context_of(folio) as context:
            if context is not None:
                context.refcount += 1
                if context.unnamed:
                    context.unnamed = False
            return context

    def put_anon_vma(self, pinned: Any) -> None:
        self._put(pinned)

    def split_lock(self, pinned: Any) -> AbstractContextManager[Any]:
        """Hook 16: the lock of the tree, which every walk for the folio holds from end to end."""
        return self.kernel.locks.anon_vma_write(pinned)  # type: ignore[no-any-return]

    # --- hook 11

    def ksm_pin(self, vma: Vma) -> Any:
        """A reference on the context."""
        context: CowContext = vma.anon_vma.context
        context.refcount += 1
        return context

    def ksm_walk(self, pinned: Any, address: int) -> Iterator[tuple[Vma, int]]:
        """The same address in each mm of the subtree that has a faulted VMA: exit unlinks all before it frees any,
        which the VMA tree forgets last. mremap gives up merged pages first."""
        locks = self.kernel.locks
        with locks.anon_vma_read(pinned):
            for context in pinned.subtree():
                mm = context.mm
                if mm is None or not context.remaps:
                    continue
                with locks.rcu_read():
                    vma = mm.vma_lookup(address)
                    faulted = vma is not None and vma.anon_vma is not None
                if vma is not None and faulted and vma.vm_start <= address < vma.vm_end:
                    yield vma, address

    def ksm_unpin(self, pinned: Any) -> None:
        self._put(pinned)
