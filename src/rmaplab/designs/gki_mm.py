# SPDX-License-Identifier: GPL-2.0-only
"""The hook form restricted to anonymous VMAs with mapping base 0 (claims C and D): ``folio->mapping`` names the mm,
``folio->index`` gives the address. No root VMA, no reference count in the VMA.

Base 0 holds for a fresh anonymous mapping as long as it is not moved. Not for a private file mapping, nor for the
stack of an execve once relocate_vma_down has moved it, nor for anything that mremap moved: those are regular.

What keeps the mm valid for a walker whose folio was just unmapped is no VMA any more: the walker pins the mm itself
(hook 4), and since an mm_struct is not type-stable its freeing has to wait for walkers that have read
``folio->mapping`` but not pinned it yet: extra hook 15.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from rmaplab.designs.anon_vma import AnonVma
from rmaplab.designs.gki import LazyLock, LazyMark
from rmaplab.designs.lazy_root import mapping_base
from rmaplab.designs.lazy_walk import LazyWalk, Pinned
from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.mm import Mm
from rmaplab.mm.vma import Vma

__all__ = ["GkiMmDesign"]


def _at_base_0(vma: Vma) -> bool:
    return vma.anon_vma is not None and not mapping_base(vma)


class GkiMmDesign(LazyMark, LazyWalk):
    """`gki` without root VMAs.

    locks, opt_in: as in :class:`~rmaplab.designs.gki.GkiDesign`
    """

    name = "gki_mm"
    named = Mm
    walk_locks_vma = False
    pin_locks_vmas = False
    mm_by_rcu = False  # mm_struct's memory is kept until a grace period has ended, and who walks becomes a user of it

    def __init__(self, *, locks: int = 1, opt_in: str = "start") -> None:
        self.init_mark(locks, opt_in)

    # --- what a lazy folio names

    def mm_of(self, named: Mm) -> Mm:
        return named

    def base_of(self, named: Mm) -> int:
        return 0

    def belongs_to(self, named: Mm) -> Callable[[Vma], bool]:
        return _at_base_0

    def walk_lock(self, named: Mm) -> AnonVma | None:
        return self.lock_of(named)

    def try_hold(self, named: Mm) -> bool:
        return named.try_grab()

    def let_go(self, named: Mm) -> None:
        self.kernel.mmdrop(named)

    def walker_is_user(self) -> bool:
        return self.mm_by_rcu

    # --- lazy VMAs

    @staticmethod
    def is_lazy(vma: Vma) -> bool:
        """Marked by a shared lock."""
        return isinstance(vma.anon_vma, LazyLock)

    def owner(self, vma: Vma) -> AnonVma | None:
        return None if self.is_lazy(vma) else vma.anon_vma

    def _singular(self, vma: Vma) -> bool:
        return self.is_lazy(vma) or super()._singular(vma)

    def upgrade(self, vma: Vma) -> None:
        """Give a lazy `vma`, and the lazy VMAs that lie next to it without a gap, one regular anon_vma: a large folio
        may span several of them."""
        if not self.is_lazy(vma):
            return
        run = [vma]
        while (prev := vma.vm_mm.prev_next(run[0])[0]) and self.is_lazy(prev) and prev.vm_end == run[0].vm_start:
            run.insert(0, prev)
        while (next_ := vma.vm_mm.prev_next(run[-1])[1]) and self.is_lazy(next_) and next_.vm_start == run[-1].vm_end:
            run.append(next_)
        self.link_all(run, self._new_root())

    # --- hook 1

    def anon_vma_prepare(self, vma: Vma) -> None:
        """Lazy if at base 0, unless it may merge one day with a neighbour that is regular already."""
        with self.kernel.locks.lockless():
            neighbour = self._find_mergeable_vma(vma)
            regular_neighbour = neighbour is not None and not self.is_lazy(neighbour)
        if regular_neighbour or not vma.is_anonymous() or mapping_base(vma) or not self.opted_in(vma.vm_mm):
            super().anon_vma_prepare(vma)
        else:
            with self.kernel.locks.page_table_lock(vma.vm_mm):
                if vma.anon_vma is None:
                    vma.anon_vma = self.lock_of(vma.vm_mm)

    # --- hook 2

    def folio_set_anon(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """A folio of a lazy VMA names the mm."""
        if not self.is_lazy(vma):
            super().folio_set_anon(folio, vma, address, exclusive)
            return
        folio.mapping = vma.vm_mm
        folio.index = address >> PAGE_SHIFT

    def folio_move_anon_rmap(self, folio: Folio, vma: Vma) -> None:
        folio.mapping = vma.vm_mm if self.is_lazy(vma) else vma.anon_vma

    # --- hook 5

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> None:
        """The lazy VMAs of the parent are upgraded, all with one anon_vma: at base 0 no two of them have an index in
        common, so a walk visits none in vain. The rest is mainline's."""
        self.forked.add(vma.vm_mm)
        if self.is_lazy(pvma):
            self.link_all([v for v in pvma.vm_mm.vmas if self.is_lazy(v)], self._new_root())
        super().anon_vma_fork(vma, pvma)

    # --- hook 7

    def unlink_anon_vmas(self, vma: Vma) -> None:
        if self.is_lazy(vma):
            vma.anon_vma = None
        else:
            super().unlink_anon_vmas(vma)

    # --- hook 9

    def copy_vma(self, vma: Vma, pgoff_kept: bool) -> None:
        """The pages are about to leave base 0."""
        self.upgrade(vma)

    def move_page_tables(self, folio: Folio, vma: Vma, new_vma: Vma) -> None:
        """Also where copy_vma was not asked: relocate_vma_down moves the stack of an execve within its VMA."""
        if isinstance(folio.mapping, Mm):
            self.upgrade(new_vma)
            folio.mapping = new_vma.anon_vma

    # --- extra hooks

    def ksm_pin(self, vma: Vma) -> Any:
        """Hook 11: KSM wants a regular anon_vma."""
        self.upgrade(vma)
        return super().ksm_pin(vma)

    def split_lock(self, pinned: Any) -> AbstractContextManager[Any]:
        """Hook 16: unchanged code finds the shared lock."""
        if isinstance(pinned, Pinned):
            return self.kernel.locks.anon_vma_write(self.lock_of(pinned.named))  # type: ignore[no-any-return]
        return super().split_lock(pinned)

    def mm_gone(self, mm: Mm) -> None:
        """Hook 15: the mm_struct is freed only after the last pin, and after a grace period for those who have not
        pinned it yet."""
        self.forked.discard(mm)
        super().mm_gone(mm)

    # --- figures

    def vma_fields(self) -> dict[str, int]:
        return {}
