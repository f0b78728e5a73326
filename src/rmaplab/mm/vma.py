# SPDX-License-Identifier: GPL-2.0-only
"""``struct vm_area_struct``, and how VMAs are split, merged and expanded (mm/vma.c).

The order of slab allocations and frees inside each function is the kernel's.
"""

from typing import TYPE_CHECKING, Any

from rmaplab.mm.flags import PAGE_SHIFT, VM_ACCESS_FLAGS, VM_SHARED, VM_SPECIAL
from rmaplab.mm.huge_pmd import split_huge_pmd_if_needed
from rmaplab.mm.slab import AllocationFailure

if TYPE_CHECKING:
    from rmaplab.mm.mm import Mm

__all__ = [
    "File",
    "Vma",
    "anon_vma_compatible",
    "split_vma",
    "vma_expand",
    "vma_merge_existing_range",
    "vma_merge_new_range",
    "vma_modify",
    "vma_shrink",
]


class File:
    """A ``struct file`` that a VMA maps.

    zero: /dev/zero, whose private mapping keeps the file but is anonymous (mmap_zero)
    close: System V shared memory: its VMAs have vm_ops->close, so that no merge may remove one, and its
        get_unmapped_area keeps mremap from moving one together with others
    pages: its length, None where unknown; a page beyond it cannot be faulted in
    at_least: pages that it has been seen to have
    """

    __slots__ = ("at_least", "close", "name", "pages", "zero")

    def __init__(self, name: str, zero: bool = False, close: bool = False, pages: int | None = None) -> None:
        self.name = name
        self.zero = zero
        self.close = close
        self.pages = pages
        self.at_least = 0

    def __repr__(self) -> str:
        return f"<file {self.name}>"


class Vma:
    """One VMA: addresses in bytes, `vm_pgoff` in pages.

    invariant: `anon_vma`, `anon_vma_chain`, `reserved1` and `reserved2` belong to the design
    """

    __slots__ = (
        "anon_vma",
        "anon_vma_chain",
        "reserved1",
        "reserved2",
        "vm_end",
        "vm_file",
        "vm_flags",
        "vm_mm",
        "vm_pgoff",
        "vm_start",
    )

    def __init__(self, mm: "Mm", start: int, end: int, pgoff: int, vm_flags: int, file: File | None) -> None:
        self.vm_mm = mm
        self.vm_start = start
        self.vm_end = end
        self.vm_pgoff = pgoff
        self.vm_flags = vm_flags
        self.vm_file = file
        self.anon_vma: Any = None
        self.anon_vma_chain: Any = ()
        self.reserved1: Any = None
        self.reserved2: Any = None

    def __repr__(self) -> str:
        return f"<vma {self.vm_start:#x}-{self.vm_end:#x} pgoff={self.vm_pgoff:#x} flags={self.vm_flags:#x}>"

    def is_anonymous(self) -> bool:
        """No vm_ops: the kernel's vma_is_anonymous."""
        file = self.vm_file
        return (file is None or file.zero) and not self.vm_flags & VM_SHARED

    def pgoff_at(self, address: int) -> int:
        """Linear page index of `address` (linear_page_index)."""
        return self.vm_pgoff + ((address - self.vm_start) >> PAGE_SHIFT)


def anon_vma_compatible(a: Vma, b: Vma) -> bool:
    """Could adjacent `a` and `b` share an anon_vma, but for their protection? (anon_vma_compatible)"""
    return (
        a.vm_end == b.vm_start
        and a.vm_file is b.vm_file
        and not (a.vm_flags ^ b.vm_flags) & ~VM_ACCESS_FLAGS
        and b.vm_pgoff == a.pgoff_at(b.vm_start)
    )


def split_vma(mm: "Mm", vma: Vma, address: int, new_below: bool) -> Vma:
    """Split `vma` at `address`; the new VMA, below or above it, is returned (__split_vma)."""
    hooks = mm.kernel.hooks
    locks = mm.kernel.locks
    new = hooks.vm_area_dup(vma, mm)
    pgoff = vma.pgoff_at(address)
    if new_below:
        new.vm_end = address
    else:
        new.vm_start = address
        new.vm_pgoff = pgoff
    try:
        hooks.anon_vma_clone(new, vma)
    except AllocationFailure:
        hooks.vm_area_free(new)
        raise
    locks.vma_start_write(vma)
    if mm.kernel.special:
        locks.vma_start_write(new)
    with hooks.anon_vma_lock(vma):  # vma_prepare
        split_huge_pmd_if_needed(mm, address)
        if new_below:
            mm.insert_below(new, vma, address, pgoff)
        else:
            vma.vm_end = address
            mm.insert(new)
    return new


