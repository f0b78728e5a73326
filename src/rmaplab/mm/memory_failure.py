# SPDX-License-Identifier: GPL-2.0-only
"""A page broke: who must be killed, and no entry may map it any more (mm/memory-failure.c)."""

from contextlib import closing
from typing import TYPE_CHECKING

from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.huge_memory import split_folio
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT
from rmaplab.mm.rmap import try_to_unmap
from rmaplab.mm.stable_node import folio_test_ksm

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import Vma

__all__ = ["collect_procs", "memory_failure"]


def _page_mapped_in_vma(folio: Folio, vma: "Vma", address: int) -> bool:
    """Does the small `folio` lie at `address` of `vma`? (page_mapped_in_vma)"""
    table = vma.vm_mm.pgd.get(address >> 21)
    entry = table.get(address >> PAGE_SHIFT) if isinstance(table, dict) else None
    return entry is not None and entry & KIND_MASK == PRESENT and entry >> ENTRY_SHIFT == folio.pfn


def collect_procs(kernel: "Kernel", folio: Folio) -> "set[Mm]":
    """The address spaces that map the small `folio`: collect_procs_anon (hook 12), or collect_procs_ksm, which looks at
    every VMA that hook 11 finds for every rmap item."""
    found: set[Mm] = set()
    if folio_test_ksm(folio):
        places = [place for item in folio.mapping.items for place in kernel.hooks.ksm_walk(item.pinned, item.address)]
    else:
        with closing(kernel.hooks.collect_procs_anon(folio)) as walk:  # type: ignore[type-var]
            places = list(walk)
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
    if folio is None or pfn in mem.poisoned:
        return None
    if folio.nr_pages > 1:
        if not split_folio(kernel, folio):  # try_to_split_thp_page
            return None
        folio = mem.pages[pfn]
        if folio is None:
            return None  # nothing mapped that part
    kernel.special = True
    folio.refs += 1
    with kernel.locks.folio(folio):
        mem.poisoned.add(pfn)
        if not folio.mapcount:
            return set()
        kill = collect_procs(kernel, folio)
        try_to_unmap(kernel, folio, hwpoison=True, ignore_mlock=True)
        kernel.swap.folio_free_swap(folio)  # where no entry can lead to it
    return kill
