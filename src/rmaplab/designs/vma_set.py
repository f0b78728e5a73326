# SPDX-License-Identifier: GPL-2.0-only
"""Each folio keeps the set of the VMAs that map it: the exact walk, at the highest price. A yardstick, not a proposal.

In spirit the pte_chains of the 2.5 kernels (mm/rmap.c there, Rik van Riel), which kept a pointer to each page-table
entry; an element for a VMA does the same work while it lives and has to be handed over where VMAs split, merge and
move. ``folio->mapping`` heads the list. A walk never visits a VMA that does not map the folio; for that every entry
that comes or goes, and every VMA that changes, pays.

The list has a spinlock inside of the page-table locks. Everything that changes VMAs or hands members over has the VMAs
locked for writing, and walks lock them for reading: :mod:`rmaplab.designs.vma_set_walk`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

from rmaplab.designs.vma_list import LINK_SIZE, Link, Members, Relatives, folios_in_table, maps
from rmaplab.designs.vma_set_walk import VmaSetWalk
from rmaplab.mm.flags import PAGE_SHIFT, PMD_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.pagetable import tables_in
from rmaplab.mm.vma import Vma

__all__ = ["Link", "VmaSetDesign"]

_FAULTED = "faulted"  # what vma->anon_vma holds: a mark


class VmaSetDesign(VmaSetWalk):
    """``folio.mapping`` is the list: :class:`Members`."""

    name = "vma_set"
    objects: ClassVar[tuple[type, ...]] = (Members, Relatives)
    wants_removals = True
    wants_migration_entries = False

    def attach(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._links = kernel.slab("folio_vma_link", LINK_SIZE)
        self.relatives = Relatives()

    # --- the list of a folio

    def _add(self, folio: Folio, vma: Vma) -> None:
        members = folio.mapping
        if isinstance(members, Members):  # else KSM has it since
            with self._list_lock(members):
                self._replace(members, [], vma)

    def _replace(self, members: Members, gone: list[Vma], vma: Vma) -> None:
        """`vma` is a member, those that are `gone` are none any more: its element may be one of theirs. Locked."""
        if vma not in members.vmas:
            members.vmas[vma] = members.vmas.pop(gone.pop()) if gone else self._link()
        for other in gone:
            self._links.free(members.vmas.pop(other))

    def _hand_over(self, vma: Vma, start: int, end: int) -> None:
        """What is mapped in [start, end) belongs to `vma` now: a walk of that part of the page tables. The VMAs of both
        sides are locked for writing: nobody walks there, and nothing there is pinned."""
        mm = vma.vm_mm
        taken = range(start >> PAGE_SHIFT, end >> PAGE_SHIFT)
        for i in tables_in(mm.pgd, taken.start, taken.stop) if taken else ():
            with self.kernel.locks.page_table(mm, i << PMD_SHIFT):
                for folio in folios_in_table(mm, i, taken):
                    members = folio.mapping
                    if not isinstance(members, Members):
                        continue
                    with self._list_lock(members):
                        others = [other for other in members.vmas if other.vm_mm is mm and other is not vma]
                        if folio.nr_pages > 1:
                            others = [other for other in others if not maps(folio, other, but=taken)]
                        self._replace(members, others, vma)

    # --- hooks 1 and 2

    def anon_vma_prepare(self, vma: Vma) -> None:
        """Hook 1: a mark, so that the VMA reads as faulted."""
        vma.anon_vma = _FAULTED

    def folio_set_anon(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """Hook 2: a new list with one member."""
        members = Members()
        members.vmas[vma] = self._link()
        folio.index = vma.vm_pgoff + ((address - vma.vm_start) >> PAGE_SHIFT)
        folio.mapping = members

    def folio_move_anon_rmap(self, folio: Folio, vma: Vma) -> None:
        """Hook 2: nothing, the list is right already."""

    # --- hooks 5 and 6

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> None:
        """Hook 5: the child's mm joins its relatives, for KSM; the mark came with the copy of the VMA."""
        if pvma.anon_vma is None:
            return
        with self.kernel.locks.anon_vma_write(self.relatives):
            rings = self.relatives.rings
            if vma.vm_mm not in rings:
                ring = rings.setdefault(pvma.vm_mm, [pvma.vm_mm])
                ring.append(vma.vm_mm)
                rings[vma.vm_mm] = ring

    def try_dup_anon_rmap(self, folio: Folio, vma: Vma, pvma: Vma) -> bool | None:
        """Hook 6: the child's VMA becomes a member, before the entry is there."""
        self._add(folio, vma)
        return None

    # --- hook 7

    def anon_vma_clone(self, dst: Vma, src: Vma) -> None:
        """The mark, which came with the copy. What changes hands does so when the range changes: anon_vma_lock."""

    def dup_anon_vma(self, dst: Vma, src: Vma) -> None:
        """The mark."""
        if src.anon_vma is not None:
            dst.anon_vma = _FAULTED

    def unlink_anon_vmas(self, vma: Vma) -> None:
        """Nothing is mapped in `vma` any more, so it is in no list."""
        vma.anon_vma = None

    def anon_vma_lock(self, vma: Vma) -> AbstractContextManager[Any]:
        """No lock, for the VMA is locked for writing; but what is mapped where the range has changed changes hands."""
        return nullcontext() if vma.anon_vma is None else self._resizing(vma)

    @contextmanager
    def _resizing(self, vma: Vma) -> Iterator[None]:
        start, end = vma.vm_start, vma.vm_end
        yield
        self._hand_over(vma, vma.vm_start, start)
        self._hand_over(vma, end, vma.vm_end)
        for low, high in ((start, vma.vm_start), (vma.vm_end, end)):
            for other in vma.vm_mm.vmas_in(low, high) if low < high else ():
                self._hand_over(other, max(low, other.vm_start), min(high, other.vm_end))

    # --- hook 9

    def move_page_tables(self, folio: Folio, vma: Vma, new_vma: Vma) -> None:
        """The entry has left `vma` (a PMD entry is about to) and is in `new_vma`."""
        members = folio.mapping
        if vma is new_vma or not isinstance(members, Members):
            return
        with self._list_lock(members):
            left = vma in members.vmas and (folio.nr_pages == 1 or not maps(folio, vma, huge=False))
            self._replace(members, [vma] if left else [], new_vma)

    # --- extra hooks

    def folio_swapped_in(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """Hook 10: `vma` becomes a member again."""
        self._add(folio, vma)

    def folio_removed(self, folio: Folio, mm: Mm, address: int) -> None:
        """Hook 14: a member goes with its last entry; one that is pinned stays, and is looked at when the pin goes."""
        members = folio.mapping
        if not isinstance(members, Members):
            return  # under migration: another folio has the list
        page = range(address >> PAGE_SHIFT, (address >> PAGE_SHIFT) + 1)
        with self._list_lock(members):
            vma = self._member_at(members, mm, address)
            if vma is None or vma in members.pinned:
                return
            if folio.nr_pages == 1 or not maps(folio, vma, but=page):
                self._links.free(members.vmas.pop(vma))

    def _member_at(self, members: Members, mm: Mm, address: int) -> Vma | None:
        """The member that contains `address`, which does not change; others of the same mm, which a large folio may
        have, may do so, but do not come to contain it."""
        found = [vma for vma in members.vmas if vma.vm_mm is mm]
        if len(found) < 2:
            return found[0] if found else None
        with self.kernel.locks.lockless():
            return next((vma for vma in found if vma.vm_start <= address < vma.vm_end), None)

    def mm_gone(self, mm: Mm) -> None:
        """Hook 15: the mm leaves its relatives."""
        with self.kernel.locks.anon_vma_write(self.relatives):
            ring = self.relatives.rings.pop(mm, None)
            if ring is not None:
                ring.remove(mm)
        self.kernel.mmdrop(mm)

    # --- figures

    def vma_fields(self) -> dict[str, int]:
        """Bytes that the design adds to vm_area_struct, by field: the list head of the AVCs goes."""
        return {"anon_vma_chain": -16}
