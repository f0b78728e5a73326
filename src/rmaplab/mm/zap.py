# SPDX-License-Identifier: GPL-2.0-only
"""Taking page-table entries away, then what hides the VMAs from walks (zap_page_range and friends, mm/memory.c).

An entry goes under its page-table lock; the reference that came with it goes later, with the batch of the mmu_gather.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rmaplab.mm.flags import PMD_SHIFT, PMD_SIZE
from rmaplab.mm.folio import Folio
from rmaplab.mm.huge_pmd import split_huge_pmd_locked
from rmaplab.mm.pagetable import ENTRY_SHIFT, GUARD, KIND_MASK, PRESENT, PageTable, tables_in
from rmaplab.mm.rmap import folio_remove_rmap
from rmaplab.mm.swap import free_folio_and_swap_cache, zap_nonpresent

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import Vma

__all__ = ["free_pgtables", "tlb_finish_mmu", "zap_all", "zap_range"]


def _zap_entries(kernel: "Kernel", entries: Iterable[int]) -> None:
    """Drop the mappings that `entries` are, and each folio with its last one."""
    pages = kernel.mem.pages
    free = kernel.mem.free
    for entry in entries:
        if entry & KIND_MASK == PRESENT:
            folio = pages[entry >> ENTRY_SHIFT]
            folio.mapcount -= 1  # type: ignore[union-attr]
            if not folio.mapcount and not folio.refs:  # type: ignore[union-attr]
                free(folio)  # type: ignore[arg-type]


def _zap_special(mm: "Mm", table: PageTable, vpns: Iterable[int], batch: list[Folio]) -> None:
    """Take the entries of `vpns` out of `table`, where they may be of any kind (``kernel.special``): zap_pte_range. The
    page-table lock is held; the references go to `batch`."""
    kernel = mm.kernel
    for vpn in vpns:
        entry = table.pop(vpn)
        if entry & KIND_MASK != PRESENT:
            zap_nonpresent(kernel, mm, vpn, entry)
            continue
        folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
        assert folio is not None
        folio_remove_rmap(kernel, folio, mm, vpn)
        batch.append(folio)


def _zap_huge(mm: "Mm", i: int, batch: list[Folio]) -> None:
    """Take away the PMD entry at index `i` (zap_huge_pmd). Page-table lock held."""
    entry = mm.pgd.pop(i)
    assert isinstance(entry, int)
    kernel = mm.kernel
    if not kernel.special:
        _zap_entries(kernel, (entry,))
        return
    folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
    assert folio is not None
    folio_remove_rmap(kernel, folio, mm, i << 9)
    batch.append(folio)


def tlb_finish_mmu(kernel: "Kernel", batch: list[Folio]) -> None:
    """Drop the references that zapping has gathered (free_pages_and_swap_cache)."""
    for folio in batch:
        free_folio_and_swap_cache(kernel, folio)
    batch.clear()


def zap_range(mm: "Mm", start: int, end: int, batch: list[Folio] | None = None, *, markers: bool = True) -> None:
    """Unmap all pages in [start, end) (bytes) (unmap_page_range; zap_page_range_single where no `batch` is given to
    gather the references in).

    markers: also guard markers (ZAP_FLAG_DROP_MARKER)
    """
    pgd = mm.pgd
    if not pgd:
        return
    kernel = mm.kernel
    special = kernel.special
    gathered: list[Folio] = [] if batch is None else batch
    first, last = start >> 12, end >> 12
    for i in tables_in(pgd, first, last):
        low, high = i << 9, (i + 1) << 9
        whole = first <= low and high <= last
        with kernel.locks.page_table(mm, low << 12):
            table = pgd.get(i)
            if isinstance(table, int):
                if whole:
                    _zap_huge(mm, i, gathered)
                    continue
                table = split_huge_pmd_locked(mm, i)
            elif table is None:
                continue
            if special or not markers:
                vpns = [v for v, e in table.items() if first <= v < last and (markers or e != GUARD)]
                _zap_special(mm, table, vpns, gathered)
            elif whole:
                _zap_entries(kernel, table.values())
            else:
                gone = [table.pop(vpn) for vpn in list(table) if first <= vpn < last]
                _zap_entries(kernel, gone)
            if not table or (whole and not special and markers):
                del pgd[i]  # in the kernel an empty table stays until free_pgtables
    if batch is None:
        tlb_finish_mmu(kernel, gathered)


def zap_all(mm: "Mm", batch: list[Folio]) -> None:
    """Unmap everything, one table at a time (unmap_vmas of exit_mmap)."""
    kernel = mm.kernel
    pgd = mm.pgd
    if not kernel.special:
        for pmd in pgd.values():
            _zap_entries(kernel, (pmd,) if isinstance(pmd, int) else pmd.values())
        pgd.clear()
        return
    for i in list(pgd):
        with kernel.locks.page_table(mm, i << PMD_SHIFT):
            table = pgd.get(i)
            if isinstance(table, int):
                _zap_huge(mm, i, batch)
            elif table is not None:
                _zap_special(mm, table, list(table), batch)
                del pgd[i]


def free_pgtables(mm: "Mm", vmas: Sequence["Vma"], mm_wr_locked: bool = True) -> None:
    """`vmas`, ascending, are zapped: hide each from walks, then free the page tables of it and its neighbours.

    mm_wr_locked: the mmap lock is held for writing, else for reading, and the VMAs are out of their tree
    """
    locks = mm.kernel.locks
    unlink_anon_vmas = mm.kernel.hooks.unlink_anon_vmas
    if not mm.kernel.special:
        for vma in vmas:
            unlink_anon_vmas(vma)
        return
    start = end = None
    for vma in vmas:
        if end is None or vma.vm_start > end + PMD_SIZE:
            if end is not None:
                locks.free_pgtables(mm, start, end)
            start = vma.vm_start
        end = vma.vm_end
        if mm_wr_locked:
            locks.vma_start_write(vma)
        unlink_anon_vmas(vma)
    if end is not None:
        locks.free_pgtables(mm, start, end)
