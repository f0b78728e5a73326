# SPDX-License-Identifier: GPL-2.0-only
"""Page faults that concern anonymous memory (mm/memory.c, mm/huge_memory.c)."""

from bisect import bisect_right
from typing import TYPE_CHECKING

from rmaplab.mm.flags import (
    PAGE_SHIFT,
    PMD_SHIFT,
    PMD_SIZE,
    VM_ACCESS_FLAGS,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_LOCKONFAULT,
    VM_NOHUGEPAGE,
    VM_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WRITE,
)
from rmaplab.mm.folio import Folio
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT, WRITE, PageTable, guards
from rmaplab.mm.stable_node import folio_test_ksm
from rmaplab.mm.swap import do_swap_page
from rmaplab.mm.vma import Vma
from rmaplab.mm.zap import split_huge_pmd

if TYPE_CHECKING:
    from rmaplab.mm.mm import Mm

__all__ = ["anon_write_fault", "copy_page", "handle_mm_fault", "populate_range", "prepare", "vmf_anon_prepare"]

_RW = PRESENT | WRITE  # of a non-present entry, WRITE's bit means something else


def prepare(vma: Vma) -> None:
    """Give `vma` what it needs for its first anonymous page. Mmap lock held (anon_vma_prepare)."""
    if vma.anon_vma is None:
        vma.vm_mm.kernel.hooks.anon_vma_prepare(vma)


def vmf_anon_prepare(vma: Vma) -> None:
    """The same from a fault, which gives up the VMA lock for the mmap lock first (__vmf_anon_prepare)."""
    if vma.anon_vma is None:
        mm = vma.vm_mm
        with mm.kernel.locks.mmap_read(mm):
            mm.kernel.hooks.anon_vma_prepare(vma)


def _huge_possible(mm: "Mm", vma: Vma, address: int) -> bool:
    """May a fault at `address` be served by a PMD-sized folio? (thp_vma_allowable_order)"""
    flags = vma.vm_flags
    if not flags & VM_HUGEPAGE and (mm.kernel.thp != "always" or flags & VM_NOHUGEPAGE):
        return False
    if mm.kernel.thp == "never" or not vma.is_anonymous():
        return False
    start = address & -PMD_SIZE
    return vma.vm_start <= start and start + PMD_SIZE <= vma.vm_end


def handle_mm_fault(mm: "Mm", address: int, write: bool) -> bool:
    """A fault of the task at `address` (bytes). Returns False if no VMA is there (a stack may grow, or SIGSEGV)."""
    i = bisect_right(mm.starts, address) - 1  # mm.vma_lookup, written out: most of a recording is faults
    if i < 0:
        return False
    vma = mm.vmas[i]
    if vma.vm_end <= address:
        return False
    flags = vma.vm_flags
    if write:
        if flags & (VM_WRITE | VM_SHARED) == VM_WRITE:
            if vma.anon_vma is None:
                vpn = address >> PAGE_SHIFT
                if guards(mm.pgd, vpn, vpn + 1):
                    return True  # handle_pte_marker: SIGSEGV, before anything is prepared
                vmf_anon_prepare(vma)
            with mm.kernel.locks.vma_start_read(vma):
                anon_write_fault(mm, vma, address)
    elif flags & VM_ACCESS_FLAGS:
        kernel = mm.kernel
        if flags & VM_HUGEPAGE or kernel.thp == "always":
            _read_fault(mm, vma, address)
        if kernel.special:
            _read_nonpresent(mm, vma, address)
    return True


def _read_fault(mm: "Mm", vma: Vma, address: int) -> None:
    """do_huge_pmd_anonymous_page prepares before it knows that the huge zero folio is enough; for small pages the zero
    page is"""
    if _huge_possible(mm, vma, address) and address >> PMD_SHIFT not in mm.pgd:
        vmf_anon_prepare(vma)


def _read_nonpresent(mm: "Mm", vma: Vma, address: int) -> None:
    """A read of what may be in swap (handle_pte_fault)"""
    vpn = address >> PAGE_SHIFT
    table = mm.pgd.get(vpn >> 9)
    entry = table.get(vpn) if isinstance(table, dict) else None
    if entry is not None and entry & KIND_MASK != PRESENT:
        do_swap_page(mm, vma, address, entry, False)


def anon_write_fault(mm: "Mm", vma: Vma, address: int) -> None:
    """A write to a private page: a new anonymous page, or copy-on-write."""
    vpn = address >> PAGE_SHIFT
    table = mm.pgd.get(vpn >> 9)
    if not isinstance(table, dict):
        table = _pte_table(mm, vma, address, table)
        if table is None:
            return
    entry = table.get(vpn)
    if entry is None:
        _do_anonymous_page(mm, vma, address, table)
    elif entry & _RW != _RW:
        _do_wp_page(mm, vma, address, table, entry)


