# SPDX-License-Identifier: GPL-2.0-only
"""Loads and stores of a task, with the faults that they take, where contents are kept (``Kernel(contents=True)``)."""

from typing import TYPE_CHECKING

from rmaplab.mm.fault import handle_mm_fault
from rmaplab.mm.flags import PAGE_SHIFT, PTRS_PER_PTE, VM_READ
from rmaplab.mm.pagetable import ENTRY_SHIFT, HWPOISON, KIND_MASK, MIGRATION, PRESENT, SWAP, WRITE

if TYPE_CHECKING:
    from rmaplab.mm.mm import Mm

__all__ = ["entry_at", "mm_peek", "mm_read", "mm_write"]

_TRIES = 4  # a fault may have to be taken again, after swap-in or migration


def entry_at(mm: "Mm", address: int) -> int | None:
    """The entry that maps the page at `address`; of a PMD entry, the one that the page would have after a split."""
    vpn = address >> PAGE_SHIFT
    table = mm.pgd.get(vpn >> 9)
    if isinstance(table, int):
        return table + ((vpn & (PTRS_PER_PTE - 1)) << ENTRY_SHIFT)
    return table.get(vpn) if table is not None else None


def mm_write(mm: "Mm", address: int, token: int) -> bool:
    """Store `token` in the private page at `address`; False if the task is killed for it."""
    contents = mm.kernel.mem.contents
    assert contents is not None
    for _ in range(_TRIES):
        entry = entry_at(mm, address)
        if entry is not None and entry & (PRESENT | WRITE) == PRESENT | WRITE:
            contents[entry >> ENTRY_SHIFT] = token
            return True
        if not handle_mm_fault(mm, address, True):
            return False
    return False


def mm_read(mm: "Mm", address: int) -> int | None:
    """What a load from `address` sees, 0 where nobody wrote; None if the task is killed for it."""
    contents = mm.kernel.mem.contents
    assert contents is not None
    with mm.kernel.locks.mmap_read(mm):
        vma = mm.vma_lookup(address)
        if vma is None or not vma.vm_flags & VM_READ:
            return None
    for _ in range(_TRIES):
        entry = entry_at(mm, address)
        if entry is None:
            return 0
        if entry & KIND_MASK == PRESENT:
            return contents.get(entry >> ENTRY_SHIFT, 0)
        handle_mm_fault(mm, address, False)
    return None


def mm_peek(mm: "Mm", vpn: int, entry: int) -> int | None:
    """What a load through `entry`, of page `vpn`, would see, without a fault; None if the page is broken."""
    kernel = mm.kernel
    contents = kernel.mem.contents
    assert contents is not None
    kind, number = entry & KIND_MASK, entry >> ENTRY_SHIFT
    if kind == SWAP:
        folio = kernel.swap.cache.get(number)
        if folio is None:
            return kernel.swap.disk.get(number, 0)
        number += folio.pfn - kernel.swap.slot_of[folio]
        if number in kernel.mem.poisoned:
            return None
    elif kind == HWPOISON or kind not in (PRESENT, MIGRATION):
        return None
    return contents.get(number, 0)
