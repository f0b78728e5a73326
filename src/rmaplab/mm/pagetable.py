# SPDX-License-Identifier: GPL-2.0-only
"""Page tables: which address maps which page.

An entry is one integer, as in hardware: the page frame number above the flag bits. Only anonymous pages have
entries; a page of a file that nobody wrote to is not in them (docs/model.md). Virtual page number ``vpn`` =
address >> PAGE_SHIFT. A table of 512 entries is a dict ``vpn -> entry`` under ``vpn >> 9``; in its place an
integer stands for a PMD entry that maps 2 MiB at once.
"""

from collections.abc import Iterator
from typing import Final

__all__ = [
    "ENTRY_SHIFT",
    "EXCLUSIVE",
    "GUARD",
    "HWPOISON",
    "KIND_MASK",
    "MIGRATION",
    "PRESENT",
    "SWAP",
    "WRITE",
    "PageTable",
    "Pgd",
    "entries",
    "guards",
    "tables_in",
]

ENTRY_SHIFT: Final = 4
PRESENT: Final = 1
WRITE: Final = 2
EXCLUSIVE: Final = 2  # the same bit in a SWAP or MIGRATION entry: the page was PageAnonExclusive (pte_swp_exclusive)
KIND_MASK: Final = 0b1101  # PRESENT, or the kind of a non-present entry
SWAP: Final = 0b0100  # above the bits: swap slot
MIGRATION: Final = 0b1000  # above the bits: pfn of the folio under migration
HWPOISON: Final = 0b1100  # above the bits: pfn of the poisoned page
GUARD: Final = 0b0010  # the marker of MADV_GUARD_INSTALL, the whole entry

PageTable = dict[int, int]
Pgd = dict[int, PageTable | int]


def tables_in(pgd: Pgd, start: int, end: int) -> list[int]:
    """Indices (``vpn >> 9``) of the tables that hold an entry in [start, end) (vpns), ascending."""
    first, last = start >> 9, (end - 1) >> 9
    if last - first < len(pgd):
        return [i for i in range(first, last + 1) if i in pgd]
    return sorted(i for i in pgd if first <= i <= last)


def entries(pgd: Pgd, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(vpn, entry) of every entry in [start, end) (vpns), ascending; a PMD entry counts as its first page."""
    for i in tables_in(pgd, start, end):
        table = pgd[i]
        if isinstance(table, int):
            yield i << 9, table
            continue
        for vpn in sorted(table):
            if start <= vpn < end:
                yield vpn, table[vpn]


def guards(pgd: Pgd, start: int, end: int) -> list[int]:
    """The vpns in [start, end) that hold a guard marker, ascending."""
    return [vpn for vpn, entry in entries(pgd, start, end) if entry == GUARD]
