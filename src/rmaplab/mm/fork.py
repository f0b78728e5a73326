# SPDX-License-Identifier: GPL-2.0-only
"""fork: copying an address space (dup_mmap in kernel/fork.c, copy_page_range in mm/memory.c)."""

from contextlib import nullcontext
from typing import TYPE_CHECKING

from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.fault_steps import map_new_page
from rmaplab.mm.flags import PMD_SHIFT, VM_DONTCOPY, VM_LOCKED_MASK, VM_SHARED, VM_WIPEONFORK
from rmaplab.mm.hooks import ForkRefused
from rmaplab.mm.huge_pmd import split_huge_pmd
from rmaplab.mm.pagetable import ENTRY_SHIFT, GUARD, KIND_MASK, PRESENT, WRITE, guards, tables_in
from rmaplab.mm.slab import AllocationFailure
from rmaplab.mm.swap import copy_nonpresent_pte

if TYPE_CHECKING:
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import Vma

__all__ = ["dup_mm"]


def dup_mm(oldmm: "Mm") -> "Mm":
    """The child's copy of `oldmm`. Where something cannot be had the half of it that was made is torn down as any other
    address space (dup_mm, mmput), and the exception passed on."""
    kernel = oldmm.kernel
    mm = kernel.mm_alloc()
    try:
        # the child's locks are nested and nobody waits for them yet, so they are taken where somebody looks only
        with kernel.locks.mmap_write(oldmm), kernel.locks.mmap_write(mm) if kernel.special else nullcontext():
            _dup_mmap(mm, oldmm)
    except (AllocationFailure, ForkRefused):
        exit_mmap(mm)
        raise
    mm.brk = oldmm.brk
    return mm


def _dup_mmap(mm: "Mm", oldmm: "Mm") -> None:
    """Copy the VMAs one by one. A copy is in the child's tree, and walks find it, before its entries are copied."""
    kernel = oldmm.kernel
    hooks = kernel.hooks
    for pvma in oldmm.vmas:
        kernel.locks.vma_start_write(pvma)
        if pvma.vm_flags & VM_DONTCOPY:
            continue
        vma = hooks.vm_area_dup(pvma, mm)
        try:
            if vma.vm_flags & VM_WIPEONFORK:
                vma.anon_vma = None  # the child starts unfaulted
            else:
                hooks.anon_vma_fork(vma, pvma)
        except (AllocationFailure, ForkRefused):
            hooks.vm_area_free(vma)
            raise
        vma.vm_flags &= ~VM_LOCKED_MASK
        mm.insert(vma)
        if pvma.anon_vma is not None and not pvma.vm_flags & (VM_WIPEONFORK | VM_SHARED):
            _copy_page_range(mm, vma, oldmm, pvma)  # vma_needs_copy
        elif kernel.file_guards and kernel.profile.fork_copies_file_guards and not pvma.vm_flags & VM_WIPEONFORK:
            _copy_guards(mm, oldmm, pvma)


def _copy_guards(mm: "Mm", oldmm: "Mm", pvma: "Vma") -> None:
    """The guard markers of a mapping of a file (VM_MAYBE_GUARD)"""
    for vpn in guards(oldmm.pgd, pvma.vm_start >> 12, pvma.vm_end >> 12):
        with mm.kernel.locks.page_table(mm, vpn << 12):
            mm.pte_alloc(vpn >> 9)[vpn] = GUARD


def _copy_page_range(mm: "Mm", vma: "Vma", oldmm: "Mm", pvma: "Vma") -> None:
    """Map the parent's anonymous pages of `pvma` in the child, write-protected in both."""
    for i in tables_in(oldmm.pgd, pvma.vm_start >> 12, pvma.vm_end >> 12):
        if not isinstance(oldmm.pgd[i], int) or not _copy_huge_pmd(i, mm, vma, oldmm, pvma):
            _copy_pte_range(i, mm, vma, oldmm, pvma)


def _copy_huge_pmd(i: int, mm: "Mm", vma: "Vma", oldmm: "Mm", pvma: "Vma") -> bool:
    """copy_huge_pmd; False if the folio must not be shared, or is no longer mapped whole"""
    kernel = mm.kernel
    with kernel.locks.page_table(mm, i << PMD_SHIFT), kernel.locks.page_table(oldmm, i << PMD_SHIFT):
        entry = oldmm.pgd.get(i)
        if not isinstance(entry, int):
            return False
        folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
        assert folio is not None
        if kernel.hooks.try_dup_anon_rmap(folio, vma, pvma) is not False:
            folio.exclusive = 0
            folio.add_rmap()
            mm.pgd[i] = oldmm.pgd[i] = entry & ~WRITE
            return True
    split_huge_pmd(oldmm, i)
    return False


def _copy_pte_range(i: int, mm: "Mm", vma: "Vma", oldmm: "Mm", pvma: "Vma") -> None:
    """The entries of one table (copy_pte_range)"""
    kernel = mm.kernel
    pages = kernel.mem.pages
    special = kernel.special
    try_dup_anon_rmap = kernel.ksm.dup_hook() if kernel.ksm.nodes else kernel.hooks.try_dup_anon_rmap
    first, last = pvma.vm_start >> 12, pvma.vm_end >> 12
    own = kernel.locks.page_table(mm, i << PMD_SHIFT) if special else nullcontext()
    with own, kernel.locks.page_table(oldmm, i << PMD_SHIFT):
        table = oldmm.pgd.get(i)
        if not isinstance(table, dict):
            return
        child = mm.pte_alloc(i)
        for vpn, entry in table.items():
            if not first <= vpn < last:
                continue
            if entry & KIND_MASK == PRESENT:
                folio = pages[entry >> ENTRY_SHIFT]
                assert folio is not None
                if try_dup_anon_rmap(folio, vma, pvma) is False:
                    copy = kernel.mem.alloc()  # copy_present_page
                    kernel.mem.copy(copy.pfn, entry >> ENTRY_SHIFT)
                    map_new_page(vma, vpn << 12, child, copy, PRESENT | WRITE)
                    continue
                if special:
                    folio.add_rmap()
                else:
                    folio.mapcount += 1
                if folio.nr_pages == 1:
                    folio.exclusive = 0
                else:
                    folio.exclusive &= ~(1 << ((entry >> ENTRY_SHIFT) - folio.pfn))
                entry &= ~WRITE
                table[vpn] = entry
            else:
                entry = copy_nonpresent_pte(table, vpn, vma, pvma)
            child[vpn] = entry
        if not child:
            del mm.pgd[i]
