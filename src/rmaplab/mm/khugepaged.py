# SPDX-License-Identifier: GPL-2.0-only
"""Collapse of small pages into a huge one (collapse_huge_page, mm/khugepaged.c)."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

from rmaplab.mm.flags import PAGE_SHIFT, PMD_SHIFT, PMD_SIZE, PTRS_PER_PTE, VM_HUGEPAGE, VM_NOHUGEPAGE, VM_WRITE
from rmaplab.mm.folio import Folio, folio_put
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT, SWAP, WRITE, PageTable
from rmaplab.mm.rmap import folio_remove_rmap
from rmaplab.mm.swap import do_swap_page, free_folio_and_swap_cache

if TYPE_CHECKING:
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
        if vma is None or not isinstance(mm.pgd.get(i), dict):
            return False
        kernel.locks.vma_start_write(vma)
        with kernel.hooks.collapse_lock(vma), ExitStack() as folio_locks:
            with kernel.locks.page_table(mm, address):
                table = mm.pgd.pop(i)  # pmdp_collapse_flush
                assert isinstance(table, dict)
            found = _isolate(mm, address, table, folio_locks)
            if found is None:
                with kernel.locks.page_table(mm, address):
                    mm.pgd[i] = table  # pmd_populate
                return False
            locked = folio_locks.pop_all()
        # nobody can walk to these pages any more: they are isolated and locked
        with locked:
            huge = kernel.mem.alloc_large(PTRS_PER_PTE)
            _copy(mm, address, table, found, huge)
        for folio in found.values():
            free_folio_and_swap_cache(kernel, folio)  # the entry's reference
            folio_put(kernel.mem, folio)  # of the isolation
        with kernel.locks.page_table(mm, address):
            kernel.hooks.folio_set_anon(huge, vma, address, True)
            huge.exclusive = (1 << huge.nr_pages) - 1
            huge.add_rmap()
            mm.pgd[i] = huge.pfn << ENTRY_SHIFT | PRESENT | (WRITE if vma.vm_flags & VM_WRITE else 0)
    return True


def _swap_in(mm: "Mm", vma: "Vma", table: PageTable) -> bool:
    """__collapse_huge_page_swapin"""
    swapped = [(vpn, entry) for vpn, entry in table.items() if entry & KIND_MASK == SWAP]
    return len(swapped) <= MAX_PTES_SWAP and all(
        do_swap_page(mm, vma, vpn << PAGE_SHIFT, entry, False) for vpn, entry in swapped
    )


def _isolate(mm: "Mm", address: int, table: PageTable, folio_locks: ExitStack) -> dict[int, Folio] | None:
    """vpn -> folio, each with a reference, its lock in `folio_locks`; or None if a page is not present, is locked or
    held by somebody else, or too many are shared; one at least must be writable (__collapse_huge_page_isolate)."""
    kernel = mm.kernel
    found: dict[int, Folio] = {}
    locked: set[Folio] = set()
    shared = 0
    suitable = any(entry & WRITE for entry in table.values())
    with kernel.locks.page_table(mm, address):
        for vpn, entry in table.items():
            folio = kernel.mem.pages[entry >> ENTRY_SHIFT] if entry & KIND_MASK == PRESENT else None
            if folio is None:
                suitable = False
                break
            if folio not in locked:
                guard = kernel.locks.folio_trylock(folio)
                if guard is None:
                    suitable = False
                    break
                folio_locks.enter_context(guard)
                locked.add(folio)
                if folio.refs != (folio in kernel.swap.slot_of):  # is_refcount_suitable
                    suitable = False
                    break
            folio.get()  # folio_isolate_lru
            found[vpn] = folio
            shared += folio.mapcount > 1 and folio.nr_pages == 1
    if suitable and shared <= MAX_PTES_SHARED:
        return found
    for folio in found.values():
        folio_put(kernel.mem, folio)
    return None


def _copy(mm: "Mm", address: int, table: PageTable, found: dict[int, Folio], huge: Folio) -> None:
    """__collapse_huge_page_copy_succeeded: holes become zeroes. The entries' references are left to the caller."""
    kernel = mm.kernel
    for vpn, folio in found.items():
        entry = table[vpn]
        kernel.mem.copy(huge.pfn + (vpn & (PTRS_PER_PTE - 1)), entry >> ENTRY_SHIFT)
        with kernel.locks.page_table(mm, address):
            folio_remove_rmap(kernel, folio, mm, vpn)
        folio.exclusive &= ~(1 << ((entry >> ENTRY_SHIFT) - folio.pfn))
