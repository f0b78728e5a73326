# SPDX-License-Identifier: GPL-2.0-only
"""madvise (mm/madvise.c): the advice that changes VMAs, takes pages away or faults them in."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rmaplab.mm import flags as fl
from rmaplab.mm.fault import populate_range, prepare
from rmaplab.mm.flags import page_align
from rmaplab.mm.huge_pmd import split_huge_pmd_locked
from rmaplab.mm.pagetable import GUARD, guards
from rmaplab.mm.vma import Vma, vma_modify
from rmaplab.mm.zap import zap_range

if TYPE_CHECKING:
    from rmaplab.mm.mm import Mm

__all__ = ["madvise"]

_GUARD_RETRIES = 3  # MAX_MADVISE_GUARD_RETRIES


def _any(vma: Vma) -> bool:
    return True


def _not_special(vma: Vma) -> bool:
    return not vma.vm_flags & fl.VM_SPECIAL


def _wipeable(vma: Vma) -> bool:
    return vma.vm_file is None and not vma.vm_flags & fl.VM_SHARED


def _ksm_compatible(vma: Vma) -> bool:
    return not vma.vm_flags & (fl.VM_SHARED | fl.VM_MAYSHARE | fl.VM_SPECIAL | fl.VM_HUGETLB)


# advice -> (flags set, flags cleared, VMAs it applies to, an unfit VMA ends the call)
_FLAG_ADVICE: dict[int, tuple[int, int, Callable[[Vma], bool], bool]] = {
    fl.MADV_NORMAL: (0, fl.VM_RAND_READ | fl.VM_SEQ_READ, _any, True),
    fl.MADV_RANDOM: (fl.VM_RAND_READ, fl.VM_SEQ_READ, _any, True),
    fl.MADV_SEQUENTIAL: (fl.VM_SEQ_READ, fl.VM_RAND_READ, _any, True),
    fl.MADV_DONTFORK: (fl.VM_DONTCOPY, 0, _any, True),
    fl.MADV_DOFORK: (0, fl.VM_DONTCOPY, _not_special, True),
    fl.MADV_WIPEONFORK: (fl.VM_WIPEONFORK, 0, _wipeable, True),
    fl.MADV_KEEPONFORK: (0, fl.VM_WIPEONFORK, _any, True),
    fl.MADV_DONTDUMP: (fl.VM_DONTDUMP, 0, _any, True),
    fl.MADV_DODUMP: (0, fl.VM_DONTDUMP, _not_special, True),
    fl.MADV_HUGEPAGE: (fl.VM_HUGEPAGE, fl.VM_NOHUGEPAGE, _any, True),
    fl.MADV_NOHUGEPAGE: (fl.VM_NOHUGEPAGE, fl.VM_HUGEPAGE, _any, True),
    fl.MADV_MERGEABLE: (fl.VM_MERGEABLE, 0, _ksm_compatible, False),
    fl.MADV_UNMERGEABLE: (0, fl.VM_MERGEABLE, _any, True),
}


def madvise(mm: "Mm", start: int, length: int, advice: int, failed: bool = False) -> None:
    """madvise over [start, start + length): holes are passed over, an unfit VMA ends most kinds of advice.

    failed: the call returned an error, which undoes nothing
    """
    end = start + page_align(length)
    flag_advice = _FLAG_ADVICE.get(advice)
    if flag_advice is not None:
        with mm.kernel.locks.mmap_write(mm):
            if advice == fl.MADV_UNMERGEABLE and mm.kernel.ksm.nodes:
                mm.kernel.ksm.unmerge(mm, start, end)
            _change_flags(mm, start, end, *flag_advice)
        return
    with mm.kernel.locks.mmap_read(mm):
        if advice in (fl.MADV_DONTNEED, fl.MADV_DONTNEED_LOCKED, fl.MADV_FREE):
            _drop_pages(mm, start, end, advice)
        elif advice == fl.MADV_POPULATE_WRITE:
            populate_range(mm, start, end, write=True, stop=True, failed=failed)
        elif advice == fl.MADV_POPULATE_READ:
            populate_range(mm, start, end, write=False, stop=True, failed=failed)
        elif advice == fl.MADV_GUARD_INSTALL:
            _install_guards(mm, start, end)
        elif advice == fl.MADV_GUARD_REMOVE:
            _remove_guards(mm, start, end)


def _install_guards(mm: "Mm", start: int, end: int) -> None:
    """madvise_guard_install: the markers are page-table entries that fork must copy, so an anonymous VMA gets its
    anon_vma"""
    for vma in mm.vmas_in(start, end):
        if vma.vm_flags & (fl.VM_SPECIAL | fl.VM_HUGETLB | fl.VM_LOCKED):
            return
        if vma.is_anonymous():
            prepare(vma)
        else:
            mm.kernel.file_guards = True
        low, high = max(start, vma.vm_start), min(end, vma.vm_end)
        for _ in range(_GUARD_RETRIES):
            zap_range(mm, low, high)
            if _set_guards(mm, range(low >> fl.PAGE_SHIFT, high >> fl.PAGE_SHIFT)):
                break


def _set_guards(mm: "Mm", vpns: Iterable[int]) -> bool:
    """Put a marker everywhere (guard_install_set_pte); False if something has been mapped since the zap."""
    for vpn in vpns:
        with mm.kernel.locks.page_table(mm, vpn << fl.PAGE_SHIFT):
            if isinstance(mm.pgd.get(vpn >> 9), int):
                split_huge_pmd_locked(mm, vpn >> 9)
            table = mm.pte_alloc(vpn >> 9)
            if table.get(vpn, GUARD) != GUARD:
                return False
            table[vpn] = GUARD
    return True


def _remove_guards(mm: "Mm", start: int, end: int) -> None:
    """madvise_guard_remove"""
    for vpn in guards(mm.pgd, start >> fl.PAGE_SHIFT, end >> fl.PAGE_SHIFT):
        with mm.kernel.locks.page_table(mm, vpn << fl.PAGE_SHIFT):
            table = mm.pgd.get(vpn >> 9)
            if isinstance(table, dict) and table.get(vpn) == GUARD:
                del table[vpn]
                if not table:
                    del mm.pgd[vpn >> 9]


def _change_flags(
    mm: "Mm", start: int, end: int, to_set: int, to_clear: int, fits: Callable[[Vma], bool], stop: bool
) -> None:
    position = start
    while position < end:
        vma = mm.find_vma(position)
        if vma is None or vma.vm_start >= end:
            return
        low, position = max(position, vma.vm_start), vma.vm_end
        if not fits(vma):
            if stop:
                return
            continue
        flags = (vma.vm_flags & ~to_clear) | to_set
        if flags != vma.vm_flags:
            vma_modify(mm, vma, low, min(end, position), flags)


def _drop_pages(mm: "Mm", start: int, end: int, advice: int) -> None:
    """MADV_DONTNEED takes pages away at once. MADV_FREE leaves them until reclaim, which a recording does not show:
    they stay mapped."""
    if advice == fl.MADV_FREE:
        return
    refused = fl.VM_SPECIAL | fl.VM_HUGETLB
    if advice == fl.MADV_DONTNEED:
        refused |= fl.VM_LOCKED
    for vma in mm.vmas_in(start, end):
        if vma.vm_flags & refused:
            return
        low, high = max(start, vma.vm_start), min(end, vma.vm_end)
        survive = mm.kernel.special or bool(guards(mm.pgd, low >> fl.PAGE_SHIFT, high >> fl.PAGE_SHIFT))
        zap_range(mm, low, high, markers=not survive)
