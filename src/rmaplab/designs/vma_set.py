# SPDX-License-Identifier: GPL-2.0-only
"""Each folio keeps the set of the VMAs that map it: the exact walk, at the highest price. A yardstick, not a proposal.

In spirit the pte_chains of the 2.5 kernels (mm/rmap.c there, Rik van Riel), which kept a pointer to each page-table
entry; an element for a VMA does the same work while it lives and has to be handed over where VMAs split, merge and
move. ``folio->mapping`` heads the list. A walk never visits a VMA that does not map the folio; for that every entry
that comes or goes, and every VMA that changes, pays.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from rmaplab.designs.anon_vma import vma_address
from rmaplab.designs.plain_vma import PlainVmas
from rmaplab.mm.flags import PAGE_SHIFT, PMD_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.hooks import WalkContended
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, MIGRATION, PRESENT, entries, tables_in
from rmaplab.mm.stable_node import folio_test_ksm
from rmaplab.mm.vma import Vma

__all__ = ["Link", "VmaSetDesign"]

_LINK_SIZE = 24
"""Bytes of an element on a 64-bit kernel: pointer to the VMA, next, and pointer back."""

_FAULTED = "faulted"  # what vma->anon_vma holds: a mark

Members = dict[Vma, "Link"]


class Link:
    """The element of one folio and one VMA."""

    __slots__ = ()


class VmaSetDesign(PlainVmas):
    """``folio.mapping`` is the set: a dict VMA -> :class:`Link`."""

    name = "vma_set"
    wants_removals = True

    def attach(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._links = kernel.slab("folio_vma_link", _LINK_SIZE)
        self.relatives: dict[Mm, set[Mm]] = {}  # a ring through mm_struct: the mms of one tree of forks

    # --- the set of a folio

    def _add(self, folio: Folio, vma: Vma) -> None:
        members: Members = folio.mapping
        if vma not in members:
            with self.kernel.locks.anon_vma_write(folio):
                members[vma] = link = Link()
                self._links.alloc(link)

    def _discard(self, folio: Folio, vma: Vma) -> None:
        members: Members = folio.mapping
        if vma in members:
            with self.kernel.locks.anon_vma_write(folio):
                self._links.free(members.pop(vma))

    def _maps(self, folio: Folio, vma: Vma, *, but: range = range(0), huge: bool = True) -> bool:
        """Does an entry in the range of `vma` map a page of `folio`?

        but: virtual pages not to look at
        huge: may it be a PMD entry?
        """
        mm = vma.vm_mm
        start = (vma.vm_start >> PAGE_SHIFT) + folio.index - vma.vm_pgoff
        first, last = max(start, vma.vm_start >> PAGE_SHIFT), min(start + folio.nr_pages, vma.vm_end >> PAGE_SHIFT)
        pages = range(folio.pfn, folio.pfn + folio.nr_pages)
        for i in tables_in(mm.pgd, first, last) if first < last else ():
            table = mm.pgd[i]
            vpns = range(max(first, i << 9), min(last, (i + 1) << 9))
            if isinstance(table, int):
                if huge and table >> ENTRY_SHIFT in pages and any(vpn not in but for vpn in vpns):
                    return True
                continue
            for vpn in vpns:
                entry = table.get(vpn, 0)
                if entry & KIND_MASK in (PRESENT, MIGRATION) and entry >> ENTRY_SHIFT in pages and vpn not in but:
                    return True
        return False

    def _folios(self, mm: Mm, start: int, end: int) -> "dict[Folio, None]":
        """The folios of which a page is mapped in [start, end) (bytes), or was and is under migration."""
        found: dict[Folio, None] = {}
        if start < end:
            pages = self.kernel.mem.pages
            # the PMD entry that straddles the start counts, too
            for vpn, entry in entries(mm.pgd, start >> PMD_SHIFT << (PMD_SHIFT - PAGE_SHIFT), end >> PAGE_SHIFT):
                if vpn < start >> PAGE_SHIFT and not isinstance(mm.pgd[vpn >> 9], int):
                    continue
                if entry & KIND_MASK in (PRESENT, MIGRATION):
                    folio = pages[entry >> ENTRY_SHIFT]
                    if folio is not None and not folio_test_ksm(folio):
                        found[folio] = None
        return found

    def _hand_over(self, vma: Vma, start: int, end: int) -> None:
        """What is mapped in [start, end) belongs to `vma` now: a walk of that part of the page tables."""
        taken = range(start >> PAGE_SHIFT, end >> PAGE_SHIFT)
        for folio in self._folios(vma.vm_mm, start, end):
            self._add(folio, vma)
            for other in list(folio.mapping):
                if other.vm_mm is vma.vm_mm and other is not vma:
                    if folio.nr_pages > 1 and self._maps(folio, other, but=taken):
                        continue
                    self._discard(folio, other)

    # --- hooks 1 to 4

    def anon_vma_prepare(self, vma: Vma) -> None:
        """Hook 1: a mark, so that the VMA reads as faulted."""
        vma.anon_vma = _FAULTED

    def folio_set_anon(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """Hook 2: a new set with one member."""
        folio.mapping = {}
        folio.index = vma.vm_pgoff + ((address - vma.vm_start) >> PAGE_SHIFT)
        self._add(folio, vma)

    def folio_move_anon_rmap(self, folio: Folio, vma: Vma) -> None:
        """Hook 2: nothing, the set is right already."""

    def rmap_walk_anon(self, folio: Folio, pinned: Any = None, locked: bool = False) -> Iterator[tuple[Vma, int]]:
        """Hook 3: the members, each under its VMA lock; the folio's list is locked all the time."""
        locks = self.kernel.locks
        with locks.anon_vma_read(folio):
            for vma in list(folio.mapping):
                guard = locks.vma_start_read(vma)
                if guard is None:
                    raise WalkContended
                with guard:
                    address = vma_address(vma, folio.index, folio.nr_pages)
                    if address is not None:
                        yield vma, address

    def folio_get_anon_vma(self, folio: Folio) -> Any:
        """Hook 4: the folio itself; what it names is inside of it."""
        return folio if folio.mapcount else None

    def put_anon_vma(self, pinned: Any) -> None:
        """Hook 4: nothing."""

    # --- hooks 5 and 6

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> None:
        """Hook 5: the child's mm joins the ring of its relatives, for KSM; the mark came with the copy of the VMA."""
        if pvma.anon_vma is not None and vma.vm_mm not in self.relatives:
            ring = self.relatives.setdefault(pvma.vm_mm, {pvma.vm_mm})
            ring.add(vma.vm_mm)
            self.relatives[vma.vm_mm] = ring

    def try_dup_anon_rmap(self, folio: Folio, vma: Vma, pvma: Vma) -> bool | None:
        """Hook 6: the child's VMA becomes a member."""
        self._add(folio, vma)
        return None

    # --- hook 7

    def anon_vma_clone(self, dst: Vma, src: Vma) -> None:
        """What is mapped in the part that was split off changes hands; at the target of mremap nothing is yet."""
        if src.anon_vma is not None:
            self._hand_over(dst, dst.vm_start, dst.vm_end)

    def dup_anon_vma(self, dst: Vma, src: Vma) -> None:
        """The mark. What changes hands is known when the range has changed: anon_vma_lock."""
        if src.anon_vma is not None:
            dst.anon_vma = _FAULTED

    def unlink_anon_vmas(self, vma: Vma) -> None:
        """Nothing is mapped in `vma` any more, so it is in no set."""
        vma.anon_vma = None

    def anon_vma_lock(self, vma: Vma) -> AbstractContextManager[Any]:
        """No lock, for the VMA lock is held; but where the range has grown, what is mapped there changes hands."""
        return nullcontext() if vma.anon_vma is None else self._resizing(vma)

    @contextmanager
    def _resizing(self, vma: Vma) -> Iterator[None]:
        start, end = vma.vm_start, vma.vm_end
        yield
        self._hand_over(vma, vma.vm_start, start)
        self._hand_over(vma, end, vma.vm_end)

    # --- hook 9

    def move_page_tables(self, folio: Folio, vma: Vma, new_vma: Vma) -> None:
        """The entry has left `vma` (a PMD entry is about to) and is in `new_vma`."""
        if vma is new_vma:
            return
        self._add(folio, new_vma)
        if folio.nr_pages == 1 or not self._maps(folio, vma, huge=False):
            self._discard(folio, vma)

    # --- extra hooks

    def folio_swapped_in(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """Hook 10: `vma` becomes a member again."""
        self._add(folio, vma)

    def ksm_pin(self, vma: Vma) -> Any:
        """Hook 11: the mm; KSM forgets its pages before it goes."""
        return vma.vm_mm

    def ksm_walk(self, pinned: Any, address: int) -> Iterator[tuple[Vma, int]]:
        """Hook 11: KSM's folios have no set, so all relatives are asked at the same address."""
        for mm in list(self.relatives.get(pinned, (pinned,))):
            vma = mm.vma_lookup(address)
            if vma is not None and vma.anon_vma is not None:
                guard = self.kernel.locks.vma_start_read(vma)
                if guard is None:
                    raise WalkContended
                with guard:
                    yield vma, address

    def ksm_unpin(self, pinned: Any) -> None:
        """Hook 11: nothing."""

    def collect_procs_anon(self, folio: Folio) -> Iterator[tuple[Vma, int]]:
        """Hook 12: the same walk."""
        return self.rmap_walk_anon(folio)

    def folio_removed(self, folio: Folio, mm: Mm, address: int) -> None:
        """Hook 14: a member goes with its last entry."""
        page = range(address >> PAGE_SHIFT, (address >> PAGE_SHIFT) + 1)
        for vma in folio.mapping:
            if vma.vm_mm is mm and vma.vm_start <= address < vma.vm_end:
                if folio.nr_pages == 1 or not self._maps(folio, vma, but=page):
                    self._discard(folio, vma)
                return

    def mm_gone(self, mm: Mm) -> None:
        """Hook 15: the mm leaves the ring of its relatives."""
        self.relatives.pop(mm, set()).discard(mm)
        self.kernel.mmdrop(mm)

    @contextmanager
    def split_lock(self, pinned: Any) -> Iterator[None]:
        """Hook 16: the list of the folio is locked, and each page gets a list of its own afterwards."""
        pfn, nr_pages = pinned.pfn, pinned.nr_pages
        members: Members = pinned.mapping
        with self.kernel.locks.anon_vma_write(pinned):
            yield
        if pinned.nr_pages == nr_pages:
            return
        for page in self.kernel.mem.pages[pfn : pfn + nr_pages]:
            assert page is not None
            page.mapping = {}
            for vma in members:
                if self._maps(page, vma):
                    self._add(page, vma)
        for link in members.values():
            self._links.free(link)

    def copy_migration_entry(self, folio: Folio, vma: Vma, pvma: Vma) -> None:
        """Hook 17: the child's VMA becomes a member, as it does with a page that is present."""
        self._add(folio, vma)

    # --- figures

    def vma_fields(self) -> dict[str, int]:
        """Bytes that the design adds to vm_area_struct, by field: the list head of the AVCs goes."""
        return {"anon_vma_chain": -16}
