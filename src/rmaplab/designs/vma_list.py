# SPDX-License-Identifier: GPL-2.0-only
"""The lists of :mod:`rmaplab.designs.vma_set`: which VMAs map a folio, and what page tables say to that."""

from contextlib import ExitStack
from typing import Any

from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.mm import Mm
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, MIGRATION, PRESENT, tables_in
from rmaplab.mm.vma import Vma

__all__ = ["LINK_SIZE", "Link", "Members", "Pinned", "Relatives", "folios_in_table", "maps"]

LINK_SIZE = 24
"""Bytes of an element on a 64-bit kernel: pointer to the VMA, next, and pointer back."""


class Link:
    """The element of one folio and one VMA."""

    __slots__ = ()


class Members:
    """What ``folio->mapping`` heads, under the list lock of the folio; no object of its own.

    vmas: member -> its element; a member is in as long as an entry in it maps the folio, from before to after
    pinned: members that hook 4 has locked (a bit in the element). They stay, also without an entry, so that the head
        can go from folio to folio
    """

    __slots__ = ("pinned", "vmas")

    def __init__(self) -> None:
        self.vmas: dict[Vma, Link] = {}
        self.pinned: dict[Vma, None] = {}


class Pinned:
    """What hook 4 holds.

    members: the list at that time; nr_pages: of the folio then
    vmas: its members, all locked by `held`
    folios: those that may have got the list, or a part of it, since: the walks that restore entries tell
    """

    __slots__ = ("folios", "held", "members", "nr_pages", "vmas")

    def __init__(self, folio: Folio) -> None:
        self.members: Any = None
        self.nr_pages = folio.nr_pages
        self.vmas: dict[Vma, None] = {}
        self.held = ExitStack()
        self.folios: dict[Folio, None] = {folio: None}


class Relatives:
    """For KSM only: the address spaces of each tree of forks, parents first, under one lock for all.

    rings: mm -> the list that it is in, with all others of its tree
    """

    __slots__ = ("rings",)

    def __init__(self) -> None:
        self.rings: dict[Mm, list[Mm]] = {}


def maps(folio: Folio, vma: Vma, *, but: range = range(0), huge: bool = True) -> bool:
    """Does an entry in the range of `vma` map a page of `folio`, or did so and is under migration?

    Reads without locks what is not in the page table that the caller has locked. From the end on: zapping leaves what
    is there.

    but: virtual pages not to look at
    huge: may it be a PMD entry?
    """
    mm = vma.vm_mm
    start = (vma.vm_start >> PAGE_SHIFT) + folio.index - vma.vm_pgoff
    first, last = max(start, vma.vm_start >> PAGE_SHIFT), min(start + folio.nr_pages, vma.vm_end >> PAGE_SHIFT)
    pages = range(folio.pfn, folio.pfn + folio.nr_pages)
    for i in reversed(tables_in(mm.pgd, first, last)) if first < last else ():
        table = mm.pgd.get(i)
        vpns = range(max(first, i << 9), min(last, (i + 1) << 9))
        if isinstance(table, int):
            if huge and table >> ENTRY_SHIFT in pages and any(vpn not in but for vpn in vpns):
                return True
        elif table is not None:
            for vpn in reversed(vpns):
                entry = table.get(vpn, 0)
                if entry & KIND_MASK in (PRESENT, MIGRATION) and entry >> ENTRY_SHIFT in pages and vpn not in but:
                    return True
    return False


def folios_in_table(mm: Mm, i: int, vpns: range) -> list[Folio]:
    """The folios of which an entry of the table at index `i`, or the PMD entry, maps a page in `vpns`, or did so and is
    under migration. Page-table lock held."""
    pages = mm.kernel.mem.pages
    table = mm.pgd.get(i)
    found: dict[Folio, None] = {}
    if isinstance(table, int):
        entries = [table]
    else:
        entries = [] if table is None else [entry for vpn, entry in sorted(table.items()) if vpn in vpns]
    for entry in entries:
        if entry & KIND_MASK in (PRESENT, MIGRATION):
            folio = pages[entry >> ENTRY_SHIFT]
            if folio is not None:
                found[folio] = None
    return list(found)
