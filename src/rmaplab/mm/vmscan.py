# SPDX-License-Identifier: GPL-2.0-only
"""Reclaim of one folio (shrink_folio_list, mm/vmscan.c)."""

from typing import TYPE_CHECKING

from rmaplab.mm.folio import Folio, folio_put
from rmaplab.mm.rmap import folio_referenced, try_to_unmap

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel

__all__ = ["shrink_folio"]


def shrink_folio(kernel: "Kernel", folio: Folio, *, writeback: bool = False) -> bool:
    """Write `folio` to swap, unmap it and free it; True if it was freed.

    writeback: the write is still going on, so that the folio stays in the swap cache, perhaps unmapped
    """
    if not folio.try_get():  # isolate_lru_folios
        return False
    guard = kernel.locks.folio_trylock(folio)
    freed = False
    if guard is not None:
        with guard:
            freed = _shrink(kernel, folio, writeback)
    if freed:
        kernel.mem.free(folio)  # the count is frozen: nobody else knows it
    else:
        folio_put(kernel.mem, folio)
    return freed


def _shrink(kernel: "Kernel", folio: Folio, writeback: bool) -> bool:
    swap = kernel.swap
    kernel.special = True
    if folio_referenced(kernel, folio) < 0:  # folio_check_references
        return False
    if folio not in swap.slot_of:
        if folio.refs > 1:
            return False  # somebody has pinned it (folio_maybe_dma_pinned)
        swap.add_to_swap(folio)
    if folio.mapcount and not try_to_unmap(kernel, folio):
        return False  # activate_locked; it stays in the swap cache
    swap.writeout(folio)  # pageout
    return not writeback and swap.remove_mapping(folio)
