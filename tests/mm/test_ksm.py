# SPDX-License-Identifier: GPL-2.0-only
"""Kernel same-page merging."""

import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.madvise import madvise
from rmaplab.mm.migrate import migrate_folio
from rmaplab.mm.mm import Mm
from rmaplab.mm.rmap import folio_referenced, visits
from rmaplab.mm.stable_node import folio_test_ksm
from rmaplab.mm.zap import zap_range
from tests.support.builders import RW, folio_at, link, move
from tests.support.walks import contents_kernel, finish, kind, load, made, store, swap_out

MERGEABLE = RW | fl.VM_MERGEABLE


@pytest.fixture
def kernel() -> Kernel:
    return contents_kernel()


def equal(kernel: Kernel, *pages: int) -> Mm:
    """A mergeable VMA in which `pages` hold the same."""
    mm = made(kernel, flags=MERGEABLE)
    for page in pages:
        store(mm, page, 7)
    return mm


def merge(one: Mm, page: int, other: Mm, other_page: int) -> bool:
    return one.kernel.ksm.merge(one, page << 12, other, other_page << 12)


def test_two_pages_become_one(kernel: Kernel) -> None:
    """try_to_merge_two_pages: write-protected, not exclusive, the second page is freed."""
    one, other = equal(kernel, 0x10), equal(kernel, 0x13)
    assert merge(one, 0x10, other, 0x13)
    folio = folio_at(one, 0x10)
    assert folio_at(other, 0x13) is folio
    assert folio_test_ksm(folio)
    assert (folio.mapcount, folio.exclusive, kernel.mem.live) == (2, 0, 7)
    assert kind(one, 0x10) == kind(other, 0x13) == "present"
    finish(kernel, one, other)


def test_third_page_joins_the_stable_node(kernel: Kernel) -> None:
    """try_to_merge_with_ksm_page, whichever way round it is asked"""
    mm, other = equal(kernel, 0x10, 0x11, 0x12), equal(kernel, 0x10)
    assert merge(mm, 0x10, mm, 0x11)
    assert merge(mm, 0x12, mm, 0x11)
    assert merge(mm, 0x10, other, 0x10)
    node = folio_at(mm, 0x10).mapping
    assert folio_at(mm, 0x10).mapcount == 4
    assert [(item.mm, item.address >> 12) for item in node.items] == [(mm, 0x10), (mm, 0x11), (mm, 0x12), (other, 0x10)]
    assert kernel.ksm.nodes == {node}
    finish(kernel, mm, other)


@pytest.mark.parametrize("flags", [RW, MERGEABLE])
def test_what_is_not_merged(kernel: Kernel, flags: int) -> None:
    """find_mergeable_vma, pages_identical"""
    mm = made(kernel, flags=flags)
    if flags == RW:
        store(mm, 0x11, 0x10)
    assert not merge(mm, 0x10, mm, 0x11)
    assert not merge(mm, 0x10, mm, 0x10)
    assert not merge(mm, 0x10, mm, 0x50)
    assert not kernel.ksm.items
    finish(kernel, mm)


def test_pinned_page_is_not_merged(kernel: Kernel) -> None:
    """write_protect_page: page_count is raised. The first page, merged already, is given back (break_cow)."""
    mm = equal(kernel, 0x10, 0x11)
    folio = folio_at(mm, 0x11)
    folio.refs += 1
    assert not merge(mm, 0x10, mm, 0x11)
    folio.refs -= 1
    assert not folio_test_ksm(folio_at(mm, 0x10))
    assert (load(mm, 0x10), kind(mm, 0x10)) == (7, "present w")
    finish(kernel, mm)


