# SPDX-License-Identifier: GPL-2.0-only
"""Page faults step by step, in the order of mm/memory.c: what is read without a lock is looked at again under it.

Where it has changed the fault is over, and the task, whose access still fails, takes another.
"""

from typing import TYPE_CHECKING

from rmaplab.mm.flags import (
    PAGE_SHIFT,
    PMD_SHIFT,
    PMD_SIZE,
    VM_ACCESS_FLAGS,
    VM_HUGEPAGE,
    VM_NOHUGEPAGE,
    VM_SHARED,
    VM_WRITE,
)
from rmaplab.mm.folio import Folio, folio_put
from rmaplab.mm.huge_pmd import split_huge_pmd
from rmaplab.mm.pagetable import ENTRY_SHIFT, GUARD, KIND_MASK, PRESENT, WRITE, PageTable
from rmaplab.mm.rmap import folio_remove_rmap
from rmaplab.mm.stable_node import folio_test_ksm
from rmaplab.mm.swap import do_swap_page
from rmaplab.mm.vmf import FaultRetry, lock_vma_under_rcu, vmf_anon_prepare

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import Vma

__all__ = ["do_user_addr_fault", "handle_write_fault", "huge_possible", "map_new_page", "read_fault", "wp_page_copy"]

_RW = PRESENT | WRITE  # of a non-present entry, WRITE's bit means something else


def do_user_addr_fault(mm: "Mm", address: int, write: bool) -> bool:
    """A fault of a task: under the lock of its VMA, else under the mmap lock. False if no VMA is there."""
    found = lock_vma_under_rcu(mm, address)
    if found is not None:
        vma, guard = found
        with guard:
            try:
                _handle(mm, vma, address, write, True)
                return True
            except FaultRetry:
                pass
    with mm.kernel.locks.mmap_read(mm):
        locked = mm.vma_lookup(address)
        if locked is None:
            return False
        _handle(mm, locked, address, write, False)
    return True


def _handle(mm: "Mm", vma: "Vma", address: int, write: bool, vma_locked: bool) -> None:
    """access_error, handle_mm_fault"""
    flags = vma.vm_flags
    if write:
        if flags & (VM_WRITE | VM_SHARED) == VM_WRITE:
            handle_write_fault(mm, vma, address, vma_locked)
    elif flags & VM_ACCESS_FLAGS:
        read_fault(mm, vma, address, vma_locked)
        entry = _get_lockless(mm, address)
        if entry is not None and entry & KIND_MASK != PRESENT:
            do_swap_page(mm, vma, address, entry, False, vma_locked)


def _get_lockless(mm: "Mm", address: int) -> int | None:
    """The entry at `address`; None also where there is no table (ptep_get_lockless)."""
    table = mm.pgd.get(address >> PMD_SHIFT)
    return table.get(address >> PAGE_SHIFT) if isinstance(table, dict) else None


def _table_if_same(mm: "Mm", address: int, entry: int | None) -> PageTable | None:
    """The table over `address` if it still holds `entry` (pte_offset_map_lock, pte_same). Page-table lock held."""
    table = mm.pgd.get(address >> PMD_SHIFT)
    if isinstance(table, dict) and table.get(address >> PAGE_SHIFT) == entry:
        return table
    return None


def huge_possible(mm: "Mm", vma: "Vma", address: int) -> bool:
    """May a fault at `address` be served by a PMD-sized folio? (thp_vma_allowable_order)"""
    flags = vma.vm_flags
    if not flags & VM_HUGEPAGE and (mm.kernel.thp != "always" or flags & VM_NOHUGEPAGE):
        return False
    if mm.kernel.thp == "never" or not vma.is_anonymous():
        return False
    start = address & -PMD_SIZE
    return vma.vm_start <= start and start + PMD_SIZE <= vma.vm_end


def read_fault(mm: "Mm", vma: "Vma", address: int, vma_locked: bool) -> None:
    """do_huge_pmd_anonymous_page prepares before it knows that the huge zero folio is enough; for small pages the zero
    page is"""
    if huge_possible(mm, vma, address) and address >> PMD_SHIFT not in mm.pgd:
        vmf_anon_prepare(vma, vma_locked)


def handle_write_fault(mm: "Mm", vma: "Vma", address: int, vma_locked: bool) -> None:
    """A write to a private page (__handle_mm_fault, handle_pte_fault). VMA lock or mmap lock held."""
    i = address >> PMD_SHIFT
    pmd = mm.pgd.get(i)
    if pmd is None and huge_possible(mm, vma, address):
        _do_huge_pmd_anonymous_page(mm, vma, i, vma_locked)
        return
    if isinstance(pmd, int) and (pmd & WRITE or _do_huge_pmd_wp_page(mm, vma, i, pmd)):
        return
    entry = _get_lockless(mm, address)
    if entry is None:
        _do_anonymous_page(mm, vma, address, vma_locked)
        return
    if not entry & PRESENT and entry != GUARD and do_swap_page(mm, vma, address, entry, True, vma_locked):
        again = _get_lockless(mm, address)
        if again is None:
            return
        entry = again
    if entry & _RW == PRESENT:
        _do_wp_page(mm, vma, address, entry, vma_locked)


