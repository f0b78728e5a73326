# SPDX-License-Identifier: GPL-2.0-only
"""A PMD entry that maps 2 MiB becomes a table of 512 entries (mm/huge_memory.c).

The folio stays large; splitting that is :mod:`rmaplab.mm.huge_memory`.
"""

from typing import TYPE_CHECKING

from rmaplab.mm.flags import PMD_SHIFT, PMD_SIZE, PTRS_PER_PTE
from rmaplab.mm.pagetable import ENTRY_SHIFT, PRESENT, WRITE, PageTable

if TYPE_CHECKING:
    from rmaplab.mm.mm import Mm

__all__ = ["split_huge_pmd", "split_huge_pmd_if_needed", "split_huge_pmd_locked"]


def split_huge_pmd_locked(mm: "Mm", i: int) -> PageTable:
    """Turn the PMD entry at index `i` into a table, which is returned (split_huge_pmd_locked). Its page-table lock is
    held: the new table, and what maps it, change in one section."""
    entry = mm.pgd[i]
    assert isinstance(entry, int)
    folio = mm.kernel.mem.pages[entry >> ENTRY_SHIFT]
    assert folio is not None
    bits = entry & (PRESENT | WRITE)
    folio.add_rmap(PTRS_PER_PTE - 1)
    mm.pgd[i] = {(i << 9) + k: (folio.pfn + k) << ENTRY_SHIFT | bits for k in range(PTRS_PER_PTE)}
    return mm.pgd[i]  # type: ignore[return-value]


def split_huge_pmd(mm: "Mm", i: int) -> None:
    """The same where the lock is not held, and where somebody else may have been faster (__split_huge_pmd)."""
    with mm.kernel.locks.page_table(mm, i << PMD_SHIFT):
        if isinstance(mm.pgd.get(i), int):
            split_huge_pmd_locked(mm, i)


def split_huge_pmd_if_needed(mm: "Mm", address: int) -> None:
    """A VMA is about to begin or end at `address`: no PMD entry may straddle it (vma_adjust_trans_huge)."""
    if address & (PMD_SIZE - 1) and isinstance(mm.pgd.get(address >> PMD_SHIFT), int):
        split_huge_pmd(mm, address >> PMD_SHIFT)
