# SPDX-License-Identifier: GPL-2.0-only
"""Swap slots, the swap cache, do_swap_page."""

import pytest

from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.mm import flags as fl
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.folio import Folio
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.huge_memory import split_folio
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.madvise import madvise
from rmaplab.mm.mlock import mlock
from rmaplab.mm.protect import mprotect
from rmaplab.mm.vma import Vma
from rmaplab.mm.zap import zap_range
from tests.support.builders import RW, folio_at, link, move
from tests.support.walks import contents_kernel, fill, finish, kind, load, made, slot, store, swap_out


@pytest.fixture
def kernel() -> Kernel:
    return contents_kernel()


def test_read_of_the_only_entry_skips_the_swap_cache(kernel: Kernel) -> None:
    """do_swap_page, SWP_SYNCHRONOUS_IO with a swap count of 1: a fresh page, certainly exclusive, and so writable even
    after a read."""
    mm = made(kernel)
    swap_out(mm, 0x10)
    assert (kernel.mem.live, kind(mm, 0x10)) == (3, "swap x")
    assert load(mm, 0x10) == 0x10
    assert kind(mm, 0x10) == "present w"
    assert not kernel.swap.counts
    finish(kernel, mm)


def test_read_of_a_shared_entry_fills_the_swap_cache(kernel: Kernel) -> None:
    """The second reader maps the first one's folio (swapin_readahead); neither may write to it."""
    mm = made(kernel)
    child = dup_mm(mm)
    swap_out(mm, 0x10)
    assert (kind(mm, 0x10), kind(child, 0x10), kernel.swap.counts) == ("swap", "swap", {1: 2})
    assert load(child, 0x10) == 0x10
    folio = folio_at(child, 0x10)
    assert (folio.mapcount, folio.refs, folio.exclusive, kernel.swap.counts) == (1, 1, 0, {1: 1})
    assert load(mm, 0x10) == 0x10
    assert folio_at(mm, 0x10) is folio
    assert kind(mm, 0x10) == kind(child, 0x10) == "present"
    assert kernel.swap.counts == {1: 0}  # nobody needs it, but the folio is still there
    finish(kernel, mm, child)


def test_page_that_may_be_shared_names_the_root(kernel: Kernel) -> None:
    """folio_add_new_anon_rmap without RMAP_EXCLUSIVE: __folio_set_anon takes the root, in which all sharers are."""
    mm = made(kernel)
    child = dup_mm(mm)
    swap_out(mm, 0x10)
    load(child, 0x10)
    assert folio_at(child, 0x10).mapping is mm.vmas[0].anon_vma
    assert child.vmas[0].anon_vma is not mm.vmas[0].anon_vma
    finish(kernel, mm, child)


def test_write_takes_the_last_copy_over(kernel: Kernel) -> None:
    """should_try_to_free_swap: the writer is the last, so the page leaves the swap cache and is his."""
    mm = made(kernel)
    child = dup_mm(mm)
    swap_out(mm, 0x10, writeback=True)
    zap_range(mm, 0x10000, 0x11000)
    folio = kernel.swap.cache[1]
    store(child, 0x10, 5)
    assert folio_at(child, 0x10) is folio
    assert (kind(child, 0x10), folio.refs, kernel.swap.counts) == ("present w", 0, {})
    finish(kernel, mm, child)


def test_write_to_a_shared_swap_entry_copies(kernel: Kernel) -> None:
    """do_swap_page maps it read-only, then do_wp_page copies: the parent's slot still holds the old contents."""
    mm = made(kernel)
    child = dup_mm(mm)
    swap_out(mm, 0x10)
    store(child, 0x10, 5)
    assert (load(child, 0x10), load(mm, 0x10)) == (5, 0x10)
    finish(kernel, mm, child)


def test_write_to_a_page_whose_swap_nobody_needs(kernel: Kernel) -> None:
    """wp_can_reuse_anon_folio: folio_free_swap drops the swap cache's reference, so no copy is made."""
    mm = made(kernel)
    child = dup_mm(mm)
    swap_out(mm, 0x10)
    load(mm, 0x10)
    zap_range(child, 0x10000, 0x11000)
    folio = folio_at(mm, 0x10)
    assert (folio.refs, kernel.swap.counts) == (1, {1: 0})
    store(mm, 0x10, 5)
    assert folio_at(mm, 0x10) is folio
    assert (folio.refs, kernel.swap.counts) == (0, {})
    finish(kernel, mm, child)


def test_fork_makes_both_entries_shared(kernel: Kernel) -> None:
    """copy_nonpresent_pte: swap_duplicate, and pte_swp_clear_exclusive in the parent too."""
    mm = made(kernel)
    swap_out(mm, 0x10)
    child = dup_mm(mm)
    assert (kind(mm, 0x10), kind(child, 0x10), kernel.swap.counts[1]) == ("swap", "swap", 2)
    store(mm, 0x10, 5)
    assert load(child, 0x10) == 0x10
    finish(kernel, mm, child)


def test_zap_of_the_last_entry_frees_slot_and_cached_folio(kernel: Kernel) -> None:
    """free_swap_and_cache with __try_to_reclaim_swap"""
    mm = made(kernel)
    swap_out(mm, 0x10, writeback=True)
    assert kernel.mem.live == 4
    zap_range(mm, 0x10000, 0x11000)
    assert (kernel.mem.live, kernel.swap.counts, kernel.swap.cache) == (3, {}, {})
    finish(kernel, mm)


