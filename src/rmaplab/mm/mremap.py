# SPDX-License-Identifier: GPL-2.0-only
"""mremap (mm/mremap.c): shrink, grow in place, move."""

from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from rmaplab.mm.fault import populate_range
from rmaplab.mm.flags import (
    EFAULT,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    PAGE_SHIFT,
    PMD_SHIFT,
    PTRS_PER_PTE,
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_MERGEABLE,
    page_align,
)
from rmaplab.mm.huge_pmd import split_huge_pmd
from rmaplab.mm.mmap import do_munmap
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, MIGRATION, PRESENT, tables_in
from rmaplab.mm.slab import AllocationFailure
from rmaplab.mm.stable_node import folio_test_ksm
from rmaplab.mm.vma import Vma, split_vma, vma_merge_new_range

if TYPE_CHECKING:
    from rmaplab.mm.mm import Mm

__all__ = ["copy_vma", "move_page_tables", "mremap"]


def mremap(mm: "Mm", address: int, old_length: int, new_length: int, flags: int, new_address: int, result: int) -> None:
    """mremap of [address, address + old_length) to `new_address` (if MREMAP_FIXED) that returned `result`.

    A failed call has changed nothing, except one that moves several VMAs: those before the culprit have moved; and one
    that unmapped its own source.
    """
    old_length, new_length = page_align(old_length), page_align(new_length)
    if result == -EFAULT and flags & MREMAP_FIXED and not old_length and new_address == address:
        # a shared VMA was to be mapped again (old length 0) over its own start: the target went first, and it with it
        if mm.vma_lookup(address) is not None:
            with mm.kernel.locks.mmap_write(mm):
                do_munmap(mm, address, address + new_length)
        return
    several = flags & MREMAP_FIXED and old_length == new_length and mm.kernel.profile.mremap_moves_many
    if result < 0 and not (several and result == -EFAULT):
        return
    with mm.kernel.locks.mmap_write(mm):
        if several:
            _move_many(mm, address, old_length, flags, new_address)
            return
        grown = _remap_one(mm, address, old_length, new_length, flags, result)
    if grown is not None:
        with mm.kernel.locks.mmap_read(mm):
            populate_range(mm, *grown)


def _move_many(mm: "Mm", start: int, length: int, flags: int, target: int) -> None:
    """Move the VMAs of a range one after another, keeping the gaps between them (remap_move)."""
    end = start + length
    position = start
    first = mm.find_vma(start)
    if first is None or first.vm_start > start:
        return
    while position < end:
        vma = mm.find_vma(position)
        if vma is None or vma.vm_start >= end:
            return
        if not _multi_allowed(vma) and (position > start or vma.vm_end < end):
            return
        low, high = max(vma.vm_start, position), min(end, vma.vm_end)
        _remap_one(mm, low, high - low, high - low, flags, target + low - start)
        position = high


def _multi_allowed(vma: Vma) -> bool:
    """vma_multi_allowed: not where a get_unmapped_area of the file might disobey MREMAP_FIXED"""
    file = vma.vm_file
    return file is None or not (file.close or file.zero)


def _remap_one(
    mm: "Mm", address: int, old_length: int, new_length: int, flags: int, result: int
) -> tuple[int, int] | None:
    """mremap of a part of one VMA; the range to populate afterwards, if any."""
    vma = mm.vma_lookup(address)
    if vma is None:
        return None
    may_stay = not flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)
    if may_stay and old_length >= new_length:
        if old_length > new_length:
            do_munmap(mm, address + new_length, address + old_length, unlock=True)
        return None
    if may_stay and result == address:
        return _expand_in_place(mm, vma, address, old_length, new_length)
    if flags & MREMAP_FIXED:
        do_munmap(mm, result, result + new_length)
        if old_length > new_length:
            do_munmap(mm, address + new_length, address + old_length)
            old_length = new_length
        vma = mm.vma_lookup(address)
        if vma is None:
            return None
    return _move_vma(mm, vma, address, old_length, new_length, flags, result)


