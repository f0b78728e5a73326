# SPDX-License-Identifier: GPL-2.0-only
"""Folios of anonymous memory, and the memory map that finds them by page frame number."""

from typing import Any

__all__ = ["Folio", "MemMap"]


class Folio:
    """One folio: `nr_pages` pages at frame `pfn`.

    mapping: what the design put there (hook 2); opaque to mm
    index: linear page index of its first page, as ``folio->index``
    mapcount: page-table entries that map a page of it (a PMD entry counts once)
    exclusive: bit i set = page i is PageAnonExclusive
    refs: references besides those of the mappings (swap cache, isolated, pinned)
    """

    __slots__ = ("exclusive", "index", "mapcount", "mapping", "nr_pages", "pfn", "refs")

    def __init__(self, pfn: int, nr_pages: int) -> None:
        self.pfn = pfn
        self.nr_pages = nr_pages
        self.mapping: Any = None
        self.index = 0
        self.mapcount = 0
        self.exclusive = 0
        self.refs = 0

    def __repr__(self) -> str:
        return (
            f"<folio pfn={self.pfn:#x} pages={self.nr_pages} index={self.index:#x} mapcount={self.mapcount}>"
        )


class MemMap:
    """The memory map (``pfn_to_page``) and the page allocator."""

    __slots__ = ("_free", "_free_large", "pages")

    def __init__(self) -> None:
        self.pages: list[Folio | None] = []  # by pfn; every page of a large folio names the folio
        self._free: list[int] = []  # frames of freed small folios
        self._free_large: dict[int, list[int]] = {}  # nr_pages -> first frames of freed large folios

    @property
    def live(self) -> int:
        """Pages allocated."""
        large = sum(nr_pages * len(pfns) for nr_pages, pfns in self._free_large.items())
        return len(self.pages) - len(self._free) - large

    def alloc(self) -> Folio:
        """A new folio of one page."""
        if self._free:
            pfn = self._free.pop()
            folio = self.pages[pfn] = Folio(pfn, 1)
            return folio
        folio = Folio(len(self.pages), 1)
        self.pages.append(folio)
        return folio

    def alloc_large(self, nr_pages: int) -> Folio:
        """A new folio of `nr_pages` pages, more than one."""
        free = self._free_large.get(nr_pages)
        if free:
            pfn = free.pop()
        else:
            pfn = len(self.pages)
            self.pages.extend([None] * nr_pages)
        folio = Folio(pfn, nr_pages)
        self.pages[pfn : pfn + nr_pages] = [folio] * nr_pages
        return folio

    def free(self, folio: Folio) -> None:
        """Give the pages of `folio` back."""
        pfn, nr_pages = folio.pfn, folio.nr_pages
        if nr_pages == 1:
            self.pages[pfn] = None
            self._free.append(pfn)
            return
        self.pages[pfn : pfn + nr_pages] = [None] * nr_pages
        self._free_large.setdefault(nr_pages, []).append(pfn)

    def folios(self) -> list[Folio]:
        """All live folios, each once, by frame."""
        return [f for pfn, f in enumerate(self.pages) if f is not None and f.pfn == pfn]