def test_zap_of_the_last_mapping_frees_a_cached_folio(kernel: Kernel) -> None:
    """free_folio_and_swap_cache at the end of an unmap"""
    mm = made(kernel)
    child = dup_mm(mm)
    swap_out(mm, 0x10)
    load(mm, 0x10)
    exit_mmap(child)
    assert kernel.swap.counts == {1: 0}
    exit_mmap(mm)
    assert (kernel.mem.live, kernel.swap.counts) == (0, {})


def test_mremap_moves_swap_entries(kernel: Kernel) -> None:
    """move_ptes moves whatever is there; the index moves with the VMA, so a later swap-in sets the right one."""
    mm = made(kernel)
    swap_out(mm, 0x10, 0x12)
    move(mm, 0x10, 0x14, 0x40)
    assert (kind(mm, 0x40), kind(mm, 0x10)) == ("swap x", "none")
    assert (load(mm, 0x40), load(mm, 0x42)) == (0x10, 0x12)
    assert folio_at(mm, 0x40).index == 0x10
    finish(kernel, mm)


def test_exclusive_bit_is_not_taken_for_write(kernel: Kernel) -> None:
    """Both are bit 1 of the entry. mprotect leaves a swap entry alone; a read then may not make it writable."""
    mm = made(kernel)
    swap_out(mm, 0x10)
    mprotect(mm, 0x10000, 0x4000, fl.PROT_READ)
    assert kind(mm, 0x10) == "swap x"
    assert load(mm, 0x10) == 0x10
    assert kind(mm, 0x10) == "present"
    assert folio_at(mm, 0x10).exclusive == 1
    finish(kernel, mm)


def test_mlock_brings_pages_back(kernel: Kernel) -> None:
    """populate_vma_page_range, and VM_LOCKED frees the slot (should_try_to_free_swap)."""
    mm = made(kernel)
    child = dup_mm(mm)
    swap_out(mm, 0x10)
    load(child, 0x10)
    mlock(mm, 0x10000, 0x1000)
    assert kind(mm, 0x10) == "present w"
    finish(kernel, mm, child)


def test_guard_marker_is_not_swapped_in(kernel: Kernel) -> None:
    """handle_pte_marker: no page behind it"""
    mm = made(kernel)
    madvise(mm, 0x10000, 0x1000, fl.MADV_GUARD_INSTALL)
    swap_out(mm, 0x11)
    assert load(mm, 0x10) is None
    finish(kernel, mm)


def test_large_folio_in_the_swap_cache() -> None:
    """One folio, 512 slots; pages come back one by one, and a split gives each page its slot."""
    kernel = contents_kernel(thp="always")
    mm = kernel.mm_alloc()
    link(mm, 512, 1024)
    fill(mm, 512, 1024)
    (folio,) = swap_out(mm, 512, writeback=True)
    assert (folio.nr_pages, folio.refs, folio.mapcount, len(kernel.swap.counts)) == (512, 1, 0, 512)
    assert (load(mm, 600), load(mm, 601)) == (600, 601)
    assert folio_at(mm, 600) is folio
    assert slot(mm, 599) + 2 == slot(mm, 602) - 1 == kernel.swap.slot_of[folio] + 89
    assert split_folio(kernel, folio)
    small = folio_at(mm, 600)
    assert (small.nr_pages, small.mapcount, kernel.swap.cache[kernel.swap.slot_of[small]]) == (1, 1, small)
    assert [load(mm, page) for page in range(512, 1024)] == list(range(512, 1024))
    finish(kernel, mm)


def test_hook_10_is_called_for_a_folio_that_kept_its_mapping() -> None:
    """folio_add_anon_rmap_ptes rather than folio_add_new_anon_rmap"""
    calls: list[tuple[int, bool]] = []

    class Spy(AnonVmaDesign):
        def folio_swapped_in(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
            calls.append((address, exclusive))

    kernel = contents_kernel(Spy())
    mm = made(kernel)
    child = dup_mm(mm)
    swap_out(mm, 0x10, 0x11, writeback=True)
    swap_out(mm, 0x12)
    load(child, 0x10)
    load(mm, 0x12)  # read from swap: set anew
    assert calls == [(0x10000, False)]
    exit_mmap(child)
    load(mm, 0x11)
    assert calls[1:] == [(0x11000, False)]
    finish(kernel, mm)


def test_hook_10_may_ask_for_a_copy() -> None:
    """ksm_might_need_to_copy"""

    class Copier(AnonVmaDesign):
        def swapin_needs_copy(self, folio: Folio, vma: Vma) -> bool:
            return True

    kernel = contents_kernel(Copier())
    mm = made(kernel)
    (folio,) = swap_out(mm, 0x10, writeback=True)
    assert load(mm, 0x10) == 0x10
    assert folio_at(mm, 0x10) is not folio
    assert kind(mm, 0x10) == "present w"
    assert kernel.mem.live == 4  # the original is gone
    finish(kernel, mm)


def test_replay_kernels_keep_the_short_paths() -> None:
    """Nothing is special until something was swapped out."""
    kernel = Kernel(AnonVmaDesign())
    mm = kernel.mm_alloc()
    link(mm, 0x10, 0x14, RW, fault=True)
    assert not kernel.special
    swap_out(mm, 0x10)
    assert kernel.special
    finish(kernel, mm)