def test_write_copies_even_for_the_last_user(kernel: Kernel) -> None:
    """wp_can_reuse_anon_folio refuses a KSM folio; the copy has an anon_vma and an index again."""
    mm = equal(kernel, 0x10, 0x11)
    merge(mm, 0x10, mm, 0x11)
    ksm_folio = folio_at(mm, 0x10)
    store(mm, 0x11, 8)
    assert ksm_folio.mapcount == 1
    store(mm, 0x10, 9)
    assert kernel.mem.pages[ksm_folio.pfn] is not ksm_folio
    assert (load(mm, 0x10), load(mm, 0x11)) == (9, 8)
    assert (folio_at(mm, 0x11).mapping, folio_at(mm, 0x11).index) == (mm.vmas[0].anon_vma, 0x11)
    finish(kernel, mm)


def test_page_shared_by_fork_becomes_ksm_for_both(kernel: Kernel) -> None:
    """try_to_merge_one_page with page == kpage ("ksm page forked"): the relative's entry gets an item of its own."""
    mm = equal(kernel, 0x10, 0x11)
    child = dup_mm(mm)
    merge(mm, 0x10, mm, 0x11)
    assert folio_at(child, 0x10) is folio_at(mm, 0x10)
    assert folio_at(child, 0x11) is not folio_at(mm, 0x11)
    assert folio_referenced(kernel, folio_at(mm, 0x10)) == 3
    assert merge(mm, 0x10, child, 0x11)
    kernel.ksm.adopt(child, 0x10000)
    assert folio_at(mm, 0x10).mapcount == 4
    finish(kernel, mm, child)


def test_walk_finds_what_was_forked_since(kernel: Kernel) -> None:
    """rmap_walk_ksm: first the mm of each item, then the others that are linked with its anon_vma."""
    mm = equal(kernel, 0x10, 0x11)
    merge(mm, 0x10, mm, 0x11)
    child = dup_mm(mm)
    folio = folio_at(mm, 0x10)
    assert [(vma.vm_mm, at >> 12) for vma, at in visits(kernel, folio)] == [
        (mm, 0x10),
        (mm, 0x11),
        (child, 0x10),
        (child, 0x11),
    ]
    assert migrate_folio(kernel, folio)
    assert [load(child, 0x10), load(mm, 0x11)] == [7, 7]
    assert folio_at(child, 0x10).mapping.folio is folio_at(mm, 0x11)
    finish(kernel, mm, child)


def test_walk_compares_addresses_not_offsets(kernel: Kernel) -> None:
    """A VMA of the same anon_vma at another offset covers the address: visited, if in vain."""
    mm = kernel.mm_alloc()
    link(mm, 0x10, 0x14, MERGEABLE)
    for page in range(0x10, 0x14):
        store(mm, page, 7)
    merge(mm, 0x12, mm, 0x13)
    child = dup_mm(mm)
    move(child, 0x10, 0x12, 0x60)
    zap_range(child, 0x12000, 0x14000)
    folio = folio_at(mm, 0x12)
    assert {vma.vm_mm for vma, _ in visits(kernel, folio)} == {mm, child}
    assert folio_referenced(kernel, folio) == 2
    finish(kernel, mm, child)


def test_hook_11_pins_the_anon_vma(kernel: Kernel) -> None:
    """get_anon_vma in try_to_merge_with_ksm_page: it outlives its last VMA, until ksmd forgets the page."""
    mm = equal(kernel, 0x10, 0x11)
    merge(mm, 0x10, mm, 0x11)
    move(mm, 0x12, 0x14, 0x40)  # something else
    anon_vma = mm.vmas[0].anon_vma
    assert anon_vma.refcount == 3
    zap_range(mm, 0x10000, 0x11000)
    kernel.ksm.scan()
    assert anon_vma.refcount == 2
    exit_mmap(mm)
    assert (kernel.anon_vma.live, kernel.ksm.items) == (0, {})


def test_unmergeable_gives_pages_back(kernel: Kernel) -> None:
    """unmerge_ksm_pages, only in the range"""
    mm = equal(kernel, 0x10, 0x11, 0x12)
    merge(mm, 0x10, mm, 0x11)
    merge(mm, 0x10, mm, 0x12)
    madvise(mm, 0x10000, 0x2000, fl.MADV_UNMERGEABLE)
    assert [folio_test_ksm(folio_at(mm, page)) for page in (0x10, 0x11, 0x12)] == [False, False, True]
    assert (kind(mm, 0x10), load(mm, 0x11)) == ("present w", 7)
    finish(kernel, mm)


