# SPDX-License-Identifier: GPL-2.0-only
"""The mlock family (mm/mlock.c)."""

from typing import TYPE_CHECKING

from rmaplab.mm.fault import populate_range
from rmaplab.mm.flags import (
    MCL_CURRENT,
    MCL_FUTURE,
    MCL_ONFAULT,
    MLOCK_ONFAULT,
    PAGE_MASK,
    PAGE_SHIFT,
    VM_ACCESS_FLAGS,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_LOCKONFAULT,
    VM_SPECIAL,
    page_align,
)
from rmaplab.mm.pagetable import guards
from rmaplab.mm.vma import Vma, vma_modify

if TYPE_CHECKING:
    from rmaplab.mm.mm import Mm

__all__ = ["mlock", "mlockall", "munlock", "munlockall"]


def _mlock_fixup(mm: "Mm", vma: Vma, start: int, end: int, locked: int) -> None:
    flags = (vma.vm_flags & ~VM_LOCKED_MASK) | locked
    if flags != vma.vm_flags and not vma.vm_flags & (VM_SPECIAL | VM_HUGETLB):
        vma_modify(mm, vma, start, end, flags)


def _apply(mm: "Mm", start: int, end: int, locked: int) -> bool:
    """Set `locked` in [start, end) up to the first hole; False if there is one (apply_vma_lock_flags)."""
    position = start
    while position < end:
        vma = mm.vma_lookup(position)
        if vma is None:
            return False
        high = vma.vm_end
        _mlock_fixup(mm, vma, position, min(end, high), locked)
        position = high
    return True


def mlock(mm: "Mm", address: int, length: int, flags: int = 0, failed: bool = False) -> None:
    """mlock, mlock2: lock [address, address + length) and fault it in.

    failed: the call returned an error; it has locked what comes before a hole, and faulted in what it could. Where
        nothing in the range can be blamed, RLIMIT_MEMLOCK was, and it has done nothing
    """
    start = address & PAGE_MASK
    end = page_align(address + length)
    if failed and _nothing_to_blame(mm, start, end):
        return
    locked = VM_LOCKED_MASK if flags & MLOCK_ONFAULT else VM_LOCKED
    with mm.kernel.locks.mmap_write(mm):
        complete = _apply(mm, start, end, locked)
    if complete:
        with mm.kernel.locks.mmap_read(mm):
            populate_range(mm, start, end, stop=True, failed=failed)


def _nothing_to_blame(mm: "Mm", start: int, end: int) -> bool:
    """Can all of [start, end) be locked and faulted in?"""
    position = start
    for vma in mm.vmas_in(start, end):
        if vma.vm_start > position or not vma.is_anonymous() or not vma.vm_flags & VM_ACCESS_FLAGS:
            return False
        position = vma.vm_end
    return position >= end and not guards(mm.pgd, start >> PAGE_SHIFT, end >> PAGE_SHIFT)


def munlock(mm: "Mm", address: int, length: int) -> None:
    """Unlock [address, address + length)."""
    with mm.kernel.locks.mmap_write(mm):
        _apply(mm, address & PAGE_MASK, page_align(address + length), 0)


def mlockall(mm: "Mm", flags: int) -> None:
    """Lock what is mapped (MCL_CURRENT) and what will be (MCL_FUTURE) (apply_mlockall_flags)."""
    locked = VM_LOCKED | (VM_LOCKONFAULT if flags & MCL_ONFAULT else 0)
    with mm.kernel.locks.mmap_write(mm):
        mm.def_flags &= ~VM_LOCKED_MASK
        if flags & MCL_FUTURE:
            mm.def_flags |= locked
            if not flags & MCL_CURRENT:
                return
        _all(mm, locked if flags & MCL_CURRENT else 0)
    if flags & MCL_CURRENT and mm.vmas:
        with mm.kernel.locks.mmap_read(mm):
            populate_range(mm, 0, mm.vmas[-1].vm_end)


def munlockall(mm: "Mm") -> None:
    """Unlock everything, now and in future."""
    with mm.kernel.locks.mmap_write(mm):
        mm.def_flags &= ~VM_LOCKED_MASK
        _all(mm, 0)


def _all(mm: "Mm", locked: int) -> None:
    position = 0
    while (vma := mm.find_vma(position)) is not None:
        position = vma.vm_end
        _mlock_fixup(mm, vma, vma.vm_start, vma.vm_end, locked)
