# SPDX-License-Identifier: GPL-2.0-only
"""Splitting a large folio into small ones (split_huge_page_to_list_to_order, mm/huge_memory.c).

Not to be confused with splitting the PMD entry, after which the folio is still large (:func:`split_huge_pmd`).
"""

from typing import TYPE_CHECKING

from rmaplab.mm.folio import Folio, folio_put
from rmaplab.mm.migrate import remove_migration_ptes
from rmaplab.mm.rmap import try_to_migrate

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel

__all__ = ["split_folio"]


def split_folio(kernel: "Kernel", folio: Folio) -> bool:
    """Split `folio` into single pages; pages that nothing maps are freed. False if it cannot be split now.

    What makes it atomic for others: the lock of hook 16, held while all entries are migration entries. The walks
    inside run under that lock and take none (TTU_RMAP_LOCKED, RMP_LOCKED).
    """
    if folio.nr_pages == 1:
        return True
    hooks = kernel.hooks
    with kernel.locks.folio(folio):
        pinned = hooks.folio_get_anon_vma(folio)
        if pinned is None:
            return False  # not mapped: EBUSY
        folios = None
        with hooks.split_lock(pinned):
            if folio.refs == (folio in kernel.swap.slot_of):  # can_split_folio
                folios = _split_locked(kernel, folio)
        hooks.put_anon_vma(pinned)
    for small in folios or ():
        folio_put(kernel.mem, small)
    return folios is not None


def _split_locked(kernel: "Kernel", folio: Folio) -> list[Folio]:
    """unmap_folio, __split_huge_page, remap_page. The folios returned each carry one reference of the caller's."""
    try_to_migrate(kernel, folio)
    cached = folio in kernel.swap.slot_of
    folios = kernel.mem.split(folio)
    if cached:
        kernel.swap.split(folios)
    for small in folios:
        small.refs += 1
    for small in folios:
        remove_migration_ptes(kernel, small, small)
        if not small.mapcount:
            kernel.swap.folio_free_swap(small)  # free_folio_and_swap_cache
    return folios
