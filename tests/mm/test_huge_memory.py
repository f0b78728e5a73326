# SPDX-License-Identifier: GPL-2.0-only
"""split_huge_page_to_list_to_order."""

import pytest

from rmaplab.mm.fork import dup_mm
from rmaplab.mm.huge_memory import split_folio
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.zap import zap_range
from tests.support.builders import folio_at, link, move
from tests.support.walks import contents_kernel, fill, finish, kind, load, store, swap_out


@pytest.fixture
def kernel() -> Kernel:
    return contents_kernel(thp="always")


@pytest.fixture
def mm(kernel: Kernel) -> Mm:
    mm = kernel.mm_alloc()
    link(mm, 512, 1024)
    fill(mm, 512, 1024)
    return mm


def test_each_page_becomes_a_folio(mm: Mm, kernel: Kernel) -> None:
    """__split_huge_page_tail: mapping of the head, index of its own; what was exclusive stays so."""
    head = folio_at(mm, 512)
    assert split_folio(kernel, head)
    assert folio_at(mm, 512) is head
    tail = folio_at(mm, 700)
    assert (tail.nr_pages, tail.index, tail.mapping, tail.mapcount) == (1, 700, head.mapping, 1)
    assert (tail.exclusive, tail.refs, kind(mm, 700)) == (1, 0, "present w")
    assert [load(mm, page) for page in range(512, 1024)] == list(range(512, 1024))
    finish(kernel, mm)


def test_all_sharers_are_remapped(mm: Mm, kernel: Kernel) -> None:
    """unmap_folio and remap_page reach every process, mapped by PMD here and by entries there."""
    child = dup_mm(mm)
    store(child, 600, 5)
    assert isinstance(mm.pgd[1], int)
    assert split_folio(kernel, folio_at(mm, 512))
    assert folio_at(mm, 700) is folio_at(child, 700)
    assert (folio_at(mm, 700).mapcount, folio_at(mm, 600).mapcount) == (2, 1)
    assert (load(mm, 600), load(child, 600)) == (600, 5)
    finish(kernel, mm, child)


def test_pages_that_nothing_maps_are_freed(mm: Mm, kernel: Kernel) -> None:
    """free_folio_and_swap_cache for each subpage: what deferred_split_scan is for."""
    zap_range(mm, 513 << 12, 1024 << 12)
    assert kernel.mem.live == 512
    assert split_folio(kernel, folio_at(mm, 512))
    assert kernel.mem.live == 1
    finish(kernel, mm)


def test_folio_that_spans_two_vmas(mm: Mm, kernel: Kernel) -> None:
    """A part was moved: the walk visits both VMAs under one lock."""
    move(mm, 768, 1024, 2048)
    assert split_folio(kernel, folio_at(mm, 512))
    assert (load(mm, 2048), load(mm, 767)) == (768, 767)
    assert folio_at(mm, 2048).index == 768
    finish(kernel, mm)


def test_pinned_folio_is_not_split(mm: Mm, kernel: Kernel) -> None:
    """can_split_folio: -EAGAIN before anything is unmapped"""
    folio = folio_at(mm, 512)
    folio.refs += 1
    assert not split_folio(kernel, folio)
    assert isinstance(mm.pgd[1], int)
    assert mm.vmas[0].anon_vma.refcount == 1  # put_anon_vma
    folio.refs -= 1
    finish(kernel, mm)


def test_unmapped_folio_is_not_split(mm: Mm, kernel: Kernel) -> None:
    """folio_get_anon_vma fails: -EBUSY"""
    (folio,) = swap_out(mm, 512, writeback=True)
    assert not split_folio(kernel, folio)
    finish(kernel, mm)


def test_hook_16_is_held_over_the_split(mm: Mm, kernel: Kernel) -> None:
    """anon_vma_lock_write between get and put"""
    before = kernel.locks.counts()["anon_vma_write"]
    assert split_folio(kernel, folio_at(mm, 512))
    assert kernel.locks.counts()["anon_vma_write"] == before + 1
    finish(kernel, mm)