def _pte_table(mm: "Mm", vma: Vma, address: int, pmd: int | None) -> PageTable | None:
    """The table over `address` where there was none, or a PMD entry; None if a huge page served the fault."""
    i = address >> PMD_SHIFT
    if pmd is None:
        if (vma.vm_flags & VM_HUGEPAGE or mm.kernel.thp == "always") and _huge_possible(mm, vma, address):
            _do_huge_pmd_anonymous_page(mm, vma, i)
            return None
        table: PageTable = {}
        mm.pgd[i] = table
        return table
    if pmd & WRITE or _do_huge_pmd_wp_page(mm, vma, i, pmd):
        return None
    return split_huge_pmd(mm, i)


def _do_anonymous_page(mm: "Mm", vma: Vma, address: int, table: PageTable) -> Folio:
    """Map a new page of `vma` at `address` (do_anonymous_page, and the new page of wp_page_copy and do_cow_fault)."""
    kernel = mm.kernel
    folio = kernel.mem.alloc()
    kernel.hooks.folio_set_anon(folio, vma, address, True)
    folio.exclusive = 1
    folio.mapcount = 1
    with kernel.locks.page_table(mm, address):
        table[address >> PAGE_SHIFT] = folio.pfn << ENTRY_SHIFT | PRESENT | WRITE
    return folio


def copy_page(mm: "Mm", vma: Vma, address: int, table: PageTable, entry: int) -> None:
    """Map in a child's `vma` a copy of the page that its parent's `entry` maps (copy_present_page)."""
    copy = _do_anonymous_page(mm, vma, address, table)
    mm.kernel.mem.copy(copy.pfn, entry >> ENTRY_SHIFT)


def _do_huge_pmd_anonymous_page(mm: "Mm", vma: Vma, i: int) -> None:
    """Map a new folio of 512 pages with one PMD entry (__do_huge_pmd_anonymous_page)."""
    kernel = mm.kernel
    folio = kernel.mem.alloc_large(PMD_SIZE >> PAGE_SHIFT)
    kernel.hooks.folio_set_anon(folio, vma, i << 21, True)
    folio.exclusive = (1 << folio.nr_pages) - 1
    folio.mapcount = 1
    with kernel.locks.page_table(mm, i << 21):
        mm.pgd[i] = folio.pfn << ENTRY_SHIFT | PRESENT | WRITE


def _do_huge_pmd_wp_page(mm: "Mm", vma: Vma, i: int, entry: int) -> bool:
    """A write to a write-protected PMD entry; False if the folio may be shared (do_huge_pmd_wp_page)."""
    kernel = mm.kernel
    folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
    assert folio is not None
    if not folio.exclusive & 1:
        if folio.mapcount > 1 or (folio.refs and not _drops_swap_cache(mm, folio)):
            return False
        with kernel.locks.folio(folio):
            kernel.hooks.folio_move_anon_rmap(folio, vma)
        folio.exclusive = (1 << folio.nr_pages) - 1
    mm.pgd[i] = entry | WRITE
    return True


def _do_wp_page(mm: "Mm", vma: Vma, address: int, table: PageTable, entry: int) -> None:
    """A write to a write-protected page (do_wp_page), or to one that is not present (do_swap_page)."""
    kernel = mm.kernel
    if not entry & PRESENT:
        if do_swap_page(mm, vma, address, entry, True):
            entry = table[address >> PAGE_SHIFT]
            if entry & _RW == PRESENT:
                _do_wp_page(mm, vma, address, table, entry)
        return
    folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
    assert folio is not None
    if not folio.exclusive >> ((entry >> ENTRY_SHIFT) - folio.pfn) & 1:
        if (
            folio.nr_pages > 1
            or folio.mapcount > 1
            or (folio.refs and not _drops_swap_cache(mm, folio))
            or (kernel.special and folio_test_ksm(folio))
        ):
            copy = _do_anonymous_page(mm, vma, address, table)  # wp_page_copy
            if kernel.special:
                _page_copied(mm, address, folio, entry, copy)
                return
            folio.mapcount -= 1
            if not folio.mapcount and not folio.refs:
                kernel.mem.free(folio)
            return
        with kernel.locks.folio(folio):  # wp_can_reuse_anon_folio
            kernel.hooks.folio_move_anon_rmap(folio, vma)
        folio.exclusive = 1
    table[address >> PAGE_SHIFT] = entry | WRITE