def map_new_page(vma: "Vma", address: int, table: PageTable, folio: Folio, entry: int) -> None:
    """Map `folio`, fresh from the allocator, at `address` (folio_add_new_anon_rmap, set_pte_at). Page-table lock held;
    entry: bits."""
    vma.vm_mm.kernel.hooks.folio_set_anon(folio, vma, address, True)
    folio.exclusive = 1
    folio.add_rmap()
    table[address >> PAGE_SHIFT] = folio.pfn << ENTRY_SHIFT | entry


def _do_anonymous_page(mm: "Mm", vma: "Vma", address: int, vma_locked: bool) -> None:
    """do_anonymous_page; for a file's page, which the model does not have, do_cow_fault"""
    kernel = mm.kernel
    i = address >> PMD_SHIFT
    if i not in mm.pgd:
        with kernel.locks.page_table(mm, address):
            if not isinstance(mm.pgd.get(i), int):
                mm.pte_alloc(i)
    vmf_anon_prepare(vma, vma_locked)
    folio = kernel.mem.alloc()
    with kernel.locks.page_table(mm, address):
        table = _table_if_same(mm, address, None)
        if table is not None:
            map_new_page(vma, address, table, folio, _RW)
            return
    kernel.mem.free(folio)


def _do_huge_pmd_anonymous_page(mm: "Mm", vma: "Vma", i: int, vma_locked: bool) -> None:
    """Map a new folio of 512 pages with one PMD entry (__do_huge_pmd_anonymous_page)."""
    kernel = mm.kernel
    vmf_anon_prepare(vma, vma_locked)
    folio = kernel.mem.alloc_large(PMD_SIZE >> PAGE_SHIFT)
    with kernel.locks.page_table(mm, i << PMD_SHIFT):
        if i not in mm.pgd:
            kernel.hooks.folio_set_anon(folio, vma, i << PMD_SHIFT, True)
            folio.exclusive = (1 << folio.nr_pages) - 1
            folio.add_rmap()
            mm.pgd[i] = folio.pfn << ENTRY_SHIFT | _RW
            return
    kernel.mem.free(folio)


def _do_huge_pmd_wp_page(mm: "Mm", vma: "Vma", i: int, entry: int) -> bool:
    """A write to a write-protected PMD entry; False if the folio may be shared: it is a table now
    (do_huge_pmd_wp_page)."""
    kernel = mm.kernel
    with kernel.locks.page_table(mm, i << PMD_SHIFT):
        if mm.pgd.get(i) != entry:
            return True
        folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
        assert folio is not None
        if folio.exclusive & 1 or _can_reuse(kernel, folio, vma):
            folio.exclusive = (1 << folio.nr_pages) - 1
            mm.pgd[i] = entry | WRITE
            return True
    split_huge_pmd(mm, i)
    return False


def _can_reuse(kernel: "Kernel", folio: Folio, vma: "Vma") -> bool:
    """Is ours the only mapping of `folio`, and nobody else holds it? (wp_can_reuse_anon_folio, and the same in
    do_huge_pmd_wp_page, which would wait for the folio lock without the page-table lock; here it copies instead)"""
    if folio_test_ksm(folio) or folio.ref_count() > 1 + (folio in kernel.swap.slot_of):
        return False
    guard = kernel.locks.folio_trylock(folio)
    if guard is None:
        return False
    with guard:
        kernel.swap.folio_free_swap(folio)
        if folio_test_ksm(folio) or folio.ref_count() != 1:
            return False
        kernel.hooks.folio_move_anon_rmap(folio, vma)
    return True


def _do_wp_page(mm: "Mm", vma: "Vma", address: int, entry: int, vma_locked: bool) -> None:
    """A write to a write-protected page, as `entry` was without the lock (do_wp_page)."""
    kernel = mm.kernel
    pfn = entry >> ENTRY_SHIFT
    with kernel.locks.page_table(mm, address):
        table = _table_if_same(mm, address, entry)
        if table is None:
            return
        folio = kernel.mem.pages[pfn]
        assert folio is not None
        bit = 1 << (pfn - folio.pfn)
        if folio.exclusive & bit or (folio.nr_pages == 1 and _can_reuse(kernel, folio, vma)):
            folio.exclusive |= bit
            table[address >> PAGE_SHIFT] = entry | WRITE  # wp_page_reuse
            return
        folio.get()
    wp_page_copy(mm, vma, address, folio, entry, vma_locked)


def wp_page_copy(mm: "Mm", vma: "Vma", address: int, folio: Folio, entry: int, vma_locked: bool) -> None:
    """Map a copy in place of `entry`, which maps a page of `folio`; the caller's reference of it is dropped
    (wp_page_copy)."""
    kernel = mm.kernel
    mem = kernel.mem
    try:
        vmf_anon_prepare(vma, vma_locked)
        new = mem.alloc()
        mem.copy(new.pfn, entry >> ENTRY_SHIFT)
        with kernel.locks.page_table(mm, address):
            table = _table_if_same(mm, address, entry)
            if table is not None:
                map_new_page(vma, address, table, new, PRESENT | (WRITE if vma.vm_flags & VM_WRITE else 0))
                folio_remove_rmap(kernel, folio, mm, address >> PAGE_SHIFT)
        if table is None:
            mem.free(new)
            return
        folio_put(mem, folio)  # the mapping's
        kernel.swap.free_swap_cache(folio)
    finally:
        folio_put(mem, folio)
