# SPDX-License-Identifier: GPL-2.0-only
"""Folios of anonymous memory, and the memory map that finds them by page frame number."""

from typing import Any

__all__ = ["ContentsMap", "Folio", "MemMap", "folio_put"]


class Folio:
    """One folio: `nr_pages` pages at frame `pfn`.

    mapping: what the design put there (hook 2); opaque to mm
    index: linear page index of its first page, as ``folio->index``
    mapcount: page-table entries that map a page of it (a PMD entry counts once)
    exclusive: bit i set = page i is PageAnonExclusive
    refs: references besides those of the mappings (swap cache, isolated, pinned). The kernel's refcount is the sum of
        both: a mapping's reference comes and goes with it

    Each method is one atomic operation on the counts. A folio fresh from the allocator has neither mapping nor
    reference, and nobody else can get one.
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

    def add_rmap(self, entries: int = 1) -> None:
        """`entries` more map the folio, each with its reference (folio_add_anon_rmap_ptes)."""
        self.mapcount += entries

    def remove_rmap(self) -> None:
        """One entry less maps the folio; its reference is the caller's now (folio_remove_rmap_ptes)."""
        self.mapcount -= 1
        self.refs += 1

    def get(self) -> None:
        """One more reference, from somebody who is sure that there is one (folio_get)."""
        self.refs += 1

    def try_get(self) -> bool:
        """One more reference unless the folio is free or frozen (folio_try_get)."""
        if not self.mapcount + self.refs:
            return False
        self.refs += 1
        return True

    def put(self) -> bool:
        """Drop a reference; True if that was the last, and nothing maps the folio (folio_put_testzero)."""
        self.refs -= 1
        return not self.mapcount + self.refs

    def ref_count(self) -> int:
        """All references (folio_ref_count)."""
        return self.mapcount + self.refs

    def freeze(self, expected: int) -> bool:
        """Make the count 0, so that nobody gets a reference, if it is `expected` and nothing maps the folio
        (folio_ref_freeze)."""
        if self.mapcount or self.refs != expected:
            return False
        self.refs = 0
        return True

    def unfreeze(self, count: int) -> None:
        """End :meth:`freeze` with `count` references (folio_ref_unfreeze)."""
        self.refs = count

    def __repr__(self) -> str:
        return f"<folio pfn={self.pfn:#x} pages={self.nr_pages} index={self.index:#x} mapcount={self.mapcount}>"


class MemMap:
    """The memory map (``pfn_to_page``) and the page allocator.

    contents: pfn -> what the page holds, 0 if absent; None where nobody asks (:class:`ContentsMap`)
    poisoned: frames that memory failure took away; their folios are never freed
    """

    __slots__ = ("_free", "_free_large", "contents", "pages", "poisoned")

    def __init__(self) -> None:
        self.contents: dict[int, int] | None = None
        self.poisoned: set[int] = set()
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

    def split(self, folio: Folio) -> list[Folio]:
        """Make each page of the large `folio` a folio of its own; the first keeps the object (__split_huge_page).

        Mapping and index are those that page had; mapcounts, references and exclusive bits are the caller's.
        """
        folios = [folio]
        for k in range(1, folio.nr_pages):
            tail = self.pages[folio.pfn + k] = Folio(folio.pfn + k, 1)
            tail.mapping = folio.mapping
            tail.index = folio.index + k
            folios.append(tail)
        folio.nr_pages = 1
        return folios

    def copy(self, to: int, source: int) -> None:
        """Copy a page, by pfn (copy_highpage)."""
        if self.contents is not None:
            self.contents[to] = self.contents.get(source, 0)

    def folios(self) -> list[Folio]:
        """All live folios, each once, by frame."""
        return [f for pfn, f in enumerate(self.pages) if f is not None and f.pfn == pfn]


class ContentsMap(MemMap):
    """A memory map that knows what each page holds: a number that a writer chose, 0 for a page of zeroes."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self.contents: dict[int, int] = {}

    def free(self, folio: Folio) -> None:
        """The next owner finds zeroes."""
        for pfn in range(folio.pfn, folio.pfn + folio.nr_pages):
            self.contents.pop(pfn, None)
        super().free(folio)


def folio_put(mem: MemMap, folio: Folio) -> None:
    """Drop a reference that is not a mapping's; the folio goes with the last of either."""
    if folio.put():
        mem.free(folio)
