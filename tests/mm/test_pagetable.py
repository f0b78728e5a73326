# SPDX-License-Identifier: GPL-2.0-only
import pytest

from rmaplab.mm.pagetable import (
    ENTRY_SHIFT,
    HWPOISON,
    KIND_MASK,
    MIGRATION,
    PRESENT,
    SWAP,
    WRITE,
    Pgd,
    entries,
    tables_in,
)

PGD: Pgd = {0: {1: 10, 511: 20}, 2: 30, 3: {1536: 40}}


@pytest.mark.parametrize(
    ("start", "end", "tables"),
    [(0, 512, [0]), (0, 513, [0]), (511, 1025, [0, 2]), (600, 700, []), (0, 1 << 36, [0, 2, 3])],
)
def test_tables_in_a_range(start: int, end: int, tables: list[int]) -> None:
    """A table left out at either end, for ranges narrower and wider than the page table is."""
    assert tables_in(PGD, start, end) == tables


def test_entries_ascend_and_count_a_huge_one_once() -> None:
    assert list(entries(PGD, 0, 2048)) == [(1, 10), (511, 20), (1024, 30), (1536, 40)]
    assert list(entries(PGD, 2, 1536)) == [(511, 20), (1024, 30)]


def test_kinds_of_entries_are_distinct_under_the_mask() -> None:
    """A swap entry read as a present one, whatever its write bit and frame."""
    kinds = [PRESENT, SWAP, MIGRATION, HWPOISON]
    for kind in kinds:
        for write in (0, WRITE):
            entry = 0b1111 << ENTRY_SHIFT | kind | write
            assert [k for k in kinds if entry & KIND_MASK == k] == [kind]
