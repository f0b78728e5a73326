# SPDX-License-Identifier: GPL-2.0-only
"""Taking page-table entries away (zap_page_range and friends, mm/memory.c)."""

from typing import TYPE_CHECKING

from rmaplab.mm.flags import PMD_SHIFT, PMD_SIZE, PTRS_PER_PTE
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT, WRITE, PageTable, tables_in

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm

__all__ = ["split_huge_pmd", "split_huge_pmd_if_needed", "zap_all", "zap_range"]


def _zap_entry(kernel: "Kernel", entry: int) -> None:
    """Drop the mapping that `entry` is, and the folio with its last one."""
    if entry & KIND_MASK != PRESENT:
        return
    folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
    assert folio is not None
    folio.mapcount -= 1
    if not folio.mapcount and not folio.refs:
        kernel.mem.free(folio)


def zap_range(mm: "Mm", start: int, end: int) -> None:
    """Unmap all pages in [start, end) (bytes) (zap_page_range_single)."""
    pgd = mm.pgd
    if not pgd:
        return
    kernel = mm.kernel
    first, last = start >> 12, end >> 12
    for i in tables_in(pgd, first, last):
        table = pgd[i]
        low, high = i << 9, (i + 1) << 9
        if isinstance(table, int):
            if first <= low and high <= last:
                _zap_entry(kernel, table)
                del pgd[i]
                continue
            table = split_huge_pmd(mm, i)
        with kernel.locks.page_table(mm, low << 12):
            whole = first <= low and high <= last
            gone = list(table) if whole else [vpn for vpn in table if first <= vpn < last]
            for vpn in gone:
                _zap_entry(kernel, table.pop(vpn))
        if not table:
            del pgd[i]


def zap_all(mm: "Mm") -> None:
    """Unmap everything (unmap_vmas of exit_mmap)."""
    kernel = mm.kernel
    for entry in [entry for _, entry in mm.anon_entries()]:
        _zap_entry(kernel, entry)
    mm.pgd.clear()


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