def test_mremap_unmerges_first(kernel: Kernel) -> None:
    """move_vma calls ksm_madvise(MADV_UNMERGEABLE): rmap items would keep the old addresses."""
    mm = equal(kernel, 0x10, 0x11)
    merge(mm, 0x10, mm, 0x11)
    move(mm, 0x10, 0x11, 0x40)
    assert not folio_test_ksm(folio_at(mm, 0x40))
    assert load(mm, 0x40) == 7
    finish(kernel, mm)


def test_ksm_page_is_swapped_out_and_comes_back_apart(kernel: Kernel) -> None:
    """ksm_might_need_to_copy: one slot, read at several indices; only the first reader may keep the folio."""
    one, other = equal(kernel, 0x10), equal(kernel, 0x13)
    merge(one, 0x10, other, 0x13)
    swap_out(one, 0x10)
    assert kernel.swap.counts == {1: 2}
    assert (load(one, 0x10), load(other, 0x13)) == (7, 7)
    assert not folio_test_ksm(folio_at(one, 0x10))
    assert folio_at(one, 0x10) is not folio_at(other, 0x13)
    assert (folio_at(one, 0x10).index, folio_at(other, 0x13).index) == (0x10, 0x13)
    finish(kernel, one, other)


def test_ksm_page_in_the_swap_cache_stays_one(kernel: Kernel) -> None:
    """ksm_might_need_to_copy: PageKsm with its stable node needs no copy."""
    one, other = equal(kernel, 0x10), equal(kernel, 0x13)
    merge(one, 0x10, other, 0x13)
    (folio,) = swap_out(one, 0x10, writeback=True)
    assert (load(one, 0x10), load(other, 0x13)) == (7, 7)
    assert folio_at(one, 0x10) is folio_at(other, 0x13) is folio
    assert kind(one, 0x10) == "present"
    finish(kernel, one, other)


def test_large_folio_is_split_first(kernel: Kernel) -> None:
    """try_to_merge_one_page: split_huge_page"""
    kernel = contents_kernel(thp="always")
    mm = kernel.mm_alloc()
    link(mm, 512, 1024, MERGEABLE)
    store(mm, 512, 7)
    store(mm, 700, 7)
    assert merge(mm, 512, mm, 700)
    assert folio_at(mm, 512) is folio_at(mm, 700)
    assert folio_at(mm, 513).nr_pages == 1
    finish(kernel, mm)


def test_hook_6_and_9_do_not_see_ksm_folios(kernel: Kernel) -> None:
    """Their mapping is not the design's."""
    mm = equal(kernel, 0x10, 0x11)
    merge(mm, 0x10, mm, 0x11)
    seen = []
    hooks = kernel.hooks
    hooks.try_dup_anon_rmap = lambda folio, vma, pvma: seen.append(folio)  # type: ignore[method-assign]
    child = dup_mm(mm)
    assert {folio.index for folio in seen} == {0x12, 0x13}
    finish(kernel, mm, child)


def test_page_merged_while_in_the_swap_cache(kernel: Kernel) -> None:
    """Its slot was given to it as an ordinary page; what is read back from it must still be copied."""
    mm = equal(kernel, 0x10, 0x11)
    child = dup_mm(mm)
    swap_out(mm, 0x10, writeback=True)
    load(mm, 0x10)  # mapped, and the child still names the slot
    assert merge(mm, 0x10, mm, 0x11)
    swap_out(mm, 0x10)
    assert (load(child, 0x10), load(mm, 0x10), load(mm, 0x11)) == (7, 7, 7)
    assert folio_at(mm, 0x10) is not folio_at(mm, 0x11)
    finish(kernel, mm, child)
