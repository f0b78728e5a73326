# SPDX-License-Identifier: GPL-2.0-only
"""Page faults that concern anonymous memory (mm/memory.c, mm/huge_memory.c)."""

from bisect import bisect_right
from typing import TYPE_CHECKING

from rmaplab.mm.fault_steps import do_user_addr_fault, handle_write_fault, huge_possible, read_fault
from rmaplab.mm.flags import (
    PAGE_SHIFT,
    PMD_SHIFT,
    VM_ACCESS_FLAGS,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_LOCKONFAULT,
    VM_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WRITE,
)
from rmaplab.mm.pagetable import ENTRY_SHIFT, GUARD, HWPOISON, KIND_MASK, PRESENT, WRITE, PageTable, guards
from rmaplab.mm.vma import Vma
from rmaplab.mm.vmf import vmf_anon_prepare

if TYPE_CHECKING:
    from rmaplab.mm.mm import Mm

__all__ = ["anon_write_fault", "handle_mm_fault", "populate_range", "prepare"]

_RW = PRESENT | WRITE  # of a non-present entry, WRITE's bit means something else
_TRIES = 4  # a fault may have to be taken again, after swap-in or migration


def prepare(vma: Vma) -> None:
    """Give `vma` what it needs for its first anonymous page. Mmap lock held (anon_vma_prepare)."""
    if vma.anon_vma is None:
        vma.vm_mm.kernel.hooks.anon_vma_prepare(vma)


def handle_mm_fault(mm: "Mm", address: int, write: bool) -> bool:
    """A fault of the task at `address` (bytes). Returns False if no VMA is there (a stack may grow, or SIGSEGV)."""
    kernel = mm.kernel
    if kernel.special:
        return do_user_addr_fault(mm, address, write)
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
                vmf_anon_prepare(vma, True)
            with kernel.locks.vma_start_read(vma):
                anon_write_fault(mm, vma, address)
    elif flags & VM_ACCESS_FLAGS and (flags & VM_HUGEPAGE or kernel.thp == "always"):
        read_fault(mm, vma, address, True)
    return True


def anon_write_fault(mm: "Mm", vma: Vma, address: int) -> None:
    """A write to a private page: a new anonymous page, or copy-on-write. Where nothing special can be met the commonest
    cases are written out; for the steps, and all others, see :mod:`rmaplab.mm.fault_steps`."""
    kernel = mm.kernel
    if kernel.special:
        _faultin_page(mm, vma, address)
        return
    vpn = address >> PAGE_SHIFT
    table = mm.pgd.get(vpn >> 9)
    if not isinstance(table, dict):
        if table is not None or huge_possible(mm, vma, address):
            handle_write_fault(mm, vma, address, False)
            return
        table = mm.pte_alloc(vpn >> 9)
    entry = table.get(vpn)
    if entry is None:
        folio = kernel.mem.alloc()
        kernel.hooks.folio_set_anon(folio, vma, address, True)
        folio.exclusive = 1
        folio.mapcount = 1
        with kernel.locks.page_table(mm, address):
            table[vpn] = folio.pfn << ENTRY_SHIFT | PRESENT | WRITE
    elif entry & _RW == PRESENT:
        _do_wp_page(mm, vma, address, table, entry)


def _do_wp_page(mm: "Mm", vma: Vma, address: int, table: PageTable, entry: int) -> None:
    """A write to a write-protected page of a small folio, in brief (do_wp_page)."""
    kernel = mm.kernel
    folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
    assert folio is not None
    if folio.nr_pages > 1:
        handle_write_fault(mm, vma, address, False)
        return
    vpn = address >> PAGE_SHIFT
    if not folio.exclusive:
        if folio.mapcount > 1 or folio.refs:
            copy = kernel.mem.alloc()
            kernel.hooks.folio_set_anon(copy, vma, address, True)
            copy.exclusive = 1
            copy.mapcount = 1
            with kernel.locks.page_table(mm, address):
                table[vpn] = copy.pfn << ENTRY_SHIFT | _RW
            folio.mapcount -= 1
            if not folio.mapcount and not folio.refs:
                kernel.mem.free(folio)
            return
        with kernel.locks.folio(folio):
            kernel.hooks.folio_move_anon_rmap(folio, vma)
        folio.exclusive = 1
    table[vpn] = entry | WRITE


def _faultin_page(mm: "Mm", vma: Vma, address: int) -> None:
    """Take the fault until the page is there; under the mmap lock (faultin_page, as get_user_pages calls it)"""
    for _ in range(_TRIES):
        handle_write_fault(mm, vma, address, False)
        pmd = mm.pgd.get(address >> PMD_SHIFT)
        entry = pmd.get(address >> PAGE_SHIFT) if isinstance(pmd, dict) else pmd
        if entry is not None and (entry & _RW == _RW or entry & KIND_MASK in (HWPOISON, GUARD & KIND_MASK)):
            return


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
                read_fault(mm, vma, max(low, i << PMD_SHIFT), False)
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
