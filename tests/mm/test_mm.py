# SPDX-License-Identifier: GPL-2.0-only
import pytest

from rmaplab.mm.mm import Mm
from rmaplab.mm.pagetable import ENTRY_SHIFT, PRESENT
from tests.support.builders import layout, link, make_kernel, write


@pytest.fixture
def mm() -> Mm:
    mm = make_kernel().mm_alloc()
    for first, last in ((2, 4), (4, 5), (8, 10)):
        link(mm, first, last)
    return mm


@pytest.mark.parametrize(
    ("page", "found", "found_or_next"),
    [(0, None, 0), (2, 0, 0), (3, 0, 0), (4, 1, 1), (5, None, 2), (9, 2, 2), (10, None, None)],
)
def test_lookup(mm: Mm, page: int, found: int | None, found_or_next: int | None) -> None:
    """vma_lookup wants the address inside, find_vma takes the next VMA too."""

    def nth(index: int | None) -> object:
        return None if index is None else mm.vmas[index]

    assert mm.vma_lookup(page << 12) is nth(found)
    assert mm.find_vma(page << 12) is nth(found_or_next)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(0, 2, []), (0, 3, [0]), (3, 5, [0, 1]), (4, 8, [1]), (5, 8, []), (0, 99, [0, 1, 2]), (9, 10, [2])],
)
def test_vmas_in_a_range(mm: Mm, first: int, last: int, expected: list[int]) -> None:
    """A VMA that only touches the range, or one that overlaps it and is missed."""
    assert mm.vmas_in(first << 12, last << 12) == [mm.vmas[i] for i in expected]


def test_neighbours_of_a_hole(mm: Mm) -> None:
    a, b, c = mm.vmas
    assert mm.neighbours(5 << 12, 8 << 12) == (b, c)
    assert mm.neighbours(0, 2 << 12) == (None, a)
    assert mm.neighbours(10 << 12, 12 << 12) == (c, None)


def test_prev_next_of_a_vma(mm: Mm) -> None:
    a, b, c = mm.vmas
    assert mm.prev_next(a) == (None, b)
    assert mm.prev_next(b) == (a, c)
    assert mm.prev_next(c) == (b, None)


def test_remove_and_resize_keep_the_index(mm: Mm) -> None:
    a, b, c = mm.vmas
    mm.remove(b)
    mm.resize(c, 6 << 12, 10 << 12, 6)
    mm.check()
    assert mm.vmas == [a, c]
    assert layout(mm) == [(2, 4, 2), (6, 10, 6)]
    assert mm.vma_lookup(6 << 12) is c


def test_anon_entries_lists_all() -> None:
    mm = make_kernel(thp="always").mm_alloc()
    link(mm, 512, 1024)
    link(mm, 1, 3)
    write(mm, 512, 1, 2)
    assert sorted(vpn for vpn, _ in mm.anon_entries()) == [1, 2, 512]


def test_check_finds_overlap(mm: Mm) -> None:
    """check() must be able to fail: every other test leans on it."""
    mm.vmas[0].vm_end = 5 << 12
    with pytest.raises(AssertionError, match="overlaps"):
        mm.check()


def test_check_finds_stale_index(mm: Mm) -> None:
    mm.vmas[0].vm_start = 1 << 12
    with pytest.raises(AssertionError):
        mm.check()


@pytest.mark.parametrize("table", [{5: 1 << ENTRY_SHIFT | PRESENT}, 1 << ENTRY_SHIFT | PRESENT])
def test_check_finds_entry_outside_a_vma(mm: Mm, table: dict[int, int] | int) -> None:
    mm.pgd[0] = table
    with pytest.raises(AssertionError, match="outside"):
        mm.check()