def _can_merge_left(
    mm: "Mm",
    prev: Vma | None,
    start: int,
    pgoff: int,
    vm_flags: int,
    file: File | None,
    anon_vma: Any,
    middle: Vma | None,
    copied_from: Vma | None,
) -> bool:
    """can_vma_merge_left, with can_vma_merge_after"""
    return (
        prev is not None
        and prev.vm_end == start
        and prev.vm_flags == vm_flags
        and prev.vm_file is file
        and prev.pgoff_at(start) == pgoff
        and mm.kernel.hooks.is_mergeable_anon_vma(prev, anon_vma, middle, copied_from)
    )


def _can_merge_right(
    mm: "Mm",
    prev: Vma | None,
    next_: Vma | None,
    end: int,
    pgoff_end: int,
    vm_flags: int,
    file: File | None,
    anon_vma: Any,
    middle: Vma | None,
    copied_from: Vma | None,
    can_merge_left: bool,
) -> bool:
    """can_vma_merge_right, with can_vma_merge_before"""
    hooks = mm.kernel.hooks
    if (
        next_ is None
        or next_.vm_start != end
        or next_.vm_flags != vm_flags
        or next_.vm_file is not file
        or next_.vm_pgoff != pgoff_end
        or not hooks.is_mergeable_anon_vma(next_, anon_vma, middle, copied_from)
    ):
        return False
    # That both neighbours agree with the range does not mean that they agree with each other.
    return not can_merge_left or (prev is not None and hooks.same_anon_vma(prev, next_))


def _can_merge_remove(vma: Vma | None) -> bool:
    """can_merge_remove_vma"""
    return vma is not None and (vma.vm_file is None or not vma.vm_file.close)


def _drop_merged(mm: "Mm", vma: Vma) -> None:
    """vma_complete's removal of a VMA that another took the place of"""
    hooks = mm.kernel.hooks
    if vma.anon_vma is not None:
        hooks.unlink_anon_vmas(vma)
    hooks.vm_area_free(vma)


def vma_expand(
    mm: "Mm",
    target: Vma,
    start: int,
    end: int,
    pgoff: int,
    next_: Vma | None = None,
    copied_from: Vma | None = None,
) -> None:
    """Grow `target` to [start, end), over `next_` if given, which goes away (vma_expand). dup_anon_vma is all that may
    fail, and `target` has an anon_vma after the first of two, so that the second does nothing."""
    hooks = mm.kernel.hooks
    mm.kernel.locks.vma_start_write(target)
    if next_ is not None:
        mm.kernel.locks.vma_start_write(next_)
        hooks.dup_anon_vma(target, next_)
    if copied_from is not None:
        hooks.dup_anon_vma(target, copied_from)
    with hooks.anon_vma_lock(target):  # commit_merge
        mm.resize(target, start, end, pgoff, *(() if next_ is None else (next_,)))
    if next_ is not None:
        _drop_merged(mm, next_)


def vma_shrink(mm: "Mm", vma: Vma, start: int, end: int, pgoff: int) -> None:
    """Make `vma` smaller; nothing is mapped in what goes (vma_shrink)."""
    mm.kernel.locks.vma_start_write(vma)
    with mm.kernel.hooks.anon_vma_lock(vma):
        mm.resize(vma, start, end, pgoff)