def _expand_in_place(mm: "Mm", vma: Vma, address: int, old_length: int, new_length: int) -> tuple[int, int] | None:
    """expand_vma_in_place"""
    start, end = vma.vm_end, address + new_length
    if address + old_length != start:
        return None
    _, next_ = mm.prev_next(vma)
    merged = vma_merge_new_range(
        mm,
        start,
        end,
        vma.pgoff_at(start),
        vma.vm_flags,
        vma.vm_file,
        vma.anon_vma,
        prev=vma,
        next_=next_,
    )
    return (start, end) if merged is not None and merged.vm_flags & VM_LOCKED_MASK else None


def copy_vma(mm: "Mm", vma: Vma, address: int, length: int, new_address: int, dontunmap: bool) -> tuple[Vma, bool]:
    """The VMA that takes the pages of [address, address + length) of `vma` at `new_address`: an existing one that
    grows, or a copy; and whether a walk may come to it before it comes to `vma`, so that entries must move under the
    rmap lock (copy_vma, need_rmap_locks): hook 9 says so, or it is so by the order of mainline's walks."""
    hooks = mm.kernel.hooks
    pgoff = vma.pgoff_at(address)
    faulted = True
    if vma.is_anonymous() and vma.anon_vma is None:
        pgoff = new_address >> PAGE_SHIFT  # nothing refers to the old offset yet
        faulted = False
    need_rmap_locks = bool(hooks.copy_vma(vma, faulted))
    prev, next_ = mm.neighbours(new_address, new_address + length)
    if not faulted and dontunmap and mm.kernel.profile.dontunmap_keeps_source:
        prev = None if prev is vma else prev
        next_ = None if next_ is vma else next_
    new = vma_merge_new_range(
        mm,
        new_address,
        new_address + length,
        pgoff,
        vma.vm_flags,
        vma.vm_file,
        vma.anon_vma,
        prev=prev,
        next_=next_,
        copied_from=vma,
    )
    if new is not None:
        return new, need_rmap_locks or new.vm_pgoff <= vma.vm_pgoff
    new = hooks.vm_area_dup(vma, mm)
    new.vm_start = new_address
    new.vm_end = new_address + length
    new.vm_pgoff = pgoff
    try:
        hooks.anon_vma_clone(new, vma)
    except AllocationFailure:
        hooks.vm_area_free(new)
        raise
    mm.kernel.locks.vma_start_write(new)  # vma_link
    mm.insert(new)
    return new, need_rmap_locks


def _move_vma(
    mm: "Mm", vma: Vma, address: int, old_length: int, new_length: int, flags: int, result: int
) -> tuple[int, int] | None:
    """move_vma"""
    dontunmap = bool(flags & MREMAP_DONTUNMAP)
    if dontunmap and vma.vm_flags & VM_LOCKED_MASK and mm.kernel.profile.dontunmap_splits_locked:
        if vma.vm_start < address:
            split_vma(mm, vma, address, new_below=True)
        if vma.vm_end > address + old_length:
            split_vma(mm, vma, address + old_length, new_below=False)
    if mm.kernel.ksm.nodes and vma.vm_flags & VM_MERGEABLE:
        mm.kernel.ksm.unmerge(mm, address, address + old_length)  # the rmap items would keep the old addresses
    source_start, source_flags = vma.vm_start, vma.vm_flags
    if mm.kernel.special:
        mm.kernel.locks.vma_start_write(vma)
    new, need_rmap_locks = copy_vma(mm, vma, address, new_length, result, dontunmap)
    if new.vm_start <= source_start < new.vm_end:
        vma = new  # the copy merged with its own source
    move_page_tables(mm, vma, address, new, result, old_length, need_rmap_locks)
    if dontunmap:
        vma.vm_flags &= ~VM_LOCKED_MASK
        if new is not vma and vma.vm_start == address and vma.vm_end == address + old_length:
            mm.kernel.hooks.unlink_anon_vmas(vma)
            if vma.vm_file is None and mm.kernel.profile.dontunmap_resets_pgoff:
                vma.vm_pgoff = vma.vm_start >> PAGE_SHIFT
    else:
        with suppress(AllocationFailure):  # the pages have moved; the source stays, empty
            do_munmap(mm, address, address + old_length)
    if source_flags & VM_LOCKED and new_length > old_length:
        return result + old_length, result + new_length
    return None


