# SPDX-License-Identifier: GPL-2.0-only
"""collapse_huge_page."""

import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.khugepaged import MAX_PTES_SHARED, MAX_PTES_SWAP, collapse_huge_page
from rmaplab.mm.mm import Mm
from rmaplab.mm.protect import mprotect
from rmaplab.mm.vmscan import shrink_folio
from rmaplab.mm.zap import zap_range
from tests.support.builders import RW, folio_at, link
from tests.support.walks import contents_kernel, fill, finish, load, store, swap_out

HUGE = RW | fl.VM_HUGEPAGE


@pytest.fixture
def kernel() -> Kernel:
    return contents_kernel()


@pytest.fixture
def mm(kernel: Kernel) -> Mm:
    """Small pages in the first part of 2 MiB"""
    mm = kernel.mm_alloc()
    vma = link(mm, 512, 1024)
    fill(mm, 512, 900)
    vma.vm_flags |= fl.VM_HUGEPAGE
    return mm


def collapse(mm: Mm) -> bool:
    return collapse_huge_page(mm, 512 << 12)


def test_pages_become_one_folio_and_holes_zeroes(mm: Mm, kernel: Kernel) -> None:
    """folio_add_new_anon_rmap of the new folio; __collapse_huge_page_copy frees the old ones."""
    assert collapse(mm)
    folio = folio_at(mm, 512)
    assert isinstance(mm.pgd[1], int)
    assert (folio.nr_pages, folio.index, folio.mapcount, kernel.mem.live) == (512, 512, 1, 512)
    assert [load(mm, page) for page in (512, 899, 900)] == [512, 899, 0]
    finish(kernel, mm)


def test_shared_pages_are_copied(mm: Mm, kernel: Kernel) -> None:
    """Up to khugepaged_max_ptes_shared; the child keeps them."""
    child = dup_mm(mm)
    fill(mm, 512, 900 - MAX_PTES_SHARED)
    store(mm, 512, 5)
    assert collapse(mm)
    assert (load(mm, 512), load(child, 512), load(child, 899)) == (5, 512, 899)
    assert folio_at(child, 899).mapcount == 1
    finish(kernel, mm, child)


def test_too_many_shared_pages(mm: Mm, kernel: Kernel) -> None:
    """SCAN_EXCEED_SHARED_PTE: the page table is put back (pmd_populate)."""
    child = dup_mm(mm)
    fill(mm, 512, 900 - MAX_PTES_SHARED - 1)
    assert not collapse(mm)
    assert load(mm, 899) == 899
    finish(kernel, mm, child)


def test_read_only_pages_are_left(mm: Mm, kernel: Kernel) -> None:
    """SCAN_PAGE_RO"""
    mprotect(mm, 512 << 12, 512 << 12, fl.PROT_READ)
    assert not collapse(mm)
    finish(kernel, mm)


def test_swapped_pages_are_read_first(mm: Mm, kernel: Kernel) -> None:
    """__collapse_huge_page_swapin, up to khugepaged_max_ptes_swap"""
    swap_out(mm, *range(512, 512 + MAX_PTES_SWAP))
    assert collapse(mm)
    assert (load(mm, 512), kernel.swap.counts) == (512, {})
    finish(kernel, mm)


def test_too_many_swapped_pages(mm: Mm, kernel: Kernel) -> None:
    swap_out(mm, *range(512, 513 + MAX_PTES_SWAP))
    assert not collapse(mm)
    finish(kernel, mm)


def test_pinned_page_is_in_the_way(mm: Mm, kernel: Kernel) -> None:
    """is_refcount_suitable"""
    folio = folio_at(mm, 600)
    folio.refs += 1
    assert not collapse(mm)
    folio.refs -= 1
    assert load(mm, 600) == 600
    finish(kernel, mm)


def test_page_in_the_swap_cache_is_no_obstacle(mm: Mm, kernel: Kernel) -> None:
    """Its slot goes with it."""
    vma = mm.vmas[0]
    vma.vm_flags |= fl.VM_LOCKED
    shrink_folio(kernel, folio_at(mm, 600))  # gets into the swap cache, and stays mapped
    vma.vm_flags &= ~fl.VM_LOCKED
    assert kernel.swap.cache
    assert collapse(mm)
    assert (kernel.swap.counts, load(mm, 600)) == ({}, 600)
    finish(kernel, mm)


def test_rest_of_a_split_up_huge_page(kernel: Kernel) -> None:
    """Entries of a large folio are dropped one by one; the folio goes with the last."""
    mm = kernel.mm_alloc()
    link(mm, 512, 1024, HUGE)
    fill(mm, 512, 514)
    old = folio_at(mm, 512)
    zap_range(mm, 1000 << 12, 1024 << 12)
    assert collapse(mm)
    assert folio_at(mm, 512) is not old
    assert (load(mm, 513), kernel.mem.live) == (513, 512)
    finish(kernel, mm)


@pytest.mark.parametrize("last", [1000, 1024])
def test_vma_must_allow_it(kernel: Kernel, last: int) -> None:
    """hugepage_vma_revalidate: covers the 2 MiB, and VM_HUGEPAGE or thp=always"""
    mm = kernel.mm_alloc()
    link(mm, 512, last, HUGE if last == 1000 else RW)
    fill(mm, 512, 520)
    assert not collapse(mm)
    finish(kernel, mm)


def test_hook_13_is_held_while_the_page_table_is_gone(mm: Mm, kernel: Kernel) -> None:
    """anon_vma_lock_write around pmdp_collapse_flush, with the mmap lock and the VMA lock for writing"""
    before = kernel.locks.counts()
    assert collapse(mm)
    after = kernel.locks.counts()
    assert {kind: after[kind] - before[kind] for kind in ("anon_vma_write", "mmap_write", "vma_write")} == {
        "anon_vma_write": 1,
        "mmap_write": 1,
        "vma_write": 1,
    }
    finish(kernel, mm)
