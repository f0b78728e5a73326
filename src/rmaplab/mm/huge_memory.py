# SPDX-License-Identifier: GPL-2.0-only
"""Splitting a large folio into small ones (split_huge_page_to_list_to_order, mm/huge_memory.c).

Not to be confused with splitting the PMD entry, after which the folio is still large (:func:`split_huge_pmd`).
"""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from rmaplab.mm.folio import Folio, folio_put
from rmaplab.mm.hooks import WalkContended
from rmaplab.mm.migrate import remove_migration_ptes
from rmaplab.mm.rmap import try_to_migrate
from rmaplab.mm.swap import free_folio_and_swap_cache

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel

__all__ = ["split_folio", "split_huge_page"]


def split_folio(kernel: "Kernel", folio: Folio) -> bool:
    """Split `folio` into single pages; pages that nothing maps are freed. False if it cannot be split now, or is gone
    (deferred_split_scan)."""
    if folio.nr_pages == 1:
        return True
    if not folio.try_get():
        return False
    with kernel.locks.folio(folio):
        done = split_huge_page(kernel, folio)
    folio_put(kernel.mem, folio)
    return done


def split_huge_page(kernel: "Kernel", folio: Folio, keep: int = 0) -> bool:
    """The same for a caller that holds the folio lock and one reference, which are the first page's afterwards; page
    number `keep`, if another one, has a reference of the caller's then, too. False if it cannot be split now.

    What makes it atomic for others: the lock of hook 16, held while all entries are migration entries. The walks
    inside run under that lock and take none (TTU_RMAP_LOCKED, RMP_LOCKED).
    """
    if folio.nr_pages == 1:
        return True
    hooks = kernel.hooks
    try:
        pinned = hooks.folio_get_anon_vma(folio)
    except WalkContended:
        return False
    if pinned is None:
        return False  # not mapped: EBUSY
    with hooks.split_lock(pinned):
        folios = _split_locked(kernel, folio, pinned)
    hooks.put_anon_vma(pinned)
    for k, small in enumerate(folios):  # the kernel does so under the lock still, to no different effect
        if not k and not small.mapcount:
            kernel.swap.folio_free_swap(small)
        elif k and k != keep:
            free_folio_and_swap_cache(kernel, small)
    return bool(folios)


def _split_locked(kernel: "Kernel", folio: Folio, pinned: Any) -> list[Folio]:
    """can_split_folio, unmap_folio, __split_huge_page, remap_page: the pages, each with a reference, or none.

    The tails stay locked until their entries are back (the kernel unlocks them after remap_page): whoever meets a
    migration entry waits.
    """
    swap = kernel.swap
    cached = folio in swap.slot_of
    if folio.refs != 1 + cached:
        return []
    if not try_to_migrate(kernel, folio, pinned, True) or not folio.freeze(1 + cached):
        remove_migration_ptes(kernel, folio, folio, pinned, True)
        return []
    folios = kernel.mem.split(folio)
    if cached:
        swap.split(folios)
    with ExitStack() as tails:
        for small in folios[1:]:
            guard = kernel.locks.folio_trylock(small)  # a new folio: nobody else can have it
            assert guard is not None
            tails.enter_context(guard)
        for small in folios:
            small.unfreeze(1 + cached)
        for small in folios:
            remove_migration_ptes(kernel, small, small, pinned, True)
    return folios