def move_page_tables(
    mm: "Mm", vma: Vma, address: int, new: Vma, new_address: int, length: int, need_rmap_locks: bool = False
) -> None:
    """Move the entries of [address, address + length) of `vma` to `new` at `new_address`, in pieces that lie in one
    table at either end (move_page_tables)."""
    pgd = mm.pgd
    first, last = address >> PAGE_SHIFT, (address + length) >> PAGE_SHIFT
    delta = (new_address - address) >> PAGE_SHIFT
    for i in tables_in(pgd, first, last):
        low, high = max(first, i << 9), min(last, (i + 1) << 9)
        target = (low + delta) >> 9
        whole = high - low == PTRS_PER_PTE and not delta & (PTRS_PER_PTE - 1)
        if whole and _move_pgt_entry(mm, i, vma, target, new, need_rmap_locks):
            continue
        if isinstance(pgd.get(i), int):
            split_huge_pmd(mm, i)
        border = max(low, min(high, ((target + 1) << 9) - delta))
        for start, end in ((low, border), (border, high)):
            if start < end:
                _move_ptes(mm, vma, start, end, new, delta, need_rmap_locks)


def _rmap_locks(mm: "Mm", vma: Vma, needed: bool) -> AbstractContextManager[Any]:
    """take_rmap_locks: where nobody can walk they would only be counted"""
    return mm.kernel.hooks.anon_vma_lock(vma) if needed and mm.kernel.special else nullcontext()


def _nested(mm: "Mm", i: int, target: int) -> AbstractContextManager[Any]:
    """The lock of the table at `target`, unless it is that of `i`, which is held (spin_lock_nested)"""
    if i == target or not mm.kernel.special:
        return nullcontext()
    return mm.kernel.locks.page_table(mm, target << PMD_SHIFT)  # type: ignore[no-any-return]


def _move_pgt_entry(mm: "Mm", i: int, vma: Vma, target: int, new: Vma, need_rmap_locks: bool) -> bool:
    """Move the PMD entry or the table at index `i` whole, if nothing is at `target`: a table always under the rmap
    locks (move_pgt_entry: move_huge_pmd, move_normal_pmd)."""
    pgd = mm.pgd
    needed = need_rmap_locks or not isinstance(pgd.get(i), int)
    with _rmap_locks(mm, vma, needed), mm.kernel.locks.page_table(mm, i << PMD_SHIFT), _nested(mm, i, target):
        pmd = pgd.get(i)
        if pmd is None or target in pgd:
            return pmd is None
        del pgd[i]
        if isinstance(pmd, int):
            _rehome(mm, pmd, vma, new)
            pgd[target] = pmd
            return True
        shift = (target - i) << 9
        table = mm.pte_alloc(target)
        for vpn, entry in pmd.items():
            _rehome(mm, entry, vma, new)
            table[vpn + shift] = entry
    return True


def _move_ptes(mm: "Mm", vma: Vma, start: int, end: int, new: Vma, delta: int, need_rmap_locks: bool) -> None:
    """move_ptes, of [start, end) (vpns), which one table holds, as does the target"""
    pgd = mm.pgd
    i, target = start >> 9, (start + delta) >> 9
    if isinstance(pgd.get(target), int):
        split_huge_pmd(mm, target)
    with (
        _rmap_locks(mm, vma, need_rmap_locks),
        mm.kernel.locks.page_table(mm, start << PAGE_SHIFT),
        _nested(mm, i, target),
    ):
        table = pgd.get(i)
        if not isinstance(table, dict):
            return
        moved = [vpn for vpn in table if start <= vpn < end]
        if moved:
            to = mm.pte_alloc(target)
            for vpn in moved:
                entry = table.pop(vpn)
                _rehome(mm, entry, vma, new)
                to[vpn + delta] = entry
        if not table:
            del pgd[i]


def _rehome(mm: "Mm", entry: int, vma: Vma, new: Vma) -> None:
    """Hook 9 for the folio that `entry` maps"""
    if entry & KIND_MASK in (PRESENT, MIGRATION):
        folio = mm.kernel.mem.pages[entry >> ENTRY_SHIFT]
        assert folio is not None
        if mm.kernel.ksm.nodes and folio_test_ksm(folio):
            return
        mm.kernel.hooks.move_page_tables(folio, vma, new)
