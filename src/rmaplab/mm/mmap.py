# SPDX-License-Identifier: GPL-2.0-only
"""mmap, munmap, brk and stack growth (mm/mmap.c, mm/vma.c)."""

from typing import TYPE_CHECKING

from rmaplab.mm.fault import populate_range
from rmaplab.mm.flags import (
    MAP_GROWSDOWN,
    MAP_HUGETLB,
    MAP_LOCKED,
    MAP_NONBLOCK,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MAP_STACK,
    MAP_TYPE,
    PAGE_SHIFT,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WRITE,
    page_align,
    prot_to_vm_flags,
)
from rmaplab.mm.slab import AllocationFailure
from rmaplab.mm.vma import File, Vma, split_vma, vma_merge_new_range
from rmaplab.mm.zap import free_pgtables, tlb_finish_mmu, zap_range

if TYPE_CHECKING:
    from rmaplab.mm.folio import Folio
    from rmaplab.mm.mm import Mm

__all__ = [
    "VM_DATA_DEFAULT_FLAGS",
    "brk",
    "do_brk_flags",
    "do_mmap",
    "do_munmap",
    "expand_downwards",
    "insert_new_vma",
    "mmap_region",
]

_VM_FLAG_OF_MAP = (
    (MAP_GROWSDOWN, VM_GROWSDOWN),
    (MAP_LOCKED, VM_LOCKED),
    (MAP_STACK, VM_NOHUGEPAGE),
    (MAP_NORESERVE, VM_NORESERVE),
    (MAP_HUGETLB, VM_HUGETLB | VM_SPECIAL),
)

VM_DATA_DEFAULT_FLAGS = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC


def _gather_munmap_vmas(mm: "Mm", start: int, end: int) -> list[Vma]:
    """Split at both ends of [start, end) and take the VMAs between out of the tree (vms_gather_munmap_vmas,
    vma_iter_clear_gfp). All are locked before the first one leaves: a split that fails leaves all where they were."""
    vmas = mm.vmas_in(start, end)
    if not vmas:
        return vmas
    if vmas[0].vm_start < start:
        split_vma(mm, vmas[0], start, new_below=True)
    for vma in vmas:
        if vma.vm_end > end:
            split_vma(mm, vma, end, new_below=False)
        mm.kernel.locks.vma_start_write(vma)
    for vma in vmas:
        mm.remove(vma)
    return vmas


def _clear_ptes(mm: "Mm", vmas: list[Vma], mm_wr_locked: bool = True) -> None:
    """vms_clear_ptes: unmap_vmas, then free_pgtables with its unlink_anon_vmas"""
    batch: list[Folio] = []
    for vma in vmas:
        zap_range(mm, vma.vm_start, vma.vm_end, batch)
    free_pgtables(mm, vmas, mm_wr_locked)
    tlb_finish_mmu(mm.kernel, batch)


def do_munmap(mm: "Mm", start: int, end: int, unlock: bool = False) -> None:
    """Unmap [start, end) (do_vmi_align_munmap). Mmap lock held for writing.

    unlock: nothing is to be done afterwards, so that the lock is held for reading only as soon as the VMAs are out of
        the tree (munmap, brk, an mremap that shrinks: vms_complete_munmap_vmas)
    """
    if start >= end:
        return
    vmas = _gather_munmap_vmas(mm, start, end)
    if vmas:
        if unlock:
            mm.kernel.locks.mmap_write_downgrade(mm)
        _clear_ptes(mm, vmas, not unlock)
        for vma in vmas:
            mm.kernel.hooks.vm_area_free(vma)


def mmap_region(mm: "Mm", start: int, end: int, vm_flags: int, file: File | None, pgoff: int) -> Vma:
    """Map [start, end), replacing what was there (__mmap_region). Mmap lock held for writing.

    A merge that finds no memory is done without; a VMA that cannot be had leaves a gap (vms_abort_munmap_vmas).
    """
    hooks = mm.kernel.hooks
    replaced = _gather_munmap_vmas(mm, start, end)
    if replaced:
        _clear_ptes(mm, replaced)
    prev, next_ = mm.neighbours(start, end)
    try:
        try:
            vma = vma_merge_new_range(mm, start, end, pgoff, vm_flags, file, prev=prev, next_=next_)
        except AllocationFailure:
            vma = None
        if vma is None:
            vma = hooks.vm_area_alloc(mm)
            _init(mm, vma, start, end, vm_flags, file, pgoff)
    finally:
        for old in replaced:  # vms_complete_munmap_vmas
            hooks.vm_area_free(old)
    return vma


