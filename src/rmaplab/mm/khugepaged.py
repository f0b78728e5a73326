# SPDX-License-Identifier: GPL-2.0-only
"""Collapse of small pages into a huge one (collapse_huge_page, mm/khugepaged.c)."""

from typing import TYPE_CHECKING

from rmaplab.mm.flags import PAGE_SHIFT, PMD_SHIFT, PMD_SIZE, PTRS_PER_PTE, VM_HUGEPAGE, VM_NOHUGEPAGE, VM_WRITE
from rmaplab.mm.folio import Folio, folio_put
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT, SWAP, WRITE, PageTable
from rmaplab.mm.rmap import folio_remove_rmap
from rmaplab.mm.swap import do_swap_page

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import Vma

__all__ = ["MAX_PTES_SHARED", "MAX_PTES_SWAP", "collapse_huge_page"]

MAX_PTES_SHARED = 256  # khugepaged_max_ptes_shared; holes may be all but one (khugepaged_max_ptes_none)
MAX_PTES_SWAP = 64  # khugepaged_max_ptes_swap


def _suitable(mm: "Mm", address: int) -> "Vma | None":
    """hugepage_vma_revalidate: the VMA, if a huge page may lie at `address` in it"""
    vma = mm.vma_lookup(address)
    if vma is None or vma.vm_end < address + PMD_SIZE or vma.anon_vma is None or not vma.is_anonymous():
        return None
    always = mm.kernel.thp == "always" and not vma.vm_flags & VM_NOHUGEPAGE
    return vma if mm.kernel.thp != "never" and (always or vma.vm_flags & VM_HUGEPAGE) else None


def collapse_huge_page(mm: "Mm", address: int) -> bool:
    """Replace the pages of the 2 MiB at `address` (bytes, aligned) by one folio; False if something is in the way."""
    kernel = mm.kernel
    i = address >> PMD_SHIFT
    with kernel.locks.mmap_read(mm):
        vma = _suitable(mm, address)
        table = mm.pgd.get(i)
        if vma is None or not isinstance(table, dict) or not _swap_in(mm, vma, table):
            return False
    with kernel.locks.mmap_write(mm):
        vma = _suitable(mm, address)
        table = mm.pgd.get(i)
        if vma is None or not isinstance(table, dict):
            return False
        kernel.locks.vma_start_write(vma)
        with kernel.hooks.collapse_lock(vma):
            with kernel.locks.page_table(mm, address):
                del mm.pgd[i]  # pmdp_collapse_flush
            found = _isolate(kernel, table)
            if found is None:
                mm.pgd[i] = table
                return False
        # nobody can walk to these pages any more: they are isolated and locked
        huge = kernel.mem.alloc_large(PTRS_PER_PTE)
        _copy(mm, table, found, huge)
        kernel.hooks.folio_set_anon(huge, vma, address, True)
        huge.exclusive = (1 << huge.nr_pages) - 1
        huge.mapcount = 1
        with kernel.locks.page_table(mm, address):
            mm.pgd[i] = huge.pfn << ENTRY_SHIFT | PRESENT | (WRITE if vma.vm_flags & VM_WRITE else 0)
    return True


def _swap_in(mm: "Mm", vma: "Vma", table: PageTable) -> bool:
    """__collapse_huge_page_swapin"""
    swapped = [(vpn, entry) for vpn, entry in table.items() if entry & KIND_MASK == SWAP]
    return len(swapped) <= MAX_PTES_SWAP and all(
        do_swap_page(mm, vma, vpn << PAGE_SHIFT, entry, False) for vpn, entry in swapped
    )


def _isolate(kernel: "Kernel", table: PageTable) -> dict[int, Folio] | None:
    """vpn -> folio, or None if a page is not present, is held by somebody else, or too many are shared; one at least
    must be writable (__collapse_huge_page_isolate)."""
    found: dict[int, Folio] = {}
    shared = 0
    for vpn, entry in table.items():
        if entry & KIND_MASK != PRESENT:
            return None
        folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
        assert folio is not None
        if folio.refs != (folio in kernel.swap.slot_of):  # is_refcount_suitable
            return None
        shared += folio.mapcount > 1 and folio.nr_pages == 1
        found[vpn] = folio
    writable = any(entry & WRITE for entry in table.values())
    return found if writable and shared <= MAX_PTES_SHARED else None


def _copy(mm: "Mm", table: PageTable, found: dict[int, Folio], huge: Folio) -> None:
    """__collapse_huge_page_copy_succeeded: holes become zeroes"""
    kernel = mm.kernel
    for vpn, entry in table.items():
        folio = found[vpn]
        kernel.mem.copy(huge.pfn + (vpn & (PTRS_PER_PTE - 1)), entry >> ENTRY_SHIFT)
        folio.refs += 1
        with kernel.locks.folio(folio):
            folio_remove_rmap(kernel, folio, mm, vpn)
            folio.exclusive &= ~(1 << ((entry >> ENTRY_SHIFT) - folio.pfn))
            if not folio.mapcount:
                kernel.swap.folio_free_swap(folio)
        folio_put(kernel.mem, folio)
