# SPDX-License-Identifier: GPL-2.0-only
"""fork: copying an address space (dup_mmap in kernel/fork.c, copy_page_range in mm/memory.c)."""

from typing import TYPE_CHECKING

from rmaplab.mm.fault import copy_page
from rmaplab.mm.flags import VM_DONTCOPY, VM_LOCKED_MASK, VM_SHARED, VM_WIPEONFORK
from rmaplab.mm.pagetable import ENTRY_SHIFT, GUARD, KIND_MASK, PRESENT, WRITE, guards, tables_in
from rmaplab.mm.swap import copy_nonpresent_pte
from rmaplab.mm.zap import split_huge_pmd

if TYPE_CHECKING:
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import Vma

__all__ = ["dup_mm"]


def dup_mm(oldmm: "Mm") -> "Mm":
    """The child's copy of `oldmm`."""
    kernel = oldmm.kernel
    hooks = kernel.hooks
    mm = kernel.mm_alloc()
    mm.brk = oldmm.brk
    with kernel.locks.mmap_write(oldmm):
        for pvma in oldmm.vmas:
            if pvma.vm_flags & VM_DONTCOPY:
                continue
            kernel.locks.vma_start_write(pvma)
            vma = hooks.vm_area_dup(pvma, mm)
            if vma.vm_flags & VM_WIPEONFORK:
                vma.anon_vma = None  # the child starts unfaulted
            else:
                hooks.anon_vma_fork(vma, pvma)
            vma.vm_flags &= ~VM_LOCKED_MASK
            mm.starts.append(vma.vm_start)
            mm.vmas.append(vma)
            if pvma.anon_vma is not None and not pvma.vm_flags & (VM_WIPEONFORK | VM_SHARED):
                _copy_page_range(mm, vma, oldmm, pvma)  # vma_needs_copy
            elif kernel.file_guards and kernel.profile.fork_copies_file_guards and not pvma.vm_flags & VM_WIPEONFORK:
                _copy_guards(mm, oldmm, pvma)
    return mm


def _copy_guards(mm: "Mm", oldmm: "Mm", pvma: "Vma") -> None:
    """The guard markers of a mapping of a file (VM_MAYBE_GUARD)"""
    for vpn in guards(oldmm.pgd, pvma.vm_start >> 12, pvma.vm_end >> 12):
        table = mm.pgd.setdefault(vpn >> 9, {})
        assert isinstance(table, dict)
        table[vpn] = GUARD


def _copy_page_range(mm: "Mm", vma: "Vma", oldmm: "Mm", pvma: "Vma") -> None:
    """Map the parent's anonymous pages of `pvma` in the child, write-protected in both."""
    kernel = mm.kernel
    pages = kernel.mem.pages
    try_dup_anon_rmap = kernel.ksm.dup_hook() if kernel.ksm.nodes else kernel.hooks.try_dup_anon_rmap
    first, last = pvma.vm_start >> 12, pvma.vm_end >> 12
    for i in tables_in(oldmm.pgd, first, last):
        table = oldmm.pgd[i]
        if isinstance(table, int):
            folio = pages[table >> ENTRY_SHIFT]
            assert folio is not None
            if try_dup_anon_rmap(folio, vma, pvma) is not False:
                folio.exclusive = 0
                folio.mapcount += 1
                mm.pgd[i] = oldmm.pgd[i] = table & ~WRITE
                continue
            table = split_huge_pmd(oldmm, i)
        child = mm.pgd.get(i)
        if child is None:
            child = {}
        assert isinstance(child, dict)
        with kernel.locks.page_table(oldmm, i << 21):
            for vpn, entry in table.items():
                if not first <= vpn < last:
                    continue
                if entry & KIND_MASK == PRESENT:
                    folio = pages[entry >> ENTRY_SHIFT]
                    assert folio is not None
                    if try_dup_anon_rmap(folio, vma, pvma) is False:
                        copy_page(mm, vma, vpn << 12, child, entry)
                        continue
                    folio.mapcount += 1
                    if folio.nr_pages == 1:
                        folio.exclusive = 0
                    else:
                        folio.exclusive &= ~(1 << ((entry >> ENTRY_SHIFT) - folio.pfn))
                    entry &= ~WRITE
                    table[vpn] = entry
                else:
                    entry = copy_nonpresent_pte(kernel, table, vpn)
                child[vpn] = entry
        if child:
            mm.pgd[i] = child
