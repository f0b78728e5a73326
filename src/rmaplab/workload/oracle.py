# SPDX-License-Identifier: GPL-2.0-only
"""What must hold between two operations, found by scanning all page tables: slow, and independent of any design."""

from collections import defaultdict
from collections.abc import Iterable

from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT, WRITE
from rmaplab.mm.vma import Vma

__all__ = ["Mapping", "check_folios", "mappings", "missed_by_walks", "visited"]

Mapping = tuple[Mm, int]
"""An address space and the virtual page number at which it maps a folio (of a PMD entry: the first)."""


def mappings(mms: Iterable[Mm]) -> dict[Folio, dict[Mapping, int]]:
    """For each mapped folio: every entry that maps a page of it."""
    found: dict[Folio, dict[Mapping, int]] = defaultdict(dict)
    for mm in mms:
        pages = mm.kernel.mem.pages
        for vpn, entry in mm.anon_entries():
            if entry & KIND_MASK == PRESENT:
                folio = pages[entry >> ENTRY_SHIFT]
                assert folio is not None, f"entry {vpn:#x} of mm {mm.ident} maps a freed page"
                found[folio][mm, vpn] = entry
    return found


def check_folios(kernel: Kernel, mms: Iterable[Mm]) -> None:
    """Raise AssertionError unless the state of every folio agrees with the page tables.

    mapcount: as many as entries; no mapping: no folio. exclusive: one mapping. Writable: exclusive (cow-isolation).
    """
    found = mappings(mms)
    for folio, places in found.items():
        assert folio.mapcount == len(places), f"mapcount of {folio}, mapped {len(places)} times"
        users: dict[int, int] = defaultdict(int)  # page of the folio -> entries that map it
        for (mm, vpn), entry in places.items():
            page = (entry >> ENTRY_SHIFT) - folio.pfn
            whole = isinstance(mm.pgd[vpn >> 9], int)
            for k in range(folio.nr_pages) if whole else (page,):
                users[k] += 1
                exclusive = folio.exclusive >> k & 1
                assert exclusive or not entry & WRITE, f"{folio}: page {k} is shared and writable"
        for page, count in users.items():
            assert count == 1 or not folio.exclusive >> page & 1, (
                f"{folio}: page {page} is exclusive, mapped {count} times"
            )
    live = {folio for folio in kernel.mem.folios() if folio.mapcount or not folio.refs}
    assert live == set(found), "a folio that nothing maps is live"
    assert kernel.mem.live == sum(folio.nr_pages for folio in kernel.mem.folios()), "pages allocated"


def visited(folio: Folio, visits: Iterable[tuple[Vma, int]]) -> list[tuple[Mm, range]]:
    """The virtual pages that page_vma_mapped_walk looks at for each visit of a walk for `folio`."""
    pages = []
    for vma, address in visits:
        end_index = folio.index + folio.nr_pages - vma.vm_pgoff
        end = min(vma.vm_end >> PAGE_SHIFT, (vma.vm_start >> PAGE_SHIFT) + end_index)  # vma_address_end
        pages.append((vma.vm_mm, range(address >> PAGE_SHIFT, end)))
    return pages


def missed_by_walks(kernel: Kernel, mms: Iterable[Mm]) -> list[tuple[Folio, Mapping]]:
    """Every mapping that the design's walk for its folio does not reach."""
    missed = []
    for folio, places in mappings(mms).items():
        ranges = visited(folio, kernel.hooks.rmap_walk_anon(folio))
        for mm, vpn in places:
            if not any(mm is visit_mm and vpn in pages for visit_mm, pages in ranges):
                missed.append((folio, (mm, vpn)))
    return missed