def vma_merge_new_range(
    mm: "Mm",
    start: int,
    end: int,
    pgoff: int,
    vm_flags: int,
    file: File | None,
    anon_vma: Any = None,
    *,
    prev: Vma | None,
    next_: Vma | None,
    just_expand: bool = False,
    copied_from: Vma | None = None,
) -> Vma | None:
    """Merge a range that holds no VMA with its neighbours; the VMA that covers it then, or None.

    just_expand: only try the VMA below (VMG_FLAG_JUST_EXPAND, brk).
    """
    if vm_flags & VM_SPECIAL:
        return None
    pages = (end - start) >> PAGE_SHIFT
    left = _can_merge_left(mm, prev, start, pgoff, vm_flags, file, anon_vma, None, copied_from)
    right = not just_expand and _can_merge_right(
        mm, prev, next_, end, pgoff + pages, vm_flags, file, anon_vma, None, copied_from, left
    )
    dup_from = copied_from if mm.kernel.profile.merge_dups_copied_from else None
    if left:
        assert prev is not None
        target, new_start, new_pgoff = prev, prev.vm_start, prev.vm_pgoff
    elif right:
        assert next_ is not None
        target, new_start, new_pgoff = next_, start, pgoff
    else:
        return None
    if left and right and not _can_merge_remove(next_):
        right = False
    if right:
        assert next_ is not None
        new_end = next_.vm_end
    else:
        new_end = end
    removed = next_ if left and right else None
    vma_expand(mm, target, new_start, new_end, new_pgoff, removed, dup_from)
    return target


def vma_merge_existing_range(mm: "Mm", vma: Vma, start: int, end: int, vm_flags: int) -> Vma | None:
    """`vma` is to have `vm_flags` in [start, end): merge that part with its neighbours if it lies at an edge of `vma`.

    Returns the VMA that covers the range then, or None if nothing merges.
    """
    hooks = mm.kernel.hooks
    left_side, right_side = start == vma.vm_start, end == vma.vm_end
    if vm_flags & VM_SPECIAL or not (left_side or right_side):
        return None
    prev, next_ = mm.prev_next(vma)
    pgoff, pgoff_end = vma.pgoff_at(start), vma.pgoff_at(end)
    file, anon_vma = vma.vm_file, vma.anon_vma
    left = left_side and _can_merge_left(mm, prev, start, pgoff, vm_flags, file, anon_vma, vma, None)
    right = right_side and _can_merge_right(mm, prev, next_, end, pgoff_end, vm_flags, file, anon_vma, vma, None, left)
    if not left and not right:
        return None
    whole = left_side and right_side
    if whole and not _can_merge_remove(vma):
        return None
    if left and right and not _can_merge_remove(next_):
        right = False
    mm.kernel.locks.vma_start_write(vma)
    if left and right:
        #     start          end
        # prev|--------------|next      all three become prev
        assert prev is not None and next_ is not None
        mm.kernel.locks.vma_start_write(prev)
        mm.kernel.locks.vma_start_write(next_)
        hooks.dup_anon_vma(prev, next_ if next_.anon_vma is not None else vma)
        with hooks.anon_vma_lock(prev):
            mm.resize(prev, prev.vm_start, next_.vm_end, prev.vm_pgoff, vma, next_)
        _drop_merged(mm, vma)
        _drop_merged(mm, next_)
        return prev
    if left:
        # prev grows over the range; vma keeps the rest
        assert prev is not None
        mm.kernel.locks.vma_start_write(prev)
        hooks.dup_anon_vma(prev, vma)
        with hooks.anon_vma_lock(prev):
            if whole:
                mm.resize(prev, prev.vm_start, end, prev.vm_pgoff, vma)
            else:
                split_huge_pmd_if_needed(mm, end)
                mm.resize(prev, prev.vm_start, end, prev.vm_pgoff)
                mm.resize(vma, end, vma.vm_end, pgoff_end)
        if whole:
            _drop_merged(mm, vma)
        return prev
    # next grows down over the range; vma keeps the rest
    assert next_ is not None
    mm.kernel.locks.vma_start_write(next_)
    hooks.dup_anon_vma(next_, vma)
    with hooks.anon_vma_lock(next_):
        if whole:
            mm.resize(next_, start, next_.vm_end, pgoff, vma)
        else:
            split_huge_pmd_if_needed(mm, start)
            vma.vm_end = start
            mm.resize(next_, start, next_.vm_end, pgoff)
    if whole:
        _drop_merged(mm, vma)
    return next_


def vma_modify(mm: "Mm", vma: Vma, start: int, end: int, vm_flags: int) -> Vma:
    """Make [start, end), a part of `vma`, a VMA of its own with `vm_flags`, by merging or by splitting (vma_modify)."""
    merged = vma_merge_existing_range(mm, vma, start, end, vm_flags)
    if merged is not None:
        return merged
    if vma.vm_start < start:
        split_vma(mm, vma, start, new_below=True)
    if vma.vm_end > end:
        split_vma(mm, vma, end, new_below=False)
    mm.kernel.locks.vma_start_write(vma)
    vma.vm_flags = vm_flags
    return vma
