# SPDX-License-Identifier: GPL-2.0-only
"""mprotect (mm/mprotect.c)."""

from typing import TYPE_CHECKING

from rmaplab.mm.fault import populate_range
from rmaplab.mm.flags import (
    MAY_SHIFT,
    PROT_GROWSDOWN,
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_NORESERVE,
    VM_SHARED,
    VM_WRITE,
    page_align,
    prot_to_vm_flags,
)
from rmaplab.mm.huge_pmd import split_huge_pmd_locked
from rmaplab.mm.pagetable import PRESENT, WRITE, tables_in
from rmaplab.mm.vma import Vma, vma_modify

if TYPE_CHECKING:
    from rmaplab.mm.mm import Mm

__all__ = ["mprotect"]


def mprotect(mm: "Mm", start: int, length: int, prot: int) -> None:
    """Change [start, start + length) to PROT_* `prot` VMA by VMA, up to the first hole or VMA that must not have it.

    A failed call has changed what came before, so there is no undo here either (do_mprotect_pkey). With PROT_GROWSDOWN
    the change begins where the stack does.
    """
    end = start + page_align(length)
    new_access = prot_to_vm_flags(prot)
    with mm.kernel.locks.mmap_write(mm):
        position = start
        if prot & PROT_GROWSDOWN:
            stack = mm.find_vma(start)
            if stack is None or stack.vm_start >= end or not stack.vm_flags & VM_GROWSDOWN:
                return
            position = stack.vm_start
        while position < end:
            vma = mm.vma_lookup(position)
            if vma is None:
                return
            part_end = min(vma.vm_end, end)
            flags = (vma.vm_flags & ~VM_ACCESS_FLAGS) | new_access
            if flags & ~(flags >> MAY_SHIFT) & VM_ACCESS_FLAGS:
                return
            _mprotect_fixup(mm, vma, position, part_end, flags)
            position = part_end


def _mprotect_fixup(mm: "Mm", vma: Vma, start: int, end: int, flags: int) -> None:
    old = vma.vm_flags
    if flags == old:
        return
    if flags & VM_WRITE:
        if not old & (VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE):
            flags |= VM_ACCOUNT
    elif old & VM_ACCOUNT and vma.is_anonymous() and vma.anon_vma is None:
        flags &= ~VM_ACCOUNT  # never faulted: nothing there to account for
    vma = vma_modify(mm, vma, start, end, flags)
    if not flags & VM_WRITE:
        _write_protect(mm, start, end)
    elif old & (VM_WRITE | VM_SHARED | VM_LOCKED) == VM_LOCKED:
        populate_range(mm, start, end)


def _write_protect(mm: "Mm", start: int, end: int) -> None:
    """Clear the write bits of [start, end) (change_protection). They come back one by one, at write faults."""
    pgd = mm.pgd
    if not pgd:
        return
    first, last = start >> 12, end >> 12
    for i in tables_in(pgd, first, last):
        with mm.kernel.locks.page_table(mm, i << 21):
            table = pgd.get(i)
            if isinstance(table, int):
                if first <= i << 9 and (i + 1) << 9 <= last:
                    pgd[i] = table & ~WRITE  # change_huge_pmd
                    continue
                table = split_huge_pmd_locked(mm, i)
            elif table is None:
                continue
            for vpn, entry in table.items():
                if entry & (PRESENT | WRITE) == PRESENT | WRITE and first <= vpn < last:
                    table[vpn] = entry & ~WRITE
