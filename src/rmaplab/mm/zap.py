# SPDX-License-Identifier: GPL-2.0-only
"""Taking page-table entries away (zap_page_range and friends, mm/memory.c)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rmaplab.mm.flags import PMD_SHIFT, PMD_SIZE, PTRS_PER_PTE
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT, WRITE, PageTable, tables_in
from rmaplab.mm.stable_node import folio_test_ksm
from rmaplab.mm.swap import zap_nonpresent

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm

__all__ = ["split_huge_pmd", "split_huge_pmd_if_needed", "zap_all", "zap_range"]


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


def _zap_special(mm: "Mm", table: PageTable) -> None:
    """The same for the entries of `table`, where they may be of any kind (``kernel.special``)."""
    kernel = mm.kernel
    folio_removed = kernel.folio_removed
    for vpn, entry in table.items():
        if entry & KIND_MASK != PRESENT:
            zap_nonpresent(kernel, mm, vpn, entry)
            continue
        folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
        assert folio is not None
        if folio_removed is not None and not folio_test_ksm(folio):
            folio_removed(folio, mm, vpn << 12)
        folio.mapcount -= 1
        if not folio.mapcount:
            if folio.refs:
                kernel.swap.free_swap_cache(folio)  # free_folio_and_swap_cache
            else:
                kernel.mem.free(folio)


def zap_range(mm: "Mm", start: int, end: int) -> None:
    """Unmap all pages in [start, end) (bytes) (zap_page_range_single)."""
    pgd = mm.pgd
    if not pgd:
        return
    kernel = mm.kernel
    special = kernel.special
    first, last = start >> 12, end >> 12
    for i in tables_in(pgd, first, last):
        table = pgd[i]
        low, high = i << 9, (i + 1) << 9
        if isinstance(table, int):
            if first <= low and high <= last:
                del pgd[i]
                if special:
                    _zap_special(mm, {low: table})
                else:
                    _zap_entries(kernel, (table,))
                continue
            table = split_huge_pmd(mm, i)
        with kernel.locks.page_table(mm, low << 12):
            if first <= low and high <= last:
                del pgd[i]
                if special:
                    _zap_special(mm, table)
                else:
                    _zap_entries(kernel, table.values())
                continue
            gone = {vpn: table.pop(vpn) for vpn in list(table) if first <= vpn < last}
            if special:
                _zap_special(mm, gone)
            else:
                _zap_entries(kernel, gone.values())
        if not table:
            del pgd[i]


def zap_all(mm: "Mm") -> None:
    """Unmap everything (unmap_vmas of exit_mmap)."""
    kernel = mm.kernel
    for i in list(mm.pgd):
        table = mm.pgd.pop(i)
        if kernel.special:
            _zap_special(mm, {i << 9: table} if isinstance(table, int) else table)
        else:
            _zap_entries(kernel, (table,) if isinstance(table, int) else table.values())


def split_huge_pmd(mm: "Mm", i: int) -> PageTable:
    """Turn the PMD entry at index `i` into a table of 512 entries (__split_huge_pmd_locked)."""
    entry = mm.pgd[i]
    assert isinstance(entry, int)
    folio = mm.kernel.mem.pages[entry >> ENTRY_SHIFT]
    assert folio is not None
    bits = entry & (PRESENT | WRITE)
    table = {(i << 9) + k: (folio.pfn + k) << ENTRY_SHIFT | bits for k in range(PTRS_PER_PTE)}
    folio.mapcount += PTRS_PER_PTE - 1
    mm.pgd[i] = table
    return table


def split_huge_pmd_if_needed(mm: "Mm", address: int) -> None:
    """A VMA is about to begin or end at `address`: no PMD entry may straddle it (vma_adjust_trans_huge)."""
    if address & (PMD_SIZE - 1) and isinstance(mm.pgd.get(address >> PMD_SHIFT), int):
        split_huge_pmd(mm, address >> PMD_SHIFT)
