# SPDX-License-Identifier: GPL-2.0-only
"""A page broke: who must be killed, and no entry may map it any more (mm/memory-failure.c)."""

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from rmaplab.mm.folio import Folio, folio_put
from rmaplab.mm.hooks import WalkContended
from rmaplab.mm.huge_memory import split_huge_page
from rmaplab.mm.rmap import page_vma_mapped_walk, try_to_unmap
from rmaplab.mm.stable_node import folio_test_ksm

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import Vma

__all__ = ["collect_procs", "memory_failure"]


def _page_mapped_in_vma(folio: Folio, vma: "Vma", address: int) -> bool:
    """Does the small `folio` lie at `address` of `vma`? (page_mapped_in_vma, which looks under the page-table lock)"""
    with closing(page_vma_mapped_walk(folio, vma, address)) as found:  # type: ignore[type-var]
        return next(found, None) is not None


def _places(kernel: "Kernel", folio: Folio) -> "Iterator[tuple[Vma, int]]":
    """collect_procs_anon (hook 12), or collect_procs_ksm, which looks at every VMA that hook 11 finds for every rmap
    item"""
    if not folio_test_ksm(folio):
        yield from kernel.hooks.collect_procs_anon(folio)
        return
    for item in list(folio.mapping.items):
        yield from kernel.hooks.ksm_walk(item.pinned, item.address)


def collect_procs(kernel: "Kernel", folio: Folio) -> "set[Mm]":
    """The address spaces that map the small `folio`."""
    found: set[Mm] = set()
    with closing(_places(kernel, folio)) as places:  # type: ignore[type-var]
        for vma, address in places:
            if _page_mapped_in_vma(folio, vma, address):
                found.add(vma.vm_mm)
    return found


def memory_failure(kernel: "Kernel", pfn: int) -> "set[Mm] | None":
    """The page at `pfn` is broken. Returns the address spaces to be killed; None if nothing could be done: no page of
    anonymous memory, or one of a large folio that cannot be split.

    The frame is lost: its folio keeps a reference forever. A page of the swap cache stays there while an entry names
    its slot, so that a later swap-in meets it (me_swapcache_dirty, do_swap_page).
    """
    mem = kernel.mem
    folio = mem.pages[pfn] if pfn < len(mem.pages) else None
    if folio is None or pfn in mem.poisoned or not folio.try_get():  # get_hwpoison_page
        return None
    if mem.pages[pfn] is not folio:
        folio_put(mem, folio)
        return None
    if folio.nr_pages > 1:
        with kernel.locks.folio(folio):  # try_to_split_thp_page
            done = split_huge_page(kernel, folio, pfn - folio.pfn)
        small = mem.pages[pfn]
        if not done or small is not folio:
            folio_put(mem, folio)
        if not done or small is None:
            return None
        folio = small
    kernel.special = True
    with kernel.locks.folio(folio):
        if pfn in mem.poisoned:
            folio_put(mem, folio)
            return None
        mem.poisoned.add(pfn)
    kill: set[Mm] = set()
    while True:
        try:
            with kernel.locks.folio(folio):
                kill |= _hwpoison_user_mappings(kernel, folio)
            return kill
        except WalkContended as busy:  # never in mainline, whose walks may wait: not so under the folio lock
            kernel.locks.retry_later(busy.mm)


def _hwpoison_user_mappings(kernel: "Kernel", folio: Folio) -> "set[Mm]":
    """Folio lock held."""
    if not folio.mapcount:
        return set()
    kill = collect_procs(kernel, folio)
    try_to_unmap(kernel, folio, hwpoison=True, ignore_mlock=True)
    kernel.swap.folio_free_swap(folio)  # where no entry can lead to it
    return kill