def _drops_swap_cache(mm: "Mm", folio: Folio) -> bool:
    """Was the swap cache alone in holding `folio`, and could it let go? (wp_can_reuse_anon_folio)"""
    if folio.refs > 1 or folio not in mm.kernel.swap.slot_of:
        return False
    guard = mm.kernel.locks.folio_trylock(folio)
    if guard is None:
        return False
    with guard:
        return mm.kernel.swap.folio_free_swap(folio) and not folio.refs


def _page_copied(mm: "Mm", address: int, folio: Folio, entry: int, copy: Folio) -> None:
    """The rest of wp_page_copy where more than counting is to be done (``kernel.special``)"""
    kernel = mm.kernel
    kernel.mem.copy(copy.pfn, entry >> ENTRY_SHIFT)
    if kernel.folio_removed is not None and not folio_test_ksm(folio):
        kernel.folio_removed(folio, mm, address & -(1 << PAGE_SHIFT))
    folio.mapcount -= 1
    if not folio.mapcount:
        if folio.refs:
            kernel.swap.free_swap_cache(folio)
        else:
            kernel.mem.free(folio)


def populate_range(
    mm: "Mm", start: int, end: int, write: bool | None = None, stop: bool = False, failed: bool = False
) -> None:
    """Fault in [start, end) as mlock, MAP_POPULATE and MADV_POPULATE_* do (populate_vma_page_range).

    write: None = as the VMA allows, else for writing or for reading
    stop: give up at the first hole, or page that cannot be had
    failed: the call is known to have met one; where nothing else tells which, a file is suspected to be too short: the
        first that has not been seen to be long enough
    """
    if stop and not failed:
        _learn_lengths(mm, start, end)
    suspect = failed and not _must_fail(mm, start, end, bool(write))
    position = start
    for vma in mm.vmas_in(start, end):
        if stop and vma.vm_start > position:
            return
        position = vma.vm_end
        flags = vma.vm_flags
        special = flags & (VM_SPECIAL | VM_HUGETLB) == VM_SPECIAL
        if write is None and (special or flags & VM_LOCKONFAULT):
            continue
        writes = write
        if writes is None:
            writes = flags & (VM_WRITE | VM_SHARED) == VM_WRITE
        if write is not None and (not flags & (VM_WRITE if write else VM_READ) or special):
            return
        if not flags & VM_ACCESS_FLAGS:
            if stop:
                return
            continue
        low, high = max(start, vma.vm_start), min(end, vma.vm_end)
        readable = _file_end(vma, low, high, suspect)
        guarded = guards(mm.pgd, low >> PAGE_SHIFT, high >> PAGE_SHIFT)
        if guarded:
            readable = min(readable, guarded[0] << PAGE_SHIFT)
        if writes and not flags & VM_SHARED:
            if not guarded or low < readable:
                prepare(vma)  # do_cow_fault does so before it asks for the page of the file
            if flags & VM_HUGETLB:
                continue
            for address in range(low, readable, 1 << PAGE_SHIFT):
                anon_write_fault(mm, vma, address)
        elif flags & VM_HUGEPAGE or mm.kernel.thp == "always":
            for i in range(low >> PMD_SHIFT, ((high - 1) >> PMD_SHIFT) + 1):
                _read_fault(mm, vma, max(low, i << PMD_SHIFT))
        if readable < high and stop:
            return


def _learn_lengths(mm: "Mm", start: int, end: int) -> None:
    """All of [start, end) could be faulted in: the files that it maps are long enough for that."""
    for vma in mm.vmas_in(start, end):
        file = vma.vm_file
        if file is not None and not vma.is_anonymous():
            file.at_least = max(file.at_least, vma.pgoff_at(min(end, vma.vm_end)))


def _must_fail(mm: "Mm", start: int, end: int, write: bool) -> bool:
    """Is there a hole, or a page that is known not to be had, in [start, end)?"""
    position = start
    for vma in mm.vmas_in(start, end):
        high = min(end, vma.vm_end)
        if vma.vm_start > position or not vma.vm_flags & (VM_WRITE if write else VM_ACCESS_FLAGS):
            return True
        if _file_end(vma, position, high, suspect=False) < high or guards(
            mm.pgd, position >> PAGE_SHIFT, high >> PAGE_SHIFT
        ):
            return True
        position = high
    return position < end


def _file_end(vma: Vma, low: int, high: int, suspect: bool) -> int:
    """The address in [low, high] at which the file that `vma` maps ends; `low` for a suspect of unknown length"""
    file = vma.vm_file
    if file is None or vma.is_anonymous():
        return high
    pages = file.at_least if file.pages is None and suspect else file.pages
    if pages is None:
        return high
    return min(high, max(low, vma.vm_start + ((pages - vma.vm_pgoff) << PAGE_SHIFT)))