def _init(mm: "Mm", vma: Vma, start: int, end: int, vm_flags: int, file: File | None, pgoff: int) -> None:
    vma.vm_start = start
    vma.vm_end = end
    vma.vm_pgoff = pgoff
    vma.vm_flags = vm_flags
    vma.vm_file = file
    mm.kernel.locks.vma_start_write(vma)
    mm.insert(vma)


def do_mmap(mm: "Mm", start: int, length: int, prot: int, flags: int, file: File | None = None, pgoff: int = 0) -> Vma:
    """A successful mmap with PROT_* `prot` and MAP_* `flags` that returned `start`; `pgoff` is for a `file`."""
    end = start + page_align(length)
    vm_flags = prot_to_vm_flags(prot) | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    if flags & MAP_TYPE in (MAP_SHARED, MAP_SHARED_VALIDATE):
        vm_flags |= VM_SHARED | VM_MAYSHARE
    for map_flag, vm_flag in _VM_FLAG_OF_MAP:
        if flags & map_flag:
            vm_flags |= vm_flag
    if not flags & MAP_HUGETLB and vm_flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE:
        vm_flags |= VM_ACCOUNT  # accountable_mapping
    vm_flags |= mm.def_flags
    with mm.kernel.locks.mmap_write(mm):
        vma = mmap_region(mm, start, end, vm_flags, file, start >> PAGE_SHIFT if file is None else pgoff)
    if vm_flags & VM_LOCKED or flags & (MAP_POPULATE | MAP_NONBLOCK) == MAP_POPULATE:
        with mm.kernel.locks.mmap_read(mm):
            populate_range(mm, start, end)
    return vma


def insert_new_vma(
    mm: "Mm", start: int, end: int, vm_flags: int, file: File | None = None, pgoff: int | None = None
) -> Vma:
    """Map [start, end) without a try to merge (insert_vm_struct, _install_special_mapping)."""
    vma = mm.kernel.hooks.vm_area_alloc(mm)
    _init(mm, vma, start, end, vm_flags, file, start >> PAGE_SHIFT if pgoff is None else pgoff)
    return vma


def do_brk_flags(mm: "Mm", start: int, end: int, vm_flags: int) -> Vma:
    """Anonymous memory in [start, end), joined to the VMA below only (do_brk_flags)."""
    if mm.vmas_in(start, end):
        do_munmap(mm, start, end)
    prev, next_ = mm.neighbours(start, end)
    pgoff = start >> PAGE_SHIFT
    if prev is not None and prev.vm_end == start:
        vma = vma_merge_new_range(mm, start, end, pgoff, vm_flags, None, prev=prev, next_=next_, just_expand=True)
        if vma is not None:
            return vma
    return insert_new_vma(mm, start, end, vm_flags)


def brk(mm: "Mm", new: int) -> None:
    """The program break is now `new`, the call's result. The first call only tells where it is."""
    if mm.brk is None:
        mm.brk = new
        return
    old_end, new_end = page_align(mm.brk), page_align(new)
    if old_end == new_end:
        mm.brk = new
        return
    with mm.kernel.locks.mmap_write(mm):
        if new_end < old_end:
            mm.brk = new
            do_munmap(mm, new_end, old_end, unlock=True)
            return
        do_brk_flags(mm, old_end, new_end, VM_DATA_DEFAULT_FLAGS | VM_ACCOUNT | mm.def_flags)
        mm.brk = new
    if mm.def_flags & VM_LOCKED_MASK:
        with mm.kernel.locks.mmap_read(mm):
            populate_range(mm, old_end, new_end)


def expand_downwards(mm: "Mm", vma: Vma, address: int) -> None:
    """Grow the stack `vma` down to `address`. It gets its anon_vma first, even on a read (expand_downwards).

    Mmap lock held for writing; page_table_lock is a remnant of when it was held for reading.
    """
    locks = mm.kernel.locks
    hooks = mm.kernel.hooks
    if vma.anon_vma is None:
        hooks.anon_vma_prepare(vma)
    if mm.kernel.special:
        locks.vma_start_write(vma)
    with hooks.anon_vma_lock(vma), locks.page_table_lock(mm):
        pages = (vma.vm_start - address) >> PAGE_SHIFT
        mm.resize(vma, address, vma.vm_end, vma.vm_pgoff - pages)
